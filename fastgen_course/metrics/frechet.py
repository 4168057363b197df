"""Frechet distance between two sets of images, by hand and through torchmetrics.

Fit one Gaussian to the features of each set; the Frechet (2-Wasserstein) distance between
two Gaussians has a closed form (Dowson and Landau 1982), and used on the features of a
classifier it is the FID of Heusel et al. 2017, arXiv:1706.08500, equation 6.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgen_course.metrics.checks import MetricError, check_features, check_images
from fastgen_course.metrics.features import (
    BATCH,
    IMAGE_SHAPE,
    device_of,
    evaluating,
    report_judge,
)


class Moments(NamedTuple):
    """Mean (F,) and unbiased covariance (F, F) of a set of features, both float64."""

    mean: Tensor
    covariance: Tensor


def gaussian_moments(features: Tensor) -> Moments:
    """Fit a Gaussian to features (N, F): their mean and unbiased covariance, in float64.

    Raises MetricError for N < 2, for which no covariance exists.
    """
    check_features(features, at_least=2)
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1))


def _root(covariance: Tensor) -> Tensor:
    """Symmetric square root of a symmetric positive semi-definite matrix (F, F)."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # rounding makes tiny negatives


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared Frechet distance between N(mu1, cov1) and N(mu2, cov2), at least 0.

    ||mu1 - mu2||^2 + Tr(cov1 + cov2 - 2 (cov1^(1/2) cov2 cov1^(1/2))^(1/2)).

    Means (F,), covariances (F, F); computed in float64. The matrix under the root is
    symmetric, so `eigh` takes it; cov1 cov2 has the same eigenvalues and is not symmetric.
    Raises MetricError when the shapes disagree or a value is not finite.
    """
    size = mu1.shape[-1] if mu1.ndim == 1 else -1
    for name, value, shape in [
        ("mu1", mu1, (size,)),
        ("cov1", cov1, (size, size)),
        ("mu2", mu2, (size,)),
        ("cov2", cov2, (size, size)),
    ]:
        if tuple(value.shape) != shape:
            raise MetricError(
                f"{name} has shape {tuple(value.shape)}: means must be (F,) and covariances "
                "(F, F), with one F for all four."
            )
        if not torch.isfinite(value).all():
            raise MetricError(f"{name} holds NaN or infinity: no distance is defined.")
    mu1, cov1, mu2, cov2 = (value.double() for value in (mu1, cov1, mu2, cov2))
    root1 = _root(cov1)
    overlap = torch.linalg.eigvalsh(root1 @ cov2 @ root1).clamp(min=0).sqrt().sum()
    distance = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap
    return max(0.0, float(distance))


class JudgeFeatures(nn.Module):
    """The judge's penultimate layer as torchmetrics' feature extractor.

    Takes images (B, 3, 28, 28), or features (B, F) that were taken from them before and pass
    through unchanged, so that the features of the real images are computed once.
    """

    @torch.no_grad()
    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge
        probe = torch.zeros(1, *IMAGE_SHAPE, device=device_of(judge))
        self.num_features = judge.features(probe).shape[1]

    def forward(self, batch: Tensor) -> Tensor:
        return batch if batch.ndim == 2 else self.judge.features(batch)


def fid(images: Tensor, reference: Tensor, *, judge: nn.Module | None = None) -> float:
    """FID of `images` against `reference`, in the features of `judge_report`, by torchmetrics.

    Each argument is a batch of images (N, 3, 28, 28) in [-1, 1], or the features (N, F) that
    `judge_features` took from one. The course compares 10,000 with 10,000: fewer images
    raise the value (the bias falls as 1/N), so only values of the same N compare. `judge`
    replaces `judge_report` (any module with a method `features`). Raises
    MetricError for images or features that cannot be scored and for sets below two.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # a second to import

    images_given = False
    for name, batch in (("images", images), ("reference", reference)):
        if isinstance(batch, Tensor) and batch.ndim == 2:
            check_features(batch, name, at_least=2)
            continue
        check_images(batch, name)
        if len(batch) < 2:
            raise MetricError(f"{name} holds one image: a covariance needs at least two.")
        images_given = True
    if judge is None and images_given:
        judge = report_judge()
    extractor = JudgeFeatures(judge) if images_given else _Identity(images.shape[1])
    for name, batch in (("images", images), ("reference", reference)):
        if batch.ndim == 2 and batch.shape[1] != extractor.num_features:
            raise MetricError(
                f"{name} has {batch.shape[1]} features where {extractor.num_features} are wanted: "
                "take both from the same judge."
            )
    metric = FrechetInceptionDistance(extractor, normalize=True, input_img_size=IMAGE_SHAPE)
    with evaluating(extractor) as device:
        metric = metric.to(device)
        for batch, real in ((images, False), (reference, True)):
            for part in batch.split(BATCH):
                metric.update(part.to(device), real=real)
    # The states are float64; without this the value is rounded to the features' float32.
    metric.orig_dtype = torch.float64
    return float(metric.compute())


class _Identity(nn.Module):
    """Feature extractor for inputs that are features (N, F) already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
