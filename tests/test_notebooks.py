"""Every committed notebook is whole, and the checks that say so can fail."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_output

from fastgen_course.authoring.links import repository
from fastgen_course.authoring.notebook_checks import notebook_problems
from fastgen_course.authoring.notebooks import (
    WIDGET_WORDS,
    NotebookError,
    find_notebooks,
    normalise,
    run_notebook,
)
from tests.helpers_notebooks import REPOSITORY, good_notebook, picture_output, write

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = find_notebooks(ROOT)


def test_the_first_three_notebooks_are_there():
    assert {"00_start_here", "01_gan", "02_vae"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_whole(path):
    assert notebook_problems(path, repository(ROOT)) == []


def test_a_good_notebook_has_no_problem(tmp_path):
    notebook = good_notebook("1 + 1")
    notebook.cells[2].outputs = [picture_output("a red sneaker on white"), new_output("stream")]
    assert notebook_problems(write(tmp_path / "07_trial.ipynb", notebook), REPOSITORY) == []


def _output(output):
    def plant(notebook):
        notebook.cells[2].outputs = [output]

    return plant


def _set(cell, key, value):
    def plant(notebook):
        setattr(notebook.cells[cell], key, value)

    return plant


def _metadata(key, value):
    def plant(notebook):
        notebook.metadata[key] = value

    return plant


PLANTED = {
    "never executed": _set(2, "execution_count", None),
    "in order from a clean kernel": _set(2, "execution_count", 9),
    "ends in an error": _output(new_output("error", ename="ValueError", evalue="", traceback=[])),
    "writes to stderr": _output(new_output("stream", name="stderr", text="careful")),
    "prints a path of a machine: '/home/ada": _output(
        new_output("stream", text="see /home/ada/fastgen")
    ),
    r"prints a path of a machine: 'C:\\Users": _output(
        new_output("execute_result", data={"text/plain": r"C:\Users\ada"})
    ),
    "names a path of a machine": _set(2, "source", "open('/home/ada/data.bin')"),
    "figure without words": _output(picture_output(None)),
    "figure without words: use show": _output(picture_output("plot")),
    "<img> without alt text": _output(
        new_output("display_data", data={"text/html": "<img src='x.png'>"})
    ),
    "shows a picture without words": lambda nb: nb.cells.append(new_markdown_cell("![](a.png)")),
    "stores a widget's view": _output(
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})
    ),
    "stores widget state": _metadata("widgets", {"state": {}}),
    "kernelspec is not python3": _metadata("kernelspec", {"name": "ada", "display_name": "Ada"}),
    "the Python of one machine": _metadata("language_info", {"name": "python", "version": "3.11"}),
    "not a title": _set(0, "source", "A trial? 45 minutes."),
    "asks no question": _set(0, "source", "# A trial\n45 minutes."),
    "how many minutes": _set(0, "source", "# A trial?"),
    "not the bootstrap cell": _set(1, "source", "import sys"),
    "at most 2,000,000": _output(new_output("stream", text="x" * 2_000_001)),
}


@pytest.mark.parametrize("expected", PLANTED)
def test_a_planted_fault_is_found(expected, tmp_path):
    notebook = good_notebook("1 + 1")
    PLANTED[expected](notebook)
    problems = notebook_problems(write(tmp_path / "07_trial.ipynb", notebook), REPOSITORY)
    assert len(problems) == 1
    assert expected in problems[0]
    assert problems[0].startswith("07_trial.ipynb")


def test_a_notebook_cut_short_is_named(tmp_path):
    path = write(tmp_path / "07_trial.ipynb", good_notebook())
    path.write_text(path.read_text()[:200])
    assert "07_trial.ipynb is not a valid notebook" in notebook_problems(path, REPOSITORY)[0]


def test_normalising_twice_changes_nothing_more():
    notebook = good_notebook("1 + 1")
    notebook.metadata["widgets"] = {"state": {}}
    notebook.metadata["language_info"]["version"] = "3.11.7"
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    notebook.cells[2].outputs = [
        new_output("display_data", data={**view, "text/plain": " 50%|##   | 1/2 [00:00<00:00]"}),
        new_output("display_data", data={**view, "text/plain": "VBox(children=())"}),
        new_output("stream", text="one "),
        new_output("stream", text="line\n"),
    ]
    ids = [cell.id for cell in notebook.cells]
    once = nbformat.writes(normalise(notebook))
    assert nbformat.writes(normalise(notebook)) == once
    widget, stream = notebook.cells[2].outputs
    assert widget.data == {"text/plain": WIDGET_WORDS}
    assert stream.text == "one line\n"
    assert [cell.id for cell in notebook.cells] == ids
    assert notebook.cells[2].execution_count == 1 + 1
    assert "widgets" not in notebook.metadata


def test_running_writes_a_whole_notebook_and_measures_it(tmp_path):
    sources = [
        "import sys\nkept = bytearray(120_000_000)\nkept[::4096] = b'x' * len(kept[::4096])",
        "import time; time.sleep(1.0); print(40 + 2)",
        "import ipywidgets; ipywidgets.IntSlider()",
    ]
    path = write(tmp_path / "07_trial.ipynb", good_notebook(*sources, executed=False))
    run = run_notebook(path)
    assert notebook_problems(path, REPOSITORY) == []
    assert nbformat.read(path, as_version=4).cells[3].outputs[0].text == "42\n"
    assert 150 < run.peak_mb < 1000
    assert 1 / 60 < run.minutes < 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('careful', file=sys.stderr)", "cell 2 writes to stderr"),
    ],
)
def test_a_failing_notebook_stays_as_it_was(source, expected, tmp_path):
    path = write(tmp_path / "07_trial.ipynb", good_notebook(source, executed=False))
    before = path.read_bytes()
    with pytest.raises(NotebookError, match=expected):
        run_notebook(path)
    assert path.read_bytes() == before


def test_a_notebook_is_picked_by_number_stem_or_path():
    number = [path.stem for path in find_notebooks(ROOT, ["02"])]
    assert number == ["02_vae"]
    assert [path.stem for path in find_notebooks(ROOT, ["notebooks/02_vae.ipynb"])] == number
    with pytest.raises(NotebookError, match="There is no notebook '99'; there are 00_start_here"):
        find_notebooks(ROOT, ["99"])
