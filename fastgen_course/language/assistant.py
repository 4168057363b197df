"""Pictures edited by words: image -> description -> edited description -> new image.

The description is the hinge. The token models read it from the picture, the language model (or the
keyword rules) edits it, the studio changes the picture to fit. That takes the samplers below this
room and the language model in it, so the assistant lives here; the command `edit`, the widget and
notebook 06 call it from above. `designer` makes four variants and a history of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from fastgen_course.datasets.captions import (
    SLOTS,
    Attributes,
    CaptionError,
    is_held_out,
    parse,
    render,
)
from fastgen_course.language.edits import EditAnswer, apply_edit
from fastgen_course.language.guard import checked
from fastgen_course.sampling.gpt import unlike_any
from fastgen_course.sampling.inpaint import hidden_places, inpaint
from fastgen_course.sampling.picture_files import to_model
from fastgen_course.sampling.studio import (
    EditedPictures,
    Studio,
    changed_slots,
    studio,
    whole_description,
)
from fastgen_course.timing import Timing, measure, measure_once

REPAINTED = "marked places drawn anew"
NOBODY = "nobody, there were no words to read"


class IdleRequest(CaptionError):
    """A request for what is there already."""


@dataclass(frozen=True)
class PictureEdit:
    """What became of a picture, and why.

    Attributes:
        request: the reader's words.
        source: float32 (3, 28, 28), the picture before.
        image: float32 (3, 28, 28), the picture after.
        before: what the picture was read to show.
        after: what the request was understood to ask for, the rest as it was. An added garment's
            slots that nobody named are None: the drawing chose them.
        found: what the new picture is read to show.
        way: "edited", "drawn anew" (`sampling.studio`) or REPAINTED.
        answered_by: "language model", "keyword rules" or NOBODY.
        note: what changed, which words were guessed or left aside, and what to be wary of.
        stages_ms: one reading of the clock each: "describe", "understand", "draw". Weights are
            loaded before, but for the language model: it is loaded when a word needs it.
    """

    request: str
    source: Tensor
    image: Tensor
    before: Attributes
    after: Attributes
    found: Attributes
    way: str
    answered_by: str
    note: str
    stages_ms: dict[str, float]

    @property
    def missed(self) -> str:
        """Which asked-for changes the new picture is not read to show; "" when it shows all."""
        asked = changed_slots(self.before, self.after)
        return ", ".join(
            f"{slot} {getattr(asked, slot)} asked for, {getattr(self.found, slot) or 'none'} read"
            for slot in SLOTS
            if getattr(asked, slot) not in (None, getattr(self.found, slot))
        )


def edit_picture(
    image: Tensor | np.ndarray,
    request: str,
    *,
    shows: str = "",
    seed: int = 0,
    road: str | None = None,
    rooms: Studio | None = None,
) -> PictureEdit:
    """Change a picture as a request in free words says.

    This garment is kept wherever it is not itself what changes: "make it green and draw it as a
    sketch" keeps it; another garment, or one for an empty scene, is drawn anew.

    Args:
        image: uint8 (28, 28, 3), or float32 (3, 28, 28) in [-1, 1].
        request: the reader's words.
        shows: a caption of what the picture shows, for slots that were read wrongly.
        seed: of what is drawn anew; an edit that keeps the garment has no randomness.
        road: who reads the request, as for `apply_edit`; None asks the rules, and the language
            model, where it is installed, about the words that they do not know.
        rooms: the models at work, the process's `studio()` if None.

    Raises, in one sentence each: ValueError for an image of another shape, type or range;
    `CaptionError` for a request or caption that cannot be read or drawn; `IdleRequest` for what is
    there already; `DataFileError` for missing weights.
    """
    picture, request = checked_picture(image), checked(request)
    said = parse(shows) if shows.strip() else Attributes()
    rooms = rooms or studio()
    load_rooms(rooms, "tokenizer", "gpt", "editor")
    describe_ms, before = measure_once(lambda: _described(rooms, picture, said))
    understand_ms, answer = measure_once(lambda: apply_edit(before, request, road=road))
    if changed_slots(before, answer.attributes) == Attributes():
        raise IdleRequest(
            f'nothing to change: the picture reads as "{render(before)}" already; ask for '
            "something else, or say what it really shows (shows=, --shows)."
        )
    draw_ms, edited = measure_once(lambda: _edited(rooms, picture, before, answer.attributes, seed))
    stages_ms = {"describe": describe_ms, "understand": understand_ms, "draw": draw_ms}
    image, way = edited.images, edited.ways[0]
    return _result(rooms, request, picture, image, before, answer, way, stages_ms)


def repaint_picture(
    image: Tensor | np.ndarray,
    mask: Tensor,
    request: str = "",
    *,
    seed: int = 0,
    road: str | None = None,
    rooms: Studio | None = None,
) -> PictureEdit:
    """Draw the places under a mask again, to fit the rest; the rest keeps its pixels.

    Args:
        image: as for `edit_picture`.
        mask: bool (28, 28), pixels, or (7, 7), the picture's words.
        request: what the whole picture should show afterwards, in free words; "" keeps its
            description.
        seed, road, rooms: as for `edit_picture`.

    Raises as `edit_picture`, but never `IdleRequest`; ValueError also for a mask that hides nothing
    or everything.
    """
    picture = checked_picture(image)
    mask = torch.as_tensor(mask)[None]
    hidden_places(mask)  # before weights are loaded
    request = checked(request) if request.strip() else ""
    rooms = rooms or studio()
    load_rooms(rooms, "tokenizer", "gpt", "masked")
    describe_ms, before = measure_once(lambda: _described(rooms, picture, Attributes()))
    if request:
        understand_ms, answer = measure_once(lambda: apply_edit(before, request, road=road))
    else:
        understand_ms, answer = 0.0, EditAnswer(before, NOBODY, "The description stays as it is.")
    captions = [render(whole_description(before, answer.attributes))]
    generator = torch.Generator().manual_seed(seed)
    draw_ms, images = measure_once(
        lambda: inpaint(rooms.masked, rooms.tokenizer, picture, mask, captions, generator=generator)
    )
    stages_ms = {"describe": describe_ms, "understand": understand_ms, "draw": draw_ms}
    return _result(rooms, request, picture, images, before, answer, REPAINTED, stages_ms)


def time_stages(
    done: PictureEdit, *, road: str | None = None, seed: int = 0, rooms: Studio | None = None
) -> dict[str, Timing]:
    """The three stages of an edit by `edit_picture` done again until their medians mean something.

    About a second a stage; `road`, `seed` and `rooms` as they were for the edit.
    """
    rooms, picture = rooms or studio(), done.source[None]
    stages: dict[str, Callable[[], object]] = {
        "describe": lambda: _described(rooms, picture, Attributes()),
        "understand": lambda: apply_edit(done.before, done.request, road=road),
        "draw": lambda: _edited(rooms, picture, done.before, done.after, seed).images,
    }
    return {
        name: measure(stage, warmup=1, min_repeats=10, max_seconds=1.0, label=name)
        for name, stage in stages.items()
    }


def checked_picture(image: Tensor | np.ndarray) -> Tensor:
    """A reader's picture or a model's image as float32 (1, 3, 28, 28) in [-1, 1].

    Raises ValueError, in one sentence, for another type, shape or range.
    """
    wanted = "a picture is uint8 (28, 28, 3), or float (3, 28, 28) in [-1, 1]"
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"{wanted}; got {type(image).__name__}.")
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == (28, 28, 3):
        return to_model(image)[None]
    if isinstance(image, Tensor) and image.is_floating_point():
        shape = tuple(image.shape)
        if shape in ((3, 28, 28), (1, 3, 28, 28)):
            picture = image.detach().float().cpu().reshape(1, 3, 28, 28)
            if not ((picture >= -1) & (picture <= 1)).all():  # NaN is in no range
                low, high = float(picture.min()), float(picture.max())
                raise ValueError(f"{wanted}; these values run from {low:.3g} to {high:.3g}.")
            return picture
    raise ValueError(f"{wanted}; got {image.dtype} {tuple(image.shape)}.")


# --- stages ------------------------------------------------------------------------------------


def load_rooms(rooms: Studio, *names: str) -> None:
    """Load what is loaded once, so that no stage's time holds it. Raises `DataFileError`."""
    for name in names:
        getattr(rooms, name)


