"""Structured pruning of GENERATOR_BASE: channels leave in rounds while the rest learns to do alone.

    python -m fastgen_course train generator_pruned      (and student_pruned)

What is left learns to draw what the whole network drew (`training.matching`). Between two rounds it
has time to mend, so that the next round chooses among channels that are used as they will be (Han
et al. 2015, "Learning both weights and connections"; Molchanov et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import as_stored, load_model
from fastgen_course.compression.channels import (
    LAYERS,
    Keep,
    PruningError,
    folded_groups,
    kept_config,
    remove_channels,
    widest,
)
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.importance import (
    Importance,
    gradient_importance,
    magnitude_importance,
    random_importance,
)
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.generator import layer_widths
from fastgen_course.models.judges import SlotJudge
from fastgen_course.training.matching import MatchRecipe, MatchTrainer
from fastgen_course.training.shipping import ship

START = "generator_base"
# Of stem, conv7, up14, conv14, up28, conv28; GENERATOR_BASE has 128, 128, 64, 64, 32, 32. Multiples
# of 8, since a runtime's kernels take channels by the width of the processor's vectors.
PRUNED_WIDTHS = (80, 80, 32, 40, 24, 16)
CRITERIA = ("magnitude", "gradient", "random")
IMPORTANCE_CAPTIONS = 64


@dataclass(frozen=True)
class PruneRecipe(MatchRecipe):
    """How a generator is pruned: `MatchRecipe`'s fields, and

    Attributes:
        widths: channels that stay in each of the six layers, from 1.
        rounds: in how many cuts, from 1, the first before any update.
        every: updates from one cut to the next, from 1; all cuts lie within `steps`.
        criterion: which channels go first, one of CRITERIA.
        start: the checkpoint that is pruned.
        teacher: the checkpoint whose pictures it is to draw.

    Raises `PruningError` for a field out of its range.
    """

    widths: tuple[int, ...] = PRUNED_WIDTHS
    rounds: int = 4
    every: int = 100
    criterion: str = "gradient"
    start: str = START
    teacher: str = START

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) != len(LAYERS) or min(self.widths) < 1:
            raise PruningError(
                f"widths must have six numbers from 1 up, for {', '.join(LAYERS)}, got "
                f"{self.widths}."
            )
        if self.rounds < 1 or self.every < 1 or (self.rounds - 1) * self.every >= self.steps:
            raise PruningError(
                f"rounds and every must be at least 1 and the last cut must come before step "
                f"{self.steps}, got {self.rounds} rounds every {self.every} updates."
            )
        if self.criterion not in CRITERIA:
            raise PruningError(
                f"criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}."
            )

    def cuts(self, start: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Step: the widths from this step on. Each cut takes the same number of channels."""
        return {
            index * self.every: tuple(
                round(whole + (left - whole) * (index + 1) / self.rounds)
                for whole, left in zip(start, self.widths, strict=True)
            )
            for index in range(self.rounds)
        }


SHIPPED: dict[str, PruneRecipe] = {
    "generator_pruned": PruneRecipe(),
    # The student's teacher goes on teaching: errors of two stages do not add up.
    "student_pruned": PruneRecipe(
        start="student", widths=(32, 32, 16, 16, 8, 8), steps=2500, average=0.997, seed=43
    ),
}


def cut(network: FoldedGenerator, keep: Keep) -> FoldedGenerator:
    """A smaller dense network with the channels in `keep`; its weights are the large one's."""
    groups = folded_groups(network.config, network.form)
    left = remove_channels(network.state_dict(), groups, keep)  # refuses what cannot be kept
    smaller = FoldedGenerator(kept_config(network.config, keep), network.form)
    smaller.load_state_dict(left)
    return smaller.train(network.training)


def network_importance(network: FoldedGenerator, criterion: str, seed: int = 0) -> Importance:
    """The importance of a folded generator's channels; data and chance come from the seed.

    Raises `PruningError` for a criterion that is not in CRITERIA.
    """
    groups = folded_groups(network.config, network.form)
    if criterion == "magnitude":
        return magnitude_importance(network.state_dict(), groups)
    generator = torch.Generator().manual_seed(seed)
    if criterion == "random":
        return random_importance(groups, generator)
    if criterion != "gradient":
        raise PruningError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}.")
    words = next(scene_batches("train", IMPORTANCE_CAPTIONS, generator)).words
    noise = torch.randn(len(words), network.config.noise, generator=generator)
    return gradient_importance(network, groups, noise, words, seed=seed)


def prune(
    network: FoldedGenerator,
    widths: Sequence[int] = PRUNED_WIDTHS,
    criterion: str = "gradient",
    seed: int = 0,
) -> FoldedGenerator:
    """The network cut to `widths` at once, without any training after."""
    return cut(network, widest(network_importance(network, criterion, seed), widths))


