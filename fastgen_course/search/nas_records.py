"""Record what notebook 10 shows.

    python -m fastgen_course.search.nas_records [PART ...]

`supernet` takes about 20 minutes on one idle core, `halving` 4. All go on where they were, row by
row; `--again` measures anew. `--tiny` tries everything on little and records nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastgen_course.checkpoints import load_model
from fastgen_course.models.searched import ACTIVATIONS, Architecture, uniform
from fastgen_course.search.standalone import (
    INITIALISATIONS,
    Lessons,
    ShortRecipe,
    ShortTrainer,
    fresh_network,
    successive_halving,
)
from fastgen_course.search.supernet import SupernetRecipe, trained_supernet
from fastgen_course.timing import record
from fastgen_course.timing.thread_experiment import cores_taken

AREA = "nas"
COMMAND = "python -m fastgen_course.search.nas_records"
BASE = "generator_base"
MIDDLE = uniform(0.5)
HALVING_FIRST = 20  # updates of each candidate in the first round


@dataclass(frozen=True)
class Options:
    """What the command line asked for; `keep` is False for a trial, which records nothing."""

    again: bool = False
    tiny: bool = False

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny


def _note(
    options: Options, name: str, value: float, unit: str, part: str, spread: Any = None,
    **extra: Any,
) -> None:  # fmt: skip
    print(f"{AREA}.{name} {value:.4g} {unit}", flush=True)
    if options.keep:
        command = f"{COMMAND} {part}"
        record(AREA, f"{AREA}.{name}", value, unit, spread=spread, command=command, base=BASE,
               **extra)  # fmt: skip


def record_supernet(options: Options) -> None:
    """Train the supernet; its state stays in data/runs."""
    if options.tiny:
        trained_supernet(SupernetRecipe(steps=2, batch=4), name="supernet_tiny", keep=False)
    else:
        trained_supernet()


def record_halving(options: Options) -> None:
    """Activation and weight initialisation by successive halving of short trainings."""
    batch, first = (4, 1) if options.tiny else (48, HALVING_FIRST)
    lessons = Lessons(load_model(BASE), ShortRecipe(batch=batch))
    candidates = [(a, i) for a in ACTIVATIONS for i in INITIALISATIONS][:: 4 if options.tiny else 1]
    trainings = {}

    def train(candidate: tuple[str, str], updates: int) -> float:
        config = Architecture(MIDDLE.widths, MIDDLE.blocks, MIDDLE.ups, candidate[0])
        recipe = ShortRecipe(steps=updates, batch=batch)
        name = "halving_" + "_".join(candidate)
        trainer = ShortTrainer(name, fresh_network(config, candidate[1]), lessons, recipe, True)
        trainings[candidate] = trainer.training
        distance = lessons.distance(trainer.run(quiet=True, keep=options.keep))
        print(f"{updates:4} updates  {' '.join(candidate):24} {distance:.4f}", flush=True)
        return distance

    rungs = successive_halving(candidates, train, first)
    for rung in rungs:
        best = min(rung.distances, key=rung.distances.__getitem__)
        _note(
            options, f"halving_distance.updates_{rung.updates}", rung.distances[best],
            "relative square error", "halving", best=list(best), batch=batch,
            architecture=str(MIDDLE),
            distances={" ".join(c): round(d, 5) for c, d in rung.distances.items()},
        )  # fmt: skip
    for training in trainings.values():
        training.finish()


RECORDERS: dict[str, Callable[[Options], None]] = {
    "supernet": record_supernet,
    "halving": record_halving,
}
TIMED: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; the timed parts refuse a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on very little")
    given = parser.parse_args(arguments)
    parts = given.parts or list(RECORDERS)
    unknown = [part for part in parts if part not in RECORDERS]
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(RECORDERS)}."
    elif not given.tiny and set(parts) & set(TIMED) and (taken := cores_taken()) > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for part in parts:
        RECORDERS[part](Options(given.again, given.tiny))
    return 0


if __name__ == "__main__":
    sys.exit(main())
