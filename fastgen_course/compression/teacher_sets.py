"""What the teachers drew, once, for every student: captions, pictures, and the noise of each.

Drawing costs a many-step teacher more than learning costs a student, so its pictures are drawn for
one list of captions and kept in `data/runs`, in parts: a killed command loses at most the part that
it was drawing. A part is named after the weights that drew it; other weights draw anew. A one-step
teacher is asked anew at every update instead, and its lessons never repeat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression.folding import fold
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.scenes import Batch, draw_photos, scene_batches
from fastgen_course.files import atomic_write, data_path
from fastgen_course.sampling.flow import FLOW_SAMPLING, sample_flow
from fastgen_course.sampling.gpt import draw_images
from fastgen_course.training.flow import VAE

CAPTIONS = 20_000
COPIES = 2  # pictures a caption: the discriminator looks at two at once
PART = 500  # captions
SEED = 130
FLOW_STEPS = 16  # of Heun's method: its pictures are the fifty Euler steps' up to a grey level
Draw = Callable[[Tensor, Tensor], Tensor]  # (words (B, L), noise (B, latent)) -> images


class DistillationError(ValueError):
    """A distillation that cannot be; the sentence names the field and the allowed range."""


@dataclass(frozen=True)
class Teacher:
    """Who draws the pictures that a student learns from.

    Attributes:
        words: its name in tables.
        networks: the checkpoints that draw, whose hashes name the pictures.
        coupled: whether a picture is a function of its noise and caption, so that a student can be
            asked for *this* picture. (A language model's numbers choose among tokens one by one;
            as a function of them the picture jumps from one to another.)
        kept: whether its pictures are drawn once and kept, since it takes many steps.
    """

    words: str
    networks: tuple[str, ...]
    coupled: bool
    kept: bool = True

    def key(self) -> str:
        """The beginnings of its networks' hashes."""
        return "-".join(load_card(name)["sha256"][:12] for name in self.networks)

    def parameters(self) -> int:
        """Of all its networks. What the VAE needs for encoding is counted too; it is small."""
        return sum(load_card(name)["parameters"] for name in self.networks)


TEACHERS: dict[str, Teacher] = {
    "gpt": Teacher("the language model, cached loop", ("gpt", "tokenizer"), coupled=False),
    "flow": Teacher("the flow, guided", ("flow", VAE), coupled=True),
    "base": Teacher("GENERATOR_BASE, one step", ("generator_base",), coupled=True, kept=False),
}
KEPT = tuple(name for name, teacher in TEACHERS.items() if teacher.kept)


def find_teacher(name: str) -> Teacher:
    """The teacher `name`. Raises `DistillationError`, naming the choices, for another."""
    if name not in TEACHERS:
        raise DistillationError(f"there is no teacher {name!r}; choose from {', '.join(TEACHERS)}.")
    return TEACHERS[name]


