"""A model without weights that is never wrong: every conditional of a known table of probabilities.

It answers where a masked model answers, so that what its sampler does to the distribution can be
told from what training left undone.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class TableModel(nn.Module):
    """The exact p(token | visible tokens) of all small pictures, in a `MaskedModel`'s place."""

    def __init__(self, table: Tensor) -> None:
        """table: probabilities (codes, ..., codes), one axis a token; they sum to 1.

        Raises ValueError for axes of different lengths, or numbers that are no distribution.
        """
        super().__init__()
        if len(set(table.shape)) != 1:
            raise ValueError(f"all tokens have as many codes, got a table {tuple(table.shape)}.")
        if (table < 0).any() or abs(float(table.sum()) - 1) > 1e-5:
            raise ValueError("a table of probabilities is nowhere negative and sums to 1.")
        self.config = SimpleNamespace(image_tokens=table.ndim, codes=table.shape[0])
        self.table = nn.Parameter(table.double(), requires_grad=False)

    def image_logits(self, words: Tensor, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Log-probabilities (B, image_tokens, codes) given the tokens that are not hidden.

        Args:
            words: taken and not read: the table has no caption.
            tokens: int64 (B, image_tokens).
            hidden: bool (B, image_tokens); None hides nothing.

        What cannot be has -69 (a share of 1e-30) in place of minus infinity; where the visible
        tokens together cannot be, every token is as likely as any other.
        """
        batch, n = tokens.shape
        if hidden is None:
            hidden = torch.zeros_like(tokens, dtype=torch.bool)
        agrees = nn.functional.one_hot(tokens, self.config.codes).bool() | hidden[..., None]
        weights = self.table.expand(batch, *self.table.shape)
        for place in range(n):
            shape = [batch, *[1] * place, -1, *[1] * (n - place - 1)]
            weights = weights * agrees[:, place].view(shape)
        places = range(1, n + 1)
        marginals = [weights.sum([d for d in places if d != place]) for place in places]
        shares = torch.stack([m.view(batch, -1) for m in marginals], 1)
        return (shares / shares.sum(-1, keepdim=True).clamp(min=1e-300)).clamp(min=1e-30).log()
