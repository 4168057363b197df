"""Write a quantised generator as a graph that runtimes compute in integers; a library's own ways.

The format is QDQ: wherever a tensor is stored as integers, a QuantizeLinear and a DequantizeLinear
stand one behind the other. Read literally that is fake quantisation; a runtime that has an integer
kernel replaces "dequantise, convolve, quantise" by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.compression.affine import Grid, QuantizationError
from fastgen_course.compression.folding import blocks_weight, in_blocks
from fastgen_course.compression.quantized import (
    OUTPUTS,
    QuantizedGenerator,
    QuantizedLayer,
    calibration_batches,
)
from fastgen_course.datasets.captions import encode_words
from fastgen_course.files import atomic_write
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx

CAPTION = "a small red sneaker on a white background, sketch style"
# They move numbers and compute nothing, so that what they write is on the grid of what they read.
MOVES = ("Transpose", "Reshape", "Slice", "DepthToSpace")
ACTIVATIONS = ("u8", "s8")


def example_inputs(model: nn.Module, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise from a fixed seed and one caption's words, as every graph here is given them."""
    noise = torch.randn(batch, model.config.noise, generator=torch.Generator().manual_seed(seed))
    return noise, encode_words([CAPTION]).expand(batch, -1).contiguous()


@dataclass(frozen=True)
class IntegerGraph:
    """A written graph: its file, bytes, and how far ONNX Runtime's pictures are from the network's.

    `moved` is the share of pixel values that differ by more than half a grey level of 255.
    """

    path: Path
    file_bytes: int
    moved: float


def write_integer_graph(
    network: QuantizedGenerator,
    path: Path | str,
    form: str = "blocks",
    activations: str = "u8",
) -> IntegerGraph:
    """Write the network as a QDQ graph: what ONNX Runtime and OpenVINO run in integers.

    Args:
        network: weights and activations quantised, 8 bits at most each.
        path: the `.onnx` file; it appears whole or not at all.
        form: of the transposed convolutions, one of `folding.FORMS`.
        activations: stored "u8", unsigned, or "s8", all moved down by 128: the same numbers.
    """
    config = network.config
    bits = config.weight_bits, config.activation_bits
    if None in bits or max(bits) > 8:
        raise QuantizationError(
            "weight_bits and activation_bits must be from 2 to 8 for an integer graph, got "
            f"{bits[0]} and {bits[1]}."
        )
    if activations not in ACTIVATIONS:
        raise QuantizationError(f"activations must be u8 or s8, got {activations!r}.")
    import onnx

    inputs = example_inputs(network, 4)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        export_onnx(network.folded(form), inputs, plain, tolerance=1e-3)
        model = onnx.load(plain)
    insert_integers(model.graph, network, form, activations)
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)
    runner = OnnxModel(path)
    with torch.no_grad():
        expected = network(*inputs).numpy()
    moved = float((np.abs(runner(*inputs) - expected) > 1 / 255).mean())
    return IntegerGraph(Path(path), Path(path).stat().st_size, moved)


def insert_integers(
    graph: Any, network: QuantizedGenerator, form: str, activations: str = "u8"
) -> None:
    """Put a network's grids into the exported graph of its folded form, in place.

    The graph's weights are called as a `FoldedGenerator`'s are; what else it computes before and
    behind the layers stays in floating point.
    """
    _Inserter(graph, form, activations).quantise(network)


