"""Guess and check: speculative and speculative Jacobi decoding, exact in distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.models.gpt import GPT
from fastgen_course.sampling.drawing import CHUNK, Drawn, Log, Step, Watch, draw_rows
from fastgen_course.sampling.fast import PlacedReader
from fastgen_course.sampling.gpt import cut_shares, first_above


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
    return first_above(shares.cumsum(-1), uniform)


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

    def body(words: Tensor, uniform: Tensor, log: Log) -> Tensor:
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
        log.count(large.forwards, large.token_forwards)
        log.count(small.forwards, small.token_forwards, draft=True)
        return tokens.tokens

    return draw_rows(model, captions, noise, generator, chunk, watch, body)


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

    def body(words: Tensor, uniform: Tensor, log: Log) -> Tensor:
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
        log.count(reader.forwards, reader.token_forwards)
        return tokens.tokens

    return draw_rows(model, captions, noise, generator, chunk, watch, body)


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
