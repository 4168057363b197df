"""Is the picture what the caption asked for? Shares found by the reporting judge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import SLOTS
from fastgen_course.metrics.checks import MetricError, check_images, check_labels
from fastgen_course.metrics.features import (
    BATCH,
    digit_judge,
    evaluating,
    judge_features,
    report_judge,
)
from fastgen_course.metrics.intervals import Estimate, estimate
from fastgen_course.models.judges import slots_from_logits

SLOT_NAMES = tuple(SLOTS)
CLASSES = tuple(len(values) for values in SLOTS.values())
GARMENT = SLOT_NAMES.index("garment")


@dataclass(frozen=True)
class Accuracies:
    """The three accuracies of one set of images, and the share found in each slot."""

    slot: Estimate
    exact: Estimate
    garment: Estimate | None  # None when no caption asks for a garment
    by_slot: dict[str, float]


def read_slots(images: Tensor, *, judge: nn.Module | None = None) -> Tensor:
    """Name every slot of images (B, 3, 28, 28), or of their features (B, F): int64 (B, 5)."""
    judge = report_judge() if judge is None else judge
    features = judge_features(images, judge)
    with evaluating(judge) as device:
        return slots_from_logits(judge.classify(features.to(device))).cpu()


def found_slots(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Tensor:
    """Which slots the judge finds as asked: floats (B, 5), 1 right, 0 wrong, NaN not asked for.

    Images (B, 3, 28, 28) in [-1, 1], or their features (B, F) as `judge_features` gives them;
    labels (B, 5) int64 index `SLOTS`, -1 where the caption leaves the slot free. An empty scene
    asks for the garment "nothing" and its background. `judge` replaces `judge_report`. Raises
    MetricError for images or labels that cannot be scored.
    """
    read = read_slots(images, judge=judge)
    check_labels(labels, len(read), CLASSES, SLOT_NAMES)
    labels = labels.cpu()
    return (read == labels).float().masked_fill(labels == -1, float("nan"))


def _slot_values(found: Tensor) -> Tensor:
    """Share of asked-for slots found (N,) of the captions that ask for anything."""
    values = found.nanmean(1)
    values = values[~values.isnan()]
    if len(values) == 0:
        raise MetricError("labels asks for nothing (-1 everywhere): no accuracy is defined.")
    return values


def slot_accuracy(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Estimate:
    """Mean over captions of the share of asked-for slots found (see `found_slots`)."""
    return estimate(_slot_values(found_slots(images, labels, judge=judge)))


def exact_accuracy(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Estimate:
    """Share of images with all asked-for slots right (see `found_slots`)."""
    return estimate((_slot_values(found_slots(images, labels, judge=judge)) == 1).float())


def garment_accuracy(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Estimate:
    """Share of images with the right garment, of those whose caption asks for one.

    "nothing" counts as a garment. Arguments and errors as for `found_slots`.
    """
    values = found_slots(images, labels, judge=judge)[:, GARMENT]
    values = values[~values.isnan()]
    if len(values) == 0:
        raise MetricError("labels asks for no garment (-1 everywhere): no accuracy is defined.")
    return estimate(values)


def accuracies(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Accuracies:
    """All accuracies from one pass of the judge (arguments and errors as for `found_slots`)."""
    return summarise(found_slots(images, labels, judge=judge))


def summarise(found: Tensor) -> Accuracies:
    """Accuracies of the slots found (B, 5), or (S, B, 5) for S drawings of the same captions.

    Drawings of one caption are not independent, so the interval resamples captions: each
    caption's value is its mean over the drawings.
    """
    found = found[None] if found.ndim == 2 else found
    slots = torch.stack([_slot_values(drawing) for drawing in found])
    garments = found[:, :, GARMENT].mean(0)
    garments = garments[~garments.isnan()]
    return Accuracies(
        slot=estimate(slots.mean(0)),
        exact=estimate((slots == 1).float().mean(0)),
        garment=estimate(garments) if len(garments) else None,
        by_slot={
            name: float(found[:, :, index].nanmean())
            for index, name in enumerate(SLOT_NAMES)
            if not found[:, :, index].isnan().all()
        },
    )


def digit_accuracy(images: Tensor, labels: Tensor, *, judge: nn.Module | None = None) -> Estimate:
    """Share of digits (B, 1, 28, 28) in [-1, 1] that the digit judge reads as `labels` (B,).

    Labels are int64, 0 to 9. Raises MetricError for images or labels that cannot be scored.
    """
    check_images(images, shape=(1, 28, 28))
    if isinstance(labels, Tensor) and labels.ndim == 1:
        labels = labels[:, None]
    check_labels(labels, len(images), (10,), ("the digit",))
    if (labels == -1).any():
        raise MetricError("labels holds -1: every image needs the digit it should show, 0 to 9.")
    judge = digit_judge() if judge is None else judge
    with evaluating(judge) as device:
        read = torch.cat([judge(part.to(device)).argmax(1).cpu() for part in images.split(BATCH)])
    return estimate((read == labels[:, 0].cpu()).float())
