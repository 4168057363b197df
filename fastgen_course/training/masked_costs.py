"""What a token costs with so many others hidden, and what every schedule's haste adds to it.

One curve says it all: m(k), the mean -log p of a hidden token when k of N tokens are hidden, at
random. Revealing tokens one at a time in a random order costs m(N) + ... + m(1), the masked model's
bound on -log p of a picture; revealing several at once charges each of them the price of the first.
The difference is the total correlation of the sets that were drawn together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.models.masked import MaskedModel
from fastgen_course.sampling.masked import Schedule, tokens_left
from fastgen_course.training.masked import draw_hidden


@torch.no_grad()
def cost_curve(
    model: MaskedModel,
    words: Tensor,
    tokens: Tensor,
    generator: torch.Generator,
    sizes: Sequence[int] | None = None,
    chunk: int = 250,
) -> tuple[Tensor, Tensor]:
    """m(k) of real pictures in nats a token, and its standard error: two tensors (sizes,).

    Args:
        model: a masked model.
        words, tokens: captions int64 (B, L) and pictures int64 (B, N).
        generator: which tokens are hidden.
        sizes: the numbers k of hidden tokens; None: 1 to N.
        chunk: pictures in one forward.
    """
    model.eval()
    batch, n = tokens.shape
    means, errors = [], []
    for k in range(1, n + 1) if sizes is None else sizes:
        repeats = max(1, round(6 / k))  # one hidden token says little about its picture
        costs = []
        for rows in torch.arange(batch).split(chunk):
            total = torch.zeros(len(rows))
            for _ in range(repeats):
                hidden = draw_hidden(torch.full((len(rows),), k / n), n, generator)
                logs = model.image_logits(words[rows], tokens[rows], hidden).log_softmax(-1)
                cost = -logs.gather(2, tokens[rows][..., None])[..., 0]
                total += (cost * hidden).sum(1) / k
            costs.append(total / repeats)
        cost = torch.cat(costs)
        means.append(float(cost.mean()))
        errors.append(float(cost.std()) / batch**0.5)
    return torch.tensor(means), torch.tensor(errors)


def hidden_before(steps: int, tokens: int, schedule: Schedule = tokens_left) -> list[int]:
    """How many tokens are hidden before each step of a schedule, and 0 at the end."""
    return [tokens, *(schedule(step, steps, tokens) for step in range(1, steps + 1))]


def following(counts: Sequence[int]) -> Schedule:
    """The schedule that goes through these hidden counts: the inverse of `hidden_before`."""

    def schedule(step: int, steps: int, tokens: int) -> int:
        return counts[step]

    return schedule


def drawing_nats(curve: Sequence[float], counts: Sequence[int]) -> float:
    """Mean -log p in nats of pictures under a drawing that goes through these hidden counts.

    curve: m(1), ..., m(N). counts: falling from N to 0, as `hidden_before` gives them. Every token
    revealed in a step costs m(number hidden before it).
    """
    if counts[0] != len(curve) or counts[-1] != 0:
        raise ValueError(f"the counts must fall from {len(curve)} to 0, got {list(counts)}.")
    return sum(
        (before - after) * float(curve[before - 1]) for before, after in itertools.pairwise(counts)
    )


def haste(curve: Sequence[float], counts: Sequence[int]) -> float:
    """Total correlation in nats a picture of the sets drawn together, summed over the steps.

    Estimated on real pictures: exact if the model's conditionals were the pictures' own.
    """
    return drawing_nats(curve, counts) - sum(map(float, curve))


def best_counts(curve: Sequence[float], steps: int) -> list[int]:
    """The hidden counts of the schedule with the least haste, among all with so many steps.

    By dynamic programming over (steps left, tokens hidden), N^2 steps additions.
    """
    n = len(curve)
    cost = [0.0] + [float("inf")] * n  # cheapest way to finish from k hidden in 0 steps
    choices: list[list[int]] = []
    for _ in range(min(steps, n)):
        best = [min(range(k), key=lambda j: (k - j) * float(curve[k - 1]) + cost[j]) if k else 0
                for k in range(n + 1)]  # fmt: skip
        cost = [0.0] + [
            (k - best[k]) * float(curve[k - 1]) + cost[best[k]] for k in range(1, n + 1)
        ]
        choices.append(best)
    counts = [n]
    for best in reversed(choices):
        counts.append(best[counts[-1]])
    return counts
