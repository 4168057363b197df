"""The reader's own GPU in a real page: JupyterLab on loopback, headless Chromium, WebGPU and WASM.

Chromium's adapter is a software one here: right, slow, and never asserted to be fast. Skipped
without Chromium or Node.js; FASTGEN_REQUIRE_CHROMIUM=1 makes a missing Chromium, and a bundle that
was not built though Node.js is there, a failure (as in CI). FASTGEN_RECORD=1 records what it found.
"""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from fastgen_course.timing import Timing, record, record_timing
from fastgen_course.widgets.browser_gpu import device_name, why_not_built
from tests.browser.lab import LabPage

COMMAND = "FASTGEN_RECORD=1 python -m pytest tests/browser/test_browser_gpu.py"
RECORDING = os.environ.get("FASTGEN_RECORD") == "1"
SECONDS = 1.0 if RECORDING else 0.05
# A software adapter needs a quarter of a minute for 64 pictures, so that only the record has them.
BATCHES = {"first": (1, 64 if RECORDING else 16), "second": (1, 4)}
PATIENCE_MS = 600_000  # it compiles GPU programs for the CPU, which a busy machine does slowly

# Three views: two of one widget, one of another. What the page reports is written to files.
SETUP = f"""\
import json
from pathlib import Path
import numpy as np
from fastgen_course.show import to_uint8
import torch
from fastgen_course.widgets import browser_gpu as module
from fastgen_course.widgets.browser_gpu import browser_gpu

def kept(name, widget):
    def keep(_change):
        report = dict(widget.report)
        ours = widget.kernel_images(report["caption"], report["seed"], widget.batches[-1])
        drawn = {{runtime: widget.images(runtime) for runtime in report.pop("pictures")}}
        np.savez(name + ".npz", kernel=to_uint8(torch.from_numpy(ours)), **drawn)
        Path(name + ".part").write_text(json.dumps(report))
        Path(name + ".part").rename(name + ".json")
    widget.observe(keep, "report")
    return widget

first = kept("first", browser_gpu(batches={BATCHES["first"]}, seconds={SECONDS}))
second = kept("second", browser_gpu(caption="a large blue bag", seed=3,
                                    batches={BATCHES["second"]}, seconds={SECONDS}))
folder, module.FOLDER = module.FOLDER, Path("nowhere")
unbuilt = browser_gpu()
module.FOLDER = folder
first"""


WIDGETS = {"trial": (SETUP, "first", "second", "unbuilt")}
BROWSER_FLAGS = ("--enable-unsafe-webgpu",)  # without it headless Chromium has no WebGPU


