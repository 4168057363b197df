"""README's tables say what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from fastgen_course.authoring.notebooks import record_total
from fastgen_course.authoring.readme import (
    FIGURES,
    NOT_RECORDED,
    PICTURE_CAPTIONS,
    draw_picture,
    opening,
    picture_lines,
    render_readme,
    write_readme,
)
from fastgen_course.checkpoints import build_model, save_checkpoint
from fastgen_course.timing import all_results, record
from tests.helpers_notebooks import good_notebook, write

ROOT = Path(__file__).resolve().parents[1]
PARTS = "\n".join(f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->" for name in
                  ("picture", "notebooks", "figures", "ladder"))  # fmt: skip


def test_readme_has_not_drifted_from_the_registry():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render_readme(ROOT, text) == text, "run `python -m fastgen_course readme`"


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """A checkout with one notebook and an empty registry."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    write(tmp_path / "notebooks" / "07_trial.ipynb", good_notebook())
    (tmp_path / "README.md").write_text(f"before\n{PARTS}\nafter\n", encoding="utf-8")
    return tmp_path


def test_a_recorded_figure_reaches_the_tables_and_drift_is_seen(trial):
    assert write_readme(trial)
    text = (trial / "README.md").read_text(encoding="utf-8")
    assert text.count(NOT_RECORDED) == len(FIGURES) + 3
    assert not write_readme(trial)
    record("course", "course.minutes.07", 1.26, "minutes", spread=None, command="make x")
    record("course", "course.peak_mb.07", 612.4, "MB", spread=None, command="make x")
    record("fid", "fid.floor", 4.03, "FID", spread=0.1, command="python -m x")
    record("judge", "judge.garment_accuracy", 0.9137, "share", spread=0.01, command="make y")
    assert render_readme(trial, text) != text
    assert write_readme(trial)
    text = (trial / "README.md").read_text(encoding="utf-8")
    assert "| 1.3 minutes | 612 MB |" in text
    assert "| 4.03 FID | `python -m x` |" in text
    assert "| 91.4 % | `make y` |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_a_missing_part_is_named(trial):
    with pytest.raises(ValueError, match=r"no part between <!-- figures:begin -->"):
        render_readme(trial, PARTS.replace("figures:begin", "gone"))


def test_the_picture_is_named_only_when_it_is_there(trial):
    assert "is not drawn yet" in picture_lines(trial)
    picture = trial / "data" / "pictures" / "generated.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    alt, target = re.fullmatch(r"!\[(.+)\]\((.+)\)", picture_lines(trial)).groups()
    assert trial / target == picture
    assert "red sneaker" in alt


def test_the_picture_has_a_row_for_each_caption(trial):
    config = {"noise": 8, "caption": 8, "channels": (8, 8, 8)}
    card = dict.fromkeys(("seed", "command", "data_sha256", "minutes", "machine", "metrics"), "x")
    save_checkpoint("generator_base", build_model("generator_base", config), card)
    drawn = Image.open(draw_picture(trial, columns=3))
    assert drawn.width > 3 * 28
    assert drawn.height > len(PICTURE_CAPTIONS) * 28
    assert "is not drawn yet" not in picture_lines(trial)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# 07 · A trial\n\n**What is it for?** 45 to 75 minutes for you, 2 minutes here.",
            ("A trial", "What is it for?", "45 to 75 minutes"),
        ),
        (
            "# A trial\n\n[![b](c.svg)](https://x.org/?q=1)\n\nIt begins. **Question:** why\nso "
            "slow?\n\n- about 60 minutes",
            ("A trial", "why so slow?", "60 minutes"),
        ),
    ],
)
def test_the_first_cell_is_read(text, expected, tmp_path):
    notebook = good_notebook()
    notebook.cells[0].source = text
    assert opening(write(tmp_path / "07_trial.ipynb", notebook)) == expected


def test_the_whole_courses_minutes_are_recorded_once_every_notebook_has_some(trial):
    other = trial / "notebooks" / "08_other.ipynb"
    other.write_bytes(next((trial / "notebooks").glob("07_*.ipynb")).read_bytes())
    record("course", "course.minutes.07", 1.25, "minutes", spread=None, command="make x")
    record_total(trial)
    assert not [row for row in all_results("course") if row.name == "course.minutes.total"]
    record("course", "course.minutes.08", 0.5, "minutes", spread=None, command="make x")
    record_total(trial)
    (total,) = [row for row in all_results("course") if row.name == "course.minutes.total"]
    assert (total.value, total.extra["notebooks"]) == (1.75, 2)
