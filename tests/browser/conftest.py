"""A widget alone in real JupyterLab: the fixtures of the widgets' browser tests."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.lab import PATIENCE_MS, LabPage, jupyter_lab, launch, require_chromium
from tests.helpers_notebooks import good_notebook, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebooks lie, and what their kernels write."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def lab(request, folder, tmp_path_factory):
    """JupyterLab with a notebook for each of the test module's WIDGETS, and a browser.

    A widget is one cell's code, or several cells'; BROWSER_FLAGS, where a module has them, are
    Chromium's.
    """
    executable = require_chromium()
    for name, code in request.module.WIDGETS.items():
        cells = [code] if isinstance(code, str) else code
        write(folder / f"{name}.ipynb", good_notebook(*cells, executed=False))
    with (
        jupyter_lab(folder, tmp_path_factory.mktemp("home")) as address,
        sync_playwright() as playwright,
        launch(playwright, executable, *getattr(request.module, "BROWSER_FLAGS", ())) as browser,
    ):
        yield address, browser


@pytest.fixture
def page(lab):
    """A fresh page of the browser, which must end without an error and without a stray request."""
    expect.set_options(timeout=PATIENCE_MS)
    page = LabPage(lab[1])
    yield page
    errors, outside = page.console_errors, page.outside
    page.close()
    assert errors == []
    assert outside == []


@pytest.fixture
def opened(lab, page):
    """Runs a notebook of one widget to its end: its name -> its output area."""

    def run(name: str):
        page.open(lab[0].format(f"{name}.ipynb"))
        assert page.run_all(timeout_s=180) == []
        return page.page.locator(".jp-OutputArea-output", has=page.page.locator("button")).last

    return run
