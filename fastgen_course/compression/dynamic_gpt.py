"""The language model of notebook 04 in int8: ONNX Runtime's dynamic quantisation, and torchao's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.int8_graphs import library_dynamic_graph
from fastgen_course.compression.int8_runtimes import Row
from fastgen_course.datasets.captions import encode_words, labels_of
from fastgen_course.datasets.scenes import captions_of, scene_batches
from fastgen_course.metrics import accuracies, caption_list, caption_texts
from fastgen_course.models.gpt import GPT
from fastgen_course.runtimes.hardware_networks import Call, Network, calls, shipped_network
from fastgen_course.runtimes.hardware_runtimes import reason_of
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.sampling.gpt import GPT_SAMPLING, draw_images, token_log_likelihoods
from fastgen_course.timing import Comparison, compare

GPT_ROWS: dict[str, Row] = {
    "eager": Row("PyTorch eager", "eager", "float32"),
    "onnxruntime": Row("ONNX Runtime", "onnxruntime", "float32"),
    "onnxruntime_int8": Row("ONNX Runtime, dynamic int8", "onnxruntime", "int8"),
    "torchao_int8": Row("torchao dynamic int8, eager", "eager", "int8"),
}


def dynamic_copy(model: nn.Module) -> nn.Module:
    """A copy whose linear layers multiply int8 weights by activations quantised as they come.

    torchao's eager form. Raises ImportError without torchao.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    copy = deepcopy(model).eval()
    # A head that shares the embedding's weight would take the table away from the embedding.
    layers = {id(m) for m in copy.modules() if isinstance(m, nn.Linear)} - {id(copy.head)}
    quantize_(copy, Int8DynamicActivationInt8WeightConfig(), lambda m, _name: id(m) in layers)
    return copy


@contextmanager
def gpt_calls(
    batch: int, network: Network | None = None
) -> Iterator[tuple[dict[str, Call], dict[str, str]]]:
    """(a cached drawing of `batch` pictures in each row, why a row cannot run)."""
    network = network or shipped_network("gpt")
    found: dict[str, Call] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        graphs = _Graphs(Path(folder))
        makers: dict[str, Callable[[], Call]] = {
            "eager": lambda: calls(network, batch)["gpt"],
            "onnxruntime": lambda: calls(network, batch, graphs.prepare(dynamic=False))["gpt"],
            "onnxruntime_int8": lambda: calls(network, batch, graphs.prepare(dynamic=True))["gpt"],
            "torchao_int8": lambda: calls(
                Network("gpt", dynamic_copy(network.model), network.weights), batch
            )["gpt"],
        }
        for name, make in makers.items():
            try:
                call = make()
                call()
            except Exception as error:  # each library raises kinds of its own
                refused[name] = f"{GPT_ROWS[name].words} cannot run it ({reason_of(error)})."
                continue
            found[name] = call
        yield found, refused


@torch.no_grad()
def operators_started(model: GPT | None = None) -> dict[str, int]:
    """How many of PyTorch's operators one linear layer starts for one token: {"eager", "torchao"}.

    As PyTorch's profiler sees them, the operators that an operator starts counted too. Raises
    ImportError without torchao.
    """
    model = model or load_model("gpt")
    name, plain = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear))
    found = {}
    for row, layer in (
        ("eager", plain),
        ("torchao", dynamic_copy(model).get_submodule(name)),
    ):
        x = torch.randn(1, plain.in_features, generator=torch.Generator().manual_seed(0))
        layer(x)  # whatever happens once has happened
        with torch.profiler.profile() as seen:
            layer(x)
        found[row] = sum(event.name.startswith("aten::") for event in seen.events())
    return found


class _Graphs:
    """The two graphs of a cached drawing, exported once and quantised where asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, dynamic: bool) -> Callable[..., Any]:
        count = 0

        def make(module: nn.Module, given: tuple[Tensor, ...]) -> Callable[..., Any]:
            nonlocal count
            path = self.folder / f"{count}.onnx"
            count += 1
            if not path.is_file():
                export_onnx(module, given, path, dynamic_batch=False, tolerance=1e-3)
            if dynamic:
                path = library_dynamic_graph(path, path.with_suffix(".int8.onnx"))
            runner = OnnxModel(path)
            return lambda *inputs: tuple(torch.from_numpy(x) for x in runner(*inputs))

        return make


def time_gpt(
    batch: int, seconds: float, network: Network | None = None
) -> tuple[Comparison, dict[str, str]]:
    """Every row's drawing of `batch` pictures' tokens, interleaved on one thread."""
    with gpt_calls(batch, network) as (found, refused):
        rows = compare(
            found, batch=batch, threads=1, device="cpu", min_repeats=10, max_seconds=seconds,
            dtype={name: GPT_ROWS[name].dtype for name in found},
        )  # fmt: skip
    return rows, refused


@torch.no_grad()
def gpt_quality(
    n: int, model: GPT | None = None, judge: nn.Module | None = None
) -> dict[str, tuple[float, float, int]]:
    """{"float32", "int8"}: (exact accuracy, nats a token of test pictures, captions).

    int8 is torchao's: the same arithmetic as ONNX Runtime's, int8 weights and activations whose
    range is taken as they come (ONNX Runtime's per tensor, torchao's per token), in a network that
    every function of the course takes.
    """
    model = load_model("gpt") if model is None else model
    tokenizer = load_model("tokenizer")
    attributes = caption_list(n)
    words, labels = encode_words(caption_texts(attributes)), labels_of(attributes)
    scenes = next(scene_batches("test", n, torch.Generator().manual_seed(12), free_share=0.0))
    tokens, captions = tokenizer.encode(scenes.images), captions_of(scenes.labels)
    rows = {}
    for name, network in (("float32", model), ("int8", dynamic_copy(model))):
        generator = torch.Generator().manual_seed(0)
        images = torch.cat(
            [
                draw_images(network, tokenizer, part, generator=generator, **GPT_SAMPLING)
                for part in words.split(100)
            ]
        )
        exact = accuracies(images, labels, judge=judge).exact.value
        costs = [
            -token_log_likelihoods(network, captions[i : i + 100], tokens[i : i + 100]).mean()
            for i in range(0, n, 100)
        ]
        rows[name] = exact, float(torch.stack(costs).mean()), n
    return rows
