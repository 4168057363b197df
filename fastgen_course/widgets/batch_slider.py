"""Time and throughput against the batch, with a dot that a slider moves along both curves."""

from __future__ import annotations

from collections.abc import Iterable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastgen_course.show import PALETTE, figure_png
from fastgen_course.timing import Timing
from fastgen_course.widgets.pictures import status_html


def batch_line(timings: Iterable[Timing]) -> tuple[float, float]:
    """Least squares for t(B) = start + each * B, in ms, relative errors counting alike.

    Raises ValueError for fewer than two different batches.
    """
    rows = _by_batch(timings)
    batches = np.array(list(rows), float)
    if len(batches) < 2:
        raise ValueError("a line needs timings of at least two different batches.")
    times = np.array([row.median_ms for row in rows.values()])
    each, start = np.polyfit(batches, times, 1, w=1 / times)
    return float(start), float(each)


def batch_curves(timings: Iterable[Timing], batch: int | None = None) -> Figure:
    """Milliseconds a call and images a second against the batch; a dot at `batch` if given.

    The band reaches from the median to the p90. Raises ValueError for no timings, or a batch that
    was not measured.
    """
    rows = _by_batch(timings)
    if batch is not None and batch not in rows:
        raise ValueError(
            f"batch {batch} was not measured; choose from {', '.join(map(str, rows))}."
        )
    batches = list(rows)
    fig, (time, throughput) = plt.subplots(1, 2, figsize=(8, 3), sharex=True)
    medians = [row.median_ms for row in rows.values()]
    time.plot(batches, medians, ".-", color=PALETTE[0])
    time.fill_between(
        batches, medians, [row.p90_ms for row in rows.values()], alpha=0.2, color=PALETTE[0]
    )
    throughput.plot(batches, [row.images_per_s for row in rows.values()], ".-", color=PALETTE[2])
    time.set(xscale="log", yscale="log", ylabel="milliseconds a call", xlabel="batch")
    throughput.set(ylabel="images a second", xlabel="batch", ylim=(0, None))
    time.set_xticks(batches, [str(b) for b in batches], minor=False)
    time.minorticks_off()
    if batch is not None:
        row = rows[batch]
        for axis, value in ((time, row.median_ms), (throughput, row.images_per_s)):
            axis.plot([batch], [value], "o", color=PALETTE[1], markersize=10, zorder=3)
    return fig


def describe_batch(row: Timing) -> str:
    """One line: what a batch costs, in all and for each image."""
    return (
        f"batch {row.batch}: {row.median_ms:.3g} ms a call, {row.ms_per_image:.3g} ms an image, "
        f"{row.images_per_s:,.0f} images/s"
    )


class BatchSlider(widgets.VBox):
    """A slider over the measured batches, the two curves with a dot, and the dot in words.

    `timings` are rows of `measure(..., batch=B)`, one a batch; nothing is measured again. Raises
    ValueError for no timings.
    """

    def __init__(self, timings: Iterable[Timing]) -> None:
        self.rows = _by_batch(timings)
        self._drawn: dict[int, bytes] = {}
        self.slider = widgets.SelectionSlider(options=list(self.rows), description="batch")
        self.picture = widgets.Image(format="png", width=560)
        self.status = widgets.HTML()
        self.slider.observe(self.redraw, "value")
        super().__init__([self.slider, self.picture, self.status])
        self.redraw()

    def redraw(self, _event: object = None) -> None:
        """Move the dot to the slider's batch."""
        batch = self.slider.value
        if batch not in self._drawn:
            self._drawn[batch] = figure_png(batch_curves(self.rows.values(), batch))
        self.picture.value = self._drawn[batch]
        self.status.value = status_html(describe_batch(self.rows[batch]))


def _by_batch(timings: Iterable[Timing]) -> dict[int, Timing]:
    rows = {row.batch: row for row in sorted(timings, key=lambda row: row.batch)}
    if not rows:
        raise ValueError("there are no timings to draw; measure at least one batch.")
    return rows
