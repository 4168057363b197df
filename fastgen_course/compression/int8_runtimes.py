"""GENERATOR_BASE in float32 and in int8 in every runtime: what notebook 12 times side by side."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.int8_graphs import (
    example_inputs,
    float_graph,
    library_static_graph,
    write_integer_graph,
)
from fastgen_course.compression.quantized import (
    QuantizedGenerator,
    calibration_batches,
    quantize_generator,
)
from fastgen_course.files import data_path
from fastgen_course.models.generator import Generator
from fastgen_course.runtimes.hardware_runtimes import has_compiler, reason_of
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.runtimes.openvino_model import OpenVinoModel
from fastgen_course.timing import Comparison, adds_four_byte_products, compare

Draw = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        words: what it is called.
        runtime: as in the registry.
        dtype: "float32" or "int8".
    """

    words: str
    runtime: str
    dtype: str


ROWS: dict[str, Row] = {
    "eager": Row("PyTorch eager", "eager", "float32"),
    "compile": Row("torch.compile", "compile", "float32"),
    "onnxruntime": Row("ONNX Runtime", "onnxruntime", "float32"),
    "onnxruntime_folded": Row("ONNX Runtime, folded, blocks", "onnxruntime", "float32"),
    "openvino": Row("OpenVINO", "openvino", "float32"),
    "openvino_folded": Row("OpenVINO, folded", "openvino", "float32"),
    "int8_onnxruntime": Row("ONNX Runtime, ours: blocks, U8S7", "onnxruntime", "int8"),
    "int8_onnxruntime_signed": Row("ONNX Runtime, ours: blocks, S8S7", "onnxruntime", "int8"),
    "int8_onnxruntime_transposed": Row(
        "ONNX Runtime, ours: transposed, U8S7", "onnxruntime", "int8"
    ),
    "int8_library": Row("ONNX Runtime's quantiser, S8S8", "onnxruntime", "int8"),
    "int8_library_narrow": Row(
        "ONNX Runtime's quantiser, U8S8, reduce_range", "onnxruntime", "int8"
    ),
    "int8_library_unsigned": Row("ONNX Runtime's quantiser, U8U8", "onnxruntime", "int8"),
    "int8_openvino": Row("OpenVINO, ours: transposed, U8S7", "openvino", "int8"),
    "int8_openvino_blocks": Row("OpenVINO, ours: blocks, U8S7", "openvino", "int8"),
    "int8_torchao": Row("torchao PT2E, torch.compile", "compile", "int8"),
    "int8_torchao_weights": Row("torchao int8 weights, eager", "eager", "int8"),
    "int8_rounded": Row("rounded floats, eager", "eager", "int8"),
}
# Rows that compute the shipped int8 network and nothing else, bit for bit or nearly.
EXACT = tuple(name for name in ROWS if name.startswith(("int8_onnxruntime", "int8_openvino")))
FLOAT = tuple(name for name, row in ROWS.items() if row.dtype == "float32")
WHY = {
    "int8_onnxruntime_signed": "The convolutions take as long, but the stem's matrix product takes "
    "many times as long with signed activations.",
    "int8_onnxruntime_transposed": "ONNX Runtime has no integer kernel for a transposed "
    "convolution: it goes back to floats and forth again around it.",
    "int8_library": "The library quantises the graph as it stands: transposed convolutions stay in "
    "floats, and the norms that a caption modulates too.",
    "int8_library_narrow": "As above; unsigned activations and 7-bit weights are what this "
    "processor's kernels are made for.",
    "int8_library_unsigned": "Unsigned weights need the fourth term of the product and 16-bit "
    "multiplications.",
    "int8_openvino_blocks": "OpenVINO has an integer kernel for transposed convolutions; to it the "
    "blocks are a layout to pay for.",
    "int8_torchao": "PT2E quantises convolutions and linear layers; its compiler converts layouts "
    "between them.",
    "int8_torchao_weights": "The weights are integers in memory and become floats before each "
    "product: fewer bytes, more work.",
    "int8_rounded": "Quantised on paper: the same float products, and the rounding on top.",
}


