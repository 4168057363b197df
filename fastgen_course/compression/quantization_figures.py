"""Figures and tables of notebook 12, each with its words, from what is recorded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from fastgen_course.compression.dynamic_gpt import GPT_ROWS
from fastgen_course.compression.int8_runtimes import EXACT, FLOAT, KINDS, ROWS, Row
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


def recorded_kinds(batch: int) -> list[str]:
    """The kinds of processor (`KINDS`) on which a batch was timed, VNNI first."""
    return [kind for kind in KINDS if _rows_of(batch, kind)]


def speed_rows(batch: int, kind: str | None = None) -> list[SpeedRow]:
    """The recorded rows of a batch on one kind of processor, fastest first.

    Without a kind: the first that is recorded. Raises `ResultError` where none is recorded.
    """
    kinds = recorded_kinds(batch) if kind is None else [kind]
    rows = _rows_of(batch, kinds[0]) if kinds else []
    if not rows:
        raise ResultError(
            f"No row at batch {batch} is recorded; run `python -m fastgen_course.compression."
            "quantization_records speed` on an idle machine."
        )
    return sorted(rows, key=lambda row: row.ms)


def _rows_of(
    batch: int, kind: str, network: Mapping[str, Row] = ROWS, prefix: str = ""
) -> list[SpeedRow]:
    """The recorded ones of a network's rows; a name is recorded with the prefix."""
    rows = []
    for name, row in network.items():
        stem = f"{AREA}.{kind}.{prefix}{name}.batch{batch}"
        try:
            timed = result(f"{stem}_ms")
        except ResultError:
            continue
        ratio = result(f"{stem}_speedup")
        rows.append(
            SpeedRow(
                name, row.words, row.dtype, timed.value, ratio.value, *ratio.spread,
                None if prefix else _row_fid(name), ratio.extra.get("why"),
            )
        )  # fmt: skip
    return rows


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


def refused_rows(batch: int, network: Mapping[str, Row] = ROWS, prefix: str = "") -> dict[str, str]:
    """Rows that could not run when they were recorded, and why."""
    found: dict[str, str] = {}
    for kind, name in itertools.product(KINDS, network):
        with suppress(ResultError):
            row = result(f"{AREA}.refused.{kind}.{prefix}{name}.batch{batch}")
            found.setdefault(name, row.extra["reason"])
    return found


def plot_speed(batches: tuple[int, ...] = (1, 64)) -> Figure:
    """Bars of milliseconds, a panel a batch, fastest on top; float32 and int8 in two colours.

    A diamond marks the same row on the other kind of processor, where both are recorded.
    """
    fig, axes = plt.subplots(1, len(batches), figsize=(9.5, 4.6), squeeze=False)
    for axis, batch in zip(axes.flat, batches, strict=True):
        kinds = recorded_kinds(batch)
        rows = speed_rows(batch)
        colours = [PALETTE[0] if row.dtype == "float32" else PALETTE[1] for row in rows]
        axis.barh([row.words for row in rows], [row.ms for row in rows], color=colours)
        other = {row.name: row.ms for kind in kinds[1:] for row in speed_rows(batch, kind)}
        for place, row in enumerate(rows):
            end, words = row.ms, f"{row.ms:.3g}"
            if row.name in other:
                axis.plot(other[row.name], place, "D", color="k", markersize=3)
                end, words = max(end, other[row.name]), f"{words} / {other[row.name]:.3g}"
            axis.text(end, place, f"  {words}", va="center", fontsize=6.5)
        axis.set_xlim(0, 1.25 * max([row.ms for row in rows] + list(other.values())))
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=7)
        title = f"batch {batch}: bars {KINDS[kinds[0]]}"
        axis.set_title(f"{title}, diamonds {KINDS[kinds[1]]}" if other else title, fontsize=9)
        axis.set_xlabel("milliseconds a call, one thread")
        axis.grid(axis="y", visible=False)
    return fig


def describe_speed(batches: tuple[int, ...] = (1, 64)) -> str:
    """`plot_speed` in words."""
    parts = []
    for batch in batches:
        for kind in recorded_kinds(batch):
            rows = speed_rows(batch, kind)
            floats = next(row for row in rows if row.dtype == "float32")
            ints = next((row for row in rows if row.dtype == "int8"), None)
            text = f"batch {batch}, {KINDS[kind]}: best float32 {floats.words} {floats.ms:.3g} ms"
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
    """A Markdown table of a batch's rows, two columns a kind of processor; what lost says why."""
    rows = {kind: speed_rows(batch, kind) for kind in recorded_kinds(batch)}
    refused = {ROWS[name].words: reason for name, reason in refused_rows(batch).items()}
    return _table(rows, refused, f"batch {batch}, one thread", quality=True)


def gpt_table(batch: int) -> str:
    """The same of the language model: milliseconds of a cached drawing of 49 tokens."""
    rows = {kind: _rows_of(batch, kind, GPT_ROWS, "gpt_") for kind in KINDS}
    rows = {kind: found for kind, found in rows.items() if found}
    refused = refused_rows(batch, GPT_ROWS, "gpt_")
    refused = {GPT_ROWS[name].words: reason for name, reason in refused.items()}
    what = "a drawing" if batch == 1 else f"{batch} drawings at once"
    return _table(rows, refused, f"{what} of 49 tokens, one thread", quality=False)


def _table(
    rows: Mapping[str, Sequence[SpeedRow]], refused: Mapping[str, str], title: str, quality: bool
) -> str:
    """Rows of each kind of processor side by side, sorted by the first kind's milliseconds."""
    heads = [f"ms, {KINDS[kind]} | over the best float32" for kind in rows]
    heads += ["FID | "] if quality else [""]
    columns = 2 * len(rows) + (2 if quality else 1)
    lines = [f"| {title} | {' | '.join(heads)} |", "|---|" + "---|" * columns]
    named = [{row.name: row for row in found} for found in rows.values()]
    places = {n: [found[n].ms if n in found else math.inf for found in named]
              for found in named for n in found}  # fmt: skip
    for name in sorted(places, key=lambda n: places[n]):
        here = [found.get(name) for found in named]
        cells = [
            f"{row.ms:.3g} | {row.speedup:.2f}x [{row.low:.2f}, {row.high:.2f}]" if row else " | "
            for row in here
        ]
        known = [row for row in here if row]
        if quality:
            cells.append("" if known[0].fid is None else f"{known[0].fid:.2f}")
        cells.append(next((row.why for row in known if row.why), ""))
        lines.append(f"| {known[0].words} | {' | '.join(cells)} |")
    for words, reason in refused.items():
        lines.append(f"| {words} |{' |' * (columns - 1)} {reason} |")
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
