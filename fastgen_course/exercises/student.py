"""Write an edition of the notebooks without solutions, for handing out.

`python -m fastgen_course.exercises.student`, or `make student`; it goes to `student/`.

What changes: the folded solutions in stored outputs go, and `hints(...)` becomes
`hints(..., solution=False)`, so that running the cell does not bring them back; folded answers of
predictions go from the stored outputs (a live reader sees them after answering); a Markdown block
between `<!-- solution -->` and `<!-- /solution -->` and a cell tagged `solution` go. All other
outputs stay, so that the edition reads as well as the original. The references remain in the
package's source; this edition keeps them out of sight, not out of reach.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from fastgen_course.files import atomic_write

from .render import ANSWER, SOLUTION

_MARKDOWN = ("<!-- solution -->", "<!-- /solution -->")
_CALL = re.compile(r"""(?<![\w.])hints\(\s*("[^"\n]*"|'[^'\n]*')\s*,?\s*\)""")
_ANY_CALL = re.compile(r"(?<![\w.])hints\(")
_DONE = re.compile(r"""(?<![\w.])hints\([^)]*\bsolution=False\s*,?\s*\)""")
_WORDS = re.compile(r': two hints and a solution, folded\.(.*), solution\("[^"]+"\)\.')


class StudentEditionError(ValueError):
    """A notebook cannot be turned into an edition without solutions."""


def without_solutions(notebook: NotebookNode, name: str = "the notebook") -> NotebookNode:
    """A copy of `notebook` without solutions and answers.

    Raises StudentEditionError when a block is opened and never closed, or a call of `hints` is
    written in a way that cannot be rewritten safely.
    """
    edition = nbformat.from_dict(notebook)
    edition = nbformat.reads(nbformat.writes(edition), as_version=4)
    edition.cells = [
        cell for cell in edition.cells if "solution" not in cell.metadata.get("tags", [])
    ]
    for index, cell in enumerate(edition.cells):
        where = f"{name}, cell {index}"
        if cell.cell_type == "markdown":
            cell.source = _strip(cell.source, _MARKDOWN, where)
        if cell.cell_type != "code":
            continue
        cell.source = _without_solution_argument(cell.source, where)
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/html" in data:
                page = _strip(data["text/html"], SOLUTION, where)
                data["text/html"] = _strip(page, ANSWER, where)
            if "text/plain" in data:
                data["text/plain"] = _WORDS.sub(r": two hints, folded.\1.", data["text/plain"])
    return edition


def write_edition(source: Path, target: Path) -> list[Path]:
    """Write the edition of every notebook in the folder `source` into the folder `target`.

    Returns the files written. A file appears whole or not at all. Raises StudentEditionError when
    `source` holds no notebooks, is `target`, or one of its notebooks is damaged.
    """
    notebooks = sorted(source.glob("*.ipynb"))
    if not notebooks:
        raise StudentEditionError(
            f"there are no notebooks in {source}/; run this from the checkout, or name the folder."
        )
    if source.resolve() == target.resolve():
        raise StudentEditionError("the edition needs a folder of its own; choose another --out.")
    editions: list[tuple[Path, str]] = []
    for path in notebooks:
        try:
            notebook = nbformat.read(path, as_version=4)
        except (nbformat.ValidationError, ValueError) as error:
            raise StudentEditionError(
                f"{path.name} is not a notebook ({error}); restore it from git."
            ) from error
        edition = without_solutions(notebook, path.name)
        text = nbformat.writes(edition, version=nbformat.NO_CONVERT)
        editions.append((target / path.name, text.rstrip("\n") + "\n"))
    for path, text in editions:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return [path for path, _ in editions]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastgen_course.exercises.student",
        description="Write an edition of the notebooks without solutions.",
    )
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("student"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    try:
        written = write_edition(given.notebooks, given.out)
    except (StudentEditionError, OSError) as error:
        print(f"student edition: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} notebooks without solutions in {given.out}/")
    return 0


def _without_solution_argument(text: str, where: str) -> str:
    text = _CALL.sub(r"hints(\1, solution=False)", text)
    if len(_ANY_CALL.findall(text)) != len(_DONE.findall(text)):
        raise StudentEditionError(
            f'{where}: write the call as hints("notebook.name") so that its solution can be '
            "left out."
        )
    return text


def _strip(text: str, marks: tuple[str, str], where: str) -> str:
    """`text` without all that stands between `marks`, marks included."""
    if text.count(marks[0]) != text.count(marks[1]):
        raise StudentEditionError(f"{where}: a {marks[0]} block is opened and never closed.")
    block = re.compile(re.escape(marks[0]) + r".*?" + re.escape(marks[1]) + r"\n?", re.DOTALL)
    return block.sub("", text)


if __name__ == "__main__":
    sys.exit(main())
