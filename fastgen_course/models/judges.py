"""The judges: two small CNNs that name every slot of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of a judge.

    Attributes:
        channels: feature maps of each stage; every stage after the first halves the side.
        convolutions: how many convolutions each stage has.
        kernel: convolution kernel of the first layer (the others use 3).
        features: width of the penultimate layer, where FID is measured.
        dropout: share of penultimate features dropped in training.
        in_channels: 3 for scenes, 1 for plain photographs.
        activation: "relu" or "silu".
        garment: whether `garment_channels` are two further inputs, the garment without its colour.
        magnifier: whether the middle of these two, enlarged from 20x20 to 28x28, are two more: a
            small garment then looks like a large one.
        grid: whether the last map is pooled to 4x4 places, which keeps where things are, instead of
            to its average and maximum.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    convolutions: tuple[int, ...] = (2, 2, 2)
    kernel: int = 3
    features: int = 128
    dropout: float = 0.3
    in_channels: int = 3
    activation: str = "relu"
    garment: bool = False
    magnifier: bool = False
    grid: bool = False


# Different kernels, widths, depths, activations and seeds: what fools one need not fool the other.
JUDGE_TRAIN = JudgeConfig(
    channels=(24, 48, 96), kernel=5, activation="silu", garment=True, grid=True
)
JUDGE_REPORT = JudgeConfig(
    channels=(24, 64, 128), dropout=0.1, garment=True, magnifier=True, grid=True
)
JUDGE_PLAIN = JudgeConfig(channels=(32, 64, 128), convolutions=(1, 2, 2), in_channels=1, grid=True)


def _activation(name: str) -> nn.Module:
    return nn.SiLU() if name == "silu" else nn.ReLU()


def garment_channels(images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) as two grey maps (B, 2, H, W): where the garment is, how it is shaded.

    The paper's colour is the median of the four corners. The first map is the largest difference
    from it over the colours; the second is the brightness inside that outline, less its mean and in
    units of its deviation. A garment looks alike in every colour on every paper there, which a
    small CNN would need many more steps to learn.
    """
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    difference = images - corners.median(2).values[:, :, None, None]
    outline = difference.abs().amax(1, keepdim=True)
    inside = (5 * outline).clamp(max=1)
    brightness = images.mean(1, keepdim=True)
    area = inside.sum((2, 3), keepdim=True) + 1e-3
    centred = brightness - (inside * brightness).sum((2, 3), keepdim=True) / area
    variance = (inside * centred.square()).sum((2, 3), keepdim=True) / area
    # The constant keeps the gradient finite where a scene is empty.
    return torch.cat([outline, inside * centred / (variance + 0.005).sqrt()], 1)


class SlotJudge(nn.Module):
    """Names the value of every slot of a scene.

    One or two 3x3 convolutions a stage with batch normalisation, max pooling between stages, the
    last map pooled, one hidden layer, a linear head a slot.
    """

    def __init__(self, config: JudgeConfig = JUDGE_REPORT) -> None:
        super().__init__()
        self.config = config
        stages = []
        previous = config.in_channels + 2 * config.garment * (1 + config.magnifier)
        for index, (width, depth) in enumerate(
            zip(config.channels, config.convolutions, strict=True)
        ):
            layers = [nn.Identity() if index == 0 else nn.MaxPool2d(2)]
            for layer in range(depth):
                kernel = config.kernel if index == layer == 0 else 3
                layers += [
                    nn.Conv2d(previous, width, kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(width),
                    _activation(config.activation),
                ]
                previous = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        places = 16 if config.grid else 2
        self.penultimate = nn.Sequential(
            nn.Linear(places * previous, config.features), _activation(config.activation)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict(
            {slot: nn.Linear(config.features, len(values)) for slot, values in SLOTS.items()}
        )

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, 28, 28) and the further maps that the first convolution sees."""
        if not self.config.garment:
            return images
        maps = garment_channels(images)
        if self.config.magnifier:
            middle = F.interpolate(maps[:, :, 4:24, 4:24], size=28, mode="bilinear")
            maps = torch.cat([maps, middle], 1)
        return torch.cat([images, maps], 1)

    def stage_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps after each stage, (B, C, H, W) at sides 28, 14, 7."""
        images = self.inputs(images)
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
        if self.config.grid:
            pooled = F.max_pool2d(maps, 2, ceil_mode=True).flatten(1)
        else:
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
    """The likeliest value of every slot: int64 (B, 5), FREE where an empty scene has none."""
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
