"""What everything is compared with: one fixed caption list and real images for its captions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastgen_course.datasets.captions import EMPTY, FREE, Attributes, attributes_of, labels_of
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import draw_captions, draw_labels
from fastgen_course.files import atomic_write
from fastgen_course.metrics.checks import MetricError
from fastgen_course.metrics.features import judge_features, report_judge

CAPTIONS = 10_000
HELD_OUT_CAPTIONS = 2_000
_SEEDS = {"captions": 20_260, "held out": 20_261, "reference": 20_262}
_WORDING_SEED = 20_263


@cache
def _fixed_labels(which: str) -> Tensor:
    generator = torch.Generator().manual_seed(_SEEDS[which])
    return draw_labels(CAPTIONS, generator, held_out=which == "held out")


def caption_list(n: int = CAPTIONS) -> list[Attributes]:
    """The first `n` of the one fixed list of 10,000 captions that every FID is measured on.

    Drawn as training captions are (no held-out combination, one scene in twenty empty), every
    slot asked for. Raises MetricError for n outside 1 to 10,000.
    """
    return attributes_of(_fixed_labels("captions")[: _checked_count(n)])


def heldout_list(n: int = HELD_OUT_CAPTIONS) -> list[Attributes]:
    """The first `n` of a fixed list of held-out combinations (see `caption_list`)."""
    return attributes_of(_fixed_labels("held out")[: _checked_count(n)])


def caption_texts(attributes: Sequence[Attributes]) -> list[str]:
    """A caption for each, in the training captions' mixture of patterns and synonyms.

    The wording is fixed: the same list of attributes gives the same texts.
    """
    return draw_captions(labels_of(attributes), torch.Generator().manual_seed(_WORDING_SEED))


def _checked_count(n: int) -> int:
    if not 1 <= n <= CAPTIONS:
        raise MetricError(f"n = {n} captions: the fixed list has {CAPTIONS:,}, ask for 1 to that.")
    return n


def _complete(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Fill the free slots of labels (B, 5), as the training captions would."""
    labels = labels.clone()
    scene = labels[:, 2] != EMPTY
    drawn = draw_labels(len(labels), generator)
    while (lost := drawn[:, 2] == EMPTY).any():  # a free garment is a garment, not an empty scene
        drawn[lost] = draw_labels(int(lost.sum()), generator)
    free = labels == FREE
    free[:, [0, 1, 2, 4]] &= scene[:, None]
    return torch.where(free, drawn, labels)


def _photo_rows(garments: Tensor, split: str, generator: torch.Generator) -> Tensor:
    """Rows (B,) of the split's photos whose class is asked for, none used twice before it must."""
    classes = load_fashion(split).labels
    rows = torch.zeros(len(garments), dtype=torch.int64)
    for garment in garments[garments != EMPTY].unique().tolist():
        here = (garments == garment).nonzero()[:, 0]
        pool = (classes == garment).nonzero()[:, 0]
        rounds = -(-len(here) // len(pool))
        order = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(rounds)]
        rows[here] = torch.cat(order)[: len(here)]
    return rows


def real_images(
    split: str, attributes: Sequence[Attributes] | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Real images (B, 3, 28, 28) in [-1, 1]: photos of the split composed as the captions ask.

    `split` is "train" or "test"; `attributes` a list or labels (B, 5). A slot that a caption leaves
    free is drawn. Without a generator a fixed one is used. Raises MetricError for no captions.
    """
    labels = attributes if isinstance(attributes, Tensor) else labels_of(attributes)
    if len(labels) == 0:
        raise MetricError("attributes is empty: ask for at least one real image.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    labels = _complete(labels, generator)
    photos = load_fashion(split).images[_photo_rows(labels[:, 2], split, generator)]
    parts = zip(photos.split(1000), labels.split(1000), strict=True)
    return torch.cat([compose(part, y).images for part, y in parts])


def uniform_noise(n: int, generator: torch.Generator) -> Tensor:
    """Images (n, 3, 28, 28) of independent uniform values in [-1, 1]: the worst anyone would do."""
    return torch.rand(n, 3, 28, 28, generator=generator) * 2 - 1


def reference_images(split: str = "test", n: int = CAPTIONS) -> Tensor:
    """The reference of every FID: `n` real images (n, 3, 28, 28) of captions of their own.

    Their captions are drawn as those of `caption_list` are, independently: FID compares two
    independent samples. With the same captions on both sides the attributes' sampling noise
    would cancel, and the floor would be several times lower than any generator's bias at that N.
    """
    return real_images(split, _fixed_labels("reference")[: _checked_count(n)])


def reference_features(
    split: str = "test", n: int = CAPTIONS, *, judge: nn.Module | None = None
) -> Tensor:
    """Judge features (n, F) of `reference_images(split, n)`, to pass to `fid` in their place.

    Kept in a cache folder of the user's (FASTGEN_CACHE chooses another), keyed by the images and
    the judge's weights, because the judge needs seconds for 10,000 images.
    """
    judge = report_judge() if judge is None else judge
    images = reference_images(split, n)
    path = cache_dir() / "features" / f"{_digest(images, judge)}.safetensors"
    try:
        return load_file(path)["features"]
    except (OSError, SafetensorError, KeyError):  # absent or damaged: compute it (again)
        features = judge_features(images, judge)
    try:
        with atomic_write(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)
    except OSError:
        pass  # a cache that cannot be written costs seconds, never the result
    return features


def cache_dir() -> Path:
    """FASTGEN_CACHE, or the operating system's cache folder for this package."""
    import pooch

    return Path(os.environ.get("FASTGEN_CACHE") or pooch.os_cache("fastgen_course"))


def _digest(images: Tensor, judge: nn.Module) -> str:
    digest = hashlib.sha256(images.numpy().tobytes())
    for name, tensor in sorted(judge.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
