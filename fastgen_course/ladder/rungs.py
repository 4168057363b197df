"""What stands on the ladder: each way from captions to uint8 pictures, in order.

Every rung begins with strings and ends with uint8 (B, 28, 28, 3), and differs from the rung before
in one thing. A rung whose weights are not trained yet is left out, with the command that trains it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression.deploy import Painter, write_lean_graph
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.int8_graphs import float_graph, write_integer_graph
from fastgen_course.compression.quantized import QuantizedGenerator
from fastgen_course.datasets.captions import encode_words, parse
from fastgen_course.files import data_path
from fastgen_course.metrics import real_images
from fastgen_course.metrics.delivered import Draw
from fastgen_course.models.generator import Generator
from fastgen_course.models.masked import masked_inputs
from fastgen_course.runtimes.hardware_networks import cached_drawing
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.sampling.vae import sample_vae
from fastgen_course.show import to_uint8
from fastgen_course.training import fast_methods
from fastgen_course.training.flow import VAE
from fastgen_course.training.flow_methods import METHODS as FLOW_METHODS
from fastgen_course.training.flow_methods import FlowModels

CAPTION = "a small red sneaker on a white background, sketch style"
# What a rung changes, and how the sentence that splits the total calls it.
CHANGES: dict[str, str] = {
    "recomputation": "recomputation removed",
    "steps": "fewer steps",
    "family": "change of family",
    "net": "a smaller net",
    "runtime": "runtime, int8 and leaner code",
}


@dataclass(frozen=True)
class Rung:
    """One row.

    Attributes:
        name: in records and JSON.
        words: in tables.
        change: one of CHANGES; "" for the first rung and for control rows.
        needs: the checkpoints that it draws with, the network that is counted first.
        make: (folder for graphs, batch) -> Draw; ImportError where a library is missing.
        runtime: "eager", "onnxruntime" or "openvino".
        dtype: "float32" or "int8".
        control: whether it stands beside the ladder.
        quality: the recorded names of its quality, the figure in braces.
    """

    name: str
    words: str
    change: str
    needs: tuple[str, ...]
    make: Callable[[Path, int], Draw]
    runtime: str = "eager"
    dtype: str = "float32"
    control: bool = False
    quality: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The checkpoints that it lacks here."""
        return tuple(n for n in self.needs if not data_path("weights", f"{n}.json").is_file())

    @property
    def weights(self) -> str:
        """Which weights it draws with: the beginnings of their hashes."""
        return "-".join(load_card(name)["sha256"][:12] for name in self.needs)

    def left_out(self) -> str:
        """Why it is left out, in one sentence, or ""."""
        if not self.missing:
            return ""
        commands = " and ".join(f"`python -m fastgen_course train {n}`" for n in self.missing)
        return f"{self.words} is left out: its weights are not trained yet; {commands} makes them."


@cache
def _model(name: str) -> nn.Module:
    return load_model(name)


# --- ways of drawing ------------------------------------------------------------------------------


def token_method(name: str, written: bool = False) -> Callable[[Path, int], Draw]:
    """A method of notebook 07, its tokens painted."""

    def make(_folder: Path, _batch: int) -> Draw:
        base = fast_methods.base_of(name)
        network = fast_methods.written_out(_model(base)) if written else _model(base)
        slot = {"masked": "masked", "masked_groups": "groups"}.get(base, "gpt")
        return _painted(slot, network, name)

    return make


def flow_one(_folder: Path, _batch: int) -> Draw:
    """The flow's adversarial student in one evaluation, its latent decoded."""
    models = FlowModels({"flow_student": _model("flow_student")}, _model(VAE), {})
    method = FLOW_METHODS["student1"]

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        with torch.no_grad():
            return to_uint8(method(models, captions, generator))

    return draw


def eager(name: str) -> Callable[[Path, int], Draw]:
    """A one-step generator as a PyTorch module."""
    return lambda _folder, _batch: eager_draw(_model(name))


def eager_draw(model: nn.Module) -> Draw:
    """The pictures of `model(noise, words)` with `config.noise`."""
    return lambda captions, generator: to_uint8(
        sample_generator(model, captions, generator=generator)
    )


def onnx(name: str) -> Callable[[Path, int], Draw]:
    """A one-step generator in ONNX Runtime; integers where it was quantised."""

    def make(folder: Path, _batch: int) -> Draw:
        model, path = _model(name), folder / f"{name}.onnx"
        if not path.is_file():
            if isinstance(model, QuantizedGenerator):
                write_integer_graph(model, path)
            else:
                float_graph(model, path)
        runner = OnnxModel(path)

        def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
            words = encode_words(captions)
            noise = torch.randn(len(words), model.config.noise, generator=generator)
            return to_uint8(torch.from_numpy(runner(noise, words)))

        return draw

    return make


def delivered(
    name: str, runtime: str, form: str, calibrated: bool = False
) -> Callable[[Path, int], Draw]:
    """A one-step generator in its delivered form (`compression.deploy`)."""

    def make(folder: Path, batch: int) -> Draw:
        path = folder / f"{name}_lean_{form}{'_int8' * calibrated}.onnx"
        if not path.is_file():
            write_lean_graph(_model(name), path, form, calibrated=calibrated)
        return Painter(path, runtime, batch)

    return make


