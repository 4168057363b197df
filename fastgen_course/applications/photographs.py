"""Balanced sets of photographs, each in a captioned scene: what every application here is fed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.datasets.captions import EMPTY, SLOTS, encode_words, held_out_mask
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import captions_of

GARMENTS = EMPTY  # ten; the eleventh value of the slot is "nothing"


class SceneSet(NamedTuple):
    """Photographs in scenes, with the plain caption of each."""

    images: Tensor  # float32 (N, 3, 28, 28) in [-1, 1]
    labels: Tensor  # int64 (N, 5), all slots; none is a held-out combination
    words: Tensor  # int64 (N, MAX_WORDS)

    @property
    def garments(self) -> Tensor:
        """int64 (N,), an index into FASHION_CLASSES."""
        return self.labels[:, 2]


def draw_photographs(split: str, per_class: int, generator: torch.Generator) -> Tensor:
    """Rows of `split`, int64 (10 per_class,): no photograph twice, as many of each garment.

    The garments take turns (0, 1, ..., 9, 0, ...), so that any part from the front is nearly
    balanced. Raises ValueError when a class has fewer than `per_class` photographs.
    """
    labels = load_fashion(split).labels
    columns = []
    for garment in range(GARMENTS):
        rows = torch.nonzero(labels == garment)[:, 0]
        if not 1 <= per_class <= len(rows):
            raise ValueError(f"per_class must lie in 1 to {len(rows)}, got {per_class}.")
        columns.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.stack(columns, 1).flatten()


def scene_labels(garments: Tensor, generator: torch.Generator) -> Tensor:
    """Labels int64 (N, 5) with the given garments (N,), everything else drawn evenly.

    No held-out combination is among them: no generator has ever seen one.
    """
    labels = torch.stack(
        [torch.randint(len(v), (len(garments),), generator=generator) for v in SLOTS.values()], 1
    )
    labels[:, 2] = garments
    while (wrong := held_out_mask(labels)).any():
        for slot, name in ((1, "colour"), (4, "style")):
            count = int(wrong.sum())
            labels[wrong, slot] = torch.randint(len(SLOTS[name]), (count,), generator=generator)
    return labels


def scenes_of(rows: Tensor, split: str, generator: torch.Generator) -> SceneSet:
    """Each photograph (a row of `split`) in one scene drawn from the generator."""
    photos = load_fashion(split)
    labels = scene_labels(photos.labels[rows], generator)
    return in_scenes(rows, split, labels)


def in_scenes(rows: Tensor, split: str, labels: Tensor) -> SceneSet:
    """Each photograph in the scene that its row of `labels` (N, 5) describes."""
    images = compose(load_fashion(split).images[rows], labels).images
    return SceneSet(images, labels, encode_words(captions_of(labels)))
