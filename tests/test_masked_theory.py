"""Notebook 05's mathematics by enumeration: bound, total correlation, decoding, schedules."""

import math

import pytest
import torch

from fastgen_course.exercises.masked import bound_sample, guide, total_correlation
from fastgen_course.models.table import TableModel
from fastgen_course.sampling.masked import (
    sample_masked,
    tokens_left,
    tokens_left_evenly,
)
from fastgen_course.training.masked import draw_hidden
from fastgen_course.training.masked_costs import (
    best_counts,
    cost_curve,
    drawing_nats,
    following,
    haste,
    hidden_before,
)
from fastgen_course.training.masked_theory import (
    all_costs,
    all_hidden,
    all_pictures,
    cosine_sizes,
    divergence,
    drawn_distribution,
    entropy,
    exact_curve,
    expected_loss,
    mixture_cost,
    neighbour_table,
    order_costs,
    train_on_table,
)
from fastgen_course.training.masked_theory import total_correlation as package_correlation

TABLE = neighbour_table()
EXACT = TableModel(TABLE)


@pytest.fixture(scope="module")
def learned():
    """A masked model after a few steps: a distribution of its own in every order."""
    return train_on_table(TABLE, steps=12, rate=1e-2)


def test_the_table_model_knows_every_conditional():
    tokens = torch.tensor([[0, 2, 1, 0], [1, 1, 1, 1]])
    hidden = torch.tensor([[True, False, True, False], [True, True, True, True]])
    shares = EXACT.image_logits(torch.zeros(2, 1), tokens, hidden).exp()
    slab = TABLE[:, 2, :, 0]
    assert torch.allclose(shares[0, 0], slab.sum(1) / slab.sum())
    assert torch.allclose(shares[0, 2], slab.sum(0) / slab.sum())
    assert shares[0, 1].argmax() == 2 and float(shares[0, 1].max()) == pytest.approx(1)
    assert torch.allclose(shares[1, 3], TABLE.sum((0, 1, 2)))
    with pytest.raises(ValueError, match="sums to 1"):
        TableModel(torch.ones(2, 2))
    with pytest.raises(ValueError, match="as many codes"):
        TableModel(torch.ones(2, 3) / 6)


def test_exact_conditionals_cost_the_same_in_every_order_and_the_bound_is_tight():
    costs = all_costs(EXACT)
    orders = order_costs(costs)
    assert orders.shape == (24, 81)
    assert torch.allclose(orders, -TABLE.flatten().log().expand(24, -1))
    assert torch.allclose(expected_loss(costs, bound_sample), -TABLE.flatten().log())


def test_the_weighted_loss_bounds_and_the_others_do_not(learned):
    costs = all_costs(learned)
    orders = order_costs(costs)
    assert torch.allclose((-orders).exp().sum(1), torch.ones(24).double(), atol=1e-5)
    truth = mixture_cost(orders)
    assert (-truth).exp().sum() == pytest.approx(1, abs=1e-5)
    bound = expected_loss(costs, bound_sample)
    assert torch.allclose(bound, orders.mean(0))  # the mean over hidden sets = over orders
    assert (bound >= truth - 1e-9).all() and (bound - truth).max() > 1e-3
    costs, truth = all_costs(EXACT), -TABLE.flatten().log()  # perfect training changes nothing
    unweighted = expected_loss(costs, lambda c, hidden: c.sum(1))
    single = expected_loss(costs, bound_sample, [1, 0, 0, 0])
    for claimed in (unweighted, single):
        assert (-claimed).exp().sum() > 1.2  # no distribution over pictures costs so little
        assert (claimed < truth).any()


def test_the_recipe_hides_as_cosine_sizes_says():
    for tokens in (4, 49):
        sizes = torch.tensor(cosine_sizes(tokens))
        assert sizes.sum() == pytest.approx(1)
        generator = torch.Generator().manual_seed(0)
        shares = (math.pi / 2 * torch.rand(40_000, generator=generator)).cos()
        counts = draw_hidden(shares, tokens, generator).sum(1)
        found = torch.bincount(counts, minlength=tokens + 1)[1:] / 40_000
        assert (found - sizes).abs().max() < 0.012


def test_all_at_once_is_wrong_by_the_total_correlation():
    together = drawn_distribution(EXACT, 1, confident=False)
    correlation = package_correlation(TABLE)
    assert divergence(TABLE, together) == pytest.approx(correlation)
    assert correlation == pytest.approx(float(total_correlation(TABLE)))
    marginals = sum(entropy(TABLE.sum([d for d in range(4) if d != axis])) for axis in range(4))
    assert correlation == pytest.approx(marginals - entropy(TABLE))
    # The haste of the curve says the same, and other factors are only worse.
    curve = exact_curve(EXACT, TABLE)
    assert haste(curve, [4, 0]) == pytest.approx(correlation)
    other = torch.full_like(TABLE, 1 / 81)
    assert divergence(TABLE, other) > correlation


