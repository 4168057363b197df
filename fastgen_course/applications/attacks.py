"""Was this photograph in the training set? Attacks on generators, and how to score an attack.

An attack gives each photograph a number, larger for "it was in it". Members and strangers are
photographs of the same kind; what the numbers are worth is the chance that a random member's number
is above a random stranger's: the area under the curve, 0.5 for a coin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.applications.photographs import SceneSet
from fastgen_course.models.gpt import IGNORE, draw_sequences
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import Transformer
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.training.elbo import elbo_terms

CHUNK = 250


class Attack(NamedTuple):
    """What an attack achieved.

    Attributes:
        auc: area under the curve, in [0, 1].
        low, high: its 95 % interval.
        caught: share of members found when one stranger in a hundred is accused.
        members, strangers: how many photographs.
    """

    auc: float
    low: float
    high: float
    caught: float
    members: int
    strangers: int


def assess(members: Tensor, strangers: Tensor) -> Attack:
    """Score an attack's numbers for members (M,) and strangers (S,).

    The area is Mann and Whitney's statistic, ties counted half; its interval follows DeLong,
    DeLong and Clarke-Pearson (1988). `caught` is what Carlini et al. (2022), "Membership inference
    attacks from first principles", ask for beside it: an attack that is sure of a few members is
    worse than its area says. Raises ValueError for fewer than two numbers on a side.
    """
    if min(len(members), len(strangers)) < 2:
        raise ValueError(
            "an attack is scored on at least two members and two strangers; got "
            f"{len(members)} and {len(strangers)}."
        )
    members, strangers = members.double(), strangers.double()
    above = _share_below(members, strangers)  # of each member: how many strangers lie below it
    below = 1 - _share_below(strangers, members)
    auc = float(above.mean())
    half = 1.96 * float((above.var() / len(members) + below.var() / len(strangers)).sqrt())
    threshold = strangers.sort().values[-max(1, len(strangers) // 100)]
    return Attack(
        auc=auc,
        low=max(0.0, auc - half),
        high=min(1.0, auc + half),
        caught=float((members > threshold).double().mean()),
        members=len(members),
        strangers=len(strangers),
    )


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """Share of `others` below each of `values`, an equal one counted half."""
    others = others.sort().values
    left = torch.searchsorted(others, values)
    right = torch.searchsorted(others, values, right=True)
    return (left + right).double() / (2 * len(others))


@torch.no_grad()
def gpt_likelihood(gpt: Transformer, tokenizer: Tokenizer, scenes: SceneSet) -> Tensor:
    """log p(picture | caption) of each scene, in nats: (N,)."""
    gpt.eval()
    parts = []
    for rows in torch.arange(len(scenes.images)).split(CHUNK):
        tokens = tokenizer.eval().encode(scenes.images[rows])
        ids, positions, targets = draw_sequences(gpt.config, scenes.words[rows], tokens)
        logits = gpt(ids, positions).transpose(1, 2)
        nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
        parts.append(-nats.sum(1))
    return torch.cat(parts)


@torch.no_grad()
def vae_likelihood(vae: ConvVAE, scenes: SceneSet, draws: int = 4) -> Tensor:
    """The bound on log p(picture | caption), the mean of `draws` draws, in nats: (N,)."""
    generator = torch.Generator().manual_seed(3)
    parts = []
    for rows in torch.arange(len(scenes.images)).split(CHUNK):
        images, words = scenes.images[rows], scenes.words[rows]
        noise = torch.randn(draws, len(rows), vae.config.latent, generator=generator)
        terms = [elbo_terms(vae.eval(), images, z, words).elbo for z in noise]
        parts.append(torch.stack(terms).mean(0))
    return torch.cat(parts)


class Bank(NamedTuple):
    """Drawings of one generator, as many of each garment, all in one kind of scene."""

    noise: Tensor  # (10, K, noise)
    images: Tensor  # (10, K, 3 * 28 * 28)


def draw_bank(model: nn.Module, words: Tensor, count: int, generator: torch.Generator) -> Bank:
    """`count` drawings of each caption in `words` (10, MAX_WORDS)."""
    noise = torch.randn(len(words), count, model.config.noise, generator=generator)
    images = [
        sample_generator(model, y.expand(count, -1), noise=z).flatten(1)
        for z, y in zip(noise, words, strict=True)
    ]
    return Bank(noise, torch.stack(images))


def nearest_drawing(bank: Bank, scenes: SceneSet) -> tuple[Tensor, Tensor]:
    """Of each scene: minus the pixel distance (N,) to the nearest drawing, and that one's noise.

    The black-box attack of Chen et al. (2020), "GAN-Leaks": what a generator has copied, it draws.
    The distance is a root mean square in pixel values of [-1, 1].
    """
    distances, noise = [], []
    for image, garment in zip(scenes.images.flatten(1), scenes.garments.tolist(), strict=True):
        square = (bank.images[garment] - image).square().mean(1)
        best = int(square.argmin())
        distances.append(square[best].sqrt())
        noise.append(bank.noise[garment, best])
    return -torch.stack(distances), torch.stack(noise)


def closest_noise(
    model: nn.Module, scenes: SceneSet, start: Tensor, steps: int = 40, rate: float = 0.05
) -> Tensor:
    """Minus the distance (N,) that is left when the noise is bent to draw each scene.

    The white-box attack of the same paper: Adam on the noise, from the nearest drawing's. A penalty
    holds the noise near the shell on which normal noise lies; without it the search leaves what the
    generator was trained to draw.
    """
    model.eval().requires_grad_(False)
    parts = []
    for rows in torch.arange(len(scenes.images)).split(CHUNK):
        noise = start[rows].clone().requires_grad_(True)
        target, words = scenes.images[rows], scenes.words[rows]
        best = torch.full((len(rows),), float("inf"))
        optimiser = torch.optim.Adam([noise], lr=rate)
        for _ in range(steps):
            error = (model(noise, words) - target).square().mean((1, 2, 3))
            best = torch.minimum(best, error.detach())
            excess = (noise.square().mean(1) - 1).clamp(min=0)
            optimiser.zero_grad(set_to_none=True)
            (error + 0.1 * excess).sum().backward()
            optimiser.step()
        parts.append(-best.sqrt())
    return torch.cat(parts)
