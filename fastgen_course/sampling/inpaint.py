"""Inpainting: the places under a mask drawn again to fit the rest and the caption."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.checks import checked_words
from fastgen_course.sampling.masked import MASKED_SAMPLING, sample_masked

SIDE = 28


def hidden_places(masks: Tensor, side: int = 7) -> Tensor:
    """Which tokens a mask hides: bool (B, side * side).

    Args:
        masks: bool (B, 28, 28), pixels to draw anew: a token is hidden where the mask touches its
            place. Or bool (B, side, side), the places themselves.
        side: the token grid's side.

    Raises ValueError, in one sentence, for another type or shape, and for a mask that hides nothing
    or everything.
    """
    if masks.dtype != torch.bool or tuple(masks.shape[1:]) not in ((SIDE, SIDE), (side, side)):
        raise ValueError(
            f"a mask is bool, (B, {SIDE}, {SIDE}) pixels or (B, {side}, {side}) places; "
            f"got {masks.dtype} {tuple(masks.shape)}."
        )
    hidden = masks.flatten(1)
    if masks.shape[1] == SIDE:
        hidden = F.max_pool2d(masks[:, None].float(), SIDE // side).flatten(1) > 0
    if not hidden.any(1).all():
        raise ValueError("the mask hides nothing; mark at least one place to be drawn anew.")
    if hidden.all(1).any():
        raise ValueError(
            "the mask hides the whole picture, so that nothing of it would stay; leave some of it, "
            "or draw a new picture."
        )
    return hidden


@torch.no_grad()
def inpaint(
    model: MaskedModel,
    tokenizer: Tokenizer,
    images: Tensor,
    masks: Tensor,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: float | int | None,
) -> Tensor:
    """Draw the hidden places of pictures again: images (B, 3, 28, 28) in [-1, 1].

    Args:
        model: a masked model.
        tokenizer: the tokenizer that it was trained with.
        images: float32 (B, 3, 28, 28) in [-1, 1].
        masks: what to draw anew, see `hidden_places`.
        captions: what the whole pictures should show, one each, or their words.
        noise, generator, settings: those of `sample_masked`; MASKED_SAMPLING holds for settings
            that are not given.

    Places that are not hidden keep their pixels bit for bit: the tokenizer would blur them a little
    on the way to words and back. Raises ValueError as `hidden_places` does, and unless there are as
    many masks and captions as pictures.
    """
    words = checked_words(captions)
    if not len(images) == len(masks) == len(words):
        raise ValueError(
            f"give one mask and one caption a picture: there are {len(images)} pictures, "
            f"{len(masks)} masks and {len(words)} captions."
        )
    side = tokenizer.config.side
    hidden = hidden_places(masks, side)
    tokens = sample_masked(
        model,
        words,
        noise,
        generator,
        start=tokenizer.eval().encode(images),
        hidden=hidden,
        **{**MASKED_SAMPLING, **settings},
    )
    step = SIDE // side
    drawn = hidden.view(-1, 1, side, side).repeat_interleave(step, 2).repeat_interleave(step, 3)
    return torch.where(drawn.to(images.device), tokenizer.decode(tokens), images)
