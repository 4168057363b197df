"""GAN losses and penalties, each a few lines on logits. All are minimised.

`real` and `fake` are the discriminator's logits (B,) on data and on the generator's samples;
D(x) = sigmoid(logit). A critic's score has the same shape and no sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor], Tensor]  # (B, ...) -> (B,)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-(E[log D(x)] + E[log(1 - D(G(z)))]) (Goodfellow et al. 2014, equation 1); scalar, nats.

    -log sigmoid(a) is softplus(-a), which neither overflows nor loses digits for large |a|.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def saturating_loss(fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))]: the generator's half of the minimax game, as it stands."""
    return -F.softplus(fake).mean()


def nonsaturating_loss(fake: Tensor) -> Tensor:
    """-E[log D(G(z))]: same fixed point, a gradient that stays when D wins."""
    return F.softplus(-fake).mean()


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - real)] + E[max(0, 1 + fake)] (Lim and Ye 2017; Miyato et al. 2018)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """-E[fake], the generator's side of the hinge loss."""
    return -fake.mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[fake] - E[real]: minus the WGAN critic's objective (Arjovsky et al. 2017, equation 2).

    It bounds a Wasserstein distance only for a 1-Lipschitz critic without a sigmoid.
    """
    return fake.mean() - real.mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[(||grad f(x_mix)|| - 1)^2] between data and samples (Gulrajani et al. 2017, equation 3).

    real, fake: (B, ...); mix: (B,) in [0, 1], usually uniform. Differentiable in the critic's
    parameters. Returns a scalar.
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1))
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).pow(2).mean()


def r1_penalty(discriminator: Critic, real: Tensor) -> Tensor:
    """E[||grad f(x)||^2] on data alone (Mescheder et al. 2018, equation 9, without gamma / 2).

    real: (B, ...). Differentiable in the discriminator's parameters. Returns a scalar.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.flatten(1).pow(2).sum(dim=1).mean()


def spectral_norm_of(weight: Tensor, start: Tensor, steps: int) -> Tensor:
    """The largest singular value of a matrix by power iteration (Miyato et al. 2018, Algorithm 1).

    weight: (out, in); start: (out,), not orthogonal to the first left singular vector. Returns a
    scalar.
    """
    u = F.normalize(start, dim=0)
    for _ in range(steps):
        v = F.normalize(weight.T @ u, dim=0)
        u = F.normalize(weight @ v, dim=0)
    return u @ weight @ v
