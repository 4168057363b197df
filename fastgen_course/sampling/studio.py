"""Draw, describe and edit pictures with the shipped token models, loaded when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import SLOTS, Attributes, encode_words, render
from fastgen_course.models.editor import Editor
from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.edit import edit_tokens, restore_tokens
from fastgen_course.sampling.gpt import describe_tokens, draw_images

KEPT = "edited"  # this garment, changed by the editor
REDRAWN = "drawn anew"  # another garment, drawn by the language model
SAME = "left alone"  # nothing to change


class EditedPictures(NamedTuple):
    """What became of pictures."""

    images: Tensor  # float32 (B, 3, 28, 28) in [-1, 1]
    ways: list[str]  # KEPT, REDRAWN or SAME, one a picture


def changed_slots(before: Attributes, after: Attributes) -> Attributes:
    """What `after` asks for and `before` is not: an instruction, with the rest left free.

    An instruction to take the garment away says "nothing" and no more.
    """
    if after.garment == "nothing" and before.garment != "nothing":
        return Attributes(garment="nothing")
    pairs = zip(SLOTS, astuple(before), astuple(after), strict=True)
    return Attributes(**{s: new for s, old, new in pairs if new is not None and new != old})


class Studio:
    """The token models at work. Images are float32 (B, 3, 28, 28) in [-1, 1].

    Every method raises `DataFileError`, in one sentence, where weights are missing or damaged.
    """

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Pictures to words and back."""
        return load_model("tokenizer")

    @cached_property
    def gpt(self) -> GPT:
        """The language model that draws and describes."""
        return load_model("gpt")

    @cached_property
    def editor(self) -> Editor:
        """The model that edits a picture in one pass."""
        return load_model("editor")

    @cached_property
    def masked(self) -> MaskedModel:
        """The model that fills in hidden places."""
        return load_model("masked")

    def draw(self, captions: Sequence[str], generator: torch.Generator | None = None) -> Tensor:
        """One picture a caption."""
        return draw_images(self.gpt, self.tokenizer, captions, generator=generator)

    def describe(self, images: Tensor) -> list[Attributes]:
        """What pictures show, every slot of it."""
        return describe_tokens(self.gpt, self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures as words: int64 (B, 49)."""
        return torch.cat([self.tokenizer.encode(part) for part in images.split(256)])

    def edit(
        self,
        images: Tensor,
        before: Sequence[Attributes],
        after: Sequence[Attributes],
        generator: torch.Generator | None = None,
    ) -> EditedPictures:
        """Change pictures from what they show to what they should show.

        The garment is kept wherever it is not itself what changes. Another garment, or one added to
        an empty scene, has no counterpart in the picture and is drawn from the new description.

        Args:
            images: the pictures.
            before: what each shows, as `describe` says it.
            after: what it should show; a free slot stays as it is.
            generator: the randomness of what is drawn anew.

        Raises ValueError unless there are as many descriptions as pictures.
        """
        if not len(images) == len(before) == len(after):
            raise ValueError(
                f"give two descriptions a picture: there are {len(images)} pictures, {len(before)} "
                f"descriptions before and {len(after)} after."
            )
        asked = [changed_slots(old, new) for old, new in zip(before, after, strict=True)]
        ways = [_way(old, change) for old, change in zip(before, asked, strict=True)]
        result = images.clone()
        if rows := [i for i, way in enumerate(ways) if way == KEPT]:
            words = encode_words([render(asked[i]) for i in rows])
            edited = edit_tokens(self.editor, self.encode(images[rows]), words)
            result[rows] = self.paint(edited.tokens)
        if rows := [i for i, way in enumerate(ways) if way == REDRAWN]:
            captions = [render(whole_description(before[i], after[i])) for i in rows]
            result[rows] = self.draw(captions, generator)
        return EditedPictures(result, ways)

    @torch.no_grad()
    def paint(self, tokens: Tensor) -> Tensor:
        """Pictures from words (B, 49)."""
        return torch.cat([self.tokenizer.decode(part) for part in tokens.split(256)])

    def segment(self, images: Tensor) -> Tensor:
        """Where the garment is: bool (B, 28, 28)."""
        return restore_tokens(self.editor, self.encode(images)).masks

    def sharpen(self, images: Tensor) -> Tensor:
        """Blurred pictures drawn sharp again."""
        return self.paint(restore_tokens(self.editor, self.encode(images)).tokens)


@lru_cache(maxsize=1)
def studio() -> Studio:
    """The one `Studio` of this process."""
    return Studio()


def whole_description(before: Attributes, after: Attributes) -> Attributes:
    """`after`, with what it leaves free taken from `before`."""
    if after.garment == "nothing":
        return Attributes(garment="nothing", background=after.background or before.background)
    pairs = zip(SLOTS, astuple(before), astuple(after), strict=True)
    filled = {slot: old if new is None else new for slot, old, new in pairs}
    if filled["garment"] == "nothing":  # nothing was there and no garment is asked for
        return Attributes(garment="nothing", background=filled["background"])
    return Attributes(**filled)


def _way(before: Attributes, asked: Attributes) -> str:
    if not any(astuple(asked)):
        return SAME
    if asked.garment in (None, "nothing") and before.garment != "nothing":
        return KEPT
    return REDRAWN
