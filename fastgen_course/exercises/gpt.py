"""Exercises of notebook 04: attention, its mask, the cost of a picture, a token drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.show import PALETTE

# --- one attention head -------------------------------------------------------------------------


def attention_head(q, k, v, visible):
    """One head: q, k, v (T, D); visible (T, T) bool, True where row i may look at j -> (T, D)."""
    scores = q @ k.T / q.shape[-1] ** 0.5
    shares = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return shares @ v


def _head_inputs():
    generator = torch.Generator().manual_seed(0)
    yield (
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        torch.tensor([[1.0, 1.0], [3.0, 0.0]]),
        torch.tensor([[1.0, 2.0], [5.0, 4.0]]),
        torch.ones(2, 2, dtype=torch.bool),
    )
    for length, width in ((5, 4), (4, 9)):
        q, k, v = torch.randn(3, length, width, generator=generator)
        yield 2 * q, 2 * k, v, torch.ones(length, length, dtype=torch.bool).tril()


def _shares(q, k, visible):
    return (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)


register_exercise(
    "gpt.attention_head",
    title="One attention head",
    difficulty=3,
    minutes=10,
    reference=attention_head,
    inputs=_head_inputs,
    wrong={
        "not scaled": (
            lambda q, k, v, visible: (q @ k.T).masked_fill(~visible, -torch.inf).softmax(-1) @ v,
            "The products are not divided by the root of D: their spread grows with the width, and "
            "softmax of wide numbers picks one token and has no gradient left.",
        ),
        "divided by the width": (
            lambda q, k, v, visible: (
                (q @ k.T / q.shape[-1]).masked_fill(~visible, -torch.inf).softmax(-1) @ v
            ),
            "D independent products have *variance* D, so their standard deviation is its root.",
        ),
        "softmax down the columns": (
            lambda q, k, v, visible: _shares(q, k, visible).softmax(0) @ v,
            "Each row i asks and shares out 1 among the tokens j that it looks at: the softmax "
            "runs along a row, the last dimension.",
        ),
        "masked after the softmax": (
            lambda q, k, v, visible: ((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) * visible) @ v,
            "The shares of a row no longer sum to 1, and hidden tokens still have a say in the "
            "denominator. Hide them *before* the softmax, with a score of minus infinity.",
        ),
        "a score of zero": (
            lambda q, k, v, visible: (
                (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~visible, 0.0).softmax(-1) @ v
            ),
            "A score of 0 is not nothing: exp(0) = 1. Which score has exp(score) = 0?",
        ),
        "keys in place of values": (
            lambda q, k, v, visible: _shares(q, k, visible).softmax(-1) @ k,
            "Keys say what a token can be found by, values what it hands over once found.",
        ),
    },
    hints=(
        "Scores: every row of q times every row of k, divided by the root of D. Hidden ones become "
        "minus infinity (`masked_fill`).",
        "A softmax along each row makes shares that sum to 1; the result is the shares' average "
        "of v, one matrix product.",
    ),
)

# --- the mask -----------------------------------------------------------------------------------


def causal_mask(length):
    """bool (length, length): True where row i may look at j: itself and before."""
    return torch.ones(length, length, dtype=torch.bool).tril()


register_exercise(
    "gpt.causal_mask",
    title="Nothing from the future",
    difficulty=1,
    minutes=4,
    reference=causal_mask,
    inputs=lambda: [(2,), (3,), (5,)],
    wrong={
        "the future": (
            lambda length: torch.ones(length, length, dtype=torch.bool).triu(),
            "Row 0 is the first token, and yours sees all that come after it. Turn it round.",
        ),
        "not even itself": (
            lambda length: torch.ones(length, length, dtype=torch.bool).tril(-1),
            "A token may look at itself: it predicts the *next* one, not itself. (Row 0 would see "
            "nothing, and softmax of nothing is NaN.)",
        ),
        "one too many": (
            lambda length: torch.ones(length, length, dtype=torch.bool).tril(1),
            "Row i sees token i + 1, the very one that it must predict: the loss falls to 0 and "
            "the model can draw nothing.",
        ),
        "True where hidden": (
            lambda length: torch.ones(length, length, dtype=torch.bool).triu(1),
            "That marks what must be *hidden*. Here True means visible (PyTorch's own masks come "
            "in both kinds, so look twice).",
        ),
    },
    hints=(
        "Row i is the token that looks, column j the one looked at: visible where j <= i.",
        "A matrix of ones, its upper triangle cut off: `tril` keeps the diagonal and below.",
    ),
)

# --- what a picture costs -----------------------------------------------------------------------


def picture_nats(logits, tokens):
    """-log p of a picture in nats: logits (T, K) of each token given all before; tokens (T,)."""
    log_shares = logits.log_softmax(-1)
    return -log_shares.gather(1, tokens[:, None]).sum()


def _picture_inputs():
    generator = torch.Generator().manual_seed(1)
    yield torch.tensor([[0.0, 1.0], [2.0, 0.5]]), torch.tensor([0, 1])
    for length, codes in ((3, 4), (5, 7)):
        logits = 2 * torch.randn(length, codes, generator=generator) + 0.5
        yield logits, torch.randint(codes, (length,), generator=generator)


def _log_shares(logits, tokens):
    return logits.log_softmax(-1).gather(1, tokens[:, None])


register_exercise(
    "gpt.picture_nats",
    title="What a picture costs",
    difficulty=2,
    minutes=6,
    reference=picture_nats,
    inputs=_picture_inputs,
    wrong={
        "the mean a token": (
            lambda logits, tokens: -_log_shares(logits, tokens).mean(),
            "That is the training loss, nats *a token*. A picture's probability is the product of "
            "all its tokens', so its cost is the sum.",
        ),
        "its logarithm": (
            lambda logits, tokens: _log_shares(logits, tokens).sum(),
            "That is log p, which is negative. The cost is -log p: unlikely pictures cost much.",
        ),
        "logits taken for logarithms": (
            lambda logits, tokens: -logits.gather(1, tokens[:, None]).sum(),
            "Logits are logarithms up to a constant of each row: without the softmax's denominator "
            "any cost can be had by adding a number to them.",
        ),
        "the whole entropy": (
            lambda logits, tokens: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(),
            "That is what the model *expects* to pay, an entropy. The picture at hand costs "
            "-log p of the tokens that are in it.",
        ),
        "probabilities added": (
            lambda logits, tokens: -_log_shares(logits, tokens).exp().sum().log(),
            "The chain rule *multiplies* probabilities; their logarithms add up.",
        ),
    },
    alternatives={
        "in bits": (
            lambda logits, tokens: picture_nats(logits, tokens) / torch.log(torch.tensor(2.0)),
            "Right, in bits. Multiply by ln 2, since the notebook goes on in nats.",
        ),
    },
    hints=(
        "The chain rule: p(t_1 .. t_T) is a product over tokens of p(t_i | those before), and row "
        "i of `logits` is that distribution before its softmax.",
        "`log_softmax` along each row, the entry of the token that is there (`gather`), the sum "
        "over rows, and a minus sign.",
    ),
    check_gradients=True,
)

# --- a token by its number ----------------------------------------------------------------------


def pick_top_p(logits, uniform, top_p):
    """Draw a token of each row by nucleus sampling: logits (B, K), uniform (B,) -> int64 (B,)."""
    shares, order = logits.softmax(-1).sort(-1, descending=True)
    kept = shares * (shares.cumsum(-1) - shares < top_p)  # what stands before it is below top_p
    below = kept.cumsum(-1)
    place = (below <= uniform[:, None] * below[:, -1:]).sum(-1)
    return order.gather(-1, place[:, None])[:, 0]


def _pick(logits, uniform, top_p, *, kept=None, scaled=True, named=True, ordered=True):
    shares = logits.softmax(-1)
    order = torch.arange(logits.shape[-1]).expand_as(logits)
    if ordered:
        shares, order = shares.sort(-1, descending=True)
    keep = shares.cumsum(-1) - shares < top_p if kept is None else kept(shares, top_p)
    below = (shares * keep).cumsum(-1)
    total = below[:, -1:] if scaled else 1.0
    place = (below <= uniform[:, None] * total).sum(-1).clamp(max=logits.shape[-1] - 1)
    return order.gather(-1, place[:, None])[:, 0] if named else place


def _pick_inputs():
    shares = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    for u in (0.1, 0.6, 0.75, 0.95):
        yield shares.log(), torch.tensor([u]), 0.7
    generator = torch.Generator().manual_seed(2)
    logits = 1.5 * torch.randn(64, 6, generator=generator)
    yield logits, torch.rand(64, generator=generator), 0.6


def _draw_picks(yours, ours) -> Figure:
    logits = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]).log().expand(2000, -1)
    uniform = torch.linspace(0, 0.9995, 2000)
    fig, axis = plt.subplots(figsize=(5.2, 2.6))
    for fn, name, colour, shift in (
        (ours, "ours", PALETTE[0], -0.2),
        (yours, "yours", PALETTE[1], 0.2),
    ):
        counts = torch.bincount(fn(logits, uniform, 0.8).long().clamp(0, 4), minlength=5) / 2000
        axis.bar(torch.arange(5) + shift, counts, 0.4, color=colour, label=name)
    axis.set(xlabel="token (shares 0.05, 0.4, 0.1, 0.3, 0.15; top_p 0.8)", ylabel="drawn")
    axis.legend()
    return fig


register_exercise(
    "gpt.pick_top_p",
    title="A token from a number",
    difficulty=4,
    minutes=12,
    reference=pick_top_p,
    inputs=_pick_inputs,
    wrong={
        "the crossing token dropped": (
            lambda logits, uniform, top_p: _pick(
                logits, uniform, top_p, kept=lambda s, p: s.cumsum(-1) <= p
            ),
            "The kept tokens must *reach* top_p together, so the one that crosses it stays. "
            "Otherwise a token with a share above top_p would leave nothing to draw.",
        ),
        "shares not rescaled": (
            lambda logits, uniform, top_p: _pick(logits, uniform, top_p, scaled=False),
            "After the cut the kept shares sum to less than 1, and a number close to 1 falls off "
            "the end. Stretch the kept shares (or shrink the number) first.",
        ),
        "the place for the token": (
            lambda logits, uniform, top_p: _pick(logits, uniform, top_p, named=False),
            "That is the place in sorted order. Which token stands at it? `sort` told you.",
        ),
        "the cut without sorting": (
            lambda logits, uniform, top_p: _pick(logits, uniform, top_p, ordered=False),
            "You keep the tokens with the smallest *numbers*. The nucleus holds the likeliest.",
        ),
        "the likeliest": (
            lambda logits, uniform, top_p: logits.argmax(-1),
            "That is temperature 0: one picture a caption, whatever the noise.",
        ),
        "a floor in place of a sum": (
            lambda logits, uniform, top_p: _pick(
                logits, uniform, top_p, kept=lambda s, p: s >= (1 - p) * s[:, :1]
            ),
            "That keeps every token above a fraction of the likeliest one (a rule of its own, "
            "*min-p*). The nucleus asks how much the kept tokens have *together*.",
        ),
    },
    hints=(
        "Sort the shares, largest first. A token is kept if what stands *before* it sums to less "
        "than top_p. Set the others to 0.",
        "The running sum of the kept shares is a staircase from 0 to their total. uniform times "
        "the total is a height; count the steps that end at or below it, and look up which token "
        "that step belongs to.",
    ),
    draw=_draw_picks,
    alt="How often each of five tokens is drawn, your function beside the reference",
)

# --- predictions --------------------------------------------------------------------------------

_SPREADS = ("1", "8", "64", "4096")


def _product_spread() -> str:
    q, k = torch.randn(2, 200_000, 64, generator=torch.Generator().manual_seed(3))
    spread = float((q * k).sum(1).std())
    return min(_SPREADS, key=lambda s: abs(float(s) - spread))


# --- rewards of a group ---------------------------------------------------------------------------


def advantages(rewards):
    """Rewards (C, N) of N drawings a caption -> each less the mean of its caption's others."""
    n = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (n - 1)
    return rewards - others


