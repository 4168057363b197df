"""Is a teacher's picture a function of its noise that a network could learn?

Turn the noise a little, z cos(a) + z' sin(a), which is as normal as z was, and look how far the
picture goes. Where it is a smooth function of the noise, every picture moves, and by as little as
one likes. A language model draws too as a function of its numbers, one for each token, but a step
function: most pictures stay exactly where they are, and the others jump, however small the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.distillation_losses import drawing_distance
from fastgen_course.compression.teacher_sets import DistillationError, Draw, teacher_draw
from fastgen_course.models.generator import GENERATOR_BASE
from fastgen_course.sampling.gpt import draw_images


class Turn(NamedTuple):
    """What a turn of the noise does to pictures.

    Attributes:
        moved: share of the pictures that change at all.
        distance: how far those go, as a share of the distance of two independent drawings.
    """

    moved: float
    distance: float


def drawn_from_normal(name: str) -> tuple[Draw, int]:
    """(a teacher's drawing from normal numbers, how many a picture).

    The language model's uniform numbers are the normal ones' ranks. Raises `DistillationError` for
    an unknown teacher.
    """
    if name != "gpt":
        return teacher_draw(name, 0), GENERATOR_BASE.noise
    gpt, tokenizer = load_model("gpt"), load_model("tokenizer")

    def draw(words: Tensor, noise: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise).clamp(max=1 - 1e-6)
        return draw_images(gpt, tokenizer, words, uniform)

    return draw, gpt.config.image_tokens


@torch.no_grad()
def turn_noise(
    draw: Draw, latent: int, words: Tensor, angles: Sequence[float], seed: int = 0
) -> list[Turn]:
    """What each turn (radians) does to the pictures of words (B, L), from one seed's noise.

    Raises `DistillationError` for an angle outside 0 (excluded) to pi / 2.
    """
    if not all(0 < angle <= torch.pi / 2 for angle in angles):
        raise DistillationError(f"angles must be above 0 and at most pi / 2, got {list(angles)}.")
    generator = torch.Generator().manual_seed(seed)
    noise, other = torch.randn(2, len(words), latent, generator=generator)
    pictures = draw(words, noise)
    whole = drawing_distance(draw(words, other), pictures).mean()
    turns = []
    for angle in torch.tensor(angles):
        distance = drawing_distance(
            draw(words, noise * angle.cos() + other * angle.sin()), pictures
        )
        moved = distance > 0
        mean = distance[moved].mean() if moved.any() else torch.zeros(())
        turns.append(Turn(float(moved.float().mean()), float(mean / whole)))
    return turns
