"""A masked model over image tokens: it fills in what is hidden, any number of tokens at once.

BERT's task (Devlin et al. 2019) on pictures: some image tokens are replaced by a mask sign, and the
model, which sees to the left and to the right, names them (MaskGIT, Chang et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class MaskedConfig(TransformerConfig):
    """A transformer that sees both sides; sizes as in `TransformerConfig`."""

    causal: bool = False


MASKED_BASE = MaskedConfig(width=128, layers=6, heads=4)


class MaskedModel(Transformer):
    """The bidirectional transformer; `image_logits` is all that its users need."""

    def __init__(self, config: TransformerConfig = MASKED_BASE) -> None:
        if config.causal:
            raise ValueError("a masked model sees both sides: causal must be False.")
        super().__init__(config)

    def image_states(self, words: Tensor, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """States (B, image_tokens, width) of the image tokens; see `image_logits`."""
        inputs = masked_inputs(self.config, words, tokens, hidden)
        return self.states(*inputs)[:, -tokens.shape[1] :]

    def image_logits(self, words: Tensor, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Logits (B, image_tokens, codes) of every image token.

        Args:
            words: int64 (B, L), 0 after the last word; a row of zeros is no caption.
            tokens: int64 (B, image_tokens); what is hidden does not count.
            hidden: bool (B, image_tokens), True where the mask sign stands; None hides nothing.
        """
        return self.image_states(words, tokens, hidden) @ self.codes.T

    @property
    def codes(self) -> Tensor:
        """The rows (codes, width) of the output's matrix that stand for image tokens."""
        first = self.config.first_code
        return self.head.weight[first : first + self.config.codes]


class MaskedInputs(NamedTuple):
    """What a masked model reads."""

    ids: Tensor  # int64 (B, T): words, then image tokens
    positions: Tensor  # int64 (T,)
    mask: Tensor | None  # bool (B, T), False on padding; None where there is no padding


def masked_inputs(
    config: TransformerConfig, words: Tensor, tokens: Tensor, hidden: Tensor | None = None
) -> MaskedInputs:
    """Caption words, then image tokens with the mask sign where `hidden`."""
    lengths = (words != 0).sum(1)
    longest = int(lengths.max())
    words = words[:, :longest]
    image = config.first_code + tokens
    if hidden is not None:
        image = image.masked_fill(hidden, config.draw)
    device = tokens.device
    positions = torch.cat(
        [
            config.first_word_position + torch.arange(longest, device=device),
            config.first_image_position + torch.arange(tokens.shape[1], device=device),
        ]
    )
    mask = None
    if int(lengths.min()) < longest:
        mask = torch.cat([words != 0, torch.ones_like(tokens, dtype=torch.bool)], 1)
    return MaskedInputs(torch.cat([words, image], 1), positions, mask)
