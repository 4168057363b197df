"""The convolutional VAE: shapes, captions, training, sampling, checkpoints, the widget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastgen_course.datasets.captions import VOCABULARY, encode_words
from fastgen_course.models.vae import VAE_DIGITS, VAE_FASHION, VAE_TINY, VAEConfig
from fastgen_course.sampling.vae import edit_latent, reconstruct, sample_vae, traverse
from fastgen_course.training.elbo import elbo_terms, kl_divergence, use_mean
from fastgen_course.training.vae import (
    VAERecipe,
    digit_batches,
    evaluate_vae,
    fashion_batches,
    latent_usage,
    new_vae,
    train_shipped_vae,
    train_vae,
)
from fastgen_course.widgets.latents import latent_order, latent_sliders, traversal_figure

CAPTIONS = [
    "a red dress on a pale blue background, photo style",
    "a small blue boot on a white background, sketch style",
]
PLAIN = replace(VAE_TINY, channels=1, vocabulary=0)
RECIPE = VAERecipe(steps=6, batch=8, beta=1.0, learning_rate=2e-3, seed=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def captioned():
    return new_vae(VAE_TINY, seed=1).eval()


@pytest.fixture(scope="module")
def plain():
    return new_vae(PLAIN, seed=1).eval()


@pytest.mark.parametrize("config", [VAE_DIGITS, VAE_FASHION, VAE_TINY, PLAIN])
def test_meta_device_forward(config):
    model = new_vae(config, 0).to("meta")
    images = torch.empty(2, config.channels, 28, 28, device="meta")
    noise = torch.empty(2, config.latent, device="meta")
    words = torch.ones(2, 20, dtype=torch.int64, device="meta") if config.vocabulary else None
    assert model(images, noise, words).shape == images.shape
    terms = elbo_terms(model, images, noise, words)
    assert terms.elbo.device.type == "meta"
    assert terms.elbo.shape == (2,)


def test_the_captioned_prior_starts_as_the_standard_normal(captioned):
    words = encode_words(CAPTIONS)
    mu, logvar = captioned.prior(torch.zeros(2, 4), words)
    assert mu.abs().max() == 0
    assert logvar.abs().max() == 0
    assert VAE_FASHION.vocabulary == len(VOCABULARY)


def test_the_encoder_never_sees_the_caption():
    """A flow over z can take the prior's place, and the words reach prior and decoder."""
    model = new_vae(VAE_TINY, seed=2)
    torch.nn.init.normal_(model.caption_prior[-1].weight)
    model.eval()
    words = encode_words(CAPTIONS)
    images = torch.rand(2, 3, 28, 28, generator=generator()) * 2 - 1
    model.encode(images)[0].sum().backward()
    assert all(p.grad is None for p in model.caption_encoder.parameters())
    mu, _ = model.prior(torch.zeros(2, 4), words)
    assert (mu[0] - mu[1]).abs().max() > 1e-3
    right = elbo_terms(model, images, torch.zeros(2, 4), words)
    swapped = elbo_terms(model, images, torch.zeros(2, 4), words.flip(0))
    assert (right.log_likelihood - swapped.log_likelihood).abs().max() > 1e-3
    assert (right.kl - swapped.kl).abs().max() > 1e-3


def test_training_lowers_the_loss_and_ends_in_eval_mode():
    model = new_vae(PLAIN, seed=0)
    recipe = replace(RECIPE, steps=60, batch=32, learning_rate=1e-2)
    g = generator()
    history = train_vae(model, digit_batches(32, g), recipe, g, log_every=10, quiet=True)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["step"][-1] == 60
    assert not model.training


def test_training_is_deterministic_and_uses_the_readers_pieces():
    def train(**pieces):
        model, g = new_vae(PLAIN, seed=0), generator(3)
        train_vae(model, digit_batches(8, g), RECIPE, g, quiet=True, **pieces)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def twice(mu, logvar):  # only two arguments, as a reader writes it
        return 2.0 * kl_divergence(mu, logvar)

    reference = train()
    assert torch.equal(reference, train())
    assert not torch.allclose(reference, train(kl=twice))
    assert not torch.allclose(reference, train(sample=use_mean))
    assert not torch.allclose(reference, train(log_likelihood=lambda x, m, s: -x.sum((1, 2, 3))))


