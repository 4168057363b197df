"""The judges: two small CNNs that name every slot of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of a judge.

    Attributes:
        channels: feature maps of each stage; every stage after the first halves the side.
        kernel: convolution kernel of the first layer (the others use 3).
        features: width of the penultimate layer, where FID is measured.
        dropout: share of penultimate features dropped in training.
        in_channels: 3 for scenes, 1 for plain photographs.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    kernel: int = 3
    features: int = 128
    dropout: float = 0.3
    in_channels: int = 3
    activation: str = "relu"


# Different kernels, widths, depths, activations and seeds: what fools one need not fool the other.
JUDGE_TRAIN = JudgeConfig(channels=(24, 48, 96), kernel=5, activation="silu")
JUDGE_REPORT = JudgeConfig(channels=(32, 64, 128))


def _activation(name: str) -> nn.Module:
    return nn.SiLU() if name == "silu" else nn.ReLU()


class SlotJudge(nn.Module):
    """Names the value of every slot of a scene.

    Two 3x3 convolutions a stage with batch normalisation, max pooling between stages, average and
    maximum over the last map, one hidden layer, a linear head a slot.
    """

    def __init__(self, config: JudgeConfig = JUDGE_REPORT) -> None:
        super().__init__()
        self.config = config
        stages = []
        previous = config.in_channels
        for index, width in enumerate(config.channels):
            kernel = config.kernel if index == 0 else 3
            stages.append(
                nn.Sequential(
                    nn.Identity() if index == 0 else nn.MaxPool2d(2),
                    nn.Conv2d(previous, width, kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(width),
                    _activation(config.activation),
                    nn.Conv2d(width, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    _activation(config.activation),
                )
            )
            previous = width
        self.stages = nn.ModuleList(stages)
        self.penultimate = nn.Sequential(
            nn.Linear(2 * previous, config.features), _activation(config.activation)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict({s: nn.Linear(config.features, len(v)) for s, v in SLOTS.items()})

    def stage_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps after each stage, (B, C, H, W) at sides 28, 14, 7."""
        outputs = []
        for stage in self.stages:
            images = stage(images)
            outputs.append(images)
        return outputs

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The penultimate layer, (B, features), for images (B, 3, 28, 28) in [-1, 1]."""
        return self.pool(self.stage_outputs(images)[-1])

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Penultimate features (B, features) from the last stage's maps."""
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return self.penultimate(pooled)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, values) of each slot."""
        return self.classify(self.features(images))

    def classify(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of each slot from penultimate features."""
        features = self.dropout(features)
        return {slot: head(features) for slot, head in self.heads.items()}


def slots_from_logits(logits: dict[str, torch.Tensor]) -> torch.Tensor:
    """The likeliest value of every slot: int64 (B, 5); an empty scene has FREE where none applies."""
    labels = torch.stack([logits[s].argmax(1) for s in SLOTS], 1)
    empty = labels[:, 2] == EMPTY
    for column in (0, 1, 4):
        labels[:, column] = torch.where(empty, FREE, labels[:, column])
    return labels


@torch.no_grad()
def label_slots(judge: SlotJudge, images: torch.Tensor, chunk: int = 500) -> torch.Tensor:
    """Name the slots of images (B, 3, 28, 28): int64 (B, 5). The judge is used in eval mode."""
    judge.eval()
    parts = [slots_from_logits(judge(part)) for part in images.split(chunk)]
    return torch.cat(parts)


def slot_loss(logits: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Sum over slots of the mean cross-entropy; slots labelled FREE (-1) do not count."""
    losses = [
        nn.functional.cross_entropy(logits[slot], labels[:, i], ignore_index=FREE)
        for i, slot in enumerate(SLOTS)
    ]
    return torch.stack(losses).nan_to_num(0.0).sum()
