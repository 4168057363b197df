"""Judge a reader's function: right, a known mistake, or an unknown one with a counter-example."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from . import relations, source
from .compare import Difference, compare_outcomes
from .registry import Exercise, Variant
from .run import Case, Outcome, argument_names
from .values import at, describe, is_small, kind_of, shape_of

Status = Literal["not attempted", "right", "right, with a note", "wrong", "unfinished"]


@dataclass(frozen=True)
class CounterExample:
    """One input with both results, in words. `label` is the case's own, often empty."""

    inputs: tuple[tuple[str, str], ...]
    yours: str
    ours: str
    place: str = ""
    label: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What became of an attempt.

    `mistake` is the registered name or a generic one (`named` is False when it only says what
    differs, not why), `says` the sentences for the reader, `runs` whether a notebook can go on
    with the reader's code, `printed` what the code printed on the counter-example.
    """

    status: Status
    mistake: str = ""
    says: tuple[str, ...] = ()
    counter: CounterExample | None = None
    runs: bool = False
    printed: str = ""
    named: bool = True


@dataclass
class _Attempt:
    """A reader's function with everything observed about it."""

    exercise: Exercise
    fn: Callable[..., Any]
    node: source.FunctionNode | None
    outcomes: list[Outcome] = field(default_factory=list)
    differences: list[Difference | None] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The index of the smallest failing case."""
        return next(i for i, d in enumerate(self.differences) if d is not None)


def diagnose(exercise: Exercise, fn: Callable[..., Any]) -> Diagnosis:
    """Compare `fn` with the reference and every registered mistake on all cases."""
    node = source.definition_of(fn)
    if node is not None and source.is_untouched(node):
        return Diagnosis("not attempted")
    attempt = _Attempt(exercise, fn, node)
    deadline = time.monotonic() + exercise.time_limit_s
    for case, expected in zip(exercise.cases, exercise.expected, strict=True):
        outcome = exercise.observe(fn, case, max(deadline - time.monotonic(), 0.05))
        attempt.outcomes.append(outcome)
        attempt.differences.append(compare_outcomes(outcome, expected, exercise.tolerance))
        if outcome.kind == "timeout":
            break
    if node is None and _all_nothing(attempt.outcomes):
        return Diagnosis("not attempted")
    if not any(attempt.differences):
        return Diagnosis("right", says=_mutation_note(attempt), runs=True)
    for name, variant in exercise.alternatives.items():
        if _matches(attempt, variant):
            runs = all(d is None or d.runs for d in attempt.differences)
            return Diagnosis("right, with a note", name, (variant.text,), runs=runs)
    return _unfinished(attempt) or _known(attempt) or _unknown(attempt)


def _matches(attempt: _Attempt, variant: Variant, *, values_only: bool = False) -> bool:
    """Whether every outcome agrees with the variant's, gradients included unless told."""
    outcomes: Sequence[Outcome] = attempt.outcomes
    theirs: Sequence[Outcome] = variant.outcomes
    if values_only:
        outcomes = [replace(outcome, gradients={}) for outcome in outcomes]
        theirs = [replace(outcome, gradients={}) for outcome in theirs]
    tolerance = attempt.exercise.tolerance
    return len(outcomes) == len(theirs) and not any(
        compare_outcomes(a, b, tolerance) for a, b in zip(outcomes, theirs, strict=True)
    )


def _known(attempt: _Attempt) -> Diagnosis | None:
    # First a mistake that agrees in everything; then one whose values agree, when the values are
    # wrong: a reader's gradient may have a fault of its own on top.
    values_wrong = any(d is not None and not d.gradient for d in attempt.differences)
    for values_only in (False, True)[: 1 + values_wrong]:
        for name, variant in attempt.exercise.wrong.items():
            if not _matches(attempt, variant, values_only=values_only):
                continue
            return Diagnosis(
                "wrong",
                name,
                (variant.text,),
                _counter(attempt),
                _runs(attempt),
                attempt.outcomes[attempt.first].printed,
            )
    return None


