"""A picture's words as buttons: see where a word occurs elsewhere, and paint with words."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import partial

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.show import PALETTE, to_uint8
from fastgen_course.training.tokenizer_words import (
    PIXELS,
    encode_all,
    word_map,
    word_patches,
    word_places,
    word_shares,
)
from fastgen_course.widgets.pictures import error_html, picture_png, status_html

MARK = (255, 0, 255)  # magenta: no colour or background of the scenes
ELSEWHERE = 8  # other pictures shown for a word
_FADE = 0.35


def mark_places(picture: np.ndarray, places: Sequence[int], side: int, enlarge: int) -> np.ndarray:
    """A picture uint8 (28, 28, 3), each pixel `enlarge` wide, with frames around some places."""
    large = np.asarray(picture).repeat(enlarge, 0).repeat(enlarge, 1).copy()
    cell = PIXELS // side * enlarge
    for place in places:
        top, left = place // side * cell, place % side * cell
        for rows, columns in (
            (slice(top, top + cell), (left, left + cell - 1)),
            ((top, top + cell - 1), slice(left, left + cell)),
        ):
            large[rows, columns] = MARK
    return large


def elsewhere_picture(
    images: Tensor, tokens: Tensor, word: int, count: int = ELSEWHERE, enlarge: int = 4
) -> np.ndarray:
    """Pictures that hold a word, side by side, its places framed: uint8 (H, W, 3).

    Blank grey where fewer than `count` pictures hold it.
    """
    side = round(tokens.shape[1] ** 0.5)
    size, gap = PIXELS * enlarge, 2 * enlarge
    strip = np.full((size, count * (size + gap) - gap, 3), 235, np.uint8)
    pictures = word_places(tokens, word, len(images) * side**2)[:, 0].tolist()
    for column, index in enumerate(list(dict.fromkeys(pictures))[:count]):
        places = torch.nonzero(tokens[index] == word)[:, 0].tolist()
        left = column * (size + gap)
        strip[:, left : left + size] = mark_places(to_uint8(images[index]), places, side, enlarge)
    return strip


def word_colours(model: Tokenizer) -> list[str]:
    """A colour for each word: the mean of the picture painted with it alone, as "#rrggbb"."""
    codes, places = model.config.codes, model.config.tokens
    with torch.no_grad():
        parts = torch.arange(codes)[:, None].expand(-1, places).split(128)
        means = torch.cat([model.decode(part)[:, :, 8:20, 8:20].mean((2, 3)) for part in parts])
    return ["#{:02x}{:02x}{:02x}".format(*c) for c in to_uint8(means[..., None, None])[:, 0, 0]]


class TokenPainter(widgets.VBox):
    """A grid of buttons, one a word of the picture; the decoded picture follows every change.

    Args:
        model: a Tokenizer in eval mode.
        images: pictures (N, 3, 28, 28) in [-1, 1] to choose from and to look words up in.
        names: what the pictures show, one text each; their numbers without.
        tokens: their words (N, tokens); computed when not given.
        start: the picture shown first.

    A click on a word looks it up: its share of all places, and other pictures with its places
    framed; it also becomes the brush. With "paint" on, a click puts the brush's word there. All
    controls are ordinary buttons and fields: Tab moves between them, Enter or space presses one.
    Raises ValueError for names or tokens of another number.
    """

    def __init__(
        self,
        model: Tokenizer,
        images: Tensor,
        names: Sequence[str] | None = None,
        tokens: Tensor | None = None,
        start: int = 0,
    ) -> None:
        self.model, self.images = model, images
        self.tokens = encode_all(model, images) if tokens is None else tokens
        names = [f"picture {i}" for i in range(len(images))] if names is None else names
        if len(names) != len(images) or len(self.tokens) != len(images):
            raise ValueError(
                f"{len(images)} pictures need as many names and rows of words, got {len(names)} "
                f"and {len(self.tokens)}."
            )
        self.side, self.codes = model.config.side, model.config.codes
        self.shares = word_shares(self.tokens, self.codes)
        self.colours = word_colours(model)
        self.words = self.tokens[start].clone()  # the picture being painted
        self.past: list[Tensor] = []
        self._build(list(names), start)
        super().__init__(
            [
                self.picker,
                widgets.HBox([self.grid, self.pictures]),
                widgets.HBox([self.paint, self.brush, self.fill, self.undo, self.reset]),
                self.status,
                self.elsewhere,
            ]
        )
        self.show_word(int(self.words[self.side**2 // 2]))
        self.redraw()

    def _build(self, names: list[str], start: int) -> None:
        wide = widgets.Layout(width="min(100%, 560px)")
        self.picker = widgets.Dropdown(
            options=[(name, i) for i, name in enumerate(names)],
            value=start,
            description="picture",
            layout=wide,
        )
        size = "2.7em" if self.side == 7 else "4em"
        self.buttons = [
            widgets.Button(
                layout=widgets.Layout(width=size, height=size, padding="0", margin="1px")
            )
            for _ in range(self.side**2)
        ]
        columns = f"repeat({self.side}, max-content)"
        self.grid = widgets.GridBox(
            self.buttons, layout=widgets.Layout(grid_template_columns=columns)
        )
        self.pictures = widgets.HTML()
        self.paint = widgets.ToggleButton(
            value=False, description="paint", tooltip="On: a click puts the brush's word there"
        )
        self.brush = widgets.BoundedIntText(
            value=0, min=0, max=self.codes - 1, description="brush: word"
        )
        self.fill = widgets.Button(description="fill", tooltip="Put the brush's word everywhere")
        self.undo = widgets.Button(description="undo", tooltip="Take the last change back")
        self.reset = widgets.Button(description="reset", tooltip="The picture's own words again")
        self.status, self.elsewhere = widgets.HTML(), widgets.HTML()
        for place, button in enumerate(self.buttons):
            button.on_click(partial(self.press, place))
        self.picker.observe(lambda change: self.load(change["new"]), "value")
        self.brush.observe(lambda change: self.show_word(change["new"]), "value")
        self.fill.on_click(lambda _: self.change(torch.full_like(self.words, self.brush.value)))
        self.undo.on_click(lambda _: self.take_back())
        self.reset.on_click(lambda _: self.change(self.tokens[self.picker.value].clone()))

    def press(self, place: int, _button: object = None) -> None:
        """A click on a place: put the brush's word there, or look its word up."""
        if self.paint.value:
            changed = self.words.clone()
            changed[place] = self.brush.value
            self.change(changed)
        elif self.brush.value == int(self.words[place]):
            self.show_word(self.brush.value)
        else:
            self.brush.value = int(self.words[place])  # which shows the word

    def change(self, words: Tensor) -> None:
        """Replace the picture's words, remember the old ones, draw."""
        if not torch.equal(words, self.words):
            self.past.append(self.words)
        self.words = words
        self.redraw()

    def take_back(self) -> None:
        """Undo the last change, if there is one."""
        if self.past:
            self.words = self.past.pop()
            self.redraw()

    def load(self, index: int) -> None:
        """Another picture; changes to the last one are forgotten."""
        self.words, self.past = self.tokens[index].clone(), []
        self.redraw()

    @torch.no_grad()
    def painted(self) -> np.ndarray:
        """What the present words decode to, uint8 (28, 28, 3)."""
        return to_uint8(self.model.decode(self.words[None]))[0]

    def redraw(self) -> None:
        """Buttons and pictures from the present words."""
        try:
            own = self.tokens[self.picker.value]
            real, painted = to_uint8(self.images[self.picker.value]), self.painted()
            for place, (button, word) in enumerate(
                zip(self.buttons, self.words.tolist(), strict=True)
            ):
                row, column = place // self.side + 1, place % self.side + 1
                button.description = str(word)
                button.tooltip = f"row {row}, column {column}: word {word}"
                button.style.button_color = self.colours[word]
                button.style.text_color = _readable(self.colours[word])
                button.style.font_weight = "normal" if word == int(own[place]) else "bold"
            count = int((self.words != own).sum())
            self.pictures.value = _figure_html(
                (real, "the scene", "the scene, real pixels"),
                (painted, "its words, decoded", f"the words decoded, {count} of them changed"),
            )
        except Exception as error:  # a callback's traceback would be lost in the log
            self.status.value = error_html(error)

    def show_word(self, word: int) -> None:
        """Say how common a word is and show other pictures that hold it."""
        try:
            pictures = int((self.tokens == word).any(1).sum())
            self.status.value = status_html(
                f"Word {word}: {self.shares[word]:.2%} of all places, in {pictures} of "
                f"{len(self.tokens)} pictures. Used evenly, each word would have "
                f"{1 / self.codes:.2%}."
            )
            strip = elsewhere_picture(self.images, self.tokens, word)
            alt = f"up to {ELSEWHERE} pictures that hold word {word}, its places framed"
            self.elsewhere.value = _img(picture_png(strip, 1), alt, "min(100%, 720px)")
        except Exception as error:
            self.status.value = error_html(error)


