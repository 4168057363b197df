"""The figures of notebook 09, from what is recorded: roofline, stacked bars, speed against batch.

Each figure has its words beside it (`describe_*`), with the numbers that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastgen_course.runtimes.hardware_networks import CALL_WORDS
from fastgen_course.runtimes.hardware_points import (
    COMMAND,
    Point,
    best,
    cost,
    points,
    roof,
    splits,
)
from fastgen_course.runtimes.hardware_runtimes import RUNTIMES
from fastgen_course.runtimes.hardware_split import PARTS
from fastgen_course.show import PALETTE
from fastgen_course.timing import Result, ResultError, all_results, result

_COLOURS = dict(zip(CALL_WORDS, PALETTE, strict=False))
_MARKERS = dict(zip(RUNTIMES, ("o", "s", "^", "D"), strict=True))
_PART_COLOURS = dict(zip(PARTS, (PALETTE[4], PALETTE[3], PALETTE[5], PALETTE[0]), strict=True))
_PART_WORDS = {
    "python": "Python",
    "dispatch": "dispatch",
    "memory": "memory",
    "compute": "compute",
}


# --- roofline -----------------------------------------------------------------------------------


def plot_roofline(threads: int = 1, device: str = "cpu") -> Figure:
    """Every recorded float32 point under the measured roof; bfloat16 points are hollow.

    Across: FLOPs a byte as counted in eager PyTorch with nothing kept in a cache (a fused runtime
    moves fewer bytes, so its points may lie above the slanted part). Up: FLOP/s reached.
    Raises `ResultError` where the roofline or the sweep is not recorded.
    """
    limits = roof(threads, "float32", device)
    rows = _rows(threads=threads, device=device)
    fig, axis = plt.subplots(figsize=(7.2, 4.2))
    places = [roofline_place(row) for row in rows]
    left = min(min(x for x, _ in places), limits.ridge) / 3
    right = max(max(x for x, _ in places), limits.ridge) * 3
    across = np.geomspace(left, right, 100)
    axis.plot(
        across,
        np.minimum(limits.peak_flops, across * limits.bandwidth) / 1e9,
        color=PALETTE[6],
        label=f"float32 roof, {_threads(threads)}",
    )
    for (x, y), row in zip(places, rows, strict=True):
        colour = _COLOURS[row.call]
        face = colour if row.dtype == "float32" else "none"
        axis.plot(
            x,
            y / 1e9,
            _MARKERS[row.runtime],
            color=colour,
            markerfacecolor=face,
            ms=3 + np.log2(row.batch) / 2,
            alpha=0.8,
        )
    for call in dict.fromkeys(row.call for row in rows):
        axis.plot([], [], "o", color=_COLOURS[call], label=CALL_WORDS[call])
    for runtime in dict.fromkeys(row.runtime for row in rows):
        axis.plot([], [], _MARKERS[runtime], color=PALETTE[6], mfc="none", label=RUNTIMES[runtime])
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="FLOPs a byte (eager, nothing kept in a cache)",
        ylabel="GFLOP/s reached",
    )
    axis.set_title("larger marker: larger batch; hollow: bfloat16", fontsize=8)
    fig.legend(loc="outside right upper", fontsize=7)
    return fig


def roofline_place(row: Point) -> tuple[float, float]:
    """Where a recorded point stands: (FLOPs a byte, FLOP/s reached)."""
    work = cost(row.call, row.batch)
    moved = work.bytes_moved * (0.5 if row.dtype == "bfloat16" else 1.0)
    return work.flops / moved, 1000 * work.flops / row.ms


def describe_roofline(threads: int = 1, device: str = "cpu") -> str:
    """`plot_roofline` in words."""
    limits = roof(threads, "float32", device)
    rows = _rows(threads=threads, device=device, dtype="float32")
    parts = []
    for call in dict.fromkeys(row.call for row in rows):
        mine = [row for row in rows if row.call == call]
        top = max(mine, key=lambda row: roofline_place(row)[1])
        parts.append(
            f"{CALL_WORDS[call]} reaches {roofline_place(top)[1] / 1e9:.3g} GFLOP/s in "
            f"{RUNTIMES[top.runtime]} at batch {top.batch}"
        )
    return (
        f"Roofline on logarithmic axes, {_threads(threads)}: a roof of "
        f"{limits.peak_flops / 1e9:.3g} GFLOP/s that memory ({limits.bandwidth / 1e9:.3g} GB/s) "
        f"lowers left of {limits.ridge:.3g} FLOPs a byte. Points: {'; '.join(parts)}."
    )


# --- where the milliseconds go ------------------------------------------------------------------


def plot_split(device: str = "cpu") -> Figure:
    """Stacked bars: the share of Python, dispatch, memory and compute in each call, eager.

    Raises `ResultError` where no split is recorded.
    """
    found = _splits(device)
    fig, axis = plt.subplots(figsize=(7.2, 0.5 + 0.42 * len(found)))
    names = [f"{CALL_WORDS[call]}, batch {batch}" for call, batch in found]
    left = np.zeros(len(found))
    totals = np.array([sum(row.value for row in parts.values()) for parts in found.values()])
    for part in PARTS:
        widths = np.array([parts[part].value for parts in found.values()]) / totals
        axis.barh(names, widths, left=left, color=_PART_COLOURS[part], label=_PART_WORDS[part])
        for n, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 0.06:
                text = "white" if part == "compute" else "black"
                middle = start + width / 2
                axis.text(middle, n, f"{width:.0%}", ha="center", va="center", size=7, color=text)
        left += widths
    for n, total in enumerate(totals):
        axis.text(1.01, n, f"{total:.3g} ms", va="center", size=8)
    axis.set(xlim=(0, 1), xlabel="share of one call")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=len(PARTS), fontsize=8)
    return fig


def describe_split(device: str = "cpu") -> str:
    """`plot_split` in words."""
    lines = []
    for (call, batch), parts in _splits(device).items():
        total = sum(row.value for row in parts.values())
        shares = ", ".join(f"{_PART_WORDS[p]} {parts[p].value / total:.0%}" for p in PARTS)
        lines.append(f"{CALL_WORDS[call]} at batch {batch}, {total:.3g} ms: {shares}")
    return f"Stacked bars of one call's milliseconds. {'; '.join(lines)}."


# --- speed against batch ------------------------------------------------------------------------


def plot_batch(threads: int = 1, dtype: str = "float32", device: str = "cpu") -> Figure:
    """Pictures a second by batch, one panel a call, one line a runtime; band: fastest to p90."""
    rows = _rows(threads=threads, dtype=dtype, device=device)
    names = list(dict.fromkeys(row.call for row in rows))
    fig, axes = plt.subplots(
        1, len(names), figsize=(2.4 * len(names) + 0.6, 2.9), sharex=True, squeeze=False
    )
    for axis, call in zip(axes[0], names, strict=True):
        for n, runtime in enumerate(RUNTIMES):
            line = [row for row in rows if (row.call, row.runtime) == (call, runtime)]
            if not line:
                continue
            batches = [row.batch for row in line]
            axis.plot(
                batches,
                [row.images_per_s for row in line],
                marker=_MARKERS[runtime],
                ms=4,
                color=PALETTE[n],
                label=RUNTIMES[runtime] if call == names[0] else None,
            )
            axis.fill_between(
                batches,
                [1000 * row.batch / row.spread[1] for row in line],
                [1000 * row.batch / row.spread[0] for row in line],
                color=PALETTE[n],
                alpha=0.15,
                lw=0,
            )
        axis.set(xscale="log", yscale="log", xlabel="batch")
        axis.set_title(CALL_WORDS[call], fontsize=9)
        batches = sorted({row.batch for row in rows})
        axis.set_xticks(batches, [str(batch) for batch in batches], fontsize=8)
        axis.minorticks_off()
    axes[0][0].set_ylabel("pictures a second")
    fig.legend(loc="outside upper center", ncols=len(RUNTIMES), fontsize=8)
    return fig


def describe_batch(threads: int = 1, dtype: str = "float32", device: str = "cpu") -> str:
    """`plot_batch` in words."""
    rows = _rows(threads=threads, dtype=dtype, device=device)
    lines = []
    for call in dict.fromkeys(row.call for row in rows):
        mine = [row for row in rows if row.call == call]
        ends = []
        for batch in (min(r.batch for r in mine), max(r.batch for r in mine)):
            top = best([row for row in mine if row.batch == batch])
            ends.append(f"{top.images_per_s:.3g} at batch {batch} in {RUNTIMES[top.runtime]}")
        lines.append(f"{CALL_WORDS[call]}: {' and '.join(ends)}")
    return (
        f"Lines on logarithmic axes: pictures a second against batch, {_threads(threads)}, "
        f"{dtype}; the fastest runtimes: "
        f"{'; '.join(lines)}."
    )


# --- what holds the rest of the peak back -------------------------------------------------------


def held_back(runtime: str = "openvino", threads: int = 1) -> list[tuple[str, float, float]]:
    """(kind of layer, share of the runtime's own time, share of the peak it reaches), recorded.

    Raises `ResultError` where `peak` was not recorded for that runtime.
    """
    prefix = f"hardware.kind.{runtime}.threads{threads}."
    rows = _entries(prefix)
    if not rows:
        raise ResultError(
            f"No layers of {runtime} are recorded; run `{COMMAND} peak` on an idle machine."
        )
    total = sum(row.value for row in rows)
    return [
        (
            row.name.removeprefix(prefix).removesuffix("_ms").replace("_", " "),
            row.value / total,
            2000 * row.extra["macs"] / row.value / (1e9 * row.extra["gflops"]) if row.value else 0,
        )
        for row in sorted(rows, key=lambda row: -row.value)
    ]


def peak_shares(threads: int = 1) -> dict[str, Result]:
    """GENERATOR_BASE's recorded share of the GEMM peak at batch 64, by runtime."""
    prefix = "hardware.peak_share."
    end = f".threads{threads}"
    found = {
        row.name.removeprefix(prefix).removesuffix(end): row
        for row in _entries(prefix)
        if row.name.endswith(end)
    }
    if not found:
        result(f"{prefix}eager{end}")  # says in one sentence what is missing
    return {name: found[name] for name in RUNTIMES if name in found}


def _entries(prefix: str) -> list[Result]:
    return [row for row in all_results("hardware") if row.name.startswith(prefix)]


def _rows(**wanted: object) -> list[Point]:
    rows = points(**wanted)
    if not rows:
        best(rows)  # says in one sentence what is missing
    calls, runtimes = list(CALL_WORDS), list(RUNTIMES)
    return sorted(
        rows, key=lambda row: (calls.index(row.call), runtimes.index(row.runtime), row.batch)
    )


def _splits(device: str) -> dict[tuple[str, int], dict[str, Result]]:
    found = splits(device)
    if not found:
        raise ResultError(
            f"No split is recorded for {device}; run `{COMMAND} breakdown` on an idle machine."
        )
    order: Sequence[str] = tuple(CALL_WORDS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"