def _advantage_inputs():
    generator = torch.Generator().manual_seed(0)
    yield (torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 0.2]]),)
    yield (torch.tensor([[0.9, 0.1]]),)
    yield (torch.rand(5, 8, generator=generator),)


def _draw_advantages(yours, reference):
    rewards = torch.tensor([[0.9, 0.8, 1.0, 0.7], [0.1, 0.0, 0.4, 0.1]])
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 2.4), sharey=True)
    for axis, row, title in zip(axes, range(2), ("an easy caption", "a hard caption"), strict=True):
        for shift, function, colour, name in (
            (-0.2, yours, PALETTE[0], "yours"),
            (0.2, reference, PALETTE[1], "reference"),
        ):
            axis.bar(
                torch.arange(4) + shift, function(rewards)[row], 0.38, color=colour, label=name
            )
        axis.axhline(0, color=PALETTE[6], lw=0.8)
        axis.set(title=title, xlabel="drawing", xticks=range(4))
    axes[0].set_ylabel("advantage")
    axes[0].legend(fontsize=8)
    return fig


register_exercise(
    "gpt.advantages",
    title="Better than the others",
    difficulty=2,
    minutes=6,
    reference=advantages,
    inputs=_advantage_inputs,
    wrong={
        "no baseline": (
            lambda rewards: rewards,
            "Without a baseline every drawing is made likelier, a good one a little more than a "
            "bad one: true on average, but the noise is large.",
        ),
        "its own reward in the mean": (
            lambda rewards: rewards - rewards.mean(1, keepdim=True),
            "The mean is over the *other* drawings. With its own reward in it, the baseline "
            "depends on the drawing, and every advantage comes out (N - 1) / N as large.",
        ),
        "one mean for all captions": (
            lambda rewards: rewards - rewards.mean(),
            "Then every drawing of a hard caption is below the mean and is made less likely, the "
            "best one too. Compare drawings of one caption: a row.",
        ),
        "captions for drawings": (
            lambda rewards: rewards - (rewards.sum(0) - rewards) / max(1, rewards.shape[0] - 1),
            "That compares one drawing of each caption with the others' captions. The drawings of "
            "one caption stand in a row: sum over dimension 1.",
        ),
        "the other way round": (
            lambda rewards: -advantages(rewards),
            "The sign: a drawing better than the others has a positive advantage.",
        ),
        "divided by all": (
            lambda rewards: rewards - (rewards.sum(1, keepdim=True) - rewards) / rewards.shape[1],
            "How many others are there? One fewer than the drawings.",
        ),
    },
    hints=(
        "The sum of the others is the sum of the row less the reward itself.",
        "`rewards.sum(1, keepdim=True)` keeps a column, so that it can be subtracted from every "
        "place of its row.",
    ),
    draw=_draw_advantages,
    alt="Advantages of four drawings of an easy and of a hard caption, yours beside the reference",
)


