"""The velocity network of notebook 08: where a latent vector moves, given time and text.

A residual multilayer perceptron on the VAE's latent vector. Each block is modulated by the caption
and the time, and its contribution starts at zero (Peebles and Xie 2023, "adaLN-zero").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import VOCABULARY
from fastgen_course.models.generator import CaptionEncoder


@dataclass(frozen=True)
class FlowConfig:
    """Sizes of a velocity network.

    Attributes:
        latent: length of the vector that moves.
        width: length of a state between the blocks.
        blocks: residual blocks.
        condition: length of the vector that modulates them.
        caption: length of the caption's vector.
        times: what else conditions it: ("t",) the time of an instantaneous velocity; ("t", "r") for
            the mean velocity from r to t; ("t", "s") for a velocity guided with scale s.
        vocabulary: how many words the caption encoder knows.
    """

    latent: int = 64
    width: int = 160
    blocks: int = 6
    condition: int = 96
    caption: int = 96
    times: tuple[str, ...] = ("t",)
    vocabulary: int = len(VOCABULARY)

    def __post_init__(self) -> None:
        if self.times not in (("t",), ("t", "r"), ("t", "s")):
            raise ValueError(f'times is ("t",), ("t", "r") or ("t", "s"), not {self.times}.')


FLOW = FlowConfig()


def time_features(t: Tensor, width: int = 64, highest: float = 100.0) -> Tensor:
    """Sines and cosines of t (B,) at frequencies from 1 to `highest`: (B, width)."""
    half = width // 2
    frequencies = torch.exp(torch.linspace(0, math.log(highest), half, device=t.device))
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class FlowBlock(nn.Module):
    """x + gate * perceptron(scaled and shifted norm of x), all three from the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 3 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, width) and condition (B, condition) to (B, width)."""
        scale, shift, gate = self.modulation(condition).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class VelocityNet(nn.Module):
    """z (B, latent), times and words to a velocity (B, latent).

    `mean` and `deviation` are the latent vectors' own, so that outside of this network z has mean 0
    and deviation 1 in every number: `normalise` and `restore`.
    """

    def __init__(self, config: FlowConfig = FLOW) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("mean", torch.zeros(config.latent))
        self.register_buffer("deviation", torch.ones(config.latent))
        self.caption_encoder = CaptionEncoder(config.caption, config.vocabulary)
        self.condition = nn.Sequential(
            nn.Linear(config.caption + 64 * len(config.times), config.condition),
            nn.SiLU(),
            nn.Linear(config.condition, config.condition),
            nn.SiLU(),
        )
        self.stem = nn.Linear(config.latent, width)
        self.blocks = nn.ModuleList(
            FlowBlock(width, config.condition) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.latent)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def normalise(self, z: Tensor) -> Tensor:
        """The VAE's latent vectors (B, latent) in units of their own mean and deviation."""
        return (z - self.mean) / self.deviation

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return z * self.deviation + self.mean

    def conditions(self, words: Tensor, *times: Tensor) -> Tensor:
        """Captions int64 (B, L), a row of zeros for none, and times (B,) each: (B, condition)."""
        if len(times) != len(self.config.times):
            raise ValueError(
                f"this network takes {', '.join(self.config.times)}: {len(self.config.times)} "
                f"times, not {len(times)}."
            )
        features = [time_features(t) for t in times]
        return self.condition(torch.cat([self.caption_encoder(words), *features], 1))

    def forward(self, z: Tensor, words: Tensor, *times: Tensor) -> Tensor:
        """The velocity at z (B, latent) for captions (B, L) and times (B,) each."""
        condition = self.conditions(words, *times)
        x = self.stem(z)
        for block in self.blocks:
            x = block(x, condition)
        return self.out(self.norm(x))

    def deep(self, x: Tensor, condition: Tensor) -> Tensor:
        """What all blocks but the first and the last add to a state x (B, width)."""
        y = x
        for block in self.blocks[1:-1]:
            y = block(y, condition)
        return y - x

    def forward_cached(
        self, z: Tensor, words: Tensor, *times: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and what the inner blocks added; with `kept` from an earlier step, that.

        Between neighbouring steps the deep features change little (DeepCache, Ma, Fang and Wang
        2023): the outer blocks see the new z and time, the inner ones are not computed again.
        """
        condition = self.conditions(words, *times)
        x = self.blocks[0](self.stem(z), condition)
        kept = self.deep(x, condition) if kept is None else kept
        x = self.blocks[-1](x + kept, condition)
        return self.out(self.norm(x)), kept
