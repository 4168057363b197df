"""Recorded figures in the shape in which notebooks draw them."""

from __future__ import annotations

import numpy as np

from fastgen_course.datasets.captions import SLOTS
from fastgen_course.timing.results import result


def judge_by_style() -> np.ndarray:
    """Garment accuracy of the reporting judge on real test images: (styles, sizes), recorded.

    Raises `ResultError` when `python -m fastgen_course.metrics.record` has not run.
    """
    return np.array(
        [
            [
                result(f"judge.garment_accuracy_{size}_{style.replace(' ', '_')}").value
                for size in SLOTS["size"]
            ]
            for style in SLOTS["style"]
        ]
    )
