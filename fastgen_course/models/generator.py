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
        channels: feature maps at sides 7, 14 and 28. A folded network may have six, one for each
            layer (`compression.folding.layer_widths`).
        vocabulary: how many words the caption encoder knows.
    """

    noise: int = 64
    caption: int = 96
    channels: tuple[int, ...] = (128, 64, 32)
    vocabulary: int = len(VOCABULARY)


GENERATOR_BASE = GeneratorConfig()


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
        low, middle, high = config.channels
        condition = config.noise + config.caption
        self.caption_encoder = CaptionEncoder(config.caption, config.vocabulary)
        self.low = low
        self.stem = nn.Linear(condition, low * 7 * 7)
        self.stem_norm = ModulatedNorm(low, condition)
        self.conv7 = nn.Conv2d(low, low, 3, padding=1, bias=False)
        self.norm7 = ModulatedNorm(low, condition)
        self.up14 = nn.ConvTranspose2d(low, middle, 4, 2, 1, bias=False)
        self.norm14a = ModulatedNorm(middle, condition)
        self.conv14 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.norm14b = ModulatedNorm(middle, condition)
        self.up28 = nn.ConvTranspose2d(middle, high, 4, 2, 1, bias=False)
        self.norm28a = nn.BatchNorm2d(high)
        self.conv28 = nn.Conv2d(high, high, 3, padding=1, bias=False)
        self.norm28b = nn.BatchNorm2d(high)
        self.to_rgb = nn.Conv2d(high, 3, 3, padding=1)

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
