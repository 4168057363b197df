"""Draw with the masked model: many tokens at once, in a few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.checks import checked_words
from fastgen_course.sampling.gpt import pick

CHUNK = 256
Schedule = Callable[[int, int, int], int]  # (step, steps, tokens) -> tokens still hidden

# How the shipped masked model draws, wherever it is scored or shown:
# `sample_masked(model, captions, **MASKED_SAMPLING)`. Chosen with `judge_train` from the grid that
# `python -m fastgen_course.training.masked_records sampling` records.
MASKED_SAMPLING: Mapping[str, float] = MappingProxyType(
    {"steps": 8, "temperature": 1.0, "choice_temperature": 8.0, "guidance": 4.0}
)


def tokens_left(step: int, steps: int, tokens: int) -> int:
    """How many tokens are still hidden after step 1 to `steps`: N cos(pi/2 step/steps), rounded.

    The cosine reveals few tokens first, when each is least certain (Chang et al. 2022).
    """
    if step >= steps:
        return 0
    return min(tokens - 1, round(tokens * math.cos(math.pi / 2 * step / steps)))


def tokens_left_evenly(step: int, steps: int, tokens: int) -> int:
    """As `tokens_left`, with as many tokens revealed at every step, as nearly as it goes."""
    return tokens - round(tokens * min(step, steps) / steps)


class MaskedStep(NamedTuple):
    """Where a drawing stands after one step.

    tokens: int64 (B, image_tokens); hidden ones hold the step's guess, which the next step forgets.
    hidden: bool (B, image_tokens), what the next step draws anew.
    confidence: float (B, image_tokens), log-probability of the guess, plus its Gumbel noise; the
        smallest stay hidden. Infinite for what was known before.
    """

    tokens: Tensor
    hidden: Tensor
    confidence: Tensor


@torch.no_grad()
def sample_masked(
    model: MaskedModel,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    steps: int = 8,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    choice_temperature: float = 4.5,
    guidance: float = 1.0,
    schedule: Schedule = tokens_left,
    start: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """Fill in hidden tokens, the most confident first (MaskGIT, Chang et al. 2022, algorithm 1).

    Args:
        model: a masked model.
        captions: texts, or their words int64 (B, L).
        noise: uniform numbers (B, 2, steps, image_tokens) in [0, 1): those that pick tokens and
            those that disturb their confidence; drawn from `generator` when not given.
        generator: the source of randomness (CPU); None takes torch's own.
        chunk: pictures drawn at once.
        steps: forwards of the model; each reveals the tokens it is surest of (`tokens_left`).
        temperature, top_k, top_p: see `pick`.
        choice_temperature: how much Gumbel noise joins the log-confidence, falling to 0 at the last
            step; 0 always reveals the surest tokens, which draws the same few pictures.
        guidance: s in s log p(t | caption) + (1 - s) log p(t); 1 is none, any other value doubles
            the forwards.
        schedule: `schedule(step, steps, tokens)` tokens are still hidden after a step.
        start: int64 (B, image_tokens), tokens to begin with; None hides all of them.
        hidden: bool (B, image_tokens), which of `start` to draw anew.

    Returns:
        Tokens int64 (B, image_tokens).

    Raises `CaptionError` for a caption that cannot be read, and ValueError for no steps, noise of
    another shape, or a `start` without `hidden`.
    """
    n = model.config.image_tokens
    words = checked_words(captions)
    noise = _checked_noise(noise, (len(words), 2, steps, n), generator)
    if (start is None) != (hidden is None):
        raise ValueError("give start and hidden together: the tokens and which of them to draw.")
    if start is None:
        start = torch.zeros(len(words), n, dtype=torch.int64)
        hidden = torch.ones(len(words), n, dtype=torch.bool)
    settings = (temperature, top_k, top_p, choice_temperature, guidance, schedule)
    model.eval()
    device = next(model.parameters()).device
    result = []
    for rows in torch.arange(len(words)).split(chunk):
        inputs = (x[rows].to(device) for x in (words, noise, start, hidden))
        *_, last = _steps(model, *inputs, *settings)
        result.append(last.tokens)
    return torch.cat(result)


def iterate_masked(
    model: MaskedModel,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    steps: int = 8,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    choice_temperature: float = 4.5,
    guidance: float = 1.0,
    schedule: Schedule = tokens_left,
) -> Iterator[MaskedStep]:
    """The drawing of `sample_masked` step by step, as it is made; arguments as there."""
    n = model.config.image_tokens
    words = checked_words(captions)
    noise = _checked_noise(noise, (len(words), 2, steps, n), generator)
    device = next(model.parameters()).device
    start = torch.zeros(len(words), n, dtype=torch.int64, device=device)
    hidden = torch.ones_like(start, dtype=torch.bool)
    settings = (temperature, top_k, top_p, choice_temperature, guidance, schedule)
    model.eval()
    return _steps(model, words.to(device), noise.to(device), start, hidden, *settings)


def replay_masked(*arguments: Any, **settings: Any) -> list[MaskedStep]:
    """Every step of a finished drawing; arguments as for `iterate_masked`."""
    return list(iterate_masked(*arguments, **settings))


@torch.no_grad()
def draw_masked_images(
    model: MaskedModel,
    tokenizer: Tokenizer,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: float | int | None,
) -> Tensor:
    """`sample_masked`, painted: images (B, 3, 28, 28) in [-1, 1].

    `settings` are those of `sample_masked` (steps, temperature, guidance, ...); those of
    MASKED_SAMPLING hold for what is not given.
    """
    tokens = sample_masked(model, captions, noise, generator, **{**MASKED_SAMPLING, **settings})
    return torch.cat([tokenizer.eval().decode(part) for part in tokens.split(CHUNK)])


def _checked_noise(
    noise: Tensor | None, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    steps = shape[2]
    if steps < 1:
        raise ValueError(f"drawing takes at least one step, got {steps}.")
    if noise is None:
        return torch.rand(shape, generator=generator)
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}.")
    return noise


@torch.no_grad()
def _steps(
    model: MaskedModel,
    caption: Tensor,
    uniform: Tensor,
    tokens: Tensor,
    unknown: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float,
    choice_temperature: float,
    guidance: float,
    schedule: Schedule,
) -> Iterator[MaskedStep]:
    """One batch, step by step; see `sample_masked`."""
    steps = uniform.shape[2]
    at_first = unknown.sum(1).tolist()
    for step in range(steps):
        logits = model.image_logits(caption, tokens, unknown)
        if guidance != 1.0:
            free = model.image_logits(torch.zeros_like(caption), tokens, unknown)
            logits = guidance * logits.log_softmax(-1) + (1 - guidance) * free.log_softmax(-1)
        chosen = pick(logits, uniform[:, 0, step], temperature, top_k, top_p)
        tokens = torch.where(unknown, chosen, tokens)
        confidence = logits.log_softmax(-1).gather(2, chosen[..., None])[..., 0]
        gumbel = -(-uniform[:, 1, step].clamp(1e-9, 1 - 1e-7).log()).log()
        confidence = confidence + choice_temperature * (1 - (step + 1) / steps) * gumbel
        # What was known stays known; of the rest the least confident are hidden again.
        confidence = confidence.masked_fill(~unknown, torch.inf)
        left = torch.tensor([schedule(step + 1, steps, k) for k in at_first])
        rank = confidence.argsort(1).argsort(1)
        unknown = rank < left.to(tokens.device)[:, None]
        yield MaskedStep(tokens, unknown, confidence)
