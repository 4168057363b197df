"""Quantisation-aware training: a trained generator learns to draw with its numbers on the grid.

    python -m fastgen_course train generator_int8      (and generator_int4, student_int8)

For the same noise and caption the picture, and what `judge_train` sees in it, should be those of
the unquantised network: distillation of a network into its own grid (Polino, Pascanu and Alistarh
2018). Going on with the GAN's loss instead is the ablation: GENERATOR_BASE's discriminator was not
kept, so a fresh one gets a head start while the generator's rate is 0. An unquantised copy that the
GAN goes on with, held to what it was, is the control.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.affine import QuantizationError
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.packed import pack
from fastgen_course.compression.quantized import (
    QuantizedGenerator,
    calibration_batches,
    quantize_generator,
)
from fastgen_course.models.discriminator import judge_features
from fastgen_course.models.generator import Generator
from fastgen_course.models.judges import SlotJudge
from fastgen_course.training.gan import GANRecipe, GANTrainer
from fastgen_course.training.loop import cosine_with_warmup, set_rate
from fastgen_course.training.matching import relative_error
from fastgen_course.training.shipping import ship

START = "generator_base"


@dataclass(frozen=True)
class QATRecipe(GANRecipe):
    """How a quantised generator is finetuned: `GANRecipe`'s fields, and

    Attributes:
        start: the checkpoint that it begins with.
        teacher: the checkpoint whose pictures it is to draw; "" for those of `start`.
        weight_bits, activation_bits: 2 to 16; both None finetunes an unquantised copy, the control.
        hold: weight of the distance to the teacher's pictures and features, each as a share of
            its variance; 0 leaves the GAN's own loss alone.
        adversarial: whether the GAN's losses go on; without them that distance is all there is.
        head_start: updates of the discriminator alone, counted in `steps`.
        pictures: calibration pictures.
    """

    start: str = START
    teacher: str = ""
    steps: int = 800
    generator_rate: float = 4e-4
    average: float = 0.99
    seed: int = 31
    weight_bits: int | None = 8
    activation_bits: int | None = 8
    hold: float = 1.0
    adversarial: bool = False
    head_start: int = 0
    pictures: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.head_start < self.steps:
            raise QuantizationError(
                f"head_start must be from 0 to {self.steps - 1} (below steps), "
                f"got {self.head_start}."
            )
        if self.hold < 0 or not (self.hold or self.adversarial):
            raise QuantizationError(
                "there is nothing to learn from: hold must be above 0, or at least 0 with "
                f"adversarial=True; got {self.hold}."
            )


# 7 bits of weight: without VNNI a processor adds pairs of products in 16 bits (pair_sum_fits).
QAT_RECIPES: dict[str, QATRecipe] = {
    "generator_int8": QATRecipe(weight_bits=7),
    "generator_int4": QATRecipe(weight_bits=4),
    "student_int8": QATRecipe(
        start="student_pruned", teacher=START, weight_bits=7, steps=1500, seed=32
    ),
}
# Trained to be compared with, and not shipped: the GAN goes on.
GAN = QATRecipe(steps=1400, average=0.995, adversarial=True, head_start=200, hold=0.0)
COMPARED: dict[str, QATRecipe] = {
    "control": replace(GAN, weight_bits=None, activation_bits=None, generator_rate=2e-4, hold=10.0),
    "generator_int4_free": replace(GAN, weight_bits=4),
}


class QATTrainer(GANTrainer):
    """`GANTrainer` on a quantised network that begins with trained weights."""

    def __init__(
        self,
        name: str,
        recipe: QATRecipe,
        generator: Generator | FoldedGenerator | None = None,
        judge: SlotJudge | None = None,
        *,
        teacher: Generator | FoldedGenerator | None = None,
    ) -> None:
        """generator: what is quantised, None for the recipe's start; teacher: whose pictures it is
        to draw, None for the recipe's, or those of `generator` where that is ""."""
        generator = load_model(recipe.start) if generator is None else generator
        super().__init__(name, recipe=recipe, judge=judge, model=start_network(generator, recipe))
        if teacher is None:
            teacher = load_model(recipe.teacher) if recipe.teacher else generator
        folded = fold(teacher) if isinstance(teacher, Generator) else deepcopy(teacher)
        self.original = folded.eval().requires_grad_(False)
        if not recipe.adversarial:  # GANs do without momentum, a plain distance need not
            self.g_optimiser.param_groups[0]["betas"] = (0.9, 0.99)

    def held(self, noise: Tensor, words: Tensor, fake: Tensor, features: Tensor) -> Tensor | float:
        """How far picture and features are from the teacher's for the same noise."""
        if self.recipe.hold == 0:
            return 0.0
        with torch.no_grad():
            picture = self.original(noise, words)
            seen = judge_features(self.judge, picture)[-1]
        return self.recipe.hold * (relative_error(fake, picture) + relative_error(features, seen))

    def step(self, index: int) -> dict[str, float]:
        """One update: the GAN's two, or one that brings the network nearer the unquantised."""
        if self.recipe.adversarial:
            return super().step(index)
        set_rate(self.g_optimiser, self.rates(index)[0])
        self.model.train()
        words, noise = next(self.batches).words, self._noise()
        fake = self.model(noise, words)
        distance = self.held(noise, words, fake, judge_features(self.judge, fake)[-1])
        self.g_optimiser.zero_grad(set_to_none=True)
        distance.backward()
        self.g_optimiser.step()
        self.average.update(self.model)
        return {"distance": distance.item()}

    def rates(self, index: int) -> tuple[float, float]:
        """The discriminator alone at first; then both rates fall along half a cosine."""
        recipe = self.recipe
        if index < recipe.head_start:
            return 0.0, recipe.discriminator_rate * min(1.0, (index + 1) / 100)
        left = index - recipe.head_start, recipe.steps - recipe.head_start
        return (
            recipe.generator_rate * cosine_with_warmup(*left),
            recipe.discriminator_rate * cosine_with_warmup(*left, warmup=1),
        )

    def run(self, quiet: bool = False) -> nn.Module:
        """Train to the end, going on where a killed run stopped; returns the running average."""
        self.training.resume()

        def report(step: int) -> None:
            if step % 200 == 0 and not quiet:
                recent = {k: round(v[-1], 3) for k, v in self.training.history.items()}
                print(self.name, f"{self.training.seconds:.0f} s", recent, flush=True)

        self.training.run(self.step, quiet=quiet, on_log=report)
        return self.average.model.eval()


