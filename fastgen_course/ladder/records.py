"""The quality of the rungs that nobody scored yet, and the ladder's figures, in the registry.

    python -m fastgen_course ladder --record

Quality takes about two minutes a row on one core (10,000 captions, three seeds; a token model's
about five, with one seed) and goes on where a killed run stopped; milliseconds want an idle
machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgen_course.files import atomic_write, data_path, read_json, sha256_of
from fastgen_course.ladder.figures import draw_chart
from fastgen_course.ladder.measuring import (
    BATCH,
    Ladder,
    Row,
    half_size_sentence,
    recorded_quality,
    rival_sentence,
    split,
    split_sentence,
    spread_of,
    three_ratios,
)
from fastgen_course.ladder.rungs import CHANGES, OWN, Rung
from fastgen_course.metrics.delivered import FIGURES, PICTURES, SEEDS, Draw, delivered_quality
from fastgen_course.timing import describe_machine, record

AREA = "ladder"
COMMAND = "python -m fastgen_course ladder --record"
RECORDED = ("recordings", "ladder.json")
CHART = ("pictures", "ladder.png")
SLOW = "tokenizer"  # who draws with it is scored with one seed


def record_quality(
    rungs: Sequence[Rung], folder: Path, say: Callable[[str], None] = print, **settings: Any
) -> None:
    """Score the rungs whose quality nobody recorded with these weights, one row after another."""
    for rung in rungs:
        if not rung.quality.startswith(f"{AREA}.") or rung.missing:
            continue
        if set(recorded_quality(rung)) == set(FIGURES):
            say(f"{rung.words}: scored already")
            continue
        name = rung.quality.removeprefix(OWN)
        chosen = {"seeds": SEEDS[:1] if SLOW in rung.needs else SEEDS, **settings}
        columns = delivered_quality(_any_batch(rung, folder), **chosen)
        for figure, values in columns.items():
            middle = statistics.fmean(values)
            record(
                AREA, f"{AREA}.{figure}.{name}", middle, FIGURES[figure],
                spread=(min(*values, middle), max(*values, middle)), command=COMMAND,
                base=rung.needs[0], weights=rung.weights, by_seed=values, runtime=rung.runtime,
                dtype=rung.dtype, captions=settings.get("n", PICTURES),
            )  # fmt: skip
        say(f"{rung.words}: " + ", ".join(f"{k} {v[0]:.3f}" for k, v in columns.items()))


def _any_batch(rung: Rung, folder: Path) -> Draw:
    """A rung's drawing of whole chunks; a runtime bound to one batch gets one made for it."""
    made: dict[int, Draw] = {}

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        count = len(captions)
        if count not in made:
            made[count] = rung.make(folder, count)
        return made[count](captions, generator)

    return draw


def record_ladder(ladder: Ladder) -> None:
    """The rows, as README's table reads them, and the figures that the course quotes."""
    rungs = ladder.rungs
    first, last = rungs[0], rungs[-1]
    facts = {"command": COMMAND, "base": last.name, "rungs": [row.name for row in rungs]}
    timed = {**facts, "batch": 1, "threads": last.threads, "dtype": last.dtype}

    def ratio(name: str, fast: str, slow: str) -> None:
        value, spread = spread_of(ladder, fast, slow)
        record(AREA, f"{AREA}.{name}", value, "x", spread=spread, slow=slow, **timed)

    ratio("speedup_plain", last.name, first.name)
    if ladder.row("cached"):
        ratio("speedup_cached", last.name, "cached")
    if ladder.row("student_eager"):
        ratio("speedup_algorithm", "student_eager", first.name)
        ratio("speedup_system", last.name, "student_eager")
    times = ladder.timings[last.name].times_ms
    record(
        AREA, f"{AREA}.last_ms", last.batch1_ms, "ms",
        spread=(min(*times, last.batch1_ms), max(last.p90_ms, last.batch1_ms)),
        runtime=last.runtime, **timed,
    )  # fmt: skip
    if last.bytes is not None:
        record(AREA, f"{AREA}.last_bytes", last.bytes, "bytes", spread=None, **facts)
    if None not in (first.exact_accuracy, last.exact_accuracy):
        drop = first.exact_accuracy - last.exact_accuracy
        record(AREA, f"{AREA}.exact_accuracy_drop", drop, "share", spread=None, **facts)
    if None not in (first.fid, last.fid):
        record(AREA, f"{AREA}.fid_ratio", last.fid / first.fid, "x", spread=None, **facts)
    write_rows(ladder, data_path(*RECORDED), draw_chart(ladder.rows, data_path(*CHART)))


def all_runs(ladder: Ladder, path: Path) -> list[dict[str, Any]]:
    """What each recording of these two rungs came to, this one last: ms of both, and the total."""
    first, last = ladder.rungs[0], ladder.rungs[-1]
    now = {
        "first": first.name, "last": last.name, "machine": describe_machine(),
        "first_ms": first.batch1_ms, "last_ms": last.batch1_ms,
        "total": first.batch1_ms / last.batch1_ms,
    }  # fmt: skip
    before = read_json(path).get("runs", []) if path.is_file() else []
    return [run for run in before if (run["first"], run["last"]) == (first.name, last.name)] + [now]


