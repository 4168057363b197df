"""Numbers as integers: affine and symmetric grids, their error, and a product of integers.

A grid is a scale (the distance of two neighbouring values) and a zero point (the integer that means
0): x = scale * (q - zero_point), q one of a few integers (Jacob et al. 2018, arXiv:1712.05877,
equation 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("affine", "symmetric")
BITS = (2, 16)


class QuantizationError(ValueError):
    """Something that cannot be quantised, or a way of quantising that there is not."""


@dataclass(frozen=True)
class Scheme:
    """How numbers become integers.

    Attributes:
        bits: 2 to 16.
        kind: "affine" (integers from 0 to 2^bits - 1, the zero point anywhere among them) or
            "symmetric" (zero point 0, as many integers above it as below).
        axis: None for one grid for a whole tensor; else a grid for each index of this dimension.
    """

    bits: int = 8
    kind: str = "affine"
    axis: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int):
            raise QuantizationError(f"bits must be a whole number, got {self.bits!r}.")
        if not BITS[0] <= self.bits <= BITS[1]:
            raise QuantizationError(
                f"bits must be from {BITS[0]} to {BITS[1]}, got {self.bits}"
                + ("; one bit leaves a symmetric grid its zero alone." if self.bits == 1 else ".")
            )
        if self.kind not in KINDS:
            raise QuantizationError(f"kind must be {' or '.join(KINDS)}, got {self.kind!r}.")

    @property
    def low(self) -> int:
        """The smallest integer."""
        # -2^(bits - 1) is left out: without it |q| <= high, and -x is on the grid where x is.
        return 0 if self.kind == "affine" else -self.high

    @property
    def high(self) -> int:
        """The largest integer."""
        return 2**self.bits - 1 if self.kind == "affine" else 2 ** (self.bits - 1) - 1


class Grid(NamedTuple):
    """The values that a scheme can say: scale * (q - zero_point) for q from low to high.

    `scale` (float) and `zero_point` (float, whole numbers) are tensors that broadcast against what
    is quantised: without dimensions, or of size 1 in all but the scheme's axis.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value."""
        return tuple(self.scale * (q - self.zero_point) for q in (self.low, self.high))


def make_grid(low: Tensor | float, high: Tensor | float, scheme: Scheme) -> Grid:
    """The grid that covers [low, high] and has 0 on it.

    An affine grid spends its integers on [min(low, 0), max(high, 0)], moved by less than a step so
    that 0 is exact: padding and ReLU make zeros, and an error there would be everywhere. A
    symmetric one covers [-m, m], m the larger magnitude.

    Raises `QuantizationError` for ends that are not finite or in the wrong order.
    """
    low, high = torch.as_tensor(low), torch.as_tensor(high)
    low, high = low.to(torch.get_default_dtype()), high.to(torch.get_default_dtype())
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise QuantizationError("the range holds NaN or infinity; calibrate on finite numbers.")
    if (low > high).any():
        raise QuantizationError("the range's low end lies above its high end.")
    zero = torch.zeros_like(low)
    low, high = torch.minimum(low, zero), torch.maximum(high, zero)
    if scheme.kind == "symmetric":
        scale = torch.maximum(-low, high) / scheme.high
        return Grid(_positive(scale), zero, scheme.low, scheme.high)
    scale = _positive((high - low) / scheme.high)
    zero_point = torch.round(-low / scale).clamp(scheme.low, scheme.high)
    return Grid(scale, zero_point, scheme.low, scheme.high)


def _positive(scale: Tensor) -> Tensor:
    """A range of nothing but 0 gets the scale 1: any would do, and 0 / 0 would not.

    A scale below the smallest normal number is raised to it: it has too few digits left to
    reach the range's ends.
    """
    least = torch.finfo(scale.dtype).tiny
    return torch.where(scale > 0, scale.clamp(min=least), torch.ones_like(scale))


