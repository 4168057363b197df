"""The gradient of FID, as a target for each picture: where the transport map sends its features.

Between two Gaussians the optimal transport map is affine,

    T(f) = mu_r + A (f - mu),   A = C_r^1/2 (C_r^1/2 C C_r^1/2)^-1/2 C_r^1/2,

and the Fréchet distance is the mean of |f - T(f)|^2 (Dowson and Landau 1982; Peyré and Cuturi 2019,
remark 2.31). Its gradient with respect to one picture's features f is 2 (f - T(f)) / N, so that a
square error towards T(f), held fixed, descends FID with mean and covariance of many batches, where
FID of a single batch would be mostly bias. The features are `judge_train`'s; the judge that scores
is another network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.judges import SlotJudge

QUEUE = 4096  # features of the last pictures, whose mean and covariance are moved
EVERY = 20  # updates from one estimate of the map to the next
PHOTOGRAPHS = 8_000


def transport_map(
    mean: Tensor, covariance: Tensor, to_mean: Tensor, to_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """(A, b) of T(f) = f A + b, which moves one Gaussian onto another at least cost.

    Means (F,), covariances (F, F), float64; A is symmetric.
    """
    root = _power(to_covariance, 0.5)
    matrix = root @ _power(root @ covariance @ root, -0.5) @ root
    return matrix, to_mean - mean @ matrix


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A symmetric matrix to a power; directions without variance are held at a millionth."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=1e-6 * values[-1].item())
    return (vectors * values**exponent) @ vectors.T


class FeatureTransport:
    """Keeps the features of the last pictures and says where the real ones' map would move them.

    Its state belongs to a training's: `state_dict`, `load_state_dict`.
    """

    def __init__(self, judge: SlotJudge, photographs: int = PHOTOGRAPHS, seed: int = 17) -> None:
        """Takes the moments of `photographs` composed training scenes; ValueError below two."""
        if photographs < 2:
            raise ValueError(f"photographs must be at least 2, got {photographs}.")
        batches = scene_batches("train", 250, torch.Generator().manual_seed(seed))
        parts = []
        with torch.no_grad():
            while sum(map(len, parts)) < photographs:
                images = next(batches).images.to(memory_format=torch.channels_last)
                parts.append(judge.features(images))
        self.to_mean, self.to_covariance = _moments(torch.cat(parts)[:photographs])
        self.queue = torch.empty(0, len(self.to_mean))
        self.map: tuple[Tensor, Tensor] | None = None
        self.updates = 0

    def state_dict(self) -> dict[str, Any]:
        """The queue, the map and the count of updates."""
        return {"queue": self.queue, "map": self.map, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a killed training was."""
        self.queue, self.map, self.updates = state["queue"], state["map"], state["updates"]

    @torch.no_grad()
    def target(self, features: Tensor) -> Tensor | None:
        """Where features (B, F) should be; None until there are enough for a covariance."""
        self.queue = torch.cat([self.queue, features])[-QUEUE:]
        if len(self.queue) < 2 * self.queue.shape[1]:
            return None
        if self.map is None or self.updates % EVERY == 0:
            found = transport_map(*_moments(self.queue), self.to_mean, self.to_covariance)
            self.map = tuple(part.float() for part in found)
        self.updates += 1
        matrix, shift = self.map
        return features @ matrix + shift


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    features = features.double()
    return features.mean(0), torch.cov(features.T)
