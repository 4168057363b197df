"""Exercises of notebook 15: a total taken apart, a table for an encoder, what is left to gain."""

from __future__ import annotations

import torch

from fastgen_course.exercises.registry import register_exercise, register_prediction

# --- the total taken apart ------------------------------------------------------------------------


def split_total(ms, kinds):
    """Times faster by kind of change: rung i, of kinds[i - 1], came after rung i - 1: a dict."""
    factors = {}
    for before, after, kind in zip(ms, ms[1:], kinds, strict=False):
        factors[kind] = factors.get(kind, 1.0) * before / after
    return factors


def _added(ms, kinds):
    factors = {}
    for before, after, kind in zip(ms, ms[1:], kinds, strict=False):
        factors[kind] = factors.get(kind, 0.0) + before / after
    return factors


def _saved(ms, kinds):
    shares = {}
    for before, after, kind in zip(ms, ms[1:], kinds, strict=False):
        shares[kind] = shares.get(kind, 0.0) + (before - after) / (ms[0] - ms[-1])
    return shares


def _from_first(ms, kinds):
    factors = {}
    for after, kind in zip(ms[1:], kinds, strict=False):
        factors[kind] = factors.get(kind, 1.0) * ms[0] / after
    return factors


def _upside_down(ms, kinds):
    return {kind: 1 / factor for kind, factor in split_total(ms, kinds).items()}


register_exercise(
    "pipeline.split_total",
    title="Take the total apart",
    difficulty=2,
    minutes=6,
    reference=split_total,
    inputs=lambda: [
        ([8.0, 4.0, 1.0, 0.4], ["steps", "net", "steps"]),
        ([160.0, 60.0, 20.0, 2.0, 1.5, 0.2], ["cache", "steps", "family", "runtime", "net"]),
        ([90.0, 100.0, 10.0, 5.0], ["cache", "steps", "cache"]),
    ],
    wrong={
        "milliseconds saved": (
            _saved,
            "Shares of the milliseconds give nearly all to the first rung: going from 0.4 to 0.2 "
            "saves next to nothing and still doubles what a server draws. Use ratios.",
        ),
        "ratios added": (
            _added,
            "Two changes of 3 and 4 times make 12, not 7: factors of one kind are multiplied.",
        ),
        "all against the first": (
            _from_first,
            "Each rung counts against the one before it. Against the first, what came before is "
            "counted again.",
        ),
        "after over before": (
            _upside_down,
            "A speedup is before over after: above 1 is faster.",
        ),
    },
    hints=(
        "Walk along the pairs (ms[i], ms[i + 1]); pair i belongs to kinds[i].",
        "Start every kind at 1 and multiply by before / after. The product over kinds is then "
        "ms[0] / ms[-1].",
    ),
)

# --- a table for an encoder -----------------------------------------------------------------------


def word_table(embedding, kernel):
    """embedding (V, E) and a convolution's kernel (C, E, 3) as one table (3, V, C)."""
    return torch.einsum("ve,cek->kvc", embedding, kernel)


def _table_inputs():
    generator = torch.Generator().manual_seed(0)
    for words, size, width in ((3, 2, 4), (7, 5, 3)):
        yield (
            torch.randn(words, size, generator=generator),
            torch.randn(width, size, 3, generator=generator),
        )


register_exercise(
    "pipeline.word_table",
    title="A convolution over words is a table",
    difficulty=3,
    minutes=8,
    reference=word_table,
    inputs=_table_inputs,
    wrong={
        "neighbours swapped": (
            lambda embedding, kernel: torch.einsum("ve,cek->kvc", embedding, kernel.flip(2)),
            "PyTorch's convolution does not turn its kernel round: tap 0 meets the word *before*.",
        ),
        "taps added": (
            lambda embedding, kernel: torch.einsum("ve,cek->vc", embedding, kernel).expand(
                3, -1, -1
            ),
            "A word means something else as the word before, at and after a place: three rows, "
            "not their sum.",
        ),
        "one tap": (
            lambda embedding, kernel: torch.einsum("ve,ce->vc", embedding, kernel[:, :, 1]).expand(
                3, -1, -1
            ),
            "That is the middle tap three times. Each of the three taps has its own matrix.",
        ),
    },
    hints=(
        "Write out one place of the convolution: the sum over taps k and embedding dimensions e of "
        "kernel[c, e, k] * embedding[word_k, e]. What of it depends on the sentence?",
        "Only *which* word stands there does. For each k the sum over e is a matrix (V, C): "
        "one torch.einsum makes all three.",
    ),
)

# --- what is left to gain -------------------------------------------------------------------------

_GAINS = ("2 times", "about 1.6 times", "about 1.2 times")


def _gain() -> str:
    """A picture takes 0.150 ms, 0.110 of them in the network; the network gets twice as fast."""
    ratio = 0.150 / (0.150 - 0.110 / 2)
    return min(_GAINS, key=lambda words: abs(ratio - float(words.split()[-2])))


register_prediction(
    "pipeline.what_is_left",
    title="What is left to gain",
    difficulty=1,
    minutes=2,
    question="From string to picture takes 0.150 ms: 0.110 ms in the network's layers, the rest in "
    "words, noise, bytes and the call. A better kernel makes the layers twice as fast. How much "
    "sooner is the picture there?",
    choices=_GAINS,
    answer="about 1.6 times",
    why="0.150 / (0.040 + 0.055) = 1.58: Amdahl's law. At rung 0 the same 0.040 ms were a four "
    "thousandth of the time, and nobody would have looked at them.",
    wrong={
        "2 times": "Only 0.110 of the 0.150 ms get faster.",
        "about 1.2 times": "That would be so if the layers were a third of the time; they are "
        "nearly three quarters.",
    },
    check=_gain,
)
