"""The evidence lower bound in pieces, each a small function that a reader can replace.

All values are in nats, one per image: sums over pixels and latents, never means, because a mean
over D pixels and d latents silently multiplies beta by D / d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)

#: kl(mu, logvar) -> KL to N(0, 1) per latent, same shape as mu; a model with captions also hands
#: over its prior: kl(mu, logvar, prior_mu, prior_logvar).
KLFunction = Callable[..., Tensor]
#: log_likelihood(x, mean, sigma) -> (B,), in nats.
LikelihoodFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
#: reparameterise(mu, logvar, noise) -> z, same shape as mu.
SampleFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def reparameterise(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu + exp(logvar / 2) * noise: a sample of N(mu, exp(logvar)) with a gradient.

    All three of one shape; noise ~ N(0, I). The standard deviation is exp(logvar / 2): the
    variance is exp(logvar). (Kingma and Welling 2014, section 2.4.)
    """
    return mu + (0.5 * logvar).exp() * noise


def use_mean(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu, no sampling: turns the VAE into a plain autoencoder (a slip, kept to show it)."""
    return mu


def kl_divergence(
    mu: Tensor, logvar: Tensor, prior_mu: Tensor | None = None, prior_logvar: Tensor | None = None
) -> Tensor:
    """KL(N(mu, exp logvar) || N(prior_mu, exp prior_logvar)) per latent, in nats, closed form.

    All of one shape; the result keeps it. Without a prior: N(0, 1), that is
    (mu^2 + sigma^2 - log sigma^2 - 1) / 2 (Kingma and Welling 2014, appendix B).
    """
    if prior_mu is None or prior_logvar is None:
        return 0.5 * (mu**2 + logvar.exp() - logvar - 1.0)
    difference = (mu - prior_mu) ** 2 * (-prior_logvar).exp()
    return 0.5 * (difference + (logvar - prior_logvar).exp() - (logvar - prior_logvar) - 1.0)


def log_normal(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mu, exp logvar) per element, in nats; the shapes broadcast."""
    return -0.5 * (LOG_2PI + logvar + (x - mu) ** 2 * (-logvar).exp())


def gaussian_log_likelihood(x: Tensor, mean: Tensor, sigma: Tensor | float) -> Tensor:
    """log N(x; mean, sigma^2 I) summed over all dimensions but the first, in nats: (B,).

    x, mean: (B, ...); sigma: the standard deviation, one positive number for all pixels.
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return log_normal(x, mean, 2.0 * sigma.log()).flatten(1).sum(1)


@dataclass
class ElboTerms:
    """The ELBO of a batch: log_likelihood (B,), kl (B, latent), mse (), beta; nats per image."""

    log_likelihood: Tensor
    kl: Tensor
    mse: Tensor
    beta: float

    @property
    def rate(self) -> Tensor:
        """KL(q || prior) of each image, (B,), in nats."""
        return self.kl.sum(1)

    @property
    def elbo(self) -> Tensor:
        """log-likelihood - KL of each image (B,): the bound itself, with beta = 1."""
        return self.log_likelihood - self.rate

    @property
    def loss(self) -> Tensor:
        """What is minimised: the batch mean of -(log-likelihood - beta KL)."""
        return (self.beta * self.rate - self.log_likelihood).mean()


def elbo_terms(
    model,
    x: Tensor,
    noise: Tensor,
    words: Tensor | None = None,
    *,
    beta: float = 1.0,
    kl: KLFunction = kl_divergence,
    sample: SampleFunction = reparameterise,
    log_likelihood: LikelihoodFunction = gaussian_log_likelihood,
) -> ElboTerms:
    """One-sample estimate of the ELBO of a batch under a VAE (or a LinearVAE).

    x: (B, ...) images; noise: (B, latent) from N(0, I); words: (B, W) for a model with captions;
    beta weighs the KL (Higgins et al. 2017); kl, sample and log_likelihood are the pieces that a
    reader writes.
    """
    mu, logvar = model.encode(x)
    z = sample(mu, logvar, noise)
    mean = model.decode(z, words)
    prior = model.prior(mu, words)
    return ElboTerms(
        log_likelihood=log_likelihood(x, mean, model.sigma),
        kl=kl(mu, logvar) if words is None else kl(mu, logvar, *prior),
        mse=(mean - x).pow(2).mean(),
        beta=beta,
    )


def importance_log_marginal(model, x: Tensor, noise: Tensor, words: Tensor | None = None) -> Tensor:
    """log p(x) from below with K importance samples: (B,), in nats.

    noise: (K, B, latent). log (1/K) sum_k p(x, z_k) / q(z_k|x) (Burda et al. 2016, equation 8);
    K = 1 is a one-sample ELBO, and its mean grows towards log p(x) with K.
    """
    mu, logvar = model.encode(x)
    prior_mu, prior_logvar = model.prior(mu, words)
    weights = []
    for eps in noise:  # one pass a sample keeps memory at one batch
        z = reparameterise(mu, logvar, eps)
        log_joint = gaussian_log_likelihood(x, model.decode(z, words), model.sigma)
        log_joint = log_joint + log_normal(z, prior_mu, prior_logvar).sum(1)
        weights.append(log_joint - log_normal(z, mu, logvar).sum(1))
    return torch.logsumexp(torch.stack(weights), dim=0) - math.log(len(noise))