def test_more_random_steps_come_nearer_and_confidence_does_not():
    curve = exact_curve(EXACT, TABLE)
    assert curve == sorted(curve)  # more hidden, more uncertain
    random, sure = [], []
    for counts in ([4, 0], [4, 2, 0], [4, 3, 2, 1, 0]):
        schedule = following(counts)
        steps = len(counts) - 1
        drawn = drawn_distribution(EXACT, steps, confident=False, schedule=schedule)
        assert float(drawn.sum()) == pytest.approx(1)
        random.append(divergence(TABLE, drawn))
        assert random[-1] <= haste(curve, counts) + 1e-9
        drawn = drawn_distribution(EXACT, steps, confident=True, schedule=schedule)
        sure.append(divergence(TABLE, drawn))
    assert random[0] > random[1] > random[2]
    assert random[2] == pytest.approx(0, abs=1e-12)
    assert sure[2] > 0.1  # nothing drawn together, and still another distribution
    assert entropy(drawn) < entropy(TABLE)


def test_the_enumeration_is_what_the_sampler_draws():
    """`sample_masked` without Gumbel noise, 20,000 pictures against the exact shares."""
    drawn = sample_masked(
        EXACT,
        torch.zeros(20_000, 1, dtype=torch.int64),
        generator=torch.Generator().manual_seed(1),
        chunk=20_000,
        steps=2,
        choice_temperature=0.0,
    )
    place = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    found = torch.bincount(place, minlength=81) / 20_000
    exact = drawn_distribution(EXACT, 2, confident=True).flatten()
    assert (found - exact).abs().sum() / 2 < 0.03
    assert (found - TABLE.flatten()).abs().sum() / 2 > 0.1  # the test can tell them apart


def test_the_curve_is_measured_as_it_is_derived():
    pictures = all_pictures(4, 3)
    rows = torch.multinomial(
        TABLE.flatten(), 6000, True, generator=torch.Generator().manual_seed(2)
    )
    words = torch.zeros(6000, 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(3)
    means, errors = cost_curve(EXACT, words, pictures[rows], generator)
    exact = torch.tensor(exact_curve(EXACT, TABLE))
    assert ((means - exact).abs() < 4.5 * errors).all() and errors.max() < 0.03
    some, _ = cost_curve(EXACT, words, pictures[rows], generator, sizes=[4])
    assert some.shape == (1,)


def test_schedules_and_the_best_one():
    assert hidden_before(8, 49) == [49, 48, 45, 41, 35, 27, 19, 10, 0]
    assert hidden_before(4, 8, tokens_left_evenly) == [8, 6, 4, 2, 0]
    assert all(tokens_left_evenly(k, k, 49) == 0 for k in (1, 3, 49))
    curve = [0.1 * k**0.5 + 0.001 * k**2 for k in range(1, 13)]
    assert haste(curve, list(range(12, -1, -1))) == pytest.approx(0)
    assert drawing_nats(curve, [12, 0]) == pytest.approx(12 * curve[-1])
    for steps in (1, 2, 3, 12):
        best = best_counts(curve, steps)
        assert hidden_before(steps, 12, following(best)) == best
        assert best[0] == 12 and best[-1] == 0 and len(best) == steps + 1
        for schedule in (tokens_left, tokens_left_evenly):
            assert haste(curve, best) <= haste(curve, hidden_before(steps, 12, schedule)) + 1e-12
    every = [[12, a, b, 0] for a in range(1, 12) for b in range(1, a)]
    assert haste(curve, best_counts(curve, 3)) == pytest.approx(min(haste(curve, c) for c in every))
    with pytest.raises(ValueError, match="fall from 12 to 0"):
        haste(curve, [11, 0])


def test_a_readers_schedule_is_followed():
    words = torch.zeros(1, 1, dtype=torch.int64)
    seen = []

    def schedule(step, steps, tokens):
        seen.append((step, steps, tokens))
        return tokens_left_evenly(step, steps, tokens)

    sample_masked(EXACT, words, torch.rand(1, 2, 2, 4), steps=2, schedule=schedule)
    assert seen == [(1, 2, 4), (2, 2, 4)]


def test_hidden_sets_and_the_conventions_of_guidance():
    sets = all_hidden(3)
    assert sets.shape == (8, 3) and sets[5].tolist() == [True, False, True]
    logits, free = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(4))
    w = 1.5
    s = 1 + w
    ours = guide(logits, free, w)
    assert torch.allclose(ours, (s * logits + (1 - s) * free).log_softmax(-1), atol=1e-6)
    odds = ours[0, 0] - ours[0, 1]
    before, base = logits[0, 0] - logits[0, 1], free[0, 0] - free[0, 1]
    assert torch.allclose(odds, base + s * (before - base), atol=1e-5)
