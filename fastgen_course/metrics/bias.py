"""FID's bias: why fewer images give a larger value, how much larger, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.metrics.checks import MetricError, check_features
from fastgen_course.metrics.frechet import frechet_distance, gaussian_moments

Distance = Callable[[Tensor, Tensor, Tensor, Tensor], float | Tensor]


class SizeCurve(NamedTuple):
    """FID by the number of images on each side: mean and standard deviation over the draws."""

    sizes: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def fid_by_size(
    features: Tensor,
    reference: Tensor,
    sizes: Sequence[int],
    generator: torch.Generator,
    repeats: int = 8,
    distance: Distance = frechet_distance,
) -> SizeCurve:
    """FID of random subsets of `features` (N, F) against as many of `reference` (M, F).

    Args:
        features, reference: of independent captions; the same captions on both sides would cancel
            a part of the bias.
        sizes: images on each side, each from F + 2 (a full-rank covariance) to min(N, M).
        repeats: draws of each size. Large ones overlap, so their spread is understated, and is 0
            where everything is drawn.
        distance: `distance(mu1, cov1, mu2, cov2)`, by default the package's.

    Raises MetricError for sizes that the features do not allow.
    """
    check_features(features, "features", at_least=2)
    check_features(reference, "reference", at_least=2)
    smallest, largest = features.shape[1] + 2, min(len(features), len(reference))
    if wrong := [n for n in sizes if not smallest <= n <= largest]:
        raise MetricError(
            f"size {wrong[0]} cannot be used: these features allow {smallest} to {largest}."
        )
    means, deviations = [], []
    for n in sizes:
        values = []
        for _ in range(repeats):
            ours, theirs = (
                gaussian_moments(x[torch.randperm(len(x), generator=generator)[:n]])
                for x in (features, reference)
            )
            values.append(float(distance(*ours, *theirs)))
        means.append(sum(values) / repeats)
        deviations.append(float(torch.tensor(values).std()) if repeats > 1 else 0.0)
    return SizeCurve(tuple(sizes), tuple(means), tuple(deviations))


def extrapolate(curve: SizeCurve) -> tuple[float, float]:
    """(limit, slope) of the line FID(N) = limit + slope / N, by least squares.

    Each size is weighted by N: the spread of FID between draws falls about as 1/N, and large N
    says most about the limit (Chong and Forsyth 2020, arXiv:1911.07023, fit the same line).
    """
    n = torch.tensor(curve.sizes, dtype=torch.float64)
    if len(n.unique()) < 2:
        raise MetricError("a line needs at least two different sizes.")
    columns = torch.stack([torch.ones_like(n), 1 / n], 1) * n[:, None]
    values = torch.tensor(curve.mean, dtype=torch.float64) * n
    limit, slope = torch.linalg.lstsq(columns, values[:, None]).solution[:, 0].tolist()
    return limit, slope


def gaussian_slope(covariance: Tensor) -> float:
    """The bias times N for two samples of N from one Gaussian with this covariance (F, F).

    With eigenvalues l_i, to first order in 1/N: 2 sum_i l_i from the two means, and
    sum_ij l_i l_j / (l_i + l_j) + sum_i l_i / 2 from the two covariances.
    """
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0)
    pairs = values[:, None] * values / (values[:, None] + values).clamp(min=1e-300)
    return float(2.5 * values.sum() + pairs.sum())
