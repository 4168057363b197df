"""A one-step generator as it is delivered: a string in, a picture of bytes out, nothing wasted.

Once the network takes a tenth of a millisecond, what stands around it counts. Three exact changes:
the embedding and the convolution over neighbouring words become one table (both are linear, and the
vocabulary is small); the graph itself turns what it draws into bytes; and a call copies its inputs
into memory that the runtime knows already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.int8_graphs import (
    example_inputs,
    insert_integers,
    library_static_graph,
)
from fastgen_course.compression.quantized import QuantizedGenerator
from fastgen_course.datasets.captions import word_numbers
from fastgen_course.files import atomic_write
from fastgen_course.models.generator import CaptionEncoder, Generator
from fastgen_course.models.searched import SearchedGenerator
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.runtimes.openvino_model import OpenVinoModel

RUNTIMES = ("onnxruntime", "openvino")
# No sum of three table rows comes near: a place without a word never is the maximum.
NO_WORD = -1e4


class WordTable(nn.Module):
    """`CaptionEncoder` with its embedding and convolution multiplied out: three rows are added.

    conv(embed(words))[i] = W_-1 e(w[i-1]) + W_0 e(w[i]) + W_1 e(w[i+1]) + b, and each product is
    one of a vocabulary's few. The encoder's mask sets what stands at a place without a word to 0,
    behind a ReLU and before a maximum: there, so low that the ReLU says 0 after the maximum.
    """

    def __init__(self, encoder: CaptionEncoder) -> None:
        super().__init__()
        with torch.no_grad():
            table = torch.einsum("ve,cek->kvc", encoder.embedding.weight, encoder.ngrams.weight)
            table[1] += encoder.ngrams.bias
            table[1, 0] = NO_WORD
        self.before, self.at, self.after = (
            nn.Parameter(part.clone(), requires_grad=False) for part in table
        )
        self.out = encoder.out

    def forward(self, words: Tensor) -> Tensor:
        """Words (B, L) int64, 0 where there is none, to (B, width)."""
        padded = F.pad(words, (1, 1))
        rows = self.before[padded[:, :-2]] + self.at[words] + self.after[padded[:, 2:]]
        return self.out(rows.amax(1).relu())


class LeanGenerator(FoldedGenerator):
    """A folded generator with a `WordTable`, whose pictures are bytes."""

    def forward(self, noise: Tensor, words: Tensor) -> Tensor:
        """noise (B, config.noise) and words int64 (B, L) to uint8 (B, 28, 28, 3)."""
        return _bytes(super().forward(noise, words))


class LeanSearchedGenerator(SearchedGenerator):
    """A searched generator with a `WordTable`, whose pictures are bytes."""

    def forward(self, noise: Tensor, words: Tensor) -> Tensor:
        """noise (B, config.noise) and words int64 (B, L) to uint8 (B, 28, 28, 3)."""
        return _bytes(super().forward(noise, words))


def _bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def lean(
    generator: Generator | FoldedGenerator | SearchedGenerator, form: str = "transposed"
) -> LeanGenerator | LeanSearchedGenerator:
    """The delivered form of a generator: the bytes that `to_uint8` makes of its pictures.

    Args:
        generator: trained; a `QuantizedGenerator` gives its rounded weights as floats.
        form: of the transposed convolutions (`folding.FORMS`); a folded generator keeps its own,
            and a searched one its architecture's.
    """
    if isinstance(generator, QuantizedGenerator):
        generator = generator.folded(form)
    if isinstance(generator, SearchedGenerator):
        made = LeanSearchedGenerator(generator.config).eval()
        made.load_state_dict(generator.state_dict())
    else:
        folded = fold(generator, form) if isinstance(generator, Generator) else generator
        made = LeanGenerator(folded.config, folded.form).eval()
        made.load_state_dict(folded.state_dict())
    made.caption_encoder = WordTable(made.caption_encoder)
    return made.requires_grad_(False)


def write_lean_graph(
    generator: Generator | FoldedGenerator | SearchedGenerator,
    path: Path | str,
    form: str = "transposed",
    *,
    calibrated: bool = False,
) -> Path:
    """Write `lean(generator)` as ONNX; a `QuantizedGenerator` as the integers that it stores.

    calibrated: a network of floats as int8 by ONNX Runtime's own static quantisation, without any
    training.

    ONNX Runtime multiplies integers in the form "blocks" alone, OpenVINO in all (int8_graphs); the
    "mixed" one suits it best, whose transposed convolution is slow where a map is large.
    """
    import onnx

    inputs = example_inputs(generator, 4)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        # A sum that lies between two bytes may fall to either side.
        export_onnx(lean(generator, form), inputs, plain, tolerance=1.0)
        if calibrated:
            plain = library_static_graph(plain, Path(folder) / "integers.onnx", generator)
        model = onnx.load(plain)
    if isinstance(generator, QuantizedGenerator):
        insert_integers(model.graph, generator, form)
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)
    return Path(path)


class Painter:
    """Strings to pictures by a graph that `write_lean_graph` wrote."""

    def __init__(
        self,
        path: Path | str,
        runtime: str = "onnxruntime",
        batch: int | None = 1,
        threads: int = 1,
    ) -> None:
        """Load a graph.

        Args:
            path: the `.onnx` file.
            runtime: of RUNTIMES; "openvino" raises ImportError with the install line without it.
            batch: captions a call; None leaves it free, which costs OpenVINO time.
            threads: of the runtime.
        """
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime must be {' or '.join(RUNTIMES)}, got {runtime!r}.")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be from 1 up, or None, got {batch}.")
        self.runtime, self.batch = runtime, batch
        self.model: Any = (
            OnnxModel(path, threads)
            if runtime == "onnxruntime"
            else OpenVinoModel(path, threads, batch)
        )
        self.noise = self._noise_size()
        self.bound = runtime == "openvino" and batch is not None
        if batch is not None and self.bound:
            self._bind(batch)

    def _noise_size(self) -> int:
        if self.runtime == "onnxruntime":
            return int(self.model.session.get_inputs()[0].shape[1])
        return int(self.model.compiled.inputs[0].get_partial_shape()[1].get_length())

    def _bind(self, batch: int) -> None:
        """Memory that the runtime reads and writes, filled anew at each call."""
        import openvino as ov

        length = int(self.model.compiled.inputs[1].get_partial_shape()[1].get_length())
        self.given = (
            np.zeros((batch, self.noise), np.float32),
            np.zeros((batch, length), np.int64),
        )
        self.given_noise = torch.from_numpy(self.given[0])  # the same memory
        for index, array in enumerate(self.given):
            tensor = ov.Tensor(array, shared_memory=True)
            self.model.request.set_input_tensor(index, tensor)
        self.drawn = self.model.request.get_output_tensor(0).data

    def __call__(
        self, captions: Sequence[str], generator: torch.Generator | None = None
    ) -> np.ndarray:
        """uint8 (B, 28, 28, 3), one picture a caption, the noise drawn from `generator` (CPU).

        Raises `CaptionError` for a caption that cannot be read, ValueError for another count of
        captions than the batch.
        """
        words = word_numbers(captions)
        if self.batch is not None and len(words) != self.batch:
            raise ValueError(f"this painter draws {self.batch} at a time, got {len(words)}.")
        if self.bound:  # nothing is made: at a tenth of a millisecond each new tensor counts
            self.given_noise.normal_(generator=generator)
            self.given[1][:] = words
            return self._infer()
        noise = torch.randn(len(words), self.noise, generator=generator).numpy()
        return self.paint(noise, np.array(words, np.int64))

    def paint(self, noise: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The same of float32 noise (B, noise) and int64 words (B, L)."""
        if self.runtime == "onnxruntime":
            names = self.model.inputs
            return self.model.session.run(None, {names[0]: noise, names[1]: words})[0]
        if not self.bound:
            return np.array(self.model(noise, words))
        self.given[0][:], self.given[1][:] = noise, words
        return self._infer()

    def _infer(self) -> np.ndarray:
        self.model.request.infer()
        return self.drawn.copy()  # the next call draws into the same memory
