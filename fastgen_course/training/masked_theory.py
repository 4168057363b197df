"""What the masked loss bounds and what drawing tokens together costs, by enumeration.

For pictures so small (a few tokens of a few codes) that every picture, every hidden set and every
order can be visited, so that no claim of notebook 05 rests on a sample. A `table` is a float64
tensor of probabilities with one axis a token; pictures are counted in its row-major order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.sampling.masked import Schedule, tokens_left
from fastgen_course.training.masked import draw_hidden

Weigh = Callable[[Tensor, Tensor], Tensor]  # costs (B, N), hidden (B, N) -> (B,)


def neighbour_table(side: int = 2, codes: int = 3, agreement: float = 1.2) -> Tensor:
    """Probabilities of all side x side pictures whose neighbours like to agree (a Potts model).

    Each neighbouring pair of one colour multiplies a picture's probability by e^agreement. Colours
    are unequally common, a little differently at every place, so that nothing is tied.
    """
    n = side * side
    pictures = all_pictures(n, codes)
    grid = pictures.view(-1, side, side)
    score = agreement * (
        (grid[:, 1:] == grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] == grid[:, :, :-1]).sum((1, 2))
    )
    place = torch.arange(n, dtype=torch.float64)
    liking = -0.4 * torch.arange(codes, dtype=torch.float64) * (1 + 0.13 * place[:, None])
    score = score + liking[torch.arange(n), pictures].sum(1)
    return score.double().softmax(0).view([codes] * n)


def all_pictures(tokens: int, codes: int) -> Tensor:
    """Every picture, int64 (codes^tokens, tokens), in the order of a table's entries."""
    return torch.cartesian_prod(*[torch.arange(codes)] * tokens).view(-1, tokens)


def all_hidden(tokens: int) -> Tensor:
    """Every hidden set, bool (2^tokens, tokens); row m hides the places of m's binary ones."""
    return (torch.arange(2**tokens)[:, None] >> torch.arange(tokens)) % 2 == 1


@torch.no_grad()
def all_costs(model: Any) -> Tensor:
    """-log p(token | visible tokens) in nats, float64 (2^N hidden sets, pictures, N); 0 if visible.

    Row m belongs to row m of `all_hidden`.
    """
    n = model.config.image_tokens
    pictures = all_pictures(n, model.config.codes)
    words = torch.zeros(len(pictures), 1, dtype=torch.int64)  # no caption
    costs = []
    for hidden in all_hidden(n):
        rows = hidden.expand(len(pictures), -1)
        logs = model.image_logits(words, pictures, rows).double().log_softmax(-1)
        costs.append(-logs.gather(2, pictures[..., None])[..., 0] * rows)
    return torch.stack(costs)


def order_costs(costs: Tensor) -> Tensor:
    """-log p_order(picture), float64 (N! orders, pictures): the chain rule's cost in every order.

    costs: from `all_costs`. Each order draws one token after the other from the model, so
    exp(-row) sums to 1: every row is a proper distribution over pictures.
    """
    n = costs.shape[2]
    rows = []
    for order in itertools.permutations(range(n)):
        hidden, total = 2**n - 1, torch.zeros_like(costs[0, :, 0])
        for place in order:
            total = total + costs[hidden, :, place]
            hidden -= 2**place
        rows.append(total)
    return torch.stack(rows)


def mixture_cost(orders: Tensor) -> Tensor:
    """-log of the likelihood averaged over orders, (pictures,): one token at a time, any order."""
    return math.log(len(orders)) - (-orders).logsumexp(0)


def expected_loss(costs: Tensor, weigh: Weigh, sizes: Sequence[float] | None = None) -> Tensor:
    """E over hidden sets of `weigh(costs, hidden)`, exactly: (pictures,).

    Args:
        costs: from `all_costs`.
        weigh: what is made of the costs (B, N) of hidden tokens, bool (B, N): (B,).
        sizes: how often 1, 2, ..., N tokens are hidden; None: equally often. Sets of one size are
            equally likely.
    """
    n = costs.shape[2]
    sizes = [1 / n] * n if sizes is None else list(sizes)
    total = torch.zeros_like(costs[0, :, 0])
    for number, hidden in enumerate(all_hidden(n)):
        k = int(hidden.sum())
        if k:
            rows = hidden.expand(costs.shape[1], -1)
            total = total + sizes[k - 1] / math.comb(n, k) * weigh(costs[number], rows)
    return total


def cosine_sizes(tokens: int) -> list[float]:
    """How often `train_masked` hides 1, ..., N tokens: round(N cos(pi/2 u)), at least 1."""

    def below(k: float) -> float:  # P(N cos(pi/2 u) < k)
        return 1 - 2 / math.pi * math.acos(min(1.0, k / tokens))

    edges = [0.0, *(below(k + 0.5) for k in range(1, tokens)), 1.0]
    return [b - a for a, b in itertools.pairwise(edges)]


