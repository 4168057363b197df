"""The kernel's side of the widget that draws in the reader's own browser."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from fastgen_course.datasets.captions import VOCABULARY, encode_words
from fastgen_course.runtimes.browser_bundle import digest_of_sources
from fastgen_course.runtimes.onnx_export import export_onnx
from fastgen_course.timing import record, record_timing
from fastgen_course.widgets import browser_gpu as module
from fastgen_course.widgets.browser_gpu import (
    BrowserGPU,
    browser_figure,
    recorded_timings,
    why_not_built,
)

SOURCES = module.FOLDER
CAPTION = "a red boot on a white background"


@dataclass(frozen=True)
class TinyConfig:
    """The one size that the widget asks a generator for."""

    noise: int = 5


class TinyGenerator(nn.Module):
    """Noise and words in, picture out: the signature of GENERATOR_BASE."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TinyConfig()
        self.words = nn.Embedding(len(VOCABULARY), 4)
        self.out = nn.Linear(5 + 4, 3 * 28 * 28)

    def forward(self, noise: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        y = torch.cat([noise, self.words(words).mean(1)], 1)
        return torch.tanh(self.out(y)).unflatten(1, (3, 28, 28))


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(TinyGenerator(), (torch.zeros(2, 5), encode_words([CAPTION] * 2)), path)
    return path


@pytest.fixture
def widget(onnx_file):
    return BrowserGPU(onnx_file, CAPTION, batches=(1, 3))


def error_of(answer):
    said, sent = answer
    assert said["kind"] == "error" and said["id"] == "7" and sent == []
    assert "Traceback" not in said["text"] and "\n" not in said["text"]
    return said["text"]


def test_the_pieces_are_the_file(widget, onnx_file, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    pieces, total, index = [], 1, 0
    while index < total:
        said, (piece,) = widget.answer(
            {"kind": "piece", "id": "p", "name": "model", "index": index}
        )
        assert said["id"] == "p" and said["index"] == index and len(piece) <= 1000
        pieces.append(piece)
        total, index = said["total"], index + 1
    assert total > 2
    assert gzip.decompress(b"".join(pieces)) == onnx_file.read_bytes()


@pytest.mark.parametrize("index", [-1, 10**6, 0.0, True, None, "0"])
def test_a_piece_that_is_not_there(widget, index):
    ask = {"kind": "piece", "id": "7", "name": "model", "index": index}
    assert "the file model has pieces 0 to" in error_of(widget.answer(ask))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"kind": "piece", "name": "../secrets", "index": 0}, "there is no file"),
        ({"kind": "dance"}, "'dance', which the kernel does not know"),
        ({}, "None, which the kernel does not know"),
        ({"kind": "inputs", "caption": "", "seed": 0}, "the caption is empty"),
        ({"kind": "inputs", "caption": None, "seed": 0}, "a caption is a text"),
        ({"kind": "inputs", "caption": "a red blue boot", "seed": 0}, "two values of colour"),
        ({"kind": "inputs", "caption": CAPTION, "seed": -1}, "whole number from 0"),
        ({"kind": "inputs", "caption": CAPTION, "seed": 1.5}, "whole number from 0"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(widget, ask, words):
    assert words in error_of(widget.answer({"id": "7", **ask}))


def test_words_and_noise_are_made_in_the_kernel(widget):
    said, (noise, words) = widget.answer(
        {"kind": "inputs", "id": "7", "caption": CAPTION, "seed": 4}
    )
    assert said["batches"] == [1, 3] and said["key"] == widget.exported.key
    noise = np.frombuffer(noise, "<f4").reshape(3, said["noise_width"])
    words = np.frombuffer(words, "<i8").reshape(3, said["words_width"])
    expected = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
    assert np.array_equal(noise, expected.numpy())
    assert np.array_equal(words, encode_words([CAPTION] * 3).numpy())


def compare(widget, pictures, batch):
    ask = {"kind": "compare", "id": "7", "caption": CAPTION, "seed": 4, "batch": batch}
    return widget.answer(ask, [memoryview(np.ascontiguousarray(pictures)).cast("B")])


def test_the_kernel_finds_the_largest_difference(widget):
    ours = widget.kernel_images(CAPTION, 4, 3)
    assert ours.shape == (3, 3, 28, 28) and ours.std() > 0.01
    assert compare(widget, ours, 3)[0]["difference"] == 0
    # Batch 1 draws the first row of the larger batch.
    assert compare(widget, ours[:1], 1)[0]["difference"] < 1e-6
    spoiled = ours.copy()
    spoiled[2, 1, 27, 0] += 0.25
    assert compare(widget, spoiled, 3)[0]["difference"] == pytest.approx(0.25, abs=1e-6)
    assert compare(widget, ours[::-1], 3)[0]["difference"] > 0.1


def test_pictures_of_a_wrong_batch_are_refused(widget):
    ours = widget.kernel_images(CAPTION, 4, 3)
    assert "batch 2 is not one of this widget's (1, 3)" in error_of(compare(widget, ours[:2], 2))
    text = error_of(compare(widget, ours[:2], 3))
    assert "18,816 bytes of pictures for a batch of 3" in text and "28,224" in text
    said = error_of(widget.answer({"kind": "compare", "id": "7", "caption": CAPTION, "seed": 4,
                                   "batch": 3}))  # fmt: skip
    assert "sent 0 bytes" in said
    spoiled = ours.copy()
    spoiled[0, 0, 0, 0] = np.nan
    assert "NaN" in error_of(compare(widget, spoiled, 3))


@pytest.mark.parametrize("batches", [(), (0, 1), (1, 257), (64, 1), (1, 1), (1.0,), (True,)])
def test_batches_that_cannot_be(batches):
    with pytest.raises(ValueError, match="batches must"):
        BrowserGPU(batches=batches)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 61])
