"""Exercises of 00_start_here: reading a clock, the Frechet distance, convolution arithmetic."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from .registry import register_exercise, register_prediction

# --- median and p90 ------------------------------------------------------------------------------


def median_p90(times_ms):
    """The median and the 90th percentile of readings (N,), as a tensor (2,)."""
    return torch.quantile(times_ms, torch.tensor([0.5, 0.9]))


def _readings():
    generator = torch.Generator().manual_seed(0)
    yield torch.tensor([1.0, 1.1, 1.2, 40.0])
    yield torch.tensor([3.0, 1.0, 2.0, 9.0, 1.5])
    yield 1 + torch.rand(50, generator=generator) ** 4


register_exercise(
    "start.median_p90",
    title="Two figures for a bag of readings",
    difficulty=1,
    minutes=3,
    reference=median_p90,
    inputs=_readings,
    wrong={
        "the mean": (
            lambda times_ms: torch.stack([times_ms.mean(), times_ms.quantile(0.9)]),
            "That is the *mean*: one reading during which the machine did something else moves it "
            "as far as it likes. Half of all readings would have to be spoilt to do that to the "
            "median.",
        ),
        "the lower middle": (
            lambda times_ms: torch.stack([times_ms.median(), times_ms.quantile(0.9)]),
            "`torch.median` returns the *lower* of the two middle readings when N is even. The "
            "median lies half way between them: torch.quantile(times, 0.5).",
        ),
        "in order of arrival": (
            lambda times_ms: torch.stack(
                [times_ms[len(times_ms) // 2], times_ms[int(0.9 * len(times_ms))]]
            ),
            "Those readings stand in order of arrival. A quantile is a place in *sorted* order.",
        ),
        "the other tail": (
            lambda times_ms: torch.quantile(times_ms, torch.tensor([0.5, 0.1])),
            "That is the 10th percentile, the lucky readings. The p90 is what nine of ten stay "
            "below: the quantile 0.9.",
        ),
        "the slowest": (
            lambda times_ms: torch.stack([times_ms.quantile(0.5), times_ms.max()]),
            "That is the slowest of all, which grows with the number of readings. The p90 is the "
            "quantile 0.9.",
        ),
    },
    hints=(
        "A quantile q is the place q of the way through the sorted readings; the median is 1/2.",
        "`torch.quantile(times_ms, q)` sorts, interpolates, and takes a tensor of several q.",
    ),
)

# --- Frechet distance ----------------------------------------------------------------------------


def frechet_distance(mu1, cov1, mu2, cov2):
    """Squared Frechet distance of N(mu1, cov1) and N(mu2, cov2): means (F,), covariances (F, F)."""
    values, vectors = torch.linalg.eigh(cov1)
    root1 = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    overlap = torch.linalg.eigvalsh(root1 @ cov2 @ root1).clamp(min=0).sqrt().sum()
    return (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap


def _symmetric_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _gaussians():
    generator = torch.Generator().manual_seed(0)
    one = torch.tensor([[4.0]]).double(), torch.tensor([[1.0]]).double()
    yield torch.zeros(1).double(), one[0], torch.tensor([3.0]).double(), one[1]
    for size in (2, 4):
        a, b = torch.randn(2, size, size, generator=generator, dtype=torch.float64)
        mu1, mu2 = torch.randn(2, size, generator=generator, dtype=torch.float64)
        yield mu1, a @ a.T + 0.1 * torch.eye(size), mu2, b @ b.T + 0.1 * torch.eye(size)


def _wrong_overlap(overlap):
    def distance(mu1, cov1, mu2, cov2):
        gap = (mu1 - mu2).square().sum()
        return gap + cov1.trace() + cov2.trace() - 2 * overlap(cov1, cov2)

    return distance


def _draw_distance(yours, ours) -> Figure:
    shifts = torch.linspace(0, 3, 31).double()
    cov1, cov2 = torch.eye(2).double(), torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double()
    fig, axis = plt.subplots(figsize=(4.5, 2.6))
    for fn, name, form in ((yours, "yours", "--"), (ours, "ours", "-")):
        line = [
            float(fn(torch.zeros(2).double(), cov1, torch.tensor([s, 0.0]).double(), cov2))
            for s in shifts.tolist()
        ]
        axis.plot(shifts, line, form, label=name)
    axis.set(xlabel="distance between the means", ylabel="Frechet distance, squared")
    axis.legend()
    return fig


register_exercise(
    "start.frechet_distance",
    title="The distance between two Gaussians",
    difficulty=3,
    minutes=10,
    reference=frechet_distance,
    inputs=_gaussians,
    wrong={
        "a root of each entry": (
            _wrong_overlap(
                lambda a, b: (_symmetric_root(a) @ b @ _symmetric_root(a)).abs().sqrt().trace()
            ),
            "You took the root of each *entry*. The root of a matrix M is the matrix R with "
            "R R = M; its trace is the sum of the roots of M's *eigenvalues*.",
        ),
        "the root of the trace": (
            _wrong_overlap(lambda a, b: (a @ b).trace().sqrt()),
            "You took the root of the trace. First the root, then the trace: "
            "the sum of the roots of the eigenvalues.",
        ),
        "the roots multiplied": (
            _wrong_overlap(lambda a, b: (_symmetric_root(a) @ _symmetric_root(b)).trace()),
            "Tr(cov1^(1/2) cov2^(1/2)) is right only where the two covariances commute. In "
            "general the root is taken of the whole product cov1^(1/2) cov2 cov1^(1/2).",
        ),
        "no root": (
            _wrong_overlap(lambda a, b: (a @ b).trace()),
            "The overlap lacks its root: cov1 cov2 has the unit of a distance to the *fourth*.",
        ),
        "once the overlap": (
            _wrong_overlap(
                lambda a, b: (
                    0.5 * _symmetric_root(_symmetric_root(a) @ b @ _symmetric_root(a)).trace()
                )
            ),
            "The overlap is subtracted *twice*, as in (s1 - s2)^2 = s1^2 + s2^2 - 2 s1 s2. Check "
            "with two equal Gaussians: their distance is 0.",
        ),
        "the root of it all": (
            lambda mu1, cov1, mu2, cov2: frechet_distance(mu1, cov1, mu2, cov2).clamp(min=0).sqrt(),
            "That is the distance itself. FID is its *square*: leave the last root out.",
        ),
        "a distance that is not squared": (
            lambda mu1, cov1, mu2, cov2: (
                frechet_distance(mu1, cov1, mu2, cov2)
                - (mu1 - mu2).square().sum()
                + (mu1 - mu2).norm()
            ),
            "The distance between the means is squared too: |mu1 - mu2|^2.",
        ),
    },
    hints=(
        "Only eigenvalues are needed: the trace of the root of a symmetric matrix is the sum of "
        "the roots of its eigenvalues, `torch.linalg.eigvalsh(...)`.",
        "With cov1 = V diag(l) V^T, cov1^(1/2) = V diag(sqrt(l)) V^T. Then take eigvalsh of "
        "cov1^(1/2) cov2 cov1^(1/2), which is symmetric where cov1 cov2 is not.",
    ),
    draw=_draw_distance,
    alt="Distance between two Gaussians as one moves away: your function beside the reference",
)

# --- transposed convolution ----------------------------------------------------------------------


def transposed_side(side, kernel, stride, padding):
    """Output side of a transposed convolution of an input of `side`; all are whole numbers."""
    return (side - 1) * stride - 2 * padding + kernel


register_exercise(
    "start.transposed_side",
    title="How large does it become?",
    difficulty=2,
    minutes=4,
    reference=transposed_side,
    inputs=[(7, 4, 2, 1), (1, 4, 1, 0), (14, 5, 3, 2), (5, 3, 1, 1), (4, 2, 2, 0)],
    wrong={
        "the convolution": (
            lambda side, kernel, stride, padding: (side + 2 * padding - kernel) // stride + 1,
            "That is the side after an ordinary convolution. A transposed one runs it backwards: "
            "solve for the input's side.",
        ),
        "times the stride": (
            lambda side, kernel, stride, padding: side * stride,
            "Times the stride holds only where kernel = stride + 2 padding, as for the course's "
            "4, 2, 1. Count where the first and the last kernel lie.",
        ),
        "padding that adds": (
            lambda side, kernel, stride, padding: (side - 1) * stride + 2 * padding + kernel,
            "Padding *cuts* here: it was added before the convolution that this one transposes, "
            "so it is taken off again.",
        ),
        "one step too many": (
            lambda side, kernel, stride, padding: side * stride - 2 * padding + kernel,
            "Between the first and the last of `side` inputs lie side - 1 steps, not side.",
        ),
        "one padding": (
            lambda side, kernel, stride, padding: (side - 1) * stride - padding + kernel,
            "Padding is cut off on both sides: twice.",
        ),
    },
    hints=(
        "Without padding, each input pixel stamps a kernel x kernel patch, `stride` pixels after "
        "the one before. How far does the last patch reach?",
        "Invert out = (side + 2 padding - kernel) / stride + 1: exchange out and side, solve.",
    ),
)

# --- predictions ---------------------------------------------------------------------------------


def _bias_ratio() -> str:
    """FID of two samples of one distribution, with N and with 10 N images."""
    generator = torch.Generator().manual_seed(0)

    def fid(n: int) -> float:
        values = []
        for _ in range(20):
            a, b = torch.randn(2, n, 8, generator=generator, dtype=torch.float64)
            values.append(frechet_distance(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()))
        return float(torch.stack(values).mean())

    ratio = fid(200) / fid(2000)
    return _BIAS[2] if 7 < ratio < 14 else _BIAS[1] if 0.7 < ratio < 1.4 else _BIAS[0]


_BIAS = ("about ten times smaller", "about the same", "about ten times larger")

register_prediction(
    "start.fid_bias",
    title="Fewer images",
    difficulty=2,
    minutes=1,
    question="Real pictures against *other real pictures* of the same kind: with ten times fewer "
    "pictures on each side, what becomes of FID?",
    choices=_BIAS,
    answer=_BIAS[2],
    why="Nothing differs but the luck of the draw. Means and covariances estimated from N pictures "
    "miss the truth by a squared distance that falls as 1/N, and FID adds these misses up.",
    wrong={
        _BIAS[0]: "Fewer pictures know less about the distribution; their errors cannot bring "
        "the two estimates closer together on average.",
        _BIAS[1]: "That would hold if FID were unbiased. But it is a squared distance: errors "
        "of either sign add to it.",
    },
    check=_bias_ratio,
)


def _same_fid() -> str:
    """A set that lost a mode and a set without a gap have one mean and one variance."""
    x = torch.tensor([-1.0, 1.0]).double().repeat(500)  # two modes
    bell = torch.erfinv(torch.linspace(-0.999, 0.999, 1000).double())  # one, between them
    bell = (bell - bell.mean()) / bell.std() * x.std()
    moments = [(v.mean()[None], v.var()[None, None]) for v in (x, bell)]
    return _SAME[0] if float(frechet_distance(*moments[0], *moments[1])) < 1e-9 else _SAME[2]


_SAME = (
    "yes: FID sees a mean and a covariance, nothing else",
    "yes, and then their precision and recall are equal too",
    "no: a generator that never draws some garments must have the larger FID",
)

register_prediction(
    "start.same_fid",
    title="Two faults, one figure",
    difficulty=2,
    minutes=1,
    question="One generator never draws some of the garments; another draws all of them, but some "
    "of its pictures are noise. Can their FIDs be equal?",
    choices=_SAME,
    answer=_SAME[0],
    why="Any FID between the floor and the ceiling can be had by adding noise. One number cannot "
    "tell which of two faults it measures: that takes two, precision and recall.",
    wrong={
        _SAME[1]: "Precision asks whether each drawn picture looks real, recall whether each real "
        "one could have been drawn. Noise spoils the first, missing garments the second.",
        _SAME[
            2
        ]: "Missing garments give some FID; more and more noise raises FID from the floor to "
        "the ceiling, so somewhere it passes that figure.",
    },
    check=_same_fid,
)