def runs_sentence(runs: Sequence[dict[str, Any]]) -> str:
    """How far the total moved from one recording to the next; empty for a single one."""
    if len(runs) < 2:
        return ""
    low, high = (
        [pick(run[key] for run in runs) for key in ("total", "first_ms", "last_ms")]
        for pick in (min, max)
    )
    return (
        f"Of {len(runs)} recordings this is the last; the total lay between {low[0]:,.0f} and "
        f"{high[0]:,.0f}, the first rung between {low[1]:.0f} and {high[1]:.0f} ms, the last "
        f"between {low[2]:.3f} and {high[2]:.3f} ms."
    )


def write_rows(ladder: Ladder, path: Path, chart: Path) -> None:
    """One object a rung, what they come to, README's table and its chart's hash, as JSON."""
    runs = all_runs(ladder, path)
    what = {
        "runs": runs,
        "stability": runs_sentence(runs),
        "command": COMMAND,
        "machine": describe_machine(),
        "rows": [asdict(row) for row in ladder.rows],
        "ratios": three_ratios(ladder),
        "split": split(ladder),
        "sentence": split_sentence(ladder),
        "teacher": half_size_sentence(),
        "rival": rival_sentence(ladder),
        "left_out": ladder.left_out,
        "markdown": markdown_table(ladder.rows),
        "chart_sha256": sha256_of(chart),
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")


def recorded_rows() -> dict[str, Any]:
    """What `--record` wrote last, its rows as `Row`s. Raises `DataFileError` without it."""
    found = read_json(data_path(*RECORDED))
    return {**found, "rows": [Row(**row) for row in found["rows"]]}


# --- as text --------------------------------------------------------------------------------------

# What is left out, the row with it and the row without it, which differ in that technique alone and
# in what it brings along.
ABLATION: tuple[tuple[str, str, str], ...] = (
    ("the cache", "cached", "plain"),
    ("a network of one step (the masked model in four groups)", "base", "groups4"),
    ("the runtime (PyTorch, eager)", "student_pruned", "student_eager"),
    ("distilling and pruning (GENERATOR_BASE in int8)", "int8_openvino", "base_int8"),
    ("a shape by hand (the searched one, in int8)", "int8_openvino", "nas_int8"),
    ("pruning", "student_pruned", "student"),
    ("int8 (float32)", "int8_openvino", "float_lean"),
    ("the table of words, bytes in the graph", "int8_lean", "int8"),
    ("the second runtime (ONNX Runtime)", "int8_openvino", "int8_lean"),
)

COLUMNS = (
    "ms", "p90", f"pictures/s (1 or {BATCH})", "parameters", "MACs", "bytes", "FID", "exact",
    "garment", "held-out", "recall", "of peak", "to first", "to previous",
)  # fmt: skip


def _number(value: float | None, form: str = "{:.3g}") -> str:
    return "-" if value is None else form.format(value)


def _thousands(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def cells(row: Row) -> list[str]:
    """A row's cells, its name first."""
    share = "{:.1%}".format
    return [
        row.words,
        _number(row.batch1_ms),
        _number(row.p90_ms),
        _thousands(row.images_per_s),
        _thousands(row.params),
        _thousands(row.macs),
        _thousands(row.bytes),
        _number(row.fid),
        *("-" if v is None else share(v) for v in (
            row.exact_accuracy, row.garment_accuracy, row.heldout_exact_accuracy, row.recall,
            row.peak_share,
        )),
        _number(row.speedup_to_first, "{:.4g}x"),
        _number(row.speedup_to_previous, "{:.3g}x"),
    ]  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The rows as text, controls behind a line."""
    lines = [("", *COLUMNS), *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS) + 1)]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    first_control = next((i for i, row in enumerate(rows) if row.control), None)
    if first_control is not None:
        text.insert(first_control + 1, "control rows")
    return "\n".join(text)


def markdown_table(rows: Sequence[Row]) -> str:
    """README's table: fewer columns, controls marked."""
    lines = [
        "| rung | changes | ms a picture | to first | FID | all attributes found | bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        change = "control" if row.control else CHANGES.get(row.change, "the start")
        exact = "-" if row.exact_accuracy is None else f"{row.exact_accuracy:.1%}"
        lines.append(
            f"| {row.words} | {change} | {_number(row.batch1_ms)} | "
            f"{_number(row.speedup_to_first, '{:.4g}x')} | {_number(row.fid)} | {exact} | "
            f"{_thousands(row.bytes)} |"
        )
    return "\n".join(lines)


def ablation_table(rows: Sequence[Row]) -> str:
    """Each technique taken away by itself, as Markdown; pairs with a row missing are left out."""
    by_name = {row.name: row for row in rows}
    lines = [
        "| without | ms with it | ms without it | times | FID with it | FID without it |",
        "|---|---|---|---|---|---|",
    ]
    for words, name, other in ABLATION:
        if {name, other} <= by_name.keys():
            ours, theirs = by_name[name], by_name[other]
            lines.append(
                f"| {words} | {_number(ours.batch1_ms)} | {_number(theirs.batch1_ms)} | "
                f"{theirs.batch1_ms / ours.batch1_ms:.2f} | {_number(ours.fid)} | "
                f"{_number(theirs.fid)} |"
            )
    return "\n".join(lines)
