"""The mathematics of notebook 02: KL, ELBO, gradients, probabilistic PCA, collapse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.models.vae import LinearVAE
from fastgen_course.training.elbo import (
    elbo_terms,
    gaussian_log_likelihood,
    importance_log_marginal,
    kl_divergence,
    log_normal,
    reparameterise,
)
from fastgen_course.training.gradients import (
    mean_baseline,
    reparameterised_gradient,
    score_gradient,
)
from fastgen_course.training.linear_vae import (
    elbo_gap_error,
    exact_elbo,
    expected_elbo,
    kl_per_latent,
    measured_rate_distortion,
    posterior_kl,
    ppca_optimum,
    principal_angles,
    quadrature_noise,
    shannon_rate_distortion,
    spectrum,
    train_linear_vae,
)

FEATURES, LATENT = 6, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    """Data with eigenvalues well apart: about 5, 3, 1.8, 0.9, 0.4, 0.2."""
    scale = torch.tensor([5.0, 3.0, 1.8, 0.9, 0.4, 0.2], dtype=torch.float64).sqrt()
    rotation = torch.linalg.qr(random(FEATURES, FEATURES, seed=3)).Q
    return (random(500, FEATURES, seed=4) * scale) @ rotation.T + 0.5


@pytest.fixture(scope="module")
def fitted(data):
    """A linear VAE whose sigma2 lies between the second and the third eigenvalue."""
    found = spectrum(data)
    sigma2 = math.sqrt(float(found.values[1] * found.values[2]))
    mean = data.mean(0)
    covariance = (data - mean).T @ (data - mean) / len(data)
    model = LinearVAE(FEATURES, LATENT, sigma2, mean)
    model.initialise(torch.Generator().manual_seed(1))
    values = train_linear_vae(model, covariance, steps=200)
    return model.requires_grad_(False), found, covariance, values


@given(
    mu=st.floats(-3, 3),
    logvar=st.floats(-3, 2),
    prior_mu=st.floats(-2, 2),
    prior_logvar=st.floats(-2, 2),
)
@settings(max_examples=25, deadline=None)
def test_kl_closed_form_agrees_with_monte_carlo(mu, logvar, prior_mu, prior_logvar):
    m, v, pm, pv = (
        torch.tensor(a, dtype=torch.float64) for a in (mu, logvar, prior_mu, prior_logvar)
    )
    z = reparameterise(m, v, random(20_000, seed=8))
    sampled = log_normal(z, m, v) - log_normal(z, pm, pv)
    error = sampled.std() / math.sqrt(len(sampled))
    assert (sampled.mean() - kl_divergence(m, v, pm, pv)).abs() < 6 * error + 1e-9


def test_kl_without_prior_is_kl_to_the_standard_normal():
    mu, logvar = random(2, 5, 3)
    zero = torch.zeros_like(mu)
    torch.testing.assert_close(kl_divergence(mu, logvar), kl_divergence(mu, logvar, zero, zero))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_divergence(mu, logvar), reference)


def test_log_likelihood_is_a_sum_over_pixels():
    x, mean = random(2, 3, 1, 4, 4)
    normal = torch.distributions.Normal(mean, 0.7)
    expected = normal.log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_log_likelihood(x, mean, 0.7), expected)


def test_elbo_three_ways_agree(data):
    """Likelihood minus KL; log p(x) minus KL to the posterior; E[log p(x, z) - log q(z|x)]."""
    model = LinearVAE(FEATURES, LATENT, 0.5, data.mean(0))
    model.initialise(torch.Generator().manual_seed(2), scale=0.5).requires_grad_(False)
    x = data[:20]
    first = exact_elbo(model, x)
    second = model.log_marginal(x) - posterior_kl(model, x)
    mu, logvar = model.encode(x)
    third = torch.zeros_like(first)
    for eps, weight in zip(*quadrature_noise(LATENT), strict=True):
        z = reparameterise(mu, logvar, eps.expand_as(mu))
        log_joint = gaussian_log_likelihood(x, model.decode(z), model.sigma)
        log_joint = log_joint + log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
        third += weight * (log_joint - log_normal(z, mu, logvar).sum(1))
    torch.testing.assert_close(first, second, atol=1e-9, rtol=0)
    torch.testing.assert_close(first, third, atol=1e-9, rtol=0)


def test_gap_is_the_posterior_kl_and_closes_at_the_posterior(data, fitted):
    wrong = LinearVAE(FEATURES, LATENT, 0.5, data.mean(0))
    wrong.initialise(torch.Generator().manual_seed(2), scale=0.5).requires_grad_(False)
    assert posterior_kl(wrong, data[:50]).min() > 0.1  # a gap worth measuring
    assert elbo_gap_error(wrong, data[:50]).max() < 1e-9
    _, found, _, _ = fitted
    best = ppca_optimum(found, data.mean(0), LATENT, 0.5)
    assert posterior_kl(best, data[:50]).abs().max() < 1e-9


def test_one_sample_elbo_is_unbiased(data):
    model = LinearVAE(FEATURES, LATENT, 0.5, data.mean(0))
    model.initialise(torch.Generator().manual_seed(2), scale=0.5).requires_grad_(False)
    x = data[:1].expand(20_000, -1)
    sampled = elbo_terms(model, x, random(20_000, LATENT, seed=5)).elbo
    error = sampled.std() / math.sqrt(len(sampled))
    assert (sampled.mean() - exact_elbo(model, data[:1])[0]).abs() < 5 * error


def test_importance_samples_approach_log_p_from_below(data, fitted):
    _, found, _, _ = fitted
    model = ppca_optimum(found, data.mean(0), 2, 0.8)
    model.logvar.data += 0.5  # a q that is not the posterior, so that there is a gap
    model.requires_grad_(False)
    x = data[:100]
    exact = model.log_marginal(x).mean()
    estimates = [
        importance_log_marginal(model, x, random(k, 100, 2, seed=6)).mean() for k in (1, 10, 1000)
    ]
    assert estimates[0] < estimates[1] < exact + 0.02
    assert abs(estimates[2] - exact) < 0.02 < exact - estimates[0]


def test_reparameterised_and_score_gradients_share_a_mean_but_not_a_variance():
    target = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def f(z):
        return -((z - target) ** 2).sum(1)

    mu = torch.tensor([0.5, 0.5], dtype=torch.float64)
    logvar = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    exact = torch.cat([-2 * (mu - target), -logvar.exp()])  # of E[f] = -|mu - t|^2 - sum sigma^2
    noise = random(50_000, 2, seed=7)
    baseline = mean_baseline(f, mu, logvar, random(1000, 2, seed=9))
    estimates = {
        "reparameterised": reparameterised_gradient(f, mu, logvar, noise),
        "score": score_gradient(f, mu, logvar, noise),
        "score with baseline": score_gradient(f, mu, logvar, noise, baseline),
    }
    for estimate in estimates.values():
        error = (estimate.total_variance / len(noise)) ** 0.5
        assert (estimate.mean - exact).norm() < 5 * error
    variance = {name: estimate.total_variance for name, estimate in estimates.items()}
    assert variance["reparameterised"] < variance["score with baseline"] < variance["score"]


def test_expected_elbo_is_the_mean_of_the_exact_elbo(data, fitted):
    _, _, covariance, _ = fitted
    model = LinearVAE(FEATURES, LATENT, 0.5, data.mean(0))
    model.initialise(torch.Generator().manual_seed(2), scale=0.5).requires_grad_(False)
    torch.testing.assert_close(
        expected_elbo(model, covariance), exact_elbo(model, data).mean(), atol=1e-9, rtol=0
    )


def test_trained_linear_vae_is_probabilistic_pca(data, fitted):
    model, found, covariance, values = fitted
    assert values[-1] >= values[0]
    best = ppca_optimum(found, data.mean(0), LATENT, model.sigma2.item())
    assert expected_elbo(best, covariance) - values[-1] < 1e-6
    used = kl_per_latent(model, covariance).argsort(descending=True)[:2]
    angles = principal_angles(model.decoder_weight[:, used], found.vectors[:, :2])
    assert angles.max() < 0.1  # degrees
    torch.testing.assert_close(
        expected_elbo(best, covariance), best.log_marginal(data).mean(), atol=1e-9, rtol=0
    )


def test_directions_below_sigma2_collapse(fitted):
    model, found, covariance, _ = fitted
    rates = kl_per_latent(model, covariance).sort(descending=True).values
    expected = 0.5 * (found.values[:LATENT] / model.sigma2).clamp(min=1.0).log()
    torch.testing.assert_close(rates, expected, atol=1e-3, rtol=0)
    assert (rates > 0.01).sum() == 2


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_beta_moves_along_the_rate_distortion_function(data, fitted, beta):
    _, found, covariance, _ = fitted
    model = LinearVAE(FEATURES, FEATURES, 0.5, data.mean(0))
    model.initialise(torch.Generator().manual_seed(1))
    train_linear_vae(model, covariance, beta=beta, steps=200)
    measured = measured_rate_distortion(model, covariance)
    shannon = shannon_rate_distortion(found.values, beta * 0.5)
    assert measured.rate == pytest.approx(shannon.rate, abs=0.01)
    assert measured.distortion == pytest.approx(shannon.distortion, abs=0.02)


def test_z_squared_in_the_closed_form_moves_the_best_variance_to_one_half():
    variance = torch.linspace(0.2, 1.5, 1301, dtype=torch.float64)
    logvar = variance.log()
    right = kl_divergence(torch.zeros_like(logvar), logvar)
    # E[z^2] = sigma^2 at mu = 0: the slip counts it beside the sigma^2 already there.
    slip = right + 0.5 * variance
    assert variance[right.argmin()].item() == pytest.approx(1.0, abs=2e-3)
    assert variance[slip.argmin()].item() == pytest.approx(0.5, abs=2e-3)


def test_principal_angles_resolve_small_angles():
    plane = torch.eye(4, dtype=torch.float64)[:, :2]
    tilted = plane.clone()
    tilted[2, 0] = math.tan(1e-7)
    assert math.radians(principal_angles(plane, tilted).max().item()) == pytest.approx(
        1e-7, rel=1e-6
    )


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="variance"):
        LinearVAE(3, 2, sigma2=0.0)
    with pytest.raises(ValueError, match="water level"):
        shannon_rate_distortion(torch.ones(2), 0.0)
