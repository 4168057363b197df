"""Figures and tables of notebook 10, each with its words, from what is recorded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from contextlib import suppress

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastgen_course.models.searched import Architecture
from fastgen_course.search.front import Point, pareto_front
from fastgen_course.search.latency import LatencyTable
from fastgen_course.search.noting import AREA, BASE, HALVING_FIRST, SHIPPED
from fastgen_course.search.quality import from_lists, rank_correlation
from fastgen_course.search.searchers import SEARCHERS
from fastgen_course.show import PALETTE
from fastgen_course.timing import Result, ResultError, all_results, result

WORDS = {
    "random": "random search",
    "evolution": "evolution",
    "reinforce": "REINFORCE",
    "optuna_nsga2": "optuna, NSGA-II",
    "optuna_tpe": "optuna, TPE",
}
KINDS = ("random", "width", "finalist", BASE)
_LOOK = {
    "random": ("o", PALETTE[6], "20 random networks"),
    "width": ("s", PALETTE[1], "GENERATOR_BASE's width sweep"),
    "finalist": ("*", PALETTE[2], "the three finalists"),
    BASE: ("D", PALETTE[0], "GENERATOR_BASE itself"),
}


# --- halving ------------------------------------------------------------------------------------


def halving_rungs() -> list[tuple[int, dict[str, float]]]:
    """(updates, distance by "activation initialisation") of each recorded round.

    Raises `ResultError` where none is recorded.
    """
    rungs, updates = [], HALVING_FIRST
    while True:
        try:
            found = result(f"{AREA}.halving_distance.updates_{updates}")
        except ResultError:
            if rungs:
                return rungs
            raise
        rungs.append((updates, found.extra["distances"]))
        updates *= 2


def plot_halving() -> Figure:
    """Distance of each candidate against updates, ended where it was dropped."""
    rungs = halving_rungs()
    fig, axis = plt.subplots(figsize=(6.4, 3.0))
    last = rungs[-1][1]
    for candidate in rungs[0][1]:
        path = [(u, d[candidate]) for u, d in rungs if candidate in d]
        kept = candidate in last
        axis.plot(*zip(*path, strict=True), "o-", ms=4, lw=2 if kept else 0.8,
                  color=None if kept else "#aaaaaa", label=candidate if kept else None)  # fmt: skip
    axis.set(xscale="log", xlabel="updates", ylabel="distance", xticks=[u for u, _ in rungs])
    axis.get_xaxis().set_major_formatter(plt.ScalarFormatter())
    axis.minorticks_off()
    axis.legend(fontsize=8, title="went to the end")
    return fig


def describe_halving() -> str:
    rungs = halving_rungs()
    first, last = rungs[0], rungs[-1]
    best = min(last[1], key=last[1].__getitem__)
    worst = max(first[1], key=first[1].__getitem__)
    return (
        f"Successive halving: {len(first[1])} candidates after {first[0]} updates lie between "
        f"{min(first[1].values()):.2f} and {first[1][worst]:.2f} ({worst}); after {last[0]} "
        f"{best} leads with {last[1][best]:.3f}."
    )


# --- latency ------------------------------------------------------------------------------------


def plot_latency() -> Figure:
    """Predicted against measured milliseconds of unseen networks, and the errors' distributions."""
    extra = LatencyTable.load().extra
    allowed = result(f"{AREA}.latency_within_10_percent").extra["allowed"]
    measured, predicted = np.array(extra["measured_ms"]), np.array(extra["predicted_ms"])
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.0))
    top = 1.05 * max(measured.max(), predicted.max())
    left.fill_between(
        [0, top], [0, (1 - allowed) * top], [0, (1 + allowed) * top], color="#dddddd", lw=0
    )
    left.scatter(measured, predicted, s=8)
    left.set(xlabel="measured ms", ylabel="predicted ms", xlim=(0, top), ylim=(0, top))
    errors = 100 * (predicted - measured) / measured
    right.hist(errors, 30)
    right.axvspan(-100 * allowed, 100 * allowed, color="#dddddd", zorder=0)
    right.set(xlabel="error, % of the measured ms", ylabel="networks")
    return fig


