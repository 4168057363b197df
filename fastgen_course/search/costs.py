"""What a search pays for a network: the latency table's milliseconds, or MACs where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastgen_course.files import DataFileError
from fastgen_course.models.searched import Architecture
from fastgen_course.search.latency import LatencyTable, space_layers
from fastgen_course.search.searchers import Predictor
from fastgen_course.search.space import SearchSpace

PROBES = 32  # networks whose prices stand for a predictor that cannot be read


@dataclass(frozen=True)
class Cost:
    """Prices of networks in one unit.

    Attributes:
        of: the price of an architecture.
        unit: "ms" at batch 1, or "macs".
        base: the price of GENERATOR_BASE, of which a limit is a share.
        source: what `of` and `base` come from, as JSON can hold it; equal for equal prices.
        instead: for MACs, one sentence: why not milliseconds; else "".
    """

    of: Predictor
    unit: str
    base: float
    source: Any
    instead: str = ""


def priced(value: float, unit: str) -> str:
    """A price in words: "0.431 ms" or "9.52 M MACs"."""
    return f"{value:.3f} ms" if unit == "ms" else f"{value / 1e6:.2f} M MACs"


def cost_in(space: SearchSpace, latency: Predictor | None = None) -> Cost:
    """The cost by which networks of a space are searched.

    latency: a `LatencyTable`, or any other function from an architecture to milliseconds, which is
    asked for GENERATOR_BASE's too; None for the recorded table. A table that is absent, lacks one
    of the space's layers or does not say what GENERATOR_BASE takes cannot serve: MACs do then.
    """
    if latency is None:
        try:
            latency = LatencyTable.load()
        except DataFileError as error:
            return _macs(f"there is no latency table ({str(error).rstrip('.')})")
    if not isinstance(latency, LatencyTable):
        base = float(latency(Architecture()))
        probes = space.samples(min(PROBES, space.size()), seed=0)
        return Cost(latency, "ms", base, [base, *(latency(c) for c in probes)])
    absent = [key for key in space_layers(space) if key not in latency.entries]
    if absent:
        return _macs(f"{len(absent)} of the space's layers are not in the latency table, the first "
                     f"{absent[0]!r}")  # fmt: skip
    base = latency.extra.get("base_ms", 0.0)
    if base <= 0:
        return _macs("the latency table does not say what GENERATOR_BASE takes (base_ms)")
    constants = [latency.constant_ms, latency.layer_ms, latency.factor]
    source = [base, *constants, latency.modulation, latency.entries]
    return Cost(latency, "ms", base, source)


def _macs(why: str) -> Cost:
    base = Architecture().macs()
    sentence = f"{why}; MACs stand for milliseconds, as a share of GENERATOR_BASE's."
    return Cost(Architecture.macs, "macs", base, base, sentence)
