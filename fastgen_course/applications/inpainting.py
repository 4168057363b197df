"""Repairing real pictures: what the masked model puts under a mask, against simple fills.

Two things are asked of a repair, and they disagree: to be near the hidden truth (the squared error,
which the mean of all possible answers minimises) and to be a picture (which that mean is not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.applications.photographs import SceneSet, draw_photographs, scenes_of
from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.compose import BACKGROUNDS
from fastgen_course.metrics.accuracy import found_slots, summarise
from fastgen_course.metrics.features import judge_features
from fastgen_course.metrics.intervals import Estimate, estimate
from fastgen_course.sampling.inpaint import inpaint
from fastgen_course.sampling.one_step import base_generator, sample_generator

PICTURES = 400
DRAWS = 3
PLACE = 4  # pixels a side of one token's place in the 7x7 grid


class Damage(NamedTuple):
    """Real test pictures and what is missing of them."""

    scenes: SceneSet
    masks: Tensor  # bool (N, 28, 28), True where the picture is lost


def middle(generator: torch.Generator, n: int) -> Tensor:
    """The 12x12 pixels in the middle, most of the garment: bool (n, 28, 28)."""
    places = torch.zeros(n, 7, 7, dtype=torch.bool)
    places[:, 2:5, 2:5] = True
    return _pixels(places)


def lower_half(generator: torch.Generator, n: int) -> Tensor:
    """The lower 12 rows of 28: bool (n, 28, 28)."""
    places = torch.zeros(n, 7, 7, dtype=torch.bool)
    places[:, 4:] = True
    return _pixels(places)


def scattered(generator: torch.Generator, n: int) -> Tensor:
    """24 of the 49 places of 4x4 pixels, drawn for each picture: bool (n, 28, 28)."""
    order = torch.rand(n, 49, generator=generator).argsort(1)
    return _pixels((order < 24).view(n, 7, 7))


def _pixels(places: Tensor) -> Tensor:
    return places.repeat_interleave(PLACE, 1).repeat_interleave(PLACE, 2)


MASKS: dict[str, Callable[[torch.Generator, int], Tensor]] = {
    "middle": middle,
    "lower_half": lower_half,
    "scattered": scattered,
}


def damaged(kind: str, n: int = PICTURES, seed: int = 21) -> Damage:
    """`n` test photographs in scenes, balanced over garments, with a mask of a kind of MASKS.

    Raises ValueError for an unknown kind, and unless n is a multiple of 10 from 10 to 10,000.
    """
    if kind not in MASKS:
        raise ValueError(f"there is no mask {kind!r}; choose from {', '.join(MASKS)}.")
    if n < 10 or n % 10:
        raise ValueError(f"pictures are shared out over ten garments: {n} is no multiple of 10.")
    generator = torch.Generator().manual_seed(seed)
    scenes = scenes_of(draw_photographs("test", n // 10, generator), "test", generator)
    return Damage(scenes, MASKS[kind](generator, n))


def paste(images: Tensor, masks: Tensor, fill: Tensor) -> Tensor:
    """`fill` where the mask is True, the picture's own pixels elsewhere; fill broadcasts."""
    return torch.where(masks[:, None], fill, images)


# --- ways to fill ---------------------------------------------------------------------------------


def fill_paper(damage: Damage, generator: torch.Generator) -> Tensor:
    """The background's colour, which the caption names."""
    table = torch.tensor(list(BACKGROUNDS.values())) * 2 - 1
    return paste(*_known(damage), table[damage.scenes.labels[:, 3]][:, :, None, None])


def fill_mean(damage: Damage, generator: torch.Generator) -> Tensor:
    """The mean colour of what is left of the picture."""
    images, masks = _known(damage)
    seen = ~masks[:, None]
    mean = (images * seen).sum((2, 3)) / seen.sum((2, 3))
    return paste(images, masks, mean[:, :, None, None])


