"""Mode collapse on a ring of eight Gaussians, and three remedies at equal compute.

Run as a module, it trains every remedy with several seeds and records the figures:
`python -m fastgen_course.training.ring`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm.auto import tqdm

from fastgen_course.files import atomic_write, data_path, require
from fastgen_course.models.ring import RING_MLP, RingConfig, RingDiscriminator, RingGenerator
from fastgen_course.timing import record
from fastgen_course.training.gan_losses import (
    critic_loss,
    discriminator_loss,
    gradient_penalty,
    nonsaturating_loss,
    r1_penalty,
)

MODES = 8
RADIUS = 2.0
STD = 0.05
Penalty = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], Tensor]
COMMAND = "python -m fastgen_course.training.ring"
POINTS = "results/ring_points.npz"
GFLOPS = 200.0  # the budget of every run that is compared


@dataclass(frozen=True)
class Remedy:
    """How one GAN of the comparison is trained; everything else is the same for all."""

    label: str
    wasserstein: bool = False  # critic's loss in place of the non-saturating one
    penalty: str = ""  # "gp" (gradient penalty) or "r1"
    weight: float = 0.0  # of the penalty
    critic_steps: int = 1  # discriminator steps for one of the generator
    spectral: bool = False


REMEDIES = {
    "nonsaturating": Remedy("non-saturating (baseline)"),
    "wgan_gp": Remedy("WGAN-GP", wasserstein=True, penalty="gp", weight=0.1, critic_steps=5),
    "r1": Remedy("R1 penalty", penalty="r1", weight=0.05),
    "spectral_norm": Remedy("spectral norm", spectral=True),
}


class RingQuality(NamedTuple):
    """How good a cloud of points is as a sample of the ring."""

    covered: int  # modes that hold at least 1 % of the points, within three deviations
    share: float  # of points within three deviations of some mode


@dataclass
class RingRun:
    """One trained toy GAN: snapshots of the same noise and the quality at the end."""

    remedy: Remedy
    quality: RingQuality
    steps: int
    gflops: float
    cpu_seconds: float
    snapshots: dict[int, Tensor] = field(default_factory=dict)  # step -> (N, 2)


def ring_centres() -> Tensor:
    """The eight means (8, 2), evenly spaced on a circle of radius 2."""
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring_sample(count: int, generator: torch.Generator) -> Tensor:
    """Draw points (count, 2) of the ring: a uniform mode, plus Gaussian noise of deviation 0.05."""
    mode = torch.randint(0, MODES, (count,), generator=generator)
    return ring_centres()[mode] + STD * torch.randn(count, 2, generator=generator)


def ring_quality(points: Tensor) -> RingQuality:
    """Count covered modes and the share of points near a mode; points (N, 2).

    A point is of high quality within three standard deviations of a mean; a mode is covered when
    at least 1 % of all points are of high quality and nearest to it. Points drawn from the ring
    itself score 8 modes and a share of 0.989.
    """
    distance, nearest = torch.cdist(points, ring_centres()).min(dim=1)
    good = distance <= 3 * STD
    counts = torch.bincount(nearest[good], minlength=MODES)
    return RingQuality(int((counts >= 0.01 * len(points)).sum()), good.float().mean().item())


def discriminator_step_loss(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
    remedy: Remedy,
    penalty: Penalty = gradient_penalty,
) -> Tensor:
    """The discriminator's loss under a remedy; real, fake (B, 2), mix (B,)."""
    on_real, on_fake = discriminator(real), discriminator(fake)
    loss = (critic_loss if remedy.wasserstein else discriminator_loss)(on_real, on_fake)
    if remedy.penalty == "gp":
        loss = loss + remedy.weight * penalty(discriminator, real, fake, mix)
    elif remedy.penalty == "r1":
        loss = loss + remedy.weight * r1_penalty(discriminator, real)
    return loss


def _make_step(
    remedy: Remedy,
    config: RingConfig,
    batch: int,
    lr: float,
    seed: int,
    generator_loss: Callable[[Tensor], Tensor] = nonsaturating_loss,
    penalty: Penalty = gradient_penalty,
) -> tuple[RingGenerator, Callable[[], None]]:
    with torch.random.fork_rng(devices=[]):  # layers draw their start globally
        torch.manual_seed(seed)
        model = RingGenerator(config)
        discriminator = RingDiscriminator(replace(config, spectral=remedy.spectral))
    random = torch.Generator().manual_seed(seed)
    betas = (0.5, 0.9)
    model_adam = torch.optim.Adam(model.parameters(), lr, betas)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr, betas)

    def step() -> None:
        for _ in range(remedy.critic_steps):
            real = ring_sample(batch, random)
            with torch.no_grad():
                fake = model(torch.randn(batch, config.noise, generator=random))
            mix = torch.rand(batch, generator=random)
            loss = discriminator_step_loss(discriminator, real, fake, mix, remedy, penalty)
            discriminator_adam.zero_grad()
            loss.backward()
            discriminator_adam.step()
        discriminator.requires_grad_(False)  # no gradients of D's weights in G's step
        score = discriminator(model(torch.randn(batch, config.noise, generator=random)))
        loss = -score.mean() if remedy.wasserstein else generator_loss(score)
        model_adam.zero_grad()
        loss.backward()
        model_adam.step()
        discriminator.requires_grad_(True)

    return model, step


