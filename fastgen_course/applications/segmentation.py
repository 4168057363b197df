"""Where is the garment? The editor's mask head against the mask that `compose` knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastgen_course.applications.photographs import draw_photographs, scene_labels
from fastgen_course.datasets.compose import Scenes, compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.metrics.intervals import Estimate, estimate
from fastgen_course.metrics.silhouette import intersection_over_union, silhouettes
from fastgen_course.sampling.studio import studio

PICTURES = 400


def everywhere(images: Tensor) -> Tensor:
    """Every pixel called garment: what a mask is worth that looked at nothing."""
    return torch.ones(len(images), *images.shape[2:], dtype=torch.bool)


def mask_head(images: Tensor) -> Tensor:
    """The editor's mask head, which reads the 49 image tokens and not the pixels."""
    return studio().segment(images)


# `silhouettes` is a rule made for these scenes: it takes the corners for paper.
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask_head": mask_head,
    "rule": silhouettes,
    "everywhere": everywhere,
}


def true_masks(n: int = PICTURES, seed: int = 51) -> Scenes:
    """`n` test photographs in scenes, balanced over garments, with their true masks.

    Raises ValueError unless n is a multiple of 10 from 10.
    """
    if n < 10 or n % 10:
        raise ValueError(f"pictures are shared out over ten garments: {n} is no multiple of 10.")
    generator = torch.Generator().manual_seed(seed)
    rows = draw_photographs("test", n // 10, generator)
    photos = load_fashion("test")
    return compose(photos.images[rows], scene_labels(photos.labels[rows], generator))


def segmentation_overlap(way: str, n: int = PICTURES) -> Estimate:
    """Intersection over union with the true mask, a share a picture; `way` is one of WAYS."""
    scenes = true_masks(n)
    return estimate(intersection_over_union(WAYS[way](scenes.images), scenes.masks))