def held_out_note(y: Attributes) -> str:
    """What to say of a combination that no generator was trained on: it is drawn all the same."""
    if not is_held_out(y):
        return ""
    return (
        f"No model saw a {y.colour} {y.garment} in {y.style} style while it was trained "
        "(a held-out combination); look whether it came out."
    )


def joined(*sentences: str) -> str:
    """The sentences that say something, as one text."""
    return " ".join(filter(None, sentences))


def _described(rooms: Studio, picture: Tensor, said: Attributes) -> Attributes:
    """What a picture shows; what the reader said of it counts."""
    (read,) = rooms.describe(picture)
    if read.garment == "nothing" and said.garment is None and any(astuple(said)):
        raise CaptionError(
            f'the picture reads as "{render(read)}"; say the whole of what it shows, such as '
            '"a small red boot on a white background, photo style".'
        )
    return whole_description(read, said)


def _edited(
    rooms: Studio, picture: Tensor, before: Attributes, after: Attributes, seed: int
) -> EditedPictures:
    generator = torch.Generator().manual_seed(seed)
    return rooms.edit(picture, [before], [after], generator)


def _result(
    rooms: Studio,
    request: str,
    picture: Tensor,
    images: Tensor,
    before: Attributes,
    answer: EditAnswer,
    way: str,
    stages_ms: dict[str, float],
) -> PictureEdit:
    guess = "The picture looks like nothing that the course draws: its description is a guess."
    note = joined(
        answer.note,
        held_out_note(whole_description(before, answer.attributes)),
        guess if unlike_any(rooms.tokenizer, picture)[0] else "",
    )
    return PictureEdit(
        request=request,
        source=picture[0],
        image=images[0],
        before=before,
        after=answer.attributes,
        found=rooms.describe(images)[0],
        way=way,
        answered_by=answer.answered_by,
        note=note,
        stages_ms=stages_ms,
    )
