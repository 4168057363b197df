"""Exercises of notebook 05: the schedule, the bound, tokens drawn together, guidance."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.models.table import TableModel
from fastgen_course.training.masked_theory import drawn_distribution

# --- the schedule -------------------------------------------------------------------------------


def tokens_left(step, steps, tokens):
    """How many of `tokens` are still hidden after step 1 to `steps`, by the cosine: an int."""
    left = round(tokens * math.cos(math.pi / 2 * step / steps))
    return min(left, tokens - 1)  # the first of many steps reveals one, too


def _turn(step, steps):
    return math.pi / 2 * step / steps


def _draw_schedules(yours, ours) -> Figure:
    fig, axis = plt.subplots(figsize=(5.2, 2.6))
    for fn, name, style in ((ours, "ours", "o-"), (yours, "yours", "s--")):
        axis.plot(range(1, 9), [fn(step, 8, 49) for step in range(1, 9)], style, label=name)
    axis.set(xlabel="step of 8", ylabel="tokens still hidden, of 49")
    axis.legend()
    return fig


register_exercise(
    "masked.tokens_left",
    title="The cosine schedule",
    difficulty=2,
    minutes=6,
    reference=tokens_left,
    inputs=lambda: [(1, 2, 49), (1, 8, 49), (4, 8, 49), (8, 8, 49), (2, 3, 9), (1, 16, 4)],
    wrong={
        "as many at every step": (
            lambda step, steps, tokens: min(tokens - round(tokens * step / steps), tokens - 1),
            "That reveals as many tokens at every step. The cosine starts flat: few tokens while "
            "little is known, many once most is.",
        ),
        "the sine": (
            lambda step, steps, tokens: min(
                round(tokens * (1 - math.sin(_turn(step, steps)))), tokens - 1
            ),
            "Your curve falls fastest at the start, where each token is least certain, and creeps "
            "at the end. Turn it round.",
        ),
        "revealed, not left": (
            lambda step, steps, tokens: (
                tokens - min(round(tokens * math.cos(_turn(step, steps))), tokens - 1)
            ),
            "That counts the tokens that are *known* after the step. Asked for is how many are "
            "still hidden: none after the last step.",
        ),
        "half a turn": (
            lambda step, steps, tokens: min(
                round(tokens * (1 + math.cos(2 * _turn(step, steps))) / 2), tokens - 1
            ),
            "That is half a turn of the cosine, flat at both ends: the last steps would reveal "
            "next to nothing. MaskGIT takes a quarter turn, from cos 0 = 1 to cos(pi/2) = 0.",
        ),
        "no quarter turn": (
            lambda step, steps, tokens: min(round(tokens * math.cos(step / steps)), tokens - 1),
            "At the last step you ask for cos(1) = 0.54: half the picture stays hidden. The share "
            "of steps runs from 0 to 1, the angle from 0 to pi/2.",
        ),
        "a step that reveals nothing": (
            lambda step, steps, tokens: round(tokens * math.cos(_turn(step, steps))),
            "With many steps the first cosine rounds to all tokens, and a forward is spent on "
            "nothing. Leave at most tokens - 1 hidden.",
        ),
    },
    alternatives={
        "rounded down": (
            lambda step, steps, tokens: min(
                math.floor(tokens * math.cos(_turn(step, steps)) + 1e-9), tokens - 1
            ),
            "You round down, as MaskGIT does; the course rounds to the nearest. Right.",
        ),
    },
    hints=(
        "The share that is still hidden is cos(angle), and the angle goes from 0 (before the "
        "first step) to pi/2 (after the last) in equal steps.",
        "`round(tokens * math.cos(math.pi / 2 * step / steps))`, but at most tokens - 1.",
    ),
    draw=_draw_schedules,
    alt="Tokens still hidden after each of eight steps, your schedule beside the reference",
)

# --- the bound ----------------------------------------------------------------------------------


def bound_sample(costs, hidden):
    """One sample of the bound on -log p: costs (B, N) nats, hidden (B, N) bool -> (B,) nats."""
    tokens = costs.shape[1]
    return (costs * hidden).sum(1) * tokens / hidden.sum(1)


def _bound_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.tensor([[0.5, 2.0, 1.0, 4.0]]), torch.tensor([[True, False, True, False]])
    for batch, tokens in ((3, 5), (4, 9)):
        hidden = torch.rand(batch, tokens, generator=generator) < 0.5
        hidden[torch.arange(batch), torch.arange(batch)] = True
        yield 3 * torch.rand(batch, tokens, generator=generator) + 0.1, hidden


register_exercise(
    "masked.bound_sample",
    title="What the masked loss must weigh",
    difficulty=3,
    minutes=10,
    reference=bound_sample,
    inputs=_bound_inputs,
    wrong={
        "no weight": (
            lambda costs, hidden: (costs * hidden).sum(1),
            "The plain sum pays for the hidden tokens alone and has the visible ones for nothing. "
            "Which factor makes k tokens stand for all N?",
        ),
        "nats a token": (
            lambda costs, hidden: (costs * hidden).sum(1) / hidden.sum(1),
            "That is the mean cost of a token. A picture has N of them.",
        ),
        "the visible ones too": (
            lambda costs, hidden: costs.sum(1) * costs.shape[1] / hidden.sum(1),
            "The model was shown the visible tokens; what it says there is no prediction. Only "
            "hidden ones count.",
        ),
        "the mean of the batch": (
            lambda costs, hidden: (
                (costs * hidden).sum(1) * costs.shape[1] / hidden.sum(1).float().mean()
            ),
            "You divide by the batch's mean number of hidden tokens, as a cross-entropy over all "
            "hidden tokens of a batch does. Pictures with many hidden tokens then count more, and "
            "the derivation wants each divided by its own k.",
        ),
        "the weight upside down": (
            lambda costs, hidden: (costs * hidden).sum(1) * hidden.sum(1) / costs.shape[1],
            "k of N tokens were priced: to stand for all N their sum must *grow*.",
        ),
        "over the visible ones": (
            lambda costs, hidden: (
                (costs * hidden).sum(1) * costs.shape[1] / (~hidden).sum(1).clamp(min=1)
            ),
            "k is the number of *hidden* tokens, the True ones.",
        ),
    },
    hints=(
        "At the step of a random order where k tokens are hidden, the next one is any of the k "
        "alike: its expected cost is the *mean* over the hidden ones. The order has N such steps.",
        "Multiply by the mask, sum along the row, times N, divided by the row's own count of "
        "hidden tokens.",
    ),
)

# --- tokens drawn together ----------------------------------------------------------------------


def total_correlation(table):
    """KL(p || product of p's marginals) in nats; table: probabilities, one axis a token."""
    product = torch.ones_like(table)
    for axis in range(table.ndim):
        others = [d for d in range(table.ndim) if d != axis]
        product = product * table.sum(others, keepdim=True)
    return (torch.xlogy(table, table) - torch.xlogy(table, product)).sum()


def _marginal(table, *axes):
    others = [d for d in range(table.ndim) if d not in axes]
    return table.sum(others) if others else table


def _entropy(table):
    return -torch.xlogy(table, table).sum()


def _pairs_only(table):
    total = torch.zeros((), dtype=table.dtype)
    for i in range(table.ndim):
        for j in range(i):
            total = total + _entropy(_marginal(table, i)) + _entropy(_marginal(table, j))
            total = total - _entropy(_marginal(table, j, i))
    return total


def _reversed(table):
    product = torch.ones_like(table)
    for axis in range(table.ndim):
        shape = [-1 if d == axis else 1 for d in range(table.ndim)]
        product = product * _marginal(table, axis).view(shape)
    return (torch.xlogy(product, product) - torch.xlogy(product, table)).sum()


def _tables():
    generator = torch.Generator().manual_seed(3)
    yield torch.tensor([[0.3, 0.1], [0.2, 0.4]])
    yield torch.eye(3) / 3  # two tokens that must agree
    shares = torch.rand(3, 4, generator=generator)
    yield shares / shares.sum()
    yield torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]) / 4  # x3 = x1 xor x2
    shares = torch.rand(2, 3, 4, generator=generator)
    yield shares / shares.sum()


