"""Weights as numbers of a small codebook (k-means), and the numbers as a Huffman code.

Deep Compression (Han, Mao and Dally 2016, arXiv:1510.00149): a codebook puts its values where the
weights are, a grid puts them at equal distances. Huffman then spends fewer bits on frequent ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgen_course.compression.affine import QuantizationError, check_finite
from fastgen_course.compression.folding import FoldedGenerator
from fastgen_course.compression.quantized import LAYERS

ROUNDS = 30
STARTS = ("linear", "quantiles")


@dataclass(frozen=True)
class Codebook:
    """A tensor's codebook: `centres` (k,), and `codes` int64 of the tensor's shape."""

    centres: Tensor
    codes: Tensor

    def values(self) -> Tensor:
        """The tensor with every entry replaced by its centre."""
        return self.centres[self.codes]


def kmeans(x: Tensor, k: int, rounds: int = ROUNDS, start: str = "linear") -> Codebook:
    """Lloyd's algorithm on the entries of x: assign to the nearest centre, move to the mean.

    In one dimension the nearest centre is found by bisection between neighbours' midpoints, and
    the square error falls with every half of a round. Starts: "linear", at equal distances (Han et
    al. found that it keeps the few large weights); "quantiles". No randomness. Raises
    `QuantizationError` for k below 2 or above the number of entries, and for NaN or infinity.
    """
    check_finite(x, "the weight")
    if isinstance(k, bool) or not isinstance(k, int) or not 2 <= k <= x.numel():
        raise QuantizationError(f"k must be from 2 to {x.numel()} centres, got {k!r}.")
    if start not in STARTS:
        raise QuantizationError(f"start must be {' or '.join(STARTS)}, got {start!r}.")
    flat = x.detach().flatten().double()
    if start == "linear":
        centres = torch.linspace(float(flat.min()), float(flat.max()), k, dtype=torch.float64)
    else:
        ordered = flat.sort().values
        picks = (torch.arange(k) + 0.5) / k * (len(ordered) - 1)
        centres = ordered[picks.round().long()]
    for _ in range(rounds):
        codes = _nearest(flat, centres)
        counts = torch.bincount(codes, minlength=k)
        sums = torch.zeros(k, dtype=torch.float64).index_add_(0, codes, flat)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres).sort().values
        if torch.equal(moved, centres):
            break
        centres = moved
    codes = _nearest(flat, centres).view(x.shape)
    return Codebook(centres.to(x.dtype), codes)


def _nearest(flat: Tensor, centres: Tensor) -> Tensor:
    return torch.bucketize(flat, (centres[1:] + centres[:-1]) / 2)


def huffman_lengths(counts: Sequence[int]) -> list[int]:
    """The length in bits of each symbol's code (Huffman 1952); 0 for one that never occurs.

    The two rarest subtrees are joined until one is left; each join puts a bit before their codes. A
    single symbol gets one bit, since nothing can be said in none. Raises `QuantizationError` for no
    symbol at all and for a negative count.
    """
    if not any(counts) or min(counts) < 0:
        raise QuantizationError("counts must hold at least one symbol, and none below 0.")
    lengths = [0] * len(counts)
    heap = [(count, symbol, (symbol,)) for symbol, count in enumerate(counts) if count]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
        return lengths
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in first[2] + second[2]:
            lengths[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1], first[2] + second[2]))
    return lengths


@dataclass(frozen=True)
class CodebookSize:
    """Bits of one weight in a codebook.

    `plain`: every code at ceil(log2 k) bits; `huffman`: by its Huffman code; `table`: k centres of
    32 bits, and for Huffman the k lengths of 8 bits that a canonical code is rebuilt from.
    """

    plain: int
    huffman: int
    table: int
    lengths: int

    @property
    def plain_total(self) -> int:
        """Bits without Huffman, the codebook counted."""
        return self.plain + self.table

    @property
    def huffman_total(self) -> int:
        """Bits with Huffman, codebook and code lengths counted."""
        return self.huffman + self.table + self.lengths


def codebook_size(book: Codebook) -> CodebookSize:
    """What a codebook and its codes take."""
    k = len(book.centres)
    counts = torch.bincount(book.codes.flatten(), minlength=k).tolist()
    lengths = huffman_lengths(counts)
    return CodebookSize(
        plain=book.codes.numel() * (k - 1).bit_length(),
        huffman=sum(c * n for c, n in zip(counts, lengths, strict=True)),
        table=32 * k,
        lengths=8 * k,
    )


def codebook_generator(
    folded: FoldedGenerator, k: int, start: str = "linear"
) -> tuple[FoldedGenerator, dict[str, CodebookSize]]:
    """A copy whose layers' weights are of a codebook each, and what each layer takes."""
    copy, sizes = deepcopy(folded), {}
    for name in LAYERS:
        layer: nn.Module = getattr(copy, name)
        book = kmeans(layer.weight, k, start=start)
        layer.weight.data.copy_(book.values())
        sizes[name] = codebook_size(book)
    return copy, sizes


def generator_bytes(folded: FoldedGenerator, sizes: dict[str, CodebookSize]) -> dict[str, int]:
    """Bytes of the whole generator, {"plain", "huffman"}: codebooks, and float32 for the rest."""
    coded = {id(getattr(folded, name).weight) for name in LAYERS}
    rest = sum(4 * p.numel() for p in folded.parameters() if id(p) not in coded)
    return {
        "plain": rest + sum(-(-s.plain_total // 8) for s in sizes.values()),
        "huffman": rest + sum(-(-s.huffman_total // 8) for s in sizes.values()),
    }
