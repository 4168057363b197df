"""The transport of features: the map is the one that the Fréchet distance is the cost of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.metrics import frechet_distance, gaussian_moments
from fastgen_course.training.matching import MatchRecipe
from fastgen_course.training.transport import FeatureTransport, transport_map


def moments(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=source, dtype=torch.float64)
    return torch.randn(size, generator=source, dtype=torch.float64), root @ root.T + torch.eye(size)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_the_map_moves_one_gaussian_onto_the_other(seed, size):
    (mean, cov), (to_mean, to_cov) = moments(seed, size), moments(seed + 1, size)
    matrix, shift = transport_map(mean, cov, to_mean, to_cov)
    assert torch.allclose(mean @ matrix + shift, to_mean)
    assert torch.allclose(matrix @ cov @ matrix, to_cov, atol=1e-6 * to_cov.abs().max())
    assert torch.allclose(matrix, matrix.T)


def test_its_cost_is_the_frechet_distance():
    (mean, cov), (to_mean, to_cov) = moments(3, 8), moments(4, 8)
    matrix, shift = transport_map(mean, cov, to_mean, to_cov)
    left = torch.eye(8, dtype=torch.float64) - matrix
    cost = (mean @ left - shift).square().sum() + torch.trace(left @ cov @ left)
    assert cost.item() == pytest.approx(frechet_distance(mean, cov, to_mean, to_cov), rel=1e-6)


def test_the_pull_is_the_gradient_of_the_frechet_distance():
    source = torch.Generator().manual_seed(5)
    features = torch.randn(400, 6, generator=source, dtype=torch.float64).requires_grad_(True)
    to_mean, to_cov = moments(6, 6)
    mean, centred = features.mean(0), features - features.mean(0)
    cov = centred.T @ centred / len(features)
    # The distance, differentiably: the root's trace from the eigenvalues of C_r^1/2 C C_r^1/2.
    values, vectors = torch.linalg.eigh(to_cov)
    root = (vectors * values.sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov @ root).sqrt().sum()
    distance = (mean - to_mean).square().sum() + torch.trace(cov + to_cov) - 2 * cross
    (gradient,) = torch.autograd.grad(distance, features)
    matrix, shift = transport_map(mean.detach(), cov.detach(), to_mean, to_cov)
    pull = 2 * (features - (features @ matrix + shift)) / len(features)
    assert torch.allclose(gradient, pull.detach(), atol=1e-10)


def test_targets_have_the_photographs_moments_and_survive_a_kill(judge):
    transport = FeatureTransport(judge, photographs=500)
    size = len(transport.to_mean)
    source = torch.Generator().manual_seed(1)
    features = torch.randn(6 * size, size, generator=source)
    assert transport.target(features[:1]) is None  # no covariance of one picture
    target = transport.target(features[1:])
    mean, cov = (part.double() for part in gaussian_moments(target))
    assert (
        mean - transport.to_mean
    ).abs().max() < 0.2 * transport.to_covariance.diag().max() ** 0.5
    apart = frechet_distance(mean, cov, transport.to_mean, transport.to_covariance)
    before = frechet_distance(
        *(p.double() for p in gaussian_moments(features)),
        transport.to_mean,
        transport.to_covariance,
    )
    assert apart < 0.02 * before

    again = FeatureTransport(judge, photographs=500)
    again.load_state_dict(transport.state_dict())
    more = torch.randn(8, size, generator=source)
    assert torch.equal(again.target(more), transport.target(more))


def test_what_is_out_of_range_is_refused(judge):
    with pytest.raises(ValueError, match="photographs must be at least 2, got 1"):
        FeatureTransport(judge, photographs=1)
    with pytest.raises(ValueError, match="features and transport at least 0"):
        MatchRecipe(transport=-0.1)
