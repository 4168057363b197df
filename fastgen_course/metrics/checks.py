"""Refuse what cannot be scored, in one sentence that names the thing and the mend."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-3  # a tanh or a round trip through uint8 may overshoot [-1, 1] by rounding


class MetricError(ValueError):
    """An input that a metric cannot score."""


def check_images(
    images: Tensor, name: str = "images", shape: tuple[int, ...] = (3, 28, 28)
) -> None:
    """Check a batch of model images: floats (B, *shape), B >= 1, finite, in [-1, 1].

    Raises MetricError (a ValueError) otherwise.
    """
    wanted = "(B, " + ", ".join(map(str, shape)) + ")"
    if not isinstance(images, Tensor):
        raise MetricError(
            f"{name} is a {type(images).__name__}, not a tensor: pass floats of shape {wanted}."
        )
    if images.ndim != 1 + len(shape) or tuple(images.shape[1:]) != shape:
        raise MetricError(f"{name} has shape {tuple(images.shape)}: it must be {wanted}.")
    if not images.is_floating_point():
        raise MetricError(
            f"{name} is {images.dtype}: pass floats in [-1, 1], for uint8 pictures x / 127.5 - 1."
        )
    if images.shape[0] == 0:
        raise MetricError(f"{name} is an empty batch: pass at least one image.")
    low, high = torch.aminmax(images)  # NaN in, NaN out: one pass finds both faults
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = (~torch.isfinite(images.flatten(1)).all(1)).nonzero()[:, 0]
        raise MetricError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(images)} images, first at index "
            f"{int(bad[0])}: mend the model or the sampler before scoring it."
        )
    if low < -1 - TOLERANCE or high > 1 + TOLERANCE:
        raise MetricError(
            f"{name} has values from {float(low):.3g} to {float(high):.3g}: scale them to [-1, 1] "
            "(for [0, 1] that is 2 * x - 1)."
        )


def check_features(features: Tensor, name: str = "features", at_least: int = 1) -> None:
    """Check features (N, F): finite floats, F >= 1 and N >= at_least; MetricError otherwise."""
    if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] == 0:
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise MetricError(f"{name} is {found}: it must be a tensor of shape (N, F).")
    if not features.is_floating_point():
        raise MetricError(f"{name} is {features.dtype}: convert it with .float().")
    if features.shape[0] < at_least:
        raise MetricError(
            f"{name} has {features.shape[0]} rows, too few: at least {at_least} are needed."
        )
    if not torch.isfinite(features).all():
        raise MetricError(f"{name} holds NaN or infinity: mend what made them before scoring.")


def check_labels(
    labels: Tensor, batch: int, classes: tuple[int, ...], names: tuple[str, ...]
) -> None:
    """Check labels (B, len(classes)): int64, each -1 (free) or in [0, classes[slot]).

    Raises MetricError naming the first wrong image, slot and value.
    """
    if not isinstance(labels, Tensor) or tuple(labels.shape) != (batch, len(classes)):
        found = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise MetricError(
            f"labels is {found}: it must have shape {(batch, len(classes))}, one row an image."
        )
    if labels.dtype != torch.int64:
        raise MetricError(f"labels is {labels.dtype}: convert it with .long().")
    wrong = (labels < -1) | (labels >= torch.tensor(classes, device=labels.device))
    if wrong.any():
        row, slot = map(int, wrong.nonzero()[0])
        raise MetricError(
            f"labels[{row}] gives {int(labels[row, slot])} for {names[slot]}: it must be -1 (free) "
            f"or from 0 to {classes[slot] - 1}."
        )