def describe_latency() -> str:
    share, error = result(f"{AREA}.latency_within_10_percent"), result(f"{AREA}.latency_error")
    return (
        f"Predicted against measured milliseconds of {share.extra['networks']} unseen networks: "
        f"{share.value:.1%} lie within the grey band of {share.extra['allowed']:.0%}; the median "
        f"error is {error.value:.1%}"
    )


# --- searchers ----------------------------------------------------------------------------------


def volumes() -> dict[str, list[float]]:
    """Recorded hypervolumes by searcher, one a seed."""
    found = {}
    for name in SEARCHERS:
        try:
            found[name] = result(f"{AREA}.hypervolume.{name}").extra["by_seed"]
        except ResultError:
            continue
    if not found:
        raise ResultError(
            "No search is recorded; run `python -m fastgen_course.search.nas_records search`."
        )
    return found


def plot_volumes() -> Figure:
    """Each searcher's hypervolume over the seeds: every seed a dot, the median a line."""
    found = volumes()
    fig, axis = plt.subplots(figsize=(6.4, 2.8))
    with suppress(ResultError):
        axis.axvline(result(f"{AREA}.exact_hypervolume").value, color="#cc6677", lw=1.2, ls="--",
                     label="all networks asked")  # fmt: skip
        axis.legend(fontsize=8, loc="lower left")
    for row, (_name, values) in enumerate(found.items()):
        spread = np.linspace(-0.18, 0.18, len(values))
        axis.scatter(values, row + spread, s=12)
        axis.vlines(statistics.median(values), row - 0.3, row + 0.3, color="black", lw=1.5)
    axis.set(yticks=range(len(found)), yticklabels=[WORDS[n] for n in found],
             xlabel="hypervolume, share of the rectangle")  # fmt: skip
    axis.invert_yaxis()
    return fig


def describe_volumes() -> str:
    found = volumes()
    medians = ", ".join(f"{WORDS[n]} {statistics.median(v):.4f}" for n, v in found.items())
    return f"Hypervolume over {len(found['random'])} seeds, medians: {medians}."


def p_value_lines() -> list[str]:
    """Evolution's paired tests against each other searcher, in words."""
    lines = []
    for name in volumes():
        if name == "evolution":
            continue
        tail = "" if name == "random" else f"_over_{name}"
        row = result(f"{AREA}.evolution_p_value{tail}")
        lines.append(f"evolution above {WORDS[name]:16} p = {row.value:.2g}")
    return lines


# --- networks -----------------------------------------------------------------------------------


def plotted() -> dict[str, list[Result]]:
    """Recorded short trainings by kind (`KINDS`). Raises `ResultError` where none is recorded."""
    found: dict[str, list[Result]] = {kind: [] for kind in KINDS}
    for row in all_results(AREA):
        if row.name.startswith(f"{AREA}.short_fid."):
            name = row.name.split(".")[-1]
            kind = next(k for k in KINDS if name.startswith(k))
            found[kind].append(row)
    if not any(found.values()):
        raise ResultError(
            "No network is recorded; run `python -m fastgen_course.search.nas_records shorts`."
        )
    return found


def _point(row: Result) -> Point:
    return row.extra["predicted"], row.value


