"""Toy networks in the plane: a generator and a discriminator for rings of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class RingConfig:
    """Sizes of both toy networks."""

    noise: int = 2
    width: int = 128
    depth: int = 2  # hidden layers
    spectral: bool = False  # divide each weight of the discriminator by its spectral norm


RING_MLP = RingConfig()
RING_TINY = RingConfig(width=8, depth=1)


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class RingGenerator(nn.Module):
    """Noise (B, z) in, points (B, 2) out."""

    def __init__(self, config: RingConfig = RING_MLP) -> None:
        super().__init__()
        self.config = config
        self.net = _mlp([config.noise, *[config.width] * config.depth, 2])

    def forward(self, noise: Tensor) -> Tensor:
        """Map noise (B, z) to points (B, 2)."""
        return self.net(noise)


class RingDiscriminator(nn.Module):
    """Points (B, 2) in, logits (or a critic's scores) (B,) out."""

    def __init__(self, config: RingConfig = RING_MLP) -> None:
        super().__init__()
        self.config = config
        self.net = _mlp([2, *[config.width] * config.depth, 1])
        if config.spectral:
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    spectral_norm(layer)

    def forward(self, points: Tensor) -> Tensor:
        """Score points (B, 2); returns (B,)."""
        return self.net(points).squeeze(1)
