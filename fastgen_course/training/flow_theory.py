"""Flows where everything is known: a mixture of Gaussians in the plane, exact and learned.

Notebook 08 checks its derivations here: the marginal velocity has a closed form, so a network, a
solver and a straightened flow can each be compared with the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastgen_course.models.flow import time_features
from fastgen_course.sampling.flow import Velocity, even_times, heun
from fastgen_course.training.flow import LatentBatch, Loss

Coupling = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # noise and z, (n, D) each


@dataclass(frozen=True)
class Mixture:
    """Equally likely Gaussians of one deviation around `means` (K, D)."""

    means: Tensor
    deviation: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, D)."""
        which = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[which] + self.deviation * noise

    def coupled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise and data, drawn independently: what flow matching starts from."""
        shape = (n, self.means.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=self.means.dtype)
        return noise, self.sample(n, generator)

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """The marginal velocity E[data - noise | z_t = z] (B, D) at times t (B,).

        Given the Gaussian k, (noise, data, z_t) are jointly Gaussian, so the mean is linear in z;
        over k it is averaged with the weights p(k | z_t) ~ N(z; t m_k, variance(t)).
        """
        t = t[:, None]
        variance = (1 - t) ** 2 + (t * self.deviation) ** 2
        away = z[:, None] - t[:, None] * self.means  # (B, K, D)
        weights = (-away.square().sum(-1) / (2 * variance)).softmax(-1)
        slope = (t * self.deviation**2 - (1 - t)) / variance
        of_each = self.means + slope[:, None] * away
        return (weights[..., None] * of_each).sum(1)


def ring_mixture(modes: int = 6, radius: float = 2.5, deviation: float = 0.3) -> Mixture:
    """`modes` Gaussians on a circle, in float64."""
    angles = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return Mixture(radius * torch.stack([angles.cos(), angles.sin()], 1), deviation)


class ToyVelocity(nn.Module):
    """A perceptron in the place of VelocityNet: z (B, 2), words (ignored) and times to (B, 2)."""

    def __init__(self, times: int = 1, width: int = 96, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(2 + 16 * times, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, 2),
            )

    def forward(self, z: Tensor, words: Tensor | None, *times: Tensor) -> Tensor:
        """The velocity at z."""
        features = [time_features(t, 16, 10.0) for t in times]
        return self.net(torch.cat([z, *features], 1))

    def velocity(self) -> Velocity:
        """The network as a function of z and t, without gradient."""

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad():
                return self(z, None, t)

        return velocity


def train_toy(
    model: ToyVelocity,
    coupling: Coupling,
    loss: Loss,
    steps: int = 1500,
    batch: int = 256,
    rate: float = 2e-3,
    seed: int = 0,
) -> list[float]:
    """Minimise one of the losses of `training.flow` on coupled noise and data; the losses."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    words = torch.zeros(batch, 1, dtype=torch.int64)
    losses = []
    for step in range(steps):
        noise, z = (x.float() for x in coupling(batch, generator))
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(model, LatentBatch(z, noise, words, words), generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


def flow_coupling(velocity: Velocity, steps: int = 50, pool: int = 20_000) -> Coupling:
    """Noise and where the flow takes it, from a pool drawn once: what reflow trains on."""
    noise = torch.randn(pool, 2, generator=torch.Generator().manual_seed(77))
    z = heun(velocity, noise, even_times(steps))

    def coupled(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(pool, (n,), generator=generator)
        return noise[rows], z[rows]

    return coupled


def path(velocity: Velocity, z: Tensor, steps: int = 100) -> Tensor:
    """Where a flow passes: (steps + 1, B, D), by Heun's method."""
    points = [z]
    times = even_times(steps).to(z.dtype)
    for start, end in pairwise(times):
        points.append(heun(velocity, points[-1], torch.stack([start, end])))
    return torch.stack(points)


def bend(velocity: Velocity, noise: Tensor, steps: int = 100) -> float:
    """How far from straight the ways are: 0 for straight lines walked at constant speed.

    E of the mean over t of |v(z_t, t) - (z_1 - z_0)|^2, in units of E|z_1 - z_0|^2 (Liu, Gong and
    Liu 2023, equation 3). It is what one Euler step neglects.
    """
    points = path(velocity, noise, steps)
    way = points[-1] - points[0]
    moves = (points[1:] - points[:-1]) * steps
    return ((moves - way).square().sum(-1).mean() / way.square().sum(-1).mean()).item()


def energy_distance(a: Tensor, b: Tensor) -> float:
    """How far two samples (N, D) lie apart as distributions: 2 E|a - b| - E|a - a'| - E|b - b'|."""
    cross, aa, bb = torch.cdist(a, b).mean(), torch.cdist(a, a), torch.cdist(b, b)
    n, m = len(a), len(b)
    return (2 * cross - aa.sum() / (n * (n - 1)) - bb.sum() / (m * (m - 1))).item()
