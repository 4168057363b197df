"""Draw with a flow: follow dz/dt = v(z, t, y) from noise at t = 0 to a latent vector at t = 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from fastgen_course.models.flow import VelocityNet
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.checks import checked_words

CHUNK = 256

#: How the course draws with `flow`: the scale is the recorded choice (training/flow_records.py).
FLOW_SAMPLING: Mapping[str, float] = MappingProxyType({"guidance": 2.0})
Velocity = Callable[[Tensor, Tensor], Tensor]  # (z (B, D), t (B,)) -> (B, D)


def euler(velocity: Velocity, z: Tensor, times: Tensor) -> Tensor:
    """Follow the velocity in straight steps between `times` (S + 1,): S evaluations.

    z(t + h) = z(t) + h v(z, t); the error at the end falls like 1 / S.
    """
    for start, end in pairwise(times):
        z = z + (end - start) * velocity(z, start.expand(len(z)))
    return z


def heun(velocity: Velocity, z: Tensor, times: Tensor) -> Tensor:
    """Heun's method: try an Euler step, average the slopes of both ends: 2 S evaluations.

    The error at the end falls like 1 / S^2 (Karras et al. 2022, algorithm 1, without noise).
    """
    for start, end in pairwise(times):
        slope = velocity(z, start.expand(len(z)))
        tried = z + (end - start) * slope
        z = z + (end - start) * (slope + velocity(tried, end.expand(len(z)))) / 2
    return z


SOLVERS = {"euler": euler, "heun": heun}


def even_times(steps: int, device: torch.device | str = "cpu") -> Tensor:
    """0 to 1 in equal steps: (steps + 1,). Raises ValueError for no step."""
    if steps < 1:
        raise ValueError(f"a flow takes at least one step, got {steps}.")
    return torch.linspace(0, 1, steps + 1, device=device)


def guided(model: VelocityNet, words: Tensor, guidance: float) -> Velocity:
    """The velocity for captions: s v(z, t, y) + (1 - s) v(z, t), two evaluations unless s = 1.

    A network that takes the scale as an input is asked once (Meng et al. 2023).
    """
    none = torch.zeros_like(words)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        if model.config.times == ("t", "s"):
            return model(z, words, t, torch.full_like(t, guidance))
        if guidance == 1.0:
            return model(z, words, t)
        return guidance * model(z, words, t) + (1 - guidance) * model(z, none, t)

    return velocity


def cached_velocity(
    model: VelocityNet, words: Tensor, every: int, guidance: float = 1.0
) -> Velocity:
    """A velocity whose deep features are computed at every `every`-th call only.

    `guidance` is the input of a network that takes the scale; no other can follow it here.
    """
    state: dict[str, Tensor | int | None] = {"kept": None, "calls": 0}
    takes_scale = model.config.times == ("t", "s")

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        times = (t, torch.full_like(t, guidance)) if takes_scale else (t,)
        fresh = state["calls"] % every == 0
        kept = None if fresh else state["kept"]
        out, state["kept"] = model.forward_cached(z, words, *times, kept=kept)
        state["calls"] += 1
        return out

    return velocity


@torch.no_grad()
def sample_latents(
    model: VelocityNet,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    steps: int = 50,
    solver: str = "euler",
    guidance: float = 1.0,
    cache_every: int = 1,
) -> Tensor:
    """Latent vectors (B, latent) of the VAE for captions.

    Args:
        model: a velocity network; one of mean velocities ("t", "r") takes its own steps.
        captions: texts, or their words int64 (B, L).
        noise: standard normal (B, latent); drawn from `generator` when not given.
        generator: the source of randomness (CPU).
        steps: of equal length from t = 0 to 1.
        solver: "euler" (one evaluation a step) or "heun" (two).
        guidance: s; 1 is none.
        cache_every: the deep features are computed at every so many evaluations.

    Raises `CaptionError` for a caption that cannot be read; ValueError for noise of another shape,
    no steps, an unknown solver, or settings that the network cannot follow.
    """
    words = checked_words(captions)
    shape = (len(words), model.config.latent)
    if noise is None:
        noise = torch.randn(shape, generator=generator)
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}.")
    if solver not in SOLVERS:
        raise ValueError(f"there is no solver {solver!r}; choose from {', '.join(SOLVERS)}.")
    model.eval()
    device = model.mean.device
    times = even_times(steps, device)
    if model.config.times == ("t", "r") and (solver, guidance, cache_every) != ("euler", 1.0, 1):
        raise ValueError(
            "a network of mean velocities takes plain steps: no Heun, guidance, cache."
        )
    if cache_every < 1:
        raise ValueError(f"cache_every counts evaluations from 1 up, got {cache_every}.")
    if cache_every != 1 and guidance != 1.0 and model.config.times == ("t",):
        raise ValueError(
            "features are kept for one velocity, so caching goes without guidance, or with a "
            "network that has it distilled."
        )
    result = []
    for rows in torch.arange(len(words)).split(CHUNK):
        y, z = words[rows].to(device), noise[rows].to(device)
        if model.config.times == ("t", "r"):
            z = mean_steps(model, y, z, times)
        elif cache_every != 1:
            z = SOLVERS[solver](cached_velocity(model, y, cache_every, guidance), z, times)
        else:
            z = SOLVERS[solver](guided(model, y, guidance), z, times)
        result.append(model.restore(z))
    return torch.cat(result)


def mean_steps(model: VelocityNet, words: Tensor, z: Tensor, times: Tensor) -> Tensor:
    """Steps by mean velocities: z(t) = z(r) + (t - r) u(z(r), r, t), exact in a single step.

    (MeanFlow, Geng et al. 2025, equation 12, with time running from noise to data.)
    """
    for start, end in pairwise(times):
        r, t = start.expand(len(z)), end.expand(len(z))
        z = z + (end - start) * model(z, words, t, r)
    return z


@torch.no_grad()
def sample_flow(
    model: VelocityNet,
    vae: ConvVAE,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: float | int | str,
) -> Tensor:
    """Images (B, 3, 28, 28) in [-1, 1]: `sample_latents`, decoded. `settings` as there."""
    words = checked_words(captions)
    latents = sample_latents(model, words, noise, generator, **settings)
    vae.eval()
    pairs = zip(latents.split(CHUNK), words.to(latents.device).split(CHUNK), strict=True)
    return torch.cat([vae.decode(z, y) for z, y in pairs])
