"""Milliseconds of pruned networks: ONNX Runtime, float32, one thread, interleaved call by call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression.folding import FoldedGenerator, fold, set_layer
from fastgen_course.compression.int8_graphs import example_inputs, float_graph
from fastgen_course.compression.int8_profile import grouped_times, operator_times
from fastgen_course.compression.pruning import PRUNED_WIDTHS, START, prune
from fastgen_course.compression.sparsity import magnitude_masks, masked, two_of_four_masks
from fastgen_course.models.generator import Generator
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.runtimes.onnx_macs import onnx_macs
from fastgen_course.timing import Comparison, compare, record, record_timing

AREA = "pruning"
SHIPPED = "generator_pruned"
BATCHES = (1, 64)
ROWS: dict[str, str] = {
    "base": "GENERATOR_BASE, norms and all",
    "base_transposed": "GENERATOR_BASE folded, transposed convolutions",
    "base_blocks": "GENERATOR_BASE folded, blocks of pixels",
    "pruned_transposed": "pruned, transposed convolutions",
    "pruned_blocks": "pruned, blocks of pixels",
    "odd": "pruned, one channel less in each layer",
    "two_four": "GENERATOR_BASE, two of four weights zero",
    "zeros_90": "GENERATOR_BASE, 90 % of the weights zero",
}
WHY = {
    "base": "norms are steps of their own, unless the runtime folds them",
    "odd": "fewer products, but kernels take channels by the width of a vector register",
    "two_four": "the kernel multiplies by every zero",
    "zeros_90": "the kernel multiplies by every zero",
}
# The fastest of each side makes the headline; all compute GENERATOR_BASE or the shipped network.
WHOLE = ("base", "base_transposed", "base_blocks")
PRUNED = ("pruned_transposed", "pruned_blocks")


def in_form(network: FoldedGenerator, form: str) -> FoldedGenerator:
    """A folded generator with its upsampling in the other form; the same pictures."""
    if network.form == form:
        return network
    if network.form != "transposed":
        raise ValueError("in_form starts from transposed convolutions, the form that is stored.")
    made = FoldedGenerator(network.config, form).eval()
    for name, module in network.named_children():
        if name in ("up14", "up28"):
            set_layer(getattr(made, name), module.weight.detach(), module.bias.detach())
        else:
            getattr(made, name).load_state_dict(module.state_dict())
    return made.requires_grad_(False)


def row_network(name: str, base: Generator, pruned: FoldedGenerator) -> nn.Module:
    """The network of a row of ROWS, made from the two that are compared."""
    folded = fold(base)
    if name == "base":
        return base
    if name in ("base_transposed", "base_blocks"):
        return fold(base, name.removeprefix("base_"))
    if name in PRUNED:
        return in_form(pruned, name.removeprefix("pruned_"))
    if name == "odd":  # no width is a multiple of 8
        widths = tuple(width - 1 for width in pruned.config.channels)
        return prune(pruned, widths, "magnitude")
    if name == "two_four":
        return masked(folded, two_of_four_masks(folded))
    if name == "zeros_90":
        return masked(folded, magnitude_masks(folded, 0.9))
    raise ValueError(f"there is no row {name!r}; choose from {', '.join(ROWS)}.")


def graph_macs(network: nn.Module, folder: Path) -> dict[str, int]:
    """Multiply-accumulates of the exported graph for one picture, by kind of layer."""
    return onnx_macs(float_graph(network, folder / "macs.onnx"))


def time_rows(
    networks: Mapping[str, nn.Module], batch: int, folder: Path, seconds: float = 20.0
) -> Comparison:
    """All networks exported, checked against PyTorch, and timed in turn on one thread."""
    calls = {}
    for name, network in networks.items():
        runner = OnnxModel(float_graph(network, folder / f"{name}.onnx"), threads=1)
        given = [x.numpy() for x in example_inputs(network, batch)]
        calls[name] = partial(runner, *given)
    return compare(calls, batch=batch, threads=1, device="cpu", min_repeats=30, max_seconds=seconds)


def split_times(network: nn.Module, batch: int, folder: Path, calls: int = 30) -> dict[str, float]:
    """Milliseconds of the exported network by kind of operator, by the runtime's own clock."""
    path = float_graph(network, folder / "split.onnx")
    return grouped_times(operator_times(path, example_inputs(network, batch), calls))


def record_speed(command: str, seconds: float, tiny: bool = False) -> None:
    """Time ROWS and record them, the headline `pruning.speedup`, and where the time goes."""
    base = load_model(START)
    pruned = prune(fold(base), PRUNED_WIDTHS, "magnitude") if tiny else load_model(SHIPPED)
    same: dict[str, Any] = {"command": command, "base": START}
    if not tiny:
        same["weights"] = "-".join(load_card(n)["sha256"][:12] for n in (START, SHIPPED))
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        folder = Path(place)
        networks = {name: row_network(name, base, pruned) for name in ROWS}
        for batch in (1, 2) if tiny else BATCHES:
            rows = time_rows(networks, batch, folder, 2.0 if tiny else seconds)
            print(rows.table(), flush=True)
            best = min(WHOLE, key=lambda n: rows[n].median_ms)
            for name, timing in rows.items():
                if not tiny:
                    record_timing(
                        AREA, f"{AREA}.{name}.batch{batch}_ms", timing, runtime="onnxruntime",
                        why=WHY.get(name), **same,
                    )  # fmt: skip
                _ratio(rows, name, best, batch, f"{AREA}.{name}.batch{batch}_speedup", same, tiny)
            ours = min(PRUNED, key=lambda n: rows[n].median_ms)
            title = f"{AREA}.speedup" if batch == 64 else f"{AREA}.speedup_batch{batch}"
            _ratio(rows, ours, best, batch, title, same, tiny)
            for name in (best, ours):
                calls = 3 if tiny else 100 if batch == 1 else 20
                side = "whole" if name == best else "pruned"
                parts = split_times(networks[name], batch, folder, calls)
                _record_split(parts, side, batch, same, tiny)


def _ratio(
    rows: Comparison, name: str, over: str, batch: int, title: str, same: dict[str, Any], tiny: bool
) -> None:
    ratio = rows.speedup(name, over=over)
    print(f"{title:44} {ratio}", flush=True)
    if not tiny:
        record(
            AREA, title, ratio.value, "x", spread=(ratio.low, ratio.high), batch=batch, threads=1,
            dtype="float32", runtime="onnxruntime", row=name, over=over, **same,
        )  # fmt: skip


def _record_split(
    parts: dict[str, float], side: str, batch: int, same: dict[str, Any], tiny: bool
) -> None:
    for group, ms in parts.items():
        word = group.partition(",")[0].replace(" ", "_")
        print(f"{side:8} {group:36} {ms:8.3f} ms", flush=True)
        if not tiny:
            record(
                AREA, f"{AREA}.split_{side}.{word}.batch{batch}_ms", ms, "ms", spread=None,
                batch=batch, threads=1, dtype="float32", runtime="onnxruntime", **same,
            )  # fmt: skip
