"""Execute notebooks from a clean kernel, measure them, and write them the same way everywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from fastgen_course.authoring.memory import LIMIT_MB, MemorySampler
from fastgen_course.authoring.notebook_checks import WIDGET_VIEW, output_problems
from fastgen_course.files import atomic_write
from fastgen_course.timing import all_results, record

CELL_TIMEOUT_S = 600
WIDGET_WORDS = "[widget] Run this cell to use it."
# A finished progress bar's text: nothing that a reader of the page needs.
_PROGRESS = re.compile(r"\s*(?:[^\n]*:\s*)?\d+%\||\s*\d+it \[")


class NotebookError(ValueError):
    """A notebook is missing, failed, or wrote what a committed notebook may not hold."""


@dataclass(frozen=True)
class NotebookRun:
    """One execution from top to bottom: minutes, and the peak of the summed PSS in MB."""

    path: Path
    minutes: float
    peak_mb: float


def find_notebooks(root: Path, names: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a checkout, or those that `names` picks: a path, "02" or "02_vae".

    Raises NotebookError for a name that picks none.
    """
    every = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return every
    picked = []
    for name in names:
        stem = Path(name).stem
        found = [path for path in every if path.stem == stem or path.stem.startswith(stem + "_")]
        if not found:
            raise NotebookError(
                f"There is no notebook {name!r}; there are {', '.join(p.stem for p in every)}."
            )
        picked += found
    return picked


def run_notebook(path: Path) -> NotebookRun:
    """Execute the notebook at `path` in a clean kernel, in its folder, and rewrite it normalised.

    The file is written only if every cell ran and nothing went to stderr. Raises NotebookError,
    naming the cell, otherwise.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    began = time.perf_counter()
    with MemorySampler() as memory:
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise NotebookError(f"{path.name} failed: {_last_lines(str(error))}") from error
    minutes = (time.perf_counter() - began) / 60
    normalise(notebook)
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            for problem in output_problems(output):
                raise NotebookError(f"{path.name}: cell {index} {problem}.")
    write_notebook(path, notebook)
    return NotebookRun(path, minutes, memory.peak_mb)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Remove from an executed notebook, in place, what differs between machines and runs.

    Widget state and views (a widget without its kernel cannot be drawn; its output says so in
    words), finished progress bars, times and the machine's Python version. Execution counts,
    cell ids, pictures and printed text stay.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"file_extension": ".py", "name": "python"},
        }
    )
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = _merged(_static(output) for output in cell.outputs)
    return notebook


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook with Unix line ends and a last newline, in place of the old one at once."""
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT)
    with atomic_write(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")


def record_run(run: NotebookRun) -> None:
    """Put a run's minutes and memory into the registry as `course.*.NN`."""
    number = run.path.stem[:2]
    command = f"python -m fastgen_course notebooks {number} --record"
    record("course", f"course.minutes.{number}", round(run.minutes, 2), "minutes",
           spread=None, command=command)  # fmt: skip
    record("course", f"course.peak_mb.{number}", round(run.peak_mb), "MB",
           spread=None, command=command)  # fmt: skip


def record_total(root: Path) -> None:
    """The minutes of all notebooks of a checkout, each as last recorded, as course.minutes.total.

    Nothing is recorded while one of them has no minutes yet.
    """
    rows = {row.name: row for row in all_results("course")}
    names = [f"course.minutes.{path.stem[:2]}" for path in find_notebooks(root, ())]
    if all(name in rows for name in names):
        total = round(sum(rows[name].value for name in names), 2)
        command = "python -m fastgen_course notebooks --record"
        record("course", "course.minutes.total", total, "minutes", spread=None,
               command=command, notebooks=len(names))  # fmt: skip


def run_all(root: Path, names: Sequence[str] = (), recorded: bool = False) -> list[NotebookRun]:
    """Re-execute notebooks one after another, print what each took, and record it if asked."""
    runs = []
    for path in find_notebooks(root, names):
        run = run_notebook(path)
        over = f"  (over the {LIMIT_MB:.0f} MB allowed)" if run.peak_mb > LIMIT_MB else ""
        print(f"{path.name}: {run.minutes:.2f} minutes, peak {run.peak_mb:.0f} MB{over}")
        if recorded:
            record_run(run)
        runs.append(run)
    if recorded:
        record_total(root)
    return runs


def _static(output: NotebookNode) -> NotebookNode | None:
    """The output as a page without a kernel can show it; None for one that says nothing."""
    if output.output_type not in ("display_data", "execute_result"):
        return output
    output.metadata.pop(WIDGET_VIEW, None)
    if output.data.pop(WIDGET_VIEW, None) is None:
        return output
    if _PROGRESS.match(output.data.get("text/plain", "")):
        return None
    output.data["text/plain"] = WIDGET_WORDS
    return output


def _merged(outputs: Iterable[NotebookNode | None]) -> list[NotebookNode]:
    """Outputs without the dropped ones; neighbouring text of one stream is one output.

    A kernel flushes its text in pieces that depend on timing: joined, two runs agree.
    """
    merged: list[NotebookNode] = []
    for output in outputs:
        if output is None:
            continue
        last = merged[-1] if merged else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _last_lines(text: str, count: int = 12) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
    return "\n".join(plain.splitlines()[-count:])