def total_correlation(table: Tensor) -> float:
    """KL(p || product of its marginals) in nats: what drawing all tokens apart gets wrong."""
    product = torch.ones_like(table)
    for axis in range(table.ndim):
        others = [d for d in range(table.ndim) if d != axis]
        product = product * table.sum(others, keepdim=True) if others else table
    return divergence(table, product)


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two tables of one shape; infinite where q = 0 < p."""
    return float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum())


def entropy(table: Tensor) -> float:
    """-sum p log p in nats."""
    return -float(torch.xlogy(table, table).sum())


def exact_curve(model: Any, table: Tensor) -> list[float]:
    """Mean cost of a hidden token when 1, ..., N are hidden, over pictures of `table`, exactly."""
    costs, p = all_costs(model), table.flatten()
    return [
        float(p @ expected_loss(costs, lambda c, h: c.sum(1) / h.sum(1), _only(k, table.ndim)))
        for k in range(1, table.ndim + 1)
    ]


def _only(k: int, n: int) -> list[float]:
    return [float(size == k) for size in range(1, n + 1)]


@torch.no_grad()
def drawn_distribution(
    model: Any, steps: int, *, confident: bool, schedule: Schedule = tokens_left
) -> Tensor:
    """The exact distribution of what a few steps draw, a table like `TableModel`'s.

    Every guess of every step is followed with its probability, from all tokens hidden.

    Args:
        model: a `TableModel` or a small `MaskedModel`.
        steps: forwards.
        confident: reveal the guesses of highest probability, as `sample_masked` does with a choice
            temperature of 0; False reveals a random choice of places.
        schedule: as in `sample_masked`.
    """
    n, codes = model.config.image_tokens, model.config.codes
    states = {tuple([-1] * n): 1.0}  # tokens so far, -1 where hidden, and how probable
    for step in range(steps):
        left = schedule(step + 1, steps, n)
        known = torch.tensor(list(states))
        hidden = known < 0
        words = torch.zeros(len(known), 1, dtype=torch.int64)
        logs = model.image_logits(words, known.clamp(min=0), hidden).double().log_softmax(-1)
        following: dict[tuple[int, ...], float] = {}
        for row, probability in enumerate(states.values()):
            places = hidden[row].nonzero()[:, 0].tolist()
            for guess in itertools.product(range(codes), repeat=len(places)):
                costs = [float(logs[row, i, t]) for i, t in zip(places, guess, strict=True)]
                share = probability * math.exp(sum(costs))
                for weight, again in _hidden_again(places, costs, left, confident):
                    tokens = known[row].tolist()
                    for place, token in zip(places, guess, strict=True):
                        tokens[place] = -1 if place in again else token
                    key = tuple(tokens)
                    following[key] = following.get(key, 0.0) + share * weight
        states = following
    table = torch.zeros([codes] * n, dtype=torch.float64)
    for tokens, probability in states.items():
        table[tokens] = probability
    return table


def _hidden_again(
    places: list[int], logs: list[float], left: int, confident: bool
) -> list[tuple[float, set[int]]]:
    """(probability, places to hide again): one choice by confidence, or every choice alike."""
    if confident:
        surest_last = sorted(range(len(places)), key=lambda j: logs[j])
        return [(1.0, {places[j] for j in surest_last[:left]})]
    choices = list(itertools.combinations(places, left))
    return [(1 / len(choices), set(choice)) for choice in choices]


def train_on_table(
    table: Tensor, steps: int = 300, batch: int = 64, rate: float = 3e-3, seed: int = 0
) -> MaskedModel:
    """A small masked model trained on pictures drawn from a table, some seconds for 300 steps.

    It hides 1 to N tokens, equally often, and its conditionals end up nearly right and not quite
    consistent with each other, as in every trained model.
    """
    n, codes = table.ndim, table.shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = MaskedConfig(width=32, layers=2, heads=2, image_tokens=n, codes=codes)
        model = MaskedModel(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    pictures = all_pictures(n, codes)
    words = torch.zeros(batch, 1, dtype=torch.int64)
    for _ in range(steps):
        drawn = torch.multinomial(table.flatten(), batch, True, generator=generator)
        k = torch.randint(1, n + 1, (batch,), generator=generator)
        hidden = draw_hidden(k / n, n, generator)
        logits = model.image_logits(words, pictures[drawn], hidden)
        costs = F.cross_entropy(logits.flatten(0, 1), pictures[drawn].flatten(), reduction="none")
        loss = ((costs.view(batch, n) * hidden).sum(1) / k).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False)