@pytest.fixture(scope="module")
def bundle():
    """The page side, built; without Node.js, which builds it, there is nothing to test."""
    if sentence := why_not_built():
        if shutil.which("node") and os.environ.get("FASTGEN_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"{sentence} (FASTGEN_REQUIRE_CHROMIUM is set, and Node.js is here)")
        pytest.skip(sentence)


@pytest.fixture(scope="module")
def page(bundle, lab):
    """The trial notebook, run, all three views drawn; all tests share it."""
    page = LabPage(lab[1])
    page.requested = []
    page.page.on("request", lambda request: page.requested.append(request.url))
    page.open(lab[0].format("trial.ipynb"))
    assert page.run_all(timeout_s=180) == []
    yield page
    page.close()


def view(page, index):
    """One view of the notebook, by its place."""
    return page.page.locator(".fastgen-browser").nth(index)


def press(page, *indices):
    for index in indices:
        view(page, index).locator("button").click()


def wait_done(page, *indices):
    """Wait until these views say "Done."; an error that they show fails the test in its words."""
    for index in indices:
        status = view(page, index).locator(".fastgen-status")
        page.page.wait_for_function(
            """(node) => node.textContent === 'Done.' ||
                         node.classList.contains('fastgen-wrong')""",
            arg=status.element_handle(),
            timeout=PATIENCE_MS,
        )
        assert status.text_content() == "Done."


def texts(page, index):
    """Everything that a view shows but its status."""
    shown = view(page, index)
    table = shown.locator("tr").all_text_contents()
    return shown.locator(".fastgen-adapter").text_content(), table, ink(shown)


def ink(shown):
    """How many colours each canvas of a view holds, with its words."""
    return shown.locator("canvas").evaluate_all(
        """(canvases) => canvases.map((canvas) => {
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const colours = new Set(new Uint32Array(data.data.buffer));
            return [canvas.getAttribute('aria-label'), canvas.width, canvas.height, colours.size];
        })"""
    )


def reported(page, folder, name):
    """What the kernel got from the page: the report, and the pictures of each runtime."""
    path = folder / f"{name}.json"
    for _ in range(PATIENCE_MS // 100):
        if path.is_file():
            break
        page.page.wait_for_timeout(100)
    with np.load(folder / f"{name}.npz") as pictures:
        return json.loads(path.read_text()), dict(pictures)


@pytest.fixture(scope="module")
def drawn(page, folder):
    """After a press in the first and the third view at once: their reports and pictures."""
    press(page, 0, 2)
    wait_done(page, 0, 1, 2)
    return {name: reported(page, folder, name) for name in ("first", "second")}


def test_both_runtimes_agree_with_the_kernel_and_webgpu_ran(drawn):
    for name, (report, pictures) in drawn.items():
        batches = BATCHES[name]
        rows = {(row["runtime"], row["batch"]): row for row in report["rows"]}
        errors = [row["error"] for row in rows.values() if "error" in row]
        assert errors == []
        assert set(rows) == {(name, batch) for name in ("WebGPU", "WASM") for batch in batches}
        for (runtime, _), row in rows.items():
            assert row["difference"] <= 1e-4
            # The proof that WebGPU ran, and that WASM did without.
            assert (row["dispatches"] > 0) == (runtime == "WebGPU")
            assert row["readings"] >= 3 and 0 < row["median_ms"] <= row["p90_ms"]
        for runtime in ("WebGPU", "WASM"):
            gap = np.abs(pictures[runtime].astype(int) - pictures["kernel"].astype(int))
            assert pictures[runtime].shape == (batches[-1], 28, 28, 3) and gap.max() <= 1
        assert pictures["WASM"].std() > 10 and not (pictures["WASM"] == pictures["WASM"][0]).all()
    if RECORDING:
        record_rows(drawn["first"][0])


def test_a_software_adapter_is_called_software(page, drawn):
    adapter = drawn["first"][0]["adapter"]
    swiftshader = "swiftshader" in adapter["name"].lower()
    assert adapter["kind"] == ("software" if swiftshader else "hardware")
    assert ("software adapter" in texts(page, 0)[0]) == swiftshader


def test_three_views_show_their_widgets(page, drawn):
    adapter, table, canvases = texts(page, 0)
    assert len(table) == 1 + 2 * len(BATCHES["first"]) and adapter
    most = BATCHES["first"][-1]
    for label, width, height, colours in canvases:
        assert f"{most} pictures of" in label and colours > 100
        assert (width, height) == (8 * 28, most // 8 * 28)
    assert texts(page, 1) == (adapter, table, canvases)  # the same widget
    other = texts(page, 2)
    assert len(other[2]) == 2 and "a large blue bag" in other[2][0][0]
    assert other[2] != canvases
    unbuilt = page.page.locator(".jp-OutputArea-output", has_text="is not built").last
    assert "run `make browser`" in unbuilt.text_content()


def test_nothing_was_asked_of_anyone_and_nothing_went_wrong(page, drawn):
    assert page.console_errors == []
    assert page.outside == []
    assert [url for url in page.requested if ".wasm" in url or ".onnx" in url] == []


def test_a_caption_that_cannot_be_drawn_is_one_sentence(page, drawn):
    field = view(page, 1).locator("input[name=caption]")
    before = field.input_value()
    field.fill("a red spaceship")
    field.press("Enter")
    status = view(page, 1).locator(".fastgen-wrong")
    status.wait_for()
    assert 'the word "spaceship" is not one' in status.text_content()
    assert view(page, 0).locator("input[name=caption]").input_value() == "a red spaceship"
    field.fill(before)
    field.press("Tab")


def test_a_reload_keeps_what_was_shown_and_draws_again(page, drawn, folder):
    before = [texts(page, index) for index in range(3)]
    page.save_and_reload()
    view(page, 2).locator("canvas").first.wait_for()
    view(page, 0).locator("canvas").first.wait_for()
    assert [texts(page, index)[1:] for index in range(3)] == [shown[1:] for shown in before]
    (folder / "second.json").unlink()
    press(page, 2)
    wait_done(page, 2)
    report, _ = reported(page, folder, "second")
    assert {row["runtime"] for row in report["rows"] if row["dispatches"]} == {"WebGPU"}
    assert page.console_errors == [] and page.outside == []


def test_without_webgpu_wasm_runs_alone_and_says_so(lab, page, drawn, folder):
    (folder / "second.json").unlink()
    bare = LabPage(lab[1])
    bare.page.add_init_script("delete Navigator.prototype.gpu")
    bare.open(lab[0].format("trial.ipynb"))  # the same kernel: its widgets come back as they were
    view(bare, 2).locator("canvas").first.wait_for()
    assert "no WebGPU adapter (this browser has no WebGPU)" in texts(bare, 2)[0]
    press(bare, 2)
    wait_done(bare, 2)
    report, pictures = reported(bare, folder, "second")
    assert report["adapter"]["kind"] == "none"
    assert [(row["runtime"], row["batch"]) for row in report["rows"]] == [
        ("WASM", batch) for batch in BATCHES["second"]
    ]
    assert all(row["dispatches"] == 0 and row["difference"] <= 1e-4 for row in report["rows"])
    assert set(pictures) == {"WASM", "kernel"}
    assert bare.console_errors == []
    bare.close()


def record_rows(report):
    """Record the differences and the times of this page, with what it ran on."""
    rows = report["rows"]
    worst = max(row["difference"] for row in rows)
    facts = {"base": "generator_base", "browser": report["agent"]}
    record("browser", "browser.max_abs_difference", worst, "pixel value in [-1, 1]", spread=None,
           command=COMMAND, **facts)  # fmt: skip
    for row in rows:
        device = device_name(row["runtime"], report["adapter"])
        timing = Timing(row["median_ms"], row["p90_ms"], row["readings"], row["batch"], device, 1,
                        "float32")  # fmt: skip
        name = f"browser.{row['runtime'].lower()}_batch{row['batch']}_ms"
        record_timing("browser", name, timing, command=COMMAND, runtime="onnxruntime-web",
                      readings=row["readings"], dispatches=row["dispatches"],
                      first_ms=row["first_ms"], **facts)  # fmt: skip