def test_seconds_that_cannot_be(seconds):
    with pytest.raises(ValueError, match="seconds must be"):
        BrowserGPU(seconds=seconds)


def test_a_file_that_is_no_generator_is_told_in_the_page(tmp_path):
    (tmp_path / "text.onnx").write_bytes(b"not a model")
    export_onnx(nn.Linear(3, 2), torch.zeros(2, 3), tmp_path / "linear.onnx")
    for name, words in {
        "text.onnx": "text.onnx is not a readable ONNX model",
        "linear.onnx": "a network of (noise, words)",
        "none.onnx": "none.onnx is missing",
    }.items():
        broken = BrowserGPU(tmp_path / name)  # displaying it is no error: the page asks later
        ask = {"kind": "inputs", "id": "7", "caption": CAPTION, "seed": 0}
        assert words in error_of(broken.answer(ask))


def built(folder: Path, digest: str) -> None:
    dist = folder / "dist"
    dist.mkdir(exist_ok=True)
    (dist / "build.json").write_text(json.dumps({"sources": digest}), encoding="utf-8")
    (dist / "widget.js").write_text("export default {};", encoding="utf-8")
    (dist / "ort.wasm.gz").write_bytes(gzip.compress(b"wasm"))


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The page side's sources, without a build, in another folder."""
    folder = tmp_path / "browser"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules", "dist*"))
    monkeypatch.setattr(module, "FOLDER", folder)
    module._packed_wasm.cache_clear()
    yield folder
    module._packed_wasm.cache_clear()


def test_without_a_build_the_widget_explains_itself(copied, onnx_file):
    widget = BrowserGPU(onnx_file, CAPTION)
    assert widget.sentence == module.NOT_BUILT
    assert "Node.js" in widget.sentence and "\n" not in widget.sentence
    assert widget.sentence.endswith(".") and ". " not in widget.sentence  # one sentence
    assert len(widget._esm) < 200 and "sentence" in widget._esm
    assert repr(widget) == module.NOT_BUILT
    text = error_of(widget.answer({"kind": "piece", "id": "7", "name": "wasm", "index": 0}))
    assert text == module.NOT_BUILT
    # The rest of the course goes on: the kernel draws as before.
    assert widget.kernel_images(CAPTION, 0, 1).shape == (1, 3, 28, 28)


