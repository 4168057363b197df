"""SmolLM2-135M-Instruct in torch: a LLaMA in a hundred lines, its weights read from a GGUF file.

Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models": RMSNorm before each
sub-layer, rotary positions, grouped-query attention, SwiGLU, and here one matrix for embedding and
head. Shapes: B sequences, T tokens, D model width, H heads, K key-value heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

# For each layer the keys and values so far, (B, K, T, E) each. A forward returns a new cache and
# leaves the old one as it was, so that many continuations can start from one prefix.
Cache = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a LLaMA."""

    vocabulary: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    rope_base: float = 1e5
    eps: float = 1e-5


SMOLLM2_135M = LlamaConfig(49152, 576, 30, 9, 3, 1536)


class RMSNorm(nn.Module):
    """x / rms(x) * weight: a layer norm without mean and bias."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x_BHTE: torch.Tensor, start: int, base: float) -> torch.Tensor:
    """RoPE (Su et al. 2021): turn each pair of numbers by its position times the pair's frequency.

    The pairs are neighbours, (0, 1), (2, 3), ... as in the paper. Transformers pairs 0 with E/2
    instead; a GGUF's q and k rows are permuted so that this plain form gives the same products.
    """
    T, E = x_BHTE.shape[-2:]
    frequencies = base ** (-torch.arange(0, E, 2, device=x_BHTE.device) / E)
    angles_TE = torch.outer(torch.arange(start, start + T, device=x_BHTE.device), frequencies)
    even, odd = x_BHTE[..., 0::2], x_BHTE[..., 1::2]
    cos, sin = angles_TE.cos(), angles_TE.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Attention(nn.Module):
    """Causal attention in which H / K query heads share one key-value head."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.c, width = c, c.dim // c.heads
        self.q = nn.Linear(c.dim, c.heads * width, bias=False)
        self.k = nn.Linear(c.dim, c.kv_heads * width, bias=False)
        self.v = nn.Linear(c.dim, c.kv_heads * width, bias=False)
        self.o = nn.Linear(c.heads * width, c.dim, bias=False)

    def forward(self, x_BTD, past=None):
        B, T, _ = x_BTD.shape
        start = past[0].shape[2] if past else 0
        q, k, v = (p(x_BTD).view(B, T, -1, x_BTD.shape[-1] // self.c.heads).transpose(1, 2)
                   for p in (self.q, self.k, self.v))  # fmt: skip
        q, k = rotate(q, start, self.c.rope_base), rotate(k, start, self.c.rope_base)
        if past:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        # Token t of this call sees everything up to position start + t.
        mask_TS = torch.ones(T, start + T, dtype=torch.bool, device=x_BTD.device).tril(start)
        y = F.scaled_dot_product_attention(q, k, v, mask_TS, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(B, T, -1)), (k, v)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(c.dim, c.hidden, bias=False)
        self.up = nn.Linear(c.dim, c.hidden, bias=False)
        self.down = nn.Linear(c.hidden, c.dim, bias=False)

    def forward(self, x_BTD):
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class Block(nn.Module):
    """Attention and SwiGLU, each on a normalised copy and added back."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(c.dim, c.eps), Attention(c)
        self.ffn_norm, self.ffn = RMSNorm(c.dim, c.eps), SwiGLU(c)

    def forward(self, x_BTD, past=None):
        mixed, past = self.attn(self.attn_norm(x_BTD), past)
        x_BTD = x_BTD + mixed
        return x_BTD + self.ffn(self.ffn_norm(x_BTD)), past


class Llama(nn.Module):
    """Tokens in, the next token's logits out."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)

    def states(self, tokens_BT: torch.Tensor, cache: Cache | None = None):
        """The last layer's normalised states (B, T, D), and the cache with these tokens in it."""
        x_BTD, grown = self.embedding(tokens_BT), []
        for block, past in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            x_BTD, kept = block(x_BTD, past)
            grown.append(kept)
        return self.norm(x_BTD), grown

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., vocabulary) of states (..., D): their products with every embedding."""
        return F.linear(states, self.embedding.weight)

    def forward(self, tokens_BT: torch.Tensor, cache: Cache | None = None):
        """Logits (B, T, vocabulary) and the grown cache."""
        states, cache = self.states(tokens_BT, cache)
        return self.head(states), cache
