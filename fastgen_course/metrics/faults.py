"""Two different faults with one FID: pictures that are never drawn, and pictures that are noise."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgen_course.metrics.checks import MetricError, check_features
from fastgen_course.metrics.frechet import frechet_distance, gaussian_moments


def spread_rows(n: int, count: int) -> Tensor:
    """bool (n,): `count` rows, spread evenly."""
    steps = torch.arange(n + 1) * count // n
    return steps[1:] > steps[:-1]


def spoilt_to_fid(clean: Tensor, broken: Tensor, reference: Tensor, target: float) -> Tensor:
    """Which rows of `clean` (N, F) to replace by those of `broken` (N, F) for an FID of `target`.

    Bisection over the number of rows, all in features of one judge; `reference` is (M, F). Returns
    bool (N,), True where a row is replaced. Raises MetricError when no share reaches the target.
    """
    for name, features in (("clean", clean), ("broken", broken), ("reference", reference)):
        check_features(features, name, at_least=2)
    if clean.shape != broken.shape:
        raise MetricError(
            f"clean is {tuple(clean.shape)} and broken {tuple(broken.shape)}: "
            "give one broken row for each clean one."
        )
    moments = gaussian_moments(reference)

    def fid_with(count: int) -> float:
        rows = spread_rows(len(clean), count)[:, None]
        mixed = torch.where(rows, broken, clean)
        return frechet_distance(*gaussian_moments(mixed), *moments)

    low, high = 0, len(clean)
    if not fid_with(low) <= target <= fid_with(high):
        raise MetricError(
            f"the target {target:.3g} is not between the FID of clean and of broken pictures."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fid_with(middle) < target else (low, middle)
    return spread_rows(len(clean), high)
