"""What readers see: panels as light HTML with a plain-text form, the same words in both.

Styles are inline and translucent, so that they read on light and dark pages and in a page that
strips them. Status is said in words, never by colour alone. Parts that an edition without
solutions leaves out stand between the markers of `SOLUTION` or `ANSWER`.
"""

from __future__ import annotations

import base64
import html
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .diagnose import Diagnosis
from .registry import Exercise, Prediction

SOLUTION = ("<!-- fastgen:solution -->", "<!-- /fastgen:solution -->")
ANSWER = ("<!-- fastgen:answer -->", "<!-- /fastgen:answer -->")

BLUE, GREEN, ORANGE, AMBER = "#0072B2", "#009E73", "#D55E00", "#E69F00"
_TINT = "rgba(128, 128, 128, 0.10)"
_CODE = f"background: {_TINT}; padding: 0.6em 0.8em; overflow-x: auto;"


@dataclass(frozen=True)
class Panel:
    """A piece of output with an HTML and a plain-text form."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def emit(panel: Panel) -> None:
    """Show a panel: as rich output under IPython, printed elsewhere."""
    if in_ipython():
        from IPython.display import display

        display(panel)
    else:
        print(panel.text)


def in_ipython() -> bool:
    """Whether an IPython shell (a notebook kernel or a terminal) runs this code."""
    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def is_live() -> bool:
    """Whether a reader may be at the other end of this kernel, so that a button can be pressed.

    Notebook front ends allow input requests; runners (nbconvert, nbval, `make notebooks`) do not,
    and neither does a plain interpreter. Widgets shown to a runner would leave dead views behind.
    """
    if not in_ipython():
        return False
    kernel = getattr(sys.modules["IPython"].get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def inline(text: str) -> str:
    """Escaped text with `code` between backticks and *emphasis* between asterisks.

    Formulas keep their asterisks: those of `2 * x * y` stand between spaces, that of D*(x) after
    a letter.
    """
    parts = html.escape(text, quote=False).split("`")
    whole = len(parts) - (len(parts) + 1) % 2  # an unpaired backtick stays as it is
    for index, part in enumerate(parts):
        if index % 2 and index < whole:
            parts[index] = f"<code>{part}</code>"
        else:
            part = re.sub(r"(?<![\w*)\]])\*(\w[^*\n]*?)(?<! )\*(?![\w*(])", r"<em>\1</em>", part)
            parts[index] = f"`{part}" if index >= whole and index else part
    return "".join(parts)


def boxed(colour: str, inner: str) -> str:
    """HTML in a box with a coloured left edge."""
    return (
        f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.9em; margin: 0.3em 0;">'
        f"{inner}</div>"
    )


def folded(summary: str, inner: str, *, is_open: bool = False, marks: Sequence[str] = ()) -> str:
    """A `<details>` block, between `marks` if given."""
    block = (
        f'<details{" open" if is_open else ""} style="margin: 0.3em 0;">'
        f'<summary style="cursor: pointer;">{inline(summary)}</summary>{inner}</details>'
    )
    return f"{marks[0]}{block}{marks[1]}" if marks else block


def code_block(source: str) -> str:
    """Source code in a scrolling block."""
    return f'<pre style="{_CODE}"><code>{html.escape(source, quote=False)}</code></pre>'


def header_panel(item: Exercise | Prediction) -> Panel:
    """Title, kind, difficulty as dots and in words, minutes."""
    kind = "Exercise" if isinstance(item, Exercise) else "Prediction"
    dots = "●" * item.difficulty + "○" * (5 - item.difficulty)
    minutes = "1 minute" if item.minutes == 1 else f"{item.minutes} minutes"
    line = f"difficulty {dots} ({item.difficulty} of 5) · about {minutes} · {item.id}"
    body = f"<strong>{kind}: {inline(item.title)}</strong><br/><small>{inline(line)}</small>"
    return Panel(boxed(BLUE, body), f"{kind}: {item.title}\n{line}")


def hints_panel(item: Exercise, solution: str | None) -> Panel:
    """Two folded hints, then the folded solution unless it is None."""
    blocks = [
        folded(f"Hint {number}", f"<p>{inline(hint)}</p>")
        for number, hint in enumerate(item.hints, start=1)
    ]
    what, more = "two hints", ""
    if solution is not None:
        blocks.append(folded("Solution", code_block(solution), marks=SOLUTION))
        what, more = "two hints and a solution", f', solution("{item.id}")'
    text = (
        f'{item.title}: {what}, folded. Without a page to unfold them: hint("{item.id}", 1), '
        f'hint("{item.id}", 2){more}.'
    )
    return Panel("".join(blocks), text)


_HEADS = {
    "not attempted": (BLUE, "Not attempted; the notebook goes on with ours."),
    "right": (GREEN, "Right. The rest of the notebook runs your code."),
    "right, with a note": (GREEN, "Right, with a note."),
    "wrong": (ORANGE, "Not right yet."),
    "unfinished": (AMBER, "Not finished."),
}


def verdict_panel(exercise: Exercise, diagnosis: Diagnosis, *, yours_goes_on: bool) -> Panel:
    """What became of an attempt: head, likely mistake, sentences, counter-example."""
    colour, head = _HEADS[diagnosis.status]
    failed = diagnosis.status in ("wrong", "unfinished")
    noted = diagnosis.status == "right, with a note"
    paragraphs = [f"<strong>{head}</strong>"]
    lines = [f"{exercise.title}: {head}"]
    if diagnosis.mistake:
        label = {
            "wrong": "Likely mistake" if diagnosis.named else "What differs",
            "unfinished": "What happened",
        }.get(diagnosis.status, "What you wrote")
        said = f"{label}: {diagnosis.mistake}."
        paragraphs.append(f"<em>{inline(said)}</em>")
        lines.append(said)
    if diagnosis.says:
        paragraphs.append(inline(" ".join(diagnosis.says)))
        lines.append(" ".join(diagnosis.says))
    rows: list[tuple[str, str]] = []
    caption = ""
    if counter := diagnosis.counter:
        caption = "On this input" + (f" ({counter.label})" if counter.label else "")
        at = f" ({counter.place})" if counter.place else ""
        rows = [*counter.inputs, (f"yours{at}", counter.yours), (f"ours{at}", counter.ours)]
        lines.append(f"{caption}:")
        width = max(len(name) for name, _ in rows)
        lines += [f"  {name:<{width}}  {value}" for name, value in rows]
    table = _table(rows, caption) if rows else ""
    tail = ""
    if failed:
        if diagnosis.printed.strip():
            printed = _first_lines(diagnosis.printed)
            table += f"<p>Your code printed:</p>{code_block(printed)}"
            lines.append("Your code printed:\n" + printed)
        tail = (
            "The notebook goes on with your code; strict(False) goes on with ours."
            if yours_goes_on
            else "The notebook goes on with ours."
        )
    elif noted:
        tail = (
            "The rest of the notebook runs your code."
            if yours_goes_on
            else "The notebook goes on with ours, whose result has the form that it needs."
        )
    lines += [tail] if tail else []
    body = "<br/>".join(paragraphs) + table + (f"<small>{inline(tail)}</small>" if tail else "")
    return Panel(boxed(colour, body), "\n".join(lines))


def progress_panel(rows: Sequence[Sequence[str]], summary: str) -> Panel:
    """A table of exercises: rows of (notebook, title, kind, status, detail, tries)."""
    names = ("notebook", "exercise", "kind", "status", "detail", "tries")
    cell = 'style="text-align: left; padding: 0.15em 0.8em;"'
    head = "".join(f"<th {cell}>{name}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td {cell}>{inline(value)}</td>" for value in row) + "</tr>"
        for row in rows
    )
    page = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{summary}</p>"
    table = [names, *rows]
    widths = [max(len(str(row[i])) for row in table) for i in range(len(names))]
    text = "\n".join(
        "  ".join(str(v).ljust(w) for v, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return Panel(page, f"{text}\n{summary}")


def outputs_to_html(outputs: Sequence[Any]) -> str:
    """Captured notebook outputs as HTML to fold away; pictures keep their words as `alt`."""
    return "".join(_output_to_html(output.data, output.metadata or {}) for output in outputs)


def _output_to_html(data: dict[str, Any], metadata: dict[str, Any]) -> str:
    if "text/html" in data:
        return str(data["text/html"])
    plain = str(data.get("text/plain", ""))
    if "image/png" in data:
        png = data["image/png"]
        encoded = png if isinstance(png, str) else base64.b64encode(png).decode("ascii")
        alt = str(metadata.get("alt") or plain.removeprefix("[figure] "))
        width = metadata.get("image/png", {}).get("width")
        size = f' width="{width}"' if width else ""
        src = f"data:image/png;base64,{''.join(encoded.split())}"
        return f'<p><img src="{src}" alt="{html.escape(alt)}"{size}/></p>'
    return code_block(plain) if plain else ""


def _table(rows: Sequence[tuple[str, str]], caption: str) -> str:
    cell = 'style="text-align: left; padding: 0.1em 0.8em 0.1em 0;"'
    body = "".join(
        f"<tr><td {cell}>{inline(name)}</td><td {cell}><code>{html.escape(value, quote=False)}"
        "</code></td></tr>"
        for name, value in rows
    )
    return f"<p>{inline(caption)}:</p><table>{body}</table>"


def _first_lines(text: str, limit: int = 10) -> str:
    lines = text.strip().splitlines()
    more = [f"... ({len(lines) - limit} more lines)"] if len(lines) > limit else []
    return "\n".join(line[:200] for line in lines[:limit] + more)
