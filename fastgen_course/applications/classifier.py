"""A small garment classifier: what augmentation should help and what privacy should protect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.applications.photographs import GARMENTS
from fastgen_course.training.loop import cosine_with_warmup, set_rate

Batches = Callable[[int], tuple[Tensor, Tensor]]  # step -> images (B, 3, 28, 28), garments (B,)


class GarmentNet(nn.Module):
    """Three convolutions and a linear layer: images (B, 3, 28, 28) in [-1, 1] to logits (B, 10).

    Group normalisation, not batch normalisation: with the latter one picture's gradient depends on
    its neighbours in the batch, and differential privacy could promise nothing about it.
    """

    def __init__(self, width: int = 16, classes: int = GARMENTS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.GroupNorm(max(1, outputs // 8), outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten())  # (B, 36 width)
        self.head = nn.Linear(4 * width * 9, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.body(images))


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained; every arm of a comparison gets the same.

    Attributes:
        steps: updates.
        batch: pictures an update.
        rate: AdamW's height, with a warm-up and a cosine.
        decay: AdamW's weight decay.
        width: of GarmentNet.
    """

    steps: int = 400
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.05
    width: int = 12


def new_classifier(seed: int, width: int) -> GarmentNet:
    """A GarmentNet with fresh weights drawn from the seed; torch's own generator stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GarmentNet(width)


def train_classifier(batches: Batches, recipe: ClassifierRecipe, seed: int) -> GarmentNet:
    """Train a fresh classifier on `batches(step)` with cross-entropy; in eval mode."""
    model = new_classifier(seed, recipe.width).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    model.train()
    for step in range(recipe.steps):
        set_rate(optimiser, recipe.rate * cosine_with_warmup(step, recipe.steps, 50))
        images, garments = batches(step)
        images = images.contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), garments).backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def losses(model: nn.Module, images: Tensor, garments: Tensor, chunk: int = 500) -> Tensor:
    """Cross-entropy of each picture in nats, (N,)."""
    parts = zip(images.split(chunk), garments.split(chunk), strict=True)
    return torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in parts])


@torch.no_grad()
def right(model: nn.Module, images: Tensor, garments: Tensor, chunk: int = 500) -> Tensor:
    """Whether each picture's garment is named, float (N,), 0 or 1."""
    found = torch.cat([model(x).argmax(1) for x in images.split(chunk)])
    return (found == garments).float()
