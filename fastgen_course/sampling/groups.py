"""Draw a picture in a few groups of tokens, in an order that is the same for every picture.

With the order fixed, the chain rule runs over groups G_1, G_2, .. of places,

    p(t | y) = prod_g p(t_G_g | t_G_1 .. t_G_g-1, y),

and a masked model gives every factor in one forward, as a product over the group's tokens. So what
a drawing had for a likelihood is known exactly, which drawing by confidence (`sample_masked`) does
not offer: there the choice of places depends on the tokens, and a policy gradient needs the
likelihood (training/masked_groups.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from fastgen_course.models.masked import MaskedModel, masked_inputs
from fastgen_course.sampling.checks import checked_words
from fastgen_course.sampling.drawing import CHUNK, Drawn, Log, Step, Watch, draw_rows
from fastgen_course.sampling.gpt import first_above, pick
from fastgen_course.sampling.masked import tokens_left


@cache  # asked for with every drawing
def halton_order(side: int) -> tuple[int, ...]:
    """The places of a grid, each far from those just before it (Besnier et al. 2025).

    Halton's sequence in bases 2 and 3 falls on the grid; a place counts when it is first hit.
    """
    places: dict[int, None] = {}
    index = 1
    while len(places) < side * side:
        row, column = (int(side * _radical_inverse(index, base)) for base in (2, 3))
        places.setdefault(row * side + column)
        index += 1
    return tuple(places)


def _radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored behind the point: 6 = 110 in base 2 is 0.011."""
    value, digit = 0.0, 1.0
    while index:
        digit /= base
        value += digit * (index % base)
        index //= base
    return value


def groups_of(tokens: int, steps: int) -> list[tuple[int, ...]]:
    """The places drawn in each of `steps` steps: few at first, by the cosine of `tokens_left`.

    Raises ValueError unless `tokens` is a square and `steps` is 1 to `tokens`.
    """
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"the places must fill a square grid; {tokens} do not.")
    if not 1 <= steps <= tokens:
        raise ValueError(f"a picture is drawn in 1 to {tokens} steps, not {steps}.")
    order = halton_order(side)
    ends = [0] + [tokens - tokens_left(step, steps, tokens) for step in range(1, steps + 1)]
    # The cosine may leave a step of many without a place of its own: each takes one at least.
    ends = [max(end, step) for step, end in enumerate(ends)]
    return [order[a:b] for a, b in itertools.pairwise(ends)]


def draw_groups(
    model: MaskedModel,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    steps: int = 4,
    watch: Watch | None = None,
    **settings: float | int | None,
) -> Drawn:
    """One forward a group, its tokens drawn side by side; arguments as for `fast.draw_plain`.

    The model is one that was taught these groups (`masked_groups`); any masked model can be asked.

    Raises `CaptionError` for a caption that cannot be read and ValueError for bad noise or steps.
    """
    groups = groups_of(model.config.image_tokens, steps)

    def body(words: Tensor, uniform: Tensor, log: Log) -> Tensor:
        tokens = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        hidden = torch.ones_like(tokens, dtype=torch.bool)
        ids, positions, mask = masked_inputs(model.config, words, tokens, hidden)
        first, codes = ids.shape[1] - tokens.shape[1], model.codes.T
        for places in groups:
            # Only these places are asked for; what is drawn there takes the mask sign's place.
            here = torch.tensor(places, device=ids.device)
            wanted, numbers = first + here, uniform[:, here]
            logits = model.states(ids, positions, mask, wanted=wanted) @ codes
            if settings:
                drawn = pick(logits, numbers, **settings)
            else:  # `pick` sorts the tokens; with nothing to cut off, any order of them will do
                drawn = first_above(logits.softmax(-1).cumsum(-1), numbers)
            ids[:, wanted] = model.config.first_code + drawn
            log.count(1, ids.numel())
            log.note(Step(places))
        return ids[:, first:] - model.config.first_code

    return draw_rows(model, captions, noise, generator, chunk, watch, body)


def hidden_before(groups: Sequence[Sequence[int]], step: Tensor, tokens: int) -> Tensor:
    """What is still hidden before the steps (B,), 0 the first: bool (B, tokens)."""
    when = step_of_place(groups, tokens).to(step.device)
    return when >= step[:, None]


def step_of_place(groups: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """The step, from 0, in which each place is drawn: int64 (tokens,)."""
    when = torch.empty(tokens, dtype=torch.int64)
    for step, places in enumerate(groups):
        when[list(places)] = step
    return when


@torch.no_grad()
def group_log_likelihoods(
    model: MaskedModel, captions: Sequence[str] | Tensor, tokens: Tensor, steps: int = 4
) -> Tensor:
    """log p(t_i | caption, the groups before) of given pictures, in nats: (B, image_tokens).

    Their sum over the places is the exact log-likelihood of a drawing in these groups.
    """
    words = checked_words(captions).to(tokens.device)
    model.eval()
    groups = groups_of(model.config.image_tokens, steps)
    result = torch.empty(tokens.shape, device=tokens.device)
    for step, places in enumerate(groups):
        now = torch.full((len(tokens),), step, device=tokens.device)
        hidden = hidden_before(groups, now, tokens.shape[1])
        logs = model.image_logits(words, tokens, hidden).log_softmax(-1)
        found = logs.gather(2, tokens[..., None])[..., 0]
        result[:, places] = found[:, places]
    return result
