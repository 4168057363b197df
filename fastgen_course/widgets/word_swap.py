"""Change one word of a caption and see, token by token, what the picture's likelihood says of it.

The picture stays as it is; only the caption that it is judged under changes. Each of its tokens
then becomes likelier or less likely, and the change is drawn where the token lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.datasets.captions import SLOTS, Attributes, CaptionError, parse, render
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import GPT_SAMPLING, sample_gpt, token_log_likelihoods
from fastgen_course.show import to_uint8
from fastgen_course.widgets.pictures import error_html, figure_png, status_html

CAPTION = "a large red sneaker on a white background, photo style"


def swap(caption: str, slot: str, value: str) -> tuple[str, str]:
    """The caption in plain words, and the same with one slot changed.

    Raises `CaptionError` for a caption that cannot be read, an unknown slot or value, or a change
    that changes nothing.
    """
    if slot not in SLOTS:
        raise CaptionError(f"there is no slot {slot!r}; choose from {', '.join(SLOTS)}.")
    before = parse(caption)
    after: Attributes = replace(before, **{slot: value})
    if after == before:
        raise CaptionError(f"the {slot} is {value} already; choose another one.")
    return render(before), render(after)


def swap_change(model: GPT, before: Sequence[str], after: Sequence[str], tokens: Tensor) -> Tensor:
    """log p(t_i | after, t_<i) - log p(t_i | before, t_<i) of each token, in nats: like tokens.

    Args:
        model: a GPT.
        before, after: a caption of each picture, and its changed one.
        tokens: int64 (B, image_tokens).

    The sum of a row is log p(picture | after) - log p(picture | before).
    """
    return token_log_likelihoods(model, after, tokens) - token_log_likelihoods(
        model, before, tokens
    )


def swap_figure(
    images: Tensor, change: Tensor, titles: Sequence[str], limit: float | None = None
) -> Figure:
    """Pictures above, below them the change of each token's log-likelihood where the token lies.

    Args:
        images: (B, 3, 28, 28) in [-1, 1].
        change: (B, tokens) in nats.
        titles: a text above each picture.
        limit: nats at which the colours end; None: the largest change there is.
    """
    side = round(change.shape[1] ** 0.5)
    pixels = to_uint8(images)
    limit = max(float(change.abs().max()), 1e-6) if limit is None else limit
    count = len(pixels)
    fig, axes = plt.subplots(2, count, figsize=(1.75 * count + 0.8, 3.7), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    for column, (picture, values) in enumerate(zip(pixels, change, strict=True)):
        for axis in axes[:, column]:
            axis.imshow(picture, interpolation="nearest", extent=(0, side, side, 0))
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        grid = values.view(side, side)
        shown = axes[1, column].imshow(
            grid, cmap="RdBu", vmin=-limit, vmax=limit, extent=(0, side, side, 0), alpha=0.85
        )
        for row in range(side):
            for place in range(side):
                value = float(grid[row, place])
                if abs(value) >= 0.1 * limit:
                    axes[1, column].text(
                        place + 0.5,
                        row + 0.5,
                        f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}",
                        ha="center",
                        va="center",
                        fontsize=5.5,
                        color="white" if abs(value) > 0.6 * limit else "black",
                    )
        axes[0, column].set_title(titles[column], fontsize=8)
        axes[1, column].set_title(f"{float(values.sum()):+.0f} nats in all", fontsize=8)
    fig.colorbar(shown, ax=axes[1], shrink=0.8, label="nats a token")
    return fig


class WordSwap(widgets.VBox):
    """A caption, a seed, a slot and its new value; the picture and the map of what changes.

    The picture is drawn from the caption as it stands, then judged under the changed one.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        caption: str = CAPTION,
        slot: str = "colour",
        value: str = "blue",
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        wide = widgets.Layout(width="min(100%, 520px)")
        self.text = widgets.Text(
            value=caption, description="caption", continuous_update=False, layout=wide
        )
        self.slot = widgets.Dropdown(options=list(SLOTS), value=slot, description="change")
        self.value = widgets.Dropdown(options=SLOTS[slot], value=value, description="to")
        self.seed = widgets.IntSlider(value=0, min=0, max=99, description="seed", layout=wide)
        self.picture = widgets.Image(format="png", width=300)
        self.status = widgets.HTML()
        self.slot.observe(self._other_slot, "value")
        for control in (self.text, self.value, self.seed):
            control.observe(self.redraw, "value")
        row = widgets.HBox([self.slot, self.value])
        super().__init__([self.text, row, self.seed, self.picture, self.status])
        self.redraw()

    def _other_slot(self, _event: object = None) -> None:
        options = SLOTS[self.slot.value]
        try:
            present = getattr(parse(self.text.value), self.slot.value)
        except CaptionError:
            present = None
        self.value.options = options  # this redraws, with the first value
        self.value.value = next(v for v in options if v not in (present, "nothing"))

    def redraw(self, _event: object = None) -> None:
        """Draw the caption's picture and the map of the change."""
        try:
            before, after = swap(self.text.value, self.slot.value, self.value.value)
            generator = torch.Generator().manual_seed(self.seed.value)
            tokens = sample_gpt(self.model, [before], generator=generator, **GPT_SAMPLING)
            change = swap_change(self.model, [before], [after], tokens)
            figure = swap_figure(self.tokenizer.decode(tokens), change, ["drawn as it stands"])
            self.picture.value = figure_png(figure)
        except Exception as error:  # a reader's caption; a traceback would be lost in the log
            self.status.value = error_html(error)
            return
        worst = int(change[0].argmin())
        side = self.tokenizer.config.side
        self.status.value = status_html(
            f'under "{after}" the picture is {float(change.sum()):+.1f} nats likelier; the token '
            f"that loses most lies in row {worst // side + 1}, column {worst % side + 1}."
        )


def word_swap(model: GPT, tokenizer: Tokenizer, **options: str) -> WordSwap:
    """A `WordSwap` around a model and its tokenizer; display it to use it."""
    return WordSwap(model, tokenizer, **options)
