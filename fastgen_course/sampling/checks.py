"""What every sampler refuses, in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.datasets.captions import encode_words


def checked_words(captions: Sequence[str] | Tensor) -> Tensor:
    """Captions, or their words already, as words int64 (B, L).

    Raises `CaptionError` for texts that cannot be read, ValueError for a tensor that is not words
    or for a batch of zero.
    """
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, Tensor):
        return encode_words(captions)
    if captions.ndim != 2 or captions.dtype != torch.int64:
        raise ValueError(
            "words must be int64 of shape (B, L), as encode_words makes them; "
            f"got {captions.dtype} {tuple(captions.shape)}."
        )
    if len(captions) == 0:
        raise ValueError("the batch holds zero captions; give at least one.")
    return captions


def checked_noise(
    noise: Tensor | None, shape: tuple[int, int], generator: torch.Generator | None
) -> Tensor:
    """Uniform numbers in [0, 1) of `shape`: those given, or drawn from `generator`.

    Raises ValueError for another shape or numbers outside [0, 1).
    """
    if noise is None:
        return torch.rand(shape, generator=generator)
    if tuple(noise.shape) != shape or not noise.is_floating_point():
        raise ValueError(
            f"noise must be floats of shape {shape}, one a token; "
            f"got {noise.dtype} {tuple(noise.shape)}."
        )
    if not ((noise >= 0) & (noise < 1)).all():
        raise ValueError("the noise must lie in [0, 1); draw it with torch.rand.")
    return noise
