"""A 5,000-image subset of MNIST (500 a digit), the warm-up set of notebooks 01 and 02."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from fastgen_course.files import require

_NAME = "digits/mnist_5k.npz"
_SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"


class Digits(NamedTuple):
    """Handwritten digits and what they show."""

    images: torch.Tensor  # float32 (N, 1, 28, 28) in [-1, 1], ink bright
    labels: torch.Tensor  # int64 (N,), 0 to 9


@cache
def load_digits_subset(split: str) -> Digits:
    """Split "train" (4,000 digits, 400 of each) or "test" (1,000, 100 of each), shuffled.

    Raises ValueError for another split, `DataFileError` for a missing, truncated or altered file.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}.')
    with np.load(require(_NAME, _SHA256), allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    # The file lists the digits class by class: the last 100 of each are the test split.
    is_test = np.tile(np.arange(500) >= 400, 10)
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    chosen = np.random.default_rng(0).permutation(chosen)
    pixels = torch.from_numpy(images[chosen]).float()[:, None] / 127.5 - 1
    return Digits(pixels, torch.from_numpy(labels[chosen]))
