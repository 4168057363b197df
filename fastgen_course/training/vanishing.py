"""The generator's gradient while a discriminator gets better: saturating against non-saturating."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastgen_course.models.ring import RING_MLP, RingConfig, RingDiscriminator, RingGenerator
from fastgen_course.training.gan_losses import (
    discriminator_loss,
    nonsaturating_loss,
    saturating_loss,
)
from fastgen_course.training.ring import ring_sample


def gradient_norm(loss: Tensor, parameters: list[Tensor]) -> float:
    """The Euclidean norm of the gradient of `loss` with respect to all `parameters`."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    return torch.stack([g.norm() for g in gradients]).norm().item()


def vanishing_gradients(
    *,
    steps: int = 200,
    every: int = 20,
    batch: int = 256,
    rate: float = 1e-3,
    seed: int = 0,
    config: RingConfig = RING_MLP,
) -> dict[str, list[float]]:
    """Train D alone against a frozen, untrained generator of the ring and watch both gradients.

    The experiment of Arjovsky and Bottou 2017, figures 2 and 3. Returns lists: "step", "d_real"
    and "d_fake" (mean D on data and samples), "saturating" and "nonsaturating" (norms of the
    gradients with respect to the generator's parameters).
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw their start globally
        torch.manual_seed(seed)
        model = RingGenerator(config)
        discriminator = RingDiscriminator(replace(config, spectral=False))
    adam = torch.optim.Adam(discriminator.parameters(), rate)
    parameters = list(model.parameters())
    seen: dict[str, list[float]] = {
        "step": [],
        "d_real": [],
        "d_fake": [],
        "saturating": [],
        "nonsaturating": [],
    }
    for step in range(steps + 1):
        on_real = discriminator(ring_sample(batch, random))
        fake = model(torch.randn(batch, config.noise, generator=random))
        if step % every == 0:
            on_fake = discriminator(fake)
            seen["step"].append(step)
            seen["d_real"].append(on_real.sigmoid().mean().item())
            seen["d_fake"].append(on_fake.sigmoid().mean().item())
            seen["saturating"].append(gradient_norm(saturating_loss(on_fake), parameters))
            seen["nonsaturating"].append(gradient_norm(nonsaturating_loss(on_fake), parameters))
        loss = discriminator_loss(on_real, discriminator(fake.detach()))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return seen
