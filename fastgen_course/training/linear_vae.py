"""The linear VAE against its closed form: probabilistic PCA, collapse, rate and distortion.

For p(x|z) = N(W z + b, sigma^2 I), z ~ N(0, I), and data with covariance eigenvalues lambda_i, the
best decoder has columns u_i sqrt(lambda_i - sigma^2) along the eigenvectors u_i, and a direction
with lambda_i <= sigma^2 is not used at all (Tipping and Bishop 1999, section 3; Lucas et al.
2019, theorem 1, for the VAE with a diagonal encoder). With a weight beta on the KL the same holds
with beta sigma^2 in the place of sigma^2, and each used direction then costs
log(lambda_i / (beta sigma^2)) / 2 nats and leaves the error beta sigma^2: Shannon's
rate-distortion function of a Gaussian, met exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastgen_course.models.vae import LinearVAE
from fastgen_course.training.elbo import LOG_2PI, elbo_terms, kl_divergence


class Spectrum(NamedTuple):
    """Eigenvalues (F,) in falling order and eigenvectors (F, F) in columns of a covariance."""

    values: Tensor
    vectors: Tensor


class RateDistortion(NamedTuple):
    """Rate in nats an image, and squared error an image (summed over pixels)."""

    rate: float
    distortion: float


def spectrum(x: Tensor) -> Spectrum:
    """Spectrum of the (biased, 1/N) covariance of x (N, F), computed in float64."""
    x = x.to(torch.float64)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return Spectrum(values.flip(0).clamp(min=0), vectors.flip(1))


def expected_elbo(model: LinearVAE, covariance: Tensor, beta: float = 1.0) -> Tensor:
    """The linear VAE's ELBO averaged over all data and all noise, in nats: a scalar, no sampling.

    covariance: (F, F) of the centred data. With beta != 1 the KL is weighted.
    """
    w, v = model.decoder_weight, model.encoder_weight
    codes = v @ covariance @ v.T  # covariance of mu(x)
    variance = model.logvar.exp()
    error = (
        covariance.trace()
        - 2.0 * (w.T @ (covariance @ v.T)).trace()
        + (w.T @ w * (codes + torch.diag(variance))).sum()
    )
    log_likelihood = -0.5 * (
        len(covariance) * (LOG_2PI + model.sigma2.log()) + error / model.sigma2
    )
    kl = 0.5 * (codes.trace() + (variance - model.logvar - 1.0).sum())
    return log_likelihood - beta * kl


def train_linear_vae(
    model: LinearVAE, covariance: Tensor, *, beta: float = 1.0, steps: int = 400
) -> list[float]:
    """Maximise `expected_elbo` with L-BFGS; returns its value after each step, in nats.

    Nothing in the training knows about eigenvectors. Stops early once the ELBO has stopped moving.
    """
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=10,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=0.0,
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -expected_elbo(model, covariance, beta)
        loss.backward()
        return loss

    values: list[float] = []
    for _ in range(steps):
        optimiser.step(closure)
        with torch.no_grad():
            values.append(expected_elbo(model, covariance, beta).item())
        if len(values) > 20 and abs(values[-1] - values[-20]) < 1e-8 * abs(values[-1]):
            break
    return values


def ppca_optimum(data: Spectrum, mean: Tensor, latent: int, sigma2: float) -> LinearVAE:
    """The closed-form best linear VAE: probabilistic PCA with a fixed sigma2.

    Column i is u_i sqrt(max(lambda_i - sigma2, 0)); encoder and variances are the exact posterior.
    """
    model = LinearVAE(len(data.values), latent, sigma2, mean)
    top = data.values[:latent]
    scale = (top - sigma2).clamp(min=0).sqrt()
    size = scale**2 + sigma2  # the diagonal of M = W^T W + sigma2 I
    model.decoder_weight.data = data.vectors[:, :latent] * scale
    model.encoder_weight.data = (data.vectors[:, :latent] * (scale / size)).T.contiguous()
    model.logvar.data = (sigma2 / size).log()
    return model


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles between the column spaces of two (F, k) matrices, in degrees, largest first.

    Found from sines, which keep their precision near zero (Bjorck and Golub 1973).
    """
    a = torch.linalg.qr(first).Q
    b = torch.linalg.qr(second).Q
    sines = torch.linalg.svdvals(b - a @ (a.T @ b)).clamp(max=1.0)
    return torch.rad2deg(torch.asin(sines))


