"""Distillation: a one-step student learns from teachers, most of which take many steps.

    python -m fastgen_course train student

The student is a narrow GENERATOR_BASE, its trainer GENERATOR_BASE's own with two changes, which the
recipe combines: whose pictures the discriminator takes for real (`shown`), and whose picture the
student is pulled towards for the same noise and caption (`target`, `match`, `hold`). The first
compares distributions and asks for no coupling; the second needs one, or it blurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import as_stored, load_model
from fastgen_course.compression.distillation_losses import check_losses, distance
from fastgen_course.compression.folding import FoldedGenerator
from fastgen_course.compression.teacher_sets import (
    KEPT,
    TEACHERS,
    DistillationError,
    Draw,
    Lesson,
    TeacherSet,
    fresh_lessons,
    lessons,
    load_set,
    teacher_draw,
)
from fastgen_course.datasets.scenes import Batch
from fastgen_course.models.generator import GENERATOR_BASE, Generator, GeneratorConfig
from fastgen_course.models.judges import SlotJudge
from fastgen_course.training.gan import GANRecipe, GANTrainer
from fastgen_course.training.loop import cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship

# Half of GENERATOR_BASE's channels, a quarter of its products. Its noise is as long as the flow's
# latent, so that the flow's noise can be its own.
STUDENT = replace(GENERATOR_BASE, channels=(64, 32, 16))
SHOWN = ("", "real", *TEACHERS)
TARGETS = ("", "real", *(name for name, teacher in TEACHERS.items() if teacher.coupled))
STEPS = 600  # updates of every row of the ablation
# Adam's: momentum helps a plain distance, and harms two networks that chase each other.
PAIRS_BETAS, ADVERSARIAL_BETAS = (0.9, 0.99), (0.0, 0.99)


@dataclass(frozen=True)
class DistillRecipe(GANRecipe):
    """How a student is trained: `GANRecipe`'s fields, and

    Attributes:
        shown: what the discriminator takes for real: "real" pictures, those of the teacher "gpt",
            "flow" or "base", or "" for no discriminator, nor slot loss.
        target: whose picture the student is pulled towards: "flow" or "base" (GENERATOR_BASE,
            asked anew at every update), which have one for this noise; "real", a photograph that
            has nothing to do with the noise; or "" for nobody's.
        match: in what: names of LOSSES.
        hold: weight of that pull beside the adversarial loss; without one, it is all there is.
        pairs_first: updates on the target's pairs alone before the discriminator comes, counted in
            `steps`. (Yin et al. 2024, "One-step diffusion with distribution matching distillation",
            begin alike, on a teacher's noise-image pairs.)
        pairs_rate: Adam's rate at its height in those, and wherever `shown` is "".
        head_start: updates of the discriminator alone, counted in `steps`; for a student that
            begins with trained weights.

    Raises `DistillationError` for a field out of its range, and for nothing to learn from.
    """

    steps: int = STEPS
    average: float = 0.995
    seed: int = 51
    shown: str = "real"
    target: str = ""
    match: tuple[str, ...] = ("pixels", "features")
    hold: float = 1.0
    pairs_first: int = 0
    pairs_rate: float = 2.5e-3
    head_start: int = 0

    def __post_init__(self) -> None:
        for field, value, known in (("shown", self.shown, SHOWN), ("target", self.target, TARGETS)):
            if value not in known:
                words = ", ".join(repr(choice) for choice in known)
                raise DistillationError(f"{field} must be one of {words}, got {value!r}.")
        check_losses(self.match)
        if len(self.kept) > 1:
            raise DistillationError(
                f"shown and target cannot be two kept sets, got {self.shown!r} and {self.target!r}."
            )
        if self.pairs_rate <= 0:
            raise DistillationError(f"pairs_rate must be above 0, got {self.pairs_rate}.")
        if not self.shown and not (self.target and self.match):
            raise DistillationError(
                "there is nothing to learn from: set shown, or target and at least one match."
            )
        if self.hold < 0 or not 0 <= self.head_start < self.steps:
            raise DistillationError(
                f"hold must be at least 0 and head_start from 0 to {self.steps - 1} (below steps), "
                f"got {self.hold} and {self.head_start}."
            )
        most = self.steps - self.head_start - 1
        if not 0 <= self.pairs_first <= most or (self.pairs_first and not self.target):
            raise DistillationError(
                f"pairs_first must be from 0 to {most} (below steps less head_start), and needs a "
                f"target; got {self.pairs_first} and target {self.target!r}."
            )

    @property
    def teachers(self) -> tuple[str, ...]:
        """Who teaches."""
        return tuple(dict.fromkeys(n for n in (self.target, self.shown) if n in TEACHERS))

    @property
    def kept(self) -> tuple[str, ...]:
        """Whose sets are needed."""
        return tuple(name for name in self.teachers if name in KEPT)


# One row a question, equal in everything else: steps, batch, student, seed. The most telling first.
_PAIRS, _HEAD = STEPS * 6 // 10, STEPS // 10  # of a row that begins without a discriminator
ABLATION: dict[str, DistillRecipe] = {
    "uncoupled": DistillRecipe(shown="", target="real", match=("pixels",)),
    "coupled": DistillRecipe(shown="", target="flow", match=("pixels",)),
    "coupled_features": DistillRecipe(shown="", target="flow"),
    "matched": DistillRecipe(shown="", target="base"),
    "gan_real": DistillRecipe(),
    "gan_gpt": DistillRecipe(shown="gpt"),
    "gan_real_hold": DistillRecipe(target="base"),
    "matched_real": DistillRecipe(target="base", pairs_first=_PAIRS, head_start=_HEAD),
    "matched_gpt": DistillRecipe(shown="gpt", target="base", pairs_first=_PAIRS, head_start=_HEAD),
    "gan_flow": DistillRecipe(shown="flow"),
    "gan_real_plain": DistillRecipe(slot_weight=0.0),
    "gan_gpt_plain": DistillRecipe(shown="gpt", slot_weight=0.0),
    "gan_real_hold_plain": DistillRecipe(target="base", slot_weight=0.0),
}
ROW_WORDS: dict[str, str] = {
    "uncoupled": "regression, noise and picture unrelated",
    "coupled": "regression on the flow's pairs, pixels",
    "coupled_features": "regression on the flow's pairs, pixels and features",
    "matched": "regression on GENERATOR_BASE's pairs, pixels and features",
    "gan_real": "adversarial, real pictures (no teacher)",
    "gan_gpt": "adversarial, the language model's pictures",
    "gan_real_hold": "adversarial, real pictures, held to GENERATOR_BASE's pairs",
    "matched_real": "adversarial after GENERATOR_BASE's pairs, real pictures, held to the pairs",
    "matched_gpt": "adversarial after GENERATOR_BASE's pairs, the language model's pictures, held",
    "gan_flow": "adversarial, the flow's pictures",
    "gan_real_plain": "adversarial, real pictures, no slot loss",
    "gan_gpt_plain": "adversarial, the language model's pictures, no slot loss",
    "gan_real_hold_plain": "adversarial, real, held to GENERATOR_BASE's pairs, no slot loss",
}
# Those that the other rows only vary.
MORE = ("gan_flow", "gan_real_plain", "gan_gpt_plain", "gan_real_hold_plain")
# What is shipped: the ablation's best row, trained longer.
SHIPPED: dict[str, DistillRecipe] = {
    "student": replace(ABLATION["matched"], steps=3000, pairs_rate=3e-3, average=0.998, seed=52),
}
# Architectures that other notebooks made, as students with fresh weights.
ARCHITECTURES: dict[str, str] = {"searched": "generator_nas", "pruned": "generator_pruned"}


def check_student(student: nn.Module, recipe: DistillRecipe) -> None:
    """Raise `DistillationError` for a student with as many parameters as a teacher, or more."""
    count = sum(p.numel() for p in student.parameters())
    for name in recipe.teachers:
        most = TEACHERS[name].parameters()
        if count >= most:
            raise DistillationError(
                f"the student has {count:,} parameters and its teacher {name!r} {most:,}: channels "
                "must be narrow enough to leave it fewer."
            )


class DistillTrainer(GANTrainer):
    """`GANTrainer` with a teacher: its pictures shown as real, or its pairs to hold on to."""

    def __init__(
        self,
        name: str,
        config: GeneratorConfig = STUDENT,
        recipe: DistillRecipe = ABLATION["gan_real_hold"],
        *,
        sets: Mapping[str, TeacherSet] | None = None,
        ask: Draw | None = None,
        judge: SlotJudge | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """`sets`: the teachers' pictures by name (None loads them); `model`: what to train on.

        `ask` draws in GENERATOR_BASE's place, in tests. `model` is any network from (noise, words)
        to pictures whose `config` has `noise`: one of another architecture, or with trained, pruned
        or quantised weights. None begins with fresh weights of `config`.
        """
        super().__init__(name, config, recipe, judge, model)
        check_student(self.model, recipe)
        self.sets = dict(sets or {n: load_set(n) for n in recipe.kept})
        width = self.model.config.noise
        if "base" in recipe.teachers and ask is None:
            check_noise(width, GENERATOR_BASE.noise)
            ask = teacher_draw("base", recipe.seed)
        if recipe.target in KEPT:
            check_noise(width, self.sets[recipe.target].noise.shape[-1])
        self.ask = ask
        self.lesson: Lesson | None = None
        if recipe.target or recipe.teachers:
            self.batches = self._lessons(self.batches)

    def _lessons(self, scenes: Iterator[Batch]) -> Iterator[Any]:
        """The GAN's batches, their images what `shown` says; the lesson itself is kept beside."""
        recipe = self.recipe
        if recipe.kept:
            given = lessons(self.sets[recipe.kept[0]], recipe.batch, self.generator)
        else:
            given = fresh_lessons(scenes, self.model.config.noise, self.generator)
        for lesson in given:
            pictures = {}
            if not recipe.kept:
                pictures["real"] = lesson.images
            elif "real" in (recipe.shown, recipe.target):
                pictures["real"] = lesson.real(self.generator)
            if "base" in recipe.teachers:
                if recipe.kept:  # the set's noise is another teacher's, and finite
                    lesson = lesson._replace(noise=super()._noise())
                with torch.no_grad():
                    pictures["base"] = self.ask(lesson.words, lesson.noise)
            self.lesson = lesson._replace(images=pictures.get(recipe.target, lesson.images))
            yield lesson._replace(images=pictures.get(recipe.shown, lesson.images))

    def _noise(self) -> Tensor:
        """The lesson's own noise where the student is held to its pictures, else fresh noise."""
        return self.lesson.noise if self.recipe.target else super()._noise()

    def held(self, noise: Tensor, words: Tensor, fake: Tensor, features: Tensor) -> Tensor | float:
        """The pull towards the teacher's picture for this noise and caption."""
        recipe = self.recipe
        if not recipe.target or recipe.hold == 0:
            return 0.0
        return recipe.hold * distance(recipe.match, fake, self.lesson.images, self.judge, features)

    def step(self, index: int) -> dict[str, float]:
        """One update: the GAN's two, or without a discriminator the regression's one."""
        recipe = self.recipe
        adversarial = bool(recipe.shown) and index >= recipe.pairs_first
        betas = ADVERSARIAL_BETAS if adversarial else PAIRS_BETAS
        self.g_optimiser.param_groups[0]["betas"] = betas
        if adversarial:
            return super().step(index)
        set_rate(self.g_optimiser, self.rates(index)[0])
        self.model.train()
        next(self.batches)
        lesson = self.lesson
        fake = self.model(lesson.noise, lesson.words)
        loss = distance(recipe.match, fake, lesson.images, self.judge)
        self.g_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.g_optimiser.step()
        self.average.update(self.model)
        if recipe.shown:  # the columns of the log that go on after the pairs
            return {"d_loss": 0.0, "g_loss": loss.item(), "slots": 0.0}
        return {"distance": loss.item()}

    def rates(self, index: int) -> tuple[float, float]:
        """Half a cosine for the pairs; after the discriminator's head start another one."""
        recipe = self.recipe
        pairs = recipe.pairs_first if recipe.shown else recipe.steps
        alone = pairs + recipe.head_start
        if alone == 0:
            return super().rates(index)
        if index < pairs:
            warmup = min(100, max(1, pairs // 10))
            return recipe.pairs_rate * cosine_with_warmup(index, pairs, warmup), 0.0
        if index < alone:
            warm = (index + 1 - pairs) / 100
            return 0.0, recipe.discriminator_rate * min(1.0, warm)
        left = index - alone, recipe.steps - alone
        return (
            recipe.generator_rate * cosine_with_warmup(*left),
            recipe.discriminator_rate * cosine_with_warmup(*left, warmup=1),
        )

    def run(self, quiet: bool = False, keep: bool = False) -> nn.Module:
        """Train to the end, going on where a killed run stopped; returns the running average.

        keep: save the last state, so that asking again gives the same network at once.
        """
        self.training.resume()

        def report(step: int) -> None:
            if step % 500 == 0 and not quiet:
                recent = {k: round(v[-1], 3) for k, v in self.training.history.items()}
                print(self.name, f"{self.training.seconds:.0f} s", recent, flush=True)

        if self.training.step < self.training.steps:
            self.training.run(self.step, quiet=quiet, on_log=report)
            if keep:
                self.training.save()
        return self.average.model.eval()


def check_noise(width: int, latent: int) -> None:
    """Raise `DistillationError` unless the student's noise is as long as the teacher's."""
    if width != latent:
        raise DistillationError(
            f"config.noise must be {latent}, the length of the teacher's noise, so that both draw "
            f"from the same numbers; got {width}."
        )


def ablation_trainer(name: str, **options: Any) -> DistillTrainer:
    """The trainer of an ablation row, not yet run. `DistillationError` for an unknown row."""
    if name not in ABLATION:
        raise DistillationError(f"there is no row {name!r}; choose from {', '.join(ABLATION)}.")
    recipe = ABLATION[name]
    return DistillTrainer(f"distillation_{name}_{recipe.steps}", STUDENT, recipe, **options)


def architecture_trainer(
    name: str, recipe: DistillRecipe = ABLATION["matched"], **options: Any
) -> DistillTrainer:
    """A student of the searched or the pruned architecture with fresh weights, not yet run.

    Fresh, so that at equal budget the architectures alone differ. Raises `DistillationError` for an
    unknown name and `DataFileError` where its checkpoint is not there.
    """
    if name not in ARCHITECTURES:
        raise DistillationError(
            f"there is no architecture {name!r}; choose from {', '.join(ARCHITECTURES)}."
        )
    network = load_model(ARCHITECTURES[name])
    return DistillTrainer(
        f"distillation_{name}_{recipe.steps}",
        recipe=recipe,
        model=fresh_copy(network, recipe.seed),
        **options,
    )


def fresh_copy(network: nn.Module, seed: int) -> nn.Module:
    """A network of the same architecture with fresh weights drawn from the seed.

    A folded one gets its norms back: fresh weights learn with them.
    """
    made = Generator if isinstance(network, FoldedGenerator) else type(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return made(network.config).requires_grad_(True)


def train_student(name: str = "student", quiet: bool = False) -> dict[str, Any]:
    """Train a shipped student, resuming a killed run; ships its average, returns its card."""
    if name not in SHIPPED:
        raise DistillationError(f"there is no student {name!r}; choose from {', '.join(SHIPPED)}.")
    recipe = SHIPPED[name]
    trainer = DistillTrainer(name, STUDENT, recipe)
    # What is judged is what the file will hold.
    trainer.average.model = as_stored(trainer.run(quiet), bytes_a_weight=1)
    return ship(
        name,
        trainer.average.model,
        trainer.training,
        recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check(5000).items()},
        bytes_a_weight=1,
    )
