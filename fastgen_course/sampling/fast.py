"""Faster ways to draw from one language model: fewer forwards one after another, or less in each.

All have one signature, (model, captions, noise, generator, ...) -> `Drawn`, and count what they
compute. Plain and cached decoding give the same tokens for the same noise; speculative and
speculative Jacobi decoding the same distribution; wavefront decoding another one, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.models.gpt import GPT
from fastgen_course.models.transformer import KVCache
from fastgen_course.sampling.checks import checked_noise, checked_words
from fastgen_course.sampling.gpt import CHUNK, Reader, cut_shares, pick


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


def distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """The shares (..., K) from which `pick` draws: tempered, cut, and summing to 1."""
    if temperature < 0:
        raise ValueError(f"temperature is 0 (the likeliest token) or more, got {temperature}.")
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    kept, order = cut_shares(logits, temperature, top_k, top_p)
    return torch.zeros_like(kept).scatter_(-1, order, kept / kept.sum(-1, keepdim=True))


def draw_from(shares: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (...) from shares (..., K) that need not sum to 1, by uniform numbers (...)."""
    below = shares.cumsum(-1)
    return (below > uniform[..., None] * below[..., -1:]).to(torch.uint8).argmax(-1)


def acceptance(p: Tensor, q: Tensor) -> Tensor:
    """How often a guess from q (..., K) is accepted under p (..., K): sum of min(p, q).

    (Leviathan, Kalman and Matias 2023, theorem 3.5.)
    """
    return torch.minimum(p, q).sum(-1)


def expected_length(a: float, k: int) -> float:
    """Tokens that a round of k guesses settles on average when each is accepted with chance a.

    1 + a + ... + a^k = (1 - a^(k+1)) / (1 - a) (Leviathan et al. 2023, equation 1).
    """
    return float(k + 1) if a == 1 else (1 - a ** (k + 1)) / (1 - a)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """max(p - q, 0), from which a rejected guess is replaced; p itself where nothing is left."""
    rest = (p - q).clamp(min=0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)


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


def _groups(words: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N,) of one caption length each and their words (N, L), so that nothing is padded."""
    lengths = (words != 0).sum(1)
    for length in lengths.unique().tolist():
        for rows in torch.nonzero(lengths == length)[:, 0].split(chunk):
            yield rows, words[rows, :length]


class _Log:
    """The steps of the first row, and the readers whose forwards count."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self.first = True  # whether the rows at hand hold the batch's first
        self.steps: list[Step] = []
        self.counts = [0, 0, 0, 0]

    def note(self, step: Step) -> None:
        if self.first:
            self.steps.append(step)
            if self.watch:
                self.watch(step)

    def count(self, reader: Reader | PlacedReader, draft: bool = False) -> None:
        self.counts[2 * draft] += reader.forwards
        self.counts[2 * draft + 1] += reader.token_forwards


Body = Callable[[Tensor, Tensor, _Log], Tensor]  # words (N, L), noise (N, T), log -> tokens


