"""Figures and tables of notebook 12, each with its words, from what is recorded."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.compression.affine import (
    Scheme,
    expected_square_error,
    fake_quantize,
    make_grid,
)
from fastgen_course.compression.int8_runtimes import EXACT, FLOAT, ROWS
from fastgen_course.compression.quantization_quality import recorded_quality
from fastgen_course.compression.quantization_records import (
    AREA,
    CENTRES,
    GRANULARITY,
    WEIGHT_BITS,
)
from fastgen_course.show import PALETTE
from fastgen_course.timing import ResultError, result

SHIPPED = "generator_int8"


def fid_of(name: str) -> float:
    """A row's recorded FID. Raises `ResultError` where it was not recorded."""
    return result(f"{AREA}.fid.{name}").value


@dataclass(frozen=True)
class SpeedRow:
    """A line of the table: what it is, its time, its ratio to the best float32 row, its quality."""

    name: str
    words: str
    dtype: str
    ms: float
    speedup: float
    low: float
    high: float
    fid: float | None
    why: str | None


def speed_rows(batch: int) -> list[SpeedRow]:
    """The recorded rows of a batch, fastest first. Raises `ResultError` where none is recorded."""
    rows = []
    for name, row in ROWS.items():
        try:
            timed = result(f"{AREA}.{name}.batch{batch}_ms")
        except ResultError:
            continue
        ratio = result(f"{AREA}.{name}.batch{batch}_speedup")
        rows.append(
            SpeedRow(
                name, row.words, row.dtype, timed.value, ratio.value, *ratio.spread,
                _row_fid(name), ratio.extra["why"],
            )
        )  # fmt: skip
    if not rows:
        raise ResultError(
            f"No row at batch {batch} is recorded; run `python -m fastgen_course.compression."
            "quantization_records speed` on an idle machine."
        )
    return sorted(rows, key=lambda row: row.ms)


def _row_fid(name: str) -> float | None:
    """FID of a row: its own if scored, else the shipped int8 network's or GENERATOR_BASE's."""
    sources = [name]
    if name in EXACT or name == "int8_rounded":
        sources.append(SHIPPED)
    if name in FLOAT:
        sources = ["base"]
    for source in sources:
        try:
            return fid_of(source)
        except ResultError:
            continue
    return None


def refused_rows(batch: int) -> dict[str, str]:
    """Rows that could not run when they were recorded, and why."""
    found = {}
    for name in ROWS:
        try:
            found[name] = result(f"{AREA}.refused.{name}.batch{batch}").extra["reason"]
        except ResultError:
            continue
    return found


def plot_speed(batches: tuple[int, ...] = (1, 64)) -> Figure:
    """Bars of milliseconds, a panel a batch, fastest on top; float32 and int8 in two colours."""
    fig, axes = plt.subplots(1, len(batches), figsize=(9.5, 4.6), squeeze=False)
    for axis, batch in zip(axes.flat, batches, strict=True):
        rows = speed_rows(batch)
        colours = [PALETTE[0] if row.dtype == "float32" else PALETTE[1] for row in rows]
        axis.barh([row.words for row in rows], [row.ms for row in rows], color=colours)
        for place, row in enumerate(rows):
            axis.text(row.ms, place, f" {row.ms:.3g}", va="center", fontsize=7)
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=7)
        axis.set(xlabel="milliseconds a call, one thread", title=f"batch {batch}")
        axis.grid(axis="y", visible=False)
    return fig


def describe_speed(batches: tuple[int, ...] = (1, 64)) -> str:
    """`plot_speed` in words."""
    parts = []
    for batch in batches:
        rows = speed_rows(batch)
        floats = next(row for row in rows if row.dtype == "float32")
        ints = next((row for row in rows if row.dtype == "int8"), None)
        text = f"batch {batch}: best float32 {floats.words} {floats.ms:.3g} ms"
        if ints is not None:
            text += f", fastest int8 {ints.words} {ints.ms:.3g} ms"
        parts.append(text)
    return "Bars of milliseconds a call. " + "; ".join(parts) + "."


def plot_bits() -> Figure:
    """FID against the bits of a weight: one grid, a grid for each channel, and codebooks."""
    fig, axis = plt.subplots(figsize=(5.4, 3.3))
    words = {"tensor": "one grid a layer", "channel": "one grid a channel"}
    for colour, granularity in enumerate(GRANULARITY):
        values = [fid_of(f"w{bits}_{granularity}") for bits in WEIGHT_BITS]
        axis.plot(WEIGHT_BITS, values, ".-", color=PALETTE[colour], label=words[granularity])
    bits = [(k - 1).bit_length() for k in CENTRES]
    values = [fid_of(f"k{k}") for k in CENTRES]
    axis.plot(bits, values, ".--", color=PALETTE[2], label="a codebook a layer")
    for name in ("generator_int8", "generator_int4"):
        row = result(f"{name.removeprefix('generator_')}.fid_ratio")
        axis.plot([row.extra["weight_bits"]], [fid_of(name)], "*", color=PALETTE[3], markersize=11)
    axis.plot([], [], "*", color=PALETTE[3], label="trained on its grid (QAT)")
    axis.axhline(fid_of("base"), color=PALETTE[6], lw=0.9, label="float32")
    axis.set(xlabel="bits of a weight", ylabel="FID", yscale="log", xticks=sorted(WEIGHT_BITS))
    axis.legend(fontsize=8)
    return fig


