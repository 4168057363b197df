"""Count the multiply-accumulates of an exported ONNX graph: the dense work that a runtime is given.

PyTorch's counter watches a model run; this one reads the file, so that a runtime's share of the
peak is of what the runtime was asked to compute.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

from fastgen_course.files import DataFileError

KINDS = {
    "Conv": "convolution",
    "ConvTranspose": "transposed_convolution",
    "Gemm": "matrix_product",
    "MatMul": "matrix_product",
}


def onnx_macs(path: Path | str, batch: int = 1) -> dict[str, int]:
    """Multiply-accumulates by kind of layer for a batch; their sum is the graph's.

    Kinds: "convolution", "transposed_convolution", "matrix_product". Every tap of a convolution
    counts, those that fall on padding too, as everywhere. Raises `DataFileError` for a file that is
    no ONNX model and ValueError for a layer whose shape cannot be inferred.
    """
    import onnx

    path = Path(path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own classes
        raise DataFileError(
            f"{path.name} is not a readable ONNX model; export it again."
        ) from error
    graph = model.graph
    for value in graph.input:
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_value = batch  # a oneof: this clears the name
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {x.name: tuple(x.dims) for x in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value for d in dims)
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type not in KINDS:
            continue
        read, weight = (shapes.get(name, ()) for name in node.input[:2])
        written = shapes.get(node.output[0], ())
        if not read or not weight or not written or 0 in (*read, *weight, *written):
            raise ValueError(f"the shapes of {node.op_type} {node.name!r} cannot be inferred.")
        if node.op_type == "Conv":  # weight: (out, in / groups, kernel...)
            macs = prod(written) * prod(weight[1:])
        elif node.op_type == "ConvTranspose":  # weight: (in, out / groups, kernel...)
            macs = prod(read) * prod(weight[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            macs = prod(written) * read[-2 if transposed else -1]
        counts[KINDS[node.op_type]] += macs
    return dict(counts)
