"""One-step sampling: a caption and noise in, a picture out, in a single forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import parse
from fastgen_course.sampling.checks import checked_words
from fastgen_course.show import to_uint8

CHUNK = 256


@torch.no_grad()
def sample_generator(
    model: nn.Module,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Draw one picture a caption with a one-step generator (Goodfellow et al. 2014, conditional).

    Args:
        model: `model(noise, words) -> images`, with `config.noise` dimensions of noise. Used in
            eval mode; its mode is put back afterwards.
        captions: texts, or their words int64 (B, L) from `encode_words`.
        noise: standard normal (B, config.noise); drawn from `generator` when not given.
        generator: the source of randomness (CPU); None takes torch's own.
        chunk: pictures drawn at once, which bounds the memory.

    Returns:
        Images (B, 3, 28, 28) in [-1, 1] on the model's device.

    Raises `CaptionError` for an empty, overlong or unknown caption, and ValueError for a batch of
    zero, words or noise of another shape, noise that is not finite, or a chunk below 1.
    """
    words = checked_words(captions)
    wanted = (len(words), model.config.noise)
    if noise is None:
        noise = torch.randn(wanted, generator=generator)
    elif tuple(noise.shape) != wanted or not noise.is_floating_point():
        raise ValueError(
            f"noise must be floats of shape {wanted}, one row a caption; "
            f"got {noise.dtype} {tuple(noise.shape)}."
        )
    elif not torch.isfinite(noise).all():
        raise ValueError("the noise holds NaN or infinity; draw it with torch.randn.")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 picture, got {chunk}.")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        parts = zip(noise.split(chunk), words.split(chunk), strict=True)
        return torch.cat([model(z.to(device), y.to(device)) for z, y in parts])
    finally:
        model.train(training)


def draw(caption: str, seed: int = 0, model: nn.Module | None = None) -> np.ndarray:
    """Draw `caption`: uint8 (28, 28, 3). Another seed gives another picture of the same caption.

    `model` is any one-step generator; None takes the shipped GENERATOR_BASE, loaded once. Raises
    `CaptionError` for a caption that the grammar does not understand, `DataFileError` when the
    weights are missing or damaged.
    """
    parse(caption)  # refuses what the words alone would let through: a red blue coat
    model = base_generator() if model is None else model
    generator = torch.Generator().manual_seed(seed)
    return to_uint8(sample_generator(model, [caption], generator=generator))[0]


@lru_cache(maxsize=1)
def base_generator() -> nn.Module:
    """GENERATOR_BASE with its shipped weights, in eval mode; loaded once."""
    return load_model("generator_base")