def test_a_build_of_other_sources_is_told(copied, onnx_file):
    built(copied, digest_of_sources(copied))
    assert why_not_built(copied) == ""
    widget = BrowserGPU(onnx_file, CAPTION)
    assert widget.sentence == "" and widget._esm == "export default {};"
    assert repr(widget).startswith("A widget that draws in this page")
    _, (piece,) = widget.answer({"kind": "piece", "name": "wasm", "index": 0})
    assert gzip.decompress(piece) == b"wasm"
    with (copied / "src" / "view.js").open("a", encoding="utf-8") as source:
        source.write("// changed\n")
    assert why_not_built(copied) == module.STALE
    (copied / "dist" / "ort.wasm.gz").unlink()
    assert why_not_built(copied) == module.NOT_BUILT
    (copied / "dist" / "build.json").write_text("{", encoding="utf-8")
    assert why_not_built(copied) == module.NOT_BUILT


def row(runtime, batch, ms):
    return {
        "runtime": runtime,
        "batch": batch,
        "median_ms": ms,
        "p90_ms": 1.5 * ms,
        "readings": 9,
        "calls_a_reading": 2,
        "first_ms": 10 * ms,
        "dispatches": 12,
        "difference": 1e-6,
    }


def test_the_pages_report_as_timings_pictures_and_a_figure(widget):
    assert widget.timings() == []
    with pytest.raises(ValueError, match="no timings of a page"):
        browser_figure([])
    with pytest.raises(ValueError, match="'WASM' has drawn nothing"):
        widget.images("WASM")
    failed = {"runtime": "WebGPU", "batch": 64, "error": "the device was lost"}
    pictures = np.arange(2 * 28 * 28 * 3, dtype=np.uint32).astype(np.uint8)
    widget.report = {
        "adapter": {"kind": "software", "name": "google swiftshader"},
        "rows": [row("WebGPU", 1, 8.0), failed, row("WASM", 1, 2.0), row("WASM", 64, 96.0)],
        "pictures": {"WASM": memoryview(pictures.tobytes())},
    }
    timings = widget.timings()
    assert [(t.device, t.batch) for t in timings] == [
        ("WebGPU (software: google swiftshader)", 1),
        ("WASM", 1),
        ("WASM", 64),
    ]
    assert timings[2].ms_per_image == pytest.approx(1.5)
    assert timings[2].p90_ms == pytest.approx(144)
    assert np.array_equal(widget.images("WASM").ravel(), pictures)
    fig = browser_figure(timings)
    bars = sorted(patch.get_width() for patch in fig.axes[0].patches)
    plt.close(fig)
    assert bars == pytest.approx([1.5, 2.0, 8.0])