def fill_smooth(damage: Damage, generator: torch.Generator, rounds: int = 200) -> Tensor:
    """Laplace's equation under the mask: each lost pixel the mean of its neighbours.

    Jacobi's iteration from the mean colour; its error on a 12x12 hole falls below a grey level.
    """
    images, masks = _known(damage)
    x = fill_mean(damage, generator)
    kernel = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]).view(1, 1, 3, 3) / 4
    for _ in range(rounds):
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
        x = paste(images, masks, F.conv2d(padded, kernel).view_as(x))
    return x


def fill_redrawn(damage: Damage, generator: torch.Generator) -> Tensor:
    """A drawing by GENERATOR_BASE from the caption alone, pasted in: it never saw the picture."""
    drawn = sample_generator(base_generator(), damage.scenes.words, generator=generator)
    return paste(*_known(damage), drawn)


def fill_masked(damage: Damage, generator: torch.Generator) -> Tensor:
    """The masked model's tokens for the lost places, given the rest and the caption."""
    images, masks = _known(damage)
    network, tokenizer = load_model("masked"), load_model("tokenizer")
    return inpaint(network, tokenizer, images, masks, damage.scenes.words, generator=generator)


def fill_tokens(damage: Damage, generator: torch.Generator) -> Tensor:
    """The truth through the tokenizer: what painting with these tokens cannot be expected to beat.

    Not a repair: it has seen what is lost.
    """
    tokenizer = load_model("tokenizer").eval()
    with torch.no_grad():
        painted = tokenizer.decode(tokenizer.encode(damage.scenes.images))
    return paste(damage.scenes.images, damage.masks, painted)


def _known(damage: Damage) -> tuple[Tensor, Tensor]:
    """The pictures with the lost pixels at mid-grey, so that no fill can see them; the masks."""
    images = damage.scenes.images.masked_fill(damage.masks[:, None], 0.0)
    return images, damage.masks


Fill = Callable[[Damage, torch.Generator], Tensor]
FILLS: dict[str, Fill] = {
    "paper": fill_paper,
    "mean": fill_mean,
    "smooth": fill_smooth,
    "redrawn": fill_redrawn,
    "masked": fill_masked,
    "tokens": fill_tokens,
}
DRAWN = ("redrawn", "masked")  # a random draw each; the others give one answer


# --- scores ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repair:
    """How good a way to fill is, on one kind of mask.

    Attributes:
        exact: share of repaired pictures in which the judge finds all five slots.
        error: root mean square error under the mask, in pixel values of [-1, 1].
        feature: distance to the true picture in the judge's features, its own unit.
        changed: how many pixel values outside the mask differ from the picture's. Must be 0.
        mean_error: `error` of the mean of several draws; of the one answer where there is one.
    """

    exact: Estimate
    error: Estimate
    feature: Estimate
    changed: int
    mean_error: Estimate


def root_mean_square(ours: Tensor, truth: Tensor, masks: Tensor) -> Tensor:
    """Error under the mask of each picture (N,), in pixel values of [-1, 1]."""
    square = (ours - truth).square().mean(1)  # over colours: (N, 28, 28)
    return ((square * masks).sum((1, 2)) / masks.sum((1, 2))).sqrt()


def score(
    fill: str, damage: Damage, draws: int = DRAWS, judge: torch.nn.Module | None = None
) -> Repair:
    """Score one of FILLS; the ways that draw are scored on the mean over `draws` draws."""
    truth = damage.scenes.images
    generator = torch.Generator().manual_seed(5)
    repaired = [FILLS[fill](damage, generator) for _ in range(draws if fill in DRAWN else 1)]
    target = judge_features(truth, judge)
    features = [judge_features(images, judge) for images in repaired]
    found = torch.stack([found_slots(f, damage.scenes.labels, judge=judge) for f in features])
    outside = ~damage.masks[:, None]
    errors = [root_mean_square(images, truth, damage.masks) for images in repaired]
    middle_of_draws = root_mean_square(torch.stack(repaired).mean(0), truth, damage.masks)
    return Repair(
        exact=summarise(found).exact,
        error=estimate(torch.stack(errors).mean(0)),
        feature=estimate(torch.stack([(f - target).norm(dim=1) for f in features]).mean(0)),
        changed=sum(int(((images != truth) & outside).sum()) for images in repaired),
        mean_error=estimate(middle_of_draws),
    )
