"""The course on one figure: sixteen notebooks, which are core, and what each builds on."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fastgen_course.show import PALETTE


class Stop(NamedTuple):
    """One notebook on the map."""

    number: str
    title: str
    core: bool
    column: float
    row: float
    after: tuple[str, ...]  # the notebooks whose models or ideas it uses


COURSE: tuple[Stop, ...] = (
    Stop("00", "start here", True, 0, 2, ()),
    Stop("01", "GAN", True, 1, 1.5, ("00",)),
    Stop("02", "VAE", True, 1, 2.5, ("00",)),
    Stop("03", "image tokens", True, 2, 2.5, ("02",)),
    Stop("04", "text to image", True, 3, 2.5, ("03",)),
    Stop("05", "parallel drawing", False, 4, 4, ("04",)),
    Stop("06", "describe and edit", False, 3, 4, ("04",)),
    Stop("07", "fast sampling", False, 5, 4, ("05",)),
    Stop("08", "flow", False, 2, 4, ("02",)),
    Stop("09", "hardware", True, 2, 0.6, ("01",)),
    Stop("10", "architecture\nsearch", True, 3, 0.6, ("09",)),
    Stop("11", "pruning", True, 4, 0.6, ("10",)),
    Stop("12", "quantization", True, 5, 0.6, ("11",)),
    Stop("13", "distillation", True, 4.5, 2.5, ("04",)),
    Stop("14", "scale out", False, 6, 0.6, ()),
    Stop("15", "pipeline", True, 6, 2.5, ("12", "13")),
)
_WIDTH, _HEIGHT = 0.8, 0.62
_BANDS = ((0.6, "make it faster"), (2.75, "make pictures"), (4.0, "electives"))


def course_map() -> Figure:
    """The sixteen notebooks as boxes, core ones filled, arrows from what each builds on."""
    places = {stop.number: (stop.column, stop.row) for stop in COURSE}
    fig, axis = plt.subplots(figsize=(9, 4.6))
    for stop in COURSE:
        x, y = places[stop.number]
        axis.add_patch(
            FancyBboxPatch(
                (x - _WIDTH / 2, y - _HEIGHT / 2),
                _WIDTH,
                _HEIGHT,
                boxstyle="round,pad=0.02,rounding_size=0.08",
                facecolor=PALETTE[0] if stop.core else "white",
                edgecolor=PALETTE[0],
                zorder=2,
            )
        )
        axis.text(
            x,
            y,
            f"{stop.number}\n{stop.title}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if stop.core else PALETTE[0],
            zorder=3,
        )
        for before in stop.after:
            axis.annotate(
                "",
                _edge((x, y), places[before]),
                _edge(places[before], (x, y)),
                arrowprops={"arrowstyle": "-|>", "color": PALETTE[6], "shrinkA": 2, "shrinkB": 2},
                zorder=1,
            )
    for y, name in _BANDS:
        axis.text(-0.5, y, name, fontsize=9, style="italic", va="center", color=PALETTE[6])
    axis.set(xlim=(-0.6, 6.6), ylim=(0.1, 4.5))
    axis.axis("off")
    return fig


def describe_course() -> str:
    """The map in words."""
    core = ", ".join(f"{stop.number} {_flat(stop.title)}" for stop in COURSE if stop.core)
    rest = ", ".join(f"{stop.number} {_flat(stop.title)}" for stop in COURSE if not stop.core)
    return (
        f"A map of sixteen notebooks with arrows from each to what builds on it. Core: {core}. "
        f"Electives: {rest}. Arrows lead from 00 through the GAN to hardware, search, pruning and "
        "quantization, and through the VAE, image tokens and text to image to distillation; both "
        "ways end in 15, the pipeline."
    )


def _flat(title: str) -> str:
    return title.replace("\n", " ")


def _edge(box: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the middle of `box` to `towards` leaves the box."""
    dx, dy = towards[0] - box[0], towards[1] - box[1]
    reach = min(
        _WIDTH / 2 / abs(dx) if dx else float("inf"), _HEIGHT / 2 / abs(dy) if dy else float("inf")
    )
    return box[0] + reach * dx, box[1] + reach * dy