register_exercise(
    "masked.total_correlation",
    title="The price of drawing together",
    difficulty=3,
    minutes=10,
    reference=total_correlation,
    inputs=_tables,
    wrong={
        "the joint entropy": (
            _entropy,
            "That is how uncertain the tokens are together. Even certain independence has "
            "entropy; asked for is the distance to the product of the marginals.",
        ),
        "the marginals' entropies": (
            lambda table: sum(_entropy(_marginal(table, d)) for d in range(table.ndim)),
            "Sum of the single entropies: half of it. Take away what the tokens cost *together*, "
            "the joint entropy.",
        ),
        "the other KL": (
            _reversed,
            "KL(product || p) averages over what the independent draw gives, and is infinite as "
            "soon as that can be something impossible. The error on real pictures averages "
            "over p.",
        ),
        "pairs only": (
            _pairs_only,
            "You add up what pairs know about each other. Three tokens can be bound together "
            "while every two of them are independent: x3 = x1 xor x2.",
        ),
        "half of it": (
            lambda table: 0.5 * total_correlation(table),
            "That is exactly half: nothing in KL(p || product) is counted twice, whatever "
            "the symmetry of the tokens.",
        ),
    },
    alternatives={
        "in bits": (
            lambda table: total_correlation(table) / math.log(2),
            "You count bits, logarithms to base 2. Right; the notebook counts nats.",
        ),
    },
    hints=(
        "A marginal is the table summed over all other axes. `sum(..., keepdim=True)` keeps its "
        "shape ready for multiplying.",
        "sum of p log p minus sum of p log(product). `torch.xlogy(a, b)` is a log b, and 0 where "
        "a = 0, which impossible combinations need.",
    ),
)

