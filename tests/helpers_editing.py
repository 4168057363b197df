"""A studio whose models are exact: what an edit must do is then known to the last pixel.

A picture is 49 tiles of 4x4 pixels, one a token. Tokens 0 to 4 are the five labels plus one, 0 for
a slot that does not apply; token 5 is which garment of its kind this is; the rest its cloth. The
studio's own code does the rest.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import (
    EMPTY,
    FREE,
    MAX_WORDS,
    SLOTS,
    VOCABULARY,
    Attributes,
    attributes_of,
    labels_of,
    parse,
)
from fastgen_course.sampling.studio import Studio

CODES, PLACES, SLOT_COUNT = 512, 49, len(SLOTS)
INPAINTED = 500  # what the stand-in for the masked model draws, plus the caption's colour


class TileTokenizer(nn.Module):
    """Token t is a tile of red t // 32 and green t % 32, exactly kept by 8 bits a channel."""

    config = SimpleNamespace(side=7, tokens=PLACES, codes=CODES)

    def encode(self, images: Tensor) -> Tensor:
        tiles = ((images + 1) * 127.5).round().long()[:, :, ::4, ::4].flatten(2)
        return (tiles[:, 0] // 16 * 32 + tiles[:, 1] // 8).clamp(0, CODES - 1)

    def decode(self, tokens: Tensor) -> Tensor:
        channels = torch.stack([tokens // 32 * 16, tokens % 32 * 8, torch.zeros_like(tokens)], 1)
        tiles = channels.view(-1, 3, 7, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return tiles / 127.5 - 1


class ExactEditor(nn.Module):
    """Changes the labels that an instruction names and nothing else."""

    def forward(self, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        new = tokens.clone()
        for row, said in zip(new, words.tolist(), strict=True):
            asked = parse(" ".join(VOCABULARY[w] for w in said if w))
            labels = labels_of([asked])[0]
            row[:SLOT_COUNT] = torch.where(labels == FREE, row[:SLOT_COUNT], labels + 1)
            if asked.garment == "nothing":
                row[[0, 1, 4]] = 0
                row[5:] = 0
        masks = torch.full((len(tokens), 28, 28), -1.0)
        return nn.functional.one_hot(new, CODES).float(), masks


class ExactMasked(nn.Module):
    """Draws every hidden place as INPAINTED plus the caption's colour."""

    config = SimpleNamespace(image_tokens=PLACES)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def image_logits(self, words: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
        assert words.shape[1] == MAX_WORDS
        logits = torch.zeros(len(words), PLACES, CODES)  # without a caption: anything
        for row, said in zip(logits, words.tolist(), strict=True):
            if any(said):
                asked = parse(" ".join(VOCABULARY[w] for w in said if w))
                row[:, INPAINTED + 1 + labels_of([asked])[0, 1]] = 1e4
        return logits


class ExactStudio(Studio):
    """A `Studio` of these models; `asked` are the captions that it drew."""

    def __init__(self) -> None:
        self.tokenizer, self.gpt = TileTokenizer(), None
        self.editor, self.masked = ExactEditor(), ExactMasked()
        self.asked: list[str] = []

    def draw(self, captions, generator=None) -> Tensor:
        self.asked += captions
        labels = labels_of([parse(caption) for caption in captions])
        for column, (slot, values) in enumerate(SLOTS.items()):
            choices = EMPTY if slot == "garment" else len(values)
            free = torch.randint(choices, (len(labels),), generator=generator)
            applies = (labels[:, 2] != EMPTY) | (slot == "background")
            labels[:, column] = torch.where(
                (labels[:, column] == FREE) & applies, free, labels[:, column]
            )
        tokens = torch.randint(300, (len(labels), PLACES), generator=generator)
        tokens[:, :SLOT_COUNT] = labels + 1
        return self.paint(tokens)

    def describe(self, images: Tensor) -> list[Attributes]:
        labels = self.encode(images)[:, :SLOT_COUNT] - 1
        limits = torch.tensor([len(values) - 1 for values in SLOTS.values()])
        labels = torch.minimum(labels, limits).clamp(min=FREE)
        empty = labels[:, 2] == EMPTY
        labels[empty[:, None] & torch.tensor([[True, True, False, False, True]])] = FREE
        lacking = (labels == FREE) & ~empty[:, None]
        return attributes_of(torch.where(lacking, 0, labels))


def garment(rooms: ExactStudio, image: Tensor) -> list[int]:
    """Which garment of its kind a picture shows: what an edit has to keep."""
    return rooms.encode(image.view(1, 3, 28, 28))[0, SLOT_COUNT:].tolist()
