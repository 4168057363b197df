"""The shipped VAEs do what notebook 02 says of them, with margin, and so do its records."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import FREE
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.judges import label_slots
from fastgen_course.sampling.vae import edit_latent, reconstruct, sample_vae
from fastgen_course.timing import result
from fastgen_course.training.vae import ACTIVE_NATS, evaluate_vae, latent_usage
from fastgen_course.training.vae_records import (
    SWEEP_BETAS,
    digit_frechet,
    main,
    record_gap,
    recorded_sweep,
    recorded_without_sampling,
    sweep_name,
)


@pytest.fixture(scope="module")
def digits():
    return load_digits_subset("test").images


@pytest.fixture(scope="module")
def scenes():
    batches = scene_batches("test", 200, torch.Generator().manual_seed(3), free_share=0.0)
    return next(batches)


def test_digit_vae_reconstructs_and_has_dead_latents(digits):
    model = load_model("vae_digits")
    figures = evaluate_vae(model, digits)
    card = load_card("vae_digits")["metrics"]
    assert figures["mse"] == pytest.approx(card["test_mse"], rel=0.05)
    assert figures["mse"] < 0.12 < digits.var(0).mean().item() / 2
    dead = int((latent_usage(model, digits) < ACTIVE_NATS).sum())
    assert 1 <= dead <= 24
    # sigma has followed the error of training pictures, as its derivative says it should.
    assert model.sigma.item() == pytest.approx(figures["mse"] ** 0.5, rel=0.25)


def test_digit_samples_lie_between_training_digits_and_noise(digits):
    model = load_model("vae_digits")
    samples = sample_vae(model, n=500, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    real = digit_frechet(load_digits_subset("train").images[:500])
    assert real < digit_frechet(samples) < 0.2 * digit_frechet(noise)


def test_fashion_vae_draws_what_the_caption_says(scenes):
    model, judge = load_model("vae_fashion"), load_model("judge_train")
    drawn = sample_vae(model, scenes.words, generator=torch.Generator().manual_seed(4))
    applies = scenes.labels != FREE
    right = label_slots(judge, drawn) == scenes.labels
    colour, background = (right[applies[:, i], i].float().mean().item() for i in (1, 3))
    assert colour > 0.8
    assert background > 0.8
    again = label_slots(judge, reconstruct(model, scenes.images, scenes.words)) == scenes.labels
    assert again.float().mean() > right.float().mean() > 0.6


def test_fashion_edits_come_nearer_to_the_exact_answer(scenes):
    from fastgen_course.datasets.captions import attributes_of, encode_words, render
    from fastgen_course.datasets.compose import compose

    model = load_model("vae_fashion")
    rows = scenes.labels[:, 1] >= 0
    before, after = scenes.labels[rows], scenes.labels[rows].clone()
    after[:, 1] = (after[:, 1] + 3) % 8
    words = [encode_words([render(y) for y in attributes_of(v)]) for v in (before, after)]
    targets = compose(scenes.photos[rows], after).images
    edited = edit_latent(model, scenes.images[rows], *words)
    untouched = (scenes.images[rows] - targets).pow(2).mean()
    assert (edited - targets).pow(2).mean() < 0.5 * untouched


def test_the_recorded_sweep_says_what_the_notebook_says():
    sweep = recorded_sweep()
    points = [sweep[beta] for beta in SWEEP_BETAS]
    assert [p.rate for p in points] == sorted((p.rate for p in points), reverse=True)
    assert [p.mse for p in points] == sorted(p.mse for p in points)
    best = min(p.frechet for p in points)
    assert best < points[0].frechet  # neither end is best
    assert best < points[-1].frechet
    # Without sampling the code claims more than its nats can carry.
    without = recorded_without_sampling()
    assert without.rate < 0.3 * sweep[10.0].rate
    assert without.mse_mean < sweep[10.0].mse_mean
    assert without.mse > 3 * sweep[10.0].mse
    assert without.code_std < sweep[10.0].code_std
    assert float(result("vae.digits_frechet.floor")) < best


def test_gap_error_is_rounding(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "fastgen_course.timing.results.data_path", lambda *parts: tmp_path.joinpath(*parts)
    )
    assert record_gap() < 1e-9
    assert float(result("vae.elbo_gap_error")) < 1e-9


def test_recorders_are_named(capsys):
    assert main(["nothing"]) == 2
    assert "gap, sweep, fashion" in capsys.readouterr().out
    assert sweep_name("rate", 0.25) == "vae.digits_rate.beta_0_25"
    assert sweep_name("rate", 4.0, sampled=False) == "vae.digits_rate.no_sampling"
