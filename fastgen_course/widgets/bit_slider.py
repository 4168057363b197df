"""A slider of bits that redraws the same pictures with a generator quantised so far."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.packed import stored_bytes
from fastgen_course.compression.quantized import calibration_batches, quantize_generator
from fastgen_course.datasets.captions import encode_words, parse
from fastgen_course.models.generator import Generator
from fastgen_course.show import image_grid
from fastgen_course.widgets.pictures import error_html, picture_png, status_html
from fastgen_course.widgets.scrubber import tile

CAPTIONS = (
    "a small red sneaker on a white background, sketch style",
    "a large blue dress on a pale pink background, photo style",
    "a large brown bag on a grey background, flat style",
    "a small green pullover on a black background, photo style",
    "a large orange coat on a pale blue background, pixel art style",
    "a large purple t-shirt on a pale green background, photo style",
)
BITS = (None, 8, 6, 5, 4, 3, 2)  # None: floating point
COPIES = 2  # pictures a caption


class QuantizedSamples:
    """Pictures of fixed captions and noise, drawn at any number of bits; each setting once.

    Raises `CaptionError` for a caption that cannot be read, ValueError for none.
    """

    def __init__(
        self,
        generator: Generator | FoldedGenerator,
        captions: Sequence[str] = CAPTIONS,
        seed: int = 0,
        copies: int = COPIES,
    ) -> None:
        if not captions:
            raise ValueError("give at least one caption to draw.")
        for caption in captions:
            parse(caption)
        self.folded = fold(generator) if isinstance(generator, Generator) else generator
        self.words = encode_words([c for c in captions for _ in range(copies)])
        shape = (len(self.words), generator.config.noise)
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.batches = calibration_batches(generator.config, 64)
        self._drawn: dict[tuple, tuple[Tensor, int]] = {}

    def draw(
        self, weight_bits: int | None, activation_bits: int | None = None, per_channel: bool = True
    ) -> tuple[Tensor, int]:
        """(images (N, 3, 28, 28), bytes of the stored weights). None: floating point."""
        key = weight_bits, activation_bits, per_channel
        if key not in self._drawn:
            network = quantize_generator(
                self.folded,
                batches=self.batches,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                per_channel=per_channel,
            )
            with torch.no_grad():
                self._drawn[key] = network(self.noise, self.words), stored_bytes(network)
        return self._drawn[key]

    def difference(self, images: Tensor) -> float:
        """Root mean square distance to the unquantised pictures, in grey levels of 255."""
        return float((images - self.draw(None)[0]).square().mean().sqrt() * 127.5)


def bits_figure(
    samples: QuantizedSamples, bits: Sequence[int | None] = (None, 8, 4, 3, 2), **setting: object
) -> Figure:
    """The static figure beside the slider: a row of the same pictures for each number of bits.

    `setting`: activation_bits, per_channel. Raises ValueError for no bits.
    """
    if not bits:
        raise ValueError("bits_figure got no numbers of bits; pass for example (None, 8, 4).")
    drawn = [samples.draw(b, **setting)[0] for b in bits]
    labels = ["float32" if b is None else f"{b} bits" for b in bits]
    return image_grid(torch.cat(drawn), len(drawn[0]), row_labels=labels, scale=0.9)


class BitSlider(widgets.VBox):
    """Sliders for the bits of weights and activations; the pictures follow."""

    def __init__(self, samples: QuantizedSamples) -> None:
        self.samples = samples
        # 0 stands for float32: to a slider None means that nothing is chosen.
        options = [("float32" if b is None else f"{b} bits", b or 0) for b in BITS]
        wide = {"layout": widgets.Layout(width="26em"), "continuous_update": False}
        self.weights = widgets.SelectionSlider(
            options=options, value=8, description="weights", **wide
        )
        self.activations = widgets.SelectionSlider(
            options=options, value=0, description="activations", **wide
        )
        self.per_channel = widgets.Checkbox(value=True, description="a grid for each channel")
        self.picture = widgets.Image(format="png", width=540)
        self.status = widgets.HTML()
        controls = (self.weights, self.activations, self.per_channel)
        for control in controls:
            control.observe(self.redraw, "value")
        super().__init__([*controls, self.picture, self.status])
        self.redraw()

    def redraw(self, _event: object = None) -> None:
        """Draw under the sliders' settings."""
        try:
            images, count = self.samples.draw(
                self.weights.value or None, self.activations.value or None, self.per_channel.value
            )
        except ValueError as error:
            self.status.value = error_html(error)
            return
        self.picture.value = picture_png(np.asarray(tile(images, len(images))), enlarge=2)
        self.status.value = status_html(
            f"{count / 1e6:.2f} MB of weights; on average {self.samples.difference(images):.1f} of "
            "255 grey levels from float32"
        )


def bit_slider(samples: QuantizedSamples) -> BitSlider:
    """A `BitSlider`; display it to use it."""
    return BitSlider(samples)
