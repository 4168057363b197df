"""A quality predictor: the supernet's distance for a few hundred networks, and a regression.

Asking the supernet costs half a second. A ridge regression of the logarithm of its answers on what
an architecture decides, and on products of two decisions, costs microseconds, which is what a
comparison of searchers over many seeds needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

from fastgen_course.files import data_path, read_json, write_json
from fastgen_course.models.searched import (
    BLOCKS,
    CONVS,
    LAYERS,
    UPS,
    Architecture,
    ArchitectureError,
)

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def features(config: Architecture) -> list[float]:
    """What a network decides, as numbers near 0: log2 of the width that each layer passes on, a
    mark for each block that is not a dense 3x3 one, and a mark for each small upsampling."""
    found, width = [], 0
    for name in LAYERS:
        width = config.width(name) or width
        found.append(
            log2(width / (64 if name in LAYERS[:2] else 32 if name in LAYERS[2:4] else 16))
        )
    for name in CONVS:
        found += [float(config.block(name) == b) for b in BLOCKS if b != "conv3"]
    found += [float(config.kernel(name) == 2) for name in UPS]
    return found


def expanded(config: Architecture) -> np.ndarray:
    """The features, their products two by two, and a constant."""
    x = np.array(features(config))
    rows, columns = np.triu_indices(len(x))
    return np.concatenate([[1.0], x, x[rows] * x[columns]])


def ridge(a: np.ndarray, b: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights, leave-one-out errors) of least squares with `penalty` on all but the constant.

    The error of a row that was left out follows from the whole fit: e_i / (1 - H_ii), H being the
    matrix that makes fitted values of given ones.
    """
    penalties = penalty * np.eye(a.shape[1])
    penalties[0, 0] = 0
    solve = np.linalg.solve(a.T @ a + penalties, a.T)
    return solve @ b, (b - a @ solve @ b) / (1 - np.einsum("ij,ji->i", a, solve))


@dataclass
class QualityPredictor:
    """Predicted distance of an architecture's slice of the supernet.

    Attributes:
        weights: of `expanded`, for the natural logarithm of the distance.
        penalty: the ridge's, chosen by its leave-one-out error.
        left_out: leave-one-out errors of the logarithm, one a network it was fitted on.
    """

    weights: np.ndarray
    penalty: float = 0.0
    left_out: tuple[float, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __call__(self, config: Architecture) -> float:
        return float(np.exp(expanded(config) @ self.weights))

    @classmethod
    def fit(cls, configs: Sequence[Architecture], distances: Sequence[float]) -> QualityPredictor:
        """Fit to measured distances. Raises ArchitectureError for fewer than ten or one not > 0."""
        if len(configs) < 10:
            raise ArchitectureError(f"a fit needs at least 10 networks, got {len(configs)}.")
        if not all(0 < d < np.inf for d in distances):
            raise ArchitectureError("every distance must be above 0 and finite.")
        a, b = np.stack([expanded(c) for c in configs]), np.log(distances)
        fits = {p: ridge(a, b, p) for p in PENALTIES}
        best = min(fits, key=lambda p: float(np.square(fits[p][1]).mean()))
        weights, left_out = fits[best]
        return cls(weights, best, tuple(map(float, left_out)))

    @property
    def error(self) -> float:
        """Root mean square of the relative error on networks that were left out."""
        return float(np.sqrt(np.mean(np.square(self.left_out))))


def save_distances(
    configs: Sequence[Architecture], distances: Sequence[float], path: Path | None = None,
    **extra: Any,
) -> None:  # fmt: skip
    """Write data/search/quality.json: what the supernet said of each architecture."""
    rows = [[list(c.widths), list(c.blocks), list(c.ups), round(d, 6)]
            for c, d in zip(configs, distances, strict=True)]  # fmt: skip
    write_json(path or data_path("search", "quality.json"), {"rows": rows, **extra})


def load_distances(path: Path | None = None) -> tuple[list[Architecture], list[float]]:
    """The recorded architectures and distances. Raises `DataFileError` where there are none."""
    rows = read_json(path or data_path("search", "quality.json"))["rows"]
    return [from_lists(*row[:3]) for row in rows], [float(row[3]) for row in rows]


def from_lists(
    widths: Sequence[int], blocks: Sequence[str], ups: Sequence[int], activation: str = "relu"
) -> Architecture:
    """An architecture as JSON holds it."""
    return Architecture(tuple(widths), tuple(blocks), tuple(ups), activation)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, 1 if both order alike.

    Raises ArchitectureError for lists of different lengths or fewer than three.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ArchitectureError(
            f"a rank correlation needs two equal lists of at least 3, got {len(x)} and {len(y)}."
        )
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def paired_p_value(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test, one-sided: how likely ours would lie above theirs so often, and
    by so much, if neither were better. Entry i of both comes from seed i.

    Raises ArchitectureError for lists of different lengths or fewer than five.
    """
    if len(ours) != len(theirs) or len(ours) < 5:
        raise ArchitectureError(
            f"a paired test needs two equal lists of at least 5, got {len(ours)} and {len(theirs)}."
        )
    if list(ours) == list(theirs):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(ours, theirs, alternative="greater").pvalue)
