"""Train the digit judge on the 4,000 training digits, with random shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import save_checkpoint
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.files import data_path, sha256_of
from fastgen_course.metrics import digit_accuracy
from fastgen_course.models.digit_judge import DIGIT_JUDGE, DigitJudge, DigitJudgeConfig
from fastgen_course.timing import machine
from fastgen_course.training.loop import Training


def digits_sha256() -> str:
    """The hash of the file that holds the digits, for the cards of what trains on them."""
    return sha256_of(data_path("digits", "mnist_5k.npz"))


def random_shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `most` pixels along both axes; the gap is background (-1).

    images: (B, C, H, W) in [-1, 1]. Returns the same shape.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), value=-1.0)
    down = torch.randint(0, 2 * most + 1, (batch,), generator=generator)
    right = torch.randint(0, 2 * most + 1, (batch,), generator=generator)
    rows = down[:, None] + torch.arange(height)  # (B, H)
    columns = right[:, None] + torch.arange(width)  # (B, W)
    index = torch.arange(batch)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield index tensors (batch,) for ever: shuffled epochs, the ragged end dropped.

    Raises ValueError when no batch of that size can be drawn.
    """
    if not 1 <= batch <= count:
        raise ValueError(f"a batch of {batch} cannot be drawn from {count} images")
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def digit_judge_training(
    images: Tensor,
    labels: Tensor,
    *,
    config: DigitJudgeConfig = DIGIT_JUDGE,
    steps: int = 600,
    batch: int = 100,
    rate: float = 3e-3,
    shift: int = 2,
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
) -> tuple[DigitJudge, Training]:
    """Train a judge with Adam and a one-cycle learning rate; it comes back in eval mode.

    images: (N, 1, 28, 28) in [-1, 1]; labels: (N,) int64. `resume` goes on with a killed run.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = batches(len(images), batch, generator)
    with torch.random.fork_rng(devices=[]):  # layers draw their start and dropout globally
        torch.manual_seed(seed)
        judge = DigitJudge(config)
        optimiser = torch.optim.Adam(judge.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        parts = {"judge": judge, "optimiser": optimiser, "schedule": schedule}
        training = Training("digit_judge", parts, generator, steps)
        if not resume:
            training.save_every_s = math.inf
        if resume:
            training.resume()

        def step(_index: int) -> dict[str, float]:
            chosen = next(draw)
            logits = judge(random_shift(images[chosen], shift, generator))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            return {"loss": loss.item()}

        training.run(step, quiet=quiet)
    return judge.eval(), training


def train_digit_judge(name: str = "digit_judge", quiet: bool = False) -> dict[str, Any]:
    """Train the digit judge, resuming a killed run; ships it and returns its card."""
    train, test = load_digits_subset("train"), load_digits_subset("test")
    judge, training = digit_judge_training(*train, resume=True, quiet=quiet)
    metrics = {
        "accuracy": float(digit_accuracy(*test, judge=judge)),
        "accuracy_train": float(digit_accuracy(*train, judge=judge)),
    }
    card = save_checkpoint(
        name,
        judge,
        {
            "seed": 0,
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": digits_sha256(),
            "minutes": round(training.seconds / 60, 1),
            "machine": machine(),
            "metrics": metrics,
            "steps": training.steps,
        },
    )
    training.finish()
    return card
