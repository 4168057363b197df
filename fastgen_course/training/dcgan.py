"""Train the conditional DCGAN on digits: live in a notebook, longer for the shipped weights.

Run as a module, it trains the live GAN with three seeds and records how often the digit judge
finds the digit asked for: `python -m fastgen_course.training.dcgan`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import save_checkpoint
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.files import atomic_write, data_path, require
from fastgen_course.metrics import digit_accuracy
from fastgen_course.models.dcgan import (
    DCGAN_DIGITS,
    DCGANConfig,
    DCGANDiscriminator,
    DCGANGenerator,
)
from fastgen_course.timing import machine, record
from fastgen_course.training.digit_judge import batches, digits_sha256
from fastgen_course.training.gan_losses import discriminator_loss, nonsaturating_loss
from fastgen_course.training.loop import RunningAverage, Training

COMMAND = "python -m fastgen_course.training.dcgan"
GRIDS = "results/dcgan_grids.npz"


@dataclass(frozen=True)
class DCGANRecipe:
    """How the digit GAN is trained.

    Attributes:
        steps: generator updates, each with one of the discriminator.
        batch: images an update.
        generator_rate, discriminator_rate: Adam's learning rates.
        average: decay of the running average of the generator's weights that is kept.
        pictures: snapshots of one fixed noise, evenly spaced, the last at the end.
        seed: of weights, batches and noise.
    """

    steps: int = 1000
    batch: int = 50
    generator_rate: float = 2e-3
    discriminator_rate: float = 1e-3
    average: float = 0.98
    pictures: int = 10
    seed: int = 0


LIVE = DCGANRecipe()
SHIPPED = DCGANRecipe(steps=3000, average=0.998, pictures=15, seed=1)


@dataclass
class DCGANRun:
    """What a training leaves: both networks, losses, and grids of one fixed noise.

    `history` maps "step", "discriminator", "generator", "d_real" and "d_fake" (mean D on data and
    on samples) to lists; `grids` maps a step to images (100, 1, 28, 28), ten of each digit in turn.
    """

    generator: DCGANGenerator
    discriminator: DCGANDiscriminator
    history: dict[str, list[float]]
    seconds: float
    grids: dict[int, Tensor] = field(default_factory=dict)


def initialise(model: nn.Module) -> None:
    """DCGAN's start: weights of convolutions and linear layers from N(0, 0.02)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
    if isinstance(model, DCGANDiscriminator):
        nn.init.normal_(model.embed.weight, std=0.02)


@torch.no_grad()
def sample_digits(
    model: DCGANGenerator, labels: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the digits `labels` (N,) with fresh noise, in eval mode; (N, 1, 28, 28) in [-1, 1]."""
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    parts = []
    for part in labels.split(250):
        noise = torch.randn(len(part), model.config.noise, generator=generator)
        parts.append(model(noise.to(device), part.to(device)))
    model.train(was_training)
    return torch.cat(parts)


def grid_labels(rows: int = 10) -> Tensor:
    """Labels (10 * rows,) of a grid with ten columns: every row shows the digits 0 to 9."""
    return torch.arange(10).repeat(rows)


class DCGANTrainer:
    """Both networks with their optimisers; `step` is one update of each."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        recipe: DCGANRecipe = LIVE,
        config: DCGANConfig = DCGAN_DIGITS,
        generator_loss: Callable[[Tensor], Tensor] = nonsaturating_loss,
    ) -> None:
        self.images, self.labels, self.recipe = images, labels, recipe
        self.generator_loss = generator_loss
        with torch.random.fork_rng(devices=[]):  # layers draw their start globally
            torch.manual_seed(recipe.seed)
            self.model, self.discriminator = DCGANGenerator(config), DCGANDiscriminator(config)
            initialise(self.model)
            initialise(self.discriminator)
        self.average = RunningAverage(self.model, recipe.average)
        betas = (0.5, 0.99)
        self.g_adam = torch.optim.Adam(self.model.parameters(), recipe.generator_rate, betas)
        self.d_adam = torch.optim.Adam(
            self.discriminator.parameters(), recipe.discriminator_rate, betas
        )
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.draw = batches(len(images), recipe.batch, self.random)

    def step(self, _index: int) -> dict[str, float]:
        """Update the discriminator on data and samples, then the generator on the same samples."""
        chosen, batch = next(self.draw), self.recipe.batch
        asked = torch.randint(0, self.model.config.classes, (batch,), generator=self.random)
        noise = torch.randn(batch, self.model.config.noise, generator=self.random)
        fake = self.model(noise, asked)

        on_real = self.discriminator(self.images[chosen], self.labels[chosen])
        on_fake = self.discriminator(fake.detach(), asked)
        d_loss = discriminator_loss(on_real, on_fake)
        self.d_adam.zero_grad(set_to_none=True)
        d_loss.backward()
        self.d_adam.step()

        self.discriminator.requires_grad_(False)  # its weights need no gradient here
        g_loss = self.generator_loss(self.discriminator(fake, asked))
        self.g_adam.zero_grad(set_to_none=True)
        g_loss.backward()
        self.g_adam.step()
        self.discriminator.requires_grad_(True)
        self.average.update(self.model)
        return {
            "discriminator": d_loss.item(),
            "generator": g_loss.item(),
            "d_real": on_real.detach().sigmoid().mean().item(),
            "d_fake": on_fake.detach().sigmoid().mean().item(),
        }

    def parts(self) -> dict[str, Any]:
        """Everything whose state a resumable training keeps."""
        return {
            "generator": self.model,
            "discriminator": self.discriminator,
            "average": self.average,
            "g_adam": self.g_adam,
            "d_adam": self.d_adam,
        }


