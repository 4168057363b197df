"""In which order? Distilling, cutting channels and quantising, compared at equal total updates.

All orders begin with GENERATOR_BASE and end with a network of half its channels whose weights have
four bits. A stage that stands after distillation keeps the teacher's pull in its loss. One that
trains floats after the grid was learned leaves the grid again, so that the weights are rounded once
more at the end, untrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.distillation import STUDENT, DistillRecipe, DistillTrainer
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.quantized import QuantizedGenerator, quantize_generator
from fastgen_course.compression.teacher_sets import DistillationError

START = "generator_base"
WEIGHT_BITS, ACTIVATION_BITS = 4, 8
# What each of the six layers keeps: STUDENT's widths.
WIDTHS = tuple(width for width in STUDENT.channels for _ in range(2))
STAGES: dict[str, int] = {"distil": 500, "prune": 400, "quantise": 400}  # updates of each
ORDERS: dict[str, tuple[str, ...]] = {
    "distil_prune_quantise": ("distil", "prune", "quantise"),
    "prune_distil_quantise": ("prune", "distil", "quantise"),
    "distil_quantise_prune": ("distil", "quantise", "prune"),
    "quantise_distil_prune": ("quantise", "distil", "prune"),
}
# Rates and weights as the QAT to four bits has them; one loss for all stages.
RECIPE = DistillRecipe(generator_rate=4e-4, average=0.995, seed=71)
HEAD_START = 100  # updates of the fresh discriminator alone, at the beginning of the first stage


def check_order(stages: Sequence[str]) -> None:
    """Raise `DistillationError` unless each stage stands once."""
    if sorted(stages) != sorted(STAGES):
        raise DistillationError(
            f"an order has each of {', '.join(STAGES)} once, got {', '.join(stages) or 'nothing'}."
        )


def cut_channels(network: FoldedGenerator, widths: Sequence[int] = WIDTHS) -> FoldedGenerator:
    """A dense network with the channels of largest weights left, `widths` in its six layers.

    The one place where notebook 11's structured pruning is called.
    """
    from fastgen_course.compression.channels import (
        folded_groups,
        kept_config,
        remove_channels,
        widest,
    )
    from fastgen_course.compression.importance import magnitude_importance

    groups, state = folded_groups(network.config, network.form), network.state_dict()
    keep = widest(magnitude_importance(state, groups), tuple(widths))
    smaller = FoldedGenerator(kept_config(network.config, keep), network.form)
    smaller.load_state_dict(remove_channels(state, groups, keep))
    return smaller


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
        network = cut_channels(network)
    if stage == "quantise":
        network = rounded(network)
    return network.requires_grad_(True)


def stage_recipe(done: Sequence[str], stage: str, steps: int | None = None) -> DistillRecipe:
    """The recipe of a stage after those `done`: the teacher pulls from distillation on."""
    taught = "distil" in (*done, stage)
    steps = STAGES[stage] if steps is None else steps
    head_start = 0 if done else min(HEAD_START, steps - 1)
    return replace(RECIPE, steps=steps, head_start=head_start, target="flow" if taught else "")


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
    discriminator = None
    for index, stage in enumerate(stages):
        recipe = stage_recipe(stages[:index], stage, steps)
        label = "_".join((name, *stages[: index + 1]))
        trainer = DistillTrainer(label, recipe=recipe, model=stage_start(stage, network), **options)
        if discriminator is not None:  # it goes on; the generator's moments begin anew
            trainer.discriminator.load_state_dict(discriminator)
        network = trainer.run(quiet, keep=True)
        discriminator = trainer.discriminator.state_dict()
    with torch.no_grad():
        return rounded(network)