def test_recorded_rows_come_back_as_they_were(widget, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    assert recorded_timings() == []
    adapter = {"kind": "hardware", "name": "acme"}
    widget.report = {"adapter": adapter, "rows": [row("WASM", 64, 96.0), row("WebGPU", 1, 8.0)]}
    for timing, name in zip(widget.timings(), ("wasm_batch64", "webgpu_batch1"), strict=True):
        record_timing("browser", f"browser.{name}_ms", timing, command="pytest",
                      runtime="onnxruntime-web", readings=timing.repeats)  # fmt: skip
    record("browser", "browser.max_abs_difference", 1e-6, "pixel", spread=None, command="pytest")
    record("browser", "browser.rate", 632.0, "pictures/s", spread=None, command="pytest", batch=1,
           threads=1, dtype="int8", runtime="onnxruntime-web")  # fmt: skip
    again = recorded_timings()
    assert [(t.device, t.batch, t.median_ms, t.p90_ms, t.repeats) for t in again] == [
        ("WebGPU (acme)", 1, 8.0, 12.0, 9),
        ("WASM", 64, 96.0, 144.0, 9),
    ]


# --- the page side, without a page ---------------------------------------------------------------

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")


def node(script: str) -> object:
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        cwd=SOURCES / "src",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_an_adapter_is_called_what_it_is():
    script = """
    import { findAdapter } from "./adapter.js";
    const found = [];
    async function look(gpu, secure = true) {
      globalThis.isSecureContext = secure;
      Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
      found.push(await findAdapter());
    }
    const gives = (adapter) => ({ requestAdapter: async () => adapter });
    await look(undefined);
    await look(undefined, false);
    await look(gives(null));
    await look({ requestAdapter: async () => { throw new Error("blocked"); } });
    await look(gives({ info: { vendor: "google", architecture: "swiftshader" } }));
    await look(gives({ info: { vendor: "mesa", description: "llvmpipe (LLVM 15)" } }));
    await look(gives({ info: { vendor: "acme", isFallbackAdapter: true } }));
    await look(gives({ info: { vendor: "acme" }, isFallbackAdapter: true }));
    await look(gives({ info: { vendor: "nvidia", architecture: "turing" } }));
    await look(gives({ info: {} }));
    console.log(JSON.stringify(found));
    """
    found = node(script)
    kinds = [adapter["kind"] for adapter in found]
    assert kinds == ["none"] * 4 + ["software"] * 4 + ["hardware"] * 2
    for adapter in found[:4]:
        assert "WASM runs alone" in adapter["words"]
    assert "https" in found[1]["words"] and "blocked" in found[3]["words"]
    for adapter in found[4:8]:
        assert "software adapter" in adapter["words"]
    assert found[8]["name"] == "nvidia turing" and "software" not in found[8]["words"]
    assert found[9]["name"] == "an adapter without a name"


@needs_node
def test_the_pages_timer():
    script = """
    import { measureInTurn, quantile } from "./measure.js";
    const order = [];
    const wait = (name, ms) => () => {
      order.push(name);
      return new Promise((resolve) => setTimeout(resolve, ms));
    };
    let left = 4;
    const breaks = async () => { if (left-- === 0) throw new Error("the device was lost"); };
    const calls = new Map([["a", wait("a", 25)], ["b", wait("b", 25)], ["c", breaks]]);
    const rows = await measureInTurn(calls, 1);
    const never = await measureInTurn(new Map([["d", async () => { throw "no"; }]]), 1);
    const shares = [0, 0.5, 0.9, 1].map((share) => quantile([1, 2, 4, 8, 9], share));
    console.log(JSON.stringify({ rows: [...rows], never: [...never], order, shares }));
    """
    said = node(script)
    rows = dict(said["rows"])
    assert said["shares"] == pytest.approx(np.quantile([1, 2, 4, 8, 9], [0, 0.5, 0.9, 1]))
    assert rows["c"] == {"error": "the device was lost"}
    assert dict(said["never"])["d"] == {"error": "no"}
    for name in ("a", "b"):
        assert rows[name]["readings"] >= 3
        assert 0 < rows[name]["median_ms"] <= rows[name]["p90_ms"]
    assert "".join(said["order"]).endswith("ababab")  # read in turn


# --- what sets it up -----------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]


def test_the_lockfile_holds_exact_versions_and_no_address():
    package = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    wanted = package["dependencies"] | package["devDependencies"]
    for name, version in wanted.items():
        assert version[0].isdigit()
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for path, entry in lock["packages"].items():
        assert "resolved" not in entry
        assert not path or entry["integrity"].startswith("sha512-")
    npmrc = (SOURCES / ".npmrc").read_text(encoding="utf-8").splitlines()
    assert "omit-lockfile-registry-resolved=true" in npmrc and "ignore-scripts=true" in npmrc


def test_the_build_is_never_committed():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    names = [str(SOURCES / name) for name in ("dist/widget.js", "node_modules/x", "src/view.js")]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == names[:2]
