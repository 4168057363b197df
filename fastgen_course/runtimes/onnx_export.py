"""Export a model to ONNX, prove the export equal, and run it in ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgen_course.files import DataFileError, atomic_write

_TOLERANCE = 1e-4
_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class ExportError(ValueError):
    """A model cannot be exported, or its export does not compute what the model does."""


@dataclass(frozen=True)
class Export:
    """A finished export: the file, its size, how long it took, and its largest difference.

    `max_difference` is over all outputs, at the example's batch and, with a dynamic batch, at
    batches 1 and 3. `export_ms` is a one-off and belongs in no timing of the model.
    """

    path: Path
    file_bytes: int
    export_ms: float
    max_difference: float


class OnnxModel:
    """An ONNX file in ONNX Runtime on the CPU: NumPy arrays in, NumPy arrays out.

    Its threads sleep between calls (`session.intra_op.allow_spinning=0`); ONNX Runtime's default,
    spinning, slows whatever else runs in the process, a timing of PyTorch included.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        """Load `path`. `DataFileError` in one sentence when it is missing or no ONNX model."""
        import onnxruntime as ort  # deferred: 0.2 s that a reader of torch models never needs

        path = Path(path)
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}.")
        if not path.is_file():
            raise DataFileError(
                f"The ONNX file {path.name} is missing; export it with export_onnx(...)."
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes share no public base
            raise DataFileError(
                f"{path.name} is not a readable ONNX model (truncated, altered or another format); "
                "export it again with export_onnx(...)."
            ) from error
        self.threads = threads
        self.file_bytes = path.stat().st_size
        self.inputs = tuple(node.name for node in self.session.get_inputs())
        self.outputs = tuple(node.name for node in self.session.get_outputs())

    def __call__(self, *inputs: np.ndarray | torch.Tensor) -> Any:
        """One forward pass. Inputs in order, arrays or tensors; one output comes back bare.

        Raises ValueError, naming the input, for a wrong count, dtype, rank or an empty batch.
        """
        nodes = self.session.get_inputs()
        if len(inputs) != len(nodes):
            raise ValueError(
                f"The model takes {len(nodes)} inputs ({', '.join(self.inputs)}), "
                f"got {len(inputs)}."
            )
        feed = {
            node.name: _as_input(node, value) for node, value in zip(nodes, inputs, strict=True)
        }
        outputs = self.session.run(None, feed)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def export_onnx(
    model: nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    path: Path | str,
    dynamic_batch: bool = True,
    tolerance: float = _TOLERANCE,
) -> Export:
    """Write `model` as ONNX (`torch.export`, then onnxscript) and check it against PyTorch.

    Args:
        model: on the CPU; exported in evaluation mode, its mode is restored.
        example_inputs: a tensor or a sequence of tensors, batch first.
        path: the `.onnx` file; it appears whole or not at all.
        dynamic_batch: leave the first dimension of every input and output free.
        tolerance: the largest absolute difference from PyTorch that passes.

    Returns an `Export`. Raises `ExportError` when PyTorch cannot export the model or an output
    differs by more than `tolerance`, `DataFileError` when the file cannot be written. Prints
    nothing.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    inputs = tuple(inputs)
    batch = _batch_of(inputs, dynamic_batch)
    was_training = model.training
    model.eval()
    start = time.perf_counter()
    try:
        with atomic_write(path) as temporary:
            _write(model, inputs, temporary, dynamic_batch)
            export_ms = 1000 * (time.perf_counter() - start)
            runner = OnnxModel(temporary)
            batches = {1, 3, batch} if dynamic_batch else {batch}
            worst = max(
                _difference(model, runner, _rows(inputs, n) if dynamic_batch else inputs)
                for n in sorted(batches)
            )
            if not worst <= tolerance:  # NaN must not pass
                raise ExportError(
                    f"The exported {type(model).__name__} differs from PyTorch by {worst:.2g} "
                    f"(allowed: {tolerance:g}); nothing was written."
                )
    finally:
        model.train(was_training)
    return Export(Path(path), Path(path).stat().st_size, export_ms, worst)


def _write(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, dynamic_batch: bool
) -> None:
    shapes = None
    if dynamic_batch:
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} for _ in inputs)
        inputs = _rows(inputs, max(2, inputs[0].shape[0]))  # a batch of 1 would be frozen in
    try:
        with _silence():
            torch.onnx.export(
                model,
                inputs,
                str(path),
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds, with pages of text
        raise ExportError(
            f"PyTorch could not export {type(model).__name__} to ONNX ({_reason(error)}); its "
            "forward must not branch in Python on the values of tensors."
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _difference(model: nn.Module, runner: OnnxModel, inputs: tuple[torch.Tensor, ...]) -> float:
    with torch.no_grad():
        expected = model(*inputs)
    got = runner(*inputs)
    expected = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    got = (got,) if isinstance(got, np.ndarray) else got
    if len(got) != len(expected):
        raise ExportError(f"The export has {len(got)} outputs, the model {len(expected)}.")
    worst = 0.0
    for ours, theirs in zip(expected, got, strict=True):
        ours = ours.numpy()
        if ours.shape != theirs.shape:
            raise ExportError(f"An output of the export is {theirs.shape}, not {ours.shape}.")
        gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        worst = max(worst, float(gap.max(initial=0.0)), key=lambda v: (np.isnan(v), v))
    return worst


def _batch_of(inputs: tuple[torch.Tensor, ...], dynamic_batch: bool) -> int:
    if not inputs or not all(isinstance(x, torch.Tensor) and x.ndim > 0 for x in inputs):
        raise ExportError("export_onnx needs example inputs: a tensor or several, batch first.")
    batch = inputs[0].shape[0]
    if batch < 1:
        raise ExportError("The example inputs have a batch of zero; pass at least one row.")
    if dynamic_batch and any(x.shape[0] != batch for x in inputs):
        sizes = ", ".join(str(x.shape[0]) for x in inputs)
        raise ExportError(f"The example inputs have different batches ({sizes}).")
    return batch


def _rows(inputs: tuple[torch.Tensor, ...], count: int) -> tuple[torch.Tensor, ...]:
    """`count` rows of every input, the given ones repeated in turn."""
    return tuple(x[torch.arange(count) % x.shape[0]] for x in inputs)


def _as_input(node: Any, value: np.ndarray | torch.Tensor) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    wanted = _NUMPY_TYPES.get(node.type)
    if wanted is not None and array.dtype != wanted:
        raise ValueError(
            f"Input {node.name!r} must be {np.dtype(wanted).name}, got {array.dtype.name}."
        )
    fits = len(node.shape) == array.ndim and all(
        not isinstance(want, int) or want == have
        for want, have in zip(node.shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"Input {node.name!r} must be {tuple(node.shape)}, got {array.shape}.")
    if 0 in array.shape:
        raise ValueError(f"Input {node.name!r} is empty (shape {array.shape}).")
    return array


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter reports its progress on both streams, as warnings and as log lines."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
