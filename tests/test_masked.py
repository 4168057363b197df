"""The masked model: what it sees, its few steps, and the bound on the likelihood."""

import itertools
import math

import pytest
import torch

from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.masked import sample_masked, tokens_left
from fastgen_course.training.masked import draw_hidden, likelihood_bound

CONFIG = MaskedConfig(width=32, layers=2, heads=2, image_tokens=9, codes=20)
CAPTIONS = ["a small red sneaker on a white background", "a blue bag"]


def _model(config=CONFIG, seed=0, scale=6.0):
    torch.manual_seed(seed)
    model = MaskedModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(scale)
    return model


def test_hidden_tokens_are_not_seen_and_the_others_are_from_both_sides():
    model = _model()
    words = encode_words(CAPTIONS)
    tokens = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[:, 4] = True
    logits = model.image_logits(words, tokens, hidden)
    other = tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % 20
    assert torch.equal(model.image_logits(words, other, hidden), logits)
    for place in (0, 8):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 20
        difference = (model.image_logits(words, changed, hidden) - logits)[:, 4].abs().max()
        assert difference > 1e-4


def test_padding_changes_nothing():
    model = _model()
    words = encode_words(CAPTIONS)
    tokens = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(1))
    together = model.image_logits(words, tokens)
    for row in range(2):
        n = int((words[row] != 0).sum())
        alone = model.image_logits(words[row : row + 1, :n], tokens[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 9, 49])
@pytest.mark.parametrize("steps", [1, 2, 8, 16])
def test_the_cosine_schedule_reveals_everything_and_few_at_first(tokens, steps):
    left = [tokens_left(k, steps, tokens) for k in range(1, steps + 1)]
    assert left[-1] == 0 and left == sorted(left, reverse=True)
    if tokens == 49 and steps == 8:
        assert left == [48, 45, 41, 35, 27, 19, 10, 0]


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_what_is_known_stays_and_all_else_is_drawn(steps):
    model = _model()
    start = torch.full((2, 9), 7)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[:, 2:8] = True
    noise = torch.rand(2, 2, steps, 9, generator=torch.Generator().manual_seed(2))
    drawn = sample_masked(model, CAPTIONS, noise, steps=steps, start=start, hidden=hidden)
    assert (drawn[~hidden] == 7).all()
    assert (drawn[hidden] != 7).any()
    again = sample_masked(model, CAPTIONS, noise, steps=steps, start=start, hidden=hidden)
    assert torch.equal(drawn, again)


def test_one_step_draws_every_token_from_its_own_distribution():
    model = _model(scale=3.0)
    captions = [CAPTIONS[0]] * 3000
    drawn = sample_masked(model, captions, generator=torch.Generator().manual_seed(3), steps=1)
    hidden = torch.ones(1, 9, dtype=torch.bool)
    blank = torch.zeros(1, 9, dtype=torch.int64)
    shares = model.image_logits(encode_words(captions[:1]), blank, hidden).softmax(-1)[0]
    found = torch.nn.functional.one_hot(drawn, 20).float().mean(0)
    assert (found - shares).abs().max() < 0.04


def test_hidden_counts_follow_the_shares():
    generator = torch.Generator().manual_seed(4)
    hidden = draw_hidden(torch.tensor([0.0, 0.34, 1.0]), 9, generator)
    assert hidden.sum(1).tolist() == [1, 3, 9]


@torch.no_grad()
def test_the_bound_is_the_mean_cost_over_all_orders():
    """Three tokens: every order by enumeration, and the bound's mean over every hidden set."""
    config = MaskedConfig(width=16, layers=1, heads=2, image_tokens=3, codes=5)
    model = _model(config, seed=5, scale=20.0)
    words = encode_words(CAPTIONS[:1])
    tokens = torch.tensor([[1, 4, 2]])

    def costs(hidden):
        logs = model.image_logits(words, tokens, hidden[None]).log_softmax(-1)
        return -logs[0, torch.arange(3), tokens[0]]

    orders = []
    for order in itertools.permutations(range(3)):
        hidden = torch.ones(3, dtype=torch.bool)
        total = 0.0
        for place in order:
            total += float(costs(hidden)[place])
            hidden[place] = False
        orders.append(total)
    expected = sum(orders) / 6
    assert max(orders) - min(orders) > 0.05  # the orders disagree, or nothing is tested
    generator = torch.Generator().manual_seed(6)
    sampled = likelihood_bound(
        model, words.expand(20_000, -1), tokens.expand(20_000, -1), generator
    )
    error = 4 * float(sampled.std()) / math.sqrt(20_000)
    assert float(sampled.mean()) == pytest.approx(expected, abs=error)
    mixture = -math.log(sum(math.exp(-x) for x in orders) / 6)
    assert mixture < expected


def test_what_cannot_be_drawn_is_refused_in_a_sentence():
    model = _model()
    with pytest.raises(ValueError, match="at least one step"):
        sample_masked(model, CAPTIONS, steps=0)
    with pytest.raises(ValueError, match="start and hidden together"):
        sample_masked(model, CAPTIONS, start=torch.zeros(2, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="noise must have shape"):
        sample_masked(model, CAPTIONS, torch.rand(2, 9))
    with pytest.raises(ValueError, match="both sides"):
        MaskedModel(TransformerConfig())
