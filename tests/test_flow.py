"""Flows: solvers by their order, losses by flows known exactly, samplers on tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastgen_course.datasets.captions import CaptionError, encode_words
from fastgen_course.models.flow import FlowConfig, VelocityNet, time_features
from fastgen_course.models.vae import ConvVAE, VAEConfig
from fastgen_course.sampling import flow as sampling
from fastgen_course.sampling.flow import even_times, sample_flow, sample_latents
from fastgen_course.training import flow as training
from fastgen_course.training.flow import FlowRecipe, LatentBatch

CAPTIONS = ["a red boot", "a small green bag on a white background"]
TINY = FlowConfig(latent=8, width=16, blocks=3, condition=12, caption=10)


def gaussian_velocity(mean, deviation):
    """The exact velocity from N(0, 1) to N(mean, deviation^2), the two independent."""

    def velocity(z, t):
        t = t[:, None]
        variance = (1 - t) ** 2 + (t * deviation) ** 2
        slope = (t * deviation**2 - (1 - t)) / variance
        return mean + slope * (z - t * mean)

    return velocity


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_converge_with_their_order(solver, order):
    z = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = 1.5 + 0.4 * z  # the flow of two Gaussians is the linear map between them
    errors = []
    for steps in (20, 40):
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        found = sampling.SOLVERS[solver](gaussian_velocity(1.5, 0.4), z, times)
        errors.append((found - exact).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


class Lines(nn.Module):
    """The mean velocity of lines from x to m + s x, which never cross: known exactly."""

    def __init__(self, m=2.0, s=0.5, wrong=0.0):
        super().__init__()
        self.m, self.s, self.wrong = m, s, wrong

    def forward(self, z, words, *times):
        start = (times[1] if len(times) == 2 else times[0])[:, None]
        x = (z - start * self.m) / ((1 - start) + start * self.s)
        return self.m + (self.s - 1) * x + self.wrong * z


def line_batch(n=500):
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(n, 5, dtype=torch.int64)
    return LatentBatch(2.0 + 0.5 * noise, noise, encode_words(CAPTIONS[:1]).expand(n, -1), labels)


@pytest.mark.parametrize("loss", [training.flow_matching_loss, training.mean_velocity_loss])
def test_losses_are_zero_for_the_exact_velocity_alone(loss):
    generator = torch.Generator().manual_seed(2)
    assert loss(Lines(), line_batch(), generator).item() < 1e-6
    assert loss(Lines(wrong=0.2), line_batch(), generator).item() > 1e-3


def test_the_mean_velocity_needs_the_derivative():
    """Curved ways: u = v at every point would be wrong, the identity with du/dr is right."""

    class Curved(nn.Module):
        def forward(self, z, words, t, r):
            # z moves with velocity z: z_t = z_r exp(t - r), u = z (exp(t - r) - 1) / (t - r).
            h = (t - r)[:, None]
            return z * torch.where(h > 1e-4, torch.expm1(h) / h.clamp(min=1e-4), 1 + h / 2)

    n, generator = 400, torch.Generator().manual_seed(3)
    z, r = torch.randn(n, 2, generator=generator), torch.rand(n, generator=generator)
    t = r + (1 - r) * torch.rand(n, generator=generator)
    u, slope = torch.func.jvp(
        lambda a, start: Curved()(a, None, t, start), (z, r), (z, torch.ones(n))
    )
    assert torch.allclose(u, z + (t - r)[:, None] * slope, atol=1e-4)


def test_guidance_is_distilled_into_one_input():
    torch.manual_seed(0)
    teacher = randomised(VelocityNet(TINY)).eval()
    words = encode_words(CAPTIONS).repeat(50, 1)
    z = torch.randn(100, 8, generator=torch.Generator().manual_seed(4))
    batch = LatentBatch(z, z.flip(0), words, torch.zeros(100, 5, dtype=torch.int64))

    class Told(nn.Module):
        """What the student must learn."""

        def forward(self, z_t, words, t, s):
            without = teacher(z_t, torch.zeros_like(words), t)
            return without + s[:, None] * (teacher(z_t, words, t) - without)

    loss = training.guided_loss(teacher)
    assert loss(Told(), batch, torch.Generator().manual_seed(5)).item() < 1e-10
    blind = lambda z_t, words, t, s: teacher(z_t, words, t)  # noqa: E731
    assert loss(blind, batch, torch.Generator().manual_seed(5)).item() > 1e-4


def randomised(model):
    """A fresh network answers 0 everywhere; give its last layers something to say."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    vae = ConvVAE(VAEConfig(channels=3, latent=8, widths=(8, 8, 8), vocabulary=73, caption=12))
    return randomised(VelocityNet(TINY)).eval(), vae.eval()


def test_guided_sampling_asks_twice_and_distilled_once(models):
    model, _ = models
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(6))
    words = encode_words(CAPTIONS)
    plain, free = (sampling.guided(model, w, 1.0) for w in (words, torch.zeros_like(words)))
    t = torch.full((2,), 0.3)
    expected = 2.5 * plain(noise, t) - 1.5 * free(noise, t)
    assert torch.allclose(sampling.guided(model, words, 2.5)(noise, t), expected, atol=1e-5)