register_prediction(
    "gpt.product_spread",
    title="How wide are the scores?",
    difficulty=1,
    minutes=2,
    question="q and k hold 64 independent numbers each, of mean 0 and variance 1. What is the "
    "standard deviation of their product q · k?",
    choices=_SPREADS,
    answer="8",
    why="Each of the 64 products has mean 0 and variance 1; independent variances add up to 64, "
    "and the standard deviation is the root of it.",
    wrong={
        "1": "One product q_i k_i has variance 1. Here 64 of them are added.",
        "64": "That is the *variance*, the sum of 64 variances of 1. Take its root.",
        "4096": "Nothing is squared twice: 64 variances of 1 are added.",
    },
    check=_product_spread,
)

_GREEDY = (
    "yes: the likeliest token at every step makes the likeliest picture",
    "yes, once the model is trained well enough",
    "no: another picture may be likelier",
)


def _greedy_is_best() -> str:
    """A two-token picture: the likelier first token leads into a crowd of unlikely ones."""
    first = torch.tensor([0.55, 0.45])
    second = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.9, 0.1, 0.0, 0.0]])
    greedy = first.max() * second[first.argmax()].max()
    return _GREEDY[2] if (first[:, None] * second).max() > greedy else _GREEDY[0]


register_prediction(
    "gpt.greedy",
    title="Always the likeliest token",
    difficulty=2,
    minutes=2,
    question="At temperature 0 every token is the likeliest one given those before it. Is the "
    "finished picture the likeliest picture of its caption?",
    choices=_GREEDY,
    answer=_GREEDY[2],
    why="A first token of 0.55 may be followed by four of 0.25 each, one of 0.45 by one of 0.9: "
    "0.55 x 0.25 = 0.14 against 0.45 x 0.9 = 0.41. The product is large where *all* its factors "
    "are, and a greedy choice does not look ahead.",
    wrong={
        _GREEDY[0]: "The first token is chosen without a look at how likely its best continuation "
        "is, and the probability of a picture is a product.",
        _GREEDY[1]: "This has nothing to do with training: it holds for exact probabilities.",
    },
    check=_greedy_is_best,
)