def kl_per_latent(model: LinearVAE, covariance: Tensor) -> Tensor:
    """KL(q(z_i|x) || N(0, 1)) averaged over the data: (latent,), in nats."""
    v = model.encoder_weight
    codes = (v @ covariance @ v.T).diagonal()
    return 0.5 * (codes + model.logvar.exp() - model.logvar - 1.0)


def measured_rate_distortion(model: LinearVAE, covariance: Tensor) -> RateDistortion:
    """Mean rate (nats) and mean squared error through a sampled latent, of a trained model."""
    with torch.no_grad():
        rate = kl_per_latent(model, covariance).sum().item()
        log_likelihood = expected_elbo(model, covariance, beta=0.0).item()
    variance = model.sigma2.item()
    error = -2.0 * log_likelihood - len(covariance) * (LOG_2PI + math.log(variance))
    return RateDistortion(rate, error * variance)


def shannon_rate_distortion(values: Tensor, level: float) -> RateDistortion:
    """Shannon's R(D) of a Gaussian with these variances, by reverse water-filling.

    Each direction keeps the error min(level, lambda_i) and costs max(0, log(lambda_i / level)) / 2
    nats (Cover and Thomas, theorem 10.3.3).
    """
    if level <= 0:
        raise ValueError(f"the water level is a variance and must be positive, got {level}")
    used = values[values > level]
    return RateDistortion(
        float(0.5 * (used / level).log().sum()), float(values.clamp(max=level).sum())
    )


def quadrature_noise(latent: int, nodes: int = 3) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite noise (nodes^latent, latent) and weights (nodes^latent,) for N(0, I).

    A weighted sum over them equals the expectation exactly for polynomials up to degree
    2 nodes - 1 in each number: log densities of linear-Gaussian models have degree 2.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    grid = torch.tensor(
        list(itertools.product(points.tolist(), repeat=latent)), dtype=torch.float64
    )
    mass = torch.tensor(
        list(itertools.product(weights.tolist(), repeat=latent)), dtype=torch.float64
    ).prod(1)
    return grid, mass


def exact_elbo(model: LinearVAE, x: Tensor, kl: Callable = kl_divergence) -> Tensor:
    """The ELBO of each x (N,), in nats, through the course's own `elbo_terms` (which trains every
    VAE here), its expectation over the noise taken by quadrature instead of one sample."""
    noise, mass = quadrature_noise(model.logvar.numel())
    total = torch.zeros(len(x), dtype=torch.float64)
    for eps, weight in zip(noise, mass, strict=True):
        total += weight * elbo_terms(model, x, eps.expand(len(x), -1), kl=kl).elbo
    return total


def posterior_kl(model: LinearVAE, x: Tensor) -> Tensor:
    """KL(q(z|x) || p(z|x)) of each x (N,), in nats, from the exact posterior of the model."""
    mu, logvar = model.encode(x)
    mean, covariance = model.posterior(x)
    precision = torch.linalg.inv(covariance)
    difference = mu - mean
    quadratic = torch.einsum("ni,ij,nj->n", difference, precision, difference)
    trace = (precision.diagonal() * logvar.exp()).sum(1)
    return 0.5 * (quadratic + trace - mu.shape[1] + torch.logdet(covariance) - logvar.sum(1))


def elbo_gap_error(model: LinearVAE, x: Tensor) -> Tensor:
    """|(log p(x) - ELBO) - KL(q || posterior)| of each x (N,), in nats: zero but for rounding."""
    with torch.no_grad():
        gap = model.log_marginal(x) - exact_elbo(model, x)
        return (gap - posterior_kl(model, x)).abs()
