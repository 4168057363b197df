"""Edit, segment and sharpen pictures with the editor: one forward pass each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.datasets.captions import MAX_WORDS
from fastgen_course.models.editor import Editor
from fastgen_course.sampling.checks import checked_words

CHUNK = 256


class Edited(NamedTuple):
    """Edited pictures, as tokens, and where their garments are."""

    tokens: Tensor  # int64 (B, image_tokens)
    masks: Tensor  # bool (B, 28, 28)


@torch.no_grad()
def edit_tokens(
    model: Editor, tokens: Tensor, instructions: Sequence[str] | Tensor, chunk: int = CHUNK
) -> Edited:
    """Change pictures as told: the likeliest token at every place, all places at once.

    Args:
        model: an editor.
        tokens: int64 (B, image_tokens), the pictures.
        instructions: captions of what must change ("green, sketch style"), the rest stays; or their
            words int64 (B, L); a row of zeros gives the picture back.
        chunk: pictures edited at once.

    Raises `CaptionError` for an instruction that cannot be read, ValueError when pictures and
    instructions differ in number.
    """
    words = checked_words(instructions)
    if len(words) != len(tokens):
        raise ValueError(
            f"give one instruction a picture: there are {len(words)} for {len(tokens)} pictures."
        )
    model.eval()
    parts = []
    for rows in torch.arange(len(tokens)).split(chunk):
        logits, masks = model(words[rows].to(tokens.device), tokens[rows])
        parts.append((logits.argmax(-1), masks > 0))
    return Edited(*(torch.cat(part) for part in zip(*parts, strict=True)))


def restore_tokens(model: Editor, tokens: Tensor) -> Edited:
    """Give pictures back sharp, and say where their garments are (no instruction)."""
    words = torch.zeros(len(tokens), MAX_WORDS, dtype=torch.int64)
    return edit_tokens(model, tokens, words)