# --- guidance -----------------------------------------------------------------------------------


def guide(logits, free_logits, w):
    """Guided log-shares (B, K): logits with and without the caption, w = 0 leaves them alone."""
    return ((1 + w) * logits - w * free_logits).log_softmax(-1)


def _guide_inputs():
    generator = torch.Generator().manual_seed(4)
    yield torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.5, 0.0]]), 1.0
    for w in (0.0, 0.5, 3.0):
        logits, free = torch.randn(2, 2, 5, generator=generator)
        yield logits, free, w


register_exercise(
    "masked.guide",
    title="Guidance by w",
    difficulty=2,
    minutes=6,
    reference=guide,
    inputs=_guide_inputs,
    wrong={
        "w taken for s": (
            lambda logits, free_logits, w: (w * logits + (1 - w) * free_logits).log_softmax(-1),
            "That is the other convention, s = 1 + w, in which 1 changes nothing. Here w = 0 must "
            "give the captioned shares; yours forgets the caption.",
        ),
        "away from the caption": (
            lambda logits, free_logits, w: ((1 + w) * free_logits - w * logits).log_softmax(-1),
            "You walk from the caption to the uncaptioned shares and beyond. Exchange the two.",
        ),
        "an average": (
            lambda logits, free_logits, w: ((logits + w * free_logits) / (1 + w)).log_softmax(-1),
            "An average of the two lies between them. Guidance goes *beyond* the captioned "
            "shares, away from the free ones.",
        ),
        "shares in place of logarithms": (
            lambda logits, free_logits, w: (
                ((1 + w) * logits.softmax(-1) - w * free_logits.softmax(-1))
                .clamp(min=1e-9)
                .log()
                .log_softmax(-1)
            ),
            "A difference of probabilities can be negative. Guidance adds *logarithms*: it "
            "multiplies p by (p(t | caption) / p(t))^w.",
        ),
        "free shares taken off once": (
            lambda logits, free_logits, w: (logits - w * free_logits).log_softmax(-1),
            "The weights must add up to 1: where the caption says nothing, logits = free_logits, "
            "guidance must change nothing.",
        ),
    },
    alternatives={
        "not normalised": (
            lambda logits, free_logits, w: (
                (1 + w) * logits.log_softmax(-1) - w * free_logits.log_softmax(-1)
            ),
            "Right up to a constant of each row, which a draw does not notice. Confidences are "
            "compared between rows, though: there the constant counts.",
        ),
    },
    hints=(
        "Ho and Salimans: (1 + w) times the captioned logits minus w times the free ones.",
        "One weighted difference, then `log_softmax(-1)` makes the shares of a row sum to 1.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_PAIRS = ("all of them", "1 in 2", "1 in 8", "1 in 64")


def _agreeing_share() -> str:
    table = torch.eye(8, dtype=torch.float64) / 8
    drawn = drawn_distribution(TableModel(table), 1, confident=False)
    share = float(drawn.diagonal().sum())
    return min(_PAIRS, key=lambda text: abs({"all of them": 1.0, "1 in 2": 0.5, "1 in 8": 1 / 8,
                                             "1 in 64": 1 / 64}[text] - share))  # fmt: skip


register_prediction(
    "masked.agree",
    title="Two tokens that must agree",
    difficulty=1,
    minutes=2,
    question="Two neighbouring tokens always have one colour, any of eight, equally often. A "
    "perfectly trained masked model draws both in *one* forward. How many of its pairs agree?",
    choices=_PAIRS,
    answer="1 in 8",
    why="One forward gives the two marginals, both perfectly right: each colour 1/8. The draws "
    "know nothing of each other, so they agree by chance, 8 x (1/8)^2 = 1/8. The KL is log 8: the "
    "total correlation. Better training cannot help, another forward does.",
    wrong={
        "all of them": "The model knows that they agree *given* one of them. Both were hidden "
        "when it was asked, and it answers for each place alone.",
        "1 in 2": "With two colours it would be. Here are eight.",
        "1 in 64": "That is how often both are, say, red. Eight colours do for an agreement.",
    },
    check=_agreeing_share,
)

_COINS = ("1 in 20", "1 in 100", "1 in 1,000", "never")


def _two_coins() -> str:
    coin = torch.tensor([0.9, 0.1], dtype=torch.float64)
    drawn = drawn_distribution(
        TableModel(torch.outer(coin, coin)), 2, confident=True, schedule=lambda s, of, n: n - s
    )
    share = float(drawn[1, 1])
    values = {"1 in 20": 1 / 20, "1 in 100": 1 / 100, "1 in 1,000": 1 / 1000, "never": 1e-9}
    return min(_COINS, key=lambda text: abs(math.log(values[text] / max(share, 1e-12))))


register_prediction(
    "masked.two_coins",
    title="The surest first",
    difficulty=2,
    minutes=3,
    question="Two *independent* tokens, each 1 with probability 0.1 and else 0. A perfect model "
    "guesses both, keeps the guess it is surer of, and draws the other again. How often does it "
    "paint (1, 1)?",
    choices=_COINS,
    answer="1 in 1,000",
    why="A guess of 0 is surer than one of 1. So a 1 is kept only when both guesses were 1 "
    "(1 in 100), and then the other token is drawn again (1 in 10). Nothing was drawn together, "
    "every conditional was exact, and still the rare picture is ten times too rare.",
    wrong={
        "1 in 20": "Keeping the surer guess favours the common token, not the rare one.",
        "1 in 100": "That is the true probability, 0.1 x 0.1, and what a *random* choice of the "
        "token to keep would give. Which guess does the surest-first rule keep?",
        "never": "Both first guesses may be 1. Follow what happens then.",
    },
    check=_two_coins,
)

_READ = ("a sixth as many", "about as many", "eight times as many")


def _tokens_read() -> str:
    words, tokens, steps = 13, 49, 8
    cached = 1 + words + tokens - 1  # the sign, the words, every token but the last
    ratio = steps * (words + tokens) / cached
    sizes = {"a sixth as many": 1 / 6, "about as many": 1.0, "eight times as many": 8.0}
    return min(_READ, key=lambda text: abs(math.log(sizes[text] / ratio)))


register_prediction(
    "masked.tokens_read",
    title="Eight forwards against forty-nine",
    difficulty=2,
    minutes=2,
    question="A caption of 13 words, a picture of 49 tokens. The masked model draws it in 8 "
    "forwards, the GPT with its cache in 49. How many tokens go through the masked model's "
    "network, compared with the GPT's?",
    choices=_READ,
    answer="eight times as many",
    why="Every masked step reads all 13 + 49 tokens again, since each may change what all others "
    "mean: 8 x 62 = 496. The cached GPT reads each token once: 1 + 13 + 48 = 62, in 49 portions. "
    "Fewer forwards, more work: which of the two counts depends on batch and machine.",
    wrong={
        "a sixth as many": "8 / 49 compares forwards. How many tokens does one forward read?",
        "about as many": "That would hold if a masked step read only the tokens it reveals. It "
        "reads them all, in every step.",
    },
    check=_tokens_read,
)
