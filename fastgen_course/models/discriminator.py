"""The discriminator of GENERATOR_BASE: small heads on a frozen judge's features.

Projected GAN (Sauer et al. 2021): a discriminator that looks through a pretrained network learns
what to object to many times faster than one that starts from pixels. Conditioning by projection
(Miyato and Koyama 2018).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from fastgen_course.datasets.captions import SLOTS
from fastgen_course.models.judges import SlotJudge


class SlotEmbedding(nn.Module):
    """What a caption asks for, as one vector: the sum of an embedding a slot (FREE has its own)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = torch.tensor([1 + len(v) for v in SLOTS.values()])
        self.register_buffer("offsets", torch.cumsum(sizes, 0) - sizes + 1)
        self.embedding = nn.EmbeddingBag(int(sizes.sum()), width, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.3)

    def forward(self, asked: torch.Tensor) -> torch.Tensor:
        """asked int64 (B, 5), -1 for free, to (B, width)."""
        return self.embedding(asked + self.offsets)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    padding = (kernel - stride + 1) // 2
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding))


class Head(nn.Module):
    """Convolutions on one feature map, then a logit a place: unconditional plus projection."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.condition = SlotEmbedding(width)

    def forward(self, maps: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Feature maps (B, C, H, W) and labels (B, 5) to logits (B, H' * W')."""
        h = self.body(maps)
        # Over the root of the width, as in attention: a mean would drown the condition.
        wanted = self.condition(asked)[:, :, None, None] / h.shape[1] ** 0.5
        projection = (h * wanted).sum(1, keepdim=True)
        return (self.score(h) + projection).flatten(1)


class ProjectedDiscriminator(nn.Module):
    """Four heads: on the judge's maps at sides 28, 14 and 7, and on its penultimate layer.

    Each looks at `pack` pictures of one caption at once (PacGAN, Lin et al. 2018): with 2, a
    generator that ignores its noise gives itself away by drawing the same picture twice.

    The judge is not a part of it: it stays frozen, and its features are the argument.
    """

    def __init__(
        self, channels: tuple[int, ...], features: int, width: int = 64, pack: int = 1
    ) -> None:
        super().__init__()
        slope = 0.2
        self.pack = pack
        c28, c14, c7, features = (pack * c for c in (*channels, features))

        def act() -> nn.Module:
            return nn.LeakyReLU(slope)

        self.heads = nn.ModuleList(
            [
                Head([_conv(c28, 32, 4, 2), act(), _conv(32, width, 4, 2), act()], width),
                Head([_conv(c14, width, 4, 2), act(), _conv(width, width, 1, 1), act()], width),
                Head([_conv(c7, width, 3, 1), act(), _conv(width, width, 1, 1), act()], width),
                Head([_conv(features, 128, 1, 1), act(), _conv(128, 128, 1, 1), act()], 128),
            ]
        )

    def forward(self, features: list[torch.Tensor], asked: torch.Tensor) -> list[torch.Tensor]:
        """Logits of each head, (B / pack, places).

        Args:
            features: `judge_features(judge, images)`; neighbouring rows share a caption.
            asked: int64 (B, 5).
        """
        asked = asked[:: self.pack]
        packed = [x.reshape(len(asked), -1, *x.shape[2:]) for x in features]
        return [head(x, asked) for head, x in zip(self.heads, packed, strict=True)]


def judge_features(judge: SlotJudge, images: torch.Tensor) -> list[torch.Tensor]:
    """The judge's maps at sides 28, 14 and 7, and its penultimate layer as (B, features, 1, 1)."""
    maps = judge.stage_outputs(images)
    return [*maps, judge.pool(maps[-1])[:, :, None, None]]
