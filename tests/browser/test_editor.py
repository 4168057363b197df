"""The editor in a real browser, by mouse and by keyboard.

Its studio is the tests' exact one, so that what a click must do is known. Skipped without Chromium,
unless FASTGEN_REQUIRE_CHROMIUM=1 makes that a failure (as in CI).
"""

from __future__ import annotations

from playwright.sync_api import expect

EDITOR = """\
from fastgen_course.language.designer import Designer
from fastgen_course.language.edits import RULES
from fastgen_course.widgets.editor import design_editor
from tests.helpers_editing import ExactStudio

editor = design_editor(Designer(ExactStudio(), road=RULES), request="a red boot")
editor
"""
WIDGETS = {"editor": EDITOR}


def test_the_editor_chooses_edits_masks_and_undoes(opened, page):
    editor = opened("editor")
    variants = editor.locator("button.fastgen-variant")
    expect(variants).to_have_count(4)
    expect(editor).to_contain_text("Answered by: keyword rules")
    words = editor.locator("input[type=text]").nth(1)
    expect(words).to_be_disabled()

    variants.nth(1).click()
    expect(variants.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(words).to_be_enabled()

    words.fill("make it blue")
    words.press("Enter")
    expect(variants.nth(1)).to_contain_text("blue boot")
    expect(variants.nth(0)).to_contain_text("red boot")
    expect(editor).to_contain_text("colour red → blue")

    expect(words).to_be_focused()  # it was locked meanwhile
    words.press_sequentially("and now green", delay=0)
    words.press("Enter")  # must not overtake the last letters
    expect(variants.nth(1)).to_contain_text("green boot")

    # Drag over the lower right corner: three places of the bottom row and those above.
    board = editor.locator(".fastgen-mask")
    marked = board.locator("button[aria-pressed=true]")
    board.scroll_into_view_if_needed()
    tile = board.bounding_box()["width"] / 7

    def at(column: float, row: float) -> tuple[float, float]:
        box = board.bounding_box()
        return box["x"] + (column + 0.5) * tile, box["y"] + (row + 0.5) * tile

    mouse = page.page.mouse
    mouse.move(*at(4, 6))
    mouse.down()
    mouse.move(*at(5, 6), steps=4)
    mouse.move(*at(6, 6), steps=4)
    mouse.up()
    expect(marked).to_have_count(3)
    mouse.move(*at(4, 6))  # dragging from a marked place takes marks away
    mouse.down()
    mouse.up()
    expect(marked).to_have_count(2)

    # By keyboard: up from the first place goes nowhere, right and down do.
    places = board.locator("button")
    places.nth(0).focus()
    for key in ("ArrowUp", "ArrowRight", "ArrowDown", "Space"):
        page.page.keyboard.press(key)
    expect(board.get_by_role("button", name="row 2, column 2")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(marked).to_have_count(3)

    picture = variants.nth(1).locator("img")
    before = page.pixels(picture)
    editor.get_by_role("button", name="Redraw marked").click()
    expect(editor).to_contain_text("marked places drawn anew")
    expect(marked).to_have_count(0)
    assert page.changed(picture, before)
    redrawn = page.pixels(picture)

    editor.get_by_role("button", name="Redraw marked").click()
    expect(editor).to_contain_text("the mask hides nothing")
    words.fill("turn it into a car")
    editor.get_by_role("button", name="Edit").click()
    expect(editor).to_contain_text("is nothing that the course can draw")

    undo = editor.get_by_role("button", name="Undo")
    undo.click()
    assert page.changed(picture, redrawn)
    assert page.pixels(picture) == before
    variants.nth(0).focus()
    page.page.keyboard.press("Enter")
    expect(variants.nth(0)).to_have_attribute("aria-pressed", "true")
    for _ in range(3):
        expect(undo).to_be_enabled()
        undo.click()
    expect(editor).to_contain_text("Nothing is drawn")
    expect(variants).to_have_count(0)
    expect(undo).to_be_disabled()
