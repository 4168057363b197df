"""What every fast sampler returns and counts, and the loop that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.models.transformer import Transformer
from fastgen_course.sampling.checks import checked_noise, checked_words

CHUNK = 256


class Step(NamedTuple):
    """One round of the first row of a batch: what was guessed, and what became of it."""

    settled: tuple[int, ...]  # places whose token is now final, in order
    accepted: tuple[int, ...] = ()  # of these, which a guess had right
    rejected: tuple[int, ...] = ()  # places where a guess was thrown away


class Drawn(NamedTuple):
    """Tokens, and what they cost.

    A forward of a batch counts once; a token-forward is one token of one row that a model read.
    """

    tokens: Tensor  # int64 (B, image_tokens)
    forwards: int
    token_forwards: int
    draft_forwards: int = 0
    draft_token_forwards: int = 0
    steps: tuple[Step, ...] = ()  # of the first row


Watch = Callable[[Step], None]


def rows_of_one_length(words: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N,) of one caption length each and their words (N, L), so that nothing is padded."""
    lengths = (words != 0).sum(1)
    for length in lengths.unique().tolist():
        for rows in torch.nonzero(lengths == length)[:, 0].split(chunk):
            yield rows, words[rows, :length]


class Log:
    """The steps of the first row, and what was read for all rows."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self.first = True  # whether the rows at hand hold the batch's first
        self.steps: list[Step] = []
        self.counts = [0, 0, 0, 0]

    def note(self, step: Step) -> None:
        """A round of the rows at hand has ended."""
        if self.first:
            self.steps.append(step)
            if self.watch:
                self.watch(step)

    def count(self, forwards: int, token_forwards: int, draft: bool = False) -> None:
        """The rows at hand are drawn: add what was read for them."""
        self.counts[2 * draft] += forwards
        self.counts[2 * draft + 1] += token_forwards


Body = Callable[[Tensor, Tensor, Log], Tensor]  # words (N, L), noise (N, T), log -> tokens


@torch.no_grad()
def draw_rows(
    model: Transformer,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None,
    generator: torch.Generator | None,
    chunk: int,
    watch: Watch | None,
    body: Body,
) -> Drawn:
    """Check the input and run `body` for the rows of one caption length after the other."""
    words = checked_words(captions)
    noise = checked_noise(noise, (len(words), model.config.image_tokens), generator)
    if model.training:  # setting every module takes longer than a small forward
        model.eval()
    device = next(model.parameters()).device
    tokens = torch.empty(noise.shape, dtype=torch.int64, device=device)
    log = Log(watch)
    for rows, prompt in rows_of_one_length(words, chunk):
        log.first = bool(rows[0] == 0)
        tokens[rows] = body(prompt.to(device), noise[rows].to(device), log)
    return Drawn(tokens, *log.counts, tuple(log.steps))
