"""A small CNN that names the digit in an image: the judge of the digit generators."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class DigitJudgeConfig:
    """Sizes of the digit judge."""

    width: int = 16  # channels after the first convolution; twice and four times after
    features: int = 64
    dropout: float = 0.25
    classes: int = 10


DIGIT_JUDGE = DigitJudgeConfig()
DIGIT_JUDGE_TINY = DigitJudgeConfig(width=2, features=4)


class DigitJudge(nn.Module):
    """Three convolutions, two poolings and two linear layers."""

    def __init__(self, config: DigitJudgeConfig = DIGIT_JUDGE) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 14x14
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 7x7
            nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 3x3
            nn.Flatten(),
            nn.Linear(4 * width * 9, config.features),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.features, config.classes)
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer (B, features) of images (B, 1, 28, 28) in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, 10) of the ten digits for images (B, 1, 28, 28) in [-1, 1]."""
        return self.head(self.features(images))
