"""The mathematics of notebook 01: each claim against a second way of working it out."""

import math

import pytest
import torch
from torch import nn

from fastgen_course.training.gan_losses import (
    critic_loss,
    discriminator_loss,
    gradient_penalty,
    hinge_discriminator_loss,
    hinge_generator_loss,
    nonsaturating_loss,
    r1_penalty,
    saturating_loss,
    spectral_norm_of,
)
from fastgen_course.training.gan_theory import (
    gaussian_mixture,
    generator_gradient,
    jensen_shannon,
    kl_divergence,
    optimal_discriminator,
    value,
)

X = torch.linspace(-14, 14, 4001, dtype=torch.float64)
DX = 28 / 4000


def normal(mean, std=1.0):
    return torch.exp(-0.5 * ((X - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mixture_integrates_to_one_and_refuses_nonsense():
    assert gaussian_mixture(X, [-2, 3], [0.5, 1.0], [1, 3]).sum() * DX == pytest.approx(1)
    with pytest.raises(ValueError, match="positive"):
        gaussian_mixture(X, [0.0], [0.0])
    with pytest.raises(ValueError, match="as many means"):
        gaussian_mixture(X, [0.0, 1.0], [1.0])


def test_gradient_ascent_on_the_value_finds_the_optimal_discriminator():
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    p, q = gaussian_mixture(x, [-1.5, 1.5], [0.6, 0.6]), gaussian_mixture(x, [0.0], [1.2])
    logits = torch.zeros_like(x, requires_grad=True)
    for _ in range(3000):
        (gradient,) = torch.autograd.grad(value(logits.sigmoid(), p, q, 0.1), logits)
        # A step in units of the local curvature, which is at most (p + q) / 4 times dx.
        logits = (logits + gradient / (0.1 * (p + q) / 4)).detach().requires_grad_()
    assert torch.allclose(logits.sigmoid(), optimal_discriminator(p, q), atol=1e-6)


def test_optimal_discriminator_where_nothing_falls_is_one_half():
    p, q = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    assert optimal_discriminator(p, q).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("mean", [0.0, 0.7, 3.0])
def test_cost_at_the_optimum_is_the_jensen_shannon_divergence(mean):
    p, q = normal(0.0), normal(mean, 0.8)
    cost = value(optimal_discriminator(p, q), p, q, DX)
    assert cost.item() == pytest.approx(-math.log(4) + 2 * jensen_shannon(p, q, DX).item())


def test_jensen_shannon_reaches_its_two_ends():
    assert jensen_shannon(normal(0.0), normal(0.0), DX).item() == pytest.approx(0, abs=1e-12)
    far = jensen_shannon(normal(-7.0, 0.2), normal(7.0, 0.2), DX).item()
    assert far == pytest.approx(math.log(2))
    assert kl_divergence(normal(0.0), normal(1.5), DX).item() == pytest.approx(1.5**2 / 2)


@pytest.mark.parametrize("theta", [0.5, 2.0, 4.0])
def test_nonsaturating_gradient_is_that_of_reverse_kl_minus_twice_jsd(theta):
    """Arjovsky and Bottou 2017, Theorem 2.5; and the saturating one is that of 2 JSD."""
    p = normal(0.0)
    parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    q = torch.exp(-0.5 * (X - parameter) ** 2) / math.sqrt(2 * math.pi)
    kl, jsd = kl_divergence(q, p, DX), jensen_shannon(q, p, DX)
    (of_both,) = torch.autograd.grad(kl - 2 * jsd, parameter, retain_graph=True)
    (of_jsd,) = torch.autograd.grad(2 * jsd, parameter)
    logits = 0.5 * (X - theta) ** 2 - 0.5 * X**2  # log p - log q, frozen
    arguments = (logits, q.detach(), X - theta, DX)
    assert generator_gradient(*arguments, saturating=False).item() == pytest.approx(of_both.item())
    assert generator_gradient(*arguments, saturating=True).item() == pytest.approx(of_jsd.item())


def test_losses_on_logits_match_their_definitions():
    real, fake = draw(50), draw(50, seed=1)
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    assert discriminator_loss(real, fake).item() == pytest.approx(
        -(d_real.log().mean() + (1 - d_fake).log().mean()).item()
    )
    assert saturating_loss(fake).item() == pytest.approx((1 - d_fake).log().mean().item())
    assert nonsaturating_loss(fake).item() == pytest.approx(-d_fake.log().mean().item())
    by_hand = torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(by_hand.item())
    assert hinge_generator_loss(fake).item() == pytest.approx(-fake.mean().item())
    assert critic_loss(real, fake).item() == pytest.approx((fake.mean() - real.mean()).item())


def test_losses_stay_finite_for_huge_logits():
    huge = torch.tensor([1e4, -1e4])
    for loss in (discriminator_loss(huge, huge), saturating_loss(huge), nonsaturating_loss(huge)):
        assert torch.isfinite(loss)


@pytest.mark.parametrize("logit", [-9.0, -2.0, 0.0, 2.0])
def test_slopes_in_the_logit(logit):
    a = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    d = a.detach().sigmoid().item()
    (saturating,) = torch.autograd.grad(saturating_loss(a), a)
    (nonsaturating,) = torch.autograd.grad(nonsaturating_loss(a), a)
    assert saturating.item() == pytest.approx(-d)
    assert nonsaturating.item() == pytest.approx(-(1 - d))


def test_penalties_of_a_linear_critic_in_closed_form():
    slope = torch.tensor([3.0, -4.0], dtype=torch.float64)  # of length 5

    def critic(x):
        return x @ slope + 7

    real, fake, mix = draw(6, 2), draw(6, 2, seed=1), torch.rand(6, dtype=torch.float64)
    assert gradient_penalty(critic, real, fake, mix).item() == pytest.approx((5 - 1) ** 2)
    assert r1_penalty(critic, real).item() == pytest.approx(25)


def test_penalties_of_a_quadratic_critic_look_where_they_should():
    """The gradient of |x|^2 / 2 is x itself, so the penalties read off the points they use."""

    def critic(x):
        return 0.5 * x.pow(2).flatten(1).sum(1)

    real, fake, mix = draw(6, 1, 2, 2), draw(6, 1, 2, 2, seed=1), torch.rand(6).double()
    between = mix.view(-1, 1, 1, 1) * real + (1 - mix.view(-1, 1, 1, 1)) * fake
    expected = (between.flatten(1).norm(dim=1) - 1).pow(2).mean()
    assert gradient_penalty(critic, real, fake, mix).item() == pytest.approx(expected.item())
    squared = real.flatten(1).pow(2).sum(1).mean()
    assert r1_penalty(critic, real).item() == pytest.approx(squared.item())


def test_penalties_reach_the_weights():
    critic = nn.Linear(2, 1).double()
    for penalty in (
        gradient_penalty(lambda x: critic(x)[:, 0], draw(4, 2), draw(4, 2, seed=1), draw(4)),
        r1_penalty(lambda x: critic(x)[:, 0], draw(4, 2)),
    ):
        (gradient,) = torch.autograd.grad(penalty, critic.weight)
        assert gradient.abs().sum() > 0


def test_power_iteration_finds_the_largest_singular_value():
    weight = draw(12, 7)
    exact = torch.linalg.svdvals(weight)[0].item()
    assert spectral_norm_of(weight, draw(12, seed=1), 300).item() == pytest.approx(exact)
    errors = [exact - spectral_norm_of(weight, draw(12, seed=1), n).item() for n in (1, 4, 16)]
    assert errors[0] > errors[1] > errors[2] >= 0


def test_spectral_norm_layers_are_lipschitz():
    from fastgen_course.models.ring import RingConfig, RingDiscriminator

    discriminator = RingDiscriminator(RingConfig(width=16, depth=2, spectral=True))
    points = draw(64, 2).float()
    for _ in range(200):  # each call in training mode is one step of power iteration
        discriminator(points)
    discriminator.eval()
    for layer in discriminator.net:
        if isinstance(layer, nn.Linear):
            assert torch.linalg.svdvals(layer.weight)[0].item() == pytest.approx(1, abs=1e-3)
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(points).sum(), points)
    assert gradient.norm(dim=1).max() <= 1.001
