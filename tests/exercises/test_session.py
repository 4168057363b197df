"""Headers, hints, predictions, progress, and the edition without solutions."""

import json
import os
from types import SimpleNamespace

import nbformat
import pytest

from fastgen_course.exercises import (
    exercise,
    forget,
    header,
    hint,
    hints,
    predict,
    progress,
    remember,
    render,
    solution,
    status,
    student,
)
from fastgen_course.exercises.prediction import question_panel
from fastgen_course.exercises.registry import ExerciseError, find
from fastgen_course.exercises.session import ProgressFileError, default_store

ASKED = "example.loss_at_equilibrium"
BEST_D = "example.optimal_discriminator"
NOTHING = render.Panel("", "")


def test_header_says_difficulty_and_minutes(example, capsys):
    header(BEST_D)
    header(ASKED)
    words = capsys.readouterr().out
    assert "Exercise: The best discriminator" in words
    assert "difficulty ●●○○○ (2 of 5) · about 5 minutes" in words
    assert "Prediction: What D's loss tells" in words
    assert "about 1 minute ·" in words


def test_hints_and_solution_are_folded_and_escaped(example, capsys):
    spec = find(BEST_D)
    page = render.hints_panel(spec, "def f(x):\n    return x < 1\n").html
    assert page.count("<details") == page.count("</details>") == 3
    assert "<details open" not in page
    assert "return x &lt; 1" in page
    assert "<code>p log D + q log(1 - D)</code>" in page
    hints(BEST_D)
    words = capsys.readouterr().out
    assert "p_data / (p_data + p_model)" not in words
    assert hint(BEST_D, 2) == "Set its derivative to zero."
    assert "return p_data / (p_data + p_model)" in solution(BEST_D)
    with pytest.raises(ValueError, match="hints 1 and 2, not 3"):
        hint(BEST_D, 3)


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("came from the *model*.", "came from the <em>model</em>."),
        ("D*(x) is 2 * p * q, `x*y*z` < 1", "D*(x) is 2 * p * q, <code>x*y*z</code> &lt; 1"),
        ("`a` and ` b", "<code>a</code> and ` b"),
    ],
)
def test_words_are_set_and_formulas_kept(text, page):
    assert render.inline(text) == page


def test_question_is_open_and_its_answer_folded(example):
    page = question_panel(find(ASKED), render.Panel("<p>RESULT</p>", "RESULT"), None)
    before, after = page.html.split("<details")
    assert "What is D's loss" in before
    assert "<li>ln 2</li>" in before
    assert "RESULT" in after
    assert "each of the two terms" in after
    assert not after.startswith(" open")
    assert "RESULT" not in page.text


@pytest.mark.parametrize(
    ("answer", "standing", "words"),
    [
        ("2 ln 2", "right", "You said: 2 ln 2. Right."),
        (1, "wrong", "You said: 0. Not so. A loss of 0 means that D is always right."),
        ("ln 2", "wrong", "That is one of the two terms."),
    ],
)
def test_answer_by_code(example, fresh_session, capsys, answer, standing, words):
    predict(ASKED, ["0", "ln 2", "2 ln 2"], answer=answer)
    said = capsys.readouterr().out
    assert words in said
    assert "The answer: 2 ln 2." in said
    assert status(ASKED) == standing
    given = fresh_session.records[ASKED].detail
    assert "<details open" in question_panel(find(ASKED), NOTHING, given).html


def test_prediction_without_a_reader_asks_and_goes_on(example, capsys):
    predict(ASKED, result=lambda: print("the curve"))
    assert "What is D's loss" in capsys.readouterr().out
    assert status(ASKED) == "not attempted"


def test_prediction_refuses_what_it_does_not_know(example):
    with pytest.raises(ExerciseError, match="not the registered ones"):
        predict(ASKED, ["0", "1", "2"])
    with pytest.raises(ExerciseError, match="number from 1 to 3"):
        predict(ASKED, answer=4)
    with pytest.raises(ExerciseError, match="is an exercise"):
        predict(BEST_D)


def test_captured_figures_keep_their_words():
    output = SimpleNamespace(
        data={"image/png": b"\x89PNG", "text/plain": "[figure] D* in the middle"},
        metadata={"image/png": {"width": 30}, "alt": 'D* at "1/2" everywhere'},
    )
    page = render.outputs_to_html([output])
    assert 'alt="D* at &quot;1/2&quot; everywhere"' in page
    assert 'width="30"' in page
    assert "data:image/png;base64,iVBORw==" in page


def right(p_data, p_model):
    return p_data / (p_model + p_data)


def stub(p_data, p_model): ...


def test_progress_counts_what_is_done(example, capsys):
    exercise(BEST_D)(right)
    exercise(BEST_D)(stub)  # the committed stub, run again, takes nothing back
    predict(ASKED, answer="0")
    capsys.readouterr()
    progress("99_example")
    words = capsys.readouterr().out
    assert "1 of 5 done." in words
    row = next(line for line in words.splitlines() if "The best discriminator" in line)
    assert row.split() == ["99_example", "The", "best", "discriminator", "exercise", "right", "1"]
    assert "not seen" in words
    with pytest.raises(ExerciseError, match="there is no notebook 'elsewhere'"):
        progress("elsewhere")


def test_progress_is_remembered_outside_the_checkout(example, fresh_session, tmp_path, capsys):
    store = tmp_path / "state" / "progress.json"
    exercise(BEST_D)(right)
    remember(store)
    predict(ASKED, answer="0")
    assert set(json.loads(store.read_text())) == {BEST_D, ASKED}
    # Another kernel's record is kept.
    other = {"vae.other": {"status": "right", "detail": "", "tries": 2}}
    store.write_text(json.dumps(json.loads(store.read_text()) | other))
    predict(ASKED, answer="2 ln 2")
    assert set(json.loads(store.read_text())) == {BEST_D, ASKED, "vae.other"}
    fresh_session.records.clear()
    fresh_session.store = None
    remember(store)
    assert status(BEST_D) == "right"
    assert status(ASKED) == "right"
    forget()
    assert not store.exists()
    assert status(BEST_D) == "not seen"