class _CountFlops(TorchDispatchMode):
    """Sums PyTorch's own FLOP formulas over every operation that runs.

    `FlopCounterMode` does the same and also attributes them to modules, by hooks that refuse a
    penalty's `autograd.grad` at a leaf.
    """

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def step_gflops(remedy: Remedy, *, config: RingConfig = RING_MLP, batch: int = 256) -> float:
    """Floating-point operations (1e9) of one generator step with its discriminator steps.

    Counted by PyTorch on the matrix products that run, forward, backward and (for the penalties)
    backward again. Spectral norm's matrix-vector products, below 0.3 % of a step, are not counted.
    """
    _, step = _make_step(remedy, config, batch, 0.0, 0)
    with _CountFlops() as counter:
        step()
    return counter.flops / 1e9


def train_ring(
    remedy: Remedy,
    *,
    gflops: float = GFLOPS,
    config: RingConfig = RING_MLP,
    batch: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
    pictures: int = 4,
    samples: int = 2000,
    generator_loss: Callable[[Tensor], Tensor] = nonsaturating_loss,
    penalty: Penalty = gradient_penalty,
    progress: bool = False,
) -> RingRun:
    """Train one toy GAN until the budget of floating-point operations (1e9) is spent.

    `pictures` snapshots of `samples` points, evenly spaced, the last at the end. `generator_loss`
    (not used by a Wasserstein critic) and `penalty` (used by WGAN-GP) may be a reader's own.
    Raises ValueError when the budget does not pay for one step.
    """
    cost = step_gflops(remedy, config=config, batch=batch)
    steps = int(gflops / cost)
    if steps < 1:
        raise ValueError(f"{gflops:g} GFLOPs do not pay for one step of {cost:.3g}; raise gflops")
    model, step = _make_step(remedy, config, batch, lr, seed, generator_loss, penalty)
    fixed = torch.randn(samples, config.noise, generator=torch.Generator().manual_seed(1000 + seed))
    marks = {round(steps * (i + 1) / pictures) for i in range(pictures)}
    snapshots = {}
    start = time.process_time()
    for index in tqdm(range(1, steps + 1), leave=False, disable=not progress, desc=remedy.label):
        step()
        if index in marks:
            with torch.no_grad():
                snapshots[index] = model(fixed)
    seconds = time.process_time() - start
    return RingRun(remedy, ring_quality(snapshots[steps]), steps, steps * cost, seconds, snapshots)


def record_ring(seeds: int = 5, gflops: float = GFLOPS) -> None:
    """Train every remedy with several seeds; record modes, shares and 500 points of each run."""
    kept: dict[str, np.ndarray] = {}
    for name, remedy in REMEDIES.items():
        runs = [train_ring(remedy, gflops=gflops, seed=seed) for seed in range(seeds)]
        figures = {
            "modes": ("modes", [run.quality.covered for run in runs]),
            "quality_share": ("share", [round(run.quality.share, 4) for run in runs]),
        }
        for figure, (unit, values) in figures.items():
            record(
                "ring",
                f"ring.{name}_{figure}",
                statistics.mean(values),
                unit,
                spread=(min(values), max(values)),
                command=COMMAND,
                base="RING_MLP",
                batch=256,
                runtime="torch eager",
                dtype="float32",
                by_seed=values,
                gflops=gflops,
                steps=runs[0].steps,
                cpu_seconds=round(statistics.median(run.cpu_seconds for run in runs), 1),
            )
        final = [run.snapshots[run.steps][:500] for run in runs]
        kept[name] = torch.stack(final).numpy().astype(np.float16)  # (seeds, 500, 2)
        modes, share = figures["modes"][1], figures["quality_share"][1]
        print(f"{name}: modes {modes}, share of high quality {share}", flush=True)
    with atomic_write(data_path(*POINTS.split("/"))) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **kept)


def load_ring_points() -> dict[str, Tensor]:
    """The recorded runs: remedy -> final points (seeds, 500, 2)."""
    with np.load(require(POINTS), allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]).float() for name in REMEDIES}


def main(arguments: list[str] | None = None) -> None:
    """Record the comparison of remedies over several seeds."""
    parser = argparse.ArgumentParser(description=record_ring.__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    record_ring(parser.parse_args(arguments).seeds)


if __name__ == "__main__":
    main()
