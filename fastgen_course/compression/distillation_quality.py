"""Score teachers and students on the fixed captions, keep a few of their pictures, recall both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.compression.distillation_losses import conditional_mean, drawing_distance
from fastgen_course.compression.teacher_sets import as_bytes, as_images, find_teacher, teacher_draw
from fastgen_course.datasets.captions import EMPTY, encode_words, labels_of
from fastgen_course.files import atomic_write, data_path, require
from fastgen_course.metrics import (
    accuracies,
    caption_list,
    caption_texts,
    fid,
    judge_features,
    precision_recall,
    real_images,
    reference_features,
)
from fastgen_course.models.generator import GENERATOR_BASE
from fastgen_course.timing import Result, ResultError, record, result

AREA = "distillation"
PICTURES = 10_000
SEEDS = (0, 1, 2)
TWO_SEEDS = (0, 1)  # for rows that no headline is made of; two drawings of a caption need two
CHUNK = 250
MEANS = 40  # captions whose mean over all photographs is measured
SAMPLES = "results/distillation_samples.npz"
SAMPLE_CAPTIONS, SAMPLE_COPIES = 6, 2
UNITS = {
    "fid": "FID",
    "exact_accuracy": "share",
    "precision": "share",
    "recall": "share",
    "drawing_distance": "pixel RMS",
    "mean_distance": "pixel RMS",
}
Draw = Callable[[Tensor, int], Tensor]  # (words (n, L), seed) -> images (n, 3, 28, 28)


@dataclass(frozen=True)
class Quality:
    """One value a seed of each figure.

    `drawing_distance`: between two drawings of one caption (one value for each neighbouring pair of
    seeds); `mean_distance`: from a drawing to the mean of all real pictures of its caption.
    """

    fid: tuple[float, ...]
    exact_accuracy: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    drawing_distance: tuple[float, ...]
    mean_distance: tuple[float, ...]


@cache
def _means(count: int, n: int) -> tuple[Tensor, Tensor]:
    """(rows, means) of the first `count` captions among n that have a garment."""
    labels = labels_of(caption_list(n))
    rows = (labels[:, 2] != EMPTY).nonzero()[:count, 0]
    return rows, torch.stack([conditional_mean(label) for label in labels[rows]])


@torch.no_grad()
def quality(
    draw: Draw,
    *,
    seeds: Sequence[int] = SEEDS,
    n: int = PICTURES,
    means: int = MEANS,
    judge: nn.Module | None = None,
) -> Quality:
    """Score `draw` on the first n fixed captions; judge None is `judge_report`.

    Raises ValueError for fewer than two seeds: a caption is drawn twice to see whether both agree.
    """
    if len(seeds) < 2:
        raise ValueError(f"give at least two seeds, got {len(seeds)}.")
    attributes = caption_list(n)
    labels, words = labels_of(attributes), encode_words(caption_texts(attributes))
    reference = reference_features("test", n, judge=judge)
    rows, centres = _means(means, n)
    columns: dict[str, list[float]] = {field.name: [] for field in fields(Quality)}
    before = None
    for seed in seeds:
        images = draw(words, seed)
        features = judge_features(images, judge)
        found = precision_recall(features, reference)
        columns["fid"].append(fid(features, reference))
        columns["exact_accuracy"].append(accuracies(features, labels, judge=judge).exact.value)
        columns["precision"].append(found.precision)
        columns["recall"].append(found.recall)
        columns["mean_distance"].append(float(drawing_distance(images[rows], centres).mean()))
        if before is not None:
            columns["drawing_distance"].append(float(drawing_distance(images, before).mean()))
        before = images
    return Quality(**{name: tuple(values) for name, values in columns.items()})


# --- who draws ------------------------------------------------------------------------------------


def network_draw(network: nn.Module, chunk: int = CHUNK) -> Draw:
    """A one-step generator's drawing: the same noise for every network of one width."""

    def draw(words: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(words), network.config.noise, generator=generator)
        pairs = zip(noise.split(chunk), words.split(chunk), strict=True)
        # Stored plainly: what the judge reads of channels-last pictures differs in the last bits.
        return torch.cat([network(z, y).contiguous() for z, y in pairs])

    return draw


def teacher_row(name: str) -> Draw:
    """A teacher as the students see it: the flow in FLOW_STEPS guided steps of Heun's method."""
    find_teacher(name)

    def draw(words: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(words), GENERATOR_BASE.noise, generator=generator)
        made = teacher_draw(name, seed)
        pairs = zip(words.split(CHUNK), noise.split(CHUNK), strict=True)
        return torch.cat([made(y, z).contiguous() for y, z in pairs])

    return draw


