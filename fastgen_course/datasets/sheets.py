"""Sheets of real scenes for looking at: every style and size, and the edits of one photograph."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from fastgen_course.datasets.captions import EMPTY, SLOTS, Attributes, attributes_of, labels_of
from fastgen_course.datasets.compose import Scenes, compose
from fastgen_course.datasets.fashion import load_fashion


class Sheet(NamedTuple):
    """Scenes in rows, with the words of each row."""

    images: torch.Tensor  # float32 (rows * columns, 3, 28, 28) in [-1, 1]
    attributes: list[Attributes]
    row_labels: list[str]
    columns: int


def style_sheet(split: str = "test", first: int = 0) -> Sheet:
    """One photograph of each garment in every style and both sizes: 8 rows of 10.

    A column shows the same photograph throughout, the `first`-th of its class; colours and
    backgrounds take turns. The last row of each pair is the small size.
    """
    classes = load_fashion(split).labels
    rows = [int((classes == garment).nonzero()[first, 0]) for garment in range(EMPTY)]
    photos = load_fashion(split).images[rows]
    labels, names = [], []
    for style, style_name in enumerate(SLOTS["style"]):
        for size in (1, 0):
            row = len(names)
            names.append(f"{style_name},\n{SLOTS['size'][size]}")
            for garment in range(EMPTY):
                colour = (garment + 3 * row) % len(SLOTS["colour"])
                background = (garment + row) % len(SLOTS["background"])
                labels.append([size, colour, garment, background, style])
    table = torch.tensor(labels)
    images = compose(photos.repeat(len(names), 1, 1), table).images
    return Sheet(images, attributes_of(table), names, EMPTY)


def edit_targets(photo: torch.Tensor, y: Attributes, edits: list[dict[str, str]]) -> Scenes:
    """The scene of `photo` uint8 (28, 28) as `y` says, then the exact target of each edit.

    An edit names the slots that change and their new values; the photograph stays the same.
    """
    wanted = labels_of([y, *(replace(y, **edit) for edit in edits)])
    return compose(photo.expand(len(wanted), -1, -1), wanted)