def vae(_folder: Path, _batch: int) -> Draw:
    """The VAE of notebook 02 with its refined decoder: a prior's draw, decoded."""
    model = _model(VAE)

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        with torch.no_grad():
            return to_uint8(sample_vae(model, list(captions), generator=generator))

    return draw


def oracle(_folder: Path, _batch: int) -> Draw:
    """The program that made the data: a training photo of the garment, composed as asked."""

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        asked = [parse(text) for text in captions]
        return to_uint8(real_images("train", asked, generator))

    return draw


def _painted(network: str, model: Any, method: str) -> Draw:
    networks: dict[str, Any] = dict.fromkeys(("gpt", "draft", "masked", "groups"))
    models = fast_methods.Models(**{**networks, network: model}, tokenizer=_model("tokenizer"))
    way = fast_methods.METHODS[method]

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        tokens = way(models, captions, generator).tokens
        with torch.no_grad():
            return to_uint8(models.tokenizer.decode(tokens))

    return draw


class _Logits(nn.Module):
    """A masked model's logits as a graph of what it reads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        states = self.model.states(ids, positions)
        return states[:, -self.model.config.image_tokens :] @ self.model.codes.T


class _RuntimeMasked(nn.Module):
    """A masked model whose forwards another runtime makes; one graph a shape of captions."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        super().__init__()
        self.model, self.folder, self.config = model, folder, model.config
        self.runners: dict[tuple[int, ...], OnnxModel] = {}

    def image_logits(self, words: Tensor, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """As `MaskedModel.image_logits`; captions of several lengths are left to PyTorch."""
        ids, positions, mask = masked_inputs(self.config, words, tokens, hidden)
        if mask is not None:
            return self.model.image_logits(words, tokens, hidden)
        key = tuple(ids.shape)
        if key not in self.runners:
            path = self.folder / f"masked_{key[0]}_{key[1]}.onnx"
            if not path.is_file():
                graph = _Logits(self.model).eval()
                export_onnx(graph, (ids, positions), path, dynamic_batch=False, tolerance=1e-2)
            self.runners[key] = OnnxModel(path)
        return torch.from_numpy(self.runners[key](ids, positions))


def masked_onnx(folder: Path, _batch: int) -> Draw:
    """The masked model in eight steps, its forwards made by ONNX Runtime."""
    return _painted("masked", _RuntimeMasked(_model("masked"), folder), "masked8")


def gpt_onnx(folder: Path, batch: int) -> Draw:
    """The cached loop with its forwards made by ONNX Runtime; graphs belong to one caption."""
    model, tokenizer = _model("gpt"), _model("tokenizer")
    uniform = torch.empty(batch, model.config.image_tokens)
    loops: dict[tuple[str, ...], Callable[[], Tensor]] = {}

    def prepare(module: nn.Module, given: tuple[Tensor, ...]) -> Callable[..., Any]:
        path = folder / f"gpt_{batch}_{given[0].shape[1]}.onnx"
        if not path.is_file():
            export_onnx(module, given, path, dynamic_batch=False, tolerance=1e-2)
        runner = OnnxModel(path)
        return lambda *inputs: tuple(torch.from_numpy(x) for x in runner(*inputs))

    def draw(captions: Sequence[str], generator: torch.Generator) -> np.ndarray:
        key = tuple(captions)
        if key not in loops:
            words = encode_words(captions)
            words = words[:, : int((words != 0).sum(1).max())]
            loops[key] = cached_drawing(model, words, uniform, prepare)
        uniform.copy_(torch.rand(uniform.shape, generator=generator))
        with torch.no_grad():
            return to_uint8(tokenizer.decode(loops[key]()))

    return draw


GPT, BASE = ("gpt", "tokenizer"), ("generator_base",)
LIKE_GPT, LIKE_BASE = "text_to_image.{}", "generator_base.{}"
OWN = "ladder.{}."  # and the row's name

RUNGS: tuple[Rung, ...] = (
    Rung("plain", "GPT, textbook loop", "", GPT, token_method("plain"), quality=LIKE_GPT),
    Rung("cached", "GPT, KV cache", "recomputation", GPT, token_method("cached"), quality=LIKE_GPT),
    Rung(
        "cached_written", "GPT, KV cache, forward written out", "runtime", GPT,
        token_method("cached", written=True), quality=LIKE_GPT,
    ),
    Rung(
        "groups4", "masked model, four groups", "steps", ("masked_groups", "tokenizer"),
        token_method("groups4", written=True), quality=OWN + "groups4",
    ),
    Rung(
        "flow_one", "flow, one step", "family", ("flow_student", VAE), flow_one,
        quality=OWN + "flow_one",
    ),
    Rung("base", "GENERATOR_BASE, eager", "family", BASE, eager(BASE[0]), quality=LIKE_BASE),
    Rung(
        "base_onnx", "GENERATOR_BASE, ONNX Runtime", "runtime", BASE, onnx(BASE[0]), "onnxruntime",
        quality=LIKE_BASE,
    ),
    Rung(
        "nas", "searched generator", "net", ("generator_nas",), onnx("generator_nas"),
        "onnxruntime", quality=OWN + "nas",
    ),
    Rung(
        "student", "distilled student", "net", ("student",), onnx("student"), "onnxruntime",
        quality=OWN + "student",
    ),
    Rung(
        "student_pruned", "the student pruned", "net", ("student_pruned",),
        onnx("student_pruned"), "onnxruntime", quality=OWN + "student_pruned",
    ),
    Rung(
        "int8", "the pruned student in int8", "runtime", ("student_int8",), onnx("student_int8"),
        "onnxruntime", "int8", quality=OWN + "int8",
    ),
    Rung(
        "int8_lean", "words from a table, bytes in the graph", "runtime", ("student_int8",),
        delivered("student_int8", "onnxruntime", "blocks"), "onnxruntime", "int8",
        quality=OWN + "int8",
    ),
    Rung(
        "int8_openvino", "the same in OpenVINO", "runtime", ("student_int8",),
        delivered("student_int8", "openvino", "mixed"), "openvino", "int8", quality=OWN + "int8",
    ),
)  # fmt: skip
CONTROLS: tuple[Rung, ...] = (
    Rung(
        "gpt_onnx", "GPT, KV cache, ONNX Runtime", "", GPT, gpt_onnx, "onnxruntime", control=True,
        quality=LIKE_GPT,
    ),
    Rung(
        "masked8", "masked model, eight steps, written out", "", ("masked", "tokenizer"),
        token_method("masked8", written=True), control=True, quality=OWN + "masked8",
    ),
    Rung(
        "masked_onnx", "masked model, eight steps, ONNX Runtime", "", ("masked", "tokenizer"),
        masked_onnx, "onnxruntime", control=True, quality=OWN + "masked8",
    ),
    Rung("vae", "VAE", "", (VAE,), vae, control=True, quality=OWN + "vae"),
    Rung(
        "pruned", "GENERATOR_BASE pruned, ONNX Runtime", "", ("generator_pruned",),
        onnx("generator_pruned"), "onnxruntime", control=True, quality=OWN + "pruned",
    ),
    Rung(
        "base_int8", "GENERATOR_BASE, int8, delivered form", "", ("generator_int8",),
        delivered("generator_int8", "openvino", "mixed"), "openvino", "int8", True,
        OWN + "base_int8",
    ),
    Rung(
        "float_lean", "the last rung in float32", "", ("student_pruned",),
        delivered("student_pruned", "openvino", "mixed"), "openvino", control=True,
        quality=OWN + "student_pruned",
    ),
    Rung(
        "nas_lean", "searched generator, delivered form", "", ("generator_nas",),
        delivered("generator_nas", "openvino", "mixed"), "openvino", control=True,
        quality=OWN + "nas",
    ),
    Rung(
        "nas_int8", "the same in int8, calibrated alone", "", ("generator_nas",),
        delivered("generator_nas", "openvino", "mixed", calibrated=True), "openvino", "int8", True,
        OWN + "nas_int8",
    ),
    Rung(
        "student_eager", "the pruned student, eager", "", ("student_pruned",),
        eager("student_pruned"), control=True, quality=OWN + "student_pruned",
    ),
    Rung("compose", "the program that made the data", "", (), oracle, "numpy", control=True,
         quality="generator_base.{}_real"),
)  # fmt: skip


def parameters(rung: Rung) -> int:
    """Weights of all networks that a rung draws with."""
    return sum(sum(p.numel() for p in _model(name).parameters()) for name in rung.needs)


def mine(path: Path) -> Rung:
    """The reader's own rung, a file of Python with a function

        def draw(captions, generator):   # list of str, torch.Generator -> uint8 (B, 28, 28, 3)

    It is run as it stands. Raises ValueError, in one sentence, for a file without that function or
    one that draws something else.
    """
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"--mine {path.name} is not a Python file; name one that holds draw().")
    place = importlib.util.spec_from_file_location("fastgen_mine", path)
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    if not callable(getattr(module, "draw", None)):
        raise ValueError(f"{path.name} has no function draw(captions, generator).")
    picture = module.draw([CAPTION], torch.Generator().manual_seed(0))
    if getattr(picture, "dtype", None) != np.uint8 or picture.shape != (1, 28, 28, 3):
        kind = f"{getattr(picture, 'dtype', type(picture).__name__)} {np.shape(picture)}"
        raise ValueError(f"draw() in {path.name} must return uint8 (1, 28, 28, 3), got {kind}.")
    return Rung("mine", f"yours ({path.name})", "", (), lambda _f, _b: module.draw, "yours",
                control=True)  # fmt: skip


def folded_of(name: str) -> nn.Module:
    """A generator with its norms folded, other networks as they are."""
    model = _model(name)
    if isinstance(model, FoldedGenerator) or not isinstance(model, Generator):
        return model
    return fold(model)
