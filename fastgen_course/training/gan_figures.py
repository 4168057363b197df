"""The figures of notebook 01: toy clouds, vanishing gradients, a GAN's losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.show import PALETTE
from fastgen_course.training.ring import RingQuality, ring_centres, ring_quality


def clouds_figure(
    clouds: Mapping[str, Tensor], qualities: Mapping[str, RingQuality] | None = None
) -> Figure:
    """Clouds of points side by side over the eight modes.

    clouds: title -> points (N, 2). Below each title stand modes covered and share near a mode:
    those of `qualities`, or of the points shown.
    """
    fig, axes = plt.subplots(1, len(clouds), figsize=(2.4 * len(clouds), 2.75), squeeze=False)
    centres = ring_centres()
    for axis, (title, points) in zip(axes.flat, clouds.items(), strict=True):
        quality = qualities[title] if qualities else ring_quality(points)
        axis.scatter(*centres.T, s=120, facecolors="none", edgecolors=PALETTE[6], lw=0.8)
        axis.scatter(*points.T, s=3, color=PALETTE[1], alpha=0.4, lw=0)
        axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
        axis.grid(False)
        axis.set_title(f"{title}\n{quality.covered} of 8 modes, {quality.share:.0%}", fontsize=9)
    return fig


def vanishing_figure(seen: Mapping[str, Sequence[float]]) -> Figure:
    """Left: D on data and samples as D alone trains; right: the generator's gradient norms."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.8))
    steps = seen["step"]
    left.plot(steps, seen["d_real"], color=PALETTE[0], label="D(x), data")
    left.plot(steps, seen["d_fake"], color=PALETTE[1], label="D(G(z)), samples")
    left.set(xlabel="steps of D alone", ylabel="mean output", ylim=(-0.03, 1.03))
    right.semilogy(steps, seen["nonsaturating"], color=PALETTE[2], label="-log D(G(z))")
    right.semilogy(steps, seen["saturating"], color=PALETTE[3], ls="--", label="log(1 - D(G(z)))")
    right.set(xlabel="steps of D alone", ylabel="norm of G's gradient")
    for axis in (left, right):
        axis.legend(fontsize=8)
    return fig


def history_figure(history: Mapping[str, Sequence[float]], found: Mapping[int, float]) -> Figure:
    """Losses, D's outputs, and the share of asked-for digits found, over the same steps.

    history: as `DCGANRun.history`; found: step -> share in [0, 1].
    """
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 2.8))
    steps = history["step"]
    left.plot(steps, history["discriminator"], color=PALETTE[0], label="discriminator")
    left.plot(steps, history["generator"], color=PALETTE[1], label="generator")
    left.axhline(2 * math.log(2), color=PALETTE[6], lw=0.8, ls=":")
    left.annotate(
        "2 ln 2", (1, 2 * math.log(2)), xycoords=("axes fraction", "data"), fontsize=7, va="bottom",
        ha="right",
    )  # fmt: skip
    left.set_title("losses, nats", fontsize=9)
    middle.plot(steps, history["d_real"], color=PALETTE[0], label="D(x), data")
    middle.plot(steps, history["d_fake"], color=PALETTE[1], label="D(G(z)), samples")
    middle.set_ylim(0, 1)
    middle.set_title("mean output of D", fontsize=9)
    right.plot(list(found), list(found.values()), "o-", color=PALETTE[2], ms=3)
    right.set_ylim(0, 1.02)
    right.set_title("asked-for digit found, share", fontsize=9)
    for axis in (left, middle, right):
        axis.set_xlabel("step")
    for axis in (left, middle):
        axis.legend(fontsize=7)
    return fig


def recipe_history_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """One small panel for each named loss of a training's card, over steps."""
    names = [name for name in history if name != "step"]
    fig, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 2.5), squeeze=False)
    for index, (axis, name) in enumerate(zip(axes.flat, names, strict=True)):
        axis.plot(history["step"], history[name], color=PALETTE[index])
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("step")
    return fig
