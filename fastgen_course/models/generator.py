"""GENERATOR_BASE: caption words and noise in, picture out, in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fastgen_course.datasets.captions import VOCABULARY


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of a one-step generator.

    Attributes:
        noise: dimensions of z.
        caption: dimensions of the caption vector.
        channels: feature maps at sides 7, 14 and 28, or six, one for each layer (`layer_widths`).
        vocabulary: how many words the caption encoder knows.
    """

    noise: int = 64
    caption: int = 96
    channels: tuple[int, ...] = (128, 64, 32)
    vocabulary: int = len(VOCABULARY)


GENERATOR_BASE = GeneratorConfig()


def layer_widths(config: GeneratorConfig) -> tuple[int, ...]:
    """Output channels of the six layers: stem, conv7, up14, conv14, up28, conv28.

    `config.channels` has three, one a side, for a network that was designed by hand, or all six,
    for one whose layers were pruned each to a width of its own. Raises ValueError for another
    count and for a layer without channels.
    """
    channels = tuple(config.channels)
    if len(channels) not in (3, 6) or min(channels) < 1:
        raise ValueError(
            f"channels must be 3 or 6 whole numbers from 1 up (one a side, or one a layer), got "
            f"{channels}."
        )
    return channels if len(channels) == 6 else tuple(w for w in channels for _ in range(2))


class CaptionEncoder(nn.Module):
    """Words to one vector: embeddings, a convolution over three neighbouring words, maximum.

    The text CNN of Kim (2014). Its three-word window tells "pale blue" from "blue"; the maximum
    makes it indifferent to the sentence's order otherwise.
    """

    def __init__(self, width: int, vocabulary: int = len(VOCABULARY), embedding: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)
        self.ngrams = nn.Conv1d(embedding, width, 3, padding=1)
        self.out = nn.Linear(width, width)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Words (B, L) int64, 0 where there is none, to (B, width)."""
        present = (words != 0).unsqueeze(1)
        ngrams = self.ngrams(self.embedding(words).transpose(1, 2)).relu() * present
        return self.out(ngrams.amax(2))


class ModulatedNorm(nn.Module):
    """Batch normalisation whose scale and shift come from the condition (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale_shift = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.scale_shift.weight, std=0.02)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W) and condition (B, K) to (B, C, H, W)."""
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class Generator(nn.Module):
    """A DCGAN-shaped generator: 7x7, 14x14, 28x28, each step a transposed convolution.

    The condition is z beside the caption vector. It makes the 7x7 map and modulates the norms at
    7x7 and 14x14; at 28x28 plain norms, which fold into their convolutions at export.
    """

    def __init__(self, config: GeneratorConfig = GENERATOR_BASE) -> None:
        super().__init__()
        self.config = config
        stem, seven, up14, fourteen, up28, last = layer_widths(config)
        condition = config.noise + config.caption
        self.caption_encoder = CaptionEncoder(config.caption, config.vocabulary)
        self.low = stem
        self.stem = nn.Linear(condition, stem * 7 * 7)
        self.stem_norm = ModulatedNorm(stem, condition)
        self.conv7 = nn.Conv2d(stem, seven, 3, padding=1, bias=False)
        self.norm7 = ModulatedNorm(seven, condition)
        self.up14 = nn.ConvTranspose2d(seven, up14, 4, 2, 1, bias=False)
        self.norm14a = ModulatedNorm(up14, condition)
        self.conv14 = nn.Conv2d(up14, fourteen, 3, padding=1, bias=False)
        self.norm14b = ModulatedNorm(fourteen, condition)
        self.up28 = nn.ConvTranspose2d(fourteen, up28, 4, 2, 1, bias=False)
        self.norm28a = nn.BatchNorm2d(up28)
        self.conv28 = nn.Conv2d(up28, last, 3, padding=1, bias=False)
        self.norm28b = nn.BatchNorm2d(last)
        self.to_rgb = nn.Conv2d(last, 3, 3, padding=1)

    def forward(self, noise: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Draw pictures.

        Args:
            noise: (B, config.noise), standard normal.
            words: int64 (B, L), from `encode_words`.

        Returns:
            Images (B, 3, 28, 28) in [-1, 1].
        """
        y = torch.cat([noise, self.caption_encoder(words)], 1)
        x = self.stem(y).view(-1, self.low, 7, 7)
        x = self.stem_norm(x, y).relu()
        x = self.norm7(self.conv7(x), y).relu()
        x = self.norm14a(self.up14(x), y).relu()
        x = self.norm14b(self.conv14(x), y).relu()
        x = self.norm28a(self.up28(x)).relu()
        x = self.norm28b(self.conv28(x)).relu()
        return self.to_rgb(x).tanh()