def test_mean_velocities_take_one_step(models):
    torch.manual_seed(1)
    mean = randomised(VelocityNet(replace(TINY, times=("t", "r")))).eval()
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(7))
    words = encode_words(CAPTIONS)
    drawn = sample_latents(mean, CAPTIONS, noise, steps=1)
    with torch.no_grad():
        u = mean(noise, words, torch.ones(2), torch.zeros(2))
    assert torch.allclose(drawn, mean.restore(noise + u), atol=1e-5)
    with pytest.raises(ValueError, match="plain steps"):
        sample_latents(mean, CAPTIONS, noise, guidance=2.0)


def test_features_are_kept_between_steps(models):
    model, _ = models
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(8))
    every = sample_latents(model, CAPTIONS, noise, steps=6)
    kept_always = sample_latents(model, CAPTIONS, noise, steps=6, cache_every=6)
    calls = []
    deep = model.deep
    model.deep = lambda *a: calls.append(1) or deep(*a)
    half = sample_latents(model, CAPTIONS, noise, steps=6, cache_every=2)
    del model.deep
    assert len(calls) == 3
    # Less computed, further away.
    assert (half - every).norm() < (kept_always - every).norm()
    words, t = encode_words(CAPTIONS), torch.full((2,), 0.4)
    with torch.no_grad():
        velocity, _ = model.forward_cached(noise, words, t)
        assert torch.allclose(velocity, model(noise, words, t), atol=1e-5)


def test_images_come_from_the_decoder(models):
    model, vae = models
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(9))
    images = sample_flow(model, vae, CAPTIONS, noise, steps=3, solver="heun")
    latents = sample_latents(model, CAPTIONS, noise, steps=3, solver="heun")
    with torch.no_grad():
        assert torch.allclose(images, vae.decode(latents, encode_words(CAPTIONS)), atol=1e-6)
    again = sample_flow(model, vae, CAPTIONS, noise, steps=3, solver="heun")
    assert torch.equal(images, again)


def test_training_learns_a_flow(models):
    _, vae = models
    recipe = FlowRecipe(steps=250, batch=64, rate=5e-3, average=0.9)
    model = training.new_flow(TINY, 0, vae)
    generator = torch.Generator().manual_seed(3)
    batches = training.normalised(model, training.latent_batches(vae, 64, generator))
    made, done = training.train_flow(model, batches, recipe, generator, quiet=True, log_every=25)
    # Nearly white latents: the velocity's variance is 2, of which z_t explains up to 0.43.
    assert done.history["loss"][0] > 1.9 and done.history["loss"][-1] < 1.8
    assert not made.training
    z = next(training.latent_batches(vae, 500, torch.Generator().manual_seed(1))).z
    assert model.normalise(z).mean(0).abs().max() < 0.2
    assert (model.normalise(z).std(0) - 1).abs().max() < 0.2
    assert torch.allclose(model.restore(model.normalise(z)), z, atol=1e-5)


def test_reflow_pairs_are_the_teachers(models):
    model, vae = models
    batches = training.latent_batches(vae, 20, torch.Generator().manual_seed(2))
    pairs = training.reflow_pairs(model, batches, 30, steps=4)
    assert len(pairs.z) == 30
    drawn = sampling.heun(
        sampling.guided(model, pairs.words[:5], 1.0), pairs.noise[:5], even_times(4)
    )
    assert torch.allclose(drawn, pairs.z[:5], atol=1e-5)
    some = next(training.batches_of(pairs, 7, torch.Generator().manual_seed(0)))
    assert len(some.z) == 7 and len(some.words) == 7


def test_bad_input_is_named(models):
    model, _ = models
    with pytest.raises(ValueError, match="at least one step"):
        sample_latents(model, CAPTIONS, steps=0)
    with pytest.raises(ValueError, match="no solver 'rk4'"):
        sample_latents(model, CAPTIONS, solver="rk4")
    with pytest.raises(ValueError, match="noise must have shape"):
        sample_latents(model, CAPTIONS, torch.randn(1, 8))
    with pytest.raises(ValueError, match="without guidance"):
        sample_latents(model, CAPTIONS, guidance=2.0, cache_every=2)
    with pytest.raises(ValueError, match="from 1 up, got 0"):
        sample_latents(model, CAPTIONS, cache_every=0)
    with pytest.raises(ValueError, match="takes t: 1 times, not 2"):
        model(torch.zeros(1, 8), torch.zeros(1, 3).long(), torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="times is"):
        FlowConfig(times=("r",))
    with pytest.raises(CaptionError):
        sample_latents(model, ["a car"])
    with pytest.raises(ValueError, match="no flow 'nonsense'"):
        training.train_shipped_flow("nonsense")


def test_no_tensor_is_left_on_the_cpu():
    with torch.device("meta"):
        out = VelocityNet(TINY)(
            torch.zeros(2, 8), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2)
        )
    assert out.device.type == "meta" and out.shape == (2, 8)


def test_time_features_tell_times_apart():
    t = torch.linspace(0, 1, 50)
    features = time_features(t)
    distances = torch.cdist(features, features) + 10 * torch.eye(50)
    assert distances.min() > 0.1
