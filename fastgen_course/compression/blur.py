"""The blur of notebook 13, live: two small regressions on a few captions, alike but for the noise.

One is pulled towards photographs that have nothing to do with its noise, the other towards the
flow's picture for that very noise. Both see the same captions, as often, from the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.compression.distillation import STUDENT
from fastgen_course.compression.distillation_losses import (
    conditional_mean,
    drawing_distance,
)
from fastgen_course.compression.teacher_sets import (
    DistillationError,
    Draw,
    Lesson,
    TeacherSet,
    as_bytes,
    lessons,
    teacher_draw,
)
from fastgen_course.datasets.captions import encode_words, labels_of, parse
from fastgen_course.datasets.scenes import real_scenes
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.show import image_grid
from fastgen_course.training.loop import RunningAverage, cosine_with_warmup, set_rate
from fastgen_course.training.matching import relative_error

CAPTIONS = (
    "a large red sneaker on a white background, photo style",
    "a large blue dress on a grey background, photo style",
    "a large green bag on a pale pink background, photo style",
)
PAIRS = 320  # of the flow's, a caption
RATE = 2e-3


@torch.no_grad()
def caption_pairs(
    captions: tuple[str, ...], count: int, seed: int = 0, draw: Draw | None = None, latent: int = 64
) -> TeacherSet:
    """The flow's pictures of whole descriptions, `count` noises each, as pairs of two.

    Raises `CaptionError` for a caption that cannot be read, `DistillationError` for one with a free
    slot or an odd or empty count.
    """
    if count < 2 or count % 2:
        raise DistillationError(f"count must be an even number of pairs from 2, got {count}.")
    labels = labels_of([parse(caption) for caption in captions])
    if (labels < 0).any():
        raise DistillationError("captions must say size, colour, garment, background and style.")
    labels = labels.repeat_interleave(count // 2, 0)
    words = encode_words([c for c in captions for _ in range(count // 2)])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(words), 2, latent, generator=generator)
    images = (draw or teacher_draw("flow", seed))(
        words.repeat_interleave(2, 0), noise.flatten(0, 1)
    )
    return TeacherSet(words, labels, labels, noise, as_bytes(images).unflatten(0, (-1, 2)))


def unrelated(pairs: TeacherSet, batch: int, generator: torch.Generator) -> Iterator[Lesson]:
    """The same captions with real photographs, and noise that nothing was made of."""
    for lesson in lessons(pairs, batch, generator):
        noise = torch.randn(lesson.noise.shape, generator=generator)
        yield lesson._replace(noise=noise, images=lesson.real(generator))


def regress(
    given: Iterator[Lesson], steps: int, config: GeneratorConfig = STUDENT, seed: int = 0
) -> Generator:
    """Minimise the relative square error of the lessons' pictures; the running average.

    Raises `DistillationError` for no steps.
    """
    if steps < 1:
        raise DistillationError(f"steps must be at least 1, got {steps}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Generator(config).to(memory_format=torch.channels_last)
    average = RunningAverage(model, 0.98)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.0, 0.99))
    model.train()
    for index in range(steps):
        set_rate(optimiser, RATE * cosine_with_warmup(index, steps, warmup=20))
        lesson = next(given)
        loss = relative_error(model(lesson.noise, lesson.words), lesson.images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        average.update(model)
    return average.model.eval()


@dataclass(frozen=True)
class Blur:
    """Drawings of each caption, (captions, copies, 3, 28, 28), by who drew them."""

    drawings: dict[str, Tensor]
    means: Tensor  # (captions, 3, 28, 28)

    def apart(self, name: str) -> float:
        """How far two drawings of one caption are apart."""
        images = self.drawings[name]
        half = images.shape[1] // 2
        ours, others = images[:, :half], images[:, half : 2 * half]
        return float(drawing_distance(ours.flatten(0, 1), others.flatten(0, 1)).mean())

    def to_mean(self, name: str) -> float:
        """How far a drawing is from the mean of all real pictures of its caption."""
        images = self.drawings[name]
        centre = self.means[:, None].expand_as(images)
        return float(drawing_distance(images.flatten(0, 1), centre.flatten(0, 1)).mean())

    def figure(self, copies: int = 4) -> Figure:
        """A row for each who drew, `copies` of each caption, then the mean itself."""
        names = list(self.drawings)
        rows = [self.drawings[name][:, :copies].flatten(0, 1) for name in names]
        rows.append(self.means.repeat_interleave(copies, 0))
        return image_grid(
            torch.cat(rows), len(rows[0]), row_labels=[*names, "the mean"], scale=0.75
        )


@torch.no_grad()
def compare_students(
    pairs: TeacherSet,
    coupled: Generator,
    uncoupled: Generator,
    copies: int = 16,
    seed: int = 99,
    draw: Draw | None = None,
) -> Blur:
    """What both students, the flow and the camera make of each caption, from noise of its own.

    `copies` drawings each; the flow's and the coupled student's come from the same noise.
    """
    new = (pairs.words[1:] != pairs.words[:-1]).any(1)
    rows = [0, *(1 + new.nonzero()[:, 0]).tolist()]  # a caption's pairs stand together
    words = pairs.words[rows].repeat_interleave(copies, 0)
    labels = pairs.labels[rows]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(words), pairs.noise.shape[-1], generator=generator)
    shape = (len(rows), copies)
    drawn = {
        "photographs": real_scenes(labels.repeat_interleave(copies, 0), "train", generator),
        "unrelated noise": uncoupled(noise, words),
        "the flow": (draw or teacher_draw("flow", seed))(words, noise),
        "its pairs": coupled(noise, words),
    }
    means = torch.stack([conditional_mean(label) for label in labels])
    return Blur({name: x.unflatten(0, shape) for name, x in drawn.items()}, means)
