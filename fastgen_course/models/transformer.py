"""The transformer that draws: one decoder for the language model, the masked model and the editor.

Pre-normalised blocks of attention and a two-layer perceptron (Vaswani et al. 2017; Radford et al.
2019), in the field's plainest form. The three models of notebooks 04 to 06 differ in what they read
and in `causal`, not in this file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.datasets.captions import MAX_WORDS, VOCABULARY


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer over caption words and image tokens.

    Attributes:
        width: numbers in a token's state.
        layers: blocks.
        heads: attention heads; divides `width`.
        causal: whether a token sees only what stands before it.
        image_tokens: words of a picture, 49 or 16.
        codes: how many different image tokens there are.
        words: how many different caption words there are, padding included.
    """

    width: int = 128
    layers: int = 6
    heads: int = 4
    causal: bool = True
    image_tokens: int = 49
    codes: int = 512
    words: int = len(VOCABULARY)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}.")

    # One vocabulary: caption words, then image tokens, then three signs.
    @property
    def first_code(self) -> int:
        """The number of image token 0."""
        return self.words

    @property
    def draw(self) -> int:
        """The sign "a caption follows, then its picture"; for a masked model, the mask."""
        return self.words + self.codes

    @property
    def describe(self) -> int:
        """The sign "a picture follows, then its caption"."""
        return self.words + self.codes + 1

    @property
    def end(self) -> int:
        """The sign that ends a description."""
        return self.words + self.codes + 2

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return self.words + self.codes + 3

    # A token's position says its role, so that a picture's third token has the same position
    # behind a short caption and behind a long one: 0 the sign, then words, then image tokens.
    @property
    def first_word_position(self) -> int:
        """The position of a caption's first word."""
        return 1

    @property
    def first_image_position(self) -> int:
        """The position of a picture's first token."""
        return 2 + MAX_WORDS

    @property
    def positions(self) -> int:
        """How many positions there are."""
        return 2 + MAX_WORDS + self.image_tokens


class KVCache:
    """Keys and values of the tokens read so far, in buffers of fixed size.

    Tokens are appended in order, or put at places: a token's place is its index in the sequence, so
    that a guess is overwritten by what took its place, and rows may stand at different places.

    Attributes:
        length: how many tokens were appended.
        filled: bool (B, size), which places hold a token.
    """

    def __init__(self, config: TransformerConfig, batch: int, size: int, like: Tensor) -> None:
        shape = (config.layers, 2, batch, config.heads, size, config.width // config.heads)
        # Zeros rather than whatever was in memory: a hidden place weighs 0, and 0 x NaN is NaN.
        self.buffers = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.filled = torch.zeros(batch, size, dtype=torch.bool, device=like.device)
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new k and v (B, H, T, D) of a layer; returns all of them, (B, H, length + T, D)."""
        end = self.length + k.shape[2]
        keys, values = self.buffers[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def put(self, layer: int, k: Tensor, v: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Store new k and v (B, H, T, D) of a layer at places (B, T); returns the whole buffers."""
        index = places[:, None, :, None].expand_as(k)
        keys, values = self.buffers[layer]
        return keys.scatter_(2, index, k), values.scatter_(2, index, v)

    def sees(self, places: Tensor) -> Tensor:
        """What tokens at places (B, T) see, themselves included: bool (B, T, size).

        Everything that was put at their place or before it; marks the places as filled.
        """
        self.filled.scatter_(1, places, True)
        before = torch.arange(self.filled.shape[1], device=places.device) <= places[..., None]
        return before & self.filled[:, None]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None = None,
        layer: int = 0,
        places: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, C) to (B, T, C), or (B, W, C) of the W tokens `wanted`; all are looked at.

        The mask is bool, True where a token may be seen: (B, 1, 1, T), the same for every token, or
        with `places` (B, 1, T, size).
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if wanted is not None:
            q = q[:, :, wanted]
        # One new token may see all that is cached: only several at once need the causal mask.
        causal = self.causal and x.shape[1] > 1 and places is None
        if cache is not None and places is not None:
            k, v = cache.put(layer, k, v, places)
        elif cache is not None:
            k, v = cache.append(layer, k, v)
            if causal and cache.length:
                raise ValueError("with a filled cache, give one token at a time, or places.")
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention, then x + perceptron, each of a normalised x."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, 4 * config.width),
            nn.GELU(),
            nn.Linear(4 * config.width, config.width),
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None = None,
        layer: int = 0,
        places: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, C) to (B, T, C), or (B, W, C) of the tokens `wanted`."""
        y = self.attention(self.norm1(x), mask, cache, layer, places, wanted)
        x = y + (x if wanted is None else x[:, wanted])
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Tokens and their positions in, logits of a token at every place out."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.embedding.weight  # tied (Press and Wolf 2017)
        self.apply(self._initialise)
        # Each block adds to the residual stream twice; smaller last layers keep its size even.
        for block in self.blocks:
            for layer in (block.attention.out, block.mlp[2]):
                nn.init.normal_(layer.weight, std=0.02 / (2 * config.layers) ** 0.5)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def states(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        places: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """The last layer's normalised states (B, T, C).

        Args:
            ids: int64 (B, T), numbers of the one vocabulary.
            positions: int64 (T,) or (B, T), their roles.
            mask: bool (B, T), True where a token may be seen; None: all of them.
            cache: what was read before; the new tokens are added to it.
            places: int64 (B, T), where in the cache the new tokens are put, each to see what stands
                before it there (a causal model); None appends them.
            wanted: int64 (W,), indices of tokens; the last layer then computes theirs alone, and
                the result is (B, W, C). Needs a model that sees both sides.
        """
        self.check_wanted(wanted)
        x = self.embedding(ids) + self.position(positions)
        if places is not None:
            if cache is None or mask is not None:
                raise ValueError("places need a cache, and make the mask themselves.")
            mask = cache.sees(places)[:, None]
        elif mask is not None:
            mask = mask[:, None, None]
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            x = block(x, mask, cache, index, places, wanted if last else None)
        if cache is not None and places is None:
            cache.length += ids.shape[1]
        return self.norm(x)

    def check_wanted(self, wanted: Tensor | None) -> None:
        """Raise ValueError where single tokens are wanted of a causal model."""
        if wanted is not None and self.config.causal:
            raise ValueError("wanted needs a model that sees both sides: causal must be False.")

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits (B, T, vocabulary); see `states`."""
        return self.head(self.states(ids, positions, mask, cache))


def parameter_groups(model: nn.Module, decay: float) -> list[dict]:
    """AdamW's groups: matrices decay, vectors (biases, norms) do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
