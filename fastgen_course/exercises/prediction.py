"""Predict first, see afterwards: a question that gates a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import render
from .core import note
from .registry import ExerciseError, Prediction, find_prediction
from .session import SESSION


def predict(
    id: str,
    choices: Sequence[str] | None = None,
    *,
    result: Callable[[], Any] | None = None,
    answer: str | int | None = None,
) -> None:
    """Ask a registered question; the result stays folded until the reader has answered.

    In a live notebook each choice is a button; pressing one tells right from wrong and unfolds
    the result. On a page that only renders the notebook, and under a runner, the question stands
    open and the result is folded below it. Nothing waits for an answer.

    Args:
        choices: as the notebook's text shows them; checked against the registered ones.
        result: draws or prints what the prediction is about; its output goes into the fold.
        answer: answers by code, for front ends without widgets: the choice, or its number from 1.

    Raises ExerciseError when `id` is unknown, `choices` differ, or `answer` is not a choice.
    """
    spec = find_prediction(id)
    if choices is not None and tuple(choices) != spec.choices:
        raise ExerciseError(
            f"the choices given to predict({id!r}) are not the registered ones, "
            f"which are {list(spec.choices)}."
        )
    drawn = _drawn(result)
    given = _choice(spec, answer) if answer is not None else None
    if given is not None:
        _record(spec, given)
        render.emit(question_panel(spec, drawn, given))
        return
    if id not in SESSION.records:
        note(id, "not attempted", "")
    if render.is_live() and _ask_with_buttons(spec, drawn):
        return
    render.emit(question_panel(spec, drawn, None))


def question_panel(spec: Prediction, drawn: render.Panel, given: str | None) -> render.Panel:
    """The question with its choices, and the answer: folded until one is given."""
    letters = [f"{number}. {choice}" for number, choice in enumerate(spec.choices, start=1)]
    listed = "".join(f"<li>{render.inline(choice)}</li>" for choice in spec.choices)
    question = f"<strong>{render.inline(spec.question)}</strong><ol>{listed}</ol>"
    text = [spec.question, *letters]
    right = f"The answer: {spec.answer}."
    inner = f"<p>{render.inline(right)} {render.inline(spec.why)}</p>{drawn.html}"
    if given is None:
        call = f'predict("{spec.id}", answer=1)'
        ask = f"Make up your mind first. To answer by code: `{call}`."
        body = question + f"<small>{render.inline(ask)}</small>"
        page = render.boxed(render.BLUE, body) + render.folded(
            "The answer, once you have one of your own", inner, marks=render.ANSWER
        )
        return render.Panel(page, "\n".join([*text, ask]))
    verdict = f"You said: {given}. " + ("Right." if given == spec.answer else "Not so.")
    hint = "" if given == spec.answer else spec.wrong[given]
    said = f"<p><strong>{render.inline(verdict)}</strong> {render.inline(hint)}</p>"
    colour = render.GREEN if given == spec.answer else render.ORANGE
    page = render.boxed(colour, question + said) + render.folded(
        "The answer", inner, is_open=True, marks=render.ANSWER
    )
    lines = [*text, f"{verdict} {hint}".strip(), f"{right} {spec.why}", drawn.text]
    return render.Panel(page, "\n".join(filter(None, lines)))


def _record(spec: Prediction, given: str) -> None:
    note(spec.id, "right" if given == spec.answer else "wrong", given)


def _choice(spec: Prediction, answer: str | int) -> str:
    if isinstance(answer, int) and 1 <= answer <= len(spec.choices):
        return spec.choices[answer - 1]
    if answer in spec.choices:
        return str(answer)
    raise ExerciseError(
        f"{answer!r} is not a choice of {spec.id!r}; give one of {list(spec.choices)} "
        f"or a number from 1 to {len(spec.choices)}."
    )


def _drawn(result: Callable[[], Any] | None) -> render.Panel:
    """Everything that `result` displays and prints, as one panel."""
    if result is None:
        return render.Panel("", "")
    if not render.in_ipython():
        result()  # printed where it is; there is nothing to fold
        return render.Panel("", "")
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result()
    printed = captured.stdout.strip()
    page = (render.code_block(printed) if printed else "") + render.outputs_to_html(
        captured.outputs
    )
    words = [str(output.data.get("text/plain", "")) for output in captured.outputs]
    return render.Panel(page, "\n".join(filter(None, [printed, *words])))


def _ask_with_buttons(spec: Prediction, drawn: render.Panel) -> bool:
    """Question and one button a choice; False when ipywidgets is not installed."""
    try:
        import ipywidgets
    except ImportError:
        return False
    from IPython.display import display

    handle = display(question_panel(spec, drawn, None), display_id=True)
    buttons = [
        ipywidgets.Button(
            description=choice,
            tooltip=f"Answer: {choice}",
            layout=ipywidgets.Layout(width="auto", max_width="100%", height="auto"),
        )
        for choice in spec.choices
    ]

    def pressed(button: Any) -> None:
        _record(spec, button.description)
        handle.update(question_panel(spec, drawn, button.description))

    for button in buttons:
        button.on_click(pressed)
    display(ipywidgets.VBox(buttons))
    return True
