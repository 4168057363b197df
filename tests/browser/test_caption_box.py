"""The caption box in a real browser, drawing with the shipped generator.

Skipped without Chromium, unless FASTGEN_REQUIRE_CHROMIUM=1 makes that a failure (as in CI).
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect, sync_playwright

from tests.browser.lab import PATIENCE_MS, LabPage, jupyter_lab, launch, require_chromium
from tests.helpers_notebooks import good_notebook, write

BOX = """\
import torch
from fastgen_course.checkpoints import load_model
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.show import to_uint8
from fastgen_course.widgets.caption_box import caption_box

model = load_model("generator_base")

def draw(caption, seed):
    generator = torch.Generator().manual_seed(seed)
    return to_uint8(sample_generator(model, [caption], generator=generator))[0]

caption_box(draw)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab with the widget's notebook, and a browser."""
    executable = require_chromium()
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    write(folder / "box.ipynb", good_notebook(BOX, executed=False))
    with (
        jupyter_lab(folder, home) as address,
        sync_playwright() as playwright,
        launch(playwright, executable) as browser,
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


def opened(lab, page, name: str) -> Locator:
    """The output area of a notebook that holds one widget, run to its end."""
    page.open(lab[0].format(f"{name}.ipynb"))
    assert page.run_all(timeout_s=180) == []
    output = page.page.locator(".jp-OutputArea-output", has=page.page.locator("button"))
    return output.last


def test_the_caption_box_draws_what_is_typed_and_says_what_it_cannot(lab, page):
    box = opened(lab, page, "box")
    picture, field = box.locator("img.widget-image"), box.locator("input[type=text]")
    expect(box).to_contain_text("one reading")
    first = page.pixels(picture)
    field.fill("a large blue bag on a black background")
    field.press("Enter")
    assert page.changed(picture, first)
    second = page.pixels(picture)
    field.fill("a red spaceship")
    field.press("Enter")
    expect(box).to_contain_text('the word "spaceship" is not one that the course can draw')
    assert page.pixels(picture) == second
    field.fill("a red boot")
    box.get_by_role("button", name="Draw").click()
    expect(box).to_contain_text("one reading")
    assert page.changed(picture, second)
