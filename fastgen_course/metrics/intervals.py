"""A share with its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgen_course.metrics.checks import MetricError


@dataclass(frozen=True)
class Estimate:
    """A mean, the ends of its bootstrap interval, and how many values it averages."""

    value: float
    low: float
    high: float
    count: int

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def spread(self) -> list[float]:
        """The interval as the results registry stores it."""
        return [self.low, self.high]


def bootstrap_interval(
    values: Tensor,
    level: float = 0.95,
    repeats: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (N,) (Efron 1979).

    Draws N of the N values with replacement `repeats` times and returns the two quantiles
    that hold the middle `level` (in (0, 1)) of the means. Without a generator a fixed one is
    used, so that the same values give the same interval. Raises MetricError for values that
    are empty, not 1-D or not finite.
    """
    values = torch.as_tensor(values)
    if values.ndim != 1 or len(values) == 0:
        raise MetricError(
            f"values has shape {tuple(values.shape)}: pass one value an image, at least one."
        )
    if not 0 < level < 1 or repeats < 2:
        raise MetricError(f"level {level} must lie in (0, 1) and repeats {repeats} be at least 2.")
    values = values.detach().cpu().double()
    if not torch.isfinite(values).all():
        raise MetricError("values holds NaN or infinity: no interval is defined.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    means = []
    for start in range(0, repeats, 50):  # 50 resamples at a time: 4 MB of indices for 10,000
        rows = min(50, repeats - start)
        drawn = torch.randint(
            len(values), (rows, len(values)), generator=generator, dtype=torch.int32
        )
        means.append(values[drawn].mean(1))
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail]).double())
    return float(low), float(high)


def estimate(values: Tensor, generator: torch.Generator | None = None) -> Estimate:
    """Mean of `values` (N,) with its 95 % bootstrap interval."""
    low, high = bootstrap_interval(values, generator=generator)
    return Estimate(float(torch.as_tensor(values).double().mean()), low, high, len(values))
