"""Two different faults with one FID: images missing, and noise on all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgen_course.metrics.checks import MetricError, check_images
from fastgen_course.metrics.features import judge_features
from fastgen_course.metrics.frechet import frechet_distance, gaussian_moments


def add_noise(images: Tensor, amount: float, noise: Tensor) -> Tensor:
    """Images + amount * noise, clipped to [-1, 1]; noise has the images' shape."""
    return (images + amount * noise).clamp(-1, 1)


def noise_of_equal_fid(
    images: Tensor,
    reference: Tensor,
    target: float,
    generator: torch.Generator,
    *,
    judge: nn.Module | None = None,
    probe: int = 500,
    largest: float = 1.0,
    steps: int = 10,
) -> tuple[float, Tensor]:
    """How much pixel noise on `images` (N, 3, 28, 28) gives an FID of `target` against `reference`.

    Bisection. The first half of the `steps` looks at `probe` images, whose FID is corrected by
    what so few images add; the rest at all of them.

    Returns (amount, noisy images). Raises MetricError when `largest` is too little noise.
    """
    check_images(images)
    noise = torch.randn(images.shape, generator=generator)
    moments = gaussian_moments(judge_features(reference, judge))

    def fid_at(amount: float, n: int) -> float:
        features = judge_features(add_noise(images[:n], amount, noise[:n]), judge)
        return frechet_distance(*gaussian_moments(features), *moments)

    n = min(probe, len(images))
    extra = fid_at(0.0, n) - fid_at(0.0, len(images))
    if fid_at(largest, n) - extra < target:
        raise MetricError(f"noise of {largest:g} raises FID to less than {target:.3g}.")
    low, high = 0.0, largest
    for step in range(steps):
        if step == steps // 2:  # the probe's correction is rough: look a little wider again
            width = high - low
            low, high, n, extra = max(0.0, low - 2 * width), high + 2 * width, len(images), 0.0
        middle = (low + high) / 2
        if fid_at(middle, n) - extra < target:
            low = middle
        else:
            high = middle
    amount = (low + high) / 2
    return amount, add_noise(images, amount, noise)
