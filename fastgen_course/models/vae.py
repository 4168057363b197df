"""Variational autoencoders: a small convolutional one for digits and fashion, and a linear one.

The convolutional VAE (Kingma and Welling 2014) has three parts:

* an encoder q(z|x) = N(mu(x), diag exp(logvar(x))),
* a decoder p(x|z) = N(decode(z), sigma^2 I) with one learned standard deviation sigma,
* a prior p(z), or p(z|y) when the model knows captions.

**Where the caption enters.** The encoder of ``VAE_FASHION`` never sees it; its prior
N(mu_p(y), diag exp(logvar_p(y))) and its decoder do (the conditional VAE of Sohn, Lee and Yan
2015). Three uses follow from one training:

* a picture from a caption is one draw from the prior and one decoder pass;
* the latent is a plain vector of 64 numbers, so that a stronger prior (a flow, notebook 08) can
  take the Gaussian's place while encoder and decoder stay as they are;
* what the caption already says costs no rate: KL(q(z|x) || p(z|y)) charges only the rest, so z
  describes *this* garment, and another caption with the same z edits the picture.

A first trial left the caption out of the decoder: after 1,000 steps its prior drew the asked-for
colour in 47 % of the pictures, since colour, too, had to pass through a Gaussian.

The latent is a vector rather than a 7x7 map because a diagonal Gaussian draws all its numbers
independently: independent cells of a map would each draw a piece of a different garment.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import VOCABULARY
from fastgen_course.models.generator import CaptionEncoder

#: Log-variances are clamped to this range, so that exp() neither overflows nor reaches zero.
LOGVAR_RANGE = (-12.0, 6.0)


@dataclass(frozen=True)
class VAEConfig:
    """Shape of a convolutional VAE on 28x28 images.

    channels: image channels (1 digits, 3 captioned fashion); latent: length of z;
    widths: feature channels at 14x14, at 7x7 and of the dense 7x7 block;
    vocabulary: number of caption words including padding 0 (0: no captions, the prior is N(0, I));
    caption: length of the caption vector; sigma: the decoder's initial standard deviation.
    """

    channels: int = 1
    latent: int = 32
    widths: tuple[int, int, int] = (32, 64, 64)
    vocabulary: int = 0
    caption: int = 96
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if min(self.channels, self.latent, *self.widths) < 1:
            raise ValueError("a VAE needs at least one channel, one latent and one feature a layer")
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")

    def to_dict(self) -> dict:
        """The configuration as plain JSON values (for a checkpoint's card)."""
        return asdict(self)


class ConvVAE(nn.Module):
    """A convolutional VAE on images (B, C, 28, 28) in [-1, 1] with a vector latent (B, latent)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        first, second, dense = config.widths
        self.encoder = nn.Sequential(
            nn.Conv2d(config.channels, first, 4, stride=2, padding=1),  # (B, first, 14, 14)
            nn.SiLU(),
            nn.Conv2d(first, second, 4, stride=2, padding=1, bias=False),  # (B, second, 7, 7)
            nn.BatchNorm2d(second),
            nn.SiLU(),
            nn.Conv2d(second, dense, 3, padding=1, bias=False),  # (B, dense, 7, 7)
            nn.BatchNorm2d(dense),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(dense * 49, 2 * config.latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latent + (config.caption if config.vocabulary else 0), dense * 49),
            nn.SiLU(),
            nn.Unflatten(1, (dense, 7, 7)),
            nn.Conv2d(dense, second, 3, padding=1, bias=False),  # (B, second, 7, 7)
            nn.BatchNorm2d(second),
            nn.SiLU(),
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.BatchNorm2d(first),
            nn.SiLU(),
            nn.ConvTranspose2d(first, first // 2, 4, stride=2, padding=1),  # 28x28
            nn.SiLU(),
            nn.Conv2d(first // 2, config.channels, 3, padding=1),
            nn.Tanh(),
        )
        self.caption_encoder = self.caption_prior = None
        if config.vocabulary:
            self.caption_encoder = CaptionEncoder(config.caption, config.vocabulary)
            self.caption_prior = nn.Sequential(
                nn.Linear(config.caption, config.caption),
                nn.SiLU(),
                nn.Linear(config.caption, 2 * config.latent),
            )
            nn.init.zeros_(self.caption_prior[-1].weight)  # training starts from N(0, I)
            nn.init.zeros_(self.caption_prior[-1].bias)
        self.log_sigma = nn.Parameter(torch.tensor(config.sigma).log())

    @property
    def sigma(self) -> Tensor:
        """The decoder's standard deviation, a scalar in pixel units (black to white is 2)."""
        return self.log_sigma.exp()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x): images (B, C, 28, 28) -> mu (B, latent), logvar (B, latent)."""
        expected = (self.config.channels, 28, 28)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"the encoder needs images of shape (B, {expected[0]}, 28, 28), "
                f"got {tuple(images.shape)}"
            )
        mu, logvar = self.encoder(images).chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def read(self, words: Tensor | None) -> Tensor | None:
        """Words (B, W) int64 to caption vectors (B, caption); None for a model without captions."""
        if self.caption_encoder is None:
            return None
        if words is None:
            raise ValueError("this VAE draws from captions: give it words, shape (B, W)")
        return self.caption_encoder(words)

    def decode(self, z: Tensor, words: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y): z (B, latent), words (B, W) -> images (B, C, 28, 28) in [-1, 1].

        A model without captions ignores the words.
        """
        if z.ndim != 2 or z.shape[1] != self.config.latent:
            raise ValueError(
                f"the decoder needs latents of shape (B, {self.config.latent}), "
                f"got {tuple(z.shape)}"
            )
        caption = self.read(words)
        return self.decoder(z if caption is None else torch.cat([z, caption], dim=1))

    def prior(self, like: Tensor, words: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, latent) of p(z|y), or of N(0, I) for a model without captions.

        like: any tensor with the wanted shape (B, latent), dtype and device. words: (B, W) int64.
        """
        caption = self.read(words)
        if caption is None:
            return torch.zeros_like(like), torch.zeros_like(like)
        mu, logvar = self.caption_prior(caption).chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def forward(self, images: Tensor, noise: Tensor, words: Tensor | None = None) -> Tensor:
        """Reconstruct through a sampled latent: images (B, C, 28, 28), noise (B, latent)."""
        mu, logvar = self.encode(images)
        return self.decode(mu + (0.5 * logvar).exp() * noise, words)


class LinearVAE(nn.Module):
    """The linear-Gaussian VAE, whose optimum is probabilistic PCA.

    Decoder p(x|z) = N(W z + b, sigma^2 I); encoder q(z|x) = N(V (x - b), diag d), with one d for
    all x; prior N(0, I). (Tipping and Bishop 1999; Lucas et al. 2019, "Don't blame the ELBO!".)
    x: (N, features), z: (N, latent). b is the data mean, which is its maximum-likelihood value.
    """

    def __init__(self, features: int, latent: int, sigma2: float, mean: Tensor | None = None):
        super().__init__()
        if sigma2 <= 0:
            raise ValueError(f"sigma2 is a variance and must be positive, got {sigma2}")
        self.decoder_weight = nn.Parameter(torch.zeros(features, latent, dtype=torch.float64))
        self.encoder_weight = nn.Parameter(torch.zeros(latent, features, dtype=torch.float64))
        self.logvar = nn.Parameter(torch.zeros(latent, dtype=torch.float64))
        mean = torch.zeros(features) if mean is None else mean
        self.register_buffer("mean", mean.to(torch.float64))
        self.register_buffer("sigma2", torch.tensor(float(sigma2), dtype=torch.float64))

    def initialise(self, generator: torch.Generator, scale: float = 0.1) -> LinearVAE:
        """Fill both weights with N(0, scale^2) from the generator; returns the model."""
        for weight in (self.decoder_weight, self.encoder_weight):
            draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.data.copy_(scale * draw)
        return self

    @property
    def sigma(self) -> Tensor:
        """The decoder's standard deviation (a scalar)."""
        return self.sigma2.sqrt()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x): x (N, features) -> mu (N, latent), logvar (N, latent)."""
        mu = (x - self.mean) @ self.encoder_weight.T
        return mu, self.logvar.expand_as(mu)

    def decode(self, z: Tensor, words: Tensor | None = None) -> Tensor:
        """The mean of p(x|z): z (..., latent) -> (..., features); words are ignored."""
        return z @ self.decoder_weight.T + self.mean

    def prior(self, like: Tensor, words: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of N(0, I), shaped like `like`; words are ignored."""
        return torch.zeros_like(like), torch.zeros_like(like)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Reconstruct through a sampled latent: x (N, features), noise (N, latent)."""
        mu, logvar = self.encode(x)
        return self.decode(mu + (0.5 * logvar).exp() * noise)

    def log_marginal(self, x: Tensor) -> Tensor:
        """Exact log p(x) (N,) in nats: p(x) = N(b, W W^T + sigma^2 I)."""
        w = self.decoder_weight
        covariance = w @ w.T + self.sigma2 * torch.eye(len(w), dtype=w.dtype, device=w.device)
        return torch.distributions.MultivariateNormal(self.mean, covariance).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Exact p(z|x): mean (N, latent) and covariance (latent, latent).

        With M = W^T W + sigma^2 I: mean M^-1 W^T (x - b), covariance sigma^2 M^-1
        (Tipping and Bishop 1999, equation 7).
        """
        w = self.decoder_weight
        m = w.T @ w + self.sigma2 * torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
        inverse = torch.linalg.inv(m)
        return (x - self.mean) @ w @ inverse.T, self.sigma2 * inverse


#: The warm-up VAE of notebook 02: 28x28 digits, no captions.
VAE_DIGITS = VAEConfig(channels=1, latent=32, widths=(24, 48, 48), sigma=0.25)

#: Captioned fashion, 3x28x28: the caption enters the prior and the decoder.
VAE_FASHION = VAEConfig(
    channels=3, latent=64, widths=(32, 64, 64), vocabulary=len(VOCABULARY), sigma=0.3
)

#: For tests: the same code in a few thousand parameters.
VAE_TINY = VAEConfig(channels=3, latent=4, widths=(4, 4, 4), vocabulary=len(VOCABULARY), caption=8)
