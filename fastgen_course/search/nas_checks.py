"""What notebook 10 holds its own results against: the exact front, the supernet's ends, plain
widths with the finalists' training."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgen_course.models.searched import uniform
from fastgen_course.search.finalists import (
    FULL,
    MOST_BYTES,
    SHARES,
    load_finalists,
    weight_bytes,
)
from fastgen_course.search.front import hypervolume
from fastgen_course.search.latency import LatencyTable
from fastgen_course.search.noting import Options, note, progress, teacher
from fastgen_course.search.quality import QualityPredictor, load_distances
from fastgen_course.search.space import SPACE
from fastgen_course.search.standalone import Lessons, ShortRecipe
from fastgen_course.search.supernet import Supernet, trained_supernet
from fastgen_course.training.matching import MatchTrainer

TRAINED_WIDTHS = (250, 375)  # thousandths: the sweep's points on either side of the finalists
EVERY = 200_000


def record_exact(options: Options) -> None:
    """Both predictors asked about every network of the space: the front that searchers look for.

    Beside it, for each finalist's limit, the best there is, with and without the limit of bytes.
    """
    table, quality = LatencyTable.load(), QualityPredictor.fit(*load_distances())
    reference = table(SPACE.largest()), quality(SPACE.smallest())
    count, tell = SPACE.size(), progress("networks")
    ms, distances = np.empty(count), np.empty(count)
    light = np.empty(count, bool)
    for index, config in enumerate(SPACE.every()):
        ms[index], distances[index] = table(config), quality(config)
        light[index] = weight_bytes(config) <= MOST_BYTES
        if (index + 1) % EVERY == 0:
            tell(index + 1, count)
    order = np.lexsort((distances, ms))
    least = np.minimum.accumulate(distances[order])
    front = order[np.concatenate([[True], least[1:] < least[:-1]])]
    volume = hypervolume([(ms[i], distances[i]) for i in front], reference)
    best = []
    for share, finalist in zip(SHARES, load_finalists()[0], strict=True):
        fits = ms <= share * table.extra["base_ms"]
        best.append(
            {
                "limit_ms": share * table.extra["base_ms"],
                "finalist": [table(finalist), quality(finalist)],
                "light": _best(fits & light, ms, distances),
                "any": _best(fits, ms, distances),
            }
        )
    note(options, "exact_hypervolume", volume, "of the rectangle", "exact", None,
         networks=count, front=len(front), reference=list(reference), limits=best,
         most_bytes=MOST_BYTES)  # fmt: skip


def _best(allowed: np.ndarray, ms: np.ndarray, distances: np.ndarray) -> list[Any]:
    """[milliseconds, distance, architecture] of the least distance among those allowed."""
    where = int(np.flatnonzero(allowed)[np.argmin(distances[allowed])])
    config = next(c for i, c in enumerate(SPACE.every()) if i == where)
    return [float(ms[where]), float(distances[where]), str(config)]


def record_ends(options: Options) -> None:
    """The supernet's smallest and largest network, which are trained at every update, beside the
    recorded ones, which are trained now and then."""
    supernet, lessons = trained_supernet(quiet=True), Lessons(teacher(), ShortRecipe())
    table, (configs, distances) = LatencyTable.load(), load_distances()
    smallest, largest = SPACE.smallest(), SPACE.largest()
    found = {name: lessons.distance(supernet.extract(c))
             for name, c in (("smallest", smallest), ("largest", largest))}  # fmt: skip
    others = [(c, d) for c, d in zip(configs, distances, strict=True) if c != smallest]
    worse = sum(d > found["smallest"] and table(c) > table(smallest) for c, d in others)
    note(options, "dominated_by_smallest", worse / len(others), "share", "ends", None,
         networks=len(others), smallest_ms=table(smallest), largest_ms=table(largest),
         **found)  # fmt: skip


def width_trainer(width: int, supernet: Supernet | None = None) -> MatchTrainer:
    """GENERATOR_BASE's plain shape, `width` thousandths as wide, trained as a finalist is."""
    network = (supernet or trained_supernet(quiet=True)).extract(uniform(width / 1000))
    return MatchTrainer(f"nas_width_{width}", network, teacher(), FULL)