def describe_bits() -> str:
    """`plot_bits` in words."""
    parts = [
        f"{bits} bits: {fid_of(f'w{bits}_tensor'):.3g} with one grid, "
        f"{fid_of(f'w{bits}_channel'):.3g} with one a channel"
        for bits in (8, 4, 2)
    ]
    return f"FID against bits of a weight. Float32: {fid_of('base'):.3g}. " + "; ".join(parts) + "."


def plot_sizes() -> Figure:
    """FID against stored bytes: grids, codebooks, and codebooks behind a Huffman code."""
    fig, axis = plt.subplots(figsize=(5.4, 3.3))
    names = [f"w{bits}_channel" for bits in WEIGHT_BITS]
    sizes = [result(f"{AREA}.stored_bytes.{name}").value / 1e6 for name in names]
    axis.plot(sizes, [fid_of(n) for n in names], ".-", color=PALETTE[0], label="grid a channel")
    for how, colour in (("plain", 2), ("huffman", 1)):
        sizes = [result(f"{AREA}.{how}_bytes.k{k}").value / 1e6 for k in CENTRES]
        words = "codebook" if how == "plain" else "codebook and Huffman"
        axis.plot(sizes, [fid_of(f"k{k}") for k in CENTRES], ".--", color=PALETTE[colour],
                  label=words)  # fmt: skip
    whole = result(f"{AREA}.stored_bytes.base").value / 1e6
    axis.plot([whole], [fid_of("base")], "s", color=PALETTE[6], label="float32")
    axis.set(xlabel="MB of weights", ylabel="FID", yscale="log", xlim=(0, None))
    axis.legend(fontsize=8)
    return fig


def describe_sizes() -> str:
    """`plot_sizes` in words."""
    k = 16
    plain, huffman = (result(f"{AREA}.{how}_bytes.k{k}").value for how in ("plain", "huffman"))
    return (
        f"FID against megabytes. A codebook of {k}: {plain / 1e6:.2f} MB, {huffman / 1e6:.2f} MB "
        f"behind a Huffman code, FID {fid_of(f'k{k}'):.3g}; the 4-bit grid "
        f"{result(f'{AREA}.stored_bytes.w4_channel').value / 1e6:.2f} MB, FID "
        f"{fid_of('w4_channel'):.3g}."
    )


def quality_table(rows: dict[str, str]) -> str:
    """A Markdown table of recorded rows {name: words}: FID, exact accuracy, recall."""
    lines = ["| weights, activations | FID | exact accuracy | recall |", "|---|---|---|---|"]
    for name, words in rows.items():
        found = recorded_quality(name)
        fid, exact, recall = (found[f].value for f in ("fid", "exact_accuracy", "recall"))
        lines.append(f"| {words} | {fid:.2f} | {exact:.3f} | {recall:.3f} |")
    return "\n".join(lines)


def speed_table(batch: int) -> str:
    """A Markdown table of a batch's rows; what lost to float32 says why."""
    lines = [
        f"| batch {batch}, one thread | ms | over the best float32 | FID | |",
        "|---|---|---|---|---|",
    ]
    for row in speed_rows(batch):
        fid = "" if row.fid is None else f"{row.fid:.2f}"
        ratio = f"{row.speedup:.2f}x [{row.low:.2f}, {row.high:.2f}]"
        lines.append(f"| {row.words} | {row.ms:.3g} | {ratio} | {fid} | {row.why or ''} |")
    for name, reason in refused_rows(batch).items():
        lines.append(f"| {ROWS[name].words} | | | | {reason} |")
    return "\n".join(lines)


def clipping_curve(x: Tensor, bits: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(measured, rounding, clipping) mean square errors of a symmetric grid that ends at each of
    `ends`."""
    measured, rounding, clipping = [], [], []
    for end in ends.tolist():
        grid = make_grid(-end, end, Scheme(bits, "symmetric"))
        measured.append((fake_quantize(x, grid) - x).square().mean())
        parts = expected_square_error(x, grid)
        rounding.append(parts[0])
        clipping.append(parts[1])
    return torch.stack(measured), torch.stack(rounding), torch.stack(clipping)


def plot_clipping(x: Tensor, bits: int) -> tuple[Figure, float]:
    """Square error against where the grid ends, measured and as rounding plus clipping.

    Returns the figure and the end with the least measured error.
    """
    ends = torch.linspace(0.15, 1.0, 60) * x.abs().max()
    measured, rounding, clipping = clipping_curve(x, bits, ends)
    fig, axis = plt.subplots(figsize=(5, 2.9))
    axis.plot(ends, measured, "k.", markersize=4, label="measured")
    axis.plot(ends, rounding, color=PALETTE[0], label="rounding: step² / 12")
    axis.plot(ends, clipping, color=PALETTE[1], label="clipping")
    axis.plot(ends, rounding + clipping, color=PALETTE[2], lw=0.9, label="sum")
    axis.set(xlabel="the grid ends at", ylabel="mean square error", yscale="log")
    axis.set_ylim(float(measured.min()) / 5, float(measured.max()) * 2)
    axis.legend(fontsize=8)
    return fig, float(ends[measured.argmin()])