def train_dcgan(
    images: Tensor,
    labels: Tensor,
    *,
    recipe: DCGANRecipe = LIVE,
    config: DCGANConfig = DCGAN_DIGITS,
    generator_loss: Callable[[Tensor], Tensor] = nonsaturating_loss,
    name: str = "dcgan_live",
    resume: bool = False,
    quiet: bool = False,
) -> DCGANRun:
    """Train a conditional DCGAN for `recipe.steps` steps.

    images: (N, 1, 28, 28) in [-1, 1]; labels: (N,) int64. `generator_loss` maps the logits (B,)
    of the samples to a scalar; a reader's own may be given. `resume` goes on with a killed run of
    that name. Raises FloatingPointError, at the step, when a loss is no longer finite.
    """
    trainer = DCGANTrainer(images, labels, recipe, config, generator_loss)
    training = Training(name, trainer.parts(), trainer.random, recipe.steps)
    if not resume:
        training.save_every_s = math.inf  # a minute in a notebook leaves no file behind
    if resume:
        training.resume()
    marks = {round(recipe.steps * (i + 1) / recipe.pictures) for i in range(recipe.pictures)}
    grids = {}

    def keep(step: int) -> None:
        if step in marks:
            fixed = torch.Generator().manual_seed(0)
            grids[step] = sample_digits(trainer.average.model, grid_labels(), fixed)

    every = max(1, recipe.steps // (5 * recipe.pictures))
    history = training.run(trainer.step, log_every=every, quiet=quiet, on_log=keep)
    training.finish()
    return DCGANRun(trainer.average.model, trainer.discriminator, history, training.seconds, grids)


def asked_for_accuracy(model: DCGANGenerator, count: int = 2000, seed: int = 0) -> float:
    """The share of `count` samples in which the digit judge finds the digit asked for."""
    labels = torch.arange(count) % model.config.classes
    images = sample_digits(model, labels, torch.Generator().manual_seed(seed))
    return float(digit_accuracy(images, labels))


def train_dcgan_digits(name: str = "dcgan_digits", quiet: bool = False) -> dict[str, Any]:
    """Train the shipped digit GAN, resuming a killed run; ships weights and grids."""
    digits = load_digits_subset("train")
    run = train_dcgan(*digits, recipe=SHIPPED, name=name, resume=True, quiet=quiet)
    card = save_checkpoint(
        name,
        run.generator,
        {
            "seed": SHIPPED.seed,
            "recipe": SHIPPED.__dict__,
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": digits_sha256(),
            "minutes": round(run.seconds / 60, 1),
            "machine": machine(),
            "metrics": {"accuracy": asked_for_accuracy(run.generator)},
            "history": {k: [round(v, 4) for v in values] for k, values in run.history.items()},
        },
    )
    save_grids(run.grids)
    return card


def save_grids(grids: dict[int, Tensor]) -> None:
    """Write snapshots {step: (100, 1, 28, 28) in [-1, 1]} as uint8 to `data/results`."""
    steps = sorted(grids)
    pixels = torch.stack([grids[s][:, 0] for s in steps])
    pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    with atomic_write(data_path(*GRIDS.split("/"))) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, steps=np.array(steps), grids=pixels)


def load_grids() -> dict[int, Tensor]:
    """The shipped snapshots: {step: images (100, 1, 28, 28) in [-1, 1]}, in order of steps."""
    with np.load(require(GRIDS), allow_pickle=False) as archive:
        steps, pixels = archive["steps"], archive["grids"]
    images = torch.from_numpy(pixels).float()[:, :, None] / 127.5 - 1
    return {int(step): image for step, image in zip(steps, images, strict=True)}


def record_live(seeds: int = 3) -> None:
    """Train the live GAN with several seeds and record the digit judge's accuracy."""
    digits = load_digits_subset("train")
    found, cpu_seconds = [], []
    for seed in range(seeds):
        start = time.process_time()
        run = train_dcgan(*digits, recipe=DCGANRecipe(seed=seed), name=f"dcgan_live_{seed}")
        cpu_seconds.append(round(time.process_time() - start, 1))
        found.append(round(asked_for_accuracy(run.generator), 4))
        print(f"seed {seed}: asked-for digit found in {found[-1]:.1%}, {cpu_seconds[-1]} s of CPU")
    record(
        "gan_digits",
        "gan_digits.live_accuracy",
        statistics.mean(found),
        "share",
        spread=(min(found), max(found)),
        command=COMMAND,
        base="dcgan_live",
        batch=LIVE.batch,
        runtime="torch eager",
        dtype="float32",
        steps=LIVE.steps,
        by_seed=found,
        cpu_seconds=cpu_seconds,
    )


def main(arguments: list[str] | None = None) -> None:
    """Record the live accuracy over several seeds."""
    parser = argparse.ArgumentParser(description=record_live.__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    record_live(parser.parse_args(arguments).seeds)


if __name__ == "__main__":
    main()
