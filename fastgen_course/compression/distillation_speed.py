"""Milliseconds of teachers and student in each runtime, and how many times faster it became.

The teacher's milliseconds are those of its 49 cached forwards and the choice of each token.
Painting the tokens, another network's forward, is left out in the teacher's favour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression.folding import fold
from fastgen_course.models.generator import Generator
from fastgen_course.models.gpt import GPT
from fastgen_course.models.written_out import written_out
from fastgen_course.runtimes.hardware_networks import Call, Network, calls, inputs
from fastgen_course.runtimes.hardware_runtimes import Runtime, RuntimeRefusal
from fastgen_course.sampling.gpt import GPT_SAMPLING, sample_gpt
from fastgen_course.timing import Comparison, compare, record, record_timing

AREA = "distillation"
BATCHES = (1, 64)


@dataclass(frozen=True)
class SpeedRow:
    """One network in one runtime.

    Attributes:
        words: its name in tables.
        network: "teacher", "base" (GENERATOR_BASE) or "student".
        family: rows of one family are compared: the same library computes both.
    """

    words: str
    network: str
    family: str


ROWS: dict[str, SpeedRow] = {
    "gpt_eager": SpeedRow("language model, cached, PyTorch", "teacher", "eager"),
    "gpt_written_out": SpeedRow("the same, forward written out", "teacher", "eager"),
    "gpt_onnxruntime": SpeedRow("the same, ONNX Runtime", "teacher", "onnxruntime"),
    "gpt_openvino": SpeedRow("the same, OpenVINO", "teacher", "openvino"),
    "base_eager": SpeedRow("GENERATOR_BASE, PyTorch", "base", "eager"),
    "base_onnxruntime": SpeedRow("GENERATOR_BASE, ONNX Runtime", "base", "onnxruntime"),
    "student_eager": SpeedRow("student, PyTorch", "student", "eager"),
    "student_folded": SpeedRow("student, norms folded, PyTorch", "student", "eager"),
    "student_onnxruntime": SpeedRow("student, ONNX Runtime", "student", "onnxruntime"),
    "student_openvino": SpeedRow("student, OpenVINO", "student", "openvino"),
}
HEADLINE = ("student_onnxruntime", "gpt_onnxruntime")


@dataclass(frozen=True)
class Networks:
    """What is timed: the teacher, GENERATOR_BASE and the student, and which weights these are."""

    teacher: GPT
    base: Generator
    student: Generator
    weights: str

    @classmethod
    def shipped(cls) -> Networks:
        """The shipped ones. Raises `DataFileError` for one that is missing."""
        names = ("gpt", "generator_base", "student")
        key = "-".join(load_card(name)["sha256"][:12] for name in names)
        return cls(*(load_model(name) for name in names), key)


@contextmanager
def timed_calls(
    networks: Networks, batch: int, names: Sequence[str] = tuple(ROWS)
) -> Iterator[tuple[dict[str, Call], dict[str, str]]]:
    """(a call for each named row that runs here, why another cannot); all draw `batch` pictures."""
    found: dict[str, Call] = {}
    refused: dict[str, str] = {}
    teacher = Network("gpt", networks.teacher, networks.weights)
    generators = {
        "base": networks.base,
        "student": networks.student,
    }
    with ExitStack() as stack, torch.no_grad():
        makers: dict[str, Callable[[], Call]] = {
            "gpt_eager": lambda: calls(teacher, batch)["gpt"],
            "gpt_written_out": lambda: _written_out(teacher, batch),
            "student_folded": lambda: _one(fold(networks.student), batch),
        }
        for name, network in generators.items():
            makers[f"{name}_eager"] = partial(_one, network, batch)
        for family in ("onnxruntime", "openvino"):
            try:
                make = stack.enter_context(Runtime(family).ready())
            except RuntimeRefusal as error:
                refused |= {n: str(error) for n in names if ROWS[n].family == family}
                continue
            makers[f"gpt_{family}"] = lambda m=make: m(teacher, batch)["gpt"]
            for name, network in generators.items():
                if f"{name}_{family}" in ROWS:
                    makers[f"{name}_{family}"] = partial(_one, fold(network), batch, make)
        for name in names:
            if name in makers:
                try:
                    found[name] = makers[name]()
                except RuntimeRefusal as error:
                    refused[name] = str(error)
        yield found, refused


def _one(model: nn.Module, batch: int, make: Callable[..., dict[str, Call]] = calls) -> Call:
    """A generator's one forward in a runtime."""
    return make(Network("generator_base", model.eval(), "shipped"), batch)["generator_base"]


def _written_out(teacher: Network, batch: int) -> Call:
    words, uniform = inputs(teacher, batch)
    model = written_out(teacher.model)
    return lambda: sample_gpt(model, words, uniform, **GPT_SAMPLING)


def best_row(rows: Mapping[str, Any], network: str, family: str | None = None) -> str:
    """The fastest measured row of a network, in one family or in any."""
    known = [
        name
        for name in rows
        if ROWS[name].network == network and family in (None, ROWS[name].family)
    ]
    return min(known, key=lambda name: rows[name].median_ms)


def record_rows(rows: Comparison, batch: int, weights: str, command: str) -> None:
    """Record every row; the student's ratios to its teacher in the same family, and best to best.

    `distillation.speedup` is HEADLINE at batch 1.
    """
    for name, timing in rows.items():
        row = ROWS[name]
        base = {"teacher": "gpt", "base": "generator_base", "student": "student"}[row.network]
        extra = {"base": base, "runtime": row.family, "command": command, "weights": weights}
        record_timing(AREA, f"{AREA}.{name}.batch{batch}_ms", timing, **extra)
        if row.network == "student":
            over = best_row(rows, "teacher", row.family)
            _ratio(rows, f"{AREA}.{name}.batch{batch}_speedup", name, over, batch, extra)
    extra = {"base": "gpt", "command": command, "weights": weights}
    fastest, over = best_row(rows, "student"), best_row(rows, "teacher")
    runtime = f"{fastest} over {over}"
    name = f"{AREA}.best_batch{batch}_speedup"
    _ratio(rows, name, fastest, over, batch, {**extra, "runtime": runtime})
    if batch == 1 and all(name in rows for name in HEADLINE):
        runtime = " over ".join(HEADLINE)
        _ratio(rows, f"{AREA}.speedup", *HEADLINE, batch, {**extra, "runtime": runtime})


def _ratio(
    rows: Comparison, name: str, fast: str, slow: str, batch: int, extra: dict[str, Any]
) -> None:
    ratio = rows.speedup(fast, over=slow)
    record(
        AREA, name, ratio.value, "x", spread=(ratio.low, ratio.high), batch=batch, threads=1,
        dtype="float32", over=slow, **extra,
    )  # fmt: skip


def record_speed(command: str, seconds: float, tiny: bool = False) -> None:
    """Time all rows, interleaved on one thread; a trial prints and records nothing."""
    networks = Networks.shipped()
    for batch in (1,) if tiny else BATCHES:
        with timed_calls(networks, batch) as (found, refused):
            rows = compare(
                found, batch=batch, threads=1, device="cpu", min_repeats=2 if tiny else 20,
                max_seconds=1.0 if tiny else seconds, warmup=1 if tiny else "until stable",
                before_each=0 if tiny else 2,
            )  # fmt: skip
        print(rows.table(), flush=True)
        for name, reason in refused.items():
            print(f"{name}: {reason}", flush=True)
        if not tiny:
            record_rows(rows, batch, networks.weights, command)
