"""Draw from a VAE: pictures from captions, reconstructions, latent traversals and latent edits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.vae import ConvVAE


def _words(model: ConvVAE, captions: Sequence[str] | Tensor) -> Tensor:
    if isinstance(captions, str):
        captions = [captions]
    words = captions if isinstance(captions, Tensor) else encode_words(captions)
    return words.to(model.log_sigma.device)


@torch.inference_mode()
def sample_vae(
    model: ConvVAE,
    captions: Sequence[str] | Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    n: int | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Draw z from the prior and decode it: one picture a caption (ancestral sampling).

    Args:
        model: a ConvVAE in eval mode.
        captions: texts, or their words (B, W) int64; None for a model without captions.
        noise: (B, latent) from N(0, I); drawn from `generator` when not given.
        generator: a CPU generator.
        n: how many pictures of a model without captions (when no noise is given).
        temperature: scales the prior's standard deviation; 0 draws the prior's mean.

    Returns:
        The means of p(x|z), (B, C, 28, 28) in [-1, 1]. (Adding the decoder's own noise, sigma a
        pixel, would complete the sample of p(x); it is left out, as is usual.)

    Raises ValueError for a batch of zero or noise of another shape; CaptionError for a caption.
    """
    words = None if captions is None else _words(model, captions)
    batch = n if words is None else len(words)
    if batch is None:
        batch = 0 if noise is None else len(noise)
    if batch < 1:
        raise ValueError("sample_vae needs at least one picture: give captions, noise or n.")
    shape = (batch, model.config.latent)
    if noise is None:
        noise = torch.randn(shape, generator=generator)
    if tuple(noise.shape) != shape:
        raise ValueError(f"sample_vae needs noise of shape {shape}, got {tuple(noise.shape)}.")
    noise = noise.to(model.log_sigma)
    mu, logvar = model.prior(noise, words)
    return model.decode(mu + temperature * (0.5 * logvar).exp() * noise, words)


@torch.inference_mode()
def reconstruct(
    model: ConvVAE,
    images: Tensor,
    captions: Sequence[str] | Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Encode and decode images (B, C, 28, 28); through mu, or through a sample when given noise."""
    mu, logvar = model.encode(images)
    z = mu if noise is None else mu + (0.5 * logvar).exp() * noise
    return model.decode(z, None if captions is None else _words(model, captions))


@torch.inference_mode()
def traverse(
    model: ConvVAE,
    z: Tensor,
    index: int,
    values: Sequence[float],
    captions: Sequence[str] | Tensor | None = None,
) -> Tensor:
    """Decode z (latent,) with its number `index` set to each of the values: (len, C, 28, 28).

    captions: one, for a model with captions.
    """
    if not 0 <= index < model.config.latent:
        raise ValueError(
            f"latent {index} does not exist: the model has {model.config.latent}, from 0."
        )
    rows = z.repeat(len(values), 1)
    rows[:, index] = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    words = None if captions is None else _words(model, captions).expand(len(values), -1)
    return model.decode(rows, words)


@torch.inference_mode()
def edit_latent(
    model: ConvVAE, images: Tensor, before: Sequence[str] | Tensor, after: Sequence[str] | Tensor
) -> Tensor:
    """Change what the caption says and keep the rest: images (B, 3, 28, 28) to edited images.

    The latent is expressed in standard deviations from the prior of the old caption, put at the
    same place of the new caption's prior, z' = mu' + sigma' (z - mu) / sigma, and decoded with it.
    """
    z, _ = model.encode(images)
    mu, logvar = model.prior(z, _words(model, before))
    words = _words(model, after)
    new_mu, new_logvar = model.prior(z, words)
    return model.decode(new_mu + (0.5 * (new_logvar - logvar)).exp() * (z - mu), words)
