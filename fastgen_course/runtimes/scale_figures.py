"""The figures of notebook 14: shards as a timeline, Amdahl's curve, shard sizes, memory.

Each figure has its words beside it (`describe_*`), with the numbers that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastgen_course.runtimes.scale_bench import SHARDS
from fastgen_course.runtimes.scale_records import amdahl
from fastgen_course.runtimes.workers import Drawn
from fastgen_course.show import PALETTE
from fastgen_course.timing import Result, result

# --- shards in time -----------------------------------------------------------------------------


def recorded_timeline() -> tuple[list[Drawn], float]:
    """The recorded run of which a worker was killed: its shards, and when, in seconds.

    Process ids are 0, 1, 2 there, in the order in which the workers finished a shard. Raises
    `ResultError` where the part `kill` is not recorded.
    """
    row = result("distributed.killed_images_lost")
    shards = [Drawn(index, n, pid, a, b) for index, pid, n, a, b in row.extra["timeline"]]
    return shards, row.extra["killed_at_seconds"]


def plot_timeline(shards: Sequence[Drawn], killed_at: float | None = None) -> Figure:
    """One bar a shard, one row a worker, in seconds since the first shard began."""
    start, pids = _start(shards), _pids(shards)
    fig, axis = plt.subplots(figsize=(7.2, 0.8 + 0.45 * len(pids)))
    for drawn in shards:
        row = pids.index(drawn.pid)
        width = drawn.ended - drawn.began
        colour = PALETTE[row % len(PALETTE)]
        axis.barh(row, width, left=drawn.began - start, color=colour, edgecolor="white", height=0.7)
        middle = drawn.began - start + width / 2
        axis.text(middle, row, drawn.index, ha="center", va="center", color="white", fontsize=7)
    if killed_at is not None:
        axis.axvline(killed_at - start, color=PALETTE[6], ls=":", lw=1.5)
        axis.text(killed_at - start, -0.75, " killed here", fontsize=8, va="center")
    names = [f"worker {row + 1}" for row in range(len(pids))]
    axis.set_yticks(range(len(pids)), names)
    axis.set(xlabel="seconds; the number is the shard's", ylim=(len(pids) - 0.5, -1))
    axis.grid(axis="y", visible=False)
    return fig


def describe_timeline(shards: Sequence[Drawn], killed_at: float | None = None) -> str:
    """What the timeline shows, in words."""
    start = _start(shards)
    parts = []
    for row, pid in enumerate(_pids(shards), start=1):
        mine = [drawn for drawn in shards if drawn.pid == pid]
        began, ended = min(d.began for d in mine) - start, max(d.ended for d in mine) - start
        plural = "s" if len(mine) > 1 else ""
        parts.append(f"worker {row} {len(mine)} shard{plural} from {began:.1f} to {ended:.1f} s")
    text = f"Timeline of {len(shards)} shards: " + ", ".join(parts)
    return text + (f"; one worker was killed at {killed_at - start:.1f} s." if killed_at else ".")


def _start(shards: Sequence[Drawn]) -> float:
    return min(drawn.began for drawn in shards)


def _pids(shards: Sequence[Drawn]) -> list[int]:
    """The workers, in the order in which they began."""
    return list(dict.fromkeys(d.pid for d in sorted(shards, key=lambda d: d.began)))


# --- one worker, two, many ----------------------------------------------------------------------


def plot_scaling(most: int = 1024) -> Figure:
    """Speed-up against workers: Amdahl's curve of the recorded serial share, and what was measured.

    Raises `ResultError` where the part `rates` is not recorded.
    """
    share, measured = float(result("distributed.serial_share")), _speedups()
    workers = np.geomspace(1, most, 80)
    fig, axis = plt.subplots(figsize=(5.6, 3.2))
    axis.plot(workers, workers, color=PALETTE[6], lw=0.8, ls="--", label="as many as there are")
    law = [amdahl(share, p) for p in workers]
    axis.plot(workers, law, color=PALETTE[0], label=f"Amdahl, serial share {share:.2%}")
    for index, (name, row) in enumerate(measured.items(), start=1):
        low, high = row.spread
        error = [[row.value - low], [high - row.value]]
        axis.errorbar(
            2, row.value, error, fmt="os"[index % 2], color=PALETTE[index], ms=5, label=name
        )
    axis.set(xscale="log", yscale="log", xlabel="workers", ylabel="times one worker")
    axis.legend(fontsize=8)
    return fig


def describe_scaling(most: int = 1024) -> str:
    """What the curve and the points say, in words."""
    share = float(result("distributed.serial_share"))
    points = "; ".join(f"{name} {row.value:.2f} times" for name, row in _speedups().items())
    return (
        f"Speed-up against workers on logarithmic axes. A serial share of {share:.2%} bends the "
        f"curve to {amdahl(share, most):.0f} times at {most:,} workers. Two of them: {points}."
    )


def _speedups() -> dict[str, Result]:
    return {
        "two workers, measured": result("distributed.two_worker_speedup"),
        "two plain loops, measured": result("distributed.two_loops_speedup"),
    }


# --- shards and memory --------------------------------------------------------------------------


def plot_shards() -> Figure:
    """Pictures a second of two workers against the pictures in a shard.

    Raises `ResultError` where the part `shards` is not recorded.
    """
    rows = _shard_rows()
    values = [row.value for row in rows.values()]
    low, high = zip(*(row.spread for row in rows.values()), strict=True)
    fig, axis = plt.subplots(figsize=(5.6, 2.6))
    axis.fill_between([*rows], low, high, alpha=0.2, lw=0)
    axis.plot([*rows], values, "o-")
    axis.set_xscale("log", base=2)
    axis.set_xticks([*rows], [*rows])
    axis.set(xlabel="pictures in a shard", ylabel="pictures a second", ylim=(0, None))
    return fig


def describe_shards() -> str:
    """The rates of all shard sizes, in words."""
    rates = ", ".join(f"{size}: {row.value:.0f}" for size, row in _shard_rows().items())
    return f"Pictures a second of two workers by pictures in a shard: {rates}."


def _shard_rows() -> dict[int, Result]:
    return {size: result(f"distributed.shard_{size}_images_per_s") for size in SHARDS}


def memory_table() -> str:
    """Resident memory while few and many pictures are drawn, as a text table.

    Raises `ResultError` where the part `memory` is not recorded.
    """
    rows = {
        (who, name): result(f"distributed.{who}_{name}_mb")
        for who in ("driver", "worker")
        for name in ("few", "many")
    }
    few, many = (rows["driver", name].extra["images"] for name in ("few", "many"))
    lines = [f"{'MB (largest)':12} {few:>12,} {many:>14,} pictures   growth"]
    for who in ("driver", "worker"):
        few_mb, many_mb = (
            f"{float(rows[who, name]):.0f} ({rows[who, name].spread[1]:.0f})"
            for name in ("few", "many")
        )
        growth = float(result(f"distributed.{who}_growth_mb"))
        lines.append(f"{who:12} {few_mb:>12} {many_mb:>14} {growth:17.0f}")
    return "\n".join(lines)