def plot_networks() -> Figure:
    """FID against milliseconds of all networks that got the same short training."""
    found = plotted()
    fig, axis = plt.subplots(figsize=(6.6, 3.8))
    for kind, rows in found.items():
        if rows:
            marker, colour, words = _LOOK[kind]
            size = 110 if kind == "finalist" else 30
            xs, ys = zip(*map(_point, rows), strict=True)
            axis.scatter(xs, ys, s=size, marker=marker, color=colour, label=words)
    short = [_point(r) for kind in KINDS[:-1] for r in found[kind]]
    front = [short[i] for i in pareto_front(short)]
    axis.step(*zip(*front, strict=True), where="post", lw=0.8, color="black", zorder=0)
    try:
        base_ms = found[BASE][0].extra["predicted"]  # the machine was faster or slower that day
        for plain, marker, words in ((False, "*", "finalists"), (True, "s", "plain widths")):
            full = [
                (base_ms / result(f"{AREA}.{n}_speedup").value, result(f"{AREA}.fid.{n}").value)
                for n in fully_trained() if n.startswith("width_") == plain
            ]  # fmt: skip
            axis.scatter(*zip(*full, strict=True), s=50 if plain else 110, marker=marker,
                         facecolors="none", edgecolors=PALETTE[2],
                         label=f"{words}, fully trained")  # fmt: skip
    except (ResultError, IndexError, TypeError, ValueError):
        pass
    axis.set(xlabel="ms at batch 1, in the latency table's milliseconds", ylabel="FID",
             yscale="log", xlim=(0, None))  # fmt: skip
    axis.legend(fontsize=8)
    return fig


def describe_networks() -> str:
    parts = []
    for kind, rows in plotted().items():
        if rows:
            ms, fids = zip(*map(_point, rows), strict=True)
            parts.append(
                f"{_LOOK[kind][2]}: {min(ms):.2f} to {max(ms):.2f} ms, FID {min(fids):.1f} to "
                f"{max(fids):.1f}"
            )
    return "FID against milliseconds. " + "; ".join(parts) + "."


def fully_trained() -> list[str]:
    """The finalists and plain widths whose full training was scored, the shipped one first."""
    stem = f"{AREA}.fid."
    names = [r.name.removeprefix(stem) for r in all_results(AREA) if r.name.startswith(stem)]
    return sorted((n for n in names if n != BASE), key=lambda n: (n != SHIPPED, n))


def finalist_table() -> str:
    """GENERATOR_BASE, the fully trained finalists and plain widths as a Markdown table."""
    lines = [
        "| network | ms at batch 1 | times faster | FID, over three seeds | over GENERATOR_BASE | "
        "exact |",
        "|---|---|---|---|---|---|",
    ]
    for name in [BASE, *fully_trained()]:
        ms, fid, exact = (
            result(f"{AREA}.{x}").value
            for x in (f"{name}_ms", f"fid.{name}", f"exact_accuracy.{name}")
        )
        speed = ratio = "1"
        if name != BASE:
            speed = f"{result(f'{AREA}.{name}_speedup').value:.2f}"
            ratio = f"{result(f'{AREA}.{name}_fid_ratio').value:.3f}"
        low, high = result(f"{AREA}.fid.{name}").spread
        lines.append(
            f"| `{name}` | {ms:.3f} | {speed} | {fid:.2f} ({low:.2f} to {high:.2f}) | {ratio} | "
            f"{exact:.3f} |"
        )
    with suppress(ResultError):
        fid, exact = (result(f"{BASE}.{x}_real").value for x in ("fid", "exact_accuracy"))
        lines.append(f"| photographs | | | {fid:.2f} | | {exact:.3f} |")
    return "\n".join(lines)


def _ranked() -> tuple[Result, list[float], list[float], list[float]]:
    """The recorded correlation; of the same networks' finetuned slices the FID, and of the
    networks MACs and predicted milliseconds."""
    row = result(f"{AREA}.rank_correlation")
    tuned = [result(f"{AREA}.short_fid.random_{i}") for i in range(row.extra["networks"])]
    macs, ms = ([float(r.extra[x]) for r in tuned] for x in ("macs", "predicted"))
    return row, [r.value for r in tuned], macs, ms


def plot_ranks() -> Figure:
    """What the supernet says of random networks against what comes of them, in both ways."""
    row, fids, _, _ = _ranked()
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.0), layout="constrained")
    for axis, values in zip(axes, (row.extra["alone"], fids), strict=True):
        axis.scatter(row.extra["shared"], values, s=22)
        axis.set(xlabel="distance of the supernet's slice")
    axes[0].set(ylabel="distance, trained from fresh weights")
    axes[1].set(ylabel="FID of the slice, finetuned")
    return fig


