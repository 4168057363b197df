"""The floor plan holds, and its contract can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = """
import sys
sys.path.insert(0, ".")
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True))
"""


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def planted(tmp_path):
    """A package of the same name and contract, with an empty module for some of the rooms."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = re.search(r"^\[tool\.importlinter\]$.*", text, re.MULTILINE | re.DOTALL).group()
    (tmp_path / "pyproject.toml").write_text(contract)
    package = tmp_path / "fastgen_course"
    package.mkdir()
    for name in ("__init__", "cli", "exercises", "sampling", "metrics", "models", "files"):
        (package / f"{name}.py").write_text("")
    return package


def test_every_room_imports_only_from_below():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KEPT" in done.stdout


def test_downward_imports_are_kept(planted):
    (planted / "cli.py").write_text("import fastgen_course.models, fastgen_course.files\n")
    done = lint(planted.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "imported"),
    [("files", "cli"), ("models", "sampling"), ("sampling", "metrics"), ("metrics", "exercises")],
)
def test_an_import_upwards_or_sideways_breaks_it(room, imported, planted):
    (planted / f"{room}.py").write_text(f"import fastgen_course.{imported}\n")
    done = lint(planted.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"fastgen_course.{room}" in done.stdout
    assert "BROKEN" in done.stdout


def test_a_room_that_the_plan_does_not_name_breaks_it(planted):
    (planted / "attic.py").write_text("")
    done = lint(planted.parent)
    assert done.returncode == 1
    assert "attic" in done.stdout
