"""Draw with the masked model: many tokens at once, in a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.models.masked import MaskedModel
from fastgen_course.sampling.checks import checked_words
from fastgen_course.sampling.gpt import pick

CHUNK = 256


def tokens_left(step: int, steps: int, tokens: int) -> int:
    """How many tokens are still hidden after step 1 to `steps`: N cos(pi/2 step/steps), rounded.

    The cosine reveals few tokens first, when each is least certain (Chang et al. 2022).
    """
    if step >= steps:
        return 0
    return min(tokens - 1, round(tokens * math.cos(math.pi / 2 * step / steps)))


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
        start: int64 (B, image_tokens), tokens to begin with; None hides all of them.
        hidden: bool (B, image_tokens), which of `start` to draw anew.

    Returns:
        Tokens int64 (B, image_tokens).

    Raises `CaptionError` for a caption that cannot be read, and ValueError for no steps, noise of
    another shape, or a `start` without `hidden`.
    """
    words = checked_words(captions)
    n = model.config.image_tokens
    if steps < 1:
        raise ValueError(f"drawing takes at least one step, got {steps}.")
    if (start is None) != (hidden is None):
        raise ValueError("give start and hidden together: the tokens and which of them to draw.")
    shape = (len(words), 2, steps, n)
    if noise is None:
        noise = torch.rand(shape, generator=generator)
    elif tuple(noise.shape) != shape:
        raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}.")
    if start is None:
        start = torch.zeros(len(words), n, dtype=torch.int64)
        hidden = torch.ones(len(words), n, dtype=torch.bool)
    model.eval()
    device = next(model.parameters()).device
    result = []
    for rows in torch.arange(len(words)).split(chunk):
        tokens, unknown = start[rows].to(device), hidden[rows].to(device)
        caption, uniform = words[rows].to(device), noise[rows].to(device)
        at_first = unknown.sum(1)
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
            left = torch.tensor([tokens_left(step + 1, steps, int(k)) for k in at_first])
            rank = confidence.argsort(1).argsort(1)
            unknown = rank < left.to(device)[:, None]
        result.append(tokens)
    return torch.cat(result)
