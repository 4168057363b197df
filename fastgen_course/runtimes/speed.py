"""Time a shipped one-step generator: PyTorch eager beside ONNX Runtime, in one run, in turn.

`python -m fastgen_course.runtimes.speed generator_base` takes about half a minute; run it on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.timing import Comparison, compare, record, record_timing

CAPTION = "a small red sneaker on a white background, sketch style"
BATCHES = (1, 64)


def time_generator(model: torch.nn.Module, batch: int, threads: int = 1) -> Comparison:
    """Eager and ONNX Runtime on the same inputs, interleaved, at one batch size.

    Args:
        model: a generator of (noise (B, Z), words (B, L)), in eval mode on the CPU.
        batch: pictures a call.
        threads: of both runtimes.

    Returns:
        A comparison of "eager" and "onnxruntime"; the export is checked equal first, not timed.
    """
    noise = torch.randn(batch, model.config.noise, generator=torch.Generator().manual_seed(0))
    words = encode_words([CAPTION]).expand(batch, -1).contiguous()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.onnx"
        export_onnx(model, (noise, words), path)
        runner = OnnxModel(path, threads=threads)
        arrays = (noise.numpy(), words.numpy())

        def eager() -> torch.Tensor:
            with torch.inference_mode():
                return model(noise, words)

        return compare(
            {"eager": eager, "onnxruntime": lambda: runner(*arrays)},
            batch=batch,
            threads=threads,
            device="cpu",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, print and record the generator named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="generator_base", help="which weights to time")
    name = parser.parse_args(arguments).name
    model = load_model(name)
    command = f"python -m fastgen_course.runtimes.speed {name}"
    for batch in BATCHES:
        rows = time_generator(model, batch)
        print(rows.table())
        eager, ort = rows["eager"], rows["onnxruntime"]
        record_timing(
            name, f"{name}.batch{batch}_ms", eager, command=command, runtime="eager", base=name
        )
        record_timing(
            name,
            f"{name}.batch{batch}_onnx_ms",
            ort,
            command=command,
            runtime="onnxruntime",
            base=name,
        )
        ratio = rows.speedup("onnxruntime", over="eager")
        record(
            name,
            f"{name}.batch{batch}_onnx_speedup",
            ratio.value,
            "x",
            spread=(ratio.low, ratio.high),
            command=command,
            base=name,
            batch=batch,
            runtime="onnxruntime over eager",
            threads=1,
            dtype="float32",
        )


if __name__ == "__main__":
    main()
