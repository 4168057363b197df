"""Where a grid should end: smallest and largest value, percentiles, or the least square error."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgen_course.compression.affine import (
    Grid,
    QuantizationError,
    Scheme,
    check_finite,
    fake_quantize,
    grid_of,
    make_grid,
    reduced_dims,
)

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 0.9995  # of the values between the ends, at either end
SHRINK = tuple(i / 50 for i in range(50, 9, -1))  # shares of the full range that "mse" tries
_KEPT = 200_000  # values that a calibrator remembers of a batch at most


class Calibrator:
    """Watches batches of activations and then says where their grid should end."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.parts: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Look at a batch. Raises `QuantizationError` for an empty one, NaN or infinity."""
        check_finite(x, "the calibration data")
        values = x.detach().flatten()
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        # Every so-manieth value: the same at every run, and spread over pictures and channels.
        self.parts.append(values[:: max(1, values.numel() // _KEPT)].clone())

    def clip(self, low: float, high: float) -> None:
        """Forget how far beyond low and high the values went: there an error costs nothing."""
        self.low, self.high = max(self.low, low), min(self.high, high)
        self.parts = [part.clamp(low, high) for part in self.parts]

    def grid(self, scheme: Scheme, method: str = "mse") -> Grid:
        """The grid for what was seen.

        "minmax" covers everything; "percentile" leaves out the outermost 0.05 % at either end;
        "mse" tries shares of the full range and keeps the one with the least mean square error.
        Raises `QuantizationError` when nothing was seen, for another method, and for a scheme with
        an axis (activations have one grid each).
        """
        check_method(method)
        if scheme.axis is not None:
            raise QuantizationError(f"axis must be None for activations, got {scheme.axis}.")
        if not self.parts:
            raise QuantizationError(
                "the calibration data is empty: give at least one batch to calibrate on."
            )
        if method == "minmax":
            return make_grid(self.low, self.high, scheme)
        values = torch.cat(self.parts)
        if method == "percentile":
            # quantile() refuses more than 16 million entries; a sorted tensor has no limit.
            ordered = values.sort().values
            last = len(ordered) - 1
            ends = ordered[[round((1 - PERCENTILE) * last), round(PERCENTILE * last)]]
            return make_grid(*ends, scheme)
        grids = [make_grid(self.low * share, self.high * share, scheme) for share in SHRINK]
        errors = [(fake_quantize(values, g) - values).square().mean() for g in grids]
        return grids[int(torch.stack(errors).argmin())]


def check_method(method: str) -> None:
    """Raise `QuantizationError` for a method that there is not."""
    if method not in METHODS:
        raise QuantizationError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")


def weight_grid(weight: Tensor, scheme: Scheme, method: str = "mse") -> Grid:
    """The grid of a weight, one for each index of the scheme's axis if it has one.

    Methods as for `Calibrator.grid`, on the weight's own entries (all of them; "percentile" is for
    activations, which are many, and is refused).
    """
    check_method(method)
    full = grid_of(weight, scheme)
    if method == "minmax":
        return full
    if method == "percentile":
        raise QuantizationError("method must be minmax or mse for weights, got 'percentile'.")
    dims = reduced_dims(weight, scheme.axis)
    low, high = weight.amin(dims, keepdim=True), weight.amax(dims, keepdim=True)
    best = torch.full_like(full.scale, float("inf"))
    scale, zero_point = full.scale.clone(), full.zero_point.clone()
    for share in SHRINK:
        grid = make_grid(low * share, high * share, scheme)
        error = (fake_quantize(weight, grid) - weight).square().mean(dims, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, grid.scale, scale)
        zero_point = torch.where(better, grid.zero_point, zero_point)
    return Grid(scale, zero_point, full.low, full.high)