def test_a_killed_training_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr("fastgen_course.training.loop.data_path", lambda *p: tmp_path.joinpath(*p))

    class KilledError(Exception):
        pass

    def run(stop_at: int | None) -> torch.Tensor:
        g, model = generator(4), new_vae(VAE_TINY, seed=0)

        def stop(training) -> None:
            if training.step == stop_at:
                training.save()
                raise KilledError

        train_vae(
            model,
            fashion_batches(4, g),
            RECIPE,
            g,
            name="vae_test",
            log_every=1,
            quiet=True,
            on_log=stop,
        )
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    whole = run(None)
    (tmp_path / "runs" / "vae_test.pt").unlink()
    with pytest.raises(KilledError):
        run(3)
    torch.testing.assert_close(run(None), whole)


def test_sampling_is_deterministic_and_checks_its_input(captioned, plain):
    first = sample_vae(captioned, CAPTIONS, generator=generator(5))
    assert first.shape == (2, 3, 28, 28)
    assert first.abs().max() <= 1
    assert torch.equal(first, sample_vae(captioned, encode_words(CAPTIONS), generator=generator(5)))
    assert sample_vae(plain, n=3, generator=generator()).shape == (3, 1, 28, 28)
    cold = sample_vae(plain, n=2, generator=generator(), temperature=0.0)
    torch.testing.assert_close(cold[0], cold[1])
    with pytest.raises(ValueError, match="at least one picture"):
        sample_vae(plain, n=0)
    with pytest.raises(ValueError, match="noise of shape"):
        sample_vae(plain, noise=torch.zeros(2, 9))
    with pytest.raises(ValueError, match="give it words"):
        sample_vae(captioned, n=2)
    with pytest.raises(ValueError, match="shape"):
        reconstruct(captioned, torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match="latent 4 does not exist"):
        traverse(plain, torch.zeros(4), 4, [0.0])


def test_an_edit_to_the_same_caption_changes_nothing():
    model = new_vae(VAE_TINY, seed=2).eval()
    torch.nn.init.normal_(model.caption_prior[-1].weight)
    images = torch.rand(2, 3, 28, 28, generator=generator()) * 2 - 1
    same = edit_latent(model, images, CAPTIONS, CAPTIONS)
    torch.testing.assert_close(same, reconstruct(model, images, CAPTIONS))
    other = edit_latent(model, images, CAPTIONS, CAPTIONS[::-1])
    assert not torch.allclose(other, same)


def test_latent_usage_finds_the_dead_latent(plain):
    with torch.no_grad():
        last = plain.encoder[-1]
        last.weight[1] = 0.0  # mu of latent 1
        last.bias[1] = 0.0
        last.weight[5] = 0.0  # its logvar
        last.bias[5] = 0.0
    images = next(digit_batches(16, generator()))[0]
    usage = latent_usage(plain, images)
    assert usage[1] == 0
    assert latent_order(usage)[-1] == 1
    assert evaluate_vae(plain, images)["rate"] == pytest.approx(usage.sum().item(), rel=1e-4)


def test_sliders_redraw_the_picture_and_say_what_is_wrong(plain, captioned):
    usage = torch.tensor([0.1, 3.0, 0.0, 1.0])
    box = latent_sliders(plain, usage, count=3)
    row, _ = box.children
    left, picture = row.children
    sliders = left.children[:-1]
    assert [s.description.split(",")[0] for s in sliders] == ["z[1]", "z[3]", "z[0]"]
    before = bytes(picture.value)
    assert before.startswith(b"\x89PNG")
    sliders[0].value = 2.0
    moved = bytes(picture.value)
    assert moved != before
    left.children[-1].children[1].click()  # the prior's mean
    assert bytes(picture.value) == before
    left.children[-1].children[0].click()  # another picture
    assert bytes(picture.value) != before
    broken = latent_sliders(captioned, usage)  # a model with captions, and no words given
    assert "give it words" in broken.children[1].value
    with pytest.raises(ValueError, match="one usage a latent"):
        latent_sliders(plain, usage[:2])


def test_traversal_figure_names_its_rows(captioned):
    words = encode_words(CAPTIONS[:1])
    fig = traversal_figure(
        captioned, torch.tensor([0.1, 3.0, 0.0, 1.0]), words=words, rows=[1, 2], columns=3
    )
    labels = [axis.get_ylabel() for axis in fig.axes]
    assert labels[0] == "z[1]  3.00 nats"
    assert labels[3] == "z[2]  0.00 nats"


def test_bad_configurations_are_named():
    with pytest.raises(ValueError, match="sigma must be positive"):
        VAEConfig(sigma=0.0)
    with pytest.raises(ValueError, match="one latent"):
        VAEConfig(latent=0)
    with pytest.raises(ValueError, match="cannot be negative"):
        replace(RECIPE, beta=-1.0)
    with pytest.raises(ValueError, match="at least one batch"):
        replace(RECIPE, steps=0)
    with pytest.raises(ValueError, match="there is no VAE"):
        train_shipped_vae("vae_nothing")
