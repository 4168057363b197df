"""The plane where flows are known: the closed form against sampling, straightness, distances."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.sampling.flow import even_times, heun
from fastgen_course.training.flow import flow_matching_loss
from fastgen_course.training.flow_theory import (
    Mixture,
    ToyVelocity,
    bend,
    energy_distance,
    flow_coupling,
    path,
    ring_mixture,
    train_toy,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("time", [0.2, 0.6, 0.9])
def test_the_marginal_velocity_is_the_mean_of_the_lines_through_a_point(time):
    mixture = Mixture(torch.tensor([[-2.0, 0.0], [1.0, 1.0]]).double(), 0.5)
    noise, z = mixture.coupled(2_000_000, seeded(0))
    t = torch.tensor(time).double()
    z_t = torch.lerp(noise, z, t)
    for point in (time * mixture.means[0], time * mixture.means.mean(0) + 0.1):
        near = (z_t - point).norm(dim=1) < 0.08
        assert near.sum() > 300
        mean = (z - noise)[near].mean(0)
        error = (z - noise)[near].std(0) / near.sum() ** 0.5
        exact = mixture.velocity(point[None], t[None])[0]
        assert ((mean - exact).abs() < 4.5 * error + 0.05).all()


def test_the_exact_flow_draws_the_mixture():
    mixture = ring_mixture()
    noise, z = mixture.coupled(2000, seeded(1))
    drawn = heun(mixture.velocity, noise, even_times(100).double())
    other = mixture.sample(2000, seeded(2))
    assert energy_distance(drawn, z) < 0.02
    assert energy_distance(drawn, z) < 0.05 * energy_distance(noise, z)
    assert abs(energy_distance(other, z)) < 0.02


def test_bend_is_zero_for_straight_ways_alone():
    noise = torch.randn(200, 2, generator=seeded(3))
    straight = lambda z, t: torch.ones_like(z)  # noqa: E731
    turning = lambda z, t: 3.0 * torch.stack([-z[:, 1], z[:, 0]], 1)  # noqa: E731
    assert bend(straight, noise) < 1e-9
    # A turn by a = 3: |way|^2 = 2 - 2 cos a, |v|^2 = a^2, E|v - way|^2 = |v|^2 - |way|^2.
    chord = 2 - 2 * torch.cos(torch.tensor(3.0)).item()
    assert bend(turning, noise, 400) == pytest.approx((9 - chord) / chord, rel=0.01)
    points = path(turning, noise, 400)
    assert torch.allclose(points[-1].norm(dim=1), noise.norm(dim=1), rtol=1e-3)


def test_training_learns_the_marginal_velocity_and_reflow_straightens():
    mixture = Mixture(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double(), 0.3)
    first = ToyVelocity(seed=1)
    losses = train_toy(first, mixture.coupled, flow_matching_loss, steps=500, rate=5e-3)
    assert sum(losses[-50:]) < 0.8 * sum(losses[:50])
    noise, z = mixture.coupled(400, seeded(4))
    t = torch.full((400,), 0.5).double()
    z_t = torch.lerp(noise, z, t[:, None])
    exact = mixture.velocity(z_t, t)
    error = (first.velocity()(z_t.float(), t.float()) - exact).square().mean()
    assert error < 0.1 * exact.square().mean()
    second = ToyVelocity(seed=1)
    coupling = flow_coupling(first.velocity(), steps=20, pool=2000)
    train_toy(second, coupling, flow_matching_loss, steps=500, rate=5e-3)
    fresh = torch.randn(300, 2, generator=seeded(5))
    assert bend(second.velocity(), fresh, 20) < 0.5 * bend(first.velocity(), fresh, 20)
