"""The two judges that score: loaded here, and `judge_report` nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.metrics.checks import check_features, check_images

IMAGE_SHAPE = (3, 28, 28)
BATCH = 250  # fits the caches of a laptop core; larger batches are no faster there


@lru_cache(maxsize=1)
def report_judge() -> nn.Module:
    """The judge that scores every table, in eval mode; loaded once.

    Nothing that is trained, searched or chosen may see it: use `judge_train` for that.
    """
    return load_model("judge_report").eval()


@lru_cache(maxsize=1)
def digit_judge() -> nn.Module:
    """The classifier that reads generated digits, in eval mode; loaded once."""
    return load_model("digit_judge").eval()


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter (CPU for a model without any)."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Eval mode without gradients for the block, the mode before it after; yields the device."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield device_of(model)
    finally:
        model.train(training)


def judge_features(images: Tensor, judge: nn.Module | None = None) -> Tensor:
    """Penultimate-layer features (N, F) of images (N, 3, 28, 28) in [-1, 1], on the CPU.

    Features (N, F) are returned unchanged, so that they can be computed once and passed to
    `fid`, `precision_recall` and `nearest_training_neighbour` in place of the images.
    """
    if isinstance(images, Tensor) and images.ndim == 2:
        check_features(images)
        return images
    check_images(images)
    judge = report_judge() if judge is None else judge
    with evaluating(judge) as device:
        return torch.cat([judge.features(part.to(device)).cpu() for part in images.split(BATCH)])
