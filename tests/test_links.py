"""`make links` rewrites the public address everywhere, on a copy."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest

from fastgen_course.authoring.links import (
    NAMED,
    LinkError,
    linked_files,
    repository,
    set_repository,
)
from fastgen_course.authoring.notebook_checks import notebook_problems
from fastgen_course.bootstrap import bootstrap_source
from tests.helpers_notebooks import good_notebook, write

ROOT = Path(__file__).resolve().parents[1]
OLD = repository(ROOT)


@pytest.fixture
def copy(tmp_path):
    for name in NAMED:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    trial = good_notebook("1 + 1")
    trial.cells[1].source = bootstrap_source(OLD)
    trial.cells[0].source += f"\n[![Colab](badge.svg)](https://example.org/github/{OLD}/blob/main)"
    write(tmp_path / "notebooks" / "99_trial.ipynb", trial)
    return tmp_path


def test_every_badge_and_bootstrap_cell_is_rewritten(copy):
    whole = {path.name for path in linked_files(copy) if not notebook_problems_of(path, OLD)}
    set_repository(copy, "ada/fast.gen")
    for path in linked_files(copy):
        assert OLD not in path.read_text(encoding="utf-8"), path.name
    assert repository(copy) == "ada/fast.gen"
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert readme.count("ada/fast.gen") == (ROOT / "README.md").read_text("utf-8").count(OLD) >= 4
    for path in (copy / "notebooks").glob("*.ipynb"):
        assert nbformat.read(path, as_version=4).cells[1].source == bootstrap_source("ada/fast.gen")
        if path.name in whole:
            assert notebook_problems_of(path, "ada/fast.gen") == []
    tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))


def notebook_problems_of(path, slug):
    return notebook_problems(path, slug) if path.suffix == ".ipynb" else []


def test_there_and_back_leaves_every_byte_as_it_was(copy):
    before = {path: path.read_bytes() for path in linked_files(copy)}
    assert set(set_repository(copy, "ada/fastgen")) == set(before)
    assert set_repository(copy, "ada/fastgen") == []
    set_repository(copy, OLD)
    assert {path: path.read_bytes() for path in linked_files(copy)} == before


def test_only_the_whole_name_is_replaced(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.fastgen]\nrepository = "a/b"\n')
    text = "a/b a/b.git https://x/a/b/c a/b. but not data/b or a/bc or a/b-c or a/b.c"
    (tmp_path / "README.md").write_text(text)
    set_repository(tmp_path, "n/m")
    expected = "n/m n/m.git https://x/n/m/c n/m. but not data/b or a/bc or a/b-c or a/b.c"
    assert (tmp_path / "README.md").read_text() == expected


@pytest.mark.parametrize("wrong", ["", "ada", "ada/", "/x", "https://x/ada/f", "a b/c", 'a/b"'])
def test_a_wrong_name_is_refused_and_nothing_is_written(wrong, copy):
    before = {path: path.read_bytes() for path in linked_files(copy)}
    with pytest.raises(LinkError, match="write owner/name"):
        set_repository(copy, wrong)
    assert {path: path.read_bytes() for path in linked_files(copy)} == before


def test_a_missing_setting_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(LinkError, match=r"no `repository` under \[tool\.fastgen\]"):
        repository(tmp_path)


def test_notebooks_stay_json(copy):
    set_repository(copy, "ada/fastgen")
    for path in (copy / "notebooks").glob("*.ipynb"):
        json.loads(path.read_text(encoding="utf-8"))