def _unfinished(attempt: _Attempt) -> Diagnosis | None:
    """None or Ellipsis returned, an exception, the time limit: said in words."""
    outcome = attempt.outcomes[attempt.first]
    hole = source.leftover_ellipsis(attempt.node) if attempt.node else None
    holes = f"Line {hole} still holds `...`." if hole else ""
    last = attempt.outcomes[-1]
    if last.kind == "timeout":
        seconds = attempt.exercise.time_limit_s
        says = [f"Your code was still running after {seconds:g} s and was stopped."]
        says.append("Look for a loop that never ends, or work that can be done on whole tensors.")
        if not last.stopped:
            says.append("A part of it still runs in the background; restarting the kernel ends it.")
        return Diagnosis("unfinished", "over the time limit", (*says, *filter(None, [holes])))
    if outcome.kind == "error" and attempt.exercise.expected[attempt.first].kind == "value":
        if any(_matches(attempt, v) for v in attempt.exercise.wrong.values()):
            return None  # a registered mistake that raises has a better hint
        says = (_error_sentence(attempt, outcome), *filter(None, [holes]))
        counter = _counter(attempt)
        return Diagnosis(
            "unfinished", "raises an exception", says, counter, printed=outcome.printed
        )
    difference = attempt.differences[attempt.first]
    if difference is None or difference.kind != "nothing" or difference.gradient:
        return None
    place = f" in {difference.where}" if difference.where else ""
    if difference.yours is ...:
        says = (f"Your code returns `...`{place}, a place that is still to be filled.",)
    elif attempt.node is not None and not place and source.returns_nothing(attempt.node):
        says = ("Your code has no `return`, so its result is None.",)
    else:
        says = (f"Your code returns None{place}.",)
    return Diagnosis("unfinished", "nothing returned", (*says, *filter(None, [holes])))


def _unknown(attempt: _Attempt) -> Diagnosis:
    """No registered mistake fits: the kind of difference, a relation if one holds, the case."""
    difference = attempt.differences[attempt.first]
    assert difference is not None
    says = [_difference_sentence(difference)]
    mistake, explanation = relations.explain(
        attempt.exercise, attempt.fn, attempt.outcomes, attempt.differences
    )
    says += [explanation] if explanation else []
    if attempt.node is not None:
        if unused := source.unused_arguments(attempt.node):
            names = " and ".join(f"`{name}`" for name in unused)
            says.append(f"Your code never reads {names}.")
        if hole := source.leftover_ellipsis(attempt.node):
            says.append(f"Line {hole} still holds `...`.")
    says += _mutation_note(attempt)
    return Diagnosis(
        "wrong",
        mistake or ("another gradient" if difference.gradient else _KIND_NAMES[difference.kind]),
        tuple(says),
        _counter(attempt),
        _runs(attempt),
        attempt.outcomes[attempt.first].printed,
        named=bool(mistake),
    )


_KIND_NAMES = {
    "error": "a wrong input is not refused",
    "nothing": "nothing returned",
    "type": "another type of result",
    "length": "another number of results",
    "shape": "another shape",
    "dtype": "another dtype",
    "nonfinite": "NaN or infinity",
    "value": "another value",
}


def _difference_sentence(d: Difference) -> str:
    subject = d.where[:1].upper() + d.where[1:] if d.where else "The result"
    if d.gradient and d.yours is None:
        name = d.where.removeprefix("the gradient of ")
        return (
            f"The values are right, but no gradient reaches {name}: look for `detach`, "
            "`.data`, `.item()`, `no_grad`, rounding, or a trip through NumPy."
        )
    if d.gradient and d.kind == "value":
        return f"The values are right, {d.where} is not."
    if d.kind == "error":
        refusal = f"This input must be refused with {_a(type(d.ours).__name__)}"
        instead = f"raises {type(d.yours).__name__}" if d.yours is not None else "accepts it"
        return f"{refusal}; your code {instead}."
    if d.kind == "type":
        return f"{subject} is {_a(kind_of(d.yours))}; {_a(kind_of(d.ours))} is due."
    if d.kind == "length":
        return f"{subject} is {_a(kind_of(d.yours))}; {_a(kind_of(d.ours))} is due."
    if d.kind == "shape":
        return f"{subject} has shape {shape_of(d.yours)}; shape {shape_of(d.ours)} is due."
    if d.kind == "dtype":
        return f"{subject} is {_dtype(d.yours)}; {_dtype(d.ours)} is due."
    if d.kind == "nonfinite":
        return (
            f"{subject} is {at(d.yours, d.index)} where {at(d.ours, d.index)} is due: look for a "
            "logarithm of 0, a division by 0, or an exponential that overflows."
        )
    if d.share < 0.5 and isinstance(d.ours, torch.Tensor):
        return f"{subject} is wrong in {d.share:.0%} of its elements and right in the others."
    return f"{subject} has the right shape and other values."


