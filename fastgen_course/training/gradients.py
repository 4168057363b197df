"""Two unbiased gradients of an expectation: reparameterised and score-function.

Both estimate the gradient of E[f(z)] for z ~ N(mu, exp(logvar)) with respect to mu and logvar, one
estimate for each noise sample, so that their variances can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class GradientSamples(NamedTuple):
    """One gradient estimate for each noise sample: mu (N, d) and logvar (N, d)."""

    mu: Tensor
    logvar: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean estimate (2d,): mu's gradient, then logvar's."""
        return torch.cat(self, dim=1).mean(0)

    @property
    def total_variance(self) -> float:
        """Variance of one estimate, summed over all 2d components."""
        return torch.cat(self, dim=1).var(0).sum().item()


def reparameterised_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, logvar: Tensor, noise: Tensor
) -> GradientSamples:
    """Through the sample: df/dz times dz/dmu = 1 and dz/dlogvar = sigma noise / 2.

    f: (N, d) -> (N,), differentiable; mu, logvar: (d,); noise: (N, d) from N(0, I).
    (Kingma and Welling 2014; Rezende et al. 2014.)
    """
    std = (0.5 * logvar).exp()
    z = (mu + std * noise).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(f(z).sum(), z)
    return GradientSamples(slope, slope * 0.5 * std * noise)


def score_gradient(
    f: Callable[[Tensor], Tensor],
    mu: Tensor,
    logvar: Tensor,
    noise: Tensor,
    baseline: float | Tensor = 0.0,
) -> GradientSamples:
    """Through the density: (f(z) - baseline) times the gradient of log q(z).

    Needs no gradient of f. Any baseline that does not depend on z leaves the mean as it is, since
    E[grad log q] = 0. (Williams 1992, REINFORCE.) Shapes as in `reparameterised_gradient`.
    """
    std = (0.5 * logvar).exp()
    with torch.no_grad():
        advantage = (f(mu + std * noise) - baseline)[:, None]
    return GradientSamples(advantage * noise / std, advantage * 0.5 * (noise**2 - 1.0))


def mean_baseline(
    f: Callable[[Tensor], Tensor], mu: Tensor, logvar: Tensor, noise: Tensor
) -> Tensor:
    """The mean of f over separate noise (N, d): the usual baseline, a scalar."""
    with torch.no_grad():
        return f(mu + (0.5 * logvar).exp() * noise).mean()
