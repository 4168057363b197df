"""What the words of a tokenizer mean: how often each is used, where, and what it paints."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgen_course.models.tokenizer import Tokenizer

PIXELS = 28


@torch.no_grad()
def encode_all(model: Tokenizer, images: Tensor, batch: int = 250) -> Tensor:
    """Words (N, tokens) of any number of pictures (N, 3, 28, 28)."""
    return torch.cat([model.encode(part) for part in images.split(batch)])


def word_shares(tokens: Tensor, codes: int) -> Tensor:
    """Share of all places that each word fills: float64 (codes,), adding up to 1."""
    return torch.bincount(tokens.flatten(), minlength=codes).double() / tokens.numel()


def word_map(tokens: Tensor, word: int) -> Tensor:
    """How often a word stands at each place: share of pictures (side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return (tokens == word).double().mean(0).view(side, side)


def word_places(tokens: Tensor, word: int, limit: int, seed: int = 0) -> Tensor:
    """Up to `limit` places of a word, one a picture while pictures last: int64 (n, 2).

    Each row is (picture, place); a random choice that a seed fixes. Empty for an unused word.
    """
    places = torch.nonzero(tokens == word)
    generator = torch.Generator().manual_seed(seed)
    places = places[torch.randperm(len(places), generator=generator)]
    first = torch.ones(len(places), dtype=torch.bool)
    seen: set[int] = set()
    for index, picture in enumerate(places[:, 0].tolist()):
        first[index] = picture not in seen
        seen.add(picture)
    return torch.cat([places[first], places[~first]])[:limit]


def word_patches(images: Tensor, places: Tensor, side: int, margin: int = 0) -> Tensor:
    """The pixels at places (n, 2) of pictures (N, 3, 28, 28): (n, 3, s, s).

    A place is a square of 28 / side pixels; `margin` adds so many around it, and repeats the edge
    where the picture ends.
    """
    cell = PIXELS // side
    padded = torch.nn.functional.pad(images, (margin,) * 4, mode="replicate") if margin else images
    size = cell + 2 * margin
    rows, columns = places[:, 1] // side * cell, places[:, 1] % side * cell
    cut = [
        padded[i, :, top : top + size, left : left + size]
        for i, top, left in zip(places[:, 0].tolist(), rows.tolist(), columns.tolist(), strict=True)
    ]
    return torch.stack(cut) if cut else images.new_zeros(0, images.shape[1], size, size)


@torch.no_grad()
def change_of_word(model: Tokenizer, tokens: Tensor, place: int, words: Tensor) -> Tensor:
    """How far each pixel moves when one word is replaced: (28, 28), a mean over replacements.

    tokens (1, tokens); `words` (n,) are put at `place` one after another. Root mean square over
    channels and replacements, of pixels in [0, 1].
    """
    changed = tokens.repeat(len(words), 1)
    changed[:, place] = words
    difference = (model.decode(changed) - model.decode(tokens)) / 2
    return difference.square().mean((0, 1)).sqrt()


def squares_of(images: Tensor, side: int) -> Tensor:
    """The places' pixels of pictures (N, C, 28, 28): (N, side * side, C, cell * cell)."""
    cell = PIXELS // side
    cut = torch.nn.functional.unfold(images, cell, stride=cell)  # (N, C * cell * cell, T)
    return cut.mT.unflatten(2, (images.shape[1], cell * cell))


def busy_squares(images: Tensor, side: int, deviation: float = 0.05) -> Tensor:
    """Which places hold more than plain colour: bool (N, side * side).

    Those whose pixels deviate by more than `deviation` (in [-1, 1], a mean over channels).
    """
    return squares_of(images, side).std(3).mean(2) > deviation


def explained_by_word(
    images: Tensor, tokens: Tensor, codes: int, places: Tensor | None = None
) -> float:
    """How much a word alone says about its own pixels: share of their variance, at most 1.

    images (N, 3, 28, 28) and their words (N, T). Each square is compared with the mean of all
    squares of the same word; 1 would mean that a word always stands for the same pixels. `places`,
    bool (N, T), picks the squares that are compared.
    """
    patches = squares_of(images, round(tokens.shape[1] ** 0.5)).flatten(2).flatten(0, 1)
    words = tokens.flatten()
    n = torch.bincount(words, minlength=codes).clamp(min=1)[:, None]
    means = patches.new_zeros(codes, patches.shape[1]).index_add(0, words, patches) / n
    chosen = slice(None) if places is None else places.flatten()
    within = (patches - means[words])[chosen].square().sum()
    return 1 - float(within / (patches[chosen] - patches[chosen].mean(0)).square().sum())
