"""What the course asks: exercises and predictions, registered by id and checked on the way in."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from matplotlib.figure import Figure

from .compare import compare_outcomes
from .run import Case, Outcome, observe

# Part of an id before the dot: the notebook it belongs to, and (as a module of this package) the
# file that registers it. A notebook joins the course by a line here.
NOTEBOOKS: dict[str, str] = {
    "start": "00_start_here",
    "gan": "01_gan",
    "vae": "02_vae",
    "tokens": "03_image_tokens",
    "gpt": "04_text_to_image",
    "masked": "05_parallel_drawing",
    "edit": "06_describe_and_edit",
    "fast": "07_fast_sampling",
    "flow": "08_flow",
    "hardware": "09_hardware",
    "nas": "10_nas",
    "pruning": "11_pruning",
    "quantization": "12_quantization",
    "distillation": "13_distillation",
    "scale": "14_scale_out",
    "pipeline": "15_pipeline",
}

# Two registered implementations must differ by this many tolerances somewhere, so that no result
# can lie within tolerance of both.
SEPARATION = 4.0


class ExerciseError(ValueError):
    """An exercise or prediction is unknown, or was registered in a way that cannot work."""


@dataclass(frozen=True)
class Variant:
    """A registered implementation beside the reference, with what to tell a reader who wrote it."""

    fn: Callable[..., Any]
    text: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Exercise:
    """A piece of code that the reader writes. See `register_exercise` for the fields."""

    id: str
    title: str
    difficulty: int
    minutes: int
    hints: tuple[str, str]
    reference: Callable[..., Any]
    cases: tuple[Case, ...]
    expected: tuple[Outcome, ...]
    wrong: Mapping[str, Variant]
    alternatives: Mapping[str, Variant]
    tolerance: float
    check_gradients: bool
    draw: Callable[[Callable[..., Any], Callable[..., Any]], Figure] | None
    alt: str
    call: Callable[..., Any] | None
    time_limit_s: float

    def observe(self, fn: Callable[..., Any], case: Case, seconds: float | None = None) -> Outcome:
        """Run `fn` on one case in the way that this exercise is judged."""
        return observe(
            fn,
            case,
            call=self.call,
            gradients=self.check_gradients,
            time_limit_s=self.time_limit_s if seconds is None else seconds,
        )


@dataclass(frozen=True)
class Prediction:
    """A question to answer before a result is seen. See `register_prediction` for the fields."""

    id: str
    title: str
    difficulty: int
    minutes: int
    question: str
    choices: tuple[str, ...]
    answer: str
    why: str
    wrong: Mapping[str, str]
    check: Callable[[], str] | None = field(default=None, compare=False)


_REGISTRY: dict[str, Exercise | Prediction] = {}
_HOMES: dict[str, str] = {}


def register_exercise(
    id: str,
    *,
    reference: Callable[..., Any],
    inputs: Iterable[Any] | Callable[[], Iterable[Any]],
    wrong: Mapping[str, tuple[Callable[..., Any], str]],
    title: str,
    difficulty: int,
    minutes: int,
    hints: tuple[str, str],
    alternatives: Mapping[str, tuple[Callable[..., Any], str]] | None = None,
    tolerance: float = 1e-4,
    check_gradients: bool = False,
    draw: Callable[[Callable[..., Any], Callable[..., Any]], Figure] | None = None,
    alt: str = "",
    call: Callable[..., Any] | None = None,
    time_limit_s: float = 10.0,
) -> Exercise:
    """Register an exercise and prove that its diagnosis can work.

    Args:
        id: "notebook.name"; the notebook's part is a key of `NOTEBOOKS`.
        reference: the solution, a plain function or class with source; readers see this source.
        inputs: the cases, or a function that makes them: a tuple of positional arguments, a dict
            of keyword arguments, a `Case`, or a single tensor or number. Put the smallest first
            or not: cases are sorted by their number of elements, so that the counter-example shown
            is the smallest that fails. Randomness belongs in an argument (noise, or a generator).
        wrong: mistake name -> (implementation, hint); at least two.
        title: a few words. difficulty: 1 to 5. minutes: what a reader may need.
        hints: two, the second stronger than the first.
        alternatives: name -> (implementation, note): passes, and the reader is told the note.
        tolerance: allowed error relative to the largest magnitude of each reference tensor.
        check_gradients: compare gradients with respect to every float tensor (and every
            parameter of a module) among the arguments too.
        draw: `draw(yours, ours) -> Figure`, drawn when the reader's result is wrong; both are
            functions. alt: its words; a sentence is made from the title when left empty.
        call: `call(candidate, *args)`, in place of `candidate(*args)`: for a class, or to judge
            a property. With it, names of arguments come from `call`'s signature.
        time_limit_s: for all cases together.

    Raises ExerciseError when a field is out of range, when the reference fails on a case, or when
    two implementations cannot be told apart by the inputs.
    """
    _check_meta(id, title, difficulty, minutes)
    if len(hints) != 2 or not all(h.strip() for h in hints):
        raise ExerciseError(f"exercise {id!r} needs two hints, got {len(hints)}.")
    if len(wrong) < 2:
        raise ExerciseError(f"exercise {id!r} needs at least two wrong implementations.")
    made = list(inputs() if callable(inputs) else inputs)
    cases = tuple(sorted((as_case(item) for item in made), key=lambda c: _elements(_values(c))))
    if not cases:
        raise ExerciseError(f"exercise {id!r} has no inputs.")

    def outcomes(fn: Callable[..., Any]) -> tuple[Outcome, ...]:
        options: dict[str, Any] = {"call": call, "gradients": check_gradients}
        return tuple(observe(fn, c, time_limit_s=time_limit_s, **options) for c in cases)

    variants = {
        kind: {name: Variant(fn, text, outcomes(fn)) for name, (fn, text) in given.items()}
        for kind, given in (("wrong", wrong), ("alternative", alternatives or {}))
    }
    exercise = Exercise(
        id=id,
        title=title,
        difficulty=difficulty,
        minutes=minutes,
        hints=tuple(hints),
        reference=reference,
        cases=cases,
        expected=outcomes(reference),
        wrong=variants["wrong"],
        alternatives=variants["alternative"],
        tolerance=tolerance,
        check_gradients=check_gradients,
        draw=draw,
        alt=alt or f"{title}: your function drawn beside the reference",
        call=call,
        time_limit_s=time_limit_s,
    )
    _check_separation(exercise)
    _add(exercise, getattr(reference, "__module__", ""))
    return exercise


def register_prediction(
    id: str,
    *,
    title: str,
    difficulty: int,
    minutes: int,
    question: str,
    choices: Sequence[str],
    answer: str,
    why: str,
    wrong: Mapping[str, str],
    check: Callable[[], str] | None = None,
) -> Prediction:
    """Register a question with a few answers, one of them right.

    Args:
        choices: three to six short texts. answer: the right one, word for word.
        why: what the reader is told after answering, right or wrong.
        wrong: for every wrong choice, the hint for the idea that leads to it.
        check: a function that works out the right choice by numbers; a test calls it, so that
            the answer cannot drift from the code.

    Raises ExerciseError when the answer is not a choice or a wrong choice has no hint.
    """
    _check_meta(id, title, difficulty, minutes)
    if not 3 <= len(choices) <= 6 or len(set(choices)) != len(choices):
        raise ExerciseError(f"prediction {id!r} needs three to six different choices.")
    if answer not in choices:
        raise ExerciseError(f"prediction {id!r}: the answer {answer!r} is not among its choices.")
    missing = [c for c in choices if c != answer and not wrong.get(c, "").strip()]
    if missing or set(wrong) - set(choices) or answer in wrong:
        raise ExerciseError(
            f"prediction {id!r}: `wrong` must give a hint for each wrong choice and no other"
            + (f"; missing: {missing}." if missing else ".")
        )
    prediction = Prediction(
        id, title, difficulty, minutes, question, tuple(choices), answer, why, dict(wrong), check
    )
    _add(prediction, getattr(check, "__module__", ""))
    return prediction


def find(id: str) -> Exercise | Prediction:
    """The exercise or prediction `id`; its notebook's module is imported when need be.

    Raises ExerciseError that names the nearest ids when there is none.
    """
    if id not in _REGISTRY:
        load(id.partition(".")[0])
    if id in _REGISTRY:
        return _REGISTRY[id]
    near = difflib.get_close_matches(id, _REGISTRY, n=3, cutoff=0.4)
    known = near or sorted(_REGISTRY)
    mend = f"Did you mean {', '.join(known[:3])}?" if known else "None is registered yet."
    raise ExerciseError(f"there is no exercise {id!r}. {mend}")


def find_exercise(id: str) -> Exercise:
    """The exercise `id`. Raises ExerciseError when `id` is a prediction or unknown."""
    found = find(id)
    if not isinstance(found, Exercise):
        raise ExerciseError(f'{id!r} is a prediction; ask it with predict("{id}").')
    return found


def find_prediction(id: str) -> Prediction:
    """The prediction `id`. Raises ExerciseError when `id` is an exercise or unknown."""
    found = find(id)
    if not isinstance(found, Prediction):
        raise ExerciseError(f'{id!r} is an exercise; write it under @exercise("{id}").')
    return found


def load(notebook: str) -> bool:
    """Import the exercises of a notebook (a key of `NOTEBOOKS`); False when it has no file yet."""
    name = f"{__package__}.{notebook}"
    if notebook not in NOTEBOOKS or importlib.util.find_spec(name) is None:
        return False
    importlib.import_module(name)
    return True


def registered(notebook: str | None = None) -> list[Exercise | Prediction]:
    """All exercises and predictions in order of registration, of one notebook or of the course.

    Raises ExerciseError when the notebook is unknown.
    """
    if notebook is not None and notebook not in NOTEBOOKS:
        by_name = {name: key for key, name in NOTEBOOKS.items()}
        if notebook not in by_name:
            raise ExerciseError(
                f"there is no notebook {notebook!r}; choose one of {', '.join(NOTEBOOKS)}."
            )
        notebook = by_name[notebook]
    wanted = [notebook] if notebook else list(NOTEBOOKS)
    for key in wanted:
        load(key)
    return [
        item for key in wanted for item in _REGISTRY.values() if item.id.partition(".")[0] == key
    ]


def as_case(item: Any) -> Case:
    """A tuple of arguments, a dict of keywords, a Case, or one bare argument, as a Case."""
    if isinstance(item, Case):
        return item
    if isinstance(item, tuple):
        return Case(args=item)
    if isinstance(item, dict) and all(isinstance(key, str) for key in item):
        return Case(kwargs=item)
    return Case(args=(item,))


def _add(item: Exercise | Prediction, home: str) -> None:
    # A module that is reloaded registers again; two modules with one id is an author's slip.
    if item.id in _REGISTRY and _HOMES[item.id] != home:
        raise ExerciseError(f"{item.id!r} is already registered, by {_HOMES[item.id]}.")
    _REGISTRY[item.id], _HOMES[item.id] = item, home


def _check_meta(id: str, title: str, difficulty: int, minutes: int) -> None:
    notebook, dot, name = id.partition(".")
    if not dot or not name or notebook not in NOTEBOOKS:
        raise ExerciseError(
            f"id {id!r} must be 'notebook.name' with a notebook among {', '.join(NOTEBOOKS)}."
        )
    if not title.strip():
        raise ExerciseError(f"{id!r} needs a title.")
    if not 1 <= difficulty <= 5:
        raise ExerciseError(f"{id!r}: difficulty is 1 to 5, got {difficulty}.")
    if not 1 <= minutes <= 60:
        raise ExerciseError(f"{id!r}: minutes are 1 to 60, got {minutes}.")


def _check_separation(exercise: Exercise) -> None:
    for case, outcome in zip(exercise.cases, exercise.expected, strict=True):
        if outcome.kind == "timeout" or (outcome.kind == "error" and not case.label):
            raise ExerciseError(
                f"exercise {exercise.id!r}: the reference fails on {case}: {outcome.error!r}. "
                "(Give the case a label if it is meant to raise.)"
            )
    everyone = {"the reference": exercise.expected}
    everyone |= {f"wrong {k!r}": v.outcomes for k, v in exercise.wrong.items()}
    everyone |= {f"alternative {k!r}": v.outcomes for k, v in exercise.alternatives.items()}
    for (a, first), (b, second) in itertools.combinations(everyone.items(), 2):
        wide = exercise.tolerance * SEPARATION
        pairs = zip(first, second, strict=True)
        if not any(compare_outcomes(x, y, wide) or compare_outcomes(y, x, wide) for x, y in pairs):
            raise ExerciseError(
                f"exercise {exercise.id!r}: {a} and {b} cannot be told apart by the inputs; "
                "add an input where they differ, or merge them."
            )


def _values(case: Case) -> tuple[Any, ...]:
    return (*case.args, *case.kwargs.values())


def _elements(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, tuple | list):
        return sum(map(_elements, value))
    return int(getattr(value, "size", 1)) if not callable(value) else 1
