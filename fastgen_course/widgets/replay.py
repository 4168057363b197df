"""Replay a drawing of the masked model: which tokens stand after each step, which come next."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.masked import MASKED_SAMPLING, MaskedStep, replay_masked
from fastgen_course.show import PALETTE, to_uint8
from fastgen_course.widgets.caption_box import CAPTION, CaptionBox
from fastgen_course.widgets.pictures import picture_png, status_html

STEPS = (1, 2, 4, 8, 16, 49)
CELL = 32  # screen pixels a token
_GREY, _ORANGE = np.array([150, 150, 150]), np.array([213, 94, 0])


def revealed_at(trace: Sequence[MaskedStep]) -> Tensor:
    """The step, from 1, after which each token was no longer hidden: int64 (B, image_tokens)."""
    hidden = torch.stack([step.hidden for step in trace])
    return hidden.sum(0) + 1


@torch.no_grad()
def step_picture(
    tokenizer: Tokenizer, trace: Sequence[MaskedStep], number: int, row: int = 0
) -> np.ndarray:
    """Picture `row` after step `number` of a replay: uint8 (side CELL, side CELL, 3).

    Tokens still hidden are grey; those that this step revealed have a frame. The tokenizer paints
    with the step's guesses for the hidden ones, so that a revealed place may still change a little
    when its neighbours do. Raises ValueError for a step that is not there.
    """
    if not 1 <= number <= len(trace):
        raise ValueError(f"the replay has steps 1 to {len(trace)}, not {number}.")
    step = trace[number - 1]
    side = tokenizer.config.side
    image = to_uint8(tokenizer.eval().decode(step.tokens[row : row + 1]))[0]
    scale = side * CELL // image.shape[0]
    picture = image.repeat(scale, 0).repeat(scale, 1)
    new = revealed_at(trace)[row] == number
    for place in range(side * side):
        top, left = (place // side) * CELL, (place % side) * CELL
        cell = picture[top : top + CELL, left : left + CELL]
        if step.hidden[row, place]:
            cell[:] = _GREY
            cell[0] = cell[:, 0] = 255
        elif new[place]:
            cell[:2] = cell[-2:] = _ORANGE
            cell[:, :2] = cell[:, -2:] = _ORANGE
    return picture


def replay_figure(
    tokenizer: Tokenizer, trace: Sequence[MaskedStep], row: int = 0, columns: int = 8
) -> Figure:
    """The static figure beside the replay: up to `columns` steps, and when each token came.

    The last panel numbers the tokens by their step.
    """
    count = min(columns, len(trace))
    picks = np.linspace(1, len(trace), count).round().astype(int).tolist()
    fig, axes = plt.subplots(1, count + 1, figsize=(1.15 * (count + 1), 1.6), squeeze=False)
    for axis, number in zip(axes[0], picks, strict=False):
        axis.imshow(step_picture(tokenizer, trace, number, row))
        known = int((~trace[number - 1].hidden[row]).sum())
        axis.set_title(f"step {number}\n{known} known", fontsize=8)
    order = revealed_at(trace)[row].view(tokenizer.config.side, -1)
    last = axes[0, -1]
    last.imshow(order, cmap="viridis", vmin=1, vmax=max(2, len(trace)))
    for (y, x), step in np.ndenumerate(order.numpy()):
        dark = step <= 0.6 * len(trace)
        last.text(x, y, str(step), ha="center", va="center", fontsize=5, color="w" if dark else "k")
    last.set_title("its step", fontsize=8, color=PALETTE[6])
    for axis in axes[0]:
        axis.set_axis_off()
    return fig


class MaskedReplay(widgets.VBox):
    """The course's caption box, a slider for the number of steps and one that runs through them."""

    def __init__(
        self,
        model: MaskedModel,
        tokenizer: Tokenizer,
        caption: str = CAPTION,
        seed: int = 0,
        steps: int = 8,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        wide = widgets.Layout(width="min(100%, 520px)")
        self.trace: list[MaskedStep] = []
        self.steps = widgets.SelectionSlider(
            options=sorted({*STEPS, steps}),
            value=steps,
            description="steps",
            continuous_update=False,
            layout=wide,
        )
        self.step = widgets.IntSlider(
            value=1, min=1, max=max(steps, 1), description="after step", layout=wide
        )
        self.play = widgets.Play(min=1, max=steps, value=1, interval=600)
        widgets.link((self.play, "value"), (self.step, "value"))
        self.said = widgets.HTML()
        self.box = CaptionBox(self.draw, caption, seed, enlarge=1)
        self.steps.observe(self.box.redraw, "value")
        self.step.observe(self._show, "value")
        super().__init__([self.steps, self.box, widgets.HBox([self.play, self.step]), self.said])

    def draw(self, caption: str, seed: int) -> np.ndarray:
        """Draw the caption anew, keep every step, and return the picture after the chosen one."""
        steps = int(self.steps.value)
        generator = torch.Generator().manual_seed(seed)
        settings = {**MASKED_SAMPLING, "steps": steps}
        self.trace = replay_masked(self.model, [caption], generator=generator, **settings)
        self.step.max = self.play.max = steps  # a value above it is brought down
        self._say()
        return step_picture(self.tokenizer, self.trace, self.step.value)

    def _show(self, _event: object = None) -> None:
        if self.step.value > len(self.trace):
            return  # the slider is ahead of a drawing that is under way
        picture = step_picture(self.tokenizer, self.trace, self.step.value)
        self.box.picture.value = picture_png(picture, enlarge=1)
        self._say()

    def _say(self) -> None:
        number = self.step.value
        came = int((revealed_at(self.trace)[0] == number).sum())
        left = int(self.trace[number - 1].hidden[0].sum())
        rest = (
            f"{left} are still hidden (grey) and will be guessed again"
            if left
            else "nothing is hidden any more"
        )
        self.said.value = status_html(
            f"step {number} of {len(self.trace)} revealed {came} tokens (framed); {rest}."
        )


def masked_replay(model: MaskedModel, tokenizer: Tokenizer, **options: str | int) -> MaskedReplay:
    """A `MaskedReplay` around a model and its tokenizer; display it to use it."""
    return MaskedReplay(model, tokenizer, **options)
