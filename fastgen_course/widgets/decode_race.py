"""A decode race: recorded drawings of one picture by several methods, replayed on one clock."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.show import to_uint8
from fastgen_course.training.fast_records import Run
from fastgen_course.widgets.pictures import picture_png, status_html

CELL = 16  # pixels a token in the replay, a multiple of 4
_GREY = np.array([170, 170, 170])
# Colours of a token in the step that settled it: drawn, a guess kept; and of a guess thrown away.
DRAWN, KEPT, REJECTED = (np.array(c) for c in ([0, 114, 178], [0, 158, 115], [213, 94, 0]))


def standing(run: Run, ms: float) -> tuple[set[int], int]:
    """Which places of a run are final at a time, and how many of its steps are over."""
    over = sum(end <= ms for end in run.ms)
    return {place for step in run.steps[:over] for place in step.settled}, over


@torch.no_grad()
def race_picture(tokenizer: Tokenizer, run: Run, ms: float) -> np.ndarray:
    """A run's picture at a time: uint8 (side CELL, side CELL, 3).

    What is not drawn yet is grey. The last step's tokens have a frame: green a guess that was kept,
    orange one thrown away, blue a token drawn without a guess.
    """
    side = tokenizer.config.side
    done, over = standing(run, ms)
    image = to_uint8(tokenizer.eval().decode(torch.tensor([run.tokens])))[0]
    scale = side * CELL // image.shape[0]
    picture = image.repeat(scale, 0).repeat(scale, 1)
    last = run.steps[over - 1] if 0 < over < len(run.steps) else None
    for place in range(side * side):
        top, left = (place // side) * CELL, (place % side) * CELL
        cell = picture[top : top + CELL, left : left + CELL]
        if place not in done:
            cell[:] = _GREY
            cell[0] = cell[:, 0] = 255
        if last and place in {*last.settled, *last.rejected}:
            # A rejected place may be settled in the same step, by the replacement.
            kept = KEPT if place in last.accepted else DRAWN
            cell[:2] = cell[-2:] = REJECTED if place in last.rejected else kept
            cell[:, :2] = cell[:, -2:] = REJECTED if place in last.rejected else kept
    return picture


def race_figure(
    tokenizer: Tokenizer, runs: Sequence[Run], shares: Sequence[float] = (0.1, 0.25, 0.5, 1.0)
) -> Figure:
    """The static figure beside the replay: every run at some shares of the slowest one's time."""
    slowest = max(run.ms[-1] for run in runs)
    fig, axes = plt.subplots(
        len(runs), len(shares), figsize=(1.5 * len(shares) + 1.8, 1.45 * len(runs)), squeeze=False
    )
    for row, run in zip(axes, runs, strict=True):
        for axis, share in zip(row, shares, strict=True):
            axis.imshow(race_picture(tokenizer, run, share * slowest))
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(
            f"{run.words}\n{run.ms[-1]:.0f} ms", rotation=0, ha="right", va="center", fontsize=8
        )
    for axis, share in zip(axes[0], shares, strict=True):
        axis.set_title(f"{share * slowest:.0f} ms", fontsize=9)
    return fig


class DecodeRace(widgets.VBox):
    """The runs side by side, and one slider of time for all of them."""

    FRAMES = 120

    def __init__(self, tokenizer: Tokenizer, runs: Sequence[Run], slow: float = 20.0) -> None:
        self.tokenizer, self.runs = tokenizer, list(runs)
        self.slowest = max(run.ms[-1] for run in runs)
        interval = max(20, round(slow * self.slowest / self.FRAMES))
        self.play = widgets.Play(min=0, max=self.FRAMES, value=0, interval=interval)
        self.frame = widgets.IntSlider(
            value=0,
            min=0,
            max=self.FRAMES,
            readout=False,
            description="time",
            layout=widgets.Layout(width="min(100%, 420px)"),
        )
        widgets.link((self.play, "value"), (self.frame, "value"))
        self.said = widgets.HTML()
        self.pictures = [widgets.Image(format="png", alt=run.words) for run in runs]
        self.labels = [widgets.HTML() for _ in runs]
        lanes = [
            widgets.VBox([label, picture], layout=widgets.Layout(width="130px"))
            for label, picture in zip(self.labels, self.pictures, strict=True)
        ]
        self.frame.observe(self._show, "value")
        super().__init__(
            [
                widgets.HBox([self.play, self.frame]),
                self.said,
                widgets.HBox(lanes, layout=widgets.Layout(flex_flow="row wrap")),
            ]
        )
        self._show()

    def _show(self, _event: object = None) -> None:
        ms = self.slowest * self.frame.value / self.FRAMES
        for run, picture, label in zip(self.runs, self.pictures, self.labels, strict=True):
            done, over = standing(run, ms)
            picture.value = picture_png(race_picture(self.tokenizer, run, ms), enlarge=1)
            ready = (
                f"ready at {run.ms[-1]:.0f} ms" if over == len(run.steps) else f"{len(done)} of 49"
            )
            label.value = status_html(f"{run.words}: {ready}")
        self.said.value = status_html(f"{ms:.0f} ms of a recorded drawing")


def decode_race(tokenizer: Tokenizer, runs: Sequence[Run], **options: float) -> DecodeRace:
    """A `DecodeRace` of recorded runs; display it to use it."""
    return DecodeRace(tokenizer, runs, **options)