def describe_ranks() -> str:
    row = _ranked()[0]
    return (
        f"{row.extra['networks']} random networks against the distance of their slice of the "
        f"supernet. Left their distance trained by themselves, rank correlation {row.value:.2f}; "
        f"right the FID of their finetuned slice, {rank_rows()[1][1]:.2f}."
    )


def rank_rows() -> list[tuple[str, float, float, float]]:
    """(what is held against what, Spearman's rho, and Fisher's 95 % interval of it).

    At equal milliseconds: the partial correlation, given the predicted milliseconds.
    """
    row, fids, macs, ms = _ranked()
    shared, alone = row.extra["shared"], row.extra["alone"]
    fewer = [-m for m in macs]
    pairs = (
        ("slice, training from fresh weights", shared, alone, None),
        ("slice, FID of the finetuned slice", shared, fids, None),
        ("training from fresh weights, FID of the finetuned slice", alone, fids, None),
        ("fewer MACs, training from fresh weights", fewer, alone, None),
        ("fewer MACs, FID of the finetuned slice", fewer, fids, None),
        ("slice, FID of the finetuned slice, at equal ms", shared, fids, ms),
        ("fewer MACs, FID of the finetuned slice, at equal ms", fewer, fids, ms),
    )
    found = []
    for words, first, second, given in pairs:
        half = 1.96 / math.sqrt(max(1, len(fids) - 3 - (given is not None)))
        rho = rank_correlation(first, second)
        if given is not None:
            a, b = rank_correlation(first, given), rank_correlation(second, given)
            rho = (rho - a * b) / math.sqrt((1 - a * a) * (1 - b * b))
        middle = np.arctanh(np.clip(rho, -0.999999, 0.999999))
        found.append((words, rho, float(np.tanh(middle - half)), float(np.tanh(middle + half))))
    return found


def over_width_sweep() -> list[tuple[str, float]]:
    """(network, times fewer ms than a plain width sweep of its FID), between the sweep's points.

    The finalists, and of the random networks the one that gains most. Networks outside the sweep's
    FIDs are left out.
    """
    found = plotted()
    sweep = sorted(_point(row)[::-1] for row in found["width"])
    fids, ms = np.log([fid for fid, _ in sweep]), [m for _, m in sweep]
    gains = {
        kind: [
            (row.name.split(".")[-1],
             float(np.interp(np.log(row.value), fids, ms)) / _point(row)[0])
            for row in found[kind]
            if fids[0] <= np.log(row.value) <= fids[-1]
        ]
        for kind in ("finalist", "random")
    }  # fmt: skip
    best = sorted(gains["random"], key=lambda gain: gain[1])[-1:]
    return gains["finalist"] + best


def plotted_architectures() -> list[Architecture]:
    """The random networks of the plot, as recorded."""
    return [from_lists(*row.extra["genes"]) for row in plotted()["random"]]


def cost_correlations(configs: Sequence[Architecture], ms: Sequence[float]) -> tuple[float, float]:
    """Rank correlation of milliseconds with MACs, and with the number of layers."""
    macs, layers = [c.macs() for c in configs], [len(c.layers()) for c in configs]
    return rank_correlation(macs, ms), rank_correlation(layers, ms)


def linear_in_macs(configs: Sequence[Architecture], ms: Sequence[float]) -> tuple[float, float]:
    """(median error, share within 10 %) of the best line through MACs, fitted to these very
    networks by least squares of the relative error: what a table of layers has to beat."""
    macs, ms = np.array([c.macs() for c in configs], float), np.asarray(ms, float)
    columns = np.stack([np.ones_like(macs), macs / macs.max()], 1) / ms[:, None]
    line = np.linalg.lstsq(columns, np.ones(len(ms)), rcond=None)[0]
    errors = np.abs(columns @ line - 1)
    return float(np.median(errors)), float((errors <= 0.1).mean())
