"""The exercises of notebook 02: the pieces of the ELBO, collapse, and one prediction."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.show import PALETTE
from fastgen_course.training.elbo import reparameterise


def _yours_and_ours(yours, ours, x, arguments, x_label: str, y_label: str) -> Figure:
    fig, axis = plt.subplots(figsize=(5.2, 2.6))
    for fn, name, colour, line in (
        (ours, "ours", PALETTE[0], "-"),
        (yours, "yours", PALETTE[1], "--"),
    ):
        axis.plot(x, fn(*arguments).detach(), line, color=colour, label=name)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.legend()
    return fig


# --- the closed-form KL -------------------------------------------------------------------------


def kl_divergence(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) per latent, in nats; all of one shape."""
    return 0.5 * (mu**2 + logvar.exp() - logvar - 1.0)


def _draw_kl(yours, ours) -> Figure:
    variance = torch.linspace(0.1, 2.5, 60)
    arguments = (torch.zeros_like(variance), variance.log())
    return _yours_and_ours(
        yours, ours, variance, arguments, "variance of q, its mean 0", "KL in nats"
    )


def _gaussian_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.tensor([0.0]), torch.tensor([math.log(4.0)])
    yield torch.tensor([1.5]), torch.tensor([0.0])
    yield tuple(torch.randn(2, 6, 4, generator=generator))


register_exercise(
    "vae.kl_divergence",
    title="The KL term in closed form",
    difficulty=2,
    minutes=8,
    reference=kl_divergence,
    inputs=_gaussian_inputs,
    wrong={
        "a sample's square for the mean's": (
            lambda mu, logvar: 0.5 * (mu**2 + 2.0 * logvar.exp() - logvar - 1.0),
            "On average this is what z^2 in place of mu^2 gives: E[z^2] = mu^2 + sigma^2 counts "
            "sigma^2 a second time, and the best variance becomes 1/2 instead of 1.",
        ),
        "logvar as log sigma": (
            lambda mu, logvar: 0.5 * (mu**2 + (2.0 * logvar).exp() - 2.0 * logvar - 1.0),
            "logvar is log sigma^2: the variance is exp(logvar), not exp(2 logvar).",
        ),
        "the other direction": (
            lambda mu, logvar: 0.5 * ((1.0 + mu**2) * (-logvar).exp() + logvar - 1.0),
            "That is KL(N(0, 1) || q). The ELBO has q first: the average is taken over q.",
        ),
        "summed over the latents": (
            lambda mu, logvar: kl_divergence(mu, logvar).sum(-1),
            "The formula is right, and the ELBO needs this sum; but here each latent is asked for "
            "apart, because the notebook wants to see which are dead.",
        ),
        "the mean left out": (
            lambda mu, logvar: 0.5 * (logvar.exp() - logvar - 1.0),
            "A q with variance 1 far from 0 is not the prior: where does mu enter?",
        ),
    },
    hints=(
        "Write E_q[log q(z) - log p(z)]. Both logs are quadratic in z, so E[z] = mu and "
        "E[z^2] = mu^2 + sigma^2 are all you need.",
        "E_q[log q] = -(1 + log sigma^2 + log 2 pi) / 2 and "
        "E_q[log p] = -(mu^2 + sigma^2 + log 2 pi) / 2. Subtract.",
    ),
    check_gradients=True,
    draw=_draw_kl,
    alt="The KL divergence against the variance of q, your function beside the reference",
)


# --- reparameterisation -------------------------------------------------------------------------


def _noisy_inputs():
    generator = torch.Generator().manual_seed(1)
    yield torch.tensor([1.0]), torch.tensor([math.log(4.0)]), torch.tensor([0.5])
    yield tuple(torch.randn(3, 5, 3, generator=generator))


