"""The quality of what is delivered: uint8 pictures of captions, whatever drew them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import labels_of
from fastgen_course.metrics.accuracy import accuracies
from fastgen_course.metrics.features import judge_features
from fastgen_course.metrics.frechet import fid
from fastgen_course.metrics.neighbours import precision_recall
from fastgen_course.metrics.reference import (
    caption_list,
    caption_texts,
    heldout_list,
    reference_features,
)

# draw(captions, generator) -> uint8 (B, 28, 28, 3)
Draw = Callable[[Sequence[str], torch.Generator], np.ndarray]
# What is scored, and its unit in the registry.
FIGURES: dict[str, str] = {
    "fid": "FID",
    "slot_accuracy": "share",
    "exact_accuracy": "share",
    "garment_accuracy": "share",
    "heldout_exact_accuracy": "share",
    "recall": "share",
}
PICTURES, HELD_OUT, SEEDS, CHUNK = 10_000, 2_000, (0, 1, 2), 250


@torch.no_grad()
def delivered_quality(
    draw: Draw,
    *,
    n: int = PICTURES,
    n_held_out: int = HELD_OUT,
    seeds: Sequence[int] = SEEDS,
    judge: nn.Module | None = None,
) -> dict[str, list[float]]:
    """Each of FIGURES, a value a seed, of what `draw` makes of the fixed captions.

    What is scored are the bytes that are delivered. judge None is `judge_report`.
    """
    asked, held_out = caption_list(n), heldout_list(n_held_out)
    reference = reference_features("test", n, judge=judge)
    columns: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        features = judge_features(_images(draw, caption_texts(asked), generator), judge)
        found = accuracies(features, labels_of(asked), judge=judge)
        others = _images(draw, caption_texts(held_out), generator)
        columns["fid"].append(fid(features, reference))
        columns["recall"].append(precision_recall(features, reference).recall)
        for name in ("slot", "exact", "garment"):
            columns[f"{name}_accuracy"].append(getattr(found, name).value)
        exact = accuracies(others, labels_of(held_out), judge=judge).exact.value
        columns["heldout_exact_accuracy"].append(exact)
    return columns


def _images(draw: Draw, texts: list[str], generator: torch.Generator) -> Tensor:
    parts = [draw(texts[i : i + CHUNK], generator) for i in range(0, len(texts), CHUNK)]
    pictures = torch.from_numpy(np.concatenate(parts))
    return pictures.movedim(-1, 1).float() / 127.5 - 1
