"""Steps, solver and guidance of a flow: the same noise followed more or less carefully."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.datasets.captions import parse
from fastgen_course.models.flow import VelocityNet
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.flow import FLOW_SAMPLING, SOLVERS, sample_flow
from fastgen_course.show import image_grid, to_uint8
from fastgen_course.widgets.caption_box import CAPTION, CaptionBox

COUNT = 8  # pictures in the strip
STEPS = (1, 2, 4, 8, 16, 50)


def strip(
    model: VelocityNet,
    vae: ConvVAE,
    caption: str,
    seed: int = 0,
    count: int = COUNT,
    **settings: float | int | str,
) -> Tensor:
    """`count` pictures of one caption, (count, 3, 28, 28): their noise depends on `seed` alone.

    Raises `CaptionError` for a caption that cannot be read.
    """
    parse(caption)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, model.config.latent, generator=generator)
    return sample_flow(model, vae, [caption] * count, noise, **settings)


def steps_figure(
    model: VelocityNet,
    vae: ConvVAE,
    caption: str = CAPTION,
    steps: Sequence[int] = STEPS,
    seed: int = 0,
    count: int = COUNT,
    **settings: float | int | str,
) -> Figure:
    """One row of pictures a number of steps, all from the same noise."""
    if not steps:
        raise ValueError("steps_figure got no steps; pass at least one number.")
    drawn = [strip(model, vae, caption, seed, count, steps=s, **settings) for s in steps]
    labels = [f"{s} step{'s' if s > 1 else ''}" for s in steps]
    return image_grid(torch.cat(drawn), count, row_labels=labels, scale=0.9)


class FlowSteps(widgets.VBox):
    """The course's caption box with steps, solver and guidance; a strip of pictures from one seed.

    For a network of velocities without the guidance scale as an input.
    """

    def __init__(
        self,
        model: VelocityNet,
        vae: ConvVAE,
        caption: str = CAPTION,
        seed: int = 0,
        count: int = COUNT,
    ) -> None:
        self.model, self.vae, self.count = model, vae, count
        wide = {"layout": widgets.Layout(width="min(100%, 520px)"), "continuous_update": False}
        self.steps = widgets.SelectionSlider(options=STEPS, value=8, description="steps", **wide)
        self.solver = widgets.ToggleButtons(options=list(SOLVERS), description="solver")
        self.guidance = widgets.FloatSlider(
            value=FLOW_SAMPLING["guidance"],
            min=0.0,
            max=4.0,
            step=0.25,
            description="guidance",
            **wide,
        )
        self.said = widgets.HTML()
        self.box = CaptionBox(self.draw, caption, seed, enlarge=3)
        for control in (self.steps, self.solver, self.guidance):
            control.observe(self.box.redraw, "value")
        super().__init__([self.steps, self.solver, self.guidance, self.said, self.box])

    def images(self, caption: str, seed: int) -> Tensor:
        """The strip's pictures (count, 3, 28, 28) under the controls' settings."""
        settings = {
            "steps": self.steps.value,
            "solver": self.solver.value,
            "guidance": self.guidance.value,
        }
        return strip(self.model, self.vae, caption, seed, self.count, **settings)

    def draw(self, caption: str, seed: int) -> np.ndarray:
        """The strip as one picture, uint8 (28, count * 30 - 2, 3)."""
        images = to_uint8(self.images(caption, seed))
        slopes = self.steps.value * (2 if self.solver.value == "heun" else 1)
        forwards = slopes * (1 if self.guidance.value == 1.0 else 2)
        self.said.value = f"{forwards} evaluation{'s' if forwards > 1 else ''} a picture"
        gap = np.full((images.shape[1], 2, 3), 255, np.uint8)
        pieces = [piece for image in images for piece in (gap, image)]
        return np.concatenate(pieces[1:], axis=1)


def flow_steps(model: VelocityNet, vae: ConvVAE, **options: str | int) -> FlowSteps:
    """A `FlowSteps` around a flow and its decoder; display it to use it."""
    return FlowSteps(model, vae, **options)
