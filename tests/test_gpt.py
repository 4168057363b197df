"""The language model over words and image tokens: both orders, the cache, what it draws."""

import math

import pytest
import torch
import torch.nn.functional as F

from fastgen_course.datasets.captions import CaptionError, attributes_of, encode_words
from fastgen_course.datasets.scenes import all_labels, captions_of
from fastgen_course.models.gpt import GPT, IGNORE, describe_sequences, draw_sequences
from fastgen_course.models.transformer import Attention, KVCache, TransformerConfig
from fastgen_course.sampling.gpt import (
    describe_tokens,
    description_log_likelihoods,
    pick,
    sample_gpt,
    token_log_likelihoods,
)

CONFIG = TransformerConfig(width=32, layers=2, heads=2, image_tokens=9, codes=20)
CAPTIONS = ["a small red sneaker on a white background", "a blue bag", "trousers, sketch style"]


def _gpt(seed=0, scale=8.0):
    torch.manual_seed(seed)
    model = GPT(CONFIG).eval()
    with torch.no_grad():  # fresh weights give nearly equal shares; larger ones have opinions
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(scale)
    return model


def test_attention_is_softmax_of_scaled_products_over_the_past():
    torch.manual_seed(1)
    attention = Attention(CONFIG)
    x = torch.randn(2, 5, 32)
    q, k, v = attention.qkv(x).split(32, 2)
    heads = []
    for h in range(2):
        part = slice(16 * h, 16 * h + 16)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(16)
        future = torch.ones(5, 5, dtype=torch.bool).triu(1)
        heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[..., part])
    expected = attention.out(torch.cat(heads, -1))
    assert torch.allclose(attention(x, None), expected, atol=1e-5)


def test_both_orders_predict_the_other_half_and_nothing_else():
    words = encode_words(CAPTIONS)
    tokens = torch.randint(20, (3, 9))
    draw = draw_sequences(CONFIG, words, tokens)
    for row in range(3):
        wanted = draw.targets[row][draw.targets[row] != IGNORE]
        assert torch.equal(wanted, CONFIG.first_code + tokens[row])
        n = int((words[row] != 0).sum())
        assert draw.ids[row, 0] == CONFIG.draw
        assert torch.equal(draw.ids[row, 1 : 1 + n], words[row, :n])
        # The first token is predicted from the last word, the next from the token before.
        assert draw.targets[row, n] == CONFIG.first_code + tokens[row, 0]
        assert draw.positions[row, n + 1] == CONFIG.first_image_position
    describe = describe_sequences(CONFIG, words, tokens)
    for row in range(3):
        wanted = describe.targets[row][describe.targets[row] != IGNORE].tolist()
        assert wanted == [*words[row][words[row] != 0].tolist(), CONFIG.end]


def test_a_caption_dropped_leaves_the_picture_behind_the_sign():
    words = encode_words(CAPTIONS)
    words[1] = 0
    tokens = torch.randint(20, (3, 9))
    draw = draw_sequences(CONFIG, words, tokens)
    assert torch.equal(draw.ids[1, 1:9], CONFIG.first_code + tokens[1, :8])
    assert draw.targets[1, 0] == CONFIG.first_code + tokens[1, 0]


def test_padding_behind_the_picture_changes_nothing():
    model = _gpt()
    words = encode_words(CAPTIONS)
    tokens = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(2))
    together = token_log_likelihoods(model, words, tokens)
    for row in range(3):
        n = int((words[row] != 0).sum())
        alone = token_log_likelihoods(model, words[row : row + 1, :n], tokens[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_cache_draws_the_same_tokens_as_reading_everything_again(guidance):
    model = _gpt(3)
    noise = torch.rand(3, 9, generator=torch.Generator().manual_seed(4))
    fast = sample_gpt(model, CAPTIONS, noise, guidance=guidance)
    slow = sample_gpt(model, CAPTIONS, noise, guidance=guidance, cached=False)
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 3


def test_samples_follow_the_models_own_likelihood():
    model = _gpt(5, scale=3.0)
    captions = [CAPTIONS[0]] * 4000
    tokens = sample_gpt(model, captions, generator=torch.Generator().manual_seed(6))
    logs = token_log_likelihoods(model, [CAPTIONS[0]], torch.zeros(1, 9, dtype=torch.int64))
    first = torch.bincount(tokens[:, 0], minlength=20) / 4000
    assert abs(float(logs[0, 0].exp()) - float(first[0])) < 0.03
    # Mean log-likelihood of samples is minus the entropy; the entropy of each step bounds it.
    mean = token_log_likelihoods(model, captions[:500], tokens[:500]).mean()
    assert -math.log(20) - 0.1 < mean < 0


def test_pick_inverts_the_distribution_function():
    shares = torch.tensor([0.5, 0.2, 0.3])
    uniform = torch.linspace(0, 0.9999, 10_000)
    found = pick(shares.log().expand(10_000, 3), uniform)
    assert torch.allclose(torch.bincount(found) / 10_000, shares, atol=2e-3)
    assert set(pick(shares.log().expand(10_000, 3), uniform, top_k=2).tolist()) == {0, 2}
    assert set(pick(shares.log().expand(10_000, 3), uniform, top_p=0.4).tolist()) == {0}
    assert set(pick(shares.log().expand(10_000, 3), uniform, temperature=0).tolist()) == {0}
    sharper = torch.bincount(pick(shares.log().expand(10_000, 3), uniform, temperature=0.5))
    assert sharper[0] / 10_000 == pytest.approx(0.25 / 0.38, abs=2e-3)


def test_every_description_is_a_sentence_of_the_grammar():
    model = _gpt(7)
    tokens = torch.randint(20, (40, 9), generator=torch.Generator().manual_seed(8))
    found = describe_tokens(model, tokens)
    assert len(set(found)) > 1
    for y in found:
        complete = [y.size, y.colour, y.garment, y.background, y.style]
        assert all(complete) or (y.garment == "nothing" and y.background)


def test_descriptions_are_the_likeliest_of_their_tree_when_the_model_has_learned_one():
    torch.manual_seed(9)
    model = GPT(CONFIG)
    labels = all_labels()[[5, 1000, 3000, 3845]]
    words = encode_words(captions_of(labels))
    tokens = torch.arange(4)[:, None].repeat(1, 9)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        sequences = describe_sequences(CONFIG, words, tokens)
        logits = model(sequences.ids, sequences.positions).flatten(0, 1)
        loss = F.cross_entropy(logits, sequences.targets.flatten(), ignore_index=IGNORE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert describe_tokens(model, tokens) == attributes_of(labels)
    right = description_log_likelihoods(model, words, tokens)
    wrong = description_log_likelihoods(model, words.roll(1, 0), tokens)
    assert (right > wrong + 1).all()


def test_what_cannot_be_drawn_is_refused_in_a_sentence():
    model = _gpt()
    with pytest.raises(CaptionError, match="car"):
        sample_gpt(model, ["a car"])
    with pytest.raises(ValueError, match="of shape"):
        sample_gpt(model, CAPTIONS, torch.rand(3, 8))
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        sample_gpt(model, CAPTIONS, torch.randn(3, 9))
    with pytest.raises(ValueError, match="temperature"):
        sample_gpt(model, CAPTIONS, temperature=-1.0)
    with pytest.raises(ValueError, match="heads"):
        TransformerConfig(width=10, heads=3)
    cache = KVCache(CONFIG, 1, 9, torch.zeros(1))
    with torch.no_grad():
        model.states(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2), cache=cache)
    with torch.no_grad(), pytest.raises(ValueError, match="one token at a time"):
        model.states(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2), cache=cache)
