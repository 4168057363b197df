"""Edits with exact targets: the same photograph, composed with other attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS, encode_words, held_out_mask
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import draw_captions, draw_labels, draw_rows, make_empty_

# The slots that `compose` can change while the garment stays, as columns of labels.
CHANGEABLE = tuple(i for i, slot in enumerate(SLOTS) if slot != "garment")
REMOVE_SHARE = 0.08  # so often the edit takes the garment away
WHOLE_SHARE = 0.3  # so often the instruction is the whole new description


class EditBatch(NamedTuple):
    """Pictures, what to change, and what must come out."""

    source: torch.Tensor  # float32 (B, 3, 28, 28) in [-1, 1]
    target: torch.Tensor  # float32 (B, 3, 28, 28), the same photograph with the new attributes
    target_masks: torch.Tensor  # bool (B, 28, 28), the garment in the target
    words: torch.Tensor  # int64 (B, MAX_WORDS), the instruction
    before: torch.Tensor  # int64 (B, 5)
    after: torch.Tensor  # int64 (B, 5)
    asked: torch.Tensor  # int64 (B, 5), what the instruction names; FREE means: leave it


def change_labels(
    labels: torch.Tensor, changed: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Other values for the slots `changed` (bool (B, 5)) of complete labels (B, 5).

    Every changed slot gets a value that it did not have; no result is a held-out combination.
    Raises ValueError for a garment slot that is changed or an empty scene, which have no exact
    target.
    """
    if changed[:, 2].any() or (labels[:, 2] == EMPTY).any():
        raise ValueError("only size, colour, background and style of a garment can change here.")
    after = labels.clone()
    again = torch.ones(len(labels), dtype=torch.bool)
    while again.any():
        for column, values in enumerate(SLOTS.values()):
            rows = again & changed[:, column]
            shift = torch.randint(1, len(values), (int(rows.sum()),), generator=generator)
            after[rows, column] = (labels[rows, column] + shift) % len(values)
        again = held_out_mask(after)
    return after


def draw_changes(n: int, generator: torch.Generator) -> torch.Tensor:
    """Which slots to change, bool (n, 5): one of four, and each other one with a chance of 1/4."""
    changed = torch.rand(n, len(SLOTS), generator=generator) < 0.25
    one = torch.tensor(CHANGEABLE)[torch.randint(len(CHANGEABLE), (n,), generator=generator)]
    changed[torch.arange(n), one] = True
    changed[:, 2] = False
    return changed


def edit_batches(split: str, batch: int, generator: torch.Generator) -> Iterator[EditBatch]:
    """Endless random edits of real scenes, none idle, no held-out combination before or after.

    An instruction is a caption that names what changes and leaves the rest free, or now and then
    the whole new description; "nothing" takes the garment away.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least one edit, got {batch}.")
    photos = load_fashion(split).images
    while True:
        before = draw_labels(batch, generator)
        while (empty := before[:, 2] == EMPTY).any():
            before[empty] = draw_labels(int(empty.sum()), generator)
        changed = draw_changes(batch, generator)
        after = change_labels(before, changed, generator)
        whole = torch.rand(batch, generator=generator) < WHOLE_SHARE
        asked = torch.where(changed | whole[:, None], after, FREE)
        removed = torch.rand(batch, generator=generator) < REMOVE_SHARE
        after[removed, 3] = before[removed, 3]
        make_empty_(after, removed)
        make_empty_(asked, removed)
        asked[removed, 3] = FREE
        rows = draw_rows(before, split, generator)
        source = compose(photos[rows], before).images
        target, masks = compose(photos[rows], after)
        words = encode_words(draw_captions(asked, generator))
        yield EditBatch(source, target, masks, words, before, after, asked)