@torch.no_grad()
def _draw(
    model: GPT,
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
    model.eval()
    device = next(model.parameters()).device
    tokens = torch.empty(noise.shape, dtype=torch.int64, device=device)
    log = _Log(watch)
    for rows, prompt in _groups(words, chunk):
        log.first = bool(rows[0] == 0)
        tokens[rows] = body(prompt.to(device), noise[rows].to(device), log)
    return Drawn(tokens, *log.counts, tuple(log.steps))


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

    def body(words: Tensor, uniform: Tensor, log: _Log) -> Tensor:
        reader = Reader(model, words, cached)
        tokens = torch.empty(uniform.shape, dtype=torch.int64, device=uniform.device)
        for place in range(tokens.shape[1]):
            if place:
                reader.read(tokens[:, place - 1])
            tokens[:, place] = pick(reader.logits, uniform[:, place], **settings)
            log.note(Step((place,)))
        log.count(reader)
        return tokens

    return _draw(model, captions, noise, generator, chunk, watch, body)


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

    def body(words: Tensor, uniform: Tensor, log: _Log) -> Tensor:
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
        log.count(reader)
        return tokens

    return _draw(model, captions, noise, generator, chunk, watch, body)


def draw_speculative(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    draft: GPT,
    guesses: int = 4,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """A small model guesses some tokens, the large one checks them in one forward.

    (Leviathan et al. 2023; Chen et al. 2023.) A guess t from q is kept with chance
    min(1, p(t) / q(t)); the first that is not is drawn again from max(p - q, 0), and behind guesses
    that were all kept the check has one token more. The tokens are distributed as without guesses.

    Raises ValueError for fewer than one guess or a draft with other words or tokens.
    """
    if guesses < 1:
        raise ValueError(f"the draft guesses at least one token at a time, not {guesses}.")
    if (draft.config.codes, draft.config.image_tokens) != (
        model.config.codes,
        model.config.image_tokens,
    ):
        raise ValueError("the draft must write the same image tokens as the model.")
    draft.eval()

    def body(words: Tensor, uniform: Tensor, log: _Log) -> Tensor:
        large, small = PlacedReader(model, words), PlacedReader(draft, words)
        tokens = _Settling(uniform)
        while tokens.left():
            guess, q = [tokens.last()], []
            for i in range(guesses):
                logits = small.read(guess[-1][:, None], tokens.count - 1 + i)[:, 0]
                q.append(distribution(logits, **settings))
                guess.append(draw_from(q[-1], _uniform(uniform, generator)))
            # Read the last guess too, so that nothing is missing if all are kept.
            small.read(guess[-1][:, None], tokens.count - 1 + guesses)
            logits = large.read(torch.stack(guess, 1), tokens.count - 1)
            p = distribution(logits, **settings)
            log.note(tokens.settle(torch.stack(guess[1:], 1), torch.stack(q, 1), p, generator))
        log.count(large)
        log.count(small, draft=True)
        return tokens.tokens

    return _draw(model, captions, noise, generator, chunk, watch, body)


def draw_jacobi(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    window: int = 8,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """The model is its own draft: it checks what it said one forward earlier, knowing less.

    (Speculative Jacobi decoding, Teng et al. 2024.) `window` tokens are guessed at once. A forward
    gives each of them a distribution that knows better tokens before it; the rule of
    `draw_speculative` keeps a prefix, and the others are guessed again from the new distributions.
    The tokens are distributed as without guesses.

    Raises ValueError for a window of fewer than one token.
    """
    if window < 1:
        raise ValueError(f"the window holds at least one token, not {window}.")

    def body(words: Tensor, uniform: Tensor, log: _Log) -> Tensor:
        reader = PlacedReader(model, words)
        tokens = _Settling(uniform)
        codes = model.config.codes
        q = torch.full((len(uniform), window, codes), 1 / codes, device=uniform.device)
        while tokens.left():
            guess = draw_from(q, _uniform(uniform, generator, window))
            read = torch.cat([tokens.last()[:, None], guess], 1)
            p = distribution(reader.read(read, tokens.count - 1), **settings)
            before = tokens.count.clone()
            log.note(tokens.settle(guess, q, p, generator))
            # Guess i + moved stood at place i + moved of this window; behind its end, the last
            # known distribution is the best guess.
            moved = (tokens.count - before)[:, None] + torch.arange(window, device=p.device)
            q = p.gather(1, moved.clamp(max=window)[..., None].expand(-1, -1, codes))
        log.count(reader)
        return tokens.tokens

    return _draw(model, captions, noise, generator, chunk, watch, body)


def _uniform(like: Tensor, generator: torch.Generator | None, *shape: int) -> Tensor:
    """Uniform numbers (B, *shape), drawn on the CPU."""
    return torch.rand((len(like), *shape), generator=generator).to(like.device)


class _Settling:
    """Tokens of which a growing prefix of each row is final; guesses are checked here."""

    def __init__(self, uniform: Tensor) -> None:
        self.uniform = uniform
        self.tokens = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        self.count = torch.zeros(len(uniform), dtype=torch.int64, device=uniform.device)

    def left(self) -> bool:
        return bool((self.count < self.tokens.shape[1]).any())

    def last(self) -> Tensor:
        """The newest final token of each row; of a row without any, whatever."""
        return self.tokens.gather(1, (self.count - 1).clamp(min=0)[:, None])[:, 0]

    def settle(
        self, guess: Tensor, q: Tensor, p: Tensor, generator: torch.Generator | None
    ) -> Step:
        """Keep what `p` accepts of the guesses, and one token more from the rest of p.

        Args:
            guess: int64 (B, k), drawn from q, for the k places that follow.
            q: (B, k, K); p: (B, k + 1, K), given the guesses before.
            generator: of the numbers that accept.
        """
        batch, k = guess.shape
        shares = [x.gather(2, guess[..., None])[..., 0] for x in (p[:, :k], q)]
        kept = _uniform(guess, generator, k) * shares[1] < shares[0]
        right = kept.to(torch.int64).cumprod(1).sum(1)  # (B,), length of the accepted prefix
        row = torch.arange(batch, device=guess.device)
        none = torch.zeros_like(q[:, :1])  # behind the last guess nothing is taken off p
        rest = residual(p[row, right], torch.cat([q, none], 1)[row, right])
        start, length = self.count, self.tokens.shape[1]
        # The token that ends the round is picked with the noise of its place, as the loop does it.
        places = (start + right).clamp(max=length - 1)
        extra = draw_from(rest, self.uniform[row, places])
        offered = torch.cat([guess, guess[:, :1]], 1).scatter(1, right[:, None], extra[:, None])
        index = start[:, None] + torch.arange(k + 1, device=guess.device)
        final = (index <= (start + right)[:, None]) & (index < length)
        rows = row[:, None].expand_as(index)
        self.tokens[rows[final], index[final]] = offered[final]
        self.count = (start + right + 1).clamp(max=length)
        first, n = int(start[0]), int(right[0])
        inside = range(first, min(first + k, length))
        return Step(
            settled=tuple(range(first, int(self.count[0]))),
            accepted=tuple(i for i in inside if i < first + n),
            rejected=tuple(i for i in inside if i >= first + n),
        )
