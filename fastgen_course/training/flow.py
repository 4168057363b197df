"""Train flows on the VAE's latent: flow matching, reflow, mean velocities, guidance in one forward.

All trainings share one loop over latent vectors of captioned scenes and differ in what the network
is asked to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.flow import FLOW, FlowConfig, VelocityNet
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.flow import FLOW_SAMPLING, even_times, guided, heun
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class FlowRecipe:
    """How a velocity network is trained.

    Attributes:
        steps: updates.
        batch: latent vectors an update.
        rate: Adam's learning rate at its height.
        drop_caption: how often the caption is left out, which guidance needs.
        average: decay of the running average that is shipped.
        seed: of weights, batches, times and noise.
    """

    steps: int = 30_000
    batch: int = 256
    rate: float = 1e-3
    drop_caption: float = 0.1
    average: float = 0.999
    seed: int = 8


FLOW_RECIPE = FlowRecipe()


class LatentBatch(NamedTuple):
    """Latent vectors of captioned scenes and the noise they are coupled with."""

    z: Tensor  # float32 (B, latent), normalised
    noise: Tensor  # float32 (B, latent), standard normal
    words: Tensor  # int64 (B, L)
    labels: Tensor  # int64 (B, 5), what the caption asks for


Loss = Callable[[VelocityNet, LatentBatch, torch.Generator], Tensor]


class LatentBank(NamedTuple):
    """What the encoder says of many scenes, computed once: q(z | x) of each, and its caption."""

    mu: Tensor  # float32 (N, latent)
    logvar: Tensor  # float32 (N, latent)
    words: Tensor  # int64 (N, L)
    labels: Tensor  # int64 (N, 5), what the caption asks for


@torch.no_grad()
def latent_bank(
    vae: ConvVAE, count: int, seed: int, split: str = "train", quiet: bool = True
) -> LatentBank:
    """Compose and encode `count` captioned scenes.

    Composing and encoding a batch takes longer than an update of the flow does, so it is done once.
    """
    vae.eval()
    batches = scene_batches(split, min(count, 500), torch.Generator().manual_seed(seed))
    parts: list[LatentBank] = []
    for done in range(0, count, 500):
        scenes = next(batches)
        parts.append(LatentBank(*vae.encode(scenes.images), scenes.words, scenes.asked))
        if not quiet and done % 20_000 == 0:
            print(f"encoded {done:,} of {count:,} scenes", flush=True)
    return LatentBank(*(torch.cat(column)[:count] for column in zip(*parts, strict=True)))


def bank_batches(bank: LatentBank, batch: int, generator: torch.Generator) -> Iterator[LatentBatch]:
    """Endless random batches of the bank, z ~ q(z | x) drawn anew; not yet normalised."""
    while True:
        rows = torch.randint(len(bank.mu), (batch,), generator=generator)
        mu, logvar, words, labels = (column[rows] for column in bank)
        noise = torch.randn(2, *mu.shape, generator=generator)
        yield LatentBatch(mu + (0.5 * logvar).exp() * noise[0], noise[1], words, labels)


@torch.no_grad()
def latent_batches(
    vae: ConvVAE, batch: int, generator: torch.Generator, split: str = "train"
) -> Iterator[LatentBatch]:
    """Endless latent vectors z ~ q(z | x) of captioned scenes, not yet normalised."""
    vae.eval()
    for scenes in scene_batches(split, batch, generator):
        mu, logvar = vae.encode(scenes.images)
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
        noise = torch.randn(mu.shape, generator=generator)
        yield LatentBatch(z, noise, scenes.words, scenes.asked)


def new_flow(config: FlowConfig, seed: int, vae: ConvVAE) -> VelocityNet:
    """A network with fresh weights drawn from the seed, and the VAE's latent mean and deviation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VelocityNet(config)
    batches = latent_batches(vae, 500, torch.Generator().manual_seed(seed))
    z = torch.cat([next(batches).z for _ in range(10)])
    model.mean.copy_(z.mean(0))
    model.deviation.copy_(z.std(0))
    return model


# --- what the network is asked for ---------------------------------------------------------------


def flow_matching_loss(
    model: VelocityNet, batch: LatentBatch, generator: torch.Generator
) -> Tensor:
    """Conditional flow matching on straight lines (Lipman et al. 2023; Liu et al. 2023).

    z_t = (1 - t) noise + t z moves with the velocity z - noise; least squares makes the network
    its mean over all lines through z_t: E over t, noise, z of |v(z_t, t, y) - (z - noise)|^2.
    """
    t = torch.rand(len(batch.z), generator=generator)
    z_t = torch.lerp(batch.noise, batch.z, t[:, None])
    return F.mse_loss(model(z_t, batch.words, t), batch.z - batch.noise)