def _counter(attempt: _Attempt) -> CounterExample:
    """The smallest failing case, cut down to one row where the failure survives the cut."""
    exercise, index = attempt.exercise, attempt.first
    case, yours, ours = exercise.cases[index], attempt.outcomes[index], exercise.expected[index]
    difference = attempt.differences[index]
    if difference is not None and difference.kind == "value" and not difference.gradient:
        case, yours, ours, difference = _shrink(attempt, case, yours, ours, difference)
    assert difference is not None
    names = argument_names(
        exercise.call or exercise.reference, case, skip=0 if exercise.call is None else 1
    )
    values = (*case.args, *case.kwargs.values())
    inputs = tuple((n, describe(v)) for n, v in zip(names, values, strict=True))
    if difference.kind == "error":
        return CounterExample(inputs, _ending(yours), _ending(ours), label=case.label)
    mine, theirs, place = difference.yours, difference.ours, difference.where
    if difference.index and not is_small(mine, theirs):
        where = f"[{', '.join(map(str, difference.index))}]"
        place = f"{place} at {where}" if place else f"at {where}"
        # Where the work is element by element, the input's own element says most.
        inputs = tuple(
            (n, text + (f" (here {at(v, difference.index)})" if _same_shape(v, theirs) else ""))
            for (n, text), v in zip(inputs, values, strict=True)
        )
        return CounterExample(
            inputs, at(mine, difference.index), at(theirs, difference.index), place, case.label
        )
    shown = "no gradient" if difference.gradient and mine is None else describe(mine)
    if difference.kind in ("type", "shape", "dtype"):
        shown, our_text = f"{shown} ({kind_of(mine)})", f"{describe(theirs)} ({kind_of(theirs)})"
    else:
        our_text = describe(theirs)
    return CounterExample(inputs, shown, our_text, place, case.label)


def _shrink(
    attempt: _Attempt, case: Case, yours: Outcome, ours: Outcome, difference: Difference
) -> tuple[Case, Outcome, Outcome, Difference]:
    """Keep one row of every tensor along each shared dimension, as long as it still fails."""
    exercise = attempt.exercise
    best = (case, yours, ours, difference)
    if exercise.call is not None or case.kwargs:
        return best
    for dim in range(max((a.ndim for a in case.args if isinstance(a, torch.Tensor)), default=0)):
        args = best[0].args
        tensors = [a for a in args if isinstance(a, torch.Tensor) and a.ndim > dim]
        sizes = {a.shape[dim] for a in tensors}
        index = best[3].index
        if len(sizes) != 1 or sizes <= {0, 1} or len(index) <= dim or index[dim] >= min(sizes):
            continue
        row = index[dim]
        cut = Case(
            tuple(
                a.narrow(dim, row, 1) if isinstance(a, torch.Tensor) and a.ndim > dim else a
                for a in args
            ),
            label=case.label,
        )
        mine = exercise.observe(attempt.fn, cut, 1.0)
        theirs = exercise.observe(exercise.reference, cut, 1.0)
        if mine.kind != "value" or theirs.kind != "value":
            continue
        found = compare_outcomes(mine, theirs, exercise.tolerance)
        if found is not None and found.kind == "value" and not found.gradient:
            best = (cut, mine, theirs, found)
    return best


def _runs(attempt: _Attempt) -> bool:
    complete = len(attempt.differences) == len(attempt.exercise.cases)
    return complete and all(d is None or d.runs for d in attempt.differences)


def _all_nothing(outcomes: list[Outcome]) -> bool:
    return all(o.kind == "value" and (o.value is None or o.value is ...) for o in outcomes)


def _mutation_note(attempt: _Attempt) -> tuple[str, ...]:
    changed = sorted(
        {
            name
            for mine, ours in zip(attempt.outcomes, attempt.exercise.expected, strict=False)
            for name in set(mine.mutated) - set(ours.mutated)
        }
    )
    if not changed:
        return ()
    names = " and ".join(f"`{name}`" for name in changed)
    return (f"It changes {names} in place; whoever called it will find the input altered.",)


def _error_sentence(attempt: _Attempt, outcome: Outcome) -> str:
    error = outcome.error
    text = str(error).strip().split("\n")[0]
    sentence = f"Your code raises {type(error).__name__}"
    sentence += f": {text}" if text else ""
    if outcome.line is not None:
        number, line = outcome.line
        sentence += f" (line {number}: `{line}`)"
    return sentence + ("" if sentence.endswith((".", "!", "?")) else ".")


def _ending(outcome: Outcome) -> str:
    if outcome.kind == "value":
        return f"returns {describe(outcome.value)}"
    return f"raises {type(outcome.error).__name__}"


def _same_shape(value: Any, other: Any) -> bool:
    shape = getattr(value, "shape", None)
    return shape is not None and tuple(shape) == tuple(getattr(other, "shape", ())) != ()


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")