class TeacherSet(NamedTuple):
    """Captions and a teacher's pictures of them, `copies` each, in rows that stand together."""

    words: Tensor  # int64 (N, L)
    labels: Tensor  # int64 (N, 5), a whole description that fits the caption
    asked: Tensor  # int64 (N, 5), what the caption asks for, FREE where it leaves a slot out
    noise: Tensor  # float32 (N, copies, latent), standard normal
    pictures: Tensor  # uint8 (N, copies, 3, 28, 28)

    def rows(self, count: int) -> TeacherSet:
        """The first `count` captions."""
        return TeacherSet(*(column[:count] for column in self))

    def join(self, batch: int, generator: torch.Generator) -> Lesson:
        """A random lesson of `batch` pictures, all copies of batch / copies captions."""
        copies = self.noise.shape[1]
        rows = torch.randint(len(self.words), (batch // copies,), generator=generator)
        repeated = (c[rows].repeat_interleave(copies, 0) for c in self[:3])
        return Lesson(
            *repeated, self.noise[rows].flatten(0, 1), as_images(self.pictures[rows].flatten(0, 1))
        )


class Lesson(NamedTuple):
    """A batch from a teacher: captions, the noise and the picture that it makes of them."""

    words: Tensor  # int64 (B, L)
    labels: Tensor  # int64 (B, 5)
    asked: Tensor  # int64 (B, 5)
    noise: Tensor  # float32 (B, latent)
    images: Tensor  # float32 (B, 3, 28, 28) in [-1, 1]

    def real(self, generator: torch.Generator) -> Tensor:
        """Real training pictures of the same captions, a photograph for each row."""
        photos = draw_photos(self.labels, "train", generator)
        return compose(photos, self.labels).images


def as_images(pictures: Tensor) -> Tensor:
    """uint8 (..., 3, 28, 28) as float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def as_bytes(images: Tensor) -> Tensor:
    """The way back: float32 in [-1, 1] as uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def teacher_draw(name: str, seed: int) -> Draw:
    """How a teacher draws words (B, L): the language model from `seed`, others from the noise."""
    find_teacher(name)
    if name == "base":
        network = fold(load_model("generator_base")).to(memory_format=torch.channels_last)
        return lambda words, noise: network(noise, words)
    if name == "gpt":
        gpt, tokenizer = load_model("gpt"), load_model("tokenizer")
        generator = torch.Generator().manual_seed(seed)
        return lambda words, _: draw_images(gpt, tokenizer, words, generator=generator)
    flow, vae = load_model("flow"), load_model(VAE)
    settings = {"steps": FLOW_STEPS, "solver": "heun", **FLOW_SAMPLING}
    return lambda words, noise: sample_flow(flow, vae, words, noise, **settings)


def prompts(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(words, labels, asked) of `count` training captions, no held-out combination among them."""
    scenes = next(scene_batches("train", count, torch.Generator().manual_seed(seed)))
    return scenes.words, scenes.labels, scenes.asked


def new_part(draw: Draw, count: int, seed: int, latent: int = 64, copies: int = COPIES):
    """One part of a set: captions from `seed`, `copies` pictures of each."""
    words, labels, asked = prompts(count, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(count, copies, latent, generator=generator)
    images = draw(words.repeat_interleave(copies, 0), noise.flatten(0, 1))
    # Convolutions may answer with channels last in memory, which a file does not keep.
    pictures = as_bytes(images).contiguous().unflatten(0, (count, copies))
    return TeacherSet(words, labels, asked, noise, pictures)


def set_folder(name: str) -> Path:
    """Where a teacher's parts lie: below `data/runs`, named after its weights."""
    key = hashlib.sha256(find_teacher(name).key().encode()).hexdigest()[:12]
    return data_path("runs", f"teacher_{name}_{key}")


def _find_kept(name: str) -> None:
    if not find_teacher(name).kept:
        raise DistillationError(
            f"the teacher {name!r} draws in one step and has no set; choose from {', '.join(KEPT)}."
        )


def make_set(
    name: str,
    captions: int = CAPTIONS,
    *,
    part: int = PART,
    draw: Callable[[int], Draw] | None = None,
    quiet: bool = False,
) -> Path:
    """Draw a teacher's pictures of `captions` captions, part by part; returns their folder.

    Parts that are there are left alone, damaged ones drawn again. All teachers get the same
    captions. `draw(seed)` replaces the teacher, in tests. Raises `DistillationError` unless
    `captions` is a multiple of `part` from `part` up.
    """
    if captions < part or captions % part:
        raise DistillationError(
            f"captions must be a multiple of {part} from {part} up, got {captions}."
        )
    _find_kept(name)
    folder, fresh = set_folder(name), None
    for index in range(captions // part):
        path = folder / f"{index:04}.safetensors"
        if _read(path) is not None:
            continue
        seed = SEED + 10 * index
        # The language model's draws come from the part's own seed, so that a part that is drawn
        # again has the same pictures; loading the networks for each part costs milliseconds.
        fresh = (draw or (lambda s: teacher_draw(name, s)))(seed + 2)
        made = new_part(fresh, part, seed)
        with atomic_write(path) as temporary:
            save_file(made._asdict(), temporary)
        if not quiet:
            print(f"{name}: {(index + 1) * part:,} of {captions:,} captions drawn", flush=True)
    return folder


def _read(path: Path) -> TeacherSet | None:
    """A part, or None where it is absent or damaged."""
    try:
        return TeacherSet(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        return None


def load_set(name: str, captions: int = CAPTIONS, *, part: int = PART) -> TeacherSet:
    """A teacher's pictures. Raises `DistillationError`, with the command, where any is missing."""
    _find_kept(name)
    parts = [_read(set_folder(name) / f"{i:04}.safetensors") for i in range(captions // part)]
    if not parts or None in [p if p is None else 0 for p in parts]:
        done = sum(p is not None for p in parts)
        raise DistillationError(
            f"{done * part:,} of {captions:,} captions of the teacher {name!r} are drawn; `python "
            "-m fastgen_course.compression.distillation_records sets` draws the rest."
        )
    return TeacherSet(*(torch.cat(column) for column in zip(*parts, strict=True)))


def lessons(given: TeacherSet, batch: int, generator: torch.Generator) -> Iterator[Lesson]:
    """Endless random lessons. Raises `DistillationError` unless the copies divide the batch."""
    copies = given.noise.shape[1]
    if batch < copies or batch % copies:
        raise DistillationError(
            f"batch must be a multiple of {copies} (pictures a caption), got {batch}."
        )
    while True:
        yield given.join(batch, generator)


def fresh_lessons(
    scenes: Iterator[Batch], latent: int, generator: torch.Generator
) -> Iterator[Lesson]:
    """Endless lessons of new captions: noise (B, latent) and real pictures, which do not know it.

    What a teacher that is asked anew would draw from that noise takes the pictures' place.
    """
    for batch in scenes:
        noise = torch.randn(len(batch.words), latent, generator=generator)
        yield Lesson(batch.words, batch.labels, batch.asked, noise, batch.images)
