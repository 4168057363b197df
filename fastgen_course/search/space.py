"""The search space as a dataclass: decisions with a few options each, and what they decode to.

A searcher sees a genotype alone: one index a decision. The space turns it into an `Architecture`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from fastgen_course.models.searched import (
    BLOCKS,
    CONVS,
    KERNELS,
    LAYERS,
    UPS,
    Architecture,
    ArchitectureError,
)

Genotype = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """One choice: its name ("conv7.block", "stem.width"...) and its options, in order."""

    name: str
    options: tuple[int | str, ...]


def steps(low: int, high: int, step: int = 8) -> tuple[int, ...]:
    """The widths from low to high, both included."""
    return tuple(range(low, high + 1, step))


@dataclass(frozen=True)
class SearchSpace:
    """Every option of every layer; the defaults are a quarter to three quarters of GENERATOR_BASE.

    Attributes:
        widths: the options of each layer of `LAYERS`, multiples of 8.
        blocks: the options of each convolution of `CONVS`.
        kernels: the options of each upsampling of `UPS`.

    Raises ArchitectureError for a layer without options (the space would be empty) and for an
    option that no architecture may have.
    """

    widths: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {
            "stem": steps(32, 96),
            "conv7": steps(32, 96),
            "up14": steps(16, 48),
            "conv14": steps(16, 48),
            "up28": steps(8, 24),
            "conv28": steps(8, 24),
        }
    )
    blocks: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict.fromkeys(CONVS, BLOCKS))
    kernels: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict.fromkeys(UPS, KERNELS))

    def __post_init__(self) -> None:
        for name, options, allowed in (
            *((f"widths of {x}", self.widths.get(x, ()), None) for x in LAYERS),
            *((f"blocks of {x}", self.blocks.get(x, ()), BLOCKS) for x in CONVS),
            *((f"kernels of {x}", self.kernels.get(x, ()), KERNELS) for x in UPS),
        ):
            if not options:
                raise ArchitectureError(
                    f"the search space is empty: the {name} must have at least one option."
                )
            if allowed is None and any(w < 8 or w % 8 for w in options):
                raise ArchitectureError(f"the {name} must be multiples of 8 from 8, got {options}.")
            if allowed is not None and any(x not in allowed for x in options):
                raise ArchitectureError(f"the {name} must be of {allowed}, got {options}.")

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What a genotype decides, in order: of each layer its block or kernel, then its width."""
        found = []
        for name in LAYERS:
            if name in CONVS:
                found.append(Decision(f"{name}.block", self.blocks[name]))
            elif name in UPS:
                found.append(Decision(f"{name}.kernel", self.kernels[name]))
            found.append(Decision(f"{name}.width", self.widths[name]))
        return tuple(found)

    def size(self) -> int:
        """How many different architectures there are; an absent convolution has no width."""
        convs = (
            sum(1 if block == "none" else len(self.widths[name]) for block in self.blocks[name])
            for name in CONVS
        )
        others = (len(self.widths[n]) * len(self.kernels.get(n, (0,))) for n in ("stem", *UPS))
        return prod(convs) * prod(others)

    def decode(self, genotype: Sequence[int]) -> Architecture:
        """The architecture of a genotype. Raises ArchitectureError for one that does not fit."""
        decisions = self.decisions
        if len(genotype) != len(decisions):
            raise ArchitectureError(
                f"a genotype of this space has {len(decisions)} indices, got {len(genotype)}."
            )
        chosen = {}
        for decision, index in zip(decisions, genotype, strict=True):
            if not 0 <= index < len(decision.options):
                raise ArchitectureError(
                    f"{decision.name} must be from 0 to {len(decision.options) - 1}, got {index}."
                )
            chosen[decision.name] = decision.options[index]
        absent = {name for name in CONVS if chosen[f"{name}.block"] == "none"}
        return Architecture(
            widths=tuple(0 if n in absent else chosen[f"{n}.width"] for n in LAYERS),
            blocks=tuple(chosen[f"{n}.block"] for n in CONVS),
            ups=tuple(chosen[f"{n}.kernel"] for n in UPS),
        )

    def encode(self, config: Architecture) -> Genotype:
        """A genotype of an architecture (an absent convolution's width is the first option).

        Raises ArchitectureError for one that lies outside the space.
        """
        genotype = []
        for decision in self.decisions:
            name, what = decision.name.split(".")
            value = {"block": config.block, "kernel": config.kernel, "width": config.width}[what](
                name
            )
            if what == "width" and value == 0:
                value = decision.options[0]
            if value not in decision.options:
                raise ArchitectureError(
                    f"{decision.name} must be of {decision.options} in this space, got {value}."
                )
            genotype.append(decision.options.index(value))
        return tuple(genotype)

    def __contains__(self, config: Architecture) -> bool:
        try:
            self.encode(config)
        except ArchitectureError:
            return False
        return True

    def random(self, source: random.Random) -> Genotype:
        """A genotype, each decision drawn evenly."""
        return tuple(source.randrange(len(d.options)) for d in self.decisions)

    def samples(self, n: int, seed: int) -> Iterator[Architecture]:
        """n different architectures drawn at random.

        Raises ArchitectureError for fewer than one and for more than there are.
        """
        if not 1 <= n <= self.size():
            raise ArchitectureError(
                f"n must be from 1 to {self.size()}, the size of the space, got {n}."
            )
        source, seen = random.Random(seed), set()
        while len(seen) < n:
            config = self.decode(self.random(source))
            if config not in seen:
                seen.add(config)
                yield config

    def every(self) -> Iterator[Architecture]:
        """Every architecture of the space once, in the order of its genotypes."""
        decisions = self.decisions
        names = [d.name for d in decisions]
        for genotype in product(*(range(len(d.options)) for d in decisions)):
            picked = dict(zip(names, genotype, strict=True))
            absent = (n for n in CONVS if self.blocks[n][picked[f"{n}.block"]] == "none")
            if all(picked[f"{n}.width"] == 0 for n in absent):  # it has no width to choose
                yield self.decode(genotype)

    def largest(self) -> Architecture:
        """Every width at its widest, dense 3x3 convolutions and transposed ones where allowed."""
        return self._extreme(max, ("conv3", "separable", "conv1", "none"))

    def smallest(self) -> Architecture:
        """Every width at its narrowest and the cheapest of the blocks."""
        return self._extreme(min, ("none", "conv1", "separable", "conv3"))

    def _extreme(self, pick, order: tuple[str, ...]) -> Architecture:  # type: ignore[no-untyped-def]
        blocks = tuple(min(self.blocks[name], key=order.index) for name in CONVS)
        absent = {name for name, block in zip(CONVS, blocks, strict=True) if block == "none"}
        return Architecture(
            widths=tuple(0 if n in absent else pick(self.widths[n]) for n in LAYERS),
            blocks=blocks,
            ups=tuple(pick(self.kernels[n]) for n in UPS),
        )


SPACE = SearchSpace()
