"""Figures and tables of notebook 11, each with its words, from what is recorded."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fastgen_course.compression.channels import LAYERS
from fastgen_course.compression.int8_profile import GROUPS, OTHER
from fastgen_course.compression.pruning_records import (
    AREA,
    CUT_SHARE,
    SCORED_ZEROS,
    ZEROS,
    percent,
)
from fastgen_course.compression.pruning_rows import ROWS
from fastgen_course.compression.pruning_speed import ROWS as SPEED_ROWS
from fastgen_course.compression.sensitivity import SHARES
from fastgen_course.compression.sparsity import TICKETS
from fastgen_course.show import PALETTE
from fastgen_course.timing import ResultError, result


def value(name: str) -> float:
    """A recorded figure of this notebook. Raises `ResultError` where it was not recorded."""
    return result(f"{AREA}.{name}").value


def share_of_variance(name: str) -> float:
    """A recorded paired error as a share of the whole generator's variance over pictures."""
    return value(f"paired_mse.{name}") / value("picture_variance")


def plot_sensitivity() -> Figure:
    """The pictures' error against the share of one layer's channels removed, a line a layer."""
    fig, axis = plt.subplots(figsize=(5.4, 3.3))
    for colour, layer in enumerate(LAYERS):
        errors = [share_of_variance(f"{layer}_{percent(s)}") for s in SHARES]
        axis.plot(SHARES, errors, ".-", color=PALETTE[colour % len(PALETTE)], label=layer)
    axis.set(xlabel="share of the layer's channels removed", yscale="log",
             ylabel="error, as a share of the variance")  # fmt: skip
    axis.legend(fontsize=8)
    return fig


def describe_sensitivity() -> str:
    """`plot_sensitivity` in words."""
    share = percent(CUT_SHARE)
    found = sorted((share_of_variance(f"{layer}_{share}"), layer) for layer in LAYERS)
    parts = [f"{layer} {error:.2g}" for error, layer in found]
    return (
        f"Error of the pictures with {share} % of one layer's channels removed, least first: "
        + (", ".join(parts) + ".")
    )


def sensitivity_table() -> str:
    """A Markdown table: each layer's paired error and FID with CUT_SHARE of its channels gone."""
    share = percent(CUT_SHARE)
    lines = [f"| {share} % of the channels removed from | paired error | FID |", "|---|---|---|"]
    for layer in LAYERS:
        error = share_of_variance(f"{layer}_{share}")
        lines.append(f"| {layer} | {error:.3f} | {value(f'fid.cut_{layer}'):.1f} |")
    return "\n".join(lines)


def agreement() -> float:
    """Spearman's rank correlation of paired error and FID over the six layers."""
    errors = [share_of_variance(f"{layer}_{percent(CUT_SHARE)}") for layer in LAYERS]
    return spearman(errors, [value(f"fid.cut_{layer}") for layer in LAYERS])


def spearman(one: list[float], other: list[float]) -> float:
    """The rank correlation of two lists without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    ranks = [[sorted(values).index(v) for v in values] for values in (one, other)]
    n = len(one)
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n * n - 1))


def shapes_table() -> str:
    """A Markdown table of the finalists: three ways to spend the same products, untrained."""
    lines = ["| widths | MACs | paired error | FID, untrained |", "|---|---|---|---|"]
    for name in ("even", "late", "ours"):
        row = result(f"{AREA}.paired_mse.shape_{name}")
        widths = ", ".join(str(w) for w in row.extra["widths"])
        error, fid = share_of_variance(f"shape_{name}"), value(f"fid.shape_{name}")
        lines.append(f"| {name}: {widths} | {row.extra['macs']:,} | {error:.3f} | {fid:.1f} |")
    return "\n".join(lines)


def plot_zeros() -> Figure:
    """The pictures' error against the share of single weights set to zero."""
    fig, axis = plt.subplots(figsize=(5.4, 3.3))
    for colour, (kind, words) in enumerate((("magnitude", "smallest"), ("chance", "of chance"))):
        errors = [share_of_variance(f"{kind}_zeros_{percent(s)}") for s in ZEROS]
        axis.plot(ZEROS, errors, ".-", color=PALETTE[colour], label=words)
    mended = [share_of_variance(f"zeros_{percent(s)}_mended") for s in SCORED_ZEROS]
    axis.plot(SCORED_ZEROS, mended, "*--", color=PALETTE[2], label="smallest, mended", ms=9)
    axis.plot([0.5], [share_of_variance("two_four")], "s", color=PALETTE[3], label="2:4")
    axis.plot([0.5], [share_of_variance("two_four_mended")], "s", mfc="none", color=PALETTE[3],
              label="2:4, mended")  # fmt: skip
    axis.set(xlabel="share of weights that are zero", yscale="log",
             ylabel="error, as a share of the variance")  # fmt: skip
    axis.legend(fontsize=8)
    return fig


def describe_zeros() -> str:
    """`plot_zeros` in words."""
    parts = []
    for share in SCORED_ZEROS:
        at = percent(share)
        small, chance = (share_of_variance(f"{k}_zeros_{at}") for k in ("magnitude", "chance"))
        mended = share_of_variance(f"zeros_{at}_mended")
        parts.append(f"{at} %: smallest {small:.2g}, chance {chance:.2g}, mended {mended:.2g}")
    return "Error of the pictures against the share of zero weights. " + "; ".join(parts) + "."


