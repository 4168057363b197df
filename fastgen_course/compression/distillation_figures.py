"""Figures and tables of notebook 13, each with its words, from what is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.compression.distillation import ABLATION, ARCHITECTURES, ROW_WORDS
from fastgen_course.compression.distillation_order import ORDERS
from fastgen_course.compression.distillation_quality import (
    load_samples,
    recorded_quality,
    sample_words,
    sampled_rows,
)
from fastgen_course.compression.distillation_records import AREA, TEMPERATURES
from fastgen_course.compression.distillation_speed import ROWS
from fastgen_course.compression.response import RESPONSE_WORDS
from fastgen_course.compression.teacher_sets import KEPT
from fastgen_course.show import PALETTE, image_grid
from fastgen_course.timing import Result, ResultError, result

WORDS: dict[str, str] = {
    "real": "real pictures",
    "gpt": "teacher: language model",
    "flow": "teacher: flow, 32 guided forwards",
    "generator_base": "teacher: GENERATOR_BASE (longer trained)",
    "student": "the shipped student (longer trained)",
    **ROW_WORDS,
    **{f"student_{name}": f"the {name} architecture, same recipe" for name in ARCHITECTURES},
    **{f"order_{name}": ", ".join(stages) for name, stages in ORDERS.items()},
}
TEACHER_ROWS = (*KEPT, "generator_base")
COLUMNS = {
    "exact_accuracy": ("exact", ".3f"),
    "fid": ("FID", ".1f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "drawing_distance": ("two drawings", ".3f"),
    "mean_distance": ("to the mean", ".3f"),
}


def recorded_rows(names: Sequence[str]) -> dict[str, dict[str, Result]]:
    """The rows among `names` that are recorded. Raises `ResultError` where none is."""
    found = {}
    for name in names:
        try:
            found[name] = recorded_quality(name)
        except ResultError:
            continue
    if not found:
        raise ResultError(
            f"none of {', '.join(names)} is recorded; run `python -m fastgen_course.compression."
            "distillation_records`."
        )
    return found


def quality_table(names: Sequence[str]) -> str:
    """A Markdown table of the recorded rows among `names`."""
    rows = recorded_rows(names)
    heads = [head for head, _ in COLUMNS.values()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, found in rows.items():
        values = [f"{found[figure].value:{form}}" for figure, (_, form) in COLUMNS.items()]
        lines.append(f"| {WORDS[name]} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def ablation_table() -> str:
    """Real pictures, the teachers and every row of the ablation."""
    others = [f"student_{name}" for name in ARCHITECTURES]
    return quality_table(["real", *TEACHER_ROWS, *ABLATION, *others])


def student_table() -> str:
    """The shipped student beside its teachers, GENERATOR_BASE and real pictures."""
    return quality_table(["real", *TEACHER_ROWS, "student"])


def order_table() -> str:
    """Every order at equal total updates."""
    return quality_table([f"order_{name}" for name in ORDERS])


def plot_ablation() -> Figure:
    """Exact accuracy against FID of every row; the size of a mark is the recall."""
    marks = {"regression": "s", "teacher": "*", "real": "P", "adversarial": "o"}  # by first word
    fig, axis = plt.subplots(figsize=(7.4, 3.8))
    rows = recorded_rows(["real", *TEACHER_ROWS, *ABLATION])
    for index, (name, found) in enumerate(rows.items()):
        kind = "teacher" if name in TEACHER_ROWS else ROW_WORDS.get(name, name)
        kind = kind.replace(",", " ").split()[0]
        axis.scatter(
            found["fid"].value, found["exact_accuracy"].value, marker=marks[kind],
            s=20 + 140 * found["recall"].value, color=PALETTE[index % len(PALETTE)],
            label=WORDS[name], alpha=0.85, linewidths=0,
        )  # fmt: skip
    axis.set(xlabel="FID (log)", ylabel="exact accuracy", xscale="log")
    axis.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=0.6)
    return fig


def describe_ablation() -> str:
    """`plot_ablation` in words."""
    rows = recorded_rows(["real", *TEACHER_ROWS, *ABLATION])
    parts = [
        f"{WORDS[name]}: FID {found['fid'].value:.3g}, exact {found['exact_accuracy'].value:.3f}, "
        f"recall {found['recall'].value:.2f}"
        for name, found in rows.items()
    ]
    return "Exact accuracy against FID. " + "; ".join(parts) + "."


def plot_samples(names: Sequence[str]) -> Figure:
    """Pictures of the sample captions, a row each; the same caption twice next to each other."""
    known = [name for name in names if name in sampled_rows()]
    if not known:
        load_samples(names[0])  # says what to run
    images = torch.stack([load_samples(name) for name in known])
    copies = images.shape[2]
    labels = [_short(WORDS[name]) for name in known]
    return image_grid(images.flatten(0, 2), images.shape[1] * copies, row_labels=labels, scale=0.75)


def describe_samples(names: Sequence[str]) -> str:
    """`plot_samples` in words."""
    texts, _ = sample_words()
    rows = "; ".join(WORDS[name] for name in names if name in sampled_rows())
    return f"Two drawings each of {'; '.join(texts)}. Rows from above: {rows}."


def _short(text: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


# --- the language model ---------------------------------------------------------------------------


def gradient_rows(which: str) -> list[float]:
    """Recorded gradient lengths at TEMPERATURES: "plain", or "scaled" by T^2."""
    names = [f"{AREA}.gradient_{which}.t{t:g}".replace("t0.5", "t0_5") for t in TEMPERATURES]
    return [result(name).value for name in names]


def plot_gradients() -> Figure:
    """The gradient's length against T on real logits, with and without the factor T^2."""
    fig, axis = plt.subplots(figsize=(4.8, 2.9))
    plain, scaled = gradient_rows("plain"), gradient_rows("scaled")
    limit = result(f"{AREA}.gradient_scaled.t1").extra["limit"]
    axis.loglog(TEMPERATURES, plain, ".-", color=PALETTE[0], label="KL")
    axis.loglog(TEMPERATURES, scaled, ".-", color=PALETTE[1], label="T² KL")
    axis.axhline(limit, color=PALETTE[6], lw=0.9, ls=":", label="the limit, |s - t| / K")
    slope = [plain[-1] * (TEMPERATURES[-1] / t) ** 2 for t in TEMPERATURES[2:]]
    axis.loglog(TEMPERATURES[2:], slope, "--", color=PALETTE[6], lw=0.9, label="1 / T²")
    axis.set(xlabel="temperature T", ylabel="length of the gradient")
    axis.legend(fontsize=8)
    return fig