def mean_velocity_loss(
    model: VelocityNet, batch: LatentBatch, generator: torch.Generator, equal: float = 0.5
) -> Tensor:
    """MeanFlow (Geng et al. 2025): the mean velocity u(z_r, r, t) of the way from r to t.

    (t - r) u(z_r, r, t) is the way itself. Differentiated by r along the flow, it gives
    u = v + (t - r) (v . du/dz + du/dr), whose right side, with v the line's velocity and its
    gradient stopped, is the target. A share `equal` of the batch has t = r: there u = v.
    """
    n = len(batch.z)
    times = torch.rand(n, 2, generator=generator).sort(1).values
    r, t = times[:, 0], times[:, 1]
    t = torch.where(torch.rand(n, generator=generator) < equal, r, t)
    z_r = torch.lerp(batch.noise, batch.z, r[:, None])
    v = batch.z - batch.noise
    u, slope = torch.func.jvp(
        lambda z, start: model(z, batch.words, t, start), (z_r, r), (v, torch.ones_like(r))
    )
    target = (v + (t - r)[:, None] * slope).detach()
    errors = (u - target).square().mean(1)
    # Large errors come from a target that is still wrong itself; the paper's weight tames them.
    return (errors / (errors.detach() + 1e-2)).mean()


def guided_loss(teacher: VelocityNet, highest: float = 4.0) -> Loss:
    """Guidance distilled into one forward (Meng et al. 2023): s v(y) + (1 - s) v, s from 1 up."""

    def loss(model: VelocityNet, batch: LatentBatch, generator: torch.Generator) -> Tensor:
        n = len(batch.z)
        t, s = torch.rand(2, n, generator=generator)
        s = 1 + (highest - 1) * s
        z_t = torch.lerp(batch.noise, batch.z, t[:, None])
        with torch.no_grad():
            with_caption = teacher(z_t, batch.words, t)
            without = teacher(z_t, torch.zeros_like(batch.words), t)
            target = without + s[:, None] * (with_caption - without)
        return F.mse_loss(model(z_t, batch.words, t, s), target)

    return loss


@torch.no_grad()
def reflow_pairs(
    teacher: VelocityNet,
    batches: Iterator[LatentBatch],
    count: int,
    steps: int = 16,
    guidance: float = 1.0,
    quiet: bool = True,
) -> LatentBatch:
    """Noise and where the teacher's (guided) flow takes it: `count` pairs, by Heun's method.

    (Rectified flow, Liu, Gong and Liu 2023: trained again on these pairs, the flow gets straighter,
    since its lines no longer cross.)
    """
    parts: list[LatentBatch] = []
    done = 0
    while done < count:
        batch = next(batches)
        z = heun(guided(teacher, batch.words, guidance), batch.noise, even_times(steps))
        parts.append(batch._replace(z=z))
        done += len(z)
        if not quiet:
            print(f"pairs {done:,} of {count:,}", flush=True)
    return LatentBatch(*(torch.cat(column)[:count] for column in zip(*parts, strict=True)))


def batches_of(pairs: LatentBatch, batch: int, generator: torch.Generator) -> Iterator[LatentBatch]:
    """Endless random batches of fixed pairs."""
    while True:
        rows = torch.randint(len(pairs.z), (batch,), generator=generator)
        yield LatentBatch(*(column[rows] for column in pairs))


# --- the loop ------------------------------------------------------------------------------------


