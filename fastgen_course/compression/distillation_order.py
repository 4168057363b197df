"""In which order? Distilling, cutting channels and quantising, compared at equal total updates.

All orders begin with one untrained network, the stand-in for what a search found, and end with a
network of fewer channels whose weights have four bits. Every update of every stage is the same
regression on GENERATOR_BASE's pairs, so that the order alone differs: "distil" is the long stage,
"prune" cuts channels and finetunes, "quantise" puts the weights on a grid and trains them there.
Cutting before anything is learned cuts at random. A stage that trains floats after the grid was
learned leaves the grid again, so that the weights are rounded once more at the end, untrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fastgen_course.compression.distillation import DistillRecipe, DistillTrainer
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.pruning import prune
from fastgen_course.compression.quantized import (
    QuantizedGenerator,
    calibration_batches,
    quantize_generator,
)
from fastgen_course.compression.teacher_sets import DistillationError
from fastgen_course.models.generator import GENERATOR_BASE, Generator, GeneratorConfig

START = replace(GENERATOR_BASE, channels=(96, 48, 24))
WEIGHT_BITS, ACTIVATION_BITS = 4, 8
# What each of the six layers keeps.
WIDTHS = tuple(width for width in (64, 32, 16) for _ in range(2))
STAGES: dict[str, int] = {"distil": 240, "prune": 90, "quantise": 90}  # updates of each
# Adam's rate at its height. The first stage of an order, whichever it is, begins with fresh
# weights and has that of "distil".
RATES: dict[str, float] = {"distil": 2e-3, "prune": 1e-3, "quantise": 5e-4}
ORDERS: dict[str, tuple[str, ...]] = {
    "distil_prune_quantise": ("distil", "prune", "quantise"),
    "prune_distil_quantise": ("prune", "distil", "quantise"),
    "distil_quantise_prune": ("distil", "quantise", "prune"),
    "quantise_distil_prune": ("quantise", "distil", "prune"),
}
RECIPE = DistillRecipe(shown="", target="base", average=0.99, seed=71)


def check_order(stages: Sequence[str]) -> None:
    """Raise `DistillationError` unless each stage stands once."""
    if sorted(stages) != sorted(STAGES):
        raise DistillationError(
            f"an order has each of {', '.join(STAGES)} once, got {', '.join(stages) or 'nothing'}."
        )


@torch.no_grad()
def fresh_start(config: GeneratorConfig = START, seed: int = RECIPE.seed) -> FoldedGenerator:
    """An untrained network, folded so that it can be cut and quantised at once.

    Its norms have seen a few batches before they are folded away, so that every layer begins with
    outputs of variance 1 (Mishkin and Matas 2016, "All you need is a good init").
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Generator(config).train()
    for _ in range(4):
        for noise, words in calibration_batches(config):
            network(noise, words)
    return fold(network.eval())


def in_floats(network: nn.Module) -> FoldedGenerator:
    """A copy of any stage's network in floating point; what lay on a grid keeps its values."""
    if isinstance(network, QuantizedGenerator):
        return network.folded()
    return deepcopy(network)


def rounded(network: nn.Module) -> QuantizedGenerator:
    """The network on its grids: as it is if it was trained there, else rounded without training."""
    if isinstance(network, QuantizedGenerator):
        return network
    return quantize_generator(network, weight_bits=WEIGHT_BITS, activation_bits=ACTIVATION_BITS)


def stage_start(stage: str, network: nn.Module) -> nn.Module:
    """What a stage begins to train: the network before it, cut or put on its grids."""
    network = in_floats(network)
    if stage == "prune":
        network = prune(network, WIDTHS)
    if stage == "quantise":
        network = rounded(network)
    return network.requires_grad_(True)


def stage_recipe(done: Sequence[str], stage: str, steps: int | None = None) -> DistillRecipe:
    """The recipe of a stage after those `done`: its updates and its rate."""
    rate = RATES[stage if done else "distil"]
    return replace(RECIPE, steps=STAGES[stage] if steps is None else steps, pairs_rate=rate)


def run_order(
    stages: Sequence[str],
    start: FoldedGenerator | None = None,
    *,
    name: str = "order",
    steps: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> QuantizedGenerator:
    """The network after all stages of an order, on its grids.

    Stages that begin alike are trained once: a stage's state in `data/runs` is named after all
    before it, and a finished one comes back at once. `steps` replaces each stage's; `options` are
    `DistillTrainer`'s. Raises `DistillationError` for an order with a stage missing or twice.
    """
    check_order(stages)
    network: nn.Module = fresh_start() if start is None else start
    label = name
    for index, stage in enumerate(stages):
        recipe = stage_recipe(stages[:index], stage, steps)
        label = f"{label}_{stage}{recipe.steps}"
        trainer = DistillTrainer(label, recipe=recipe, model=stage_start(stage, network), **options)
        network = trainer.run(quiet, keep=True)
    with torch.no_grad():
        return rounded(network)