def zeros_table() -> str:
    """A Markdown table of FIDs and bytes of masked networks, as cut and mended."""
    lines = [
        "| zeros | FID as cut | FID mended | MB with a bitmap | MB dense |",
        "|---|---|---|---|---|",
    ]
    for share in SCORED_ZEROS:
        name = f"zeros_{percent(share)}"
        sizes = [value(f"{how}_bytes.{name}") / 1e6 for how in ("bitmap", "dense")]
        lines.append(
            f"| {share:.0%}, the smallest | {value(f'fid.{name}'):.2f} | "
            f"{value(f'fid.{name}_mended'):.2f} | {sizes[0]:.2f} | {sizes[1]:.2f} |"
        )
    lines.append(f"| 2:4 | {value('fid.two_four'):.2f} | {value('fid.two_four_mended'):.2f} | | |")
    return "\n".join(lines)


def lottery_table() -> str:
    """A Markdown table of the lottery's rows: what each left unexplained, every draw."""
    lines = ["| begins with | error, as a share of the variance | each draw |", "|---|---|---|"]
    for name, ticket in TICKETS.items():
        row = result(f"{AREA}.lottery.{name}")
        draws = ", ".join(f"{error:.3f}" for error in row.extra["by_seed"])
        lines.append(f"| {ticket.words} | {row.value:.3f} | {draws} |")
    return "\n".join(lines)


def compared_table() -> str:
    """A Markdown table of ROWS at equal updates: shape, products, error, FID, accuracy."""
    lines = [
        "| row | widths | MACs, millions | paired error | FID | exact accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, words in ROWS.items():
        try:
            macs, fid = result(f"{AREA}.macs.{name}"), result(f"{AREA}.fid.{name}")
        except ResultError:
            continue
        widths = " ".join(str(w) for w in macs.extra["widths"])
        exact = value(f"exact_accuracy.{name}")
        lines.append(
            f"| {words} | {widths} | {macs.value / 1e6:.2f} | {share_of_variance(name):.3f} | "
            f"{fid.value:.2f} | {exact:.3f} |"
        )
    return "\n".join(lines)


def plot_compared() -> Figure:
    """Bars of FID of ROWS at equal updates, best on top, GENERATOR_BASE as a line."""
    found = sorted((value(f"fid.{name}"), words) for name, words in ROWS.items() if _has(name))
    fig, axis = plt.subplots(figsize=(6.4, 2.9))
    ours = [PALETTE[1] if words == ROWS["rounds"] else PALETTE[0] for _, words in found]
    axis.barh([words for _, words in found], [fid for fid, _ in found], color=ours)
    for place, (fid, _) in enumerate(found):
        axis.text(fid, place, f" {fid:.1f}", va="center", fontsize=8)
    axis.axvline(value("fid.base"), color=PALETTE[6], lw=0.9, label="GENERATOR_BASE")
    axis.invert_yaxis()
    axis.set(xlabel="FID")
    axis.grid(axis="y", visible=False)
    axis.legend(fontsize=8)
    return fig


def describe_compared() -> str:
    """`plot_compared` in words."""
    found = sorted((value(f"fid.{name}"), words) for name, words in ROWS.items() if _has(name))
    rows = "; ".join(f"{words} {fid:.2f}" for fid, words in found)
    return f"FID at equal updates, best first: {rows}. GENERATOR_BASE: {value('fid.base'):.2f}."


def _has(name: str) -> bool:
    try:
        result(f"{AREA}.fid.{name}")
    except ResultError:
        return False
    return True


def speed_table(batch: int) -> str:
    """A Markdown table of a batch's rows, fastest first, with the reason where one is known."""
    lines = [f"| batch {batch}, one thread | ms | over the best whole | |", "|---|---|---|---|"]
    rows = sorted((value(f"{name}.batch{batch}_ms"), name) for name in SPEED_ROWS)
    for ms, name in rows:
        ratio = result(f"{AREA}.{name}.batch{batch}_speedup")
        why = result(f"{AREA}.{name}.batch{batch}_ms").extra.get("why") or ""
        low, high = ratio.spread
        lines.append(
            f"| {SPEED_ROWS[name]} | {ms:.3g} | {ratio.value:.2f}x [{low:.2f}, {high:.2f}] "
            f"| {why} |"
        )
    return "\n".join(lines)


def split_table(batch: int) -> str:
    """A Markdown table: where the milliseconds of the whole and the pruned network go."""
    lines = [f"| batch {batch}, ms | whole | pruned | ratio |", "|---|---|---|---|"]
    totals = [0.0, 0.0]
    for group in (*GROUPS, OTHER):
        word = group.partition(",")[0].replace(" ", "_")
        both = [value(f"split_{side}.{word}.batch{batch}_ms") for side in ("whole", "pruned")]
        totals = [total + ms for total, ms in zip(totals, both, strict=True)]
        if both[0] > 0:
            ratio = f"{both[0] / both[1]:.2f}x" if both[1] else ""
            lines.append(f"| {group} | {both[0]:.3f} | {both[1]:.3f} | {ratio} |")
    lines.append(f"| all | {totals[0]:.3f} | {totals[1]:.3f} | {totals[0] / totals[1]:.2f}x |")
    return "\n".join(lines)