register_exercise(
    "vae.reparameterise",
    title="A sample that lets the gradient through",
    difficulty=2,
    minutes=5,
    reference=reparameterise,
    inputs=_noisy_inputs,
    wrong={
        "the variance for the standard deviation": (
            lambda mu, logvar, noise: mu + logvar.exp() * noise,
            "exp(logvar) is the variance. Noise is scaled by the standard deviation, its root.",
        ),
        "logvar itself as the scale": (
            lambda mu, logvar, noise: mu + logvar * noise,
            "logvar may be negative: it is the logarithm of the variance. Undo the logarithm.",
        ),
        "no sampling": (
            lambda mu, logvar, noise: mu + 0.0 * (logvar + noise),
            "z = mu is a plain autoencoder: nothing keeps the codes near the prior.",
        ),
        "the gradient cut off": (
            lambda mu, logvar, noise: reparameterise(mu, logvar, noise).detach(),
            "The value is right, but no gradient reaches mu and logvar. Do not detach.",
        ),
    },
    alternatives={
        "minus": (
            lambda mu, logvar, noise: mu - (0.5 * logvar).exp() * noise,
            "You subtract the noise. N(0, I) is symmetric, so z has the same distribution.",
        ),
    },
    hints=(
        "Shift and scale standard normal noise: its mean becomes mu, its variance exp(logvar).",
        "The scale is the standard deviation, exp(logvar / 2).",
    ),
    check_gradients=True,
)


# --- the likelihood -----------------------------------------------------------------------------


def gaussian_log_likelihood(x, mean, sigma):
    """log N(x; mean, sigma^2 I) of each image: x, mean (B, C, H, W), sigma a scalar -> (B,)."""
    squares = ((x - mean) / sigma) ** 2
    return -0.5 * (squares + 2.0 * sigma.log() + math.log(2.0 * math.pi)).flatten(1).sum(1)


def _image_inputs():
    generator = torch.Generator().manual_seed(2)
    yield torch.tensor([[[[1.0]]]]), torch.tensor([[[[0.0]]]]), torch.tensor(0.5)
    yield (*torch.randn(2, 3, 1, 2, 3, generator=generator), torch.tensor(0.3))
    yield (*torch.randn(2, 2, 1, 2, 2, generator=generator), torch.tensor(1.7))


register_exercise(
    "vae.log_likelihood",
    title="How likely is the picture under the decoder",
    difficulty=2,
    minutes=8,
    reference=gaussian_log_likelihood,
    inputs=_image_inputs,
    wrong={
        "the mean over pixels": (
            lambda x, mean, sigma: gaussian_log_likelihood(x, mean, sigma) / x[0].numel(),
            "Pixels are independent given z, so their log-likelihoods add. A mean over D pixels "
            "makes this term D times lighter: beta is silently D times larger.",
        ),
        "sigma taken for the variance": (
            lambda x, mean, sigma: gaussian_log_likelihood(x, mean, sigma.sqrt()),
            "sigma is the standard deviation; the density divides the square by sigma^2.",
        ),
        "its negative": (
            lambda x, mean, sigma: -gaussian_log_likelihood(x, mean, sigma),
            "That is the negative log-likelihood, a loss. The ELBO contains +log p(x|z); the loss "
            "is minus the whole ELBO.",
        ),
        "the half left out": (
            lambda x, mean, sigma: (
                -(((x - mean) / sigma) ** 2 + sigma.log() + 0.5 * math.log(2.0 * math.pi))
                .flatten(1)
                .sum(1)
            ),
            "The exponent of a Gaussian is -(x - mean)^2 / (2 sigma^2): the 2 is missing.",
        ),
        "no price for a wide sigma": (
            lambda x, mean, sigma: -0.5 * (((x - mean) / sigma) ** 2).flatten(1).sum(1),
            "Without -log sigma a pixel nothing stops sigma from growing: every error looks small.",
        ),
    },
    alternatives={
        "without the constant": (
            lambda x, mean, sigma: (
                -0.5 * (((x - mean) / sigma) ** 2 + 2.0 * sigma.log()).flatten(1).sum(1)
            ),
            "Without log 2 pi the gradients are the same, but the value is no longer the bound.",
        ),
    },
    hints=(
        "Start from the density of one pixel, exp(-(x - mean)^2 / (2 sigma^2)) / "
        "sqrt(2 pi sigma^2), and take its logarithm.",
        "Sum over channels, rows and columns, not over the batch: `.flatten(1).sum(1)`.",
    ),
    check_gradients=True,
)


