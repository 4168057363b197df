"""What happens once, such as a request: elapsed milliseconds, and percentiles of many of them.

A request cannot be repeated until it is stable, as `measure` does with a function: the load is part
of what is measured. It is read once, and a great many are summed up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgen_course.timing.measure import Clock
from fastgen_course.timing.rows import MeasurementError


class Stopwatch:
    """Runs from when it is made, or started again."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Start again from zero."""
        self._began = self._clock()

    @property
    def ms(self) -> float:
        """Milliseconds since the start."""
        return 1000.0 * (self._clock() - self._began)


@dataclass(frozen=True)
class Percentile:
    """A percentile with a 95 % bootstrap interval."""

    value_ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{self.value_ms:.3g} ms [{self.low_ms:.3g}, {self.high_ms:.3g}]"


def percentile(times_ms: Sequence[float], share: float, resamples: int = 1000) -> Percentile:
    """The `share` quantile of single readings (0.99: the slowest in a hundred is slower).

    The interval is over `resamples` bootstrap samples; readings are taken as independent, which
    neighbours in a queue are not quite. Raises `MeasurementError` without readings, for a reading
    that is not finite, or for a share outside 0 to 1.
    """
    times = np.asarray(times_ms, dtype=float)
    if times.size == 0:
        raise MeasurementError("there are no readings to take a percentile of.")
    if not np.isfinite(times).all():
        raise MeasurementError("a reading is not finite; leave failed calls out.")
    if not 0 <= share <= 1 or math.isnan(share):
        raise MeasurementError(f"a percentile's share is 0 to 1, got {share}.")
    random = np.random.default_rng(0)
    # One at a time: a thousand samples of a long run at once would take gigabytes.
    again = [np.quantile(random.choice(times, times.size), share) for _ in range(resamples)]
    value = float(np.quantile(times, share))
    low, high = np.quantile(again, [0.025, 0.975])
    return Percentile(value, min(float(low), value), max(float(high), value))