def train_flow(
    model: VelocityNet,
    batches: Iterator[LatentBatch],
    recipe: FlowRecipe,
    generator: torch.Generator,
    loss: Loss = flow_matching_loss,
    *,
    name: str | None = None,
    quiet: bool = False,
    log_every: int = 100,
) -> tuple[VelocityNet, Training]:
    """Minimise `loss(model, batch, generator)`; returns the running average of the weights.

    Captions are dropped with the recipe's chance. With a `name` the training is resumable.
    """
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    parts = {"model": model, "average": average, "optimiser": optimiser}
    training = Training(name or "flow_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        set_rate(optimiser, recipe.rate * cosine_with_warmup(index, recipe.steps))
        batch = next(batches)
        dropped = torch.rand(len(batch.z), generator=generator) < recipe.drop_caption
        batch = batch._replace(words=batch.words.masked_fill(dropped[:, None], 0))
        value = loss(model, batch, generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"loss": value.item()}

    training.run(step, log_every=log_every, quiet=quiet)
    return average.model, training


def normalised(model: VelocityNet, batches: Iterator[LatentBatch]) -> Iterator[LatentBatch]:
    """The same batches with z in the network's units."""
    for batch in batches:
        yield batch._replace(z=model.normalise(batch.z))


# --- shipped -------------------------------------------------------------------------------------

LATENT = "vae_fashion"  # its encoder makes the latent
VAE = "vae_refined"  # the same encoder, with a decoder that paints that latent sharply
SCENES = 150_000
PAIRS = 60_000


def train_shipped_flow(name: str = "flow", quiet: bool = False) -> dict:
    """Train `flow` or one made from it, resuming a killed run; ships it, returns its card."""
    if name not in SHIPPED:
        raise ValueError(f"there is no flow {name!r}; choose from {', '.join(SHIPPED)}.")
    return SHIPPED[name](name, quiet)


def _flow(name: str, quiet: bool) -> dict:
    recipe, vae = FLOW_RECIPE, load_model(LATENT)
    model = new_flow(FLOW, recipe.seed, vae)
    batches = _scenes(model, vae, recipe, quiet)
    return _trained(name, quiet, model, recipe, flow_matching_loss, batches)


def _mean(name: str, quiet: bool) -> dict:
    # The derivative along the flow makes an update twice as long.
    recipe = replace(FLOW_RECIPE, steps=14_000, seed=FLOW_RECIPE.seed + 1)
    vae = load_model(LATENT)
    model = new_flow(replace(FLOW, times=("t", "r")), recipe.seed, vae)
    batches = _scenes(model, vae, recipe, quiet)
    return _trained(name, quiet, model, recipe, mean_velocity_loss, batches)


def _guided(name: str, quiet: bool) -> dict:
    recipe = replace(FLOW_RECIPE, steps=8000, drop_caption=0.0)
    vae, teacher = load_model(LATENT), load_model("flow")
    model = with_scale(teacher)
    batches = _scenes(model, vae, recipe, quiet)
    return _trained(name, quiet, model, recipe, guided_loss(teacher), batches)


def _reflow(name: str, quiet: bool) -> dict:
    recipe = replace(FLOW_RECIPE, steps=16_000, drop_caption=0.0)
    teacher, model = load_model("flow"), load_model("flow")  # it begins where the teacher stands
    pairs = teacher_pairs(teacher, load_model(LATENT), PAIRS, recipe.seed + 2, quiet)
    model.requires_grad_(True)
    return _trained(
        name, quiet, model, recipe, flow_matching_loss, lambda g: batches_of(pairs, recipe.batch, g)
    )


def with_scale(teacher: VelocityNet) -> VelocityNet:
    """A network that takes the guidance scale too and, for now, answers as the teacher does.

    The new input's weights start at zero.
    """
    model = VelocityNet(replace(teacher.config, times=("t", "s")))
    weights = dict(teacher.state_dict())
    first = "condition.0.weight"
    new = torch.zeros_like(model.state_dict()[first])
    new[:, : weights[first].shape[1]] = weights[first]
    model.load_state_dict({**weights, first: new})
    return model


def teacher_pairs(
    teacher: VelocityNet, vae: ConvVAE, count: int, seed: int, quiet: bool = True
) -> LatentBatch:
    """`count` pairs of the teacher as the course draws with it (FLOW_SAMPLING), for training."""
    source = latent_batches(vae, 500, torch.Generator().manual_seed(seed))
    return reflow_pairs(teacher, source, count, guidance=FLOW_SAMPLING["guidance"], quiet=quiet)


Batches = Callable[[torch.Generator], Iterator[LatentBatch]]


def _scenes(model: VelocityNet, vae: ConvVAE, recipe: FlowRecipe, quiet: bool) -> Batches:
    bank = latent_bank(vae, SCENES, recipe.seed + 100, quiet=quiet)
    return lambda generator: normalised(model, bank_batches(bank, recipe.batch, generator))


def _trained(
    name: str, quiet: bool, model: VelocityNet, recipe: FlowRecipe, loss: Loss, batches: Batches
) -> dict:
    # One generator for batches, times and noise, so that a resumed run goes on with all of them.
    generator = torch.Generator().manual_seed(recipe.seed)
    average, training = train_flow(
        model, batches(generator), recipe, generator, loss, name=name, quiet=quiet
    )
    final = training.history["loss"][-1]
    return ship(name, average, training, recipe, lambda: {"loss": final})


SHIPPED: dict[str, Callable[[str, bool], dict]] = {
    "flow": _flow,
    "flow_mean": _mean,
    "flow_guided": _guided,
    "flow_reflow": _reflow,
}
