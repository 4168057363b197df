"""What a measurement returns: one timing, a ratio, a comparison of several."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


class MeasurementError(ValueError):
    """A measurement was asked for that cannot mean anything."""


@dataclass(frozen=True)
class Timing:
    """One measured function.

    `median_ms` and `p90_ms` are over `repeats` synchronised calls after `warmup_calls` calls that
    were thrown away; `batch` is how many images (or items) one call makes. `times_ms` holds every
    call, in order.
    """

    median_ms: float
    p90_ms: float
    repeats: int
    batch: int
    device: str
    threads: int
    dtype: str
    label: str = ""
    warmup_calls: int = 0
    times_ms: tuple[float, ...] = field(default=(), repr=False)

    @property
    def images_per_s(self) -> float:
        """Images (items) a second at the median: 1000 x batch / median_ms."""
        return 1000.0 * self.batch / self.median_ms if self.median_ms > 0 else math.inf

    @property
    def ms_per_image(self) -> float:
        """Milliseconds an image (item) at the median."""
        return self.median_ms / self.batch

    def as_dict(self) -> dict[str, Any]:
        """The figures as a plain dictionary, without the single calls."""
        row = asdict(self)
        del row["times_ms"]
        row["images_per_s"] = self.images_per_s
        return row

    def __str__(self) -> str:
        label = f"{self.label}: " if self.label else ""
        return (
            f"{label}median {self.median_ms:.3g} ms, p90 {self.p90_ms:.3g} ms, "
            f"{self.images_per_s:.3g} images/s (batch {self.batch}, {self.device}, "
            f"{self.threads} thread{'s' if self.threads != 1 else ''}, {self.dtype}, "
            f"{self.repeats} repeats)"
        )


@dataclass(frozen=True)
class Ratio:
    """A ratio of two interleaved timings with a 95 % bootstrap interval over the rounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


class Comparison(dict[str, Timing]):
    """Interleaved timings by label; a dictionary that also knows the ratios between its rows."""

    @property
    def baseline(self) -> str:
        """The first label: what the others are compared with unless told otherwise."""
        return next(iter(self))

    def speedup(self, label: str, over: str | None = None) -> Ratio:
        """How many times faster `label` is than `over` (before / after; above 1 is faster).

        The median over rounds of the paired ratio: both calls of a round met the same machine, so
        a slow spell cancels. The interval is the 2.5 and 97.5 percentile of 1,000 bootstrap
        medians. Raises `MeasurementError` for a label that was not measured.
        """
        before = self._row(self.baseline if over is None else over)
        after = self._row(label)
        paired = np.asarray(before.times_ms) / np.maximum(np.asarray(after.times_ms), 1e-9)
        picks = np.random.default_rng(0).integers(len(paired), size=(1000, len(paired)))
        low, high = np.percentile(np.median(paired[picks], axis=1), [2.5, 97.5])
        return Ratio(float(np.median(paired)), float(low), float(high))

    def speedups(self, over: str | None = None) -> dict[str, Ratio]:
        """`speedup` of every label, the baseline (1.00x) included."""
        return {label: self.speedup(label, over) for label in self}

    def table(self) -> str:
        """The rows as text: label, median, p90, images/s and the ratio to the baseline."""
        width = max(len(label) for label in self)
        lines = [
            f"{'':<{width}}  {'median ms':>10} {'p90 ms':>10} {'images/s':>10}  faster than "
            f"{self.baseline}"
        ]
        for label, row in self.items():
            lines.append(
                f"{label:<{width}}  {row.median_ms:>10.3g} {row.p90_ms:>10.3g} "
                f"{row.images_per_s:>10.3g}  {self.speedup(label)}"
            )
        return "\n".join(lines)

    def _row(self, label: str) -> Timing:
        if label not in self:
            raise MeasurementError(
                f"{label!r} was not measured here; choose one of {', '.join(map(repr, self))}."
            )
        return self[label]
