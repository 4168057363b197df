"""The caption box in a real browser, drawing with the shipped generator.

Skipped without Chromium, unless FASTGEN_REQUIRE_CHROMIUM=1 makes that a failure (as in CI).
"""

from __future__ import annotations

from playwright.sync_api import expect

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
WIDGETS = {"box": BOX}


def test_the_caption_box_draws_what_is_typed_and_says_what_it_cannot(opened, page):
    box = opened("box")
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
