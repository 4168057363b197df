"""A slider of sparsity that redraws the same pictures with a generator pruned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastgen_course.compression.channels import widest
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.importance import Importance
from fastgen_course.compression.pruning import cut, network_importance
from fastgen_course.compression.sensitivity import layer_macs
from fastgen_course.compression.sparsity import (
    check_share,
    magnitude_masks,
    masked,
    random_masks,
    two_of_four_masks,
)
from fastgen_course.datasets.captions import encode_words, parse
from fastgen_course.models.generator import Generator, layer_widths
from fastgen_course.show import image_grid
from fastgen_course.widgets.bit_slider import CAPTIONS
from fastgen_course.widgets.pictures import error_html, picture_png, status_html
from fastgen_course.widgets.scrubber import tile

KINDS: dict[str, str] = {
    "gradient": "channels that move the picture least",
    "magnitude": "channels with the smallest weights",
    "random": "channels of chance",
    "weights": "single weights, the smallest",
    "chance": "single weights of chance",
    "two_four": "two weights of each four",
}
CHANNELS = ("gradient", "magnitude", "random")
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Drawn:
    """Pictures (N, 3, 28, 28) of a pruned generator, its nonzero products and its dense ones.

    Both as shares of the whole generator's. The first is what matters, the second what a dense
    kernel multiplies.
    """

    images: Tensor
    nonzero: float
    dense: float


class PrunedSamples:
    """Pictures of fixed captions and noise, drawn at any sparsity; each setting once.

    Nothing is trained after pruning. Raises `CaptionError` for a caption that cannot be read,
    ValueError for none.
    """

    def __init__(
        self,
        generator: Generator | FoldedGenerator,
        captions: Sequence[str] = CAPTIONS,
        seed: int = 0,
        copies: int = 2,
    ) -> None:
        if not captions:
            raise ValueError("give at least one caption to draw.")
        for caption in captions:
            parse(caption)
        self.folded = fold(generator) if isinstance(generator, Generator) else generator
        self.words = encode_words([c for c in captions for _ in range(copies)])
        shape = (len(self.words), generator.config.noise)
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self._importance: dict[str, Importance] = {}
        self._drawn: dict[tuple[str, float], Drawn] = {}

    def draw(self, kind: str, share: float) -> Drawn:
        """The pictures with `share` of every layer's channels, or weights, gone; kind from KINDS.

        2:4 is one setting, half of the weights, whatever the share. Raises `PruningError` for a
        share outside [0, 1) and ValueError for another kind.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        check_share(share)
        setting = (kind, 0.5 if kind == "two_four" else share)
        if setting not in self._drawn:
            network = self.network(*setting)
            with torch.no_grad():
                images = network(self.noise, self.words)
            whole = sum(layer_macs(self.folded.config).values())
            dense = sum(layer_macs(network.config).values()) / whole
            left = 1.0 if kind in CHANNELS else 1 - setting[1]
            self._drawn[setting] = Drawn(images, dense * left, dense)
        return self._drawn[setting]

    def network(self, kind: str, share: float) -> nn.Module:
        """The pruned generator itself; channels are really gone, weights are zero."""
        if kind == "weights":
            return masked(self.folded, magnitude_masks(self.folded, share))
        if kind == "chance":
            chance = torch.Generator().manual_seed(0)
            return masked(self.folded, random_masks(self.folded, share, chance))
        if kind == "two_four":
            return masked(self.folded, two_of_four_masks(self.folded))
        if kind not in self._importance:
            self._importance[kind] = network_importance(self.folded, kind)
        widths = [max(1, round(w * (1 - share))) for w in layer_widths(self.folded.config)]
        return cut(self.folded, widest(self._importance[kind], widths))

    def difference(self, images: Tensor) -> float:
        """Root mean square distance to the whole generator's pictures, in grey levels of 255."""
        return float((images - self.draw("weights", 0.0).images).square().mean().sqrt() * 127.5)


def sparsity_figure(
    samples: PrunedSamples,
    kind: str = "gradient",
    shares: Sequence[float] = (0, 0.1, 0.2, 0.3, 0.5),
) -> Figure:
    """The static figure beside the slider: a row of the same pictures for each share.

    Raises ValueError for no shares.
    """
    if not shares:
        raise ValueError("sparsity_figure got no shares; pass for example (0, 0.25, 0.5).")
    drawn = [samples.draw(kind, share).images for share in shares]
    labels = ["all" if share == 0 else f"-{share:.0%}" for share in shares]
    return image_grid(torch.cat(drawn), len(drawn[0]), row_labels=labels, scale=0.9)


class SparsitySlider(widgets.VBox):
    """A slider for the share that goes and a choice of what goes; the pictures follow."""

    def __init__(self, samples: PrunedSamples) -> None:
        self.samples = samples
        self.share = widgets.SelectionSlider(
            options=[(f"{share:.0%}", share) for share in SHARES], value=0.2, description="goes",
            continuous_update=False, layout=widgets.Layout(width="26em"),
        )  # fmt: skip
        self.kind = widgets.Dropdown(
            options=[(words, kind) for kind, words in KINDS.items()], description="what",
            layout=widgets.Layout(width="26em"),
        )  # fmt: skip
        self.picture = widgets.Image(format="png", width=540)
        self.status = widgets.HTML()
        for control in (self.share, self.kind):
            control.observe(self.redraw, "value")
        super().__init__([self.share, self.kind, self.picture, self.status])
        self.redraw()

    def redraw(self, _event: object = None) -> None:
        """Draw under the controls' settings."""
        try:
            found = self.samples.draw(self.kind.value, self.share.value)
        except ValueError as error:
            self.status.value = error_html(error)
            return
        pictures = np.asarray(tile(found.images, len(found.images)))
        self.picture.value = picture_png(pictures, enlarge=2)
        self.status.value = status_html(
            f"{found.nonzero:.0%} of the products are left, a dense kernel does {found.dense:.0%}; "
            f"on average {self.samples.difference(found.images):.1f} of 255 grey levels from the "
            "whole generator, without any training"
        )


def sparsity_slider(samples: PrunedSamples) -> SparsitySlider:
    """A `SparsitySlider`; display it to use it."""
    return SparsitySlider(samples)