def real_row(words: Tensor, seed: int) -> Tensor:
    """Real training pictures of the first fixed captions, in the place of a drawing."""
    labels = labels_of(caption_list(len(words)))
    return real_images("train", labels, torch.Generator().manual_seed(1000 + seed))


# --- records --------------------------------------------------------------------------------------


def record_quality(name: str, found: Quality, **extra: Any) -> None:
    """Record a row as `distillation.FIGURE.NAME`: the mean, lowest and highest, and each seed's."""
    for figure, unit in UNITS.items():
        values = getattr(found, figure)
        middle = statistics.fmean(values)
        record(
            AREA, f"{AREA}.{figure}.{name}", middle, unit,
            spread=(min(*values, middle), max(*values, middle)), by_seed=list(values), **extra,
        )  # fmt: skip


def recorded_quality(name: str) -> dict[str, Result]:
    """A row's entries by figure. Raises `ResultError` where it was not recorded."""
    return {figure: result(f"{AREA}.{figure}.{name}") for figure in UNITS}


def is_recorded(name: str, **extra: Any) -> bool:
    """Whether a row stands in the registry with these extras, as after a killed run."""
    try:
        rows = recorded_quality(name).values()
    except ResultError:
        return False
    return all(holds(row, **extra) for row in rows)


def holds(row: Result, **extra: Any) -> bool:
    """Whether an entry has these extras, or fields such as `base`."""
    return all(row.extra.get(k, getattr(row, k, None)) == v for k, v in extra.items())


def ratios(name: str, over: str, figure: str) -> tuple[float, tuple[float, float]]:
    """(ratio, (lowest, highest)) of a figure, student over teacher, seed by seed."""
    ours, theirs = (result(f"{AREA}.{figure}.{n}").extra["by_seed"] for n in (name, over))
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(found)
    return middle, (min(*found, middle), max(*found, middle))


def drops(name: str, over: str, figure: str) -> tuple[float, tuple[float, float]]:
    """(difference, (lowest, highest)) of a figure, teacher less student, seed by seed."""
    ours, theirs = (result(f"{AREA}.{figure}.{n}").extra["by_seed"] for n in (name, over))
    found = [b - a for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(found)
    return middle, (min(*found, middle), max(*found, middle))


# --- pictures -------------------------------------------------------------------------------------


def sample_words(captions: int = SAMPLE_CAPTIONS) -> tuple[list[str], Tensor]:
    """Texts and words of the first fixed captions that have a garment, for the eye."""
    attributes = [y for y in caption_list(100) if y.garment != "nothing"][:captions]
    texts = caption_texts(attributes)
    return texts, encode_words(texts)


@torch.no_grad()
def keep_samples(name: str, draw: Draw) -> None:
    """Draw the sample captions, SAMPLE_COPIES times each, and keep them as a row's pictures."""
    _, words = sample_words()
    if name == "real":  # its pictures belong to the fixed list, not to words
        attributes = [y for y in caption_list(100) if y.garment != "nothing"][:SAMPLE_CAPTIONS]
        labels = labels_of(attributes)
        drawn = [
            real_images("train", labels, torch.Generator().manual_seed(1000 + seed))
            for seed in range(SAMPLE_COPIES)
        ]
    else:
        drawn = [draw(words, seed) for seed in range(SAMPLE_COPIES)]
    rows = _all_samples()
    rows[name] = as_bytes(torch.stack(drawn, 1)).numpy()
    with atomic_write(data_path(*SAMPLES.split("/"))) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **rows)


def _all_samples() -> dict[str, np.ndarray]:
    if not data_path(*SAMPLES.split("/")).is_file():
        return {}
    with np.load(require(SAMPLES), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def load_samples(name: str) -> Tensor:
    """A row's pictures, (captions, copies, 3, 28, 28) in [-1, 1].

    Raises `ResultError`, with the command, where the row has none.
    """
    rows = _all_samples()
    if name not in rows:
        raise ResultError(
            f"No pictures of {name!r} are kept; run `python -m "
            "fastgen_course.compression.distillation_records ablation`."
        )
    return as_images(torch.from_numpy(rows[name]))


def sampled_rows() -> tuple[str, ...]:
    """Names of the rows whose pictures are kept."""
    return tuple(_all_samples())
