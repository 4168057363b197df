"""The roofs of a machine on any device, and how near GENERATOR_BASE comes to them.

    python -m fastgen_course.runtimes.hardware_peak '{"runtime": "openvino", "threads": 1}'

measures one runtime in a process of its own, beside the peak; `hardware_records peak` takes them in
turn.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastgen_course.runtimes.hardware_networks import Network, inputs, shipped_network, tiny_network
from fastgen_course.runtimes.hardware_runtimes import Runtime
from fastgen_course.runtimes.onnx_export import export_onnx
from fastgen_course.runtimes.onnx_macs import onnx_macs
from fastgen_course.runtimes.openvino_model import OpenVinoModel
from fastgen_course.timing import measure

PEAK_SIZES = {
    "cpu": (256, 384, 512, 768, 1024, 1536),
    "cuda": (2048, 4096, 8192),
    "mps": (1024, 2048, 4096),
}
BATCH = 64
# How a runtime's node types begin; the longer beginning first.
_KINDS = {
    "ConvolutionBackpropData": "transposed_convolution",
    "Deconvolution": "transposed_convolution",
    "ConvTranspose": "transposed_convolution",
    "Conv": "convolution",
    "Gemm": "matrix_product",
    "MatMul": "matrix_product",
    "FullyConnected": "matrix_product",
}


def peak_rates(
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
    sizes: Sequence[int] | None = None,
    seconds: float = 3.0,
) -> tuple[float, float]:
    """FLOP/s of the best square matrix product: (median of its repeats, fastest repeat).

    `timing.roofline.gemm_peak` for any device and precision: 2 n^3 FLOPs for n x n. The fastest
    repeat is the peak, for a peak is the machine undisturbed.
    """
    sizes = sizes or PEAK_SIZES[torch.device(device).type]
    found = []
    for size in sizes:
        a, b = torch.rand(2, size, size, device=device).to(getattr(torch, dtype))
        out = torch.empty_like(a)
        timing = measure(
            lambda a=a, b=b, out=out: torch.mm(a, b, out=out),
            device=device,
            threads=threads,
            min_repeats=5,
            min_seconds=seconds / len(sizes) / 2,
            max_seconds=seconds / len(sizes),
        )
        flops = 2000 * size**3
        found.append((flops / timing.median_ms, flops / min(timing.times_ms)))
    return max(found, key=lambda pair: pair[1])


def copy_rates(
    device: str = "cpu", threads: int | None = None, megabytes: int = 128, seconds: float = 1.0
) -> tuple[float, float]:
    """Bytes a second of a copy, read plus written: (median, fastest); any device."""
    count = megabytes * 2**20 // 4
    source, target = torch.ones(count, device=device), torch.zeros(count, device=device)
    timing = measure(
        lambda: target.copy_(source),
        device=device,
        threads=threads,
        min_repeats=5,
        min_seconds=seconds / 2,
        max_seconds=seconds,
    )
    moved = 8000 * count
    return moved / timing.median_ms, moved / min(timing.times_ms)


def exported_macs(network: Network, batch: int) -> dict[str, int]:
    """MACs of the exported dense graph for a batch, by kind of layer (one forward)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        export_onnx(network.model, inputs(network, 2), path, tolerance=1e-3)
        return onnx_macs(path, batch)


def measure_beside_peak(
    runtime: str, threads: int = 1, batch: int = BATCH, tiny: bool = False
) -> dict[str, Any]:
    """GENERATOR_BASE in float32 and the GEMM peak, before and after it, on the same threads.

    Keys: `median_ms`, `low_ms`, `peak_flops` (the better of the two). With `runtime` openvino also
    `kinds_ms`: its nodes' own milliseconds by kind of layer, "other" for the rest.
    """
    network = (tiny_network if tiny else shipped_network)("generator_base")
    torch.set_num_threads(threads)
    settings: dict[str, Any] = {"sizes": (32,), "seconds": 0.02} if tiny else {}
    before = peak_rates(threads=threads, **settings)[1]
    with torch.no_grad(), Runtime(runtime, threads=threads).ready() as ready:
        call = ready(network, batch)["generator_base"]
        timing = measure(
            call, batch=batch, device="cpu", threads=threads, max_seconds=0.05 if tiny else 4.0
        )
    after = peak_rates(threads=threads, **settings)[1]
    row = {
        "median_ms": timing.median_ms,
        "low_ms": min(timing.times_ms),
        "peak_flops": max(before, after),
    }
    if runtime == "openvino":
        row["kinds_ms"] = openvino_kinds(network, batch, threads)
    return row


def openvino_kinds(
    network: Network, batch: int, threads: int, repeats: int = 20
) -> dict[str, float]:
    """Milliseconds of one forward by kind of layer, by OpenVINO's own clock: medians of repeats."""
    given = inputs(network, batch)
    totals: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        export_onnx(network.model, inputs(network, 2), path, tolerance=1e-3)
        model = OpenVinoModel(path, threads, batch, profile=True)
        for _ in range(repeats):
            model(*given)
            kinds: dict[str, float] = {}
            for node, ms in model.node_times():
                kind = kind_of(node)
                kinds[kind] = kinds.get(kind, 0.0) + ms
            totals.append(kinds)
    return {
        kind: sorted(t.get(kind, 0.0) for t in totals)[len(totals) // 2]
        for kind in sorted(set().union(*totals))
    }


def kind_of(node: str) -> str:
    """The kind of layer that a runtime's node type is: "other" for what multiplies nothing."""
    for prefix, kind in _KINDS.items():
        if node.startswith(prefix):
            return kind
    return "other"


if __name__ == "__main__":
    print(json.dumps(measure_beside_peak(**json.loads(sys.argv[1]))), flush=True)
