"""The editor: it draws, edits, redraws under a mask, goes back, says who answered, never raises."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.datasets.captions import render
from fastgen_course.language.assistant import NOBODY, edit_picture
from fastgen_course.language.designer import Designer
from fastgen_course.language.edits import RULES
from fastgen_course.sampling.studio import Studio
from fastgen_course.widgets.editor import (
    MaskPainter,
    VariantPicker,
    design_editor,
    edits_figure,
    turns_figure,
)
from tests.helpers_editing import ExactStudio

PNG = b"\x89PNG"


@pytest.fixture
def editor():
    return design_editor(Designer(ExactStudio(), road=RULES), request="a red boot")


def say(editor, words):
    editor.words.press(words)


def edits_disabled(editor) -> set[bool]:
    controls = (editor.words, editor.repaint_button, editor.mask)
    return {control.disabled for control in controls}


def test_it_draws_four_at_once_and_says_who_answered(editor):
    assert [png[:4] for png in editor.picker.pictures] == [PNG] * 4
    assert all("red boot" in label for label in editor.picker.labels)
    assert f"Answered by: {RULES}" in editor.status.value
    assert "Click the one to go on with" in editor.status.value
    assert edits_disabled(editor) == {True}  # nothing is chosen yet
    assert not editor.undo_button.disabled
    first = editor.picker.pictures
    editor.seed.value = 3
    assert editor.picker.pictures != first
    editor.request.press("a blue bag")
    assert all("blue bag" in label for label in editor.picker.labels)


def test_a_chosen_variant_is_edited_by_words(editor):
    editor.picker.chosen = 1
    assert edits_disabled(editor) == {False}
    assert editor.mask.picture == editor.picker.pictures[1]
    others = [editor.picker.pictures[i] for i in (0, 2, 3)]
    say(editor, "make it blue")
    assert "blue boot" in editor.picker.labels[1] and editor.picker.chosen == 1
    assert [editor.picker.pictures[i] for i in (0, 2, 3)] == others
    assert "colour red → blue" in editor.status.value
    assert editor.words.text == ""
    assert editor.mask.picture == editor.picker.pictures[1]
    assert editor.history.value.count("<li>") == 2
    editor.words.text = "make it green"
    editor.picker.chosen = 3
    assert editor.words.text == "make it green"  # choosing forgets no words
    assert editor.mask.picture == editor.picker.pictures[3]


def test_the_words_that_were_sent_count(editor):
    editor.picker.chosen = 0
    editor.words.text = "make it blu"  # the field's last letters are still on their way
    editor.words.press("make it blue")
    assert "blue boot" in editor.picker.labels[0]
    editor.request.press("a brown bag")
    assert editor.request.text == "a brown bag" and "brown bag" in editor.picker.labels[0]
    first = editor.picker.pictures
    editor.picker.chosen = 0
    say(editor, "make it blue")
    editor.request.press()  # the same words once more
    assert editor.picker.pictures == first


def test_words_in_the_field_say_what_the_marked_places_become(editor):
    editor.picker.chosen = 0
    editor.words.text, editor.mask.hidden = "make it blue", [48]
    editor.repaint_button.click()
    assert "colour red → blue" in editor.status.value and editor.words.text == ""


def test_marked_places_are_drawn_anew(editor):
    editor.picker.chosen = 2
    before = editor.picker.pictures
    editor.mask.hidden = [47, 48]
    editor.repaint_button.click()
    assert editor.picker.pictures[2] != before[2] and editor.picker.pictures[:2] == before[:2]
    assert NOBODY in editor.status.value and "marked places drawn anew" in editor.status.value
    assert editor.mask.hidden == []
    editor.mask.hidden = [1, 2]
    editor.clear_button.click()
    assert editor.mask.hidden == []


def test_undo_goes_back_to_an_empty_table(editor):
    first = editor.picker.pictures
    editor.picker.chosen = 0
    say(editor, "make it blue")
    editor.undo_button.click()
    assert editor.picker.pictures == first and editor.picker.chosen == 0
    editor.undo_button.click()
    assert editor.picker.pictures == [] and "Nothing is drawn" in editor.status.value
    assert editor.undo_button.disabled and edits_disabled(editor) == {True}
    editor.request.press()
    assert editor.picker.pictures == first


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda e: say(e, ""), "the request is empty"),
        (lambda e: say(e, "a <b>car</b>"), "is nothing that the course can draw"),
        (lambda e: say(e, "make it red"), "nothing to change"),
        (lambda e: e.repaint_button.click(), "the mask hides nothing"),
        (
            lambda e: (setattr(e.mask, "hidden", list(range(49))), e.repaint_button.click()),
            "hides the whole picture",
        ),
        (
            lambda e: e.request.press("🎨"),
            "the request has no words",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_the_table_stays(editor, act, words):
    editor.picker.chosen = 1
    before = (editor.picker.pictures, len(editor.designer.turns), editor.history.value)
    act(editor)
    assert words in editor.status.value
    assert "#B00020" in editor.status.value and "<b>" not in editor.status.value
    assert (editor.picker.pictures, len(editor.designer.turns), editor.history.value) == before
    assert edits_disabled(editor) == {False}
    say(editor, "make it blue")
    assert "blue" in editor.picker.labels[1]


def test_missing_weights_and_a_broken_model_are_told_in_the_widget(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    editor = design_editor(Designer(Studio(), road=RULES))
    assert "tokenizer" in editor.status.value and "train" in editor.status.value
    rooms = ExactStudio()
    rooms.draw = lambda captions, generator: 1 / 0
    editor = design_editor(Designer(rooms, road=RULES))
    assert "ZeroDivisionError" in editor.status.value and not editor.request.disabled


def test_it_is_locked_while_it_works(editor):
    editor.picker.chosen = 0
    seen = []
    draw = editor.designer.rooms.draw

    def watched(captions, generator=None):
        seen.append((editor.request.disabled, editor.picker.disabled, editor.status.value))
        return draw(captions, generator)

    editor.designer.rooms.draw = watched
    editor.request.press()
    assert seen[0][:2] == (True, True) and "Drawing …" in seen[0][2]
    assert not editor.request.disabled


def test_a_seed_off_the_slider():
    with pytest.raises(ValueError, match="0 to 99"):
        design_editor(Designer(ExactStudio()), seed=100)


def test_the_mask_is_what_was_marked():
    painter = MaskPainter(hidden=[0, 8, 48])
    assert painter.mask.nonzero().tolist() == [[0, 0], [1, 1], [6, 6]]
    assert VariantPicker().chosen == -1


def test_the_static_figures_beside_it():
    designer = Designer(ExactStudio(), road=RULES)
    designer.ask("a red boot")
    designer.choose(2)
    designer.refine("make it blue")
    fig = turns_figure(designer.turns)
    assert len(fig.axes) == 8
    assert [len(axis.patches) for axis in fig.axes] == [0, 0, 1, 0, 0, 0, 1, 0]
    assert "make it blue" in fig.axes[4].get_ylabel()
    rooms = designer.rooms
    picture = rooms.draw(["a small red bag on a white background, photo"])[0]
    done = edit_picture(picture, "make it pink", rooms=rooms, road=RULES)
    fig = edits_figure([done, done])
    assert [axis.get_ylabel() for axis in fig.axes[::2]] == ["before", "after"]
    assert fig.axes[0].get_title() == "make it pink"
    assert torch.equal(done.source, picture) and "pink" in render(done.found)
    for empty in (turns_figure, edits_figure):
        with pytest.raises(ValueError, match="to show"):
            empty([])
