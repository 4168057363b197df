"""The runtimes that notebook 09 compares, each one function from a module to what computes it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.runtimes.hardware_networks import Call, Network, calls, convert
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.runtimes.openvino_model import OpenVinoModel, openvino_has_bfloat16

RUNTIMES = {
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
DTYPES = ("float32", "bfloat16")


class RuntimeRefusal(RuntimeError):
    """A runtime cannot do what was asked, in one sentence."""


def devices() -> tuple[str, ...]:
    """Every device that is there: "cpu", and "cuda" or "mps"."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def refusal(runtime: str, dtype: str, device: str) -> str | None:
    """Why `runtime` cannot run here at all, in one sentence; None where it can be tried.

    Raises ValueError for a runtime, precision or device that nobody knows.
    """
    for what, given, known in (
        ("runtime", runtime, RUNTIMES),
        ("precision", dtype, DTYPES),
        ("device", device.split(":")[0], ("cpu", "cuda", "mps")),
    ):
        if given not in known:
            raise ValueError(f"there is no {what} {given!r}; choose from {', '.join(known)}.")
    if device not in devices():
        return f"There is no {device} device on this machine."
    if runtime == "compile" and device == "cpu" and not has_compiler():
        return "torch.compile needs a C++ compiler on the CPU, and none is installed."
    if runtime in ("onnxruntime", "openvino"):
        words = RUNTIMES[runtime]
        if device != "cpu":
            return f"{words} is installed for the CPU alone here."
        if find_spec(runtime) is None:
            return f"{words} is not installed; `pip install {runtime}` adds it."
    if (runtime, dtype) == ("onnxruntime", "bfloat16"):
        return "ONNX Runtime has no bfloat16 kernels for convolutions on the CPU."
    if (runtime, dtype) == ("openvino", "bfloat16") and not openvino_has_bfloat16():
        return "OpenVINO computes in bfloat16 only on processors with instructions for it."
    return None


def has_compiler() -> bool:
    """Whether there is a C++ compiler for `torch.compile` to call."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)


@dataclass
class Runtime:
    """A runtime with its settings. Use as a context manager: exported files live as long."""

    name: str
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1

    @contextmanager
    def ready(self) -> Iterator[Callable[[Network, int], dict[str, Call]]]:
        """Yields `(network, batch) -> calls`. Raises `RuntimeRefusal` for what cannot be done."""
        if reason := refusal(self.name, self.dtype, self.device):
            raise RuntimeRefusal(reason)
        with tempfile.TemporaryDirectory() as folder, _exact_float32():
            self.folder, self._exported = Path(folder), {}
            yield self._calls

    def _calls(self, network: Network, batch: int) -> dict[str, Call]:
        if self.name in ("eager", "compile"):
            network = convert(network, self.device, self.dtype)
        self.batch = batch
        prepare = None if self.name == "eager" else getattr(self, f"_{self.name}")
        try:
            return calls(network, batch, prepare)
        except Exception as error:
            raise RuntimeRefusal(
                f"{RUNTIMES[self.name]} cannot run {network.name} ({reason_of(error)})."
            ) from error

    def _compile(self, module: nn.Module, given: tuple[Tensor, ...]) -> Callable[..., Any]:
        # The thread count and the batch are written into what is compiled: none is used again.
        torch._dynamo.reset()
        torch.set_num_threads(self.threads)
        return torch.compile(module, dynamic=False)

    def _onnxruntime(self, module: nn.Module, given: tuple[Tensor, ...]) -> Callable[..., Any]:
        return _tensors(OnnxModel(self._export(module, given), threads=self.threads))

    def _openvino(self, module: nn.Module, given: tuple[Tensor, ...]) -> Callable[..., Any]:
        path = self._export(module, given)
        return _tensors(OpenVinoModel(path, self.threads, self.batch, self.dtype))

    def _export(self, module: nn.Module, given: tuple[Tensor, ...]) -> Path:
        """A file for these weights and shapes; a free batch where the module's inputs are few."""
        free = len(given) <= 3  # a cache is many inputs that torch.export cannot name
        shapes = tuple(tuple(x.shape[1:] if free else x.shape) for x in given)
        weights = tuple((p.data_ptr(), *p.shape) for p in module.parameters())
        key = (type(module).__name__, shapes, weights) if free else (len(self._exported), shapes)
        if key not in self._exported:
            path = self.folder / f"{len(self._exported)}.onnx"
            export_onnx(module, given, path, dynamic_batch=free, tolerance=1e-3)
            self._exported[key] = path
        return self._exported[key]


def _tensors(runner: Callable[..., Any]) -> Callable[..., Any]:
    """A runner of arrays as one of tensors; nothing is copied."""

    def run(*given: Tensor) -> Any:
        out = runner(*given)
        if isinstance(out, tuple):
            return tuple(torch.from_numpy(x) for x in out)
        return torch.from_numpy(out)

    return run


@contextmanager
def _exact_float32() -> Iterator[None]:
    """cuDNN computes float32 convolutions in TF32 unless told otherwise; a label must be true."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def reason_of(error: BaseException) -> str:
    """The first line of what went wrong, without its last stop, no path of this machine in it."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
    words = [Path(word).name if word.startswith(("/", "~")) else word for word in line.split()]
    return " ".join(words)[:200]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory was not enough (PyTorch's CPU says it in words)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "memory" in str(error) and "alloc" in str(error)
    )


if sys.platform == "win32":  # pragma: no cover
    # Inductor's own workers outlive a killed parent there.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
