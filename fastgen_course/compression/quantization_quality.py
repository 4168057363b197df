"""Score quantised generators on the fixed captions, the same noise for each, and recall the scores.

Every row draws the same captions from the same noise, so that two rows differ by their numbers'
bits alone, and a ratio of FIDs is taken seed by seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import encode_words, labels_of
from fastgen_course.metrics import (
    accuracies,
    caption_list,
    caption_texts,
    fid,
    judge_features,
    precision_recall,
    reference_features,
)
from fastgen_course.timing import Result, ResultError, record, result

AREA = "quantization"
PICTURES = 10_000
SEEDS = (0, 1, 2)
CHUNK = 250
FIGURES = {"fid": "FID", "exact_accuracy": "share", "recall": "share"}
Draw = Callable[[Tensor, Tensor], Tensor]  # (noise, words) -> images


@dataclass(frozen=True)
class Quality:
    """One value a seed of each figure."""

    fid: tuple[float, ...]
    exact_accuracy: tuple[float, ...]
    recall: tuple[float, ...]


def quality(
    draw: Draw,
    noise_size: int,
    *,
    seeds: Sequence[int] = SEEDS,
    n: int = PICTURES,
    judge: nn.Module | None = None,
    chunk: int = CHUNK,
) -> Quality:
    """Score `draw` on the first n fixed captions; judge None is `judge_report`."""
    attributes = caption_list(n)
    labels, words = labels_of(attributes), encode_words(caption_texts(attributes))
    reference = reference_features("test", n, judge=judge)
    rows = []
    for seed in seeds:
        noise = torch.randn(n, noise_size, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            parts = zip(noise.split(chunk), words.split(chunk), strict=True)
            # Copies: a runtime may draw every batch into the same memory.
            images = torch.cat([draw(z, y).clone() for z, y in parts])
        features = judge_features(images, judge)
        rows.append(
            (
                fid(features, reference),
                accuracies(features, labels, judge=judge).exact.value,
                precision_recall(features, reference).recall,
            )
        )
    return Quality(*zip(*rows, strict=True))


def record_quality(name: str, found: Quality, *, area: str = AREA, **extra: Any) -> None:
    """Record a row as `AREA.FIGURE.NAME`: the mean, lowest and highest, and each seed's."""
    for figure, unit in FIGURES.items():
        values = getattr(found, figure)
        middle = statistics.fmean(values)
        record(
            area, f"{area}.{figure}.{name}", middle, unit,
            spread=(min(*values, middle), max(*values, middle)), by_seed=list(values), **extra,
        )  # fmt: skip


def recorded_quality(name: str, area: str = AREA) -> dict[str, Result]:
    """A row's entries by figure. Raises `ResultError` where it was not recorded."""
    return {figure: result(f"{area}.{figure}.{name}") for figure in FIGURES}


def is_recorded(name: str, *, area: str = AREA, **extra: Any) -> bool:
    """Whether a row stands in the registry with these extras, as after a killed run."""
    try:
        rows = recorded_quality(name, area).values()
    except ResultError:
        return False
    return all({key: row.extra.get(key) for key in extra} == extra for row in rows)


def fid_ratio(
    name: str, bases: Sequence[str], area: str = AREA
) -> tuple[float, tuple[float, float], str]:
    """(ratio, (lowest, highest), base): a row's FID over the *best* of several bases, by seed.

    Rows of the same seeds drew from the same noise, so each seed gives a ratio of its own.
    """
    base = min(bases, key=lambda b: result(f"{area}.fid.{b}").value)
    ours, theirs = (result(f"{area}.fid.{n}").extra["by_seed"] for n in (name, base))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(ratios)
    return middle, (min(*ratios, middle), max(*ratios, middle)), base