def token_painter(
    model: Tokenizer,
    images: Tensor,
    names: Sequence[str] | None = None,
    tokens: Tensor | None = None,
    start: int = 0,
) -> TokenPainter:
    """A `TokenPainter`; display it to use it."""
    return TokenPainter(model, images, names, tokens, start)


def _readable(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"


def _img(png: bytes, alt: str, width: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<img alt="{html.escape(alt, quote=True)}" style="image-rendering:pixelated;width:{width}"'
        f' src="data:image/png;base64,{data}">'
    )


def _figure_html(*pictures: tuple[np.ndarray, str, str]) -> str:
    parts = [
        f'<figure style="margin:0 8px;display:inline-block">{_img(picture_png(p, 1), alt, "150px")}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for p, caption, alt in pictures
    ]
    return "".join(parts)


# --- static figures -----------------------------------------------------------------------------


@torch.no_grad()
def words_figure(model: Tokenizer, image: Tensor, tokens: Tensor) -> Figure:
    """A scene (3, 28, 28), its words (tokens,) as numbers over it, and what they decode to."""
    side = model.config.side
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
    real = to_uint8(image)
    for axis, picture, title in zip(
        axes,
        (real, real, to_uint8(model.decode(tokens[None]))[0]),
        ("scene", f"its {side**2} words", "decoded"),
        strict=True,
    ):
        axis.imshow(picture, interpolation="nearest", alpha=_FADE if "words" in title else 1)
        axis.set(title=title, xticks=[], yticks=[])
    cell = PIXELS / side
    for place, word in enumerate(tokens.tolist()):
        x, y = place % side * cell - 0.5, place // side * cell - 0.5
        axes[1].add_patch(Rectangle((x, y), cell, cell, fill=False, lw=0.4, ec=PALETTE[6]))
        middle = cell / 2
        axes[1].text(x + middle, y + middle, str(word), ha="center", va="center", fontsize=7)
    return fig


def word_table_figure(
    images: Tensor,
    painted: Tensor,
    tokens: Tensor,
    words: Sequence[int],
    codes: int,
    examples: int = 8,
    margin: int = 4,
) -> Figure:
    """One row a word: how often, where, what it paints on average, and some of its places.

    images and painted (N, 3, 28, 28) are scenes and their reconstructions, tokens (N, tokens) their
    words. The examples are real pixels with `margin` pixels around, the word's own place framed.
    """
    side, shares = round(tokens.shape[1] ** 0.5), word_shares(tokens, codes)
    cell = PIXELS // side
    fig, axes = plt.subplots(
        len(words), 2 + examples, figsize=(0.78 * (2 + examples) + 0.6, 0.8 * len(words))
    )
    for row, word in zip(np.atleast_2d(axes), words, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(
            f"{word}\n{shares[word]:.1%}", rotation=0, ha="right", va="center", fontsize=8
        )
        row[0].imshow(word_map(tokens, word), cmap="Greys", vmin=0)
        places = word_places(tokens, word, 300)
        if len(places):
            mean = word_patches(painted, places, side).mean(0)
            row[1].imshow(to_uint8(mean), interpolation="nearest")
        shown = word_patches(images, places[:examples], side, margin)
        for axis, patch in zip(row[2:], shown, strict=False):
            axis.imshow(to_uint8(patch), interpolation="nearest")
            corner = margin - 0.5
            axis.add_patch(Rectangle((corner, corner), cell, cell, fill=False, ec="magenta", lw=1))
        for axis in row[2 + len(shown) :]:
            axis.set_axis_off()
    for axis, title in zip(np.atleast_2d(axes)[0], ("where", "paints", "stands for"), strict=False):
        axis.set_title(title, fontsize=8)
    return fig


@torch.no_grad()
def painting_figure(
    model: Tokenizer, image: Tensor, tokens: Tensor, versions: dict[str, Tensor]
) -> Figure:
    """The static figure beside the painter: a scene, its words decoded, and repainted versions.

    versions: title -> words (tokens,). Changed places are framed where they are the minority.
    """
    pictures = [("scene", to_uint8(image), [])]
    side = model.config.side
    for title, words in {"its words": tokens, **versions}.items():
        changed = torch.nonzero(words != tokens)[:, 0].tolist()
        pictures.append((title, to_uint8(model.decode(words[None]))[0], changed))
    fig, axes = plt.subplots(1, len(pictures), figsize=(1.75 * len(pictures), 2.0))
    for axis, (title, picture, changed) in zip(axes, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        cell = PIXELS / side
        for place in changed if len(changed) <= side**2 / 2 else []:
            corner = (place % side * cell - 0.5, place // side * cell - 0.5)
            axis.add_patch(Rectangle(corner, cell, cell, fill=False, ec="magenta", lw=0.8))
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[])
    return fig
