"""The ladder drawn: milliseconds a rung, and what kind of change brought what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastgen_course.files import atomic_write
from fastgen_course.ladder.measuring import Row
from fastgen_course.ladder.rungs import CHANGES
from fastgen_course.show import figure_png

COLOURS = dict(
    zip(("", *CHANGES), ("#555555", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677"),
        strict=True)
)  # fmt: skip
CONTROL = "#999999"
CONTROL_MARKERS = "x+^vsDP*<>1"


def ladder_figure(rows: Sequence[Row]) -> Figure:
    """Milliseconds a picture at batch 1 on a logarithmic axis, one bar a row, controls below."""
    figure, axis = plt.subplots(figsize=(8.5, 0.34 * len(rows) + 1.2))
    for place, row in enumerate(rows):
        colour = CONTROL if row.control else COLOURS[row.change]
        axis.barh(place, row.batch1_ms, color=colour, height=0.72)
        ratio = f", {row.speedup_to_first:.4g}x" if row.speedup_to_first else ""
        axis.text(row.batch1_ms * 1.08, place, f"{row.batch1_ms:.3g} ms{ratio}", va="center",
                  fontsize=8)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(min(row.batch1_ms for row in rows) / 2, max(r.batch1_ms for r in rows) * 12)
    axis.set_yticks(range(len(rows)), [row.words for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds from a caption to a picture, batch 1 (logarithmic)")
    kinds = {row.change for row in rows if not row.control and row.change}
    handles = [Patch(color=COLOURS[k], label=CHANGES[k]) for k in CHANGES if k in kinds]
    handles.append(Patch(color=CONTROL, label="control"))
    axis.legend(handles=handles, fontsize=8, loc="lower right")
    return figure


def split_figure(factors: dict[str, float]) -> Figure:
    """The factor of each kind of change, on a logarithmic axis where products add up."""
    figure, axis = plt.subplots(figsize=(8, 1.6))
    left = 1.0
    for kind, factor in factors.items():
        start, end = sorted((left, left * factor))
        axis.barh(0, end - start, left=start, color=COLOURS[kind], height=0.5)
        if factor > 1.15:
            axis.text((start * end) ** 0.5, 0, f"{factor:.2g}x", ha="center", va="center",
                      fontsize=9)  # fmt: skip
        left *= factor
    axis.set_xscale("log")
    axis.set_yticks([])
    axis.set_xlabel("times fewer milliseconds than the first rung")
    handles = [Patch(color=COLOURS[k], label=CHANGES[k]) for k in factors]
    axis.legend(handles=handles, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def quality_figure(rows: Sequence[Row]) -> Figure:
    """FID against milliseconds: the rungs joined in order and numbered, controls as crosses."""
    figure, axis = plt.subplots(figsize=(9.6, 4.4), layout="constrained")
    known = [row for row in rows if row.fid is not None]
    rungs = [row for row in known if not row.control]
    axis.plot([r.batch1_ms for r in rungs], [r.fid for r in rungs], color="#bbbbbb", zorder=1)
    for number, row in enumerate(known):
        colour = CONTROL if row.control else COLOURS[row.change]
        marker = CONTROL_MARKERS[number % len(CONTROL_MARKERS)] if row.control else "o"
        label = row.words if row.control else f"{number}  {row.words}"
        axis.scatter(row.batch1_ms, row.fid, color=colour, marker=marker, zorder=2, label=label)
        if not row.control:
            near = _nearest(row, rungs)  # of two close ones the upper has its number above
            above = near is not None and row.fid > near.fid
            axis.annotate(str(number), (row.batch1_ms, row.fid), fontsize=9, ha="center",
                          va="center", xytext=(0, 10 if above else -10),
                          textcoords="offset points")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_yticks([2, 5, 10, 20, 50, 100])
    axis.minorticks_off()
    axis.set_xlabel("milliseconds a picture, batch 1")
    axis.set_ylabel("FID (smaller is better, logarithmic)")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _nearest(row: Row, rows: Sequence[Row]) -> Row | None:
    """The other row with the most similar milliseconds."""
    others = [other for other in rows if other is not row]
    gap = {other.name: abs(math.log(other.batch1_ms / row.batch1_ms)) for other in others}
    return min(others, key=lambda other: gap[other.name], default=None)


def draw_chart(rows: Sequence[Row], path: Path) -> Path:
    """Write `ladder_figure` as a PNG."""
    figure = ladder_figure(rows)
    with atomic_write(path) as temporary:
        temporary.write_bytes(figure_png(figure))
    plt.close(figure)
    return path
