"""The quantities of GAN theory for densities given on a grid: D*, C(G), KL, JSD, gradients.

A density is a tensor of its values at equally spaced points `dx` apart; integrals are sums times
`dx`. Sources: Goodfellow et al. 2014 (Proposition 1, Theorem 1); Arjovsky and Bottou 2017
(Theorem 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = 1e-300  # float64 only: densities on a grid are double precision


def gaussian_mixture(
    x: Tensor,
    means: Sequence[float],
    stds: Sequence[float],
    weights: Sequence[float] | None = None,
) -> Tensor:
    """The density of a mixture of 1-D Gaussians at the points x (any shape); equal weights if None.

    Raises ValueError for lists of different lengths, or a standard deviation that is not positive.
    """
    weights = [1 / len(means)] * len(means) if weights is None else weights
    if not len(means) == len(stds) == len(weights):
        raise ValueError(
            f"a mixture needs as many means ({len(means)}) as standard deviations ({len(stds)}) "
            f"and weights ({len(weights)})"
        )
    if min(stds) <= 0:
        raise ValueError(f"a standard deviation must be positive, got {min(stds)}")
    total = sum(weights)
    parts = [
        weight / total * torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        for mean, std, weight in zip(means, stds, weights, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def optimal_discriminator(p_data: Tensor, p_model: Tensor) -> Tensor:
    """D*(x) = p_data / (p_data + p_model), for densities given as tensors of one shape.

    Where both are zero no sample ever falls and the value is free; 1/2 is returned there.
    """
    total = p_data + p_model
    return torch.where(total > 0, p_data / total.clamp(min=_TINY), 0.5 * torch.ones_like(total))


def value(d: Tensor, p_data: Tensor, p_model: Tensor, dx: float) -> Tensor:
    """V(D, G) = E_data[log D] + E_model[log(1 - D)] in nats (Goodfellow et al. 2014, equation 1).

    d, p_data, p_model: (N,) on one grid with spacing dx. Returns a scalar. D is kept 1e-300 away
    from 0 and 1: where rounding makes D* exactly 1, p_model is too small to count.
    """
    log_d, log_not_d = d.clamp(min=_TINY).log(), (1 - d).clamp(min=_TINY).log()
    return (p_data * log_d + p_model * log_not_d).sum() * dx


def kl_divergence(p: Tensor, q: Tensor, dx: float) -> Tensor:
    """KL(p || q) in nats for densities (N,) on a grid; infinite where q = 0 < p."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum() * dx


def jensen_shannon(p: Tensor, q: Tensor, dx: float) -> Tensor:
    """JSD(p, q) in nats, from 0 (equal) to log 2 (disjoint), for densities (N,) on a grid."""
    middle = (p + q) / 2
    return (kl_divergence(p, middle, dx) + kl_divergence(q, middle, dx)) / 2


def generator_gradient(
    logits: Tensor, p_model: Tensor, score: Tensor, dx: float, *, saturating: bool
) -> Tensor:
    """The exact gradient of a generator loss with respect to one parameter, D held fixed.

    The gradient of E_model[f(D(x))] is the integral of p_model(x) score(x) f(D(x)), with
    f = log(1 - D) (saturating) or f = -log D (non-saturating).

    logits: (N,) of D; score: (N,), the derivative of log p_model(x) by the parameter. Returns a
    scalar.
    """
    log_d = torch.nn.functional.logsigmoid(logits)
    log_not_d = torch.nn.functional.logsigmoid(-logits)
    loss = log_not_d if saturating else -log_d
    return (p_model * score * loss).sum() * dx
