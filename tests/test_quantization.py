"""Numbers on a grid: the bound that holds for every input, calibration, bad input, codebooks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgen_course.compression import affine
from fastgen_course.compression.affine import (
    QuantizationError,
    Scheme,
    error_bound,
    expected_square_error,
    fake_quantize,
    grid_of,
    integer_product,
    make_grid,
    pair_sum_fits,
    quantize,
)
from fastgen_course.compression.calibration import Calibrator, weight_grid
from fastgen_course.compression.codebook import (
    codebook_size,
    huffman_lengths,
    kmeans,
)
from fastgen_course.compression.packed import pack_integers, unpack_integers
from fastgen_course.exercises import quantization as exercises

FLOATS = st.floats(-1e4, 1e4, allow_nan=False, width=32)
TENSORS = st.lists(FLOATS, min_size=1, max_size=40).map(torch.tensor)
SCHEMES = st.builds(Scheme, st.integers(2, 12), st.sampled_from(affine.KINDS))


# --- the bound ----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(TENSORS, SCHEMES)
@example(torch.tensor([1.8372e-41]), Scheme(11, "affine"))  # a step of a few subnormal units
def test_a_full_range_is_never_off_by_more_than_half_a_step(x, scheme):
    grid = grid_of(x, scheme)
    error = (fake_quantize(x, grid) - x).abs()
    # Rounding the zero point may move an end inwards by up to half a step: the bound knows it.
    assert (error <= error_bound(x, grid) + 1e-5 * (1 + x.abs())).all()
    assert (error_bound(x, grid) <= grid.scale * 1.001).all()


@settings(max_examples=200, deadline=None)
@given(TENSORS, SCHEMES, FLOATS, FLOATS)
def test_the_bound_holds_beyond_the_ends_too(x, scheme, a, b):
    grid = make_grid(min(a, b), max(a, b), scheme)
    error = (fake_quantize(x, grid) - x).abs()
    tolerance = 1e-5 * (1 + x.abs() + grid.scale * 2**scheme.bits)
    assert (error <= error_bound(x, grid) + tolerance).all()


@settings(max_examples=100, deadline=None)
@given(TENSORS, SCHEMES)
def test_zero_is_exact_and_rounding_twice_is_rounding_once(x, scheme):
    grid = grid_of(x, scheme)
    assert fake_quantize(torch.zeros(1), grid).item() == 0.0
    once = fake_quantize(x, grid)
    assert torch.equal(quantize(once, grid), quantize(x, grid))
    q = quantize(x, grid)
    assert q.min() >= scheme.low and q.max() <= scheme.high


def test_rounding_and_clipping_add_up_to_the_measured_error():
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    for bits, end in ((8, 5.0), (4, 2.0), (4, 1.0), (3, 2.5)):
        grid = make_grid(-end, end, Scheme(bits, "symmetric"))
        rounding, clipping = expected_square_error(x, grid)
        measured = (fake_quantize(x, grid) - x).square().mean()
        assert float(rounding + clipping) == pytest.approx(float(measured), rel=0.03)
    assert clipping < rounding  # at 2.5 standard deviations hardly anything is clipped


def test_a_grid_for_each_channel_fits_better_than_one_for_all():
    w = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    w *= torch.tensor([1.0, 0.1, 0.01, 1.0, 0.1, 0.01])[:, None]
    errors = [
        (fake_quantize(w, grid_of(w, Scheme(8, "symmetric", axis))) - w).square().mean(1)
        for axis in (None, 0)
    ]
    assert (errors[1][[2, 5]] < errors[0][[2, 5]] / 100).all()
    assert (errors[1] <= errors[0] + 1e-12).all()


# --- the product --------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31))
def test_the_zero_point_expansion_is_exact(z_x, z_w, seed):
    generator = torch.Generator().manual_seed(seed)
    q_x = torch.randint(0, 256, (3, 7), generator=generator)
    q_w = torch.randint(0, 256, (7, 4), generator=generator)
    expected = (q_x - z_x) @ (q_w - z_w)
    assert torch.equal(integer_product(q_x, z_x, q_w, z_w), expected)
    assert torch.equal(exercises.integer_product(q_x, z_x, q_w, z_w), expected)


def test_the_eighth_bit_of_a_weight_overflows_a_pair_sum():
    assert pair_sum_fits(7) and not pair_sum_fits(8)
    assert 2 * 255 * 127 > 2**15 - 1 >= 2 * 255 * 63


def test_exercises_are_what_the_package_computes():
    for low, high, bits in ((-1.0, 2.0, 3), (-2.6, 0.9, 4), (0.0, 6.0, 8)):
        grid = make_grid(low, high, Scheme(bits))
        scale, zero_point = exercises.affine_grid(low, high, bits)
        assert float(grid.scale) == pytest.approx(scale)
        assert float(grid.zero_point) == zero_point
        x = torch.linspace(-4, 4, 33)
        rounded = exercises.round_to_grid(x, grid.scale, grid.zero_point, grid.low, grid.high)
        assert torch.equal(rounded, fake_quantize(x, grid))
    x = torch.tensor([0.3, 1.6], requires_grad=True)
    exercises.round_straight_through(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(2))


# --- calibration --------------------------------------------------------------------------------


def test_calibration_leaves_out_what_costs_more_than_it_gives():
    x = torch.randn(50_000, generator=torch.Generator().manual_seed(2))
    x[0] = 60.0
    watcher = Calibrator()
    for part in x.split(10_000):
        watcher.add(part)
    scheme = Scheme(4)
    grids = {method: watcher.grid(scheme, method) for method in ("minmax", "percentile", "mse")}
    assert float(grids["minmax"].ends[1]) == pytest.approx(60, abs=5)
    assert float(grids["percentile"].ends[1]) < 8
    errors = {m: (fake_quantize(x, g) - x).square().mean() for m, g in grids.items()}
    assert errors["mse"] < errors["minmax"] / 2
    tight = Calibrator()
    tight.add(x)
    tight.clip(-3, 3)
    assert float(tight.grid(scheme, "minmax").ends[1]) < 4


def test_weight_grids_by_square_error_are_no_worse_than_the_full_range():
    w = torch.randn(8, 200, generator=torch.Generator().manual_seed(3)) ** 3
    for bits in (2, 4, 8):
        scheme = Scheme(bits, "symmetric", 0)
        full, best = (
            (fake_quantize(w, weight_grid(w, scheme, m)) - w).square().mean(1)
            for m in ("minmax", "mse")
        )
        assert (best <= full + 1e-12).all()
    assert (best < full).any() or bits == 8


# --- bad input ----------------------------------------------------------------------------------

_X = torch.randn(3, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Scheme(1), r"bits must be from 2 to 16, got 1; one bit"),
        (lambda: Scheme(17), "bits must be from 2 to 16, got 17"),
        (lambda: Scheme(4.0), "bits must be a whole number"),
        (lambda: Scheme(8, "log"), "kind must be affine or symmetric, got 'log'"),
        (lambda: grid_of(_X, Scheme(8, axis=2)), "axis must be None or from 0 to 1"),
        (lambda: grid_of(_X, Scheme(8, axis=-1)), "got -1"),
        (lambda: grid_of(torch.zeros(0), Scheme()), "is empty"),
        (lambda: grid_of(torch.tensor([1.0, math.nan]), Scheme()), "NaN or infinity"),
        (lambda: make_grid(0.0, math.inf, Scheme()), "NaN or infinity"),
        (lambda: make_grid(2.0, 1.0, Scheme()), "low end lies above"),
        (lambda: Calibrator().grid(Scheme()), "calibration data is empty"),
        (lambda: Calibrator().add(torch.tensor([math.nan])), "calibration data holds NaN"),
        (lambda: Calibrator().add(torch.zeros(0)), "calibration data is empty"),
        (lambda: Calibrator().grid(Scheme(), "guess"), "minmax, percentile, mse, got 'guess'"),
        (lambda: Calibrator().grid(Scheme(axis=0)), "axis must be None for activations"),
        (lambda: weight_grid(_X, Scheme(8), "percentile"), "minmax or mse for weights"),
        (lambda: kmeans(_X, 1), "k must be from 2 to 12 centres, got 1"),
        (lambda: kmeans(_X, 13), "k must be from 2 to 12"),
        (lambda: kmeans(_X, 3, start="random"), "linear or quantiles"),
        (lambda: huffman_lengths([0, 0]), "at least one symbol"),
        (lambda: pack_integers(torch.tensor([9]), 4), "from -7 to 7 to fit 4 bits"),
        (lambda: pack_integers(torch.tensor([9]), 12), "from 2 to 8 to be stored in bytes"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(QuantizationError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_tensor_of_zeros_stays_zero():
    for kind in affine.KINDS:
        x = torch.zeros(5)
        assert torch.equal(fake_quantize(x, grid_of(x, Scheme(8, kind))), x)


# --- codebooks ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any))
def test_huffman_stays_within_a_bit_of_the_entropy(counts):
    lengths = huffman_lengths(counts)
    total = sum(counts)
    used = [(c, n) for c, n in zip(counts, lengths, strict=True) if c]
    mean = sum(c * n for c, n in used) / total
    entropy = -sum(c / total * math.log2(c / total) for c, _ in used)
    assert entropy - 1e-9 <= mean < entropy + 1 + 1e-9
    if len(used) > 1:  # Kraft's equality: a prefix code without a waste
        assert sum(2.0**-n for _, n in used) == pytest.approx(1)
    assert all(n == 0 for c, n in zip(counts, lengths, strict=True) if not c)


def test_kmeans_puts_its_centres_where_the_numbers_are():
    generator = torch.Generator().manual_seed(4)
    x = torch.cat([c + 0.01 * torch.randn(300, generator=generator) for c in (-2.0, 0.1, 0.4)])
    book = kmeans(x, 3, start="quantiles")
    assert torch.allclose(book.centres, torch.tensor([-2.0, 0.1, 0.4]), atol=0.01)
    assert torch.equal(book.codes.bincount(), torch.tensor([300, 300, 300]))
    # No other centre is nearer.
    assert torch.equal((x[:, None] - book.centres).abs().argmin(1), book.codes)
    noise = torch.randn(5000, generator=generator)
    errors = [(kmeans(noise, 16, rounds=r).values() - noise).square().mean() for r in (0, 1, 5, 30)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < (fake_quantize(noise, grid_of(noise, Scheme(4))) - noise).square().mean()


def test_the_codebook_and_its_code_are_counted():
    book = kmeans(torch.tensor([0.0] * 13 + [1.0, 2.0, 3.0]), 4)
    size = codebook_size(book)
    assert (size.plain, size.table, size.lengths) == (16 * 2, 4 * 32, 4 * 8)
    assert size.huffman == 13 * 1 + 1 * 2 + 2 * 3
    assert size.huffman_total == size.huffman + size.table + size.lengths
    assert size.plain_total == size.plain + size.table


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(0, 50), st.integers(0, 2**31))
def test_packed_integers_come_back(bits, count, seed):
    scheme = Scheme(bits, "symmetric")
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(scheme.low, scheme.high + 1, (count,), generator=generator).int()
    packed = pack_integers(q, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == math.ceil(count / {2: 4, 3: 2, 4: 2}.get(bits, 1))
    assert torch.equal(unpack_integers(packed, bits, (count,)), q)
