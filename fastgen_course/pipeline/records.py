"""What the full recipe makes, stage by stage: scored and timed into the registry.

    python -m fastgen_course pipeline --record

After the recipe itself this takes about ten minutes on one core (10,000 captions and three seeds a
stage); milliseconds want an idle machine. What is scored already is not scored again.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.deploy import Painter, write_lean_graph
from fastgen_course.compression.packed import stored_bytes
from fastgen_course.compression.quantized import QuantizedGenerator
from fastgen_course.files import read_json
from fastgen_course.metrics.delivered import FIGURES, SEEDS, delivered_quality
from fastgen_course.pipeline.stages import BASE, STAGES, Pipeline
from fastgen_course.timing import (
    Comparison,
    ResultError,
    compare,
    record,
    record_timing,
    result,
)

AREA = "pipeline"
COMMAND = "python -m fastgen_course pipeline --record"
STUDENT = "student_int8"
CAPTION = "a small red sneaker on a white background, sketch style"
# What the table calls a row, and the recorded names of its quality.
ROWS: dict[str, tuple[str, str]] = {
    "base": ("GENERATOR_BASE", "generator_base.{}"),
    "search": ("searched, the supernet's weights", "pipeline.{}.search"),
    "distil": ("distilled", "pipeline.{}.distil"),
    "prune": ("pruned and finetuned", "pipeline.{}.prune"),
    "quantise": ("in int8", "pipeline.{}.quantise"),
    "export": ("the same in OpenVINO", "pipeline.{}.quantise"),
    "student": ("the course's student, in int8 and OpenVINO", "ladder.{}.int8"),
}
SHOWN = {"fid": "FID", "exact_accuracy": "all attributes found", "recall": "recall"}


def record_pipeline(
    made: Pipeline, say: Callable[[str], None] = print, seconds: float = 30.0, **settings: Any
) -> None:
    """Score the stages' networks and time their graphs from string to picture, in turn.

    settings: of `delivered_quality`.
    """
    done = made.run()
    facts = read_json(made.folder / done.card)
    same = {"command": COMMAND, "base": BASE, "weights": done.key}
    for stage in STAGES:
        _score(made, stage, same, say, settings)
    record(
        AREA, f"{AREA}.minutes.total", facts["minutes"], "minutes", spread=None, **same,
        minutes_by_stage=facts["minutes_by_stage"], widths_by_stage=facts["widths_by_stage"],
        distance_by_stage=facts["distance_by_stage"],
    )  # fmt: skip
    record(
        AREA, f"{AREA}.stored_bytes", done.weight_bytes, "bytes", spread=None, **same,
        bytes_by_stage={name: _bytes(made.network(name)) for name in STAGES},
        bytes_of_base=_bytes(load_model(BASE)), bytes_of_student=_bytes(load_model(STUDENT)),
    )  # fmt: skip
    rows = time_stages(made, seconds)
    say(rows.table())
    for name, timing in rows.items():
        record_timing(AREA, f"{AREA}.{name}_ms", timing, runtime=_runtime(name), **same)
        for over in ("base", "student"):
            ratio = rows.speedup(name, over=over)
            record(
                AREA, f"{AREA}.{name}_over_{over}_speedup", ratio.value, "x",
                spread=(ratio.low, ratio.high), **same, batch=1, threads=1,
                dtype=timing.dtype, runtime=_runtime(name),
            )  # fmt: skip


def time_stages(made: Pipeline, seconds: float = 30.0) -> Comparison:
    """Milliseconds of ROWS from one string to one picture, a thread each, in turn."""
    done, calls = made.run(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for row in ROWS:
            path = folder / f"{row}.onnx"
            if row == "export":
                path = made.folder / done.graphs["openvino"]
            elif row == "student":
                write_lean_graph(load_model(STUDENT), path, "mixed")
            elif row == "quantise":
                path = made.folder / done.graphs["onnxruntime"]
            else:
                write_lean_graph(made.base if row == "base" else made.network(row), path)
            painter = Painter(path, _runtime(row))
            calls[row] = lambda p=painter: p([CAPTION])
        return compare(
            calls, batch=1, threads=1, device="cpu", min_repeats=200, min_seconds=seconds,
            max_seconds=2 * seconds, before_each=3,
            dtype={row: "int8" if row in ("quantise", "export", "student") else "float32"
                   for row in ROWS},
        )  # fmt: skip


def recorded_table() -> str:
    """The recorded stages as Markdown, GENERATOR_BASE before and the course's student behind them.

    Raises `ResultError` where the full recipe was never recorded.
    """
    minutes, stored = result(f"{AREA}.minutes.total").extra, result(f"{AREA}.stored_bytes").extra
    held = {**stored["bytes_by_stage"], "base": stored["bytes_of_base"],
            "student": stored["bytes_of_student"]}  # fmt: skip
    held["export"] = held["quantise"]
    lines = [
        "| | minutes | ms a picture | times faster | " + " | ".join(SHOWN.values()) + " | bytes |",
        "|---|---|---|---|" + "---|" * len(SHOWN) + "---|",
    ]
    for row, (words, quality) in ROWS.items():
        spent = minutes["minutes_by_stage"].get(row)
        found = [result(quality.format(figure)) for figure in SHOWN]
        lines.append(
            f"| {words} | {'' if spent is None else f'{spent:.1f}'} | "
            f"{result(f'{AREA}.{row}_ms').value:.3f} | "
            f"{result(f'{AREA}.{row}_over_base_speedup').value:.2f} | "
            + " | ".join(f"{r.value:.1%}" if r.unit == "share" else f"{r.value:.1f}" for r in found)
            + f" | {held[row]:,} |"
        )
    return "\n".join(lines)


def _score(
    made: Pipeline, stage: str, same: dict[str, str], say: Callable[[str], None],
    settings: dict[str, Any],
) -> None:  # fmt: skip
    """Record a stage's quality, unless these very weights were scored."""
    key = getattr(made, stage)().key
    with suppress(ResultError):
        known = [result(f"{AREA}.{figure}.{stage}") for figure in FIGURES]
        if all(row.extra.get("stage") == key for row in known):
            say(f"{stage}: scored already")
            return
    form = "blocks" if stage == "quantise" else "transposed"
    with tempfile.TemporaryDirectory() as folder:
        path = write_lean_graph(made.network(stage), Path(folder) / "graph.onnx", form)
        columns = delivered_quality(Painter(path, batch=None), **settings)
    for figure, values in columns.items():
        middle = statistics.fmean(values)
        record(
            AREA, f"{AREA}.{figure}.{stage}", middle, FIGURES[figure],
            spread=(min(*values, middle), max(*values, middle)), **same, stage=key, by_seed=values,
            runtime="onnxruntime", dtype="int8" if stage == "quantise" else "float32",
            seeds=list(settings.get("seeds", SEEDS)),
        )  # fmt: skip
    say(f"{stage}: " + ", ".join(f"{k} {statistics.fmean(v):.3f}" for k, v in columns.items()))


def _runtime(row: str) -> str:
    return "openvino" if row in ("export", "student") else "onnxruntime"


def _bytes(network: nn.Module) -> int:
    if isinstance(network, QuantizedGenerator):
        return stored_bytes(network)
    return 4 * sum(p.numel() for p in network.parameters())