def test_a_damaged_progress_file_is_named(example, tmp_path):
    store = tmp_path / "progress.json"
    store.write_text("{not json")
    with pytest.raises(ProgressFileError, match="delete it to start afresh"):
        remember(store)
    assert store.read_text() == "{not json"


def test_progress_that_cannot_be_written_does_not_stop_the_reader(
    example, fresh_session, tmp_path, capsys, monkeypatch
):
    remember(tmp_path / "progress.json")

    def full(*_):
        raise OSError("The disk is full")

    monkeypatch.setattr("fastgen_course.exercises.session.write_json", full)
    assert exercise(BEST_D)(right) is right
    words = capsys.readouterr().out
    assert "Right." in words
    assert "could not be written" in words
    assert "The disk is full" in words
    assert exercise(BEST_D)(right) is right
    assert "could not be written" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("platform", "variable", "end"),
    [
        ("linux", "XDG_STATE_HOME", "state/fastgen/progress.json"),
        ("win32", "LOCALAPPDATA", "state/fastgen/progress.json"),
        ("darwin", "", "Library/Application Support/fastgen/progress.json"),
    ],
)
def test_default_store(monkeypatch, platform, variable, end):
    monkeypatch.delenv("FASTGEN_PROGRESS", raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable or "UNUSED", "state")
    assert default_store().as_posix().endswith(end)
    monkeypatch.setenv("FASTGEN_PROGRESS", os.path.join("here", "p.json"))
    assert default_store().as_posix() == "here/p.json"


def notebook(example):
    shown = render.hints_panel(find(BEST_D), solution(BEST_D))
    asked = question_panel(find(ASKED), render.Panel("<p>RESULT</p>", "RESULT"), None)

    def cell(text, panel):
        output = nbformat.v4.new_output("display_data", panel._repr_mimebundle_())
        return nbformat.v4.new_code_cell(text, outputs=[output], execution_count=1)

    plain = nbformat.v4.new_output("stream", text="0.5\n")
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(
                "# Title\n\n<!-- solution -->\nSECRET\n<!-- /solution -->\nGo on."
            ),
            cell(f'hints("{BEST_D}")', shown),
            cell(f'predict("{ASKED}", result=draw)', asked),
            nbformat.v4.new_code_cell("print(0.5)", outputs=[plain], execution_count=3),
            nbformat.v4.new_code_cell("SECRET", metadata={"tags": ["solution"]}),
        ]
    )


def test_student_edition(example, tmp_path, capsys):
    (tmp_path / "notebooks").mkdir()
    original = notebook(example)
    nbformat.write(original, tmp_path / "notebooks" / "99_example.ipynb")
    arguments = ["--notebooks", str(tmp_path / "notebooks"), "--out", str(tmp_path / "student")]
    assert student.main(arguments) == 0
    assert "1 notebooks without solutions" in capsys.readouterr().out
    text = (tmp_path / "student" / "99_example.ipynb").read_text(encoding="utf-8")
    for secret in ("SECRET", "p_data / (p_data + p_model)", "RESULT", "each of the two terms"):
        assert secret not in text
    edition = nbformat.reads(text, as_version=4)
    nbformat.validate(edition)
    assert edition.cells[1].source == f'hints("{BEST_D}", solution=False)'
    assert edition.cells[1].outputs[0].data["text/html"].count("<details") == 2
    assert edition.cells[1].outputs[0].data["text/plain"].endswith(f'hint("{BEST_D}", 2).')
    assert "What is D's loss" in edition.cells[2].outputs[0].data["text/html"]
    assert edition.cells[3].outputs[0].text == "0.5\n"
    assert edition.cells[0].source == "# Title\n\nGo on."
    # An edition of the edition is the edition, and the original is as it was.
    assert student.without_solutions(edition) == edition
    assert original == notebook_again(original)


def notebook_again(original):
    return nbformat.reads(nbformat.writes(original), as_version=4)


def test_solution_false_is_what_the_edition_stores(example, capsys):
    hints(BEST_D, solution=False)
    edition = student.without_solutions(notebook(example))
    assert capsys.readouterr().out.strip() == edition.cells[1].outputs[0].data["text/plain"]


def test_student_edition_says_what_is_wrong(example, tmp_path, capsys):
    empty = ["--notebooks", str(tmp_path), "--out", str(tmp_path / "student")]
    assert student.main(empty) == 1
    assert "there are no notebooks in" in capsys.readouterr().err
    nbformat.write(notebook(example), tmp_path / "99_example.ipynb")
    assert student.main(["--notebooks", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "a folder of its own" in capsys.readouterr().err
    bad = notebook(example)
    bad.cells[1].source = "hints(names[0])"
    nbformat.write(bad, tmp_path / "98_bad.ipynb")
    assert student.main(empty) == 1
    assert "98_bad.ipynb, cell 1: write the call as" in capsys.readouterr().err
    assert not (tmp_path / "student").exists()
    (tmp_path / "98_bad.ipynb").write_text("{")
    assert student.main(empty) == 1
    assert "98_bad.ipynb is not a notebook" in capsys.readouterr().err
    bad.cells[1].source = ""
    bad.cells[0].source = "<!-- solution -->"
    with pytest.raises(student.StudentEditionError, match="never closed"):
        student.without_solutions(bad)
