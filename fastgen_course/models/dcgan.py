"""A conditional DCGAN for 28x28 digits: a generator and a projection discriminator.

Sources: Radford, Metz and Chintala 2016 (DCGAN); Miyato and Koyama 2018 (projection
discriminator, the label enters as an inner product with the features).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DCGANConfig:
    """Sizes of a conditional DCGAN for square one-channel images of 28 pixels."""

    noise: int = 64  # z, numbers of Gaussian noise a picture
    classes: int = 10
    embedding: int = 16  # numbers that tell the generator which digit is asked for
    width: int = 24  # channels at 14x14; twice as many at 7x7


DCGAN_DIGITS = DCGANConfig()
DCGAN_TINY = DCGANConfig(noise=4, embedding=2, width=4)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless every label is in [0, classes).

    Skipped where values are not known: on the meta device, and under compilation or export.
    """
    if labels.is_meta or labels.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: ask for a class from 0 to {classes - 1}")


class DCGANGenerator(nn.Module):
    """Noise and a label in, a digit out, by two transposed convolutions: 7 -> 14 -> 28."""

    def __init__(self, config: DCGANConfig = DCGAN_DIGITS) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Embedding(config.classes, config.embedding)
        self.project = nn.Linear(config.noise + config.embedding, 2 * width * 7 * 7, bias=False)
        self.upsample = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # 28x28
            nn.Tanh(),
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Draw the digits asked for.

        noise: (B, z) float; labels: (B,) int64 in [0, classes). Returns (B, 1, 28, 28) in
        [-1, 1]. Raises ValueError on a label out of range.
        """
        check_labels(labels, self.config.classes)
        hidden = self.project(torch.cat([noise, self.embed(labels)], dim=1))
        return self.upsample(hidden.view(-1, 2 * self.config.width, 7, 7))


class DCGANDiscriminator(nn.Module):
    """An image and a label in, one logit out: D(x, y) = sigmoid(logit)."""

    def __init__(self, config: DCGANConfig = DCGAN_DIGITS) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),  # 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),  # 7x7
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.score = nn.Linear(2 * width * 7 * 7, 1)
        self.embed = nn.Embedding(config.classes, 2 * width * 7 * 7)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B,) of "this image is data and shows this label".

        images: (B, 1, 28, 28) in [-1, 1]; labels: (B,) int64. The logit is
        w.h(x) + e_y.h(x) (Miyato and Koyama 2018, equation 4).
        """
        check_labels(labels, self.config.classes)
        hidden = self.features(images)
        return self.score(hidden).squeeze(1) + (self.embed(labels) * hidden).sum(dim=1)
