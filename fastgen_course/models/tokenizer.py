"""Pictures as words: an autoencoder whose latent is a grid of entries from one codebook.

The encoder turns a picture (3, 28, 28) into a grid of short vectors, the quantiser replaces each by
the nearest of 512 codebook vectors, the decoder paints the picture back (van den Oord, Vinyals and
Kavukcuoglu 2017, "Neural Discrete Representation Learning"). The numbers of the entries are the
picture's words: 49 of them for the 7x7 grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a picture tokenizer.

    Attributes:
        quantizer: "ema" (codebook moved by running averages), "gradient" (codebook trained by its
            own loss) or "fsq" (no codebook: each number of the vector rounded to a few levels).
        codes: how many words there are; for "fsq" the product of `levels`.
        dim: length of a code vector; for "fsq" the number of levels.
        levels: levels of each number, for "fsq" alone.
        side: the grid's side: 7 (49 words a picture) or 4 (16 words).
        width: feature maps at side 14.
        deep: feature maps at side 7 and below.
    """

    quantizer: str = "ema"
    codes: int = 512
    dim: int = 8
    levels: tuple[int, ...] = (8, 8, 8)
    side: int = 7
    width: int = 48
    deep: int = 96

    def __post_init__(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise ValueError(
                f"there is no quantiser {self.quantizer!r}; choose from {', '.join(QUANTIZERS)}."
            )
        if self.side not in (7, 4):
            raise ValueError(f"a picture has 7x7 or 4x4 words, so side is 7 or 4, not {self.side}.")
        if self.quantizer == "fsq" and (self.codes, self.dim) != (
            prod(self.levels),
            len(self.levels),
        ):
            raise ValueError(
                f"levels {self.levels} make {prod(self.levels)} codes of dimension "
                f"{len(self.levels)}; codes={self.codes}, dim={self.dim} do not fit."
            )

    @property
    def tokens(self) -> int:
        """Words a picture."""
        return self.side**2


class Quantized(NamedTuple):
    """What a quantiser makes of the encoder's vectors."""

    vectors: Tensor  # (..., dim), codebook entries; their gradient goes straight to the encoder
    tokens: Tensor  # (...) int64
    loss: Tensor  # what the quantiser adds to the training loss, a scalar


def straight_through(z: Tensor, z_q: Tensor) -> Tensor:
    """The value of `z_q`, the gradient of `z`: z + stop_gradient(z_q - z).

    A nearest-neighbour step has no useful gradient. This passes the decoder's gradient, taken *at
    z_q*, to the encoder as if z_q were z: equality holds only where z = z_q, so the encoder is
    steered with a gradient from a nearby point.
    """
    return z + (z_q - z).detach()


def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest row of codebook (K, D) for each vector of z (..., D): int64 (...).

    ||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2, of which the first term is the same for every code.
    """
    distances = codebook.square().sum(1) - 2 * z @ codebook.T
    return distances.argmin(-1)


def move_codes(
    counts: Tensor, sums: Tensor, z: Tensor, tokens: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a codebook of running averages: its new counts (K,), sums and codes (K, D).

    `counts` and `sums` are the running number and sum of the vectors that chose each code; the
    batch brings vectors z (N, D) that chose `tokens` (N,). Both averages forget with `decay`
    (van den Oord et al. 2017, appendix A.1), and a code is the quotient: the mean of its vectors.
    """
    n = torch.bincount(tokens, minlength=len(counts)).to(sums)
    m = torch.zeros_like(sums).index_add(0, tokens, z)
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * m
    return counts, sums, sums / counts.clamp(min=1e-6)[:, None]


@dataclass(frozen=True)
class Pieces:
    """The three functions a quantiser is made of: notebook 03 puts a reader's in their place."""

    nearest: Callable[[Tensor, Tensor], Tensor] = nearest_code
    through: Callable[[Tensor, Tensor], Tensor] = straight_through
    move: Callable[..., tuple[Tensor, Tensor, Tensor]] = move_codes


PIECES = Pieces()


class GradientCodebook(nn.Module):
    """The codebook of the VQ-VAE paper: codes are parameters, pulled to the vectors they serve."""

    def __init__(
        self, config: TokenizerConfig, commitment: float = 0.25, pieces: Pieces = PIECES
    ) -> None:
        super().__init__()
        self.commitment, self.pieces = commitment, pieces
        self.codebook = nn.Parameter(torch.randn(config.codes, config.dim))

    def forward(self, z: Tensor) -> Quantized:
        """Quantise z (..., dim); the loss is ||sg(z) - e||^2 + beta ||z - sg(e)||^2, a mean."""
        tokens = self.pieces.nearest(z.detach(), self.codebook.detach())
        z_q = self.codebook[tokens]
        loss = F.mse_loss(z_q, z.detach()) + self.commitment * F.mse_loss(z, z_q.detach())
        return Quantized(self.pieces.through(z, z_q), tokens, loss)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Code vectors (..., dim) of tokens (...)."""
        return self.codebook[tokens]


class EMACodebook(nn.Module):
    """A codebook moved by running averages: k-means on the stream of minibatches.

    Each code keeps a running count n_k of the vectors it was nearest to and a running sum m_k of
    them; e_k = m_k / n_k is their mean, the M step of k-means with forgetting. A code that almost
    no vector chooses is dead; it restarts at a vector of the present batch.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        decay: float = 0.99,
        commitment: float = 0.25,
        restart_below: float = 0.05,
        pieces: Pieces = PIECES,
    ) -> None:
        super().__init__()
        self.decay, self.commitment, self.restart_below = decay, commitment, restart_below
        self.pieces = pieces
        codebook = torch.randn(config.codes, config.dim)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(config.codes))
        self.register_buffer("sums", codebook.clone())

    def forward(self, z: Tensor) -> Quantized:
        """Quantise z (..., dim), loss: the commitment; in training mode the codebook moves."""
        tokens = self.pieces.nearest(z.detach(), self.codebook)
        z_q = self.codebook[tokens]
        if self.training:
            self._move(z.detach().flatten(0, -2), tokens.flatten())
        loss = self.commitment * F.mse_loss(z, z_q)
        return Quantized(self.pieces.through(z, z_q), tokens, loss)

    @torch.no_grad()
    def _move(self, z: Tensor, tokens: Tensor) -> None:
        moved = self.pieces.move(self.counts, self.sums, z, tokens, self.decay)
        for mine, new in zip((self.counts, self.sums, self.codebook), moved, strict=True):
            mine.copy_(new)
        dead = torch.nonzero(self.counts < self.restart_below * self.counts.mean())[:, 0]
        if len(dead):
            # Evenly spaced vectors of a random batch are a random choice that needs no generator.
            chosen = z[torch.linspace(0, len(z) - 1, len(dead), device=z.device).long()]
            self.codebook[dead] = chosen
            self.counts[dead] = self.counts.mean()
            self.sums[dead] = chosen * self.counts.mean()

    def lookup(self, tokens: Tensor) -> Tensor:
        """Code vectors (..., dim) of tokens (...)."""
        return self.codebook[tokens]


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023): round each number to one of a few levels.

    The codebook is the grid of all combinations, so that no code has to be learned or can die, and
    there is no further loss.
    """

    def __init__(self, config: TokenizerConfig, pieces: Pieces = PIECES) -> None:
        super().__init__()
        self.pieces = pieces
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        places = torch.cat([torch.ones(1, dtype=torch.int64), levels.cumprod(0)[:-1]])
        self.register_buffer("places", places, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Squash z (..., dim) so that rounding gives exactly `levels` integers around 0."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def forward(self, z: Tensor) -> Quantized:
        """Quantise z (..., dim)."""
        bounded = self.bound(z)
        integers = self.pieces.through(bounded, bounded.round())
        tokens = ((integers.detach().round().long() + self.levels // 2) * self.places).sum(-1)
        return Quantized(integers / (self.levels // 2), tokens, z.new_zeros(()))

    def lookup(self, tokens: Tensor) -> Tensor:
        """Code vectors (..., dim) of tokens (...)."""
        digits = tokens[..., None] // self.places % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)


QUANTIZERS = {"ema": EMACodebook, "gradient": GradientCodebook, "fsq": FSQ}

TOKENIZER = TokenizerConfig()
TOKENIZER_16 = TokenizerConfig(side=4)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    ]


class Residual(nn.Module):
    """x + a 3x3 and a 1x1 convolution of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(channels, channels), nn.Conv2d(channels, channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) to maps of the same shape."""
        return maps + self.body(maps)


class Tokenizer(nn.Module):
    """Pictures (B, 3, 28, 28) in [-1, 1] to words (B, tokens) and back."""

    def __init__(self, config: TokenizerConfig = TOKENIZER, pieces: Pieces = PIECES) -> None:
        super().__init__()
        self.config = config
        width, deep = config.width, config.deep
        coarse = config.side == 4
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 12, 14, 14): cheaper than a convolution at side 28
            *_conv(12, width),
            Residual(width),
            *_conv(width, deep, stride=2),  # side 7
            *(_conv(deep, deep, stride=2) if coarse else []),  # side 4
            Residual(deep),
            Residual(deep),
            nn.Conv2d(deep, config.dim, 1),
        )
        self.quantizer = QUANTIZERS[config.quantizer](config, pieces=pieces)
        self.decoder = nn.Sequential(
            nn.Conv2d(config.dim, deep, 1),
            Residual(deep),
            *([nn.Upsample(7), *_conv(deep, deep)] if coarse else []),
            Residual(deep),
            Residual(deep),
            nn.Conv2d(deep, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),  # side 14
            nn.BatchNorm2d(width),
            nn.SiLU(),
            Residual(width),
            Residual(width),
            Residual(width),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),  # side 28
        )

    def latents(self, images: Tensor) -> Tensor:
        """The encoder's vectors before quantisation: (B, side, side, dim)."""
        return self.encoder(images).permute(0, 2, 3, 1)

    def paint(self, vectors: Tensor) -> Tensor:
        """Pictures (B, 3, 28, 28), not yet clamped, from code vectors (B, side, side, dim)."""
        return self.decoder(vectors.permute(0, 3, 1, 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """The reconstruction of `images`, not yet clamped, and what the quantiser made of them."""
        quantized = self.quantizer(self.latents(images))
        return self.paint(quantized.vectors), quantized

    def encode(self, images: Tensor) -> Tensor:
        """The words of pictures: int64 (B, tokens), row by row. Never moves the codebook."""
        codes = self.latents(images)
        if isinstance(self.quantizer, FSQ):
            return self.quantizer(codes).tokens.flatten(1)
        return self.quantizer.pieces.nearest(codes, self.quantizer.codebook).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures (B, 3, 28, 28) in [-1, 1] from words (B, tokens).

        Raises ValueError for another number of words or a word out of range.
        """
        side = self.config.side
        if tokens.ndim != 2 or tokens.shape[1] != side**2:
            raise ValueError(
                f"a picture is {side**2} words, so tokens must be (B, {side**2}); "
                f"got {tuple(tokens.shape)}."
            )
        # On the meta device there are no values to look at.
        if tokens.device.type != "meta" and len(tokens):
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.config.codes:
                raise ValueError(
                    f"words are numbers from 0 to {self.config.codes - 1}; got {low} to {high}."
                )
        vectors = self.quantizer.lookup(tokens.unflatten(1, (side, side)))
        return self.paint(vectors).clamp(-1, 1)


def perplexity(tokens: Tensor, codes: int) -> float:
    """How many words are in use: exp of the entropy of the words' frequencies, 1 to `codes`."""
    shares = torch.bincount(tokens.flatten(), minlength=codes).double() / tokens.numel()
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))
