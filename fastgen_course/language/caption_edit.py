"""A caption changed by a request in words; what the caption leaves open stays open.

`apply_edit` starts from what a picture shows, which is always complete. A caption need not be: "a
red boot" leaves size, background and style to the noise. Its open slots are filled in twice,
differently, and the request is read both times. A slot on which both answers agree was asked for;
one that only repeats what was filled in was not, and stays open.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from fastgen_course.datasets.captions import SLOTS, Attributes, parse, render
from fastgen_course.language.edits import EditAnswer, apply_edit, changes, understand

# Two values a slot, so that no answer can agree with both by accident.
FILLED_IN = tuple({slot: values[k] for slot, values in SLOTS.items()} for k in range(2))


@dataclass(frozen=True)
class CaptionEdit:
    """What a caption became.

    Attributes:
        before: what the caption asked for; an open slot is None.
        after: what it asks for now.
        answered_by: "language model" or "keyword rules".
        note: in words, what changed and which words were guessed or left aside.
    """

    before: Attributes
    after: Attributes
    answered_by: str
    note: str

    @property
    def caption(self) -> str:
        """The new caption, in the grammar's words."""
        return render(self.after)


def edit_caption(caption: str, request: str, *, road: str | None = None) -> CaptionEdit:
    """Change a caption as a request in free words says.

    Args:
        caption: in the grammar's words, complete or not.
        request: "make it green and draw it as a sketch", "take it away".
        road: who reads the request, as for `apply_edit`.

    Raises `CaptionError`, in one sentence, for a caption or a request that cannot be read or drawn.
    """
    before = parse(caption)
    if before.garment is None:  # nothing is there yet that could be kept or taken away
        return _joined(before, [understand(request, road=road)], [None])
    sources = [_filled(before, values) for values in FILLED_IN]
    if sources[0] == sources[1]:
        del sources[1]
    return _joined(before, [apply_edit(source, request, road=road) for source in sources], sources)


def _filled(y: Attributes, values: dict[str, str]) -> Attributes:
    """`y` with its open slots filled in; an empty scene has a background alone."""
    slots = ("background",) if y.garment == "nothing" else SLOTS
    return replace(y, **{s: values[s] for s in slots if getattr(y, s) is None})


def _joined(
    before: Attributes, answers: list[EditAnswer], sources: list[Attributes | None]
) -> CaptionEdit:
    rows = zip(SLOTS, zip(*(astuple(a.attributes) for a in answers), strict=True), strict=True)
    after = Attributes(**{slot: row[0] if len(set(row)) == 1 else None for slot, row in rows})
    if before.garment is None and after.garment != "nothing":
        kept = {s: getattr(before, s) for s in SLOTS if getattr(after, s) is None}
        after = replace(after, **kept)
    first = answers[0]
    # What was said of the filled-in description, said of the caption.
    aside = first.note.removeprefix(changes(sources[0], first.attributes)).strip()
    note = f"{changes(before, after)} {aside}".strip()
    return CaptionEdit(before, after, first.answered_by, note)
