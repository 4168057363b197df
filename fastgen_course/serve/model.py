"""The served model: a one-step generator as an ONNX file, found or exported, and checked."""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastgen_course.checkpoints import MODELS, load_card, load_model
from fastgen_course.compression.int8_graphs import write_integer_graph
from fastgen_course.compression.quantized import QuantizedGenerator
from fastgen_course.datasets.captions import MAX_WORDS, encode_words
from fastgen_course.files import DataFileError, data_path, read_json, require
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.show import to_uint8

CAPTION = "a small red sneaker on a white background, sketch style"
SIDE = 28
INTEGER_BITS = 8


class ServeError(ValueError):
    """The page cannot be served, or a model cannot be served by it."""


@dataclass(frozen=True)
class Served:
    """An ONNX file that takes (noise, words) and gives pictures.

    Attributes:
        name: as the page calls it.
        path: the file.
        noise_width: numbers of noise a picture.
        key: the first digits of its SHA-256.
    """

    name: str
    path: Path
    noise_width: int
    key: str

    def session(self) -> OnnxModel:
        """A new ONNX Runtime session of one thread."""
        return OnnxModel(self.path, threads=1)

    def noise(self, seeds: list[int]) -> np.ndarray:
        """Noise float32 (B, noise_width), a row a seed: what `draw --seed` starts from."""
        rows = [
            torch.randn(1, self.noise_width, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.cat(rows).numpy()


MODEL = "student_int8"  # the ladder's last network


def load_served(name: str) -> Served:
    """The model `name` as an ONNX file: a path that ends in .onnx, or the name of shipped weights.

    Shipped weights are served from `data/weights/NAME.onnx` where that is shipped, else exported
    (half a minute, once): the file is kept in the user's cache under the weights' hash.

    Raises, in one sentence, `ServeError` for a model that does not draw from noise and words in one
    step, `DataFileError` for a missing or damaged file, `ExportError` where the export fails.
    """
    if name.endswith(".onnx"):
        return checked(Path(name).stem, Path(name))
    if name not in MODELS and not data_path("weights", f"{name}.onnx").is_file():
        raise ServeError(
            f"there is no model {name!r}; name shipped weights, such as generator_base, "
            "or a file that ends in .onnx."
        )
    if data_path("weights", f"{name}.onnx").is_file():
        card = read_json(data_path("weights", f"{name}.json"))
        return checked(name, require(f"weights/{name}.onnx", card.get("onnx_sha256")))
    card = load_card(name)
    path = _cache() / f"{name}-{card['sha256'][:16]}-torch{version('torch').split('+')[0]}.onnx"
    if path.is_file():
        try:
            return checked(name, path)
        except DataFileError:  # cut off or altered: it is made anew
            path.unlink()
    try:
        _export(name, path)
    except DataFileError:  # a cache that cannot be written
        path = Path(tempfile.mkdtemp(prefix="fastgen-serve-")) / path.name
        _export(name, path)
    return checked(name, path)


def checked(name: str, path: Path) -> Served:
    """The file at `path` as a `Served`, after it drew one picture. Errors as for `load_served`."""
    runner = OnnxModel(path)
    inputs = runner.session.get_inputs()
    kinds = [(node.type, len(node.shape)) for node in inputs]
    width = inputs[0].shape[1] if kinds[:1] == [("tensor(float)", 2)] else None
    if kinds[1:] != [("tensor(int64)", 2)] or not isinstance(width, int):
        takes = ", ".join(f"{n.name} {n.type} {n.shape}" for n in inputs)
        raise ServeError(
            f"{name} cannot be served: the page draws with a network of (noise, words), float "
            f"(B, Z) and int64 (B, {MAX_WORDS}), and this one takes {takes}."
        )
    served = Served(name, path, width, hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    for batch in (1, 2):
        drawn = runner(served.noise([0] * batch), encode_words([CAPTION] * batch).numpy())
        shape = getattr(drawn, "shape", None)
        if shape != (batch, 3, SIDE, SIDE):
            raise ServeError(
                f"{name} cannot be served: it draws {shape} instead of {(batch, 3, SIDE, SIDE)}; "
                "export it with a dynamic batch."
            )
    return served


def stored_as(served: Served) -> str:
    """The precision that the network computes in: "int8" for a quantised graph, else "float32"."""
    import onnx  # deferred: the server itself never reads the graph

    nodes = onnx.load(served.path, load_external_data=False).graph.node
    whole = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger")
    return "int8" if any(node.op_type in (*whole, "MatMulInteger") for node in nodes) else "float32"


def pictures(images: np.ndarray) -> np.ndarray:
    """Images float (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3)."""
    return to_uint8(torch.from_numpy(images))


def _cache() -> Path:
    import pooch  # deferred: 0.1 s

    return Path(pooch.os_cache("fastgen_course")) / "served"


def _export(name: str, path: Path) -> None:
    model = load_model(name)
    if not one_step(model):
        raise ServeError(
            f"{name} cannot be served: it does not draw from noise and words in one step, as "
            "generator_base does."
        )
    if isinstance(model, QuantizedGenerator) and _in_integers(model):
        write_integer_graph(model, path)
        return
    noise = torch.zeros(2, model.config.noise)
    export_onnx(model, (noise, encode_words([CAPTION] * 2)), path)


def one_step(model: nn.Module) -> bool:
    """Whether a model's forward is (noise, words) and its config says how much noise."""
    takes = list(inspect.signature(model.forward).parameters)
    return takes[:2] == ["noise", "words"] and hasattr(model.config, "noise")


def _in_integers(model: QuantizedGenerator) -> bool:
    bits = model.config.weight_bits, model.config.activation_bits
    return None not in bits and max(bits) <= INTEGER_BITS