# Kinds of processor, told apart by their integer kernels: a recorded time belongs to one of them.
KINDS = {"four_products": "with VNNI", "two_products": "without VNNI"}


def kind_here() -> str:
    """The key of `KINDS` that this processor is.

    `four_products` stands for every instruction that adds four products of bytes in 32 bits (VNNI,
    AMX, ARM's dot product).
    """
    return "four_products" if adds_four_byte_products() else "two_products"


class Refused(RuntimeError):
    """A row that cannot be run here, in one sentence."""


@dataclass
class Networks:
    """What is timed: the float generator and the int8 network, and which weights these are."""

    base: Generator
    int8: QuantizedGenerator
    weights: str

    @classmethod
    def shipped(cls) -> Networks:
        """GENERATOR_BASE and `generator_int8`; its post-training form where that is not trained."""
        base = load_model("generator_base")
        key = load_card("generator_base")["sha256"][:12]
        if data_path("weights", "generator_int8.json").is_file():
            int8 = load_model("generator_int8")
            return cls(base, int8, f"{key}-{load_card('generator_int8')['sha256'][:12]}")
        int8 = quantize_generator(base, weight_bits=7, activation_bits=8)
        return cls(base, int8, f"{key}-ptq")


class Workshop:
    """Makes a drawing function of each row; graphs are written to a folder once."""

    def __init__(self, networks: Networks, folder: Path, batch: int, threads: int = 1) -> None:
        self.networks, self.folder = networks, folder
        self.batch, self.threads = batch, threads

    def draw(self, name: str) -> Draw:
        """`draw(noise, words)` of a row, at this workshop's batch.

        Raises KeyError for an unknown row, `Refused` in one sentence for one that cannot be run.
        """
        make = getattr(self, f"_{name}")
        try:
            return make()
        except ImportError as error:
            raise Refused(f"{reason_of(error)}.") from error
        except Exception as error:  # each runtime raises kinds of its own
            if isinstance(error, Refused):
                raise
            raise Refused(f"{ROWS[name].words} cannot run it ({reason_of(error)}).") from error

    # --- float32

    def _eager(self) -> Draw:
        return self.networks.base

    def _compile(self) -> Draw:
        _need_compiler()
        return torch.compile(self.networks.base, dynamic=False)

    def _onnxruntime(self) -> Draw:
        return self._ort(self._graph("base", self._base_graph))

    def _onnxruntime_folded(self) -> Draw:
        return self._ort(self._graph("folded", self._folded_graph))

    def _openvino(self) -> Draw:
        return self._ov(self._graph("base", self._base_graph))

    def _openvino_folded(self) -> Draw:
        form = "transposed"
        return self._ov(self._graph(form, lambda p: float_graph(fold(self.networks.base, form), p)))

    # --- int8

    def _int8_onnxruntime(self) -> Draw:
        return self._ort(self._ours("blocks", "u8"))

    def _int8_onnxruntime_signed(self) -> Draw:
        return self._ort(self._ours("blocks", "s8"))

    def _int8_onnxruntime_transposed(self) -> Draw:
        return self._ort(self._ours("transposed", "u8"))

    def _int8_library(self) -> Draw:
        return self._library(activations="s8")

    def _int8_library_narrow(self) -> Draw:
        return self._library(reduce_range=True)

    def _int8_library_unsigned(self) -> Draw:
        return self._library(weights="u8", per_channel=False)

    def _int8_openvino(self) -> Draw:
        return self._ov(self._ours("transposed", "u8"))

    def _int8_openvino_blocks(self) -> Draw:
        return self._ov(self._ours("blocks", "u8"))

    def _int8_torchao(self) -> Draw:
        _need_compiler()
        return torchao_static(fold(self.networks.base), self.batch)

    def _int8_torchao_weights(self) -> Draw:
        return torchao_weights(self.networks.base)

    def _int8_rounded(self) -> Draw:
        return self.networks.int8

    # --- files

    def _graph(self, key: str, write: Callable[[Path], Any]) -> Path:
        path = self.folder / f"{key}.onnx"
        if not path.is_file():
            write(path)
        return path

    def _base_graph(self, path: Path) -> Path:
        return float_graph(self.networks.base, path)

    def _folded_graph(self, path: Path) -> Path:
        return float_graph(fold(self.networks.base, "blocks"), path)

    def _ours(self, form: str, activations: str) -> Path:
        def write(path: Path) -> None:
            write_integer_graph(self.networks.int8, path, form, activations)

        return self._graph(f"int8_{form}_{activations}", write)

    def _library(self, **options: Any) -> Draw:
        source = self._graph("base", self._base_graph)
        key = "_".join(f"{k}_{v}" for k, v in sorted(options.items()))
        return self._ort(
            self._graph(
                f"library_{key}",
                lambda p: library_static_graph(source, p, self.networks.base, **options),
            )
        )

    def _ort(self, path: Path) -> Draw:
        return _tensors(OnnxModel(path, self.threads))

    def _ov(self, path: Path) -> Draw:
        return _tensors(OpenVinoModel(path, self.threads, self.batch))


