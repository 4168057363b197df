"""The battery that every registered exercise and prediction must pass; the tests run it.

Each check takes one item and raises AssertionError with a sentence for its author.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

from . import render, source
from .diagnose import Diagnosis, diagnose
from .registry import Exercise, Prediction, registered

MINIMUM = 3  # items a notebook


def check_notebook(notebook: str) -> None:
    """A notebook has at least three items, an exercise and a prediction among them."""
    items = registered(notebook)
    predictions = [item for item in items if isinstance(item, Prediction)]
    assert len(items) >= MINIMUM, f"{notebook} has {len(items)} exercises; {MINIMUM} are due."
    assert predictions, f"{notebook} has no prediction."
    assert len(predictions) < len(items), f"{notebook} has predictions only."


def check_exercise(item: Exercise) -> None:
    """All that must hold for an exercise, each as its own check below."""
    check_reference(item)
    check_untouched_stub(item)
    check_misconceptions(item)
    check_alternatives(item)
    check_solution(item)
    check_hints(item)


def check_reference(item: Exercise) -> None:
    """The reference passes its own exercise, without a remark."""
    diagnosis = diagnose(item, item.reference)
    assert diagnosis.status == "right", _say(item, "the reference is judged", diagnosis)
    assert not diagnosis.says, _say(item, "the reference draws a remark", diagnosis)


def _docstring_stub(*args, **kwargs):
    """Say what."""
    ...  # your turn


def _pass_stub(*args, **kwargs):
    pass


class _ClassStub:
    """Say what."""

    def __init__(self, *args): ...

    def forward(self, *args):
        """Say what."""
        pass


def check_untouched_stub(item: Exercise) -> None:
    """A docstring and `...` is no attempt: seen in its source or, without source, by calling."""
    # The lambda's source is no `def`, so that it can only be judged by calling it.
    stubs = [_docstring_stub, _pass_stub, _ClassStub]
    if item.call is None:
        stubs.append(lambda *args, **kwargs: ...)
    for stub in stubs:
        diagnosis = diagnose(item, stub)
        assert diagnosis.status == "not attempted", _say(item, "a stub is judged", diagnosis)


def check_misconceptions(item: Exercise) -> None:
    """Each registered mistake, two at least, is rejected under its own name with its own hint."""
    assert len(item.wrong) >= 2, f"{item.id} has {len(item.wrong)} registered mistakes; 2 are due."
    hints = [variant.text for variant in item.wrong.values()]
    assert len(set(hints)) == len(hints), f"{item.id}: two mistakes share one hint."
    for name, variant in item.wrong.items():
        diagnosis = diagnose(item, variant.fn)
        rejected = diagnosis.status == "wrong"
        assert rejected, _say(item, f"the mistake {name!r} is judged", diagnosis)
        assert diagnosis.mistake == name, _say(item, f"{name!r} is taken for", diagnosis)
        assert variant.text in diagnosis.says, f"{item.id}: the hint of {name!r} is not shown."
        assert diagnosis.counter is not None, f"{item.id}: {name!r} gets no counter-example."
        panel = render.verdict_panel(item, diagnosis, yours_goes_on=diagnosis.runs)
        assert variant.text in panel.text, f"{item.id}: {name!r} loses its hint."


def check_alternatives(item: Exercise) -> None:
    """Each acceptable alternative passes, with its note."""
    for name, variant in item.alternatives.items():
        diagnosis = diagnose(item, variant.fn)
        passed = diagnosis.status == "right, with a note" and diagnosis.says == (variant.text,)
        assert passed, _say(item, f"the alternative {name!r} is judged", diagnosis)


def check_solution(item: Exercise) -> None:
    """The solution that readers unfold is the reference's own source, and it is not a stub."""
    shown = source.clean_source(item.reference)
    own = textwrap.dedent(inspect.getsource(item.reference))
    assert own.rstrip().endswith(shown.rstrip()), f"{item.id}: the solution is not the source."
    node = source.definition_of(item.reference)
    assert node is not None, f"{item.id}: the reference must be a `def` or a `class`."
    assert not source.is_untouched(node), f"{item.id}: the reference is a stub."
    page = render.hints_panel(item, shown).html
    assert render.code_block(shown) in page, f"{item.id}: the solution is not displayed."
    bare = render.hints_panel(item, None).html
    assert "Solution" not in bare, f"{item.id}: an edition without solutions holds one."


def check_hints(item: Exercise) -> None:
    """Two hints that differ, neither of which is the solution's last line."""
    first, second = item.hints
    assert first != second, f"{item.id}: both hints are the same."
    last = source.clean_source(item.reference).strip().splitlines()[-1].strip()
    assert last not in (first, second), f"{item.id}: a hint gives the solution away."


def check_prediction(item: Prediction) -> None:
    """Two wrong choices at least, each with a hint of its own; the answer agrees with `check`."""
    assert len(item.wrong) >= 2, f"{item.id} has {len(item.wrong)} wrong choices; 2 are due."
    hints = list(item.wrong.values())
    assert len(set(hints)) == len(hints), f"{item.id}: two wrong choices share one hint."
    assert item.why.strip(), f"{item.id} does not say why."
    if item.check is not None:
        found = item.check()
        assert found == item.answer, f"{item.id}: the check gives {found!r}, not {item.answer!r}."


def every_item() -> Iterator[tuple[str, Exercise | Prediction]]:
    """(id, item) for everything that the notebooks register, for a parametrised test."""
    for item in registered():
        yield item.id, item


def _say(item: Exercise, what: str, diagnosis: Diagnosis) -> str:
    return f"{item.id}: {what} {diagnosis.status!r} ({diagnosis.mistake}): {diagnosis.says}"
