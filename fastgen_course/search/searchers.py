"""Searchers under one interface and one budget: random, evolution, a REINFORCE controller, optuna.

A searcher sees the space's decisions and two numbers for each genotype it asks about, never a
network. Asking costs one of its budget, the same genotype asked twice costs two.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import exp, inf, log
from pathlib import Path
from typing import Protocol

from fastgen_course.models.searched import Architecture, ArchitectureError
from fastgen_course.search.front import Point, crowding, nondominated_ranks, pareto_front
from fastgen_course.search.space import Genotype, SearchSpace

Predictor = Callable[[Architecture], float]


class BudgetSpent(Exception):
    """Raised to a searcher that asks once more than its budget."""


@dataclass
class Evaluator:
    """Answers a searcher: (milliseconds, distance) of a genotype; counts and remembers.

    Attributes:
        space: what genotypes mean.
        latency, quality: the two predictors, both smaller the better.
        budget: how many answers, at least 1.
        log: a file that every answer is written to before it is given, one line each. A searcher
            that was killed and starts again from the same seed asks the same; as long as it does,
            answers are read from there, so that at most the one in hand is computed twice.

    Raises ArchitectureError for a budget below 1, and for a log of another search.
    """

    space: SearchSpace
    latency: Predictor
    quality: Predictor
    budget: int
    log: Path | None = None
    asked: list[Genotype] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    computed: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ArchitectureError(f"budget must be at least 1 evaluation, got {self.budget}.")
        self._known: dict[Genotype, Point] = {}
        self._logged: list[tuple[Genotype, Point]] = []
        if self.log is not None and self.log.is_file():
            for line in self.log.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # the last one may have been cut off
                    genotype, point = json.loads(line)
                    self._logged.append((tuple(genotype), tuple(point)))
            text = "".join(_line(g, p) for g, p in self._logged)
            self.log.write_text(text, encoding="utf-8")

    def __call__(self, genotype: Sequence[int]) -> Point:
        genotype = tuple(genotype)
        if len(self.asked) >= self.budget:
            raise BudgetSpent
        index = len(self.asked)
        if index < len(self._logged):
            logged, point = self._logged[index]
            if logged != genotype:
                raise ArchitectureError(
                    f"log {self.log.name} is of another search (its answer {index} is to another "
                    "genotype); remove it or give its space, searcher and seed."
                )
            self._known[genotype] = point
        else:
            if genotype not in self._known:
                config = self.space.decode(genotype)
                self._known[genotype] = self.latency(config), self.quality(config)
                self.computed += 1
            point = self._known[genotype]
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(_line(genotype, point))
        self.asked.append(genotype)
        self.points.append(point)
        return point

    def front(self) -> list[tuple[Genotype, Point]]:
        """What was found and is dominated by nothing else found, from fast to slow."""
        return [(self.asked[i], self.points[i]) for i in pareto_front(self.points)]


def _line(genotype: Genotype, point: Point) -> str:
    return json.dumps([list(genotype), list(point)]) + "\n"


class Searcher(Protocol):
    """Asks `evaluate` until it raises `BudgetSpent`; all its randomness is from `seed`."""

    def search(self, space: SearchSpace, evaluate: Evaluator, seed: int) -> None: ...


def run_search(searcher: Searcher, evaluate: Evaluator, seed: int) -> Evaluator:
    """Search until the budget is spent; what was found is in the returned evaluator."""
    with suppress(BudgetSpent):
        searcher.search(evaluate.space, evaluate, seed)
    return evaluate


class RandomSearch:
    """Every decision drawn evenly, each time anew: the baseline that is hard to beat honestly."""

    def search(self, space: SearchSpace, evaluate: Evaluator, seed: int) -> None:
        source = random.Random(seed)
        while True:
            evaluate(space.random(source))


@dataclass(frozen=True)
class Evolution:
    """NSGA-II (Deb et al. 2002): keep the best fronts, prefer room, cross and mutate.

    Attributes:
        population: how many survive each generation, at least 2.
        mutation: expected number of decisions that a child draws anew, above 0.
    """

    population: int = 30
    mutation: float = 1.5

    def __post_init__(self) -> None:
        if self.population < 2 or self.mutation <= 0:
            raise ArchitectureError(
                "population must be at least 2 and mutation above 0, got "
                f"{self.population} and {self.mutation}."
            )

    def search(self, space: SearchSpace, evaluate: Evaluator, seed: int) -> None:
        source = random.Random(seed)
        people = {}
        while len(people) < min(self.population, space.size()):
            genotype = space.random(source)
            people[genotype] = evaluate(genotype)
        while len(people) > 1:  # nothing to cross in a space of one
            fitness = self.fitness(people)
            children = {}
            for _ in range(self.population):
                parents = [min(source.sample(list(people), 2), key=fitness.__getitem__)
                           for _ in range(2)]  # fmt: skip
                child = self.child(*parents, space, source)
                children[child] = evaluate(child)
            people = self.survivors({**people, **children})

    def fitness(self, people: dict[Genotype, Point]) -> dict[Genotype, tuple[int, float]]:
        """(rank, minus the room in its front) of each, smaller the better."""
        keys, points = list(people), list(people.values())
        ranks, found = nondominated_ranks(points), {}
        for rank in set(ranks):
            front = [i for i, r in enumerate(ranks) if r == rank]
            for i, room in zip(front, crowding([points[i] for i in front]), strict=True):
                found[keys[i]] = rank, -room
        return found

    def survivors(self, people: dict[Genotype, Point]) -> dict[Genotype, Point]:
        """The fittest, as many as the population."""
        fitness = self.fitness(people)
        best = sorted(people, key=fitness.__getitem__)[: self.population]
        return {genotype: people[genotype] for genotype in best}

    def child(
        self, one: Genotype, other: Genotype, space: SearchSpace, source: random.Random
    ) -> Genotype:
        """Each decision from either parent, then now and then a new one."""
        rate = self.mutation / len(one)
        return tuple(
            source.randrange(len(d.options)) if source.random() < rate else source.choice((a, b))
            for d, a, b in zip(space.decisions, one, other, strict=True)
        )


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(logit)."""
    top = max(logits, default=-inf)
    weights = [exp(x - top) for x in logits]
    return [w / sum(weights) for w in weights]