def grid_of(x: Tensor, scheme: Scheme) -> Grid:
    """The grid over all of x, from its smallest to its largest value (for each index of the axis).

    Raises `QuantizationError` for an empty tensor, NaN or infinity, and an axis that x lacks.
    """
    check_finite(x)
    dims = reduced_dims(x, scheme.axis)
    return make_grid(x.amin(dims, keepdim=True), x.amax(dims, keepdim=True), scheme)


def reduced_dims(x: Tensor, axis: int | None) -> tuple[int, ...]:
    """The dimensions of x that share a grid. Raises `QuantizationError` for a wrong axis."""
    if axis is None:
        return tuple(range(x.ndim))
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < x.ndim:
        raise QuantizationError(
            f"axis must be None or from 0 to {x.ndim - 1} for a tensor of shape {tuple(x.shape)}, "
            f"got {axis!r}."
        )
    return tuple(d for d in range(x.ndim) if d != axis)


def check_finite(x: Tensor, what: str = "the tensor") -> None:
    """Raise `QuantizationError` unless x has numbers, all finite."""
    if x.numel() == 0:
        raise QuantizationError(f"{what} is empty: give at least one number to calibrate on.")
    if not torch.isfinite(x).all():
        raise QuantizationError(f"{what} holds NaN or infinity: calibrate on finite numbers.")


def quantize(x: Tensor, grid: Grid) -> Tensor:
    """The nearest integers on the grid, int32; what lies outside goes to the nearer end."""
    q = torch.round(x / grid.scale) + grid.zero_point
    return q.clamp(grid.low, grid.high).to(torch.int32)


def dequantize(q: Tensor, grid: Grid) -> Tensor:
    """The values that integers mean: scale * (q - zero_point)."""
    return grid.scale * (q.to(grid.scale.dtype) - grid.zero_point)


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """x as the grid says it, still in floating point."""
    return dequantize(quantize(x, grid), grid)


def error_bound(x: Tensor, grid: Grid) -> Tensor:
    """The most by which `fake_quantize` can change each entry of x.

    scale / 2 between the grid's ends; beyond them the distance to the nearer end, which no rounding
    can be blamed for.
    """
    low, high = grid.ends
    beyond = torch.maximum(low - x, x - high)
    return torch.maximum(grid.scale / 2, beyond)


def expected_square_error(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """What the mean square error should be: (rounding, clipping), whose sum is the whole.

    Rounding: an entry between the ends is off by u, uniform on [-scale / 2, scale / 2] where the
    density hardly changes over a step, so E[u^2] = scale^2 / 12. Clipping: the square distance to
    the nearer end, exactly.
    """
    low, high = grid.ends
    beyond = torch.maximum(low - x, x - high).clamp(min=0)
    inside = beyond == 0
    rounding = (inside * grid.scale**2 / 12).mean()
    return rounding, beyond.square().mean()


def integer_product(q_x: Tensor, z_x: int, q_w: Tensor, z_w: int) -> Tensor:
    """sum_k (q_x - z_x)(q_w - z_w) from products of the stored integers: int64 (M, N).

    q_x (M, K), q_w (K, N). Multiplied out,

        sum q_x q_w  -  z_x sum q_w  -  z_w sum q_x  +  K z_x z_w:

    one product of small integers, a row and a column sum, and a constant. With z_w = 0 (symmetric
    weights) the two terms that depend on x alone fall away, and z_x sum q_w is known before x is.
    """
    q_x, q_w = q_x.long(), q_w.long()
    whole = q_x @ q_w
    return (
        whole
        - z_x * q_w.sum(0, keepdim=True)
        - z_w * q_x.sum(1, keepdim=True)
        + q_x.shape[1] * z_x * z_w
    )


def pair_sum_fits(weight_bits: int, activation_bits: int = 8) -> bool:
    """Whether a sum of two products u * w always fits into 16 bits.

    u is unsigned, w symmetric. Processors without VNNI add neighbouring products in 16 bits and cut
    off what does not fit (`vpmaddubsw`), so that wider weights give wrong results there, silently.
    """
    u, w = Scheme(activation_bits).high, Scheme(weight_bits, "symmetric").high
    return 2 * u * w <= 2**15 - 1
