"""Lossless ways to draw are lossless: in tokens or, by a chi-square test, in distribution."""

import itertools
from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2

from fastgen_course.datasets.captions import CaptionError
from fastgen_course.models.gpt import GPT, GPT_SIZES
from fastgen_course.sampling import fast, speculative
from fastgen_course.sampling.gpt import sample_gpt, token_log_likelihoods

CAPTIONS = ["a red boot", "a small green bag on a white background", "a blue coat"]
TOY = replace(GPT_SIZES["gpt_xs"], width=16, layers=1, heads=2, image_tokens=4, codes=3)


def toy(seed, config=TOY):
    """A random model with opinions: fresh weights would find all tokens alike."""
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.5)
    return model


@pytest.fixture(scope="module")
def model():
    return toy(0, replace(TOY, image_tokens=49, codes=20))


def test_plain_and_cached_draw_the_same_tokens_and_count_what_they_read(model):
    noise = torch.rand(3, 49, generator=torch.Generator().manual_seed(1))
    plain, cached = (d(model, CAPTIONS, noise) for d in (fast.draw_plain, fast.draw_cached))
    assert torch.equal(plain.tokens, cached.tokens)
    assert torch.equal(plain.tokens, sample_gpt(model, CAPTIONS, noise))
    one = [d(model, CAPTIONS[:1], noise[:1]) for d in (fast.draw_plain, fast.draw_cached)]
    assert [d.forwards for d in one] == [49, 49]
    # "a red boot" and the sign are 4 tokens (3 words): 4, 5, .. 52, and 4 once plus 48 single ones.
    prompt = one[1].token_forwards - 48
    assert one[0].token_forwards == 49 * prompt + 48 * 49 // 2
    assert [s.settled for s in one[0].steps] == [(i,) for i in range(49)]


def test_a_wavefront_a_whole_row_late_is_the_plain_loop(model):
    noise = torch.rand(3, 49, generator=torch.Generator().manual_seed(2))
    plain = fast.draw_cached(model, CAPTIONS, noise).tokens
    for delay in (7, 2, 1):
        drawn = fast.draw_wavefront(model, CAPTIONS, noise, delay=delay)
        assert torch.equal(drawn.tokens, plain) == (delay == 7)
        steps = [s.settled for s in fast.draw_wavefront(model, CAPTIONS[:1], noise[:1],
                                                        delay=delay).steps]  # fmt: skip
        assert len(steps) == 6 * delay + 7
        assert sorted(itertools.chain(*steps)) == list(range(49))


def test_a_wavefront_sees_what_its_order_allows():
    """At a delay of 1 in a 2x2 grid: token 2 stands behind token 0 as if it were token 1."""
    model = toy(3)
    noise = torch.rand(200, 4, generator=torch.Generator().manual_seed(3))
    captions = CAPTIONS[:1] * 200
    drawn = fast.draw_wavefront(model, captions, noise, delay=1, temperature=0).tokens
    # Token 2 is drawn beside token 1, from a sequence in which token 0's copy stands for token 1.
    again = drawn.clone()
    again[:, 1] = drawn[:, 0]
    logs = torch.stack(
        [
            token_log_likelihoods(model, captions, again.index_fill(1, torch.tensor([2]), t))[:, 2]
            for t in range(3)
        ],
        1,
    )
    assert torch.equal(logs.argmax(1), drawn[:, 2])


def chi_square_p(tokens, model, settings):
    """p of a chi-square test of drawn tokens against all sequences' exact probabilities."""
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    captions = CAPTIONS[:1] * len(every)
    shares = []
    for place in range(4):  # with a temperature or a cut, by the same chain rule
        logits = torch.stack(
            [
                token_log_likelihoods(
                    model, captions, every.index_fill(1, torch.tensor([place]), t)
                )[:, place]
                for t in range(3)
            ],
            1,
        )
        shares.append(speculative.distribution(logits, **settings).gather(1, every[:, place, None]))
    exact = torch.cat(shares, 1).prod(1).double()
    assert exact.sum().item() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount((tokens * 3 ** torch.arange(3, -1, -1)).sum(1), minlength=81).double()
    expected = exact * len(tokens)
    common = expected >= 5
    assert counts[exact == 0].sum() == 0
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]).clamp(min=1e-9)
    keep = wanted > 1
    statistic = ((observed - wanted).square() / wanted)[keep].sum().item()
    return float(chi2.sf(statistic, int(keep.sum()) - 1))


METHODS = {
    "cached": fast.draw_cached,
    "speculative": lambda *a, **k: speculative.draw_speculative(*a, draft=toy(9), guesses=2, **k),
    "speculative_long": lambda *a, **k: speculative.draw_speculative(
        *a, draft=toy(9), guesses=6, **k
    ),
    "jacobi": lambda *a, **k: speculative.draw_jacobi(*a, window=3, **k),
    "jacobi_wide": lambda *a, **k: speculative.draw_jacobi(*a, window=7, **k),
}


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"top_p": 0.8}], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_lossless_methods_draw_from_the_model(name, settings):
    model = toy(4)
    captions = CAPTIONS[:1] * 8_000
    drawn = METHODS[name](
        model, captions, generator=torch.Generator().manual_seed(5), chunk=8_000, **settings
    )
    assert chi_square_p(drawn.tokens, model, settings) > 1e-3