def policy_gradient(
    logits: Sequence[float], chosen: int, reward: float, baseline: float
) -> list[float]:
    """The gradient of (reward - baseline) log p(chosen) with respect to the logits."""
    shares = softmax(logits)
    return [(reward - baseline) * ((i == chosen) - p) for i, p in enumerate(shares)]


@dataclass(frozen=True)
class Reinforce:
    """A controller that learns which options pay (Williams 1992; Zoph and Le 2017, in small).

    Each decision has logits of its own. The reward of MnasNet (Tan et al. 2019) mixes both aims by
    an exponent, so one controller finds one trade-off: the budget is shared by several, which take
    turns, and together they span a front.

    Attributes:
        exponents: of milliseconds beside the distance's 1 in the reward.
        rate: step of the logits.
        baseline: decay of the running mean of rewards that is subtracted, in [0, 1).
        gradient: (logits, chosen, reward, baseline) -> what is added to the logits, times `rate`.
    """

    exponents: tuple[float, ...] = (0.0, 0.3, 0.7, 1.5)
    rate: float = 0.5
    baseline: float = 0.9
    gradient: Callable[[list[float], int, float, float], Sequence[float]] = policy_gradient

    def __post_init__(self) -> None:
        if not self.exponents or self.rate <= 0 or not 0 <= self.baseline < 1:
            raise ArchitectureError(
                "exponents must not be empty, rate above 0 and baseline from 0 up to 1, got "
                f"{self.exponents}, {self.rate} and {self.baseline}."
            )

    def search(self, space: SearchSpace, evaluate: Evaluator, seed: int) -> None:
        source = random.Random(seed)
        sizes = [len(d.options) for d in space.decisions]
        controllers = [[[0.0] * n for n in sizes] for _ in self.exponents]
        means: list[float | None] = [None] * len(self.exponents)
        while True:
            for index, exponent in enumerate(self.exponents):
                logits = controllers[index]
                shares = [softmax(row) for row in logits]
                genotype = tuple(source.choices(range(len(p)), p)[0] for p in shares)
                ms, distance = evaluate(genotype)
                reward = -log(distance) - exponent * log(ms)
                mean = reward if means[index] is None else means[index]
                for row, chosen in zip(logits, genotype, strict=True):
                    slopes = self.gradient(row, chosen, reward, mean)
                    row[:] = [x + self.rate * s for x, s in zip(row, slopes, strict=True)]
                means[index] = self.baseline * mean + (1 - self.baseline) * reward


@dataclass(frozen=True)
class Optuna:
    """What one would use in production: optuna with its NSGA-II ("nsga2") or TPE ("tpe") sampler.

    Raises ArchitectureError for another sampler and, when it searches, ImportError without optuna.
    """

    sampler: str = "nsga2"

    def __post_init__(self) -> None:
        if self.sampler not in ("nsga2", "tpe"):
            raise ArchitectureError(f"sampler must be nsga2 or tpe, got {self.sampler!r}.")

    def search(self, space: SearchSpace, evaluate: Evaluator, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if self.sampler == "tpe":
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        else:
            sampler = optuna.samplers.NSGAIISampler(population_size=30, seed=seed)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        while True:
            trial = study.ask()
            # Widths are ordered, so they are integers to optuna; blocks and kernels are not.
            genotype = tuple(
                trial.suggest_int(d.name, 0, len(d.options) - 1) if d.name.endswith("width")
                else trial.suggest_categorical(d.name, range(len(d.options)))
                for d in space.decisions
            )  # fmt: skip
            study.tell(trial, evaluate(genotype))


SEARCHERS: dict[str, Searcher] = {
    "random": RandomSearch(),
    "evolution": Evolution(),
    "reinforce": Reinforce(),
    "optuna_nsga2": Optuna("nsga2"),
    "optuna_tpe": Optuna("tpe"),
}