class _Inserter:
    """Puts quantise-dequantise pairs into the exported graph of a folded generator."""

    def __init__(self, graph: Any, form: str, activations: str) -> None:
        self.graph, self.form = graph, form
        self.shift = 128 if activations == "s8" else 0
        self.kind = np.int8 if activations == "s8" else np.uint8
        self.added: list[Any] = []
        self.passed: dict[str, str] = {}

    def quantise(self, network: QuantizedGenerator) -> None:
        """All layers' weights, inputs and outputs."""
        nodes = {}
        for name, layer in network.layers():
            part = "conv." if in_blocks(self.form, name) else ""
            nodes[name] = self._reader_of(f"{name}.{part}weight")
            self._weight(name, layer, nodes[name])
        for name, layer in network.layers():
            node = nodes[name]
            if name == "up28":  # behind its ReLU its output is stored on the next layer's grid
                self._store(self._only_reader(node.output[0]).output[0], network.conv28.input)
            if name in OUTPUTS:
                self._store(node.output[0], layer.output)
            node.input[0] = self._pass(node.input[0], layer.input.grid())
        ordered = _sorted([*self.graph.node, *self.added], self.graph)
        del self.graph.node[:]
        self.graph.node.extend(ordered)

    def _store(self, tensor: str, activation: Any) -> None:
        """Store a tensor, and what only moves it about, on one grid."""
        readers = self._readers(tensor)
        passed = self._pass(tensor, activation.grid())
        for reader in readers:
            _redirect(reader, tensor, passed)
            if reader.op_type in MOVES:
                self._store(reader.output[0], activation)

    def _pass(self, tensor: str, grid: Grid) -> str:
        """The name of `tensor` behind a quantise-dequantise pair, made once."""
        if tensor not in self.passed:
            from onnx import helper

            zero = np.array(int(grid.zero_point) - self.shift, self.kind)
            scale = self._constant(f"{tensor}_scale", np.array(float(grid.scale), np.float32))
            zero = self._constant(f"{tensor}_zero", zero)
            stored, out = f"{tensor}_stored", f"{tensor}_passed"
            self.added += [
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [stored]),
                helper.make_node("DequantizeLinear", [stored, scale, zero], [out]),
            ]
            self.passed[tensor] = out
        return self.passed[tensor]

    def _weight(self, name: str, layer: QuantizedLayer, node: Any) -> None:
        """The layer's integers in place of its weight and bias."""
        integers = layer.weight_integers()
        scale = layer.log_scale.detach().exp().flatten()
        axis = layer.scheme.axis if layer.scheme.axis is not None else 0
        steps = layer.accumulator_scale().detach()
        bias = torch.round(layer.layer.bias.detach() / steps).to(torch.int32)
        steps = steps.expand(len(bias))
        if in_blocks(self.form, name):
            integers, axis = blocks_weight(integers), 0
            bias, steps = bias.repeat(4), steps.repeat(4)
            scale = scale.repeat(4) if len(scale) > 1 else scale
        scale = scale if len(scale) > 1 else scale[0]
        weight = integers.numpy().astype(np.int8)
        old = list(node.input[1:3])
        node.input[1] = self._stored(f"{name}.weight", weight, scale.numpy(), axis)
        node.input[2] = self._stored(f"{name}.bias", bias.numpy(), steps.numpy(), 0)
        for tensor in [x for x in self.graph.initializer if x.name in old]:
            self.graph.initializer.remove(tensor)

    def _stored(self, name: str, integers: np.ndarray, scale: np.ndarray, axis: int) -> str:
        from onnx import helper

        zero = np.zeros(scale.shape, integers.dtype)
        names = [
            self._constant(f"{name}_{part}", value)
            for part, value in (("integers", integers), ("scale", scale), ("zero", zero))
        ]
        node = helper.make_node("DequantizeLinear", names, [f"{name}_passed"], axis=axis)
        self.added.append(node)
        return f"{name}_passed"

    def _constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _readers(self, tensor: str) -> list[Any]:
        return [node for node in self.graph.node if tensor in node.input]

    def _only_reader(self, tensor: str) -> Any:
        (node,) = self._readers(tensor)
        return node

    def _reader_of(self, weight: str) -> Any:
        readers = [node for node in self.graph.node if weight in list(node.input)[1:]]
        if len(readers) != 1:
            raise QuantizationError(f"the exported graph reads {weight} {len(readers)} times.")
        return readers[0]


def _redirect(node: Any, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _sorted(nodes: list[Any], graph: Any) -> list[Any]:
    """The nodes in an order in which each comes after what it reads, as ONNX demands."""
    known = {x.name for x in (*graph.input, *graph.initializer)} | {""}
    ordered, waiting = [], list(nodes)
    while waiting:
        ready = [node for node in waiting if all(name in known for name in node.input)]
        if not ready:
            raise QuantizationError("the graph reads a tensor that nobody writes.")
        ordered += ready
        known |= {name for node in ready for name in node.output}
        waiting = [node for node in waiting if not set(node.output) <= known]
    return ordered


# --- the libraries' own ways --------------------------------------------------------------------


def float_graph(model: nn.Module, path: Path | str) -> Path:
    """A generator (folded or not) as an ordinary ONNX graph, proven equal to it."""
    return export_onnx(model, example_inputs(model, 4), path, tolerance=1e-3).path


def library_static_graph(
    source: Path | str,
    path: Path | str,
    model: nn.Module,
    *,
    activations: str = "u8",
    weights: str = "s8",
    per_channel: bool = True,
    reduce_range: bool = False,
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Path:
    """ONNX Runtime's own static quantisation of a float graph, ranges from smallest to largest.

    The graph is pre-processed first (shapes inferred, norms fused). The caption encoder stays in
    floating point: OpenVINO computes another result from its integer form.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    kinds = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    given = calibration_batches(model.config, 64) if batches is None else batches
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Its symbolic shape inference gives up on the free batch; ONNX's own is enough here.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared)
        encoder = [
            node.name
            for node in graph.graph.node
            if any("caption_encoder" in x for x in node.input)
        ]
        quantize_static(
            graph,
            str(path),
            _Reader(given),
            quant_format=QuantFormat.QDQ,
            activation_type=kinds[activations],
            weight_type=kinds[weights],
            per_channel=per_channel,
            reduce_range=reduce_range,
            op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "Relu", *MOVES],
            nodes_to_exclude=encoder,
        )
    return Path(path)


class _Reader:
    """Batches as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        if not batches:
            raise QuantizationError(
                "the calibration data is empty: give at least one batch to calibrate on."
            )
        self.rows = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self.rows, None)
        return None if row is None else {"noise": row[0].numpy(), "words": row[1].numpy()}


def library_dynamic_graph(source: Path | str, path: Path | str) -> Path:
    """ONNX Runtime's dynamic quantisation: int8 weights, each activation's range taken as it comes.

    For transformers, whose time is in matrix products and whose activations no fixed range suits.
    Weights of 7 bits: see `affine.pair_sum_fits`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(path),
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )
    return Path(path)
