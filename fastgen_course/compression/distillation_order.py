"""In which order? Distilling, cutting channels and quantising, compared at equal total updates.

All orders begin with the shipped student and end with a network of fewer channels whose weights
have four bits. Every update of every stage is the same regression on GENERATOR_BASE's pairs, so
that the order alone differs: "distil" goes on with it, "prune" cuts channels and finetunes,
"quantise" puts the weights on a grid and trains them there. A stage that trains floats after the
grid was learned leaves the grid again, so that the weights are rounded once more at the end,
untrained. (From untrained weights nothing could be seen: after 420 updates in all, FID was 589 to
704 in whatever order.)
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.distillation import DistillRecipe, DistillTrainer
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.pruning import prune
from fastgen_course.compression.quantized import QuantizedGenerator, quantize_generator
from fastgen_course.compression.teacher_sets import DistillationError

START = "student"
WEIGHT_BITS, ACTIVATION_BITS = 4, 8
WIDTHS = (48, 48, 24, 24, 12, 8)  # what each of the six layers keeps
STAGES: dict[str, int] = {"distil": 80, "prune": 80, "quantise": 80}  # updates of each
RATES: dict[str, float] = {"distil": 5e-4, "prune": 1e-3, "quantise": 5e-4}  # at their height
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


def stage_recipe(stage: str, steps: int | None = None) -> DistillRecipe:
    """The recipe of a stage: its updates and its rate."""
    steps = STAGES[stage] if steps is None else steps
    return replace(RECIPE, steps=steps, pairs_rate=RATES[stage])


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
    network: nn.Module = fold(load_model(START)) if start is None else start
    label = name
    for stage in stages:
        recipe = stage_recipe(stage, steps)
        label = f"{label}_{stage}{recipe.steps}"
        trainer = DistillTrainer(label, recipe=recipe, model=stage_start(stage, network), **options)
        network = trainer.run(quiet, keep=True)
    with torch.no_grad():
        return rounded(network)
