"""The forward pass without modules computes what the modules compute."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.models.transformer import KVCache, TransformerConfig
from fastgen_course.models.written_out import WrittenOutGPT, WrittenOutMasked, written_out
from fastgen_course.sampling import fast, speculative
from fastgen_course.sampling.gpt import sample_gpt
from fastgen_course.sampling.masked import sample_masked

CAPTIONS = ["a red boot", "a small green bag on a white background", "a blue coat"]


def opinionated(model):
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # norms and biases too: each must be used
    return model.eval()


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(0)
    return opinionated(GPT(TransformerConfig(width=32, layers=2, heads=4, codes=20)))


@pytest.fixture(scope="module")
def masked():
    torch.manual_seed(1)
    return opinionated(MaskedModel(MaskedConfig(width=32, layers=2, heads=4, codes=20)))


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_states_with_and_without_a_cache(gpt, batch):
    fast_one = written_out(gpt)
    ids, positions = torch.randint(0, 90, (batch, 9)), torch.arange(9)
    with torch.no_grad():
        expected = gpt.states(ids, positions)
    assert close(fast_one.states(ids, positions), expected)
    cache = KVCache(gpt.config, batch, 9, gpt.embedding.weight)
    parts = [fast_one.states(ids[:, :5], positions[:5], cache=cache)]
    parts += [
        fast_one.states(ids[:, i : i + 1], positions[i : i + 1], cache=cache) for i in range(5, 9)
    ]
    assert cache.length == 9
    assert close(torch.cat(parts, 1), expected)
    with pytest.raises(ValueError, match="one token at a time"):
        fast_one.states(ids[:, :2], positions[:2], cache=cache)


def test_states_at_places_and_with_a_mask(gpt, masked):
    ids, positions = torch.randint(0, 90, (2, 6)), torch.arange(6)
    places = torch.tensor([[0, 1, 2, 4, 5, 3], [5, 4, 3, 2, 1, 0]])
    with torch.no_grad():
        caches = [KVCache(gpt.config, 2, 8, gpt.embedding.weight) for _ in range(2)]
        expected = gpt.states(ids, positions, cache=caches[0], places=places)
        found = written_out(gpt).states(ids, positions, cache=caches[1], places=places)
        assert close(found, expected)
        assert torch.equal(caches[0].filled, caches[1].filled)
        mask = torch.tensor([[True] * 6, [True, True, False, False, True, True]])
        expected = masked.states(ids, positions, mask)
        assert close(written_out(masked).states(ids, positions, mask), expected)
        assert not close(written_out(masked).states(ids, positions), expected)
    with pytest.raises(ValueError, match="places need a cache"):
        written_out(gpt).states(ids, positions, places=places)


def test_states_of_wanted_tokens_are_those_of_all(gpt, masked):
    ids, positions, wanted = torch.randint(0, 90, (2, 6)), torch.arange(6), torch.tensor([4, 1])
    mask = torch.tensor([[True] * 6, [True, True, False, False, True, True]])
    flat = written_out(masked)
    with torch.no_grad():
        for seen in (None, mask):
            expected = masked.states(ids, positions, seen)[:, wanted]
            assert close(masked.states(ids, positions, seen, wanted=wanted), expected)
            assert close(flat.states(ids, positions, seen, wanted=wanted), expected)
        one = masked.states(ids[:1], positions)[:, 3:4]
        assert close(flat.states(ids[:1], positions, wanted=torch.tensor([3])), one)
    for model in (gpt, written_out(gpt)):
        with pytest.raises(ValueError, match="sees both sides"):
            model.states(ids, positions, wanted=wanted)


def test_every_sampler_draws_the_same_tokens(gpt, masked):
    noise = torch.rand(3, 49, generator=torch.Generator().manual_seed(1))
    fast_one = written_out(gpt)
    expected = sample_gpt(gpt, CAPTIONS, noise)
    assert torch.equal(sample_gpt(fast_one, CAPTIONS, noise), expected)
    assert torch.equal(fast.draw_plain(fast_one, CAPTIONS, noise).tokens, expected)
    assert torch.equal(fast.draw_cached(fast_one, CAPTIONS, noise).tokens, expected)
    for draw in (fast.draw_wavefront, speculative.draw_jacobi):
        pair = [
            draw(m, CAPTIONS, noise, generator=torch.Generator().manual_seed(2)).tokens
            for m in (gpt, fast_one)
        ]
        assert torch.equal(*pair)
    pair = [
        sample_masked(m, CAPTIONS, generator=torch.Generator().manual_seed(3), steps=4)
        for m in (masked, written_out(masked))
    ]
    assert torch.equal(*pair)


def test_weights_are_shared_and_kinds_kept(gpt, masked):
    assert isinstance(written_out(gpt), WrittenOutGPT)
    assert isinstance(written_out(masked), WrittenOutMasked)
    theirs = dict(gpt.named_parameters())
    for name, own in written_out(gpt).named_parameters():
        assert own.data_ptr() == theirs[name].data_ptr() and not own.requires_grad
    assert all(p.requires_grad for p in gpt.parameters())
    before = written_out(gpt)
    words = encode_words(["a red boot"])[:, :3]
    with torch.no_grad():
        old = before.states(words, torch.arange(3))
        gpt.norm.bias += 1
        assert close(before.states(words, torch.arange(3)), old + 1)
        gpt.norm.bias -= 1


def test_nothing_leaves_the_device():
    gpt = GPT(TransformerConfig(width=8, layers=1, heads=2, codes=4)).to("meta")
    fast_one = written_out(gpt)
    ids = torch.zeros(1, 3, dtype=torch.int64, device="meta")
    cache = KVCache(gpt.config, 1, 5, gpt.embedding.weight)
    positions = torch.arange(3, device="meta")
    assert fast_one.states(ids, positions, cache=cache).device.type == "meta"
    assert fast_one.states(ids[:, :1], positions[:1], cache=cache).device.type == "meta"
