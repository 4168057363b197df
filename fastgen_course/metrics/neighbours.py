"""Diversity and memorisation by nearest neighbours in feature and pixel space.

Precision and recall as in Kynkaanniemi et al. 2019, arXiv:1904.06991, section 2: each set
is the union of balls around its points, each ball reaching its point's k-th neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgen_course.metrics.checks import MetricError, check_images
from fastgen_course.metrics.features import judge_features

CHUNK = 1000  # rows of a distance matrix held at once: 40 MB against 10,000 columns


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: precision is realism, recall is diversity."""

    precision: float
    recall: float


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared Euclidean distances (R, C) between rows (R, F) and columns (C, F)."""
    cross = rows @ columns.T
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)[None, :]
    return squares.sub_(cross, alpha=2).clamp_(min=0)


def _radii(points: Tensor, k: int) -> Tensor:
    """Squared distance (N,) from each point to its k-th nearest other point."""
    radii = []
    for start in range(0, len(points), CHUNK):
        rows = points[start : start + CHUNK]
        distances = _squared_distances(rows, points)
        index = torch.arange(len(rows))
        distances[index, start + index] = float("inf")  # a point is not its own neighbour
        radii.append(distances.topk(k, largest=False).values[:, -1])
    return torch.cat(radii)


@torch.no_grad()
def precision_recall(
    images: Tensor,
    reference: Tensor,
    k: int = 3,
    *,
    judge: nn.Module | None = None,
    directions: bool = True,
) -> PrecisionRecall:
    """Improved precision and recall of `images` against `reference` (equation 1 of the paper).

    Precision: the share of images that lie in a ball around a reference image. Recall: the
    share of reference images that lie in a ball around an image. Arguments as for `fid`;
    memory is bounded by chunks.

    `directions` compares features scaled to length 1. A classifier that is unsure of a picture
    gives it short features, and in 128 dimensions a short vector lies inside the ball of almost
    any image: uniform noise then has the precision of real pictures.

    Raises MetricError for k < 1 or sets of k images or fewer.
    """
    fake, real = judge_features(images, judge), judge_features(reference, judge)
    if fake.shape[1] != real.shape[1]:
        raise MetricError(
            f"images and reference have {fake.shape[1]} and {real.shape[1]} features: take both "
            "from the same judge."
        )
    if k < 1 or min(len(fake), len(real)) <= k:
        raise MetricError(
            f"k = {k} needs more than {max(k, 1)} images on each side and at least 1 neighbour; "
            f"got {len(fake)} and {len(real)} images."
        )
    if directions:
        fake, real = nn.functional.normalize(fake), nn.functional.normalize(real)
    centre = real.mean(0)  # small norms lose fewer digits in |a|^2 + |b|^2 - 2 a.b
    fake, real = (fake - centre).float(), (real - centre).float()
    fake_radii, real_radii = _radii(fake, k), _radii(real, k)
    realistic = torch.zeros(len(fake), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    for start in range(0, len(fake), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = _squared_distances(fake[rows], real)
        realistic[rows] = (distances <= real_radii).any(1)
        covered |= (distances <= fake_radii[rows, None]).any(0)
    return PrecisionRecall(float(realistic.float().mean()), float(covered.float().mean()))


@dataclass(frozen=True)
class Neighbours:
    """Each image's nearest training image: distances (N,) and indices (N,), two ways.

    `pixel_distance` is the root mean square difference in [-1, 1] units (0 to 2);
    `feature_distance` is Euclidean in the judge's features, whose unit is the judge's own, so
    it means something only beside the value of real test images.
    """

    pixel_distance: Tensor
    pixel_index: Tensor
    feature_distance: Tensor
    feature_index: Tensor

    def medians(self) -> dict[str, float]:
        """Median of each distance."""
        return {
            "pixel": float(self.pixel_distance.median()),
            "feature": float(self.feature_distance.median()),
        }


def nearest_features(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """For each query (Q, F) the nearest of points (P, F): Euclidean distance (Q,), index (Q,)."""
    centre = points.mean(0)
    queries, points = queries - centre, points - centre
    index = torch.cat(
        [
            _squared_distances(part, points).argmin(1)
            for part in queries.split(max(1, CHUNK * 10_000 // max(len(points), 1)))
        ]
    )
    return (queries - points[index]).norm(dim=1), index  # exact where the expansion rounds


@torch.no_grad()
def nearest_training_neighbour(
    images: Tensor, training: Tensor, *, judge: nn.Module | None = None
) -> Neighbours:
    """Find each image's nearest training image, in pixels and in features.

    Images (N, 3, 28, 28) and training images (M, 3, 28, 28), both in [-1, 1]. A generator that
    copies its training set has distances near 0. Call it a second time with real test images
    in place of `images`: that value is the baseline, the distance of pictures that nobody
    copied. Raises MetricError for inputs that cannot be scored.
    """
    check_images(images)
    check_images(training, "training")
    pixel, pixel_index = nearest_features(images.flatten(1), training.flatten(1))
    feature, feature_index = nearest_features(
        judge_features(images, judge), judge_features(training, judge)
    )
    return Neighbours(
        pixel_distance=pixel / images[0].numel() ** 0.5,
        pixel_index=pixel_index,
        feature_distance=feature,
        feature_index=feature_index,
    )
