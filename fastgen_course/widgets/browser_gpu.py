"""The reader's own GPU: an exported one-step generator runs in the notebook's page.

ONNX Runtime Web draws with WebGPU and with WASM, the widget times both and compares both with ONNX
Runtime in the kernel. Its files and its numbers travel over the widget's own comm, in pieces that
the page asks for, so that it needs no address but the notebook's own.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn

from fastgen_course.datasets.captions import CaptionError, encode_words, parse
from fastgen_course.files import DataFileError
from fastgen_course.runtimes import browser_bundle
from fastgen_course.runtimes.browser_bundle import BUILD, FOLDER, bundle_fault
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.sampling.one_step import base_generator
from fastgen_course.show import PALETTE
from fastgen_course.timing import Timing, all_results
from fastgen_course.widgets.caption_box import CAPTION

PIECE_BYTES = 1 << 20
MAX_BATCH = 256
RUNTIMES = ("WebGPU", "WASM")
NOT_BUILT = (
    "This widget's page side is not built: with Node.js 20 or newer, run `make browser` (or "
    f"`{BUILD}`) in the course's folder and restart the kernel; the course goes on without it."
)
STALE = (
    "This widget's page side was built from older sources: run `make browser` (or "
    f"`{BUILD}`) in the course's folder and restart the kernel; the course goes on without it."
)
# Shown in place of the bundle; it says the sentence and nothing else.
_EXPLAIN = "export default {render({model, el}) {el.textContent = model.get('sentence');}};"


def why_not_built(folder: Path | None = None) -> str:
    """What keeps the page side in `folder` from running, in one sentence; "" when nothing does."""
    fault = bundle_fault(FOLDER if folder is None else folder)
    return {"": "", browser_bundle.ABSENT: NOT_BUILT, browser_bundle.STALE: STALE}[fault]


class Exported:
    """A one-step generator as an ONNX file in memory, and in the kernel's ONNX Runtime.

    Args:
        generator: a module `model(noise, words) -> images`, exported here, or the path of an
            `.onnx` file of one.

    Raises `ExportError` for a module that cannot be exported, `DataFileError` for a file that is
    missing or no ONNX model, ValueError for one that does not take noise and words.
    """

    def __init__(self, generator: nn.Module | Path | str) -> None:
        if isinstance(generator, nn.Module):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "generator.onnx"
                noise = torch.zeros(2, generator.config.noise)
                export_onnx(generator, (noise, encode_words([CAPTION] * 2)), path)
                content, self.runner = path.read_bytes(), OnnxModel(path)
        else:
            self.runner = OnnxModel(generator)
            content = Path(generator).read_bytes()
        nodes = self.runner.session.get_inputs()
        kinds = [(node.type, len(node.shape)) for node in nodes]
        if kinds != [("tensor(float)", 2), ("tensor(int64)", 2)]:
            raise ValueError(
                "the page draws with a network of (noise, words): float (B, Z) and int64 (B, L); "
                f"this one takes {', '.join(f'{n.name} {n.type} {n.shape}' for n in nodes)}."
            )
        self.noise_width = int(nodes[0].shape[1])
        self.key = hashlib.sha256(content).hexdigest()[:16]
        self.packed = gzip.compress(content, 6)


@functools.lru_cache(maxsize=1)
def _exported_base(model: nn.Module) -> Exported:
    """GENERATOR_BASE, exported once however many widgets show it."""
    return Exported(model)


class BrowserGPU(anywidget.AnyWidget):
    """Runs a one-step generator in the page on WebGPU and on WASM, times and compares both.

    Args:
        generator: a module `model(noise, words) -> images`, or the path of an exported one; None
            takes GENERATOR_BASE as shipped. It is exported when the page first asks.
        caption: what stands in the field at first. Captions become words in the kernel.
        seed: of the noise; batch b takes its first b rows.
        batches: pictures a call, ascending, each 1 to MAX_BATCH.
        seconds: how long each runtime is timed at each batch, three readings at least.

    `report` holds what the page found last: adapter, rows, pictures, the browser's own name.
    `timings()` has its rows as the course's `Timing`, `images()` its pictures. Raises ValueError
    for batches or seconds that cannot be.
    """

    sentence = traitlets.Unicode(read_only=True).tag(sync=True)
    key = traitlets.Unicode(read_only=True).tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    seconds = traitlets.Float().tag(sync=True)
    report = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        generator: nn.Module | Path | str | None = None,
        caption: str = CAPTION,
        seed: int = 0,
        batches: Sequence[int] = (1, 64),
        seconds: float = 1.0,
    ) -> None:
        self.batches = _checked_batches(batches)
        if not 0 < seconds <= 60:
            raise ValueError(f"seconds must be above 0 and at most 60, got {seconds}.")
        self._generator, self._ready = generator, None
        why = why_not_built()
        dist = FOLDER / "dist"
        self._esm = _EXPLAIN if why else (dist / "widget.js").read_text(encoding="utf-8")
        self._css = "" if why else (FOLDER / "src" / "widget.css").read_text(encoding="utf-8")
        self.set_trait("sentence", why)
        self.set_trait("key", uuid.uuid4().hex)
        super().__init__(caption=caption, seed=seed, seconds=float(seconds))
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        """Stands in a notebook that is only rendered, where no page side runs."""
        return self.sentence or "A widget that draws in this page: run the notebook to use it."

    @property
    def exported(self) -> Exported:
        """The exported generator; made at first use."""
        if self._ready is None:
            given = self._generator
            self._ready = _exported_base(base_generator()) if given is None else Exported(given)
        return self._ready

    def inputs(self, caption: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Noise float32 (B, Z) and words int64 (B, L) of the largest batch.

        Raises `CaptionError` for a caption that the grammar does not understand, ValueError for a
        seed that is no whole number from 0.
        """
        if not isinstance(caption, str):
            raise CaptionError(f"a caption is a text, got {type(caption).__name__}.")
        parse(caption)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0, got {seed!r}.")
        batch = self.batches[-1]
        noise = torch.randn(
            batch, self.exported.noise_width, generator=torch.Generator().manual_seed(seed)
        )
        return noise.numpy(), encode_words([caption] * batch).numpy()

    def kernel_images(self, caption: str, seed: int, batch: int) -> np.ndarray:
        """What ONNX Runtime in the kernel draws for these: float32 (batch, 3, 28, 28).

        Raises ValueError for a batch that is not one of `batches`.
        """
        if batch not in self.batches:
            choices = ", ".join(map(str, self.batches))
            raise ValueError(f"batch {batch!r} is not one of this widget's ({choices}).")
        noise, words = self.inputs(caption, seed)
        return self.exported.runner(noise[:batch], words[:batch])

    def answer(
        self, content: dict[str, Any], buffers: Sequence[Any] = ()
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Answer one request of the page: what to send back, and its buffers. Never raises.

        - {kind: "piece", name: "wasm" or "model", index}: that MiB of the gzipped file.
        - {kind: "inputs", caption, seed}: noise and words of the largest batch.
        - {kind: "compare", caption, seed, batch}, pictures: their largest difference from ours.

        What cannot be answered comes back as {kind: "error", text}, one sentence.
        """
        kinds = {"piece": self._piece, "inputs": self._inputs, "compare": self._compare}
        try:
            kind = content.get("kind")
            if kind not in kinds:
                raise ValueError(f"the page asked for {kind!r}, which the kernel does not know.")
            said, sent = kinds[kind](content, buffers)
            return {"kind": kind, "id": content.get("id"), **said}, sent
        except Exception as error:  # an exception in a comm's callback would be lost in a log
            text = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, ValueError | OSError):
                text = f"{type(error).__name__}: {text}"
            return {"kind": "error", "id": content.get("id"), "text": text[:400]}, []

    def timings(self) -> list[Timing]:
        """The page's rows as `Timing`s, device "WebGPU (its adapter)" or "WASM"; [] before a run.

        Rows of a runtime that failed are left out.
        """
        adapter = self.report.get("adapter") or {}
        return [
            Timing(
                median_ms=row["median_ms"],
                p90_ms=row["p90_ms"],
                repeats=row["readings"],
                batch=row["batch"],
                device=device_name(row["runtime"], adapter),
                threads=1,
                dtype="float32",
                label=f"{row['runtime']}, batch {row['batch']}",
            )
            for row in self.report.get("rows", [])
            if "error" not in row
        ]

    def images(self, runtime: str) -> np.ndarray:
        """The pictures that the page drew last: uint8 (B, 28, 28, 3).

        Raises ValueError for a runtime ("WebGPU", "WASM") that has drawn none.
        """
        pictures = self.report.get("pictures") or {}
        if runtime not in pictures:
            drawn = ", ".join(pictures) or "none so far"
            raise ValueError(f"{runtime!r} has drawn nothing in the page (drawn by: {drawn}).")
        return np.frombuffer(pictures[runtime], np.uint8).reshape(-1, 28, 28, 3)

    def _hear(self, _widget: object, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        said, sent = self.answer(content, buffers)
        self.send(said, sent)

    def _piece(self, content: dict[str, Any], _: Any) -> tuple[dict[str, Any], list[bytes]]:
        name, index = content.get("name"), content.get("index")
        if name not in ("wasm", "model"):
            raise ValueError(f"there is no file {name!r}; there are wasm and model.")
        data = _packed_wasm() if name == "wasm" else self.exported.packed
        total = -(-len(data) // PIECE_BYTES)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < total:
            raise ValueError(f"the file {name} has pieces 0 to {total - 1}, not {index!r}.")
        piece = data[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]
        return {"name": name, "index": index, "total": total}, [piece]

    def _inputs(self, content: dict[str, Any], _: Any) -> tuple[dict[str, Any], list[bytes]]:
        noise, words = self.inputs(content.get("caption"), content.get("seed"))
        said = {
            "key": self.exported.key,
            "batches": list(self.batches),
            "noise_width": noise.shape[1],
            "words_width": words.shape[1],
        }
        return said, [noise.astype("<f4").tobytes(), words.astype("<i8").tobytes()]

    def _compare(
        self, content: dict[str, Any], buffers: Sequence[Any]
    ) -> tuple[dict[str, Any], list[bytes]]:
        ours = self.kernel_images(content.get("caption"), content.get("seed"), content.get("batch"))
        if len(buffers) != 1 or memoryview(buffers[0]).nbytes != ours.nbytes:
            got = sum(memoryview(b).nbytes for b in buffers)
            raise ValueError(
                f"the page sent {got:,} bytes of pictures for a batch of {len(ours)}; "
                f"the kernel's own have {ours.nbytes:,}."
            )
        theirs = np.frombuffer(buffers[0], "<f4").reshape(ours.shape)
        if not np.isfinite(theirs).all():
            raise ValueError("the page's pictures hold NaN or infinity.")
        return {"difference": float(np.abs(theirs - ours).max())}, []


def browser_gpu(
    generator: nn.Module | Path | str | None = None, caption: str = CAPTION, **options: Any
) -> BrowserGPU:
    """A `BrowserGPU`; display it to use it. Options: seed, batches, seconds."""
    return BrowserGPU(generator, caption, **options)


def device_name(runtime: str, adapter: dict[str, Any]) -> str:
    """What a row of the page ran on: "WASM", "WebGPU (NAME)" or "WebGPU (software: NAME)"."""
    if runtime != "WebGPU":
        return runtime
    software = "software: " if adapter.get("kind") == "software" else ""
    return f"WebGPU ({software}{adapter.get('name', 'unknown')})"


def recorded_timings() -> list[Timing]:
    """The rows that a page gave and the registry keeps: WebGPU first, small batch first."""
    # The static page's rate, in pictures a second, is recorded in the same area.
    rows = [r for r in all_results("browser") if r.runtime == "onnxruntime-web" and r.unit == "ms"]
    timings = [
        Timing(
            median_ms=row.value,
            p90_ms=row.spread[1],
            repeats=row.extra["readings"],
            batch=row.batch,
            device=row.device,
            threads=row.threads,
            dtype=row.dtype,
            label=row.name,
        )
        for row in rows
    ]
    return sorted(timings, key=lambda t: (not t.device.startswith("WebGPU"), t.device, t.batch))


def browser_figure(timings: Sequence[Timing]) -> Figure:
    """Milliseconds a picture of each runtime at each batch, as bars with their p90 as a line.

    Raises ValueError without timings.
    """
    if not timings:
        raise ValueError("there are no timings of a page to draw; press the widget's button first.")
    devices = list(dict.fromkeys(t.device for t in timings))
    batches = sorted({t.batch for t in timings})
    fig, axis = plt.subplots(figsize=(6.4, 0.6 + 0.5 * len(timings)))
    for t in timings:
        place = batches.index(t.batch) + (devices.index(t.device) + 0.5) / (len(devices) + 0.5)
        colour = PALETTE[devices.index(t.device)]
        first = t.batch == batches[0]
        axis.barh(
            place,
            t.ms_per_image,
            0.9 / (len(devices) + 0.5),
            color=colour,
            label=t.device if first else None,
        )
        axis.plot([t.ms_per_image, t.p90_ms / t.batch], [place, place], color=PALETTE[6], lw=1.5)
        axis.text(t.p90_ms / t.batch, place, f" {t.ms_per_image:.3g} ms", va="center", fontsize=9)
    axis.set_yticks([i + 0.45 for i in range(len(batches))], [f"batch {b}" for b in batches])
    axis.set(xlabel="ms a picture (median; the line runs to the p90)", xscale="log")
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside upper left", ncols=len(devices), fontsize=9)
    return fig


@functools.lru_cache(maxsize=1)
def _packed_wasm() -> bytes:
    path = FOLDER / "dist" / "ort.wasm.gz"
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFileError(NOT_BUILT) from error


def _checked_batches(batches: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(batches)
    whole = all(isinstance(b, int) and not isinstance(b, bool) for b in chosen)
    if not chosen or not whole or not all(1 <= b <= MAX_BATCH for b in chosen):
        raise ValueError(f"batches must be whole numbers from 1 to {MAX_BATCH}, got {batches!r}.")
    if list(chosen) != sorted(set(chosen)):
        raise ValueError(f"batches must ascend and differ, got {batches!r}.")
    return chosen
