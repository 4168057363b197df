"""Temperature, top-p, top-k, guidance and seed: the same captions drawn under other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.datasets.captions import parse
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import GPT_SAMPLING, draw_images
from fastgen_course.show import image_grid, to_uint8
from fastgen_course.widgets.caption_box import CAPTION, CaptionBox

COUNT = 8  # pictures in the strip


def strip(
    model: GPT,
    tokenizer: Tokenizer,
    caption: str,
    seed: int = 0,
    count: int = COUNT,
    **settings: float | int | None,
) -> Tensor:
    """`count` pictures of one caption, (count, 3, 28, 28): their noise depends on `seed` alone.

    With the same seed another setting changes what it must and nothing else. Raises `CaptionError`
    for a caption that cannot be read.
    """
    parse(caption)
    noise = torch.rand(
        count, model.config.image_tokens, generator=torch.Generator().manual_seed(seed)
    )
    return draw_images(model, tokenizer, [caption] * count, noise, **settings)


def settings_figure(
    model: GPT,
    tokenizer: Tokenizer,
    caption: str,
    rows: Mapping[str, Mapping[str, float | int | None]],
    seed: int = 0,
    count: int = COUNT,
) -> Figure:
    """One row of pictures a setting, all from the same noise; `rows` maps labels to settings."""
    if not rows:
        raise ValueError("settings_figure got no settings; pass {label: settings, ...}.")
    drawn = [strip(model, tokenizer, caption, seed, count, **s) for s in rows.values()]
    return image_grid(torch.cat(drawn), count, row_labels=list(rows), scale=0.9)


class SamplingControls(widgets.VBox):
    """The course's caption box with sliders for the sampler; a strip of pictures from one seed.

    The box starts with GPT_SAMPLING, the settings that the course's tables are made with.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        caption: str = CAPTION,
        seed: int = 0,
        count: int = COUNT,
    ) -> None:
        self.model, self.tokenizer, self.count = model, tokenizer, count
        wide = {"layout": widgets.Layout(width="min(100%, 520px)"), "continuous_update": False}
        start = GPT_SAMPLING
        self.temperature = widgets.FloatSlider(
            value=start["temperature"],
            min=0.0,
            max=2.0,
            step=0.05,
            description="temperature",
            **wide,
        )
        self.top_p = widgets.FloatSlider(
            value=start["top_p"], min=0.05, max=1.0, step=0.05, description="top-p", **wide
        )
        codes = model.config.codes
        powers = [(str(2**n), 2**n) for n in range(codes.bit_length()) if 2**n < codes]
        self.top_k = widgets.SelectionSlider(
            options=[*powers, ("all", codes)], value=codes, description="top-k", **wide
        )
        self.guidance = widgets.FloatSlider(
            value=start["guidance"], min=0.0, max=4.0, step=0.25, description="guidance", **wide
        )
        self.box = CaptionBox(self.draw, caption, seed, enlarge=3)
        sliders: Sequence[widgets.Widget] = (
            self.temperature,
            self.top_p,
            self.top_k,
            self.guidance,
        )
        for slider in sliders:
            slider.observe(self.box.redraw, "value")
        super().__init__([*sliders, self.box])

    def draw(self, caption: str, seed: int) -> np.ndarray:
        """The strip as one picture, uint8 (28, count * 30 - 2, 3), under the sliders' settings."""
        images = to_uint8(
            strip(
                self.model,
                self.tokenizer,
                caption,
                seed,
                self.count,
                temperature=self.temperature.value,
                top_p=self.top_p.value,
                top_k=self.top_k.value,
                guidance=self.guidance.value,
            )
        )
        gap = np.full((images.shape[1], 2, 3), 255, np.uint8)
        pieces = [piece for image in images for piece in (gap, image)]
        return np.concatenate(pieces[1:], axis=1)


def sampling_controls(model: GPT, tokenizer: Tokenizer, **options: str | int) -> SamplingControls:
    """A `SamplingControls` around a model and its tokenizer; display it to use it."""
    return SamplingControls(model, tokenizer, **options)
