"""Exercises of notebook 07: what is read twice, a guess checked, a round's length, a wavefront."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.sampling.speculative import acceptance

# --- token-forwards -----------------------------------------------------------------------------


def token_forwards(prompt, tokens, cached):
    """Tokens that pass through the model for a picture of `tokens` behind `prompt` tokens: int."""
    if cached:
        return prompt + tokens - 1  # the last token drawn is never read
    return sum(prompt + i for i in range(tokens))


register_exercise(
    "fast.token_forwards",
    title="What the loop reads",
    difficulty=1,
    minutes=6,
    reference=token_forwards,
    inputs=lambda: [(4, 49, False), (4, 49, True), (13, 49, False), (13, 49, True), (1, 2, False)],
    wrong={
        "the last token is read": (
            lambda prompt, tokens, cached: (
                prompt + tokens if cached else sum(prompt + i + 1 for i in range(tokens))
            ),
            "You read one token too many, in each forward or at the end: the last token is drawn "
            "and then painted. Nothing has to be predicted from it.",
        ),
        "forwards": (
            lambda prompt, tokens, cached: tokens,
            "That is the number of forwards. A forward over a whole sequence reads all of it.",
        ),
        "no prompt": (
            lambda prompt, tokens, cached: tokens - 1 if cached else tokens * (tokens - 1) // 2,
            "The caption is read, too: once with a cache, before every token without one.",
        ),
        "always full": (
            lambda prompt, tokens, cached: (
                prompt + tokens - 1 if cached else tokens * (prompt + tokens - 1)
            ),
            "Without a cache the sequence *grows*: the first forward reads the caption alone, "
            "only the last one nearly everything.",
        ),
        "prompt every time": (
            lambda prompt, tokens, cached: (
                tokens * (prompt + 1) if cached else sum(prompt + i for i in range(tokens))
            ),
            "With a cache the caption's keys and values are kept: it is read once, then one token "
            "at a time.",
        ),
    },
    hints=(
        "Token i (from 0) is predicted from the prompt and i tokens. Without a cache, one forward "
        "reads all of these.",
        "Without: the sum of prompt + i for i = 0 .. tokens - 1. With: each of these is read once, "
        "and the last token drawn is not read.",
    ),
)

# --- one guess ----------------------------------------------------------------------------------


def check_guess(guess, p, q, accept, draw):
    """The token that stands after a guess drawn from q (K,) is checked against p (K,): an int.

    `accept` and `draw` are uniform numbers in [0, 1): the first decides about the guess, the second
    picks a replacement by inverting the distribution function.
    """
    if accept * q[guess] < p[guess]:
        return int(guess)
    return _inverted((p - q).clamp(min=0), draw)


def _inverted(shares, uniform):
    below = shares.cumsum(0)
    return int((below <= uniform * below[-1]).sum())


def _guess_inputs():
    p, q = torch.tensor([0.1, 0.6, 0.3]), torch.tensor([0.5, 0.2, 0.3])
    for guess in range(3):
        for accept in (0.05, 0.15, 0.3, 0.9):
            yield guess, p, q, accept, 0.4
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        p, q = torch.rand(2, 6, generator=generator) ** 2
        p, q = p / p.sum(), q / q.sum()
        guess = int(torch.multinomial(q, 1, generator=generator))
        accept, draw = torch.rand(2, generator=generator).tolist()
        yield guess, p, q, accept, draw


def _draw_guesses(yours, ours) -> Figure:
    p, q = torch.tensor([0.1, 0.5, 0.15, 0.25]), torch.tensor([0.4, 0.1, 0.3, 0.2])
    generator = torch.Generator().manual_seed(2)
    guesses = torch.multinomial(q, 4000, replacement=True, generator=generator).tolist()
    numbers = torch.rand(4000, 2, generator=generator).tolist()
    fig, axis = plt.subplots(figsize=(5, 2.6))
    axis.bar(torch.arange(4) - 0.3, p, 0.2, label="p")
    for shift, fn, name in ((-0.1, ours, "ours"), (0.1, yours, "yours")):
        drawn = [fn(g, p, q, a, d) for g, (a, d) in zip(guesses, numbers, strict=True)]
        counts = torch.bincount(torch.tensor([int(t) for t in drawn]), minlength=4)[:4]
        axis.bar(torch.arange(4) + shift, counts / 4000, 0.2, label=name)
    axis.bar(torch.arange(4) + 0.3, q, 0.2, label="q, the draft's", color="0.8")
    axis.set(xlabel="token", ylabel="share")
    axis.legend(fontsize=8)
    return fig


register_exercise(
    "fast.check_guess",
    title="Keep a guess, or replace it",
    difficulty=3,
    minutes=10,
    reference=check_guess,
    inputs=_guess_inputs,
    wrong={
        "replaced from p": (
            lambda guess, p, q, accept, draw: (
                int(guess) if accept * q[guess] < p[guess] else _inverted(p, draw)
            ),
            "A rejected guess is replaced from what p has *more* than q, max(p - q, 0). Drawn from "
            "p, tokens that the draft likes come up twice: once kept, once as replacement.",
        ),
        "kept if likelier": (
            lambda guess, p, q, accept, draw: (
                int(guess) if p[guess] >= q[guess] else _inverted((p - q).clamp(min=0), draw)
            ),
            "You keep a guess only where p >= q. One that p finds half as likely as q is to be "
            "kept half of the time: that is what `accept` decides.",
        ),
        "accept with p": (
            lambda guess, p, q, accept, draw: (
                int(guess) if accept < p[guess] else _inverted((p - q).clamp(min=0), draw)
            ),
            "The chance to keep is the *ratio* p / q, not p: a guess on which both agree is always "
            "kept, however unlikely the token is.",
        ),
        "the ratio upside down": (
            lambda guess, p, q, accept, draw: (
                int(guess)
                if accept * p[guess] < q[guess]
                else _inverted((p - q).clamp(min=0), draw)
            ),
            "Your ratio is q / p. A guess that the *draft* likes too much (q > p) is the one that "
            "has to be rejected at times.",
        ),
        "the rest upside down": (
            lambda guess, p, q, accept, draw: (
                int(guess)
                if accept * q[guess] < p[guess]
                else _inverted((q - p).clamp(min=0), draw)
            ),
            "You replace from what the *draft* has too much of. Missing is what p has more of.",
        ),
    },
    hints=(
        "Keep the guess when `accept` lies below p[guess] / q[guess]; multiply out, and q may be "
        "anything.",
        "Otherwise lay `(p - q).clamp(min=0)` end to end, multiply `draw` by the whole length, and "
        "count how many of the cumulated sums lie at or below it.",
    ),
    draw=_draw_guesses,
    alt="Shares of four tokens among 4,000 checked guesses, yours and ours, beside p and q",
)

# --- the length of a round ----------------------------------------------------------------------


def expected_tokens(a, k):
    """Mean number of tokens settled by a round of k guesses, each kept with chance a: a float."""
    return sum(a**i for i in range(k + 1))


register_exercise(
    "fast.expected_tokens",
    title="How far a round gets",
    difficulty=2,
    minutes=6,
    reference=expected_tokens,
    inputs=lambda: [(0.8, 4), (0.5, 1), (0.5, 3), (0.9, 8), (0.3, 2), (1.0, 3), (0.0, 5)],
    wrong={
        "guesses kept on average": (
            lambda a, k: k * a,
            "That counts kept guesses as if those behind a rejected one still counted. A round "
            "ends at the first rejection.",
        ),
        "without the extra token": (
            lambda a, k: sum(a**i for i in range(1, k + 1)),
            "You count the kept guesses. Each round also settles one token of the large model's "
            "own: the replacement, or the one behind the last guess.",
        ),
        "to infinity": (
            lambda a, k: 1 / (1 - a) if a < 1 else float(k + 1),
            "That is the series without end; with k guesses the round ends after k + 1 tokens at "
            "the latest.",
        ),
        "one too many": (
            lambda a, k: sum(a**i for i in range(k + 2)),
            "A round of k guesses settles at most k + 1 tokens: try a = 1.",
        ),
    },
    hints=(
        "The round settles more than i tokens exactly when the first i guesses are all kept. The "
        "mean of a count is the sum of P(count > i).",
        "1 + a + a^2 + ... + a^k, which is (1 - a^(k+1)) / (1 - a) for a < 1.",
    ),
)

# --- the wavefront ------------------------------------------------------------------------------


def wavefront(step, side, delay):
    """Places (numbered row by row) drawn in a step: a row starts `delay` after the one above.

    Returns a list of int, the top row's first.
    """
    return [
        row * side + step - row * delay for row in range(side) if 0 <= step - row * delay < side
    ]


register_exercise(
    "fast.wavefront",
    title="Rows side by side",
    difficulty=2,
    minutes=8,
    reference=wavefront,
    inputs=lambda: [(0, 7, 2), (5, 7, 2), (9, 7, 2), (18, 7, 2), (3, 4, 1), (5, 3, 3), (4, 4, 2)],
    wrong={
        "rows start together": (
            lambda step, side, delay: [row * side + step for row in range(side) if step < side],
            "All your rows start at once, so no row knows anything of the one above it. Row r "
            "starts at step r * delay.",
        ),
        "columns run past the end": (
            lambda step, side, delay: [
                row * side + step - row * delay for row in range(side) if step - row * delay >= 0
            ],
            "A row has only `side` columns; when it is full, its front has left the picture.",
        ),
        "the delay goes down the row": (
            lambda step, side, delay: [
                row * side + step - row for row in range(side) if 0 <= step - row < side
            ],
            "You let each row start one step after the row above, whatever `delay` says.",
        ),
        "column by column": (
            lambda step, side, delay: [
                (step - row * delay) * side + row
                for row in range(side)
                if 0 <= step - row * delay < side
            ],
            "Rows and columns are exchanged: place = row * side + column.",
        ),
    },
    hints=(
        "In step t, row r stands at column t - r * delay, if that is a column.",
        "A list comprehension over rows with the condition 0 <= step - row * delay < side.",
    ),
)

# --- a prediction -------------------------------------------------------------------------------

_KEPT = ("0.5", "0.7", "0.85", "1")


def _kept_share() -> str:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.5, 0.1])
    share = float(acceptance(p, q))
    return min(_KEPT, key=lambda text: abs(float(text) - share))


register_prediction(
    "fast.kept",
    title="How often is a guess kept?",
    difficulty=1,
    minutes=2,
    question="The large model gives three tokens the shares (0.7, 0.2, 0.1), the draft gives them "
    "(0.4, 0.5, 0.1). How often is a guess of the draft kept?",
    choices=_KEPT,
    answer="0.7",
    why="A token t is guessed with chance q and kept with min(1, p / q), so it comes and stays "
    "with min(p, q): 0.4 + 0.2 + 0.1 = 0.7. That is 1 minus half the sum of |p - q|, the area that "
    "the two distributions share.",
    wrong={
        "0.5": "The likeliest tokens differ, but the rule compares chances, not favourites: the "
        "first token is always kept when guessed.",
        "0.85": "Half of the sum of |p - q| is 0.3: that much of the draft's guesses is too many.",
        "1": "The second token is guessed too often, 0.5 of the time where p has it 0.2.",
    },
    check=_kept_share,
)

_FASTER = ("about 4 times", "about 2 times", "not at all: slower")


def _ten_guesses() -> str:
    # Each guess kept with chance 1/2, the draft costs a fifth of the large model, ten guesses.
    tokens = expected_tokens(0.5, 10)
    factor = tokens / (1 + 10 * 0.2)
    sizes = {"about 4 times": 4.0, "about 2 times": 2.0, "not at all: slower": 2 / 3}
    return min(_FASTER, key=lambda text: abs(sizes[text] - factor))


register_prediction(
    "fast.ten_guesses",
    title="Ten guesses a round",
    difficulty=2,
    minutes=3,
    question="Half of the draft's guesses are kept. One of its forwards takes a fifth of the large "
    "model's time, and checking ten tokens takes the large model no longer than one. How much "
    "faster is drawing with ten guesses a round?",
    choices=_FASTER,
    answer="not at all: slower",
    why="A round settles (1 - 0.5^11) / (1 - 0.5), just under 2 tokens, and costs 1 + 10/5 = 3 "
    "forwards' time: 2/3 of the plain speed. With one guess it is 1.5 tokens for 1.2: 1.25 times "
    "faster. More guesses pay only as long as they are kept.",
    wrong={
        "about 4 times": "Ten guesses half of which are kept would be five tokens, if those "
        "behind a rejected guess counted. They do not.",
        "about 2 times": "Two tokens a round is right. What does a round cost?",
    },
    check=_ten_guesses,
)
