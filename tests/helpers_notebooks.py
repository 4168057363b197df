"""Notebooks made for the tests: a good one, and pieces to spoil it with."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fastgen_course.bootstrap import bootstrap_source

REPOSITORY = "OWNER/fastgen-course"
OPENING = "# 07 · A trial\n\n**What is a trial for?** 45 minutes for you, 1 minute for the machine."


def good_notebook(*sources: str, executed: bool = True) -> NotebookNode:
    """A notebook that passes every check, with a code cell for each source."""
    cells = [new_markdown_cell(OPENING), new_code_cell(bootstrap_source(REPOSITORY))]
    cells += [new_code_cell(source) for source in sources]
    for count, cell in enumerate(cells[1:] if executed else [], start=1):
        cell.execution_count = count
    return new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )


def picture_output(alt: str | None) -> NotebookNode:
    """A displayed PNG with `alt` as its words, or without any."""
    pixel = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5E"
    )
    metadata = {} if alt is None else {"alt": alt}
    return new_output("display_data", data={"image/png": pixel}, metadata=metadata)


def write(path: Path, notebook: NotebookNode) -> Path:
    """Write `notebook` to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
