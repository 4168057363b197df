"""Name an unknown mistake by the relation between a reader's numbers and the reference's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from .compare import Difference, compare, numbers_of, significant
from .registry import Exercise
from .run import Outcome, argument_names, clone, observe
from .values import kind_of

_CONSTANTS = {
    math.log(2): "ln 2, as between log and log2",
    1 / math.log(2): "1 / ln 2, as between log2 and log",
    math.log(10): "ln 10, as between log and log10",
    1 / math.log(10): "1 / ln 10, as between log10 and log",
    math.pi: "pi",
    2 * math.pi: "2 pi",
    math.sqrt(2): "the square root of 2",
    1 / math.sqrt(2): "1 / the square root of 2",
}
_TIMES = {2.0: "twice", 0.5: "half", 3.0: "three times", 4.0: "four times", 0.25: "a quarter of"}

Vectors = list[tuple[torch.Tensor, torch.Tensor]]


def explain(
    exercise: Exercise,
    fn: Callable[..., Any],
    outcomes: Sequence[Outcome],
    differences: Sequence[Difference | None],
) -> tuple[str, str]:
    """(name, sentence) of a relation that holds on every case, or two empty strings.

    Looked for in this order: an answer that changes from call to call, arguments in the wrong
    order, a missing or superfluous reduction or a transposition, sign, constant factor, factor
    equal to a size, offset, complement, reciprocal, square, root, logarithm, exponential.
    """
    if any(outcome.kind != "value" for outcome in outcomes):
        return "", ""
    first = next(d for d in differences if d is not None)
    if found := _random(exercise, fn):
        return found
    if not first.gradient and (found := _swapped(exercise, fn)):
        return found
    if first.kind == "shape":
        return _reshaped(first, exercise.tolerance)
    if any(d is not None and (d.kind != "value" or d.gradient) for d in differences):
        return _gradient_factor(first, exercise.tolerance) if first.gradient else ("", "")
    vectors: Vectors = []
    for mine, theirs in zip(outcomes, exercise.expected, strict=True):
        yours, ours = numbers_of(mine.value), numbers_of(theirs.value)
        if yours is None or ours is None or yours.shape != ours.shape:
            return "", ""
        if not (torch.isfinite(yours).all() and torch.isfinite(ours).all()):
            return "", ""
        vectors.append((yours, ours))
    return _scaled(exercise, vectors) or _transformed(exercise, vectors) or ("", "")


def _random(exercise: Exercise, fn: Callable[..., Any]) -> tuple[str, str] | None:
    case = exercise.cases[0]

    def twice(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        # Both calls draw from one stream of the global generators, so their draws differ.
        again_args, again_kwargs = clone(args), clone(kwargs)
        return _call(exercise, fn, args, kwargs), _call(exercise, fn, again_args, again_kwargs)

    outcome = observe(twice, case, time_limit_s=1.0)
    if outcome.kind != "value" or not compare(*outcome.value, exercise.tolerance):
        return None
    return (
        "another answer every time",
        "Two calls on one input give two results: draw no random numbers of your own, "
        "the randomness comes in as an argument.",
    )


def _swapped(exercise: Exercise, fn: Callable[..., Any]) -> tuple[str, str] | None:
    if exercise.call is not None or any(case.kwargs for case in exercise.cases):
        return None
    count = min(len(case.args) for case in exercise.cases)
    for i, j in itertools.combinations(range(count), 2):
        for case, expected in zip(exercise.cases, exercise.expected, strict=True):
            args = list(case.args)
            if kind_of(args[i]) != kind_of(args[j]):
                break
            args[i], args[j] = args[j], args[i]
            outcome = exercise.observe(fn, replace(case, args=tuple(args)), 1.0)
            if outcome.kind != "value" or compare(
                outcome.value, expected.value, exercise.tolerance
            ):
                break
        else:
            names = argument_names(exercise.reference, exercise.cases[0])
            return (
                "arguments in the wrong order",
                f"With `{names[i]}` and `{names[j]}` exchanged, your code is right: "
                "look where each of them goes.",
            )
    return None


def _reshaped(difference: Difference, tolerance: float) -> tuple[str, str]:
    yours, ours = difference.yours, difference.ours
    if not (isinstance(yours, torch.Tensor) and isinstance(ours, torch.Tensor)):
        return "", ""
    yours, ours = yours.detach().double(), ours.detach().double()
    if yours.ndim >= 2 and yours.ndim == ours.ndim:
        for i, j in itertools.combinations(range(yours.ndim), 2):
            if not compare(yours.transpose(i, j), ours, tolerance):
                return (
                    "transposed",
                    f"The numbers are right with dimensions {i} and {j} exchanged.",
                )
    if yours.numel() == ours.numel() and not compare(yours.reshape(ours.shape), ours, tolerance):
        return (
            "the right numbers in another shape",
            "The numbers are right; a `keepdim`, `squeeze`, `unsqueeze` or `reshape` is in "
            "excess or missing.",
        )
    for dims in _some_dims(yours.ndim):
        for name in ("sum", "mean"):
            if not compare(getattr(yours, name)(dims), ours, tolerance):
                return (
                    f"{name} not taken",
                    f"The {name} over {_dims(dims)} of your result is what is asked for.",
                )
    for dims in _some_dims(ours.ndim):
        for name in ("sum", "mean"):
            if not compare(yours, getattr(ours, name)(dims), tolerance):
                return (
                    f"{name} over too many dimensions",
                    f"Your result is the {name} of ours over {_dims(dims)}: reduce less.",
                )
    return "", ""


def _gradient_factor(difference: Difference, tolerance: float) -> tuple[str, str]:
    yours, ours = numbers_of(difference.yours), numbers_of(difference.ours)
    if yours is None or ours is None or yours.shape != ours.shape:
        return "", ""
    factor = _factor(yours, ours, tolerance)
    if factor is None:
        return "", ""
    return "gradient off by a factor", f"Your gradient is {_times(factor)} ours."


def _scaled(exercise: Exercise, vectors: Vectors) -> tuple[str, str] | None:
    """A constant factor, or one that is a size of the input (a mean for a sum, or back)."""
    informative = [
        (index, pair) for index, pair in enumerate(vectors) if bool(pair[1].abs().max() > 0)
    ]
    factors = [_factor(*pair, exercise.tolerance) for _, pair in informative]
    if not factors or None in factors:
        return None
    known = [f for f in factors if f is not None]
    cases = [exercise.cases[index] for index, _ in informative]
    constant = all(math.isclose(f, known[0], rel_tol=1e-3) for f in known)
    if constant and math.isclose(known[0], -1.0, rel_tol=1e-3):
        return "sign", "Your result is the negative of ours: a sign is turned round."
    sizes = [_sizes(exercise, case.args + tuple(case.kwargs.values()), case) for case in cases]
    for name in sizes[0]:
        series = [s.get(name, 0) for s in sizes]
        if min(series) < 1 or (len(set(series)) < 2 and constant):
            continue
        if all(math.isclose(f, s, rel_tol=1e-3) for f, s in zip(known, series, strict=True)):
            return (
                "sum for mean",
                f"Your result is too large by {name}: a sum where a mean is due.",
            )
        if all(math.isclose(f * s, 1.0, rel_tol=1e-3) for f, s in zip(known, series, strict=True)):
            return (
                "mean for sum",
                f"Your result is too small by {name}: a mean where a sum is due.",
            )
    if not constant:
        return None
    also = [n for n, s in sizes[0].items() if s > 1 and known[0] in (s, 1 / s)]
    extra = f" (That is {also[0]}: mean and sum confused?)" if also else ""
    return "off by a factor", f"Your result is {_times(known[0])} ours everywhere.{extra}"


def _transformed(exercise: Exercise, vectors: Vectors) -> tuple[str, str] | None:
    yours = torch.cat([pair[0] for pair in vectors])
    ours = torch.cat([pair[1] for pair in vectors])
    if len(ours) < 2:
        return None  # one number is a function of any other
    offset = float((yours - ours).mean())
    positive = bool((ours > 0).all())
    candidates: list[tuple[bool, torch.Tensor, str, str]] = [
        (
            True,
            ours + offset,
            "off by a constant",
            f"Your result is ours {'plus' if offset > 0 else 'minus'} "
            f"{significant(abs(offset))} everywhere.",
        ),
        (True, 1 - ours, "one minus the answer", "Your result is 1 minus ours."),
        (
            bool((ours != 0).all()),
            1 / ours,
            "upside down",
            "Your result is 1 divided by ours: numerator and denominator are exchanged.",
        ),
        (True, ours**2, "squared", "Your result is the square of ours."),
        (positive, ours.abs().sqrt(), "square root", "Your result is the square root of ours."),
        (positive, ours.abs().log(), "logarithm", "Your result is the logarithm of ours."),
        (
            bool((ours < 50).all()),
            ours.clamp(max=50).exp(),
            "exponential",
            "Your result is the exponential of ours.",
        ),
        (True, ours.abs(), "sign lost", "Your result is the magnitude of ours: a sign is lost."),
    ]
    for possible, guess, name, sentence in candidates:
        fits = possible and bool(torch.isfinite(guess).all())
        if fits and not compare(yours, guess, exercise.tolerance):
            return name, sentence
    return None


def _factor(yours: torch.Tensor, ours: torch.Tensor, tolerance: float) -> float | None:
    """c with yours = c * ours within tolerance, None when there is none (or c is 0)."""
    energy = float(ours @ ours)
    if energy == 0 or len(ours) == 0:
        return None
    factor = float(yours @ ours) / energy
    if abs(factor) < 1e-12 or compare(yours, factor * ours, tolerance):
        return None
    # One number is a multiple of any other: believe only factors that mean something.
    if len(ours) == 1 and not _meaningful(factor):
        return None
    return factor


def _meaningful(factor: float) -> bool:
    size = abs(factor)
    whole = max(size, 1 / size)
    return math.isclose(whole, round(whole), rel_tol=1e-3) or any(
        math.isclose(size, c, rel_tol=1e-3) for c in _CONSTANTS
    )


def _times(factor: float) -> str:
    sign = "minus " if factor < 0 else ""
    size = abs(factor)
    for value, word in _TIMES.items():
        if math.isclose(size, value, rel_tol=1e-3):
            return f"{sign}{word}"
    for value, word in _CONSTANTS.items():
        if math.isclose(size, value, rel_tol=1e-3):
            return f"{sign}{significant(size)} times ({word})"
    return f"{sign}{significant(size)} times"


def _sizes(exercise: Exercise, values: tuple[Any, ...], case: Any) -> dict[str, int]:
    """Sizes of a case's tensors by a name for them."""
    skip = 0 if exercise.call is None else 1
    names = argument_names(exercise.call or exercise.reference, case, skip)
    sizes: dict[str, int] = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, torch.Tensor) and value.ndim:
            for dim, size in enumerate(value.shape):
                sizes[f"the size of dimension {dim} of `{name}`"] = size
            sizes[f"the number of elements of `{name}`"] = value.numel()
    return sizes


def _some_dims(ndim: int) -> Iterator[tuple[int, ...]]:
    for count in range(1, ndim + 1):
        yield from itertools.combinations(range(ndim), count)


def _dims(dims: tuple[int, ...]) -> str:
    word = "dimension" if len(dims) == 1 else "dimensions"
    return f"{word} {' and '.join(map(str, dims))}"


def _call(
    exercise: Exercise, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return fn(*args, **kwargs) if exercise.call is None else exercise.call(fn, *args, **kwargs)
