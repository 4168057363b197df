"""One language model over caption words and image tokens that draws and describes.

Drawing reads ``DRAW w1 .. wn t1 .. t49`` and predicts the image tokens; describing reads
``DESCRIBE t1 .. t49 w1 .. wn END`` and predicts the words. One set of weights learns both: the
chain rule holds in either order, p(w) p(t | w) = p(t) p(w | t).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.models.transformer import Transformer, TransformerConfig

IGNORE = -100  # cross-entropy's own sign for "no target here"

# The sizes that the size sweep (training/gpt_sweep.py) may compare; GPT_BASE is shipped.
GPT_SIZES: dict[str, TransformerConfig] = {
    "gpt_xs": TransformerConfig(width=64, layers=3, heads=2),
    "gpt_s": TransformerConfig(width=96, layers=4, heads=3),
    "gpt_m": TransformerConfig(width=128, layers=6, heads=4),
    "gpt_l": TransformerConfig(width=192, layers=6, heads=6),
}
GPT_BASE = GPT_SIZES["gpt_m"]


class GPT(Transformer):
    """The causal transformer; a class of its own so that a checkpoint names what it is."""

    def __init__(self, config: TransformerConfig = GPT_BASE) -> None:
        if not config.causal:
            raise ValueError("a GPT reads from left to right: causal must be True.")
        super().__init__(config)


class Sequences(NamedTuple):
    """What a language model reads and what it must predict."""

    ids: Tensor  # int64 (B, T)
    positions: Tensor  # int64 (B, T)
    targets: Tensor  # int64 (B, T): the next token, or IGNORE


def draw_sequences(config: TransformerConfig, words: Tensor, tokens: Tensor) -> Sequences:
    """``DRAW w1 .. wn t1 .. tN`` of each row, what is left over at the end ignored.

    Args:
        words: int64 (B, L), 0 after the last word; a row of zeros is a picture without a caption.
        tokens: int64 (B, image_tokens), 0 to codes - 1.

    The padding stands behind the picture, where a causal model cannot see it, so that no mask is
    needed and a caption alone (batch 1) needs no padding at all.
    """
    batch, n = tokens.shape
    lengths = (words != 0).sum(1)
    longest = int(lengths.max())
    device = words.device
    total = 1 + longest + n
    ids = torch.zeros(batch, total, dtype=torch.int64, device=device)
    positions = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORE)
    ids[:, 0] = config.draw
    ids[:, 1 : 1 + longest] = words[:, :longest]
    positions[:, 1 : 1 + longest] = config.first_word_position + torch.arange(
        longest, device=device
    )
    columns = 1 + lengths[:, None] + torch.arange(n, device=device)  # where the picture stands
    image_ids = config.first_code + tokens
    ids.scatter_(1, columns, image_ids)
    image_positions = config.first_image_position + torch.arange(n, device=device)
    positions.scatter_(1, columns, image_positions.expand(batch, -1))
    targets.scatter_(1, columns - 1, image_ids)
    return Sequences(ids[:, :-1], positions[:, :-1], targets[:, :-1])


def describe_sequences(config: TransformerConfig, words: Tensor, tokens: Tensor) -> Sequences:
    """``DESCRIBE t1 .. tN w1 .. wn END`` of each row; only words and END are predicted."""
    batch, n = tokens.shape
    lengths = (words != 0).sum(1)
    longest = int(lengths.max())
    device = words.device
    sign = torch.full((batch, 1), config.describe, dtype=torch.int64, device=device)
    ids = torch.cat([sign, config.first_code + tokens, words[:, :longest]], 1)
    positions = torch.cat(
        [
            torch.zeros(1, dtype=torch.int64, device=device),
            config.first_image_position + torch.arange(n, device=device),
            config.first_word_position + torch.arange(longest, device=device),
        ]
    ).expand(batch, -1)
    targets = torch.full_like(ids, IGNORE)
    followers = torch.cat([words[:, :longest], words.new_zeros(batch, 1)], 1)
    followers.scatter_(1, lengths[:, None], config.end)
    places = torch.arange(longest + 1, device=device)
    targets[:, n:] = followers.masked_fill(places > lengths[:, None], IGNORE)
    return Sequences(ids, positions, targets)
