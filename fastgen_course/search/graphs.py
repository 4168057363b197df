"""An architecture's ONNX graph, written node by node: thousands of networks cannot wait for export.

The same function writes a layer into a whole network and into a graph of its own, which the latency
table times. A test proves the whole graph equal to the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgen_course.files import atomic_write
from fastgen_course.models.searched import (
    ArchitectureError,
    Layer,
    SearchedGenerator,
    build_layer,
)

_OPSET = 20


class GraphWriter:
    """Collects nodes and constants; every method that adds something returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def input(self, name: str, shape: tuple[int | str, ...], integers: bool = False) -> str:
        from onnx import TensorProto, helper

        kind = TensorProto.INT64 if integers else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value: Tensor | np.ndarray) -> str:
        from onnx import numpy_helper

        array = value.detach().numpy() if isinstance(value, Tensor) else value
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        from onnx import helper

        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def save(self, path: Path, output: str) -> Path:
        """Write the graph with one output; the file appears whole or not at all."""
        import onnx
        from onnx import TensorProto, helper

        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "searched", self.inputs, [made], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = 9  # what the oldest supported runtime reads
        with atomic_write(path) as temporary:
            onnx.save(model, temporary)
        return path


def _linear(graph: GraphWriter, x: str, module: torch.nn.Linear) -> str:
    weight, bias = graph.constant(module.weight), graph.constant(module.bias)
    return graph.add("Gemm", x, weight, bias, transB=1)


def _conv(graph: GraphWriter, x: str, module: torch.nn.Module) -> str:
    """A convolution of one or two dimensions, transposed or not."""
    dims = module.weight.ndim - 2
    inputs = [x, graph.constant(module.weight)]
    if module.bias is not None:
        inputs.append(graph.constant(module.bias))
    kind = "ConvTranspose" if isinstance(module, torch.nn.ConvTranspose2d) else "Conv"
    pads = [int(p) for p in module.padding] * 2
    return graph.add(kind, *inputs, group=module.groups, pads=pads,
                     strides=[int(s) for s in module.stride][:dims])  # fmt: skip


def add_layer(
    graph: GraphWriter, x: str, name: str, layer: Layer, module: torch.nn.Module,
    scale_shift: tuple[str, str] | None, activation: str,
) -> str:  # fmt: skip
    """One layer with what stands behind it: modulation and activation."""
    if layer.kind == "stem":
        x = _linear(graph, x, module)
        x = graph.add("Reshape", x, graph.integers(-1, layer.outputs, layer.side, layer.side))
    elif layer.kind == "separable":
        x = _conv(graph, _conv(graph, x, module.depthwise), module.pointwise)
    elif layer.kind == "up2":
        x = _conv(graph, x, module.conv)
        x = graph.add("DepthToSpace", x, blocksize=2, mode="CRD")
    else:
        x = _conv(graph, x, module)
    if name == "rgb":
        return graph.add("Tanh", x)
    if scale_shift is not None:
        x = graph.add("Add", graph.add("Mul", x, scale_shift[0]), scale_shift[1])
    if activation == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    kind = {"relu": "Relu", "leaky_relu": "LeakyRelu", "gelu": "Gelu"}[activation]
    return graph.add(kind, x, **({"alpha": 0.2} if kind == "LeakyRelu" else {}))


def _add_encoder(graph: GraphWriter, words: str, module: torch.nn.Module) -> str:
    x = graph.add("Gather", graph.constant(module.embedding.weight), words)
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    x = graph.add("Relu", _conv(graph, x, module.ngrams))
    absent = graph.add("Equal", words, graph.constant(np.array(0, np.int64)))
    present = graph.add("Cast", graph.add("Not", absent), to=1)
    x = graph.add("Mul", x, graph.add("Unsqueeze", present, graph.integers(1)))
    x = graph.add("ReduceMax", x, graph.integers(2), keepdims=0)
    return _linear(graph, x, module.out)


def _add_modulation(graph: GraphWriter, y: str, module: torch.nn.Linear, widths: list[int]) -> Any:
    """a and b of each map, (B, C, 1, 1), in order."""
    x = graph.add("Reshape", _linear(graph, y, module), graph.integers(0, -1, 1, 1))
    sizes = [w for w in widths for _ in range(2)]
    return graph.add("Split", x, graph.integers(*sizes), outputs=len(sizes), axis=1)


def write_network(network: SearchedGenerator, path: Path) -> Path:
    """The whole network as a graph of "noise" and "words", any batch."""
    config, graph = network.config, GraphWriter()
    noise = graph.input("noise", ("batch", config.noise))
    words = graph.input("words", ("batch", "length"), integers=True)
    y = graph.add("Concat", noise, _add_encoder(graph, words, network.caption_encoder), axis=1)
    widths = config.modulated
    parts = _add_modulation(graph, y, network.modulation, list(widths.values()))
    pairs = dict(zip(widths, zip(parts[::2], parts[1::2], strict=True), strict=True))
    x = y
    for name, layer in config.layers().items():
        module = network.layers[name]
        x = add_layer(graph, x, name, layer, module, pairs.get(name), config.activation)
    return graph.save(path, x)


def write_layer(layer: Layer, path: Path, activation: str = "relu") -> tuple[Path, list]:
    """One layer as a graph of its own, and the shapes of its inputs."""
    graph = GraphWriter()
    stem = layer.kind == "stem"
    before = layer.side // 2 if layer.kind in ("up2", "up4") else layer.side
    shape = (1, layer.inputs) if stem else (1, layer.inputs, before, before)
    shapes = [shape]
    x = graph.input("x", shape)
    pair = None
    if layer.modulated:
        each = (1, layer.outputs, 1, 1)
        pair = graph.input("a", each), graph.input("b", each)
        shapes += [each, each]
    name = "rgb" if layer.kind == "rgb" else "layer"
    out = add_layer(graph, x, name, layer, build_layer(layer), pair, activation)
    return graph.save(path, out), shapes


def write_modulation(condition: int, channels: int, path: Path) -> tuple[Path, list]:
    """The linear layer that makes a and b of four maps with so many channels in all."""
    if channels % 4:
        raise ArchitectureError(f"channels must divide by the 4 maps, got {channels}.")
    graph = GraphWriter()
    y = graph.input("y", (1, condition))
    module = torch.nn.Linear(condition, 2 * channels)
    parts = _add_modulation(graph, y, module, [channels // 4] * 4)
    for part in parts[1:]:
        parts[0] = graph.add("Add", parts[0], part)
    return graph.save(path, parts[0]), [(1, condition)]
