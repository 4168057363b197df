"""The figures of notebook 04: costs by place, what sampling trades, the size sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.show import PALETTE
from fastgen_course.training.gpt_records import SamplingPoint
from fastgen_course.training.gpt_sweep import Settings, SweepPoint

# What varies in a family of settings, and what every member has besides.
_FAMILIES: dict[str, tuple[str, Settings]] = {
    "temperature": ("temperature", {}),
    "top-p at T = 1": ("top_p", {"temperature": 1.0}),
    "top-k at T = 1": ("top_k", {"temperature": 1.0}),
    "guidance at T = 1": ("guidance", {"temperature": 1.0}),
}


def place_figure(costs: Tensor) -> Figure:
    """Nats of each token (side, side) where it lies, the number in each cell."""
    fig, axis = plt.subplots(figsize=(3.9, 3))
    shown = axis.imshow(costs, cmap="Blues", vmin=0)
    middle = float(costs.max()) * 0.6
    for row, values in enumerate(costs.tolist()):
        for column, value in enumerate(values):
            colour = "white" if value > middle else "black"
            axis.text(
                column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour
            )
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.grid(False)
    fig.colorbar(shown, label="nats")
    return fig


def sampling_figure(
    grid: Sequence[Settings], points: Sequence[SamplingPoint], tokens: SamplingPoint
) -> Figure:
    """Exact accuracy against recall, one line a knob; a star for real pictures as tokens."""
    fig, axis = plt.subplots(figsize=(6.4, 3.6))
    for (family, (knob, fixed)), colour in zip(_FAMILIES.items(), PALETTE, strict=False):
        inside = [
            (settings[knob], point)
            for settings, point in zip(grid, points, strict=True)
            if knob in settings and {k: v for k, v in settings.items() if k != knob} == fixed
        ]
        recall, exact = [p.recall for _, p in inside], [p.exact_accuracy for _, p in inside]
        axis.plot(recall, exact, "o-", color=colour, label=family, ms=4)
        for (value, _), x, y in zip(inside, recall, exact, strict=True):
            axis.annotate(
                f"{value:g}", (x, y), (3, 3), textcoords="offset points", fontsize=7, color=colour
            )
    axis.plot(
        tokens.recall, tokens.exact_accuracy, "*", ms=11, color=PALETTE[6], label="real, as tokens"
    )
    axis.set(xlabel="recall", ylabel="exact accuracy (judge_train)")
    axis.legend(fontsize=8)
    return fig


def reward_figure(history: Mapping[str, Sequence[float]], first: int) -> Figure:
    """Rewards and nats an image token over the second part, after `first` updates of the first."""
    rows = [i for i, step in enumerate(history["step"]) if step > first]
    steps = [history["step"][i] - first for i in rows]
    fig, axes = plt.subplots(1, 2, figsize=(8, 2.6))
    axes[0].plot(steps, [history["reward"][i] for i in rows], "o-", ms=4)
    axes[0].set(xlabel="update of the second part", ylabel="mean reward")
    axes[1].plot(steps, [history["draw"][i] for i in rows], "o-", ms=4, label="second part")
    before = history["draw"][rows[0] - 1]
    axes[1].axhline(before, color=PALETTE[1], ls="--", label=f"end of the first, {before:.2f}")
    axes[1].set(xlabel="update of the second part", ylabel="nats an image token")
    axes[1].legend(fontsize=8)
    return fig


def sweep_figure(
    sweep: Mapping[str, SweepPoint], spreads: Mapping[str, tuple[float, float]]
) -> Figure:
    """Nats a token and exact accuracy (with its interval from `spreads`) against the weights."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7))
    weights = [point.parameters for point in sweep.values()]
    exact = [point.exact_accuracy for point in sweep.values()]
    left.plot(weights, [point.draw_nats for point in sweep.values()], "o-")
    left.set(ylabel="nats an image token")
    below = [e - spreads[size][0] for size, e in zip(sweep, exact, strict=True)]
    above = [spreads[size][1] - e for size, e in zip(sweep, exact, strict=True)]
    right.errorbar(weights, exact, yerr=[below, above], fmt="o-", capsize=3)
    right.set(ylabel="exact accuracy")
    for size, x, y in zip(sweep, weights, exact, strict=True):
        right.annotate(size, (x, y), (4, -10), textcoords="offset points", fontsize=8)
    for axis in (left, right):
        axis.set(xscale="log", xlabel="weights")
        axis.set_xticks(weights, [f"{w / 1e6:.2g} M" for w in weights])
        axis.minorticks_off()
    return fig
