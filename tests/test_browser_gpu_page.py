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
from playwright.sync_api import sync_playwright

from fastgen_course.timing import Timing, record, record_timing
from fastgen_course.widgets.browser_gpu import device_name, why_not_built
from tests.browser.lab import LabPage, jupyter_lab, launch, require_chromium, skip_or_fail
from tests.helpers_notebooks import good_notebook, write

COMMAND = "FASTGEN_RECORD=1 python -m pytest tests/test_browser_gpu_page.py"
RECORDING = os.environ.get("FASTGEN_RECORD") == "1"
SECONDS = 1.0 if RECORDING else 0.05
BATCHES = (1, 64)

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
        ours = widget.kernel_images(report["caption"], report["seed"], 64)
        drawn = {{runtime: widget.images(runtime) for runtime in report.pop("pictures")}}
        np.savez(name + ".npz", kernel=to_uint8(torch.from_numpy(ours)), **drawn)
        Path(name + ".part").write_text(json.dumps(report))
        Path(name + ".part").rename(name + ".json")
    widget.observe(keep, "report")
    return widget

first = kept("first", browser_gpu(seconds={SECONDS}))
second = kept("second", browser_gpu(caption="a large blue bag", seed=3, seconds={SECONDS}))
folder, module.FOLDER = module.FOLDER, Path("nowhere")
unbuilt = browser_gpu()
module.FOLDER = folder
first"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the trial notebook, where its kernel writes what the page reported."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(
        folder / "trial.ipynb", good_notebook(SETUP, "first", "second", "unbuilt", executed=False)
    )
    return folder


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """JupyterLab with the trial notebook, and a browser with WebGPU."""
    executable = require_chromium()
    if shutil.which("node") is None:
        pytest.skip("there is no Node.js on this machine; the page side is built with it")
    if sentence := why_not_built():
        skip_or_fail(sentence)
    with (
        jupyter_lab(folder, tmp_path_factory.mktemp("home")) as address,
        sync_playwright() as playwright,
        launch(playwright, executable, "--enable-unsafe-webgpu") as browser,
    ):
        yield address.format("trial.ipynb"), browser


@pytest.fixture(scope="module")
def page(lab):
    """The trial notebook, run, all three views drawn."""
    page = LabPage(lab[1])
    page.requested = []
    page.page.on("request", lambda request: page.requested.append(request.url))
    page.open(lab[0])
    assert page.run_all(timeout_s=120) == []
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
    for _ in range(600):
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
    for report, pictures in drawn.values():
        rows = {(row["runtime"], row["batch"]): row for row in report["rows"]}
        errors = [row["error"] for row in rows.values() if "error" in row]
        assert errors == []
        assert set(rows) == {(name, batch) for name in ("WebGPU", "WASM") for batch in BATCHES}
        for (name, _), row in rows.items():
            assert row["difference"] <= 1e-4
            # The proof that WebGPU ran, and that WASM did without.
            assert (row["dispatches"] > 0) == (name == "WebGPU")
            assert row["readings"] >= 3 and 0 < row["median_ms"] <= row["p90_ms"]
        for name in ("WebGPU", "WASM"):
            gap = np.abs(pictures[name].astype(int) - pictures["kernel"].astype(int))
            assert pictures[name].shape == (64, 28, 28, 3) and gap.max() <= 1
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
    assert len(table) == 1 + 2 * len(BATCHES) and adapter
    for label, width, height, colours in canvases:
        assert "64 pictures of" in label and (width, height) == (224, 224) and colours > 100
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
    (folder / "first.json").unlink()
    press(page, 1)
    wait_done(page, 0, 1)
    report, _ = reported(page, folder, "first")
    assert {row["runtime"] for row in report["rows"] if row["dispatches"]} == {"WebGPU"}
    assert page.console_errors == [] and page.outside == []


def test_without_webgpu_wasm_runs_alone_and_says_so(lab, page, drawn, folder):
    (folder / "second.json").unlink()
    bare = LabPage(lab[1])
    bare.page.add_init_script("delete Navigator.prototype.gpu")
    bare.open(lab[0])  # the same kernel: the widgets come back with what they showed
    view(bare, 2).locator("canvas").first.wait_for()
    assert "no WebGPU adapter (this browser has no WebGPU)" in texts(bare, 2)[0]
    press(bare, 2)
    wait_done(bare, 2)
    report, pictures = reported(bare, folder, "second")
    assert report["adapter"]["kind"] == "none"
    assert [(row["runtime"], row["batch"]) for row in report["rows"]] == [("WASM", 1), ("WASM", 64)]
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
