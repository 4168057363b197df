"""Exercises of notebook 06 on language: a trie of answers, LoRA, one vector a sentence."""

from __future__ import annotations

import torch

from fastgen_course.exercises.registry import register_exercise, register_prediction

# --- what may come next -------------------------------------------------------------------------


def token_trie(sequences, end):
    """All sequences as a tree of dicts: a token leads to what may follow it, `end` to {}."""
    root = {}
    for sequence in sequences:
        node = root
        for token in [*sequence, end]:
            node = node.setdefault(token, {})
    return root


def _trie_without_end(sequences, end):
    root = {}
    for sequence in sequences:
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
    return root


def _trie_overwritten(sequences, end):
    root = {}
    for sequence in sequences:
        node = root
        for token in [*sequence, end]:
            node[token] = {}
            node = node[token]
    return root


def _by_place(sequences, end, place=0):
    here = dict.fromkeys(s[place] for s in sequences if len(s) > place)
    node = {token: _by_place(sequences, end, place + 1) for token in here}
    return node | ({end: {}} if any(len(s) == place for s in sequences) else {})


def _ended_everywhere(sequences, end):
    root = {}
    for sequence in sequences:
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
            node[end] = {}
    return root


register_exercise(
    "edit.token_trie",
    title="What may come next",
    difficulty=3,
    minutes=9,
    reference=token_trie,
    inputs=lambda: [
        ([[5, 7], [5, 8]], 0),
        ([[4], [4, 6]], 0),
        ([[3, 9, 2], [3, 9], [1, 9, 6], [1, 5]], 0),
    ],
    wrong={
        "no end": (
            _trie_without_end,
            'One answer may be the beginning of another: "a red bag" of "a red bag on white". '
            "Without an end in the tree the shorter one can never be given.",
        ),
        "old branches thrown away": (
            _trie_overwritten,
            "Where a branch exists already, you put an empty one in its place and lose every "
            "answer that went through it. `setdefault` keeps what is there.",
        ),
        "tokens by place": (
            _by_place,
            "You allow whatever *some* answer has at this place. What may follow depends on all "
            "that was said: yours lets the model cross from one answer into another.",
        ),
        "an end everywhere": (
            _ended_everywhere,
            "Yours may stop after any token. Only a whole answer may end.",
        ),
    },
    hints=(
        "Walk from the root along each sequence, and make the branch that is missing.",
        "`node = node.setdefault(token, {})` goes down one token, and makes the way when there is "
        "none; the end is a token like the others.",
    ),
)

# --- LoRA ---------------------------------------------------------------------------------------


def lora_linear(x, W, A, B, alpha):
    """x (N, in) through W (out, in) plus its adapter A (r, in), B (out, r), at scale alpha / r."""
    rank = A.shape[0]
    return x @ W.T + (alpha / rank) * (x @ A.T) @ B.T


def _adapters():
    generator = torch.Generator().manual_seed(2)
    for batch, inner, outer, rank in ((1, 2, 2, 1), (3, 5, 4, 2), (2, 6, 6, 3)):
        x, W = (torch.randn(n, inner, generator=generator) for n in (batch, outer))
        A = torch.randn(rank, inner, generator=generator)
        B = torch.randn(outer, rank, generator=generator)
        yield x, W, A, B, 8.0


register_exercise(
    "edit.lora_linear",
    title="A layer with an adapter",
    difficulty=2,
    minutes=8,
    reference=lora_linear,
    inputs=_adapters,
    wrong={
        "no scale": (
            lambda x, W, A, B, alpha: x @ W.T + (x @ A.T) @ B.T,
            "alpha / r is missing. It keeps the adapter's size when somebody tries another rank.",
        ),
        "alpha not divided": (
            lambda x, W, A, B, alpha: x @ W.T + alpha * (x @ A.T) @ B.T,
            "The scale is alpha / r: a product of r terms grows with r, and the division takes "
            "that back.",
        ),
        "the rank on top": (
            lambda x, W, A, B, alpha: x @ W.T + (A.shape[0] / alpha) * (x @ A.T) @ B.T,
            "Upside down: alpha / r, not r / alpha.",
        ),
        "the adapter alone": (
            lambda x, W, A, B, alpha: (alpha / A.shape[0]) * (x @ A.T) @ B.T,
            "W is gone. The adapter is added to what the layer knows; with B = 0 the layer must "
            "be as it was.",
        ),
        "both scaled": (
            lambda x, W, A, B, alpha: (alpha / A.shape[0]) * (x @ W.T + (x @ A.T) @ B.T),
            "You scale W too, so that the layer is another one even with B = 0.",
        ),
        "W and its adapter multiplied": (
            lambda x, W, A, B, alpha: (x @ W.T) * (1 + (alpha / A.shape[0]) * (x @ A.T) @ B.T),
            "The adapter's output is *added* to the layer's: W + s B A is one matrix in the end.",
        ),
    },
    hints=(
        "W x + (alpha / r) B (A x). With examples as rows, W x becomes `x @ W.T`.",
        "The rank r is A's number of rows. First `x @ A.T`, r numbers an example; then B.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_COSINES = ("exactly 1", "about 0.9", "about 0.5", "about 0")


def _mean_of_words() -> str:
    generator = torch.Generator().manual_seed(4)
    vectors = {w: torch.randn(64, generator=generator) for w in ("red", "shoe", "on", "blue")}
    means = [
        torch.stack([vectors[w] for w in text.split()]).mean(0)
        for text in ("red shoe on blue", "blue shoe on red")
    ]
    cosine = float(torch.nn.functional.cosine_similarity(*means, dim=0))
    values = dict(zip(_COSINES, (1.0, 0.9, 0.5, 0.0), strict=True))
    return min(_COSINES, key=lambda text: abs(values[text] - cosine))


register_prediction(
    "edit.mean_of_words",
    title="One vector a sentence",
    difficulty=1,
    minutes=1,
    question="Every word has a vector, and a sentence is the mean of its words' vectors. What is "
    'the cosine of "red shoe on blue" and "blue shoe on red"?',
    choices=_COSINES,
    answer="exactly 1",
    why="A mean does not know the order of what it averages, and the two sentences are made of the "
    "same words. Only states that have read their neighbours can tell them apart, and pooling "
    "them takes most of that away again.",
    wrong={
        "about 0.9": "Which word would pull the two means apart? Both have the same four.",
        "about 0.5": "That would hold for sentences that share half of their words.",
        "about 0": "Opposite in meaning is not orthogonal as a mean: count the words.",
    },
    check=_mean_of_words,
)

_SHARES = ("1 in 8", "1 in 36", "1 in 72", "1 in 576")


def _trained_share() -> str:
    width, rank = 576, 8
    share = (torch.empty(rank, width).numel() + torch.empty(width, rank).numel()) / width**2
    return min(_SHARES, key=lambda text: abs(1 / float(text.split()[2]) - share))


register_prediction(
    "edit.lora_share",
    title="How much is trained?",
    difficulty=1,
    minutes=2,
    question="A matrix of 576 x 576 learns through LoRA of rank 8. How many numbers are trained, "
    "against those of the matrix?",
    choices=_SHARES,
    answer="1 in 36",
    why="A has 8 x 576 numbers and B has 576 x 8: 9,216 together, against 331,776 in the matrix. "
    "In general r (in + out) against in x out.",
    wrong={
        "1 in 8": "The rank is not a divisor: A and B have r rows and r columns *in all*.",
        "1 in 72": "That is A alone, 8 of 576 rows. B is as large.",
        "1 in 576": "That would be a single row or column. LoRA of rank 8 has 16 of them.",
    },
    check=_trained_share,
)