def describe_gradients() -> str:
    """`plot_gradients` in words."""
    plain, scaled = gradient_rows("plain"), gradient_rows("scaled")
    first, last = TEMPERATURES.index(1.0), len(TEMPERATURES) - 1
    return (
        f"Length of the gradient against T on a log scale. Without the factor {plain[first]:.2g} "
        f"at T = 1 and {plain[last]:.2g} at T = {TEMPERATURES[last]:g}; with T squared "
        f"{scaled[first]:.2g} and {scaled[last]:.2g}."
    )


def response_table() -> str:
    """A Markdown table of the small language models."""
    lines = [
        "| learned from | nats a token, held out | KL from the teacher | accepted | minutes |",
        "|---|---|---|---|---|",
    ]
    for name, words in RESPONSE_WORDS.items():
        nats, kl, accepted = (
            result(f"{AREA}.response_{figure}.{name}").value
            for figure in ("nats", "kl", "acceptance")
        )
        minutes = result(f"{AREA}.minutes.response_{name}").value
        lines.append(f"| {words} | {nats:.3f} | {kl:.3f} | {accepted:.3f} | {minutes:.1f} |")
    return "\n".join(lines)


# --- milliseconds ---------------------------------------------------------------------------------


def speed_rows(batch: int = 1) -> dict[str, Result]:
    """The recorded milliseconds of a batch. Raises `ResultError` where none is recorded."""
    found = {}
    for name in ROWS:
        try:
            found[name] = result(f"{AREA}.{name}.batch{batch}_ms")
        except ResultError:
            continue
    if not found:
        raise ResultError(
            f"no times at batch {batch} are recorded; run `python -m fastgen_course.compression."
            "distillation_records speed` on an idle machine."
        )
    return found


def speed_table(batch: int = 1) -> str:
    """A Markdown table of every row: milliseconds, and the student's ratio within its family."""
    lines = [
        f"| batch {batch}, one thread | ms | over the fastest teacher row of the same runtime |",
        "|---|---|---|",
    ]
    for name, row in speed_rows(batch).items():
        ratio = ""
        if ROWS[name].network == "student":
            found = result(f"{AREA}.{name}.batch{batch}_speedup")
            low, high = found.spread
            over = ROWS[found.extra["over"]].words
            ratio = f"{found.value:.0f}x [{low:.0f}, {high:.0f}] ({over})"
        lines.append(f"| {ROWS[name].words} | {row.value:.3g} | {ratio} |")
    return "\n".join(lines)


def plot_speed(batch: int = 1) -> Figure:
    """Bars of milliseconds on a log scale, teacher above student."""
    rows = speed_rows(batch)
    colours: Mapping[str, str] = {
        "teacher": PALETTE[0], "base": PALETTE[2], "student": PALETTE[1]
    }  # fmt: skip
    fig, axis = plt.subplots(figsize=(6.4, 0.36 * len(rows) + 0.7))
    axis.barh(
        [ROWS[name].words for name in rows],
        [row.value for row in rows.values()],
        color=[colours[ROWS[name].network] for name in rows],
    )
    for place, row in enumerate(rows.values()):
        axis.text(row.value, place, f" {row.value:.3g}", va="center", fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=7)
    axis.set(xlabel="milliseconds a picture, one thread (log)", xscale="log")
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.12)
    return fig


def describe_speed(batch: int = 1) -> str:
    """`plot_speed` in words."""
    parts = [f"{ROWS[name].words} {row.value:.3g} ms" for name, row in speed_rows(batch).items()]
    return f"Bars of milliseconds at batch {batch}: " + "; ".join(parts) + "."
