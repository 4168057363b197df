"""What a committed notebook must look like, checked by program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from fastgen_course.bootstrap import bootstrap_source

MAX_BYTES = 2_000_000
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
# A home folder, a checkout, an environment or a temporary folder of some machine.
_MACHINE_PATH = re.compile(
    r"(?<![\w.:/-])(?:/(?:home|Users|root|work|opt|tmp|usr|var|private|mnt|workspace)/[\w.-]"
    r"|[A-Za-z]:\\\\?(?:Users|[\w.-]+\\))"
    r"|site-packages[/\\]|\.venv[/\\]"
)


def notebook_problems(path: Path, repository: str) -> list[str]:
    """Everything that keeps the notebook at `path` from being committed, one sentence each.

    An unexecuted cell, an error, anything on stderr, a machine's path, a picture without words,
    stored widget state, a wrong kernel or first two cells, or more than 2 MB.
    """
    size = path.stat().st_size
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, nbformat.reader.NotJSONError, ValueError) as error:
        return [f"{path.name} is not a valid notebook: {str(error).splitlines()[0]}"]
    problems = [f"{path.name} holds {size:,} bytes; at most {MAX_BYTES:,}"] * (size > MAX_BYTES)
    for found in (
        _metadata_problems(notebook),
        _opening_problems(notebook, repository),
        _cell_problems(notebook),
    ):
        problems += [f"{path.name}: {text}" for text in found]
    return problems


def _metadata_problems(notebook: NotebookNode) -> Iterator[str]:
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernelspec is not python3"
    if "widgets" in notebook.metadata:
        yield "it stores widget state"
    if "version" in notebook.metadata.get("language_info", {}):
        yield "its metadata names the Python of one machine"
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) != len(ids):
        yield "its cells lack ids of their own"


def _opening_problems(notebook: NotebookNode, repository: str) -> Iterator[str]:
    first, second = [*notebook.cells[:2], None, None][:2]
    text = first.source if first is not None and first.cell_type == "markdown" else ""
    if not text.startswith("# "):
        yield "its first cell is not a title"
    if "?" not in text:
        yield "its first cell asks no question"
    if "minutes" not in text.lower():
        yield "its first cell does not say how many minutes it takes"
    if (
        second is None
        or second.cell_type != "code"
        or second.source != bootstrap_source(repository)
    ):
        yield "its second cell is not the bootstrap cell (fastgen_course/bootstrap.py)"


def _cell_problems(notebook: NotebookNode) -> Iterator[str]:
    expected = 0
    for index, cell in enumerate(notebook.cells):
        if machine_paths(cell.source):
            yield f"cell {index} names a path of a machine: {machine_paths(cell.source)[0]!r}"
        for alt in re.findall(r"!\[([^\]]*)\]\(", cell.source) * (cell.cell_type == "markdown"):
            if not alt.strip():
                yield f"cell {index} shows a picture without words"
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        expected += 1
        if cell.execution_count is None:
            yield f"cell {index} was never executed"
        elif cell.execution_count != expected:
            yield f"cell {index} was not executed in order from a clean kernel"
        for output in cell.outputs:
            yield from (f"cell {index} {text}" for text in output_problems(output))


def output_problems(output: NotebookNode) -> Iterator[str]:
    """What is wrong with one output of a cell, each as the end of a sentence."""
    if output.output_type == "error":
        yield f"ends in an error: {output.ename}"
        return
    if output.output_type == "stream":
        if output.name == "stderr":
            yield f"writes to stderr: {output.text.strip()[:80]!r}"
        texts = [output.text]
    else:
        texts = [str(v) for kind, v in output.data.items() if kind not in _IMAGES]
        if any(kind in output.data for kind in _IMAGES) and not _has_words(output):
            yield "shows a figure without words: use show(fig, alt=...)"
        for tag in re.findall(r"<img\b[^>]*>", str(output.data.get("text/html", ""))):
            if not re.search(r"""\balt=["'][^"']+["']""", tag):
                yield "shows an <img> without alt text"
        if WIDGET_VIEW in output.data:
            yield "stores a widget's view, which cannot be drawn without its state"
    for text in texts:
        for found in machine_paths(text)[:1]:
            yield f"prints a path of a machine: {found!r}"


def machine_paths(text: str) -> list[str]:
    """The places in `text` that look like a path on somebody's machine."""
    return [text[m.start() : m.end() + 20].split()[0] for m in _MACHINE_PATH.finditer(text)]


def _has_words(output: NotebookNode) -> bool:
    words = output.metadata.get("alt", "")
    return isinstance(words, str) and len(words.split()) >= 3
