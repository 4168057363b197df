"""Sets of a teacher and of its student for one caption, side by side; pairs where they exist.

Two sets of sixteen can be compared as sets: how varied, how sharp, how often right. Picture for
picture they can be compared only where one noise makes both, which a coupling gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastgen_course.compression.distillation_losses import drawing_distance
from fastgen_course.compression.teacher_sets import (
    TEACHERS,
    DistillationError,
    Draw,
    find_teacher,
    teacher_draw,
)
from fastgen_course.datasets.captions import encode_words, parse
from fastgen_course.show import image_grid, to_uint8
from fastgen_course.widgets.caption_box import CAPTION, CaptionBox

COUNT = 16
SIDE = 4
STUDENT = "student"


@dataclass(frozen=True)
class Sets:
    """What two drew for one caption and seed: images (COUNT, 3, 28, 28) each.

    `distance`: how far the pictures of one noise are apart, or None where there are no pairs.
    """

    teacher: Tensor
    student: Tensor
    distance: float | None


class TeacherStudent:
    """Draws both sets; each caption, seed and teacher once.

    Args:
        student: a one-step generator.
        held: teachers on whose pairs the student was held; with another there are none.
        draws: teacher -> `draw(seed)` in the place of `teacher_draw`.
    """

    def __init__(
        self,
        student: nn.Module,
        held: tuple[str, ...] = ("base",),
        draws: Mapping[str, Callable[[int], Draw]] | None = None,
        count: int = COUNT,
    ) -> None:
        for name in held:
            if not find_teacher(name).coupled:
                raise DistillationError(
                    f"the teacher {name!r} has no coupling: its pictures are not a function of the "
                    "student's noise."
                )
        self.network, self.held, self.count = student, held, count
        self._draws = dict(draws or {})
        self._drawn: dict[tuple[str, str, int], Sets] = {}

    def paired(self, teacher: str) -> bool:
        """Whether one noise makes a picture of both."""
        return teacher in self.held

    @torch.no_grad()
    def draw(self, caption: str, teacher: str = "gpt", seed: int = 0) -> Sets:
        """Both sets. Raises `CaptionError` for a caption that cannot be read."""
        parse(caption)
        find_teacher(teacher)
        key = teacher, caption, seed
        if key not in self._drawn:
            words = encode_words([caption] * self.count)
            shape = self.count, self.network.config.noise
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            ours = self.network(noise, words)
            make = self._draws.get(teacher, partial(teacher_draw, teacher))
            theirs = make(seed)(words, noise)
            apart = None
            if self.paired(teacher):
                apart = float(drawing_distance(ours, theirs).mean())
            self._drawn[key] = Sets(theirs, ours, apart)
        return self._drawn[key]


def _square(images: Tensor) -> np.ndarray:
    """Images as one uint8 picture, SIDE in a row, two white pixels between them."""
    pixels = np.pad(to_uint8(images), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(pixels) // SIDE)
    height, width = pixels.shape[1:3]
    sheet = np.full((rows * SIDE, height, width, 3), 255, np.uint8)
    sheet[: len(pixels)] = pixels
    sheet = sheet.reshape(rows, SIDE, height, width, 3).swapaxes(1, 2)
    return sheet.reshape(rows * height, SIDE * width, 3)


def _interleaved(sets: Sets, pairs: int) -> Tensor:
    """Rows of the teacher's first pictures above the student's of the same noise."""
    return torch.cat([sets.teacher[:pairs], sets.student[:pairs]])


def sets_figure(sets: Sets, teacher: str) -> Figure:
    """The static figure beside the widget: both sets as squares."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.3))
    for axis, images, words in zip(
        axes, (sets.teacher, sets.student), (f"teacher: {teacher}", "student"), strict=True
    ):
        axis.imshow(_square(images), interpolation="nearest")
        axis.set_title(words, fontsize=9)
        axis.set_axis_off()
    return fig


def pairs_figure(sets: Sets, pairs: int = 8) -> Figure:
    """Pictures of one noise above each other. `DistillationError` where there are no pairs."""
    if sets.distance is None:
        raise DistillationError("there are no pairs without a coupling; compare the sets.")
    labels = ["teacher", "student"]
    return image_grid(_interleaved(sets, pairs), pairs, row_labels=labels, scale=0.9)


class TeacherStudentBox(widgets.VBox):
    """A caption box that draws both sets; a switch for pairs, open where there are any."""

    def __init__(
        self, drawer: TeacherStudent, caption: str = CAPTION, seed: int = 0, teacher: str = "gpt"
    ) -> None:
        self.drawer = drawer
        self.teacher = widgets.ToggleButtons(
            options=[(name, name) for name in TEACHERS], value=teacher, description="teacher"
        )
        self.pairs = widgets.Checkbox(value=False, description="pairs of one noise")
        self.said = widgets.HTML()
        self.box = CaptionBox(self.draw, caption, seed, enlarge=2)
        for control in (self.teacher, self.pairs):
            control.observe(self.box.redraw, "value")
        super().__init__([self.teacher, self.pairs, self.said, self.box])

    def draw(self, caption: str, seed: int) -> np.ndarray:
        """Teacher on the left, student on the right, as one picture."""
        teacher = self.teacher.value
        self.pairs.disabled = not self.drawer.paired(teacher)
        sets = self.drawer.draw(caption, teacher, seed)
        if sets.distance is None:
            self.said.value = "no coupling: compare the sets, not the pictures"
        else:
            self.said.value = (
                f"one noise, two pictures: {sets.distance:.2f} apart on average (pixels in [-1, 1])"
            )
        if self.pairs.value and sets.distance is not None:
            ours = [to_uint8(x) for x in (sets.teacher, sets.student)]
            return np.concatenate(
                [np.concatenate(list(images[:SIDE]), axis=1) for images in ours], axis=0
            )
        gap = np.full((_square(sets.teacher).shape[0], 8, 3), 255, np.uint8)
        return np.concatenate([_square(sets.teacher), gap, _square(sets.student)], axis=1)


def teacher_student(drawer: TeacherStudent, **options: str | int) -> TeacherStudentBox:
    """A `TeacherStudentBox`; display it to use it."""
    return TeacherStudentBox(drawer, **options)
