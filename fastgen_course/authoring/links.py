"""The repository's public address: one setting, and everything that repeats it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from fastgen_course.files import atomic_write

# Beside these, every notebook.
NAMED = ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CITATION.cff")
_SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/[A-Za-z0-9._-]+")


class LinkError(ValueError):
    """The repository's name is not of the form owner/name, or the setting is missing."""


def checkout() -> Path:
    """The checkout's top folder. Raises LinkError when the package runs without one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise LinkError(
            "This command works on a checkout of the course: clone the repository and run it there."
        )
    return root


def repository(root: Path) -> str:
    """The "owner/name" set in `pyproject.toml` under `[tool.fastgen]`."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        return settings["tool"]["fastgen"]["repository"]
    except KeyError as error:
        raise LinkError("pyproject.toml has no `repository` under [tool.fastgen].") from error


def linked_files(root: Path) -> list[Path]:
    """The files that name the public address: the setting, README, CITATION and notebooks."""
    named = [root / name for name in NAMED]
    return [path for path in named if path.is_file()] + sorted((root / "notebooks").glob("*.ipynb"))


def set_repository(root: Path, new: str) -> list[Path]:
    """Make `new` ("owner/name") the public address everywhere; the files that changed.

    Raises LinkError, before anything is written, when `new` is not of that form.
    """
    if not _SLUG.fullmatch(new):
        raise LinkError(f"{new!r} is not a repository: write owner/name, for example ada/fastgen.")
    old = repository(root)
    # Not inside a longer name: "a/b" must not match within "data/b" or "a/bc".
    pattern = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-]|\.(?!git\b)\w)")
    changed = []
    for path in linked_files(root):
        before = path.read_text(encoding="utf-8")
        after = pattern.sub(new, before)
        if after != before:
            with atomic_write(path) as temporary:
                temporary.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed
