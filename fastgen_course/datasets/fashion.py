"""Fashion-MNIST: 70,000 photographs of garments, 28x28 grey (Xiao, Rasul, Vollgraf 2017, MIT)."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from fastgen_course.files import damaged, require

# Class names in the order of the data set's labels, in the course's words.
FASHION_CLASSES = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)

# (file, SHA-256 of the decoded bytes). The decoded content is what two mirrors agree on.
_FILES = {
    ("train", "images"): (
        "train-images-idx3-ubyte.gz",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    ("train", "labels"): (
        "train-labels-idx1-ubyte.gz",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    ("test", "images"): (
        "t10k-images-idx3-ubyte.gz",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    ("test", "labels"): (
        "t10k-labels-idx1-ubyte.gz",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class Fashion(NamedTuple):
    """Photographs and their classes."""

    images: torch.Tensor  # uint8 (N, 28, 28), garment bright on black
    labels: torch.Tensor  # int64 (N,), an index into FASHION_CLASSES


def _read_idx(split: str, what: str) -> np.ndarray:
    """Decode one IDX file: a big-endian header (0, 0, type, rank, sizes...) and raw bytes."""
    name, content_sha256 = _FILES[split, what]
    name = f"fashion_mnist/{name}"
    try:
        content = gzip.decompress(require(name).read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(name) from error
    if hashlib.sha256(content).hexdigest() != content_sha256:
        raise damaged(name)
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


@cache
def load_fashion(split: str) -> Fashion:
    """The 60,000 photographs of split "train" or the 10,000 of split "test".

    Raises ValueError for another split, `DataFileError` for a missing, truncated or altered file.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}.')
    images = torch.from_numpy(_read_idx(split, "images").copy())
    labels = torch.from_numpy(_read_idx(split, "labels").astype(np.int64))
    return Fashion(images, labels)