def timed_calls(
    networks: Networks, batch: int, folder: Path, names: Sequence[str] = tuple(ROWS)
) -> tuple[dict[str, Callable[[], Any]], dict[str, str], dict[str, float]]:
    """(calls by row, reasons of rows that cannot run, share of pixel values moved by row).

    Moved: by more than half a grey level from what the int8 network draws in floating point.
    """
    shop = Workshop(networks, folder, batch)
    given = example_inputs(networks.base, batch)
    calls, refused, moved = {}, {}, {}
    with torch.no_grad():
        expected = networks.int8(*given)
        for name in names:
            try:
                draw = shop.draw(name)
                picture = draw(*given)
            except (Refused, RuntimeError) as error:
                refused[name] = str(error)
                continue
            if name in EXACT:
                moved[name] = float(((picture - expected).abs() > 1 / 255).float().mean())
            calls[name] = partial(draw, *given)
    return calls, refused, moved


def time_rows(calls: Mapping[str, Callable[[], Any]], batch: int, seconds: float) -> Comparison:
    """All rows interleaved on one thread."""
    with torch.no_grad():
        return compare(
            calls, batch=batch, threads=1, device="cpu", min_repeats=30, max_seconds=seconds,
            dtype={name: ROWS[name].dtype for name in calls},
        )  # fmt: skip


def _tensors(runner: Callable[..., Any]) -> Draw:
    return lambda noise, words: torch.from_numpy(runner(noise, words))


def _need_compiler() -> None:
    if not has_compiler():
        raise Refused("torch.compile needs a C++ compiler on the CPU, and none is installed.")


def torchao_static(folded: FoldedGenerator, batch: int) -> Draw:
    """torchao's PT2E for x86: export, observe, convert, and compile with its weights frozen.

    Raises ImportError without torchao.
    """
    import torch._inductor.config as inductor

    with _silence():  # its import tells of kernels for GPUs that are not here
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    batches = calibration_batches(folded.config, max(64, batch), batch)
    batches = [rows for rows in batches if len(rows[0]) == batch]
    with _silence(), torch.no_grad():
        exported = torch.export.export(folded.eval(), batches[0]).module()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=True))
        prepared = prepare_pt2e(exported, quantizer)
        for rows in batches:
            prepared(*rows)
        converted = convert_pt2e(prepared)
    compiled = torch.compile(converted, dynamic=False)

    @torch.no_grad()  # in another gradient mode it would be compiled again, without freezing
    def draw(noise: Tensor, words: Tensor) -> Tensor:
        return compiled(noise, words)

    # Freezing decides when it is compiled, which is now; other modules keep their own setting.
    with _silence(), inductor.patch(freezing=True):
        draw(*batches[0])
    return draw


def torchao_weights(model: nn.Module) -> Draw:
    """torchao's eager int8 weights: linear layers alone, made floats again in each product."""
    with _silence():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantised = deepcopy(model).eval()
        quantize_(quantised, Int8WeightOnlyConfig())
    return quantised


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
