"""Notebook 02 in a real browser: run to the end, a slider moved by keyboard, the picture changes.

Skipped without Chromium, unless FASTGEN_REQUIRE_CHROMIUM=1 makes that a failure (as in CI).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.lab import LabPage, jupyter_lab, launch, require_chromium
from tests.helpers_notebooks import good_notebook, write

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "02_vae.ipynb"

TRIAL = """\
import io
import ipywidgets as widgets
from PIL import Image

def png(value):
    out = io.BytesIO()
    Image.new("L", (8, 8), int(value)).save(out, format="png")
    return out.getvalue()

live, dead = widgets.IntSlider(max=100), widgets.IntSlider(max=100)
picture, still = widgets.Image(value=png(0)), widgets.Image(value=png(0))
live.observe(lambda change: setattr(picture, "value", png(change.new)), "value")
widgets.VBox([live, picture])
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab with copies of the notebooks and a small trial, and a browser."""
    executable = require_chromium()
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    shutil.copytree(NOTEBOOK.parent, folder, dirs_exist_ok=True)
    trial = good_notebook(TRIAL, "widgets.VBox([dead, still])", "1 / 0", executed=False)
    write(folder / "trial.ipynb", trial)
    with (
        jupyter_lab(folder, home) as address,
        sync_playwright() as playwright,
        launch(playwright, executable) as browser,
    ):
        yield address, browser


@pytest.fixture
def page(lab):
    """A fresh page of the browser."""
    page = LabPage(lab[1])
    yield page
    page.close()


def test_the_test_itself_sees_a_dead_slider_an_error_and_the_console(lab, page):
    page.open(lab[0].format("trial.ipynb"))
    assert page.run_all(timeout_s=60) == ["cell 4: ZeroDivisionError: division by zero"]
    assert page.console_errors == []
    assert page.nudge_slider(0)
    assert not page.nudge_slider(1, timeout_s=1.5)
    page.page.evaluate("() => console.error('planted')")
    assert page.console_errors == ["planted"]


def test_notebook_02_runs_and_its_slider_changes_the_picture(lab, page):
    page.open(lab[0].format(NOTEBOOK.name))
    assert page.run_all(timeout_s=420) == []
    assert page.nudge_slider(0)
    assert page.console_errors == []
    assert page.outside == []
