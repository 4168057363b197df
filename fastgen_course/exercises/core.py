"""The decorator that judges a reader's code, and what stands around it in a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt

from fastgen_course.show import show

from . import render, source
from .diagnose import Diagnosis, diagnose
from .registry import Exercise, Prediction, find, find_exercise, registered
from .run import isolated, limited
from .session import SESSION, ProgressFileError, default_store

F = TypeVar("F", bound=Callable[..., Any])


def exercise(id: str) -> Callable[[F], F]:
    """Judge the function or class below it and hand back what the notebook goes on with.

    An untouched stub gives the reference; right code is returned itself; wrong code too where it
    runs (after `strict(False)`: the reference); unfinished code gives the reference. What was
    found is displayed. Raises ExerciseError when `id` is unknown; never because of the reader's
    code.
    """
    spec = find_exercise(id)

    def judge(fn: F) -> F:
        diagnosis = diagnose(spec, fn)
        yours = diagnosis.runs and (diagnosis.status != "wrong" or SESSION.strict)
        render.emit(render.verdict_panel(spec, diagnosis, yours_goes_on=yours))
        if diagnosis.status == "wrong" and diagnosis.runs:
            _draw(spec, fn)
        _note(id, diagnosis)
        return fn if yours else spec.reference  # type: ignore[return-value]

    return judge


def strict(on: bool = True) -> None:
    """Choose what follows a wrong answer: your code (True, the default) or ours (False).

    Holds for exercises run from now on; run an exercise's cell again to apply it there.
    """
    SESSION.strict = bool(on)
    which = "your code, right or wrong" if on else "ours whenever yours is wrong"
    text = f"From now on the notebook goes on with {which}."
    render.emit(render.Panel(f"<p>{text}</p>", text))


def header(id: str) -> None:
    """Display an exercise's or a prediction's title, difficulty and minutes."""
    render.emit(render.header_panel(find(id)))


def hints(id: str, solution: bool = True) -> None:
    """Display two folded hints and, unless `solution=False`, the folded solution.

    The solution is the source of the reference that the course itself runs.
    """
    spec = find_exercise(id)
    render.emit(render.hints_panel(spec, source.clean_source(spec.reference) if solution else None))


def hint(id: str, number: int) -> str:
    """Hint 1 or 2 of an exercise as text. Raises ValueError for another number."""
    if number not in (1, 2):
        raise ValueError(f"there are hints 1 and 2, not {number}.")
    return find_exercise(id).hints[number - 1]


def solution(id: str) -> str:
    """The source of an exercise's reference."""
    return source.clean_source(find_exercise(id).reference)


def status(id: str) -> str:
    """Where the reader stands with `id`: "not seen", "not attempted", "right", "wrong", ...

    A notebook's cross-check that only holds for right code may ask `status(id) != "wrong"`.
    """
    find(id)
    record = SESSION.records.get(id)
    return record.status if record else "not seen"


def progress(notebook: str | None = None) -> None:
    """Display where the reader stands: all exercises of the course, or of one notebook.

    `notebook` is "gan" or "01_gan" and the like; raises ExerciseError when there is none such.
    """
    from .registry import NOTEBOOKS

    rows: list[tuple[str, ...]] = []
    done = 0
    items = registered(notebook)
    for item in items:
        record = SESSION.records.get(item.id)
        kind = "prediction" if isinstance(item, Prediction) else "exercise"
        where = NOTEBOOKS[item.id.partition(".")[0]]
        standing = record.status if record else "not seen"
        done += standing.startswith("right")
        tries = str(record.tries) if record and record.tries else ""
        rows.append((where, item.title, kind, standing, record.detail if record else "", tries))
    count = f"{done} of {len(items)} done."
    render.emit(render.progress_panel(rows, count))


def remember(path: str | Path | None = None) -> None:
    """Keep progress in a file from now on, joined with what an earlier session left there.

    Without `path`: the file `FASTGEN_PROGRESS` names, else one in the platform's folder for an
    application's state, outside the checkout. Only ids, statuses and counts are written. Raises
    ProgressFileError when the file is damaged or cannot be written.
    """
    SESSION.remember(Path(path) if path is not None else default_store())
    text = f"Progress is kept in {SESSION.store}; forget() deletes it."
    render.emit(render.Panel(f"<p>{text}</p>", text))


def forget() -> None:
    """Drop all progress of this session, and the remembered file if there is one."""
    SESSION.forget()


def _note(id: str, diagnosis: Diagnosis) -> None:
    note(id, diagnosis.status, diagnosis.mistake)


def note(id: str, status: str, detail: str) -> None:
    """Take down a standing; a file that cannot be written is said once and let go."""
    try:
        SESSION.note(id, status, detail)
    except ProgressFileError as error:
        text = f"Note: {error}"
        render.emit(render.Panel(f"<p>{render.inline(text)}</p>", text))


def _draw(spec: Exercise, fn: Callable[..., Any]) -> None:
    draw = spec.draw
    if draw is None or not render.in_ipython():  # a terminal has the words
        return
    already_open = plt.get_fignums()
    try:
        with isolated(io.StringIO()):
            figure = limited(lambda: draw(fn, spec.reference), spec.time_limit_s)
    except Exception as error:  # the reader's code runs inside
        for number in set(plt.get_fignums()) - set(already_open):
            plt.close(number)  # a half-drawn figure would be shown at the cell's end
        text = f"Your code could not be drawn beside ours ({type(error).__name__}: {error})."
        render.emit(render.Panel(f"<p>{render.inline(text)}</p>", text))
        return
    show(figure, alt=spec.alt)
