"""The fashion-design assistant: a request in, four variants out, refined by words."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor

from fastgen_course.datasets.captions import Attributes
from fastgen_course.language.assistant import (
    PictureEdit,
    edit_picture,
    held_out_note,
    joined,
    load_rooms,
    repaint_picture,
)
from fastgen_course.language.edits import understand
from fastgen_course.sampling.studio import Studio, changed_slots, studio
from fastgen_course.timing import measure_once

VARIANTS = 4
DRAWN = "drawn"  # four variants of a request


@dataclass(frozen=True)
class Turn:
    """What lies on the table after a request.

    Attributes:
        request: the reader's words.
        images: float32 (4, 3, 28, 28), the variants.
        found: what each is read to show.
        chosen: which of them is being refined, None before one is.
        way: DRAWN, or how the chosen one was changed.
        answered_by: who read the request.
        note: as in `PictureEdit`.
        draw_ms: one reading of the clock.
    """

    request: str
    images: Tensor
    found: tuple[Attributes, ...]
    chosen: int | None
    way: str
    answered_by: str
    note: str
    draw_ms: float


class Designer:
    """A request in, four variants out, refined by words; every step can be undone.

    A refinement changes the chosen variant in its place, keeping its garment unless the garment is
    what changes, and leaves the others for another choice.

    Args:
        rooms: the models at work, the process's `studio()` if None.
        road: who reads the requests, as for `apply_edit`.

    Attributes:
        turns: what happened so far, oldest first.
    """

    def __init__(self, rooms: Studio | None = None, road: str | None = None) -> None:
        self.rooms, self.road = rooms or studio(), road
        self.turns: list[Turn] = []

    @property
    def now(self) -> Turn:
        """The last turn. Raises ValueError before the first."""
        if not self.turns:
            raise ValueError('nothing is drawn yet; begin with a request, such as "a red boot".')
        return self.turns[-1]

    def ask(self, request: str, seed: int = 0) -> Turn:
        """Four variants of a request in free wording; what it leaves free, they may differ in.

        Raises `CaptionError` for a request that cannot be read or drawn.
        """
        answer = understand(request, road=self.road)
        load_rooms(self.rooms, "tokenizer", "gpt")
        generator = torch.Generator().manual_seed(seed)
        draw_ms, images = measure_once(
            lambda: self.rooms.draw([answer.caption] * VARIANTS, generator)
        )
        found = tuple(self.rooms.describe(images))
        note = joined(
            answer.note,
            held_out_note(answer.attributes),
            _unlike_request(answer.attributes, found),
        )
        return self._put(
            Turn(request, images, found, None, DRAWN, answer.answered_by, note, draw_ms)
        )

    def choose(self, index: int) -> Turn:
        """Which variant is to be refined, 0 to 3; no step of its own. Raises ValueError."""
        if index not in range(VARIANTS):
            raise ValueError(f"there are variants 0 to {VARIANTS - 1}, no variant {index}.")
        self.turns[-1:] = [replace(self.now, chosen=index)]
        return self.now

    def refine(self, request: str, seed: int = 0) -> Turn:
        """Change the chosen variant as `edit_picture` does; errors as there."""
        picture = self.picture()
        options = {"seed": seed, "road": self.road, "rooms": self.rooms}
        return self._replaced(edit_picture(picture, request, **options))

    def repaint(self, mask: Tensor, request: str = "", seed: int = 0) -> Turn:
        """Draw the marked places of the chosen variant again: `repaint_picture`."""
        picture = self.picture()
        options = {"seed": seed, "road": self.road, "rooms": self.rooms}
        return self._replaced(repaint_picture(picture, mask, request, **options))

    def undo(self) -> Turn | None:
        """Take the last step back; what lies on the table then, None if nothing does."""
        if not self.turns:
            raise ValueError("there is nothing to undo.")
        self.turns.pop()
        return self.turns[-1] if self.turns else None

    def picture(self) -> Tensor:
        """The chosen variant, float32 (3, 28, 28). Raises ValueError when none is chosen."""
        if self.now.chosen is None:
            raise ValueError("choose one of the four variants first.")
        return self.now.images[self.now.chosen]

    def _replaced(self, edit: PictureEdit) -> Turn:
        row = self.now.chosen
        images, found = self.now.images.clone(), list(self.now.found)
        images[row], found[row] = edit.image, edit.found
        note = joined(edit.note, edit.missed and f"Look again: {edit.missed}.")
        ms = edit.stages_ms["draw"]
        return self._put(
            Turn(edit.request, images, tuple(found), row, edit.way, edit.answered_by, note, ms)
        )

    def _put(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        return turn


def _unlike_request(asked: Attributes, found: tuple[Attributes, ...]) -> str:
    """Which variants are read to show something else than was asked for."""
    off = [str(k) for k, y in enumerate(found, 1) if any(astuple(changed_slots(y, asked)))]
    return f"Look again: not read as asked for is variant {' and '.join(off)}." if off else ""
