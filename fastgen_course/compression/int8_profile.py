"""Where a graph's milliseconds go in ONNX Runtime, operator by operator."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from torch import Tensor

# What operators are for, so that a float graph and an integer graph can stand side by side.
GROUPS = {
    "convolutions": ("Conv", "FusedConv", "ConvTranspose", "QLinearConv", "ConvInteger"),
    "matrix products": ("Gemm", "MatMul", "QGemm", "FusedGemm", "MatMulInteger"),
    "to integers and back": ("QuantizeLinear", "DequantizeLinear"),
    "layout": (
        "Transpose", "Reshape", "Slice", "ReorderInput", "ReorderOutput", "Split", "Concat",
        "DepthToSpace", "Unsqueeze",
    ),
}  # fmt: skip
OTHER = "modulation, ReLU, tanh, captions"


def operator_times(
    path: Path | str, given: tuple[Tensor, ...], calls: int = 30
) -> list[tuple[str, str, float]]:
    """(operator, node, milliseconds) of every node, longest first; the median of `calls` calls.

    On one thread, by ONNX Runtime's own clock, which takes a little time itself.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {node.name: x.numpy() for node, x in zip(session.get_inputs(), given, strict=True)}
        for _ in range(calls):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            times[event["args"]["op_name"], node].append(event["dur"] / 1000)
    rows = [(kind, node, statistics.median(ms)) for (kind, node), ms in times.items()]
    return sorted(rows, key=lambda row: -row[2])


def grouped_times(rows: list[tuple[str, str, float]]) -> dict[str, float]:
    """Milliseconds by group of `GROUPS`, and of the rest."""
    group_of = {kind: group for group, kinds in GROUPS.items() for kind in kinds}
    sums: Counter[str] = Counter(dict.fromkeys((*GROUPS, OTHER), 0.0))
    for kind, _, ms in rows:
        sums[group_of.get(kind, OTHER)] += ms
    return dict(sums)