# --- collapse -----------------------------------------------------------------------------------


def rate_per_direction(eigenvalues, sigma2, beta):
    """Nats that the best linear VAE spends on each direction: (F,), beta weighs the KL."""
    return 0.5 * (eigenvalues / (beta * sigma2)).clamp(min=1.0).log()


def _draw_rate(yours, ours) -> Figure:
    eigenvalues = torch.linspace(0.02, 3.0, 100)
    return _yours_and_ours(
        yours, ours, eigenvalues, (eigenvalues, 0.5, 1.0), "eigenvalue (sigma^2 = 0.5)", "nats"
    )


register_exercise(
    "vae.rate_per_direction",
    title="Which latents a linear VAE uses",
    difficulty=3,
    minutes=8,
    reference=rate_per_direction,
    inputs=lambda: [
        (torch.tensor([2.0, 0.1]), 0.5, 1.0),
        (torch.tensor([3.0, 1.0, 0.2]), 0.3, 2.0),
        (torch.tensor([4.0, 1.5, 0.7]), 0.4, 0.5),
    ],
    wrong={
        "negative rates": (
            lambda eigenvalues, sigma2, beta: 0.5 * (eigenvalues / (beta * sigma2)).log(),
            "A KL is never negative: below the noise the latent is switched off and costs 0.",
        ),
        "a channel's capacity": (
            lambda eigenvalues, sigma2, beta: 0.5 * (1 + eigenvalues / (beta * sigma2)).log(),
            "log(1 + signal / noise) / 2 counts the noise twice: the eigenvalue already holds it, "
            "lambda = w^2 + sigma^2.",
        ),
        "beta on the wrong side": (
            lambda eigenvalues, sigma2, beta: (
                0.5 * (beta * eigenvalues / sigma2).clamp(min=1.0).log()
            ),
            "A larger beta makes nats dearer, so fewer are spent: beta multiplies sigma^2.",
        ),
        "the half left out": (
            lambda eigenvalues, sigma2, beta: (eigenvalues / (beta * sigma2)).clamp(min=1.0).log(),
            "You count log of a variance ratio; in nats a standard deviation's ratio is meant: "
            "half of it.",
        ),
    },
    hints=(
        "First beta = 1: put w^2 = lambda - sigma^2 and the posterior variance sigma^2 / lambda "
        "into the closed-form KL and average over the data.",
        "What remains is log(lambda / sigma^2) / 2 where lambda > sigma^2, else 0; beta takes "
        "the place of one by beta sigma^2.",
    ),
    draw=_draw_rate,
    alt="Rate against eigenvalue, your function beside the reference",
)


# --- prediction ---------------------------------------------------------------------------------

_CHOICES = ("1", "24.5", "784", "0.04")


def _effective_beta() -> str:
    """The beta at which sums have the same gradient direction as means, measured by autograd."""
    pixels, latents = 784, 32
    mean, mu = (torch.ones(1, n, requires_grad=True) for n in (pixels, latents))
    ((mean**2).mean() / 2 + kl_divergence(mu, torch.zeros(1, latents)).mean()).backward()
    ratio = mu.grad.mean() / mean.grad.mean()  # 1 when both are sums
    return f"{ratio.item():g}"


register_prediction(
    "vae.mean_for_sum",
    title="Mean for sum",
    difficulty=2,
    minutes=2,
    question=(
        "A digit VAE has 784 pixels and 32 latents. Somebody writes both terms of the loss with "
        "`.mean()` in place of `.sum()`, and beta = 1. Which beta would give the same "
        "training with sums?"
    ),
    choices=_CHOICES,
    answer="24.5",
    why=(
        "The likelihood was divided by 784 and the KL by 32, so the KL weighs 784 / 32 = 24.5 "
        "times as much as in the ELBO."
    ),
    wrong={
        "1": "The two terms are divided by different numbers, so their balance changes.",
        "784": "That is what a mean over pixels alone does; here the KL was averaged as well.",
        "0.04": "1 / 24.5: upside down. The term divided by more loses weight, the other gains.",
    },
    check=_effective_beta,
)
