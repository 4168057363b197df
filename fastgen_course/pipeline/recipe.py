"""What a run of the pipeline is made of, and what its stages give: all of it data."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastgen_course.compression.pruning import PruneRecipe
from fastgen_course.compression.qat import QATRecipe
from fastgen_course.models.searched import CONVS, UPS
from fastgen_course.search.searchers import Evolution, Searcher
from fastgen_course.search.space import SearchSpace
from fastgen_course.search.supernet import SupernetRecipe
from fastgen_course.training.matching import MatchRecipe


class PipelineError(ValueError):
    """A recipe that cannot be run; the message names the field and its range."""


def default_space() -> SearchSpace:
    """Widths alone: plain 3x3 convolutions and transposed ones, which every later stage knows."""
    return SearchSpace(blocks=dict.fromkeys(CONVS, ("conv3",)), kernels=dict.fromkeys(UPS, (4,)))


@dataclass(frozen=True)
class Recipe:
    """All that a run is made of.

    Attributes:
        space: what is searched; blocks "conv3" and kernels 4 alone.
        supernet: the training of the network that candidates take their weights from.
        searcher: asks for candidates' milliseconds and distances.
        candidates: how often it may ask, from 1.
        most_ms: of the chosen network as a share of GENERATOR_BASE's, in (0, 1]; of its MACs where
            no latency table can serve.
        pictures: captions on which candidates and stages are compared with the base, from 1.
        distil: the chosen network learns to draw what the base draws.
        keep: share of each layer's channels that pruning leaves, in (0, 1], to a multiple of 8.
        prune, quantise: the trainings of pruning, its widths from `keep`, and on the integers'
            grid. Each starts from what the stage before made and is taught by the base, whatever
            their `start` and `teacher` name.

    Raises `PipelineError` for a field out of its range.
    """

    space: SearchSpace = field(default_factory=default_space)
    supernet: SupernetRecipe = field(default_factory=SupernetRecipe)
    searcher: Searcher = field(default_factory=Evolution)
    candidates: int = 300
    most_ms: float = 0.35
    pictures: int = 128
    distil: MatchRecipe = field(default_factory=lambda: MatchRecipe(steps=2500, seed=61))
    keep: float = 0.75
    prune: PruneRecipe = field(default_factory=lambda: PruneRecipe(steps=1500, seed=62))
    quantise: QATRecipe = field(default_factory=lambda: QATRecipe(weight_bits=7, seed=63))

    def __post_init__(self) -> None:
        for name in ("candidates", "pictures"):
            if getattr(self, name) < 1:
                raise PipelineError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("most_ms", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise PipelineError(f"{name} must be above 0 and at most 1, got "
                                    f"{getattr(self, name)}.")  # fmt: skip
        plain = all(set(options) == {"conv3"} for options in self.space.blocks.values())
        if not plain or any(set(options) != {4} for options in self.space.kernels.values()):
            raise PipelineError(
                "space must have blocks of conv3 and kernels of 4 alone: pruning and int8 know no "
                "others."
            )


FULL = Recipe()
DRY = Recipe(
    supernet=SupernetRecipe(steps=2, batch=4, drawn=1),
    candidates=4,
    most_ms=1.0,  # four networks drawn at random may all be slow
    pictures=8,
    distil=MatchRecipe(steps=3, batch=4),
    prune=PruneRecipe(steps=3, batch=4, rounds=2, every=1, criterion="magnitude"),
    quantise=QATRecipe(steps=3, batch=4, weight_bits=7, pictures=8),
)


@dataclass(frozen=True)
class Searched:
    """The network that the search chose, its weights those of the supernet.

    `distance` is the mean square error to the base's pictures for the same noise; `cost` is in
    `unit`, "ms" as the latency table predicts them or "macs"; `tried` lists (cost, distance) of
    every candidate.
    """

    key: str
    seconds: float
    widths: tuple[int, ...]
    macs: int
    cost: float
    unit: str
    distance: float
    tried: tuple[tuple[float, float], ...]
    weights: str


@dataclass(frozen=True)
class Trained:
    """A network after a stage of training: its file, and its distance to the base's pictures."""

    key: str
    seconds: float
    widths: tuple[int, ...]
    distance: float
    parameters: int
    weights: str


@dataclass(frozen=True)
class Delivered:
    """What is shipped: graphs by runtime, the bytes of the weights, the card."""

    key: str
    seconds: float
    graphs: dict[str, str]
    weight_bytes: int
    card: str
