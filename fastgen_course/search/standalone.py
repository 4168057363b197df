"""Networks trained each by itself for a short while, on the same lessons; successive halving.

What supernets are supposed to predict is measured here. Every network of a comparison meets the
same captions and noise in the same order, so that the lessons are made once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.models.discriminator import judge_features
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.searched import Architecture, ArchitectureError, SearchedGenerator
from fastgen_course.training.matching import MatchRecipe, MatchTrainer, relative_error

INITIALISATIONS = ("pytorch", "he", "glorot", "orthogonal", "dcgan")
VALIDATION = 512
Candidate = TypeVar("Candidate", bound=Hashable)


@dataclass(frozen=True)
class ShortRecipe(MatchRecipe):
    """A short training: the same for every network that is compared."""

    steps: int = 150
    batch: int = 48
    rate: float = 2e-3
    average: float = 0.95
    seed: int = 43


class Lessons:
    """What the original draws, batch after batch, made when first asked for and then kept.

    150 lessons of 48 are 70 MB. `check` holds further pictures, which no network learns from.
    """

    def __init__(
        self, original: nn.Module, recipe: MatchRecipe | None = None, judge: SlotJudge | None = None
    ) -> None:
        self.original, self.recipe = original, recipe or ShortRecipe()
        self.judge = judge or load_model("judge_train")
        self._source: MatchTrainer | None = None
        self._lessons: list[tuple[Tensor, ...]] = []
        self._check: tuple[Tensor, ...] | None = None

    def __getstate__(self) -> dict[str, object]:
        """What a worker needs to judge networks: `check`, and no lessons to learn from."""
        return {**self.__dict__, "_source": None, "_lessons": []}

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """(noise, words, pictures, what the judge sees) of a lesson, the first being 0."""
        if self._source is None:
            self._source = self._teaching("lessons", self.recipe)
            self._lessons = []
        while len(self._lessons) <= index:
            self._lessons.append(self._source.lesson())
        return self._lessons[index]

    @property
    def check(self) -> tuple[Tensor, ...]:
        """Like a lesson, of VALIDATION pictures."""
        if self._check is None:
            recipe = MatchRecipe(batch=VALIDATION, seed=self.recipe.seed + 1)
            self._check = self._teaching("check", recipe).lesson()
        return self._check

    def _teaching(self, name: str, recipe: MatchRecipe) -> MatchTrainer:
        return MatchTrainer(name, self.original, self.original, recipe, self.judge)

    @torch.no_grad()
    def distance(self, network: nn.Module) -> float:
        """How far a network's pictures are from the original's on `check`, in pixels and in
        `judge_train`'s features, each as a share of their variance; 0 draws the same."""
        noise, words, pictures, seen = self.check
        network.eval()
        drawn = torch.cat(
            [network(z, y) for z, y in zip(noise.split(64), words.split(64), strict=True)]
        )
        features = torch.cat([judge_features(self.judge, part)[-1] for part in drawn.split(64)])
        return float(relative_error(drawn, pictures) + relative_error(features, seen))


class ShortTrainer(MatchTrainer):
    """Matching on kept lessons. `constant`: no cosine, so that more steps may be added later."""

    def __init__(
        self, name: str, model: nn.Module, lessons: Lessons, recipe: MatchRecipe | None = None,
        constant: bool = False,
    ) -> None:  # fmt: skip
        recipe = recipe or lessons.recipe
        if (recipe.batch, recipe.seed) != (lessons.recipe.batch, lessons.recipe.seed):
            raise ValueError("batch and seed of the recipe must be those of the lessons.")
        super().__init__(name, model, lessons.original, recipe, lessons.judge)
        self.lessons, self.constant = lessons, constant

    def lesson(self) -> tuple[Tensor, ...]:
        return self.lessons[self.training.step]

    def factor(self, index: int) -> float:
        return min(1.0, (index + 1) / 10) if self.constant else super().factor(index)


@torch.no_grad()
def initialise(network: SearchedGenerator, scheme: str, seed: int = 0) -> SearchedGenerator:
    """Fresh weights in every layer, in place; biases 0 but for "pytorch".

    "pytorch": its default, uniform with variance 1 / (3 inputs). "he" (2015): variance 2 / inputs,
    which keeps a ReLU network's signal alive. "glorot" (2010): 2 / (inputs + outputs). "orthogonal"
    (Saxe et al. 2014), gain sqrt 2. "dcgan" (Radford et al. 2016): standard deviation 0.02.

    Raises ArchitectureError for another scheme.
    """
    if scheme not in INITIALISATIONS:
        raise ArchitectureError(
            f"the initialisation must be of {', '.join(INITIALISATIONS)}, got {scheme!r}."
        )
    source = torch.Generator().manual_seed(seed)
    for layer in network.layers.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = layer.weight
        # Inputs of one output value; a transposed convolution of stride 2 meets a quarter of it.
        if isinstance(layer, nn.ConvTranspose2d):
            fan_in = weight.shape[0] * weight[0, 0].numel() / 4
            fan_out = weight.shape[1] * weight[0, 0].numel()
        else:
            fan_in, fan_out = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
        if scheme == "pytorch":
            bound = fan_in**-0.5
            weight.uniform_(-bound, bound, generator=source)
            layer.bias is None or layer.bias.uniform_(-bound, bound, generator=source)
            continue
        if scheme == "orthogonal":
            nn.init.orthogonal_(weight, gain=2**0.5, generator=source)
        else:
            variance = {"he": 2 / fan_in, "glorot": 2 / (fan_in + fan_out), "dcgan": 0.02**2}
            weight.normal_(0, variance[scheme] ** 0.5, generator=source)
        if layer.bias is not None:
            layer.bias.zero_()
    return network


def fresh_network(
    config: Architecture, scheme: str = "pytorch", seed: int = 0
) -> SearchedGenerator:
    """The network of an architecture with first weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the caption encoder and the modulation
        return initialise(SearchedGenerator(config), scheme, seed)


@dataclass(frozen=True)
class Rung:
    """One round of successive halving: the distance that each candidate had after `updates`."""

    updates: int
    distances: dict[Hashable, float]


def successive_halving(
    candidates: Sequence[Candidate],
    train: Callable[[Candidate, int], float],
    first: int,
    share: float = 0.5,
) -> list[Rung]:
    """Train all a little, keep the better share, train these on, until one is left.

    Jamieson and Talwalkar (2016): each round costs about as much as any other, since half the
    candidates get twice the updates.

    Args:
        candidates: what is compared, at least two.
        train: `train(candidate, updates)` trains one on until it has had so many updates in all and
            returns its distance (smaller is better).
        first: updates in the first round, at least 1.
        share: kept after each round, above 0 and below 1; at least one stays.

    Raises ArchitectureError for fewer candidates, a budget below one update and another share.
    """
    if len(candidates) < 2:
        raise ArchitectureError(f"halving needs at least 2 candidates, got {len(candidates)}.")
    if first < 1 or not 0 < share < 1:
        raise ArchitectureError(
            f"first must be at least 1 update and share between 0 and 1, got {first} and {share}."
        )
    rungs, left, updates = [], list(candidates), first
    while True:
        found = {c: train(c, updates) for c in left}
        rungs.append(Rung(updates, found))
        if len(left) == 1:
            return rungs
        left = sorted(left, key=found.__getitem__)[: max(1, int(share * len(left)))]
        if len(left) == 1:
            return rungs
        updates = round(updates / share)