class _Shape:
    """The widths as a part of the training's state: loading them rebuilds the networks first."""

    def __init__(self, trainer: PruneTrainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, list[int]]:
        return {"widths": list(layer_widths(self.trainer.model.config))}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        config = self.trainer.model.config
        keep = {
            layer: torch.arange(width) for layer, width in zip(LAYERS, state["widths"], strict=True)
        }
        if kept_config(config, keep).channels != layer_widths(config):
            self.trainer.cut(keep)


class PruneTrainer(MatchTrainer):
    """`MatchTrainer` whose network loses channels on the way, the optimiser's moments with them.

    A killed run goes on where it was, in the shape that it had.
    """

    def __init__(
        self,
        name: str,
        recipe: PruneRecipe | None = None,
        start: FoldedGenerator | None = None,
        judge: SlotJudge | None = None,
        importance: Callable[[FoldedGenerator, int], Importance] | None = None,
        *,
        teacher: nn.Module | None = None,
    ) -> None:
        """`start`: what is pruned, None for the recipe's; `teacher`: whose pictures it is to draw,
        None for those of a given `start`, else the recipe's teacher's; `importance(network, step)`
        replaces the recipe's criterion.

        Raises `PruningError` for widths above those of `start`.
        """
        recipe = recipe or PruneRecipe()
        if start is None:
            start = fold(load_model(recipe.start))
            if teacher is None and recipe.teacher != recipe.start:
                teacher = load_model(recipe.teacher)
        teacher = start if teacher is None else teacher
        self.importance = importance or (
            lambda network, step: network_importance(network, recipe.criterion, recipe.seed + step)
        )
        whole = layer_widths(start.config)
        for layer, left, width in zip(LAYERS, recipe.widths, whole, strict=True):
            if left > width:
                raise PruningError(
                    f"widths: {layer} can keep from 1 to {width} channels, got {left}."
                )
        self.cuts = recipe.cuts(whole)
        super().__init__(name, deepcopy(start), teacher, recipe, judge)
        self.training.parts = {"shape": _Shape(self), **self.training.parts}

    def step(self, index: int) -> dict[str, float]:
        """One update, after the cut that is due."""
        if index in self.cuts:
            self.cut(widest(self.importance(self.model, index), self.cuts[index]))
        return super().step(index)

    def cut(self, keep: Keep) -> None:
        """Remove channels from the network, its average and the optimiser's moments."""
        groups = folded_groups(self.model.config, self.model.form)
        names = [name for name, _ in self.model.named_parameters()]
        state = self.optimiser.state_dict()
        for moment in ("exp_avg", "exp_avg_sq") if state["state"] else ():
            whole = {name: state["state"][i][moment] for i, name in enumerate(names)}
            for i, tensor in enumerate(remove_channels(whole, groups, keep).values()):
                state["state"][i][moment] = tensor
        self.model = cut(self.model, keep).requires_grad_(True)
        self.model.to(memory_format=torch.channels_last)
        self.average.model = cut(self.average.model, keep).requires_grad_(False)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=self.recipe.rate, betas=(0.9, 0.99)
        )
        self.optimiser.load_state_dict(state)
        self.training.parts |= {"model": self.model, "optimiser": self.optimiser}


def paired_mse(
    network: nn.Module, original: nn.Module, noise: Tensor, words: Tensor, chunk: int = 250
) -> float:
    """Mean square difference of two networks' pictures for the same noise and captions.

    Paired, it needs a few hundred captions where FID needs 10,000: the noise that both share does
    not count as a difference. Raises `PruningError` for no captions.
    """
    if len(words) == 0 or len(noise) != len(words):
        raise PruningError(
            f"the paired error needs at least one caption and as many noises, got {len(words)} "
            f"captions and {len(noise)} noises."
        )
    total = 0.0
    with torch.no_grad():
        for z, y in zip(noise.split(chunk), words.split(chunk), strict=True):
            total += (network(z, y) - original(z, y)).square().mean().item() * len(z)
    return total / len(words)


def train_pruned(name: str = "generator_pruned", quiet: bool = False) -> dict[str, Any]:
    """Prune and match one of SHIPPED, resuming a killed run; returns its card."""
    if name not in SHIPPED:
        raise PruningError(
            f"there is no pruned network {name!r}; choose from {', '.join(SHIPPED)}."
        )
    trainer = PruneTrainer(name, SHIPPED[name])
    trainer.run(quiet)
    # What is judged is what the file will hold.
    trainer.average.model = as_stored(trainer.average.model, bytes_a_weight=1)
    return ship(
        name,
        trainer.average.model,
        trainer.training,
        trainer.recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check(5000).items()},
        bytes_a_weight=1,
    )