def test_the_chi_square_test_finds_another_distribution():
    """What the tests above would say of a sampler that keeps every guess, or of a wavefront."""
    model = toy(4)
    captions = CAPTIONS[:1] * 8_000
    generator = torch.Generator().manual_seed(5)
    lax = fast.draw_cached(toy(9), captions, generator=generator, chunk=8_000)
    wave = fast.draw_wavefront(model, captions, generator=generator, chunk=8_000, delay=1)
    for drawn in (lax, wave):
        assert chi_square_p(drawn.tokens, model, {}) < 1e-6


def test_without_chance_speculation_draws_the_likeliest_tokens(model):
    greedy = fast.draw_cached(model, CAPTIONS, temperature=0).tokens
    draft = toy(8, model.config)
    for drawn in (
        speculative.draw_speculative(model, CAPTIONS, draft=draft, temperature=0),
        speculative.draw_jacobi(model, CAPTIONS, temperature=0),
    ):
        assert torch.equal(drawn.tokens, greedy)


def test_a_perfect_draft_saves_all_forwards_but_one_in_five(model):
    drawn = speculative.draw_speculative(model, CAPTIONS[:1], draft=model, guesses=4)
    assert len(drawn.steps) == 10  # 49 tokens, five a round
    assert drawn.forwards == 11  # and the prefill
    assert drawn.draft_forwards == 51  # five a round, the last guess read as well, and the prefill
    assert not any(s.rejected for s in drawn.steps)
    settled = list(itertools.chain(*(s.settled for s in drawn.steps)))
    assert settled == list(range(49))


def test_acceptance_and_expected_length_are_what_a_round_does():
    generator = torch.Generator().manual_seed(6)
    p, q = (torch.rand(8, generator=generator).softmax(0) ** 3 for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    a = float(speculative.acceptance(p, q))
    assert a == pytest.approx(1 - (p - q).abs().sum().item() / 2)  # 1 - total variation
    n, k = 50_000, 3
    settling = speculative._Settling(torch.rand(n, k + 1, generator=generator))
    guess = speculative.draw_from(q.expand(n, k, 8), torch.rand(n, k, generator=generator))
    settling.settle(guess, q.expand(n, k, 8), p.expand(n, k + 1, 8), generator)
    mean = settling.count.double().mean().item()
    assert mean == pytest.approx(speculative.expected_length(a, k), abs=0.03)
    assert speculative.expected_length(1.0, 3) == 4
    shares = torch.bincount(settling.tokens[:, 0], minlength=8) / n
    assert torch.allclose(shares, p, atol=0.01)


def test_steps_tell_kept_guesses_from_rejected_ones(model):
    seen = []
    drawn = speculative.draw_jacobi(model, CAPTIONS[:1], window=5, watch=seen.append)
    assert tuple(seen) == drawn.steps
    for step in drawn.steps:
        assert not set(step.accepted) & set(step.rejected)
        assert set(step.accepted) <= set(step.settled)
        assert len(step.settled) <= len(step.accepted) + 1


def test_the_same_generator_draws_the_same_again(model):
    for draw in (
        speculative.draw_jacobi,
        lambda *a, **k: speculative.draw_speculative(*a, draft=model, **k),
    ):
        first, again = (
            draw(model, CAPTIONS, generator=torch.Generator().manual_seed(7)).tokens
            for _ in range(2)
        )
        assert torch.equal(first, again)


def test_bad_input_is_named(model):
    with pytest.raises(ValueError, match="not 8"):
        fast.draw_wavefront(model, CAPTIONS, delay=8)
    with pytest.raises(ValueError, match="at least one token at a time"):
        speculative.draw_speculative(model, CAPTIONS, draft=model, guesses=0)
    with pytest.raises(ValueError, match="same image tokens"):
        speculative.draw_speculative(model, CAPTIONS, draft=toy(0))
    with pytest.raises(ValueError, match="window"):
        speculative.draw_jacobi(model, CAPTIONS, window=0)
    with pytest.raises(ValueError, match="temperature"):
        speculative.draw_jacobi(model, CAPTIONS, temperature=-1)
    with pytest.raises(CaptionError):
        fast.draw_cached(model, ["a car"])


@torch.no_grad()
def test_no_tensor_is_left_on_the_cpu():
    with torch.device("meta"):
        reader = fast.PlacedReader(GPT(TOY), torch.zeros(2, 3, dtype=torch.int64))
        logits = reader.read(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2).long() - 1)
    assert logits.shape == (2, 1, 3)
    assert logits.device.type == "meta"
