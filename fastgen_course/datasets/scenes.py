"""Endless batches of captioned scenes, and the same scenes one list at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch

from fastgen_course.datasets.captions import (
    EMPTY,
    FREE,
    PATTERNS,
    SLOTS,
    Attributes,
    attributes_of,
    encode_words,
    held_out_mask,
    render,
)
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion

EMPTY_SHARE = 0.05  # one scene in twenty is empty
FREE_SHARE = 0.05  # each slot of a training caption is left out one time in twenty


class Batch(NamedTuple):
    """Captioned scenes."""

    images: torch.Tensor  # float32 (B, 3, 28, 28) in [-1, 1]
    words: torch.Tensor  # int64 (B, MAX_WORDS)
    labels: torch.Tensor  # int64 (B, 5), all that the image shows; FREE where it does not apply
    asked: torch.Tensor  # int64 (B, 5), `labels` with FREE where the caption leaves a slot out
    photos: torch.Tensor  # uint8 (B, 28, 28), the photographs inside
    rows: torch.Tensor  # int64 (B,), which photographs of the split these are


def draw_labels(n: int, generator: torch.Generator, held_out: bool = False) -> torch.Tensor:
    """Draw the labels of `n` scenes, int64 (n, 5), on the CPU.

    Garments, sizes, colours, backgrounds and styles are uniform over the allowed combinations;
    one scene in twenty is empty. `held_out=True` draws held-out combinations alone (none empty),
    `held_out=False` none of them.
    """
    if n < 1:
        raise ValueError(f"draw at least one scene, got n={n}.")
    columns = [torch.randint(len(SLOTS[s]), (n,), generator=generator) for s in SLOTS]
    columns[2] = torch.randint(EMPTY, (n,), generator=generator)
    labels = torch.stack(columns, 1)
    wrong = held_out_mask(labels) != held_out
    while wrong.any():
        k = int(wrong.sum())
        labels[wrong, 1] = torch.randint(len(SLOTS["colour"]), (k,), generator=generator)
        labels[wrong, 4] = torch.randint(len(SLOTS["style"]), (k,), generator=generator)
        labels[wrong, 2] = torch.randint(EMPTY, (k,), generator=generator)
        wrong = held_out_mask(labels) != held_out
    if not held_out:
        make_empty_(labels, torch.rand(n, generator=generator) < EMPTY_SHARE)
    return labels


def all_labels() -> torch.Tensor:
    """Every complete description once: int64 (3846, 5), 3,840 garments and 6 empty scenes."""
    values = [torch.arange(EMPTY if slot == "garment" else len(v)) for slot, v in SLOTS.items()]
    empty = torch.full((len(SLOTS["background"]), len(SLOTS)), FREE)
    empty[:, 2], empty[:, 3] = EMPTY, torch.arange(len(empty))
    return torch.cat([torch.cartesian_prod(*values), empty])


def make_empty_(labels: torch.Tensor, rows: torch.Tensor) -> None:
    """Turn the rows (bool (B,)) of `labels` into empty scenes, in place."""
    labels[rows, 0] = labels[rows, 1] = labels[rows, 4] = FREE
    labels[rows, 2] = EMPTY


def draw_attributes(n: int, generator: torch.Generator, held_out: bool = False) -> list[Attributes]:
    """`draw_labels` as attributes."""
    return attributes_of(draw_labels(n, generator, held_out))


@cache
def _rows_of_class(split: str) -> tuple[torch.Tensor, ...]:
    labels = load_fashion(split).labels
    return tuple(torch.nonzero(labels == c)[:, 0] for c in range(EMPTY))


def draw_rows(labels: torch.Tensor, split: str, generator: torch.Generator) -> torch.Tensor:
    """Which photograph of the split each row of labels gets: int64 (B,).

    Its class is the row's garment; for an empty scene any photograph serves.
    """
    rows = _rows_of_class(split)
    fractions = torch.rand(len(labels), generator=generator)
    index = torch.empty(len(labels), dtype=torch.int64)
    garment = torch.where(labels[:, 2] == EMPTY, 0, labels[:, 2])
    for c in garment.unique().tolist():
        here = garment == c
        index[here] = rows[c][(fractions[here] * len(rows[c])).long()]
    return index


def draw_photos(labels: torch.Tensor, split: str, generator: torch.Generator) -> torch.Tensor:
    """A random photograph of the split for each row of labels, uint8 (B, 28, 28): `draw_rows`."""
    return load_fashion(split).images[draw_rows(labels, split, generator)]


def draw_captions(labels: torch.Tensor, generator: torch.Generator) -> list[str]:
    """A caption for each row of labels (B, 5), in a random pattern with random synonyms."""
    numbers = torch.randint(0, 12 * PATTERNS, (len(labels), 1 + len(SLOTS)), generator=generator)
    return [
        render(y, row[0] % PATTERNS, row[1:])
        for y, row in zip(attributes_of(labels), numbers.tolist(), strict=True)
    ]


def scene_batches(
    split: str,
    batch: int,
    generator: torch.Generator,
    held_out: bool | None = False,
    free_share: float = FREE_SHARE,
    repeats: int = 1,
) -> Iterator[Batch]:
    """Endless random batches of captioned scenes.

    Args:
        split: whose photographs, "train" or "test".
        batch: scenes a batch, at least 1.
        generator: the only source of randomness (CPU).
        held_out: False: no held-out combination (all training but the judges'); True: those alone;
            None: all combinations.
        free_share: how often a slot is left out of the caption.
        repeats: so many neighbouring rows share one caption, each with a photograph of its own;
            divides `batch`.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least one scene, got {batch}.")
    if repeats < 1 or batch % repeats:
        raise ValueError(f"repeats={repeats} does not divide a batch of {batch}.")
    while True:
        labels = draw_labels(batch // repeats, generator, bool(held_out))
        if held_out is None:
            n = max(1, len(labels) // 10)
            labels[:n] = draw_labels(n, generator, held_out=True)
        labels = labels.repeat_interleave(repeats, 0)
        rows = draw_rows(labels, split, generator)
        photos = load_fashion(split).images[rows]
        asked, words = _ask(labels[::repeats], free_share, generator)
        asked, words = (t.repeat_interleave(repeats, 0) for t in (asked, words))
        yield Batch(compose(photos, labels).images, words, labels, asked, photos, rows)


def _ask(
    labels: torch.Tensor, free_share: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """What captions of these scenes ask for, and their words."""
    left_out = torch.rand(labels.shape, generator=generator) < free_share
    asked = labels.masked_fill(left_out, FREE)
    # Without its noun an empty scene would ask for any garment at all.
    asked[:, 2] = torch.where(labels[:, 2] == EMPTY, EMPTY, asked[:, 2])
    return asked, encode_words(draw_captions(asked, generator))


def real_scenes(
    labels: torch.Tensor, split: str, generator: torch.Generator, chunk: int = 1000
) -> torch.Tensor:
    """Real images of the split for each row of complete labels: float32 (B, 3, 28, 28)."""
    photos = draw_photos(labels, split, generator)
    parts = zip(photos.split(chunk), labels.split(chunk), strict=True)
    return torch.cat([compose(p, y).images for p, y in parts])


def captions_of(attributes: Sequence[Attributes] | torch.Tensor) -> list[str]:
    """The plain caption (pattern 0, no synonyms) of each."""
    if isinstance(attributes, torch.Tensor):
        attributes = attributes_of(attributes)
    return [render(y) for y in attributes]
