"""Faster ways to draw from one language model: fewer forwards one after another, or less in each.

These and those in speculative.py and groups.py have one signature, (model, captions, noise,
generator, ...) -> `Drawn`, and count what they compute. Plain and cached decoding give the same
tokens for the same noise; wavefront decoding draws from another distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.models.gpt import GPT
from fastgen_course.models.transformer import KVCache
from fastgen_course.sampling.drawing import CHUNK, Drawn, Log, Step, Watch, draw_rows
from fastgen_course.sampling.gpt import Reader, pick


class PlacedReader:
    """A GPT that has read a caption; image tokens are then read at any places, in any order.

    Token -1 is the last word of the caption: the prefill leaves it out, so that reading from -1
    gives the logits of token 0 like those of every other.
    """

    def __init__(self, model: GPT, words: Tensor) -> None:
        self.model, self.config = model, model.config
        config, (batch, length) = model.config, words.shape
        sign = torch.full((batch, 1), config.draw, dtype=torch.int64, device=words.device)
        ids = torch.cat([sign, words], 1)
        self.last_id, self.first_place = ids[:, -1:], 1 + length
        size = 1 + length + config.image_tokens
        self.cache = KVCache(config, batch, size, model.embedding.weight)
        self.forwards = self.token_forwards = 0
        if length:
            # A caption's words stand at positions 1, 2, .., which are also their places.
            places = torch.arange(length, device=words.device).expand(batch, -1)
            self._states(ids[:, :-1], places, places)

    def read(self, tokens: Tensor, first: Tensor) -> Tensor:
        """Read tokens (B, T) at consecutive places from `first` (B,), and say what follows each.

        Returns logits (B, T, codes). A place behind the picture's end is read as its last one,
        whose keys nobody needs.
        """
        index = first[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        return self.read_at(tokens, index.clamp(max=self.config.image_tokens - 1))

    def read_at(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Read tokens (B, T) of the picture's places `index` (B, T), -1 for the caption's end."""
        config = self.config
        ids = torch.where(index < 0, self.last_id, config.first_code + tokens)
        positions = torch.where(
            index < 0, self.first_place - 1, config.first_image_position + index
        )
        states = self._states(ids, positions, self.first_place + index)
        return states @ self.model.head.weight[config.first_code :][: config.codes].T

    def _states(self, ids: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        self.forwards += 1
        self.token_forwards += ids.numel()
        return self.model.states(ids, positions, cache=self.cache, places=places)


def draw_plain(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    cached: bool = False,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """The textbook loop: for every token, read the caption and all tokens so far again.

    Args of this and the other samplers:
        model: a GPT.
        captions: texts, or their words int64 (B, L).
        noise: uniform numbers (B, image_tokens) in [0, 1), one a token; drawn from `generator`
            when not given. The speculative methods take further numbers from `generator`.
        generator: the source of randomness (CPU); None takes torch's own.
        chunk: pictures drawn at once.
        watch: called with every `Step` of the first row as it ends, to time it.
        settings: temperature, top_k, top_p of `pick`.

    Raises `CaptionError` for a caption that cannot be read and ValueError for bad noise.
    """

    def body(words: Tensor, uniform: Tensor, log: Log) -> Tensor:
        reader = Reader(model, words, cached)
        tokens = torch.empty(uniform.shape, dtype=torch.int64, device=uniform.device)
        for place in range(tokens.shape[1]):
            if place:
                reader.read(tokens[:, place - 1])
            tokens[:, place] = pick(reader.logits, uniform[:, place], **settings)
            log.note(Step((place,)))
        log.count(reader.forwards, reader.token_forwards)
        return tokens

    return draw_rows(model, captions, noise, generator, chunk, watch, body)


def draw_cached(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """The same tokens, reading each once: keys and values of what was read are kept."""
    return draw_plain(
        model, captions, noise, generator, chunk, cached=True, watch=watch, **settings
    )


def draw_wavefront(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    delay: int = 2,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """Start a row of the grid `delay` tokens after the row above, all rows drawn side by side.

    (ZipAR, He et al. 2024.) A token then does not see the rest of the row above, so that the
    distribution is another one, except at a delay of a whole row, which is `draw_cached`. A row's
    first token follows the end of the row above; until that is drawn, the row's newest token
    stands in for it.

    Raises ValueError unless `delay` is 1 to the grid's side.
    """
    side = round(model.config.image_tokens**0.5)
    if not 1 <= delay <= side:
        raise ValueError(f"a row starts 1 to {side} tokens after the one above, not {delay}.")

    def body(words: Tensor, uniform: Tensor, log: Log) -> Tensor:
        reader = PlacedReader(model, words)
        tokens = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        fresh: list[int] = []  # drawn in the step before, not yet read
        for step in range((side - 1) * delay + side):
            wanted = [
                row * side + step - row * delay
                for row in range(side)
                if 0 <= step - row * delay < side
            ]
            given = tokens.clone()
            read = sorted({*fresh, *(place - 1 for place in wanted)})
            for place in wanted:
                if place and place % side == 0 and place - 1 not in fresh:
                    given[:, place - 1] = tokens[:, place - 1 - side + delay]  # the stand-in
            index = torch.tensor(read, device=tokens.device).expand(len(tokens), -1)
            logits = reader.read_at(given[:, read], index)
            for place in wanted:
                chosen = logits[:, read.index(place - 1)]
                tokens[:, place] = pick(chosen, uniform[:, place], **settings)
            fresh = wanted
            log.note(Step(tuple(wanted)))
        log.count(reader.forwards, reader.token_forwards)
        return tokens

    return draw_rows(model, captions, noise, generator, chunk, watch, body)
