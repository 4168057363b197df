"""What the parts of `nas_records` share: options, names, and how a figure is noted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.models.searched import Architecture, uniform
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.timing import ResultError, record, result

AREA = "nas"
COMMAND = "python -m fastgen_course.search.nas_records"
BASE = "generator_base"
MIDDLE = uniform(0.5)
SHIPPED = "generator_nas"
HALVING_FIRST = 20  # updates of each candidate in the first round
FITTED, UNSEEN = 40, 200  # networks measured for the table's constants, and to judge it
ASKED = 300  # architectures that the supernet is asked about
BUDGET, SEEDS = 400, 20  # of each searcher
RANDOM = 20  # networks drawn at random for the plot
WIDTHS = (250, 375, 500, 625, 750)  # of GENERATOR_BASE's, in thousandths
SCORED = (0, 1, 2)  # sampling seeds of what a headline is made of
TINY = SearchSpace(
    {"stem": (32,), "conv7": (32,), "up14": (16,), "conv14": (16,), "up28": (8,), "conv28": (8,)}
)


@dataclass(frozen=True)
class Options:
    """What the command line asked for; `keep` is False for a trial, which records nothing."""

    again: bool = False
    tiny: bool = False
    workers: int = 0

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny


def note(
    options: Options, name: str, value: float, unit: str, part: str, spread: Any = None,
    **extra: Any,
) -> None:  # fmt: skip
    print(f"{AREA}.{name} {value:.4g} {unit}", flush=True)
    if options.keep:
        command = f"{COMMAND} {part}"
        record(AREA, f"{AREA}.{name}", value, unit, spread=spread, command=command, base=BASE,
               **extra)  # fmt: skip


def has(name: str, **extra: Any) -> bool:
    try:
        row = result(f"{AREA}.{name}")
    except ResultError:
        return False
    return all(row.extra.get(key) == value for key, value in extra.items())


def binomial(share: float, n: int) -> tuple[float, float]:
    """A 95 % interval of a share of n (Wilson's)."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def progress(what: str) -> Callable[[int, int], None]:
    def report(done: int, of: int) -> None:
        if done % 10 == 0 or done == of:
            print(f"{done} of {of} {what}", flush=True)

    return report


def plotted_random() -> list[Architecture]:
    """The random networks of the plot."""
    return list(SPACE.samples(RANDOM, seed=7))


def best_initialisation() -> str:
    """What halving found for ReLU, the activation of the supernet; "he" before it was recorded."""
    longest: dict[str, tuple[int, float]] = {}
    for round_ in range(8):
        name = f"{AREA}.halving_distance.updates_{HALVING_FIRST * 2**round_}"
        try:
            found = result(name).extra["distances"]
        except ResultError:
            break
        for candidate, distance in found.items():
            activation, scheme = candidate.split()
            if activation == "relu":
                longest[scheme] = -round_, distance
    return min(longest, key=longest.__getitem__, default="he")


def teacher() -> nn.Module:
    """GENERATOR_BASE, whose pictures everything here is compared with."""
    return load_model(BASE)