def start_network(generator: Generator | FoldedGenerator, recipe: QATRecipe) -> nn.Module:
    """What QAT begins with: the calibrated network, ready to learn, or an unquantised copy."""
    if recipe.weight_bits is None and recipe.activation_bits is None:
        folded = fold(generator) if isinstance(generator, Generator) else generator
        return deepcopy(folded).requires_grad_(True)
    batches = calibration_batches(generator.config, recipe.pictures)
    network = quantize_generator(
        generator,
        batches=batches,
        weight_bits=recipe.weight_bits,
        activation_bits=recipe.activation_bits,
    )
    return network.requires_grad_(True)


def train_quantized(name: str, quiet: bool = False) -> dict[str, Any]:
    """Finetune one of QAT_RECIPES and ship it as integers; returns its card."""
    if name not in QAT_RECIPES:
        raise QuantizationError(f"name must be one of {', '.join(QAT_RECIPES)}, got {name!r}.")
    recipe = QAT_RECIPES[name]
    trainer = QATTrainer(name, recipe)
    network = trainer.run(quiet)
    return ship(
        name,
        pack(network),
        trainer.training,
        recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check(5000).items()},
    )


def compared_network(name: str, quiet: bool = False) -> nn.Module:
    """One of COMPARED after its finetuning; kept in `data/runs`, not shipped.

    A finished run comes back at once: what is saved at its end is its last state.
    """
    if name not in COMPARED:
        raise QuantizationError(f"name must be one of {', '.join(COMPARED)}, got {name!r}.")
    trainer = QATTrainer(f"quantization_{name}", COMPARED[name])
    network = trainer.run(quiet)
    trainer.training.save()
    return network.requires_grad_(False)


def parameters_moved(before: QuantizedGenerator, after: QuantizedGenerator) -> float:
    """The share of weights whose integer is another one after the training."""
    changed = total = 0
    with torch.no_grad():
        for (_, a), (_, b) in zip(before.layers(), after.layers(), strict=True):
            changed += int((a.weight_integers() != b.weight_integers()).sum())
            total += a.layer.weight.numel()
    return changed / total
