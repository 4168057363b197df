"""Run an exported ONNX file in OpenVINO on the CPU, beside `onnx_export.OnnxModel`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgen_course.files import DataFileError

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


@lru_cache(maxsize=1)
def _core() -> Any:
    """OpenVINO's one core of this process, never let go of.

    A core's CPU plugin gives the thread a signal stack of its own and puts the one before it back
    when it ends. Of two cores that end in the order in which they began, the second puts back what
    the first has freed, and the next signal, a time limit or Ctrl-C, kills the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoModel:
    """An ONNX file in OpenVINO: arrays or tensors in, NumPy arrays out.

    The arrays that come back belong to the model and hold until its next call; copy what is kept.
    """

    def __init__(
        self,
        path: Path | str,
        threads: int = 1,
        batch: int | None = None,
        dtype: str = "float32",
        profile: bool = False,
    ) -> None:
        """Load `path` for `threads` threads.

        Args:
            batch: the size of every input's first dimension; None leaves it free, which is slower.
            dtype: "float32" or "bfloat16" inside; inputs and outputs stay as the file has them.
            profile: keep each node's time for `node_times`, at some cost.

        Raises `DataFileError` in one sentence when the file is missing or no ONNX model, and
        ImportError, naming the install line, without OpenVINO.
        """
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "OpenVINO is not installed; `pip install openvino` adds it."
            ) from error
        path = Path(path)
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}.")
        if not path.is_file():
            raise DataFileError(f"The ONNX file {path.name} is missing.")
        core = _core()
        try:
            model = core.read_model(path)
        except Exception as error:  # OpenVINO raises RuntimeError with pages of text
            raise DataFileError(
                f"{path.name} is not an ONNX model that OpenVINO can read; export it again."
            ) from error
        if batch is not None:
            model.reshape(
                {
                    node: [batch, *(side.get_length() for side in list(node.partial_shape)[1:])]
                    for node in model.inputs
                }
            )
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Left to itself it computes in bfloat16 wherever the processor can.
            "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": profile,
        }
        self.compiled = core.compile_model(model, "CPU", settings)
        self.request = self.compiled.create_infer_request()
        self.outputs = tuple(self.compiled.outputs)
        self.threads = threads

    def __call__(self, *inputs: np.ndarray | torch.Tensor) -> Any:
        """One forward pass. Inputs in order; one output comes back bare."""
        arrays = [x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in inputs]
        arrays = [np.ascontiguousarray(x) for x in arrays]  # shared memory must be in one piece
        results = self.request.infer(arrays, share_inputs=True, share_outputs=True)
        outputs = tuple(results[node] for node in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def node_times(self) -> list[tuple[str, float]]:
        """(type, milliseconds) of every node in the last call of a model made with `profile`."""
        return [
            (info.node_type, info.real_time.total_seconds() * 1000)
            for info in self.request.get_profiling_info()
        ]


def openvino_has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
