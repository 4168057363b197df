"""The refined decoder and the one-step student on tiny networks: what moves, what must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastgen_course import checkpoints
from fastgen_course.datasets.captions import encode_words
from fastgen_course.datasets.scenes import captions_of, draw_labels, real_scenes, scene_batches
from fastgen_course.models.flow import FlowConfig, VelocityNet
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.vae import ConvVAE, VAEConfig
from fastgen_course.sampling.flow import FLOW_SAMPLING, even_times, guided, heun, sample_latents
from fastgen_course.training import TRAINERS, flow_student, loop, trainer, vae_refined
from fastgen_course.training import flow as flows
from fastgen_course.training.flow import bank_batches, latent_bank, with_scale
from fastgen_course.training.flow_student import StudentRecipe, StudentTrainer, one_step
from fastgen_course.training.vae_refined import (
    RefinedRecipe,
    reconstruct,
    reconstruction_metrics,
    refine_decoder,
)

TINY = FlowConfig(latent=8, width=16, blocks=3, condition=12, caption=10)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def new_vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VAEConfig(channels=3, latent=8, widths=(8, 8, 8), vocabulary=73, caption=12)
        return ConvVAE(config).eval()


def new_net(seed=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VelocityNet(TINY)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.normal_(std=0.2)
    return model.eval()


@pytest.fixture
def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        return SlotJudge(config).eval()


def pairs_of(model, n=60, seed=3):
    batch = next(flows.latent_batches(new_vae(), n, seeded(seed)))
    return batch._replace(z=batch.z * 0 + one_step(model, batch.noise, batch.words).detach() + 0.5)


# --- the bank of latent vectors -------------------------------------------------------------------


def test_the_bank_holds_what_the_encoder_says():
    vae = new_vae()
    bank = latent_bank(vae, 30, seed=4)
    scenes = next(scene_batches("train", 30, seeded(4)))
    with torch.no_grad():
        mu, logvar = vae.encode(scenes.images)
    assert torch.allclose(bank.mu, mu, atol=1e-5) and torch.allclose(bank.logvar, logvar, atol=1e-5)
    assert torch.equal(bank.words, scenes.words) and torch.equal(bank.labels, scenes.asked)
    assert len(latent_bank(vae, 501, seed=4).mu) == 501


def test_bank_batches_draw_z_anew():
    bank = latent_bank(new_vae(), 3, seed=5)
    batch = next(bank_batches(bank, 3000, seeded(6)))
    for row in range(3):
        here = (batch.words == bank.words[row]).all(1) & (batch.labels == bank.labels[row]).all(1)
        z = batch.z[here]
        assert 800 < len(z) < 1200
        deviation = (0.5 * bank.logvar[row]).exp()
        assert ((z.mean(0) - bank.mu[row]) / deviation).abs().max() < 0.2
        assert (z.std(0) / deviation - 1).abs().max() < 0.2
    assert batch.noise.mean().abs() < 0.05 and (batch.noise.std() - 1).abs() < 0.05
    ours, theirs = batch.noise.flatten(), ((batch.z - batch.z.mean(0)) / batch.z.std(0)).flatten()
    assert (ours * theirs).mean().abs() < 0.05  # the coupling is independent


# --- networks made from the teacher ---------------------------------------------------------------


def test_a_network_with_a_scale_starts_as_its_teacher():
    teacher = new_net()
    model = with_scale(teacher)
    z = torch.randn(5, 8, generator=seeded(7))
    words = encode_words(["a red boot"] * 5)
    t, s = torch.rand(2, 5, generator=seeded(8))
    with torch.no_grad():
        assert torch.allclose(model(z, words, t, 1 + 3 * s), teacher(z, words, t), atol=1e-6)
        model.condition[0].weight[:, -64:].normal_()
        moved = (model(z, words, t, 1 + 3 * s) - teacher(z, words, t)).abs().max()
    assert moved > 1e-4


def test_pairs_are_drawn_as_the_course_draws():
    teacher, vae = new_net(), new_vae()
    pairs = flows.teacher_pairs(teacher, vae, 12, seed=9)
    velocity = guided(teacher, pairs.words, FLOW_SAMPLING["guidance"])
    with torch.no_grad():
        expected = heun(velocity, pairs.noise, even_times(16))
    assert torch.allclose(pairs.z, expected, atol=1e-5)


# --- the refined decoder --------------------------------------------------------------------------


def test_only_the_decoder_learns_and_it_gets_nearer(judge):
    before = new_vae()
    labels = draw_labels(80, seeded(10))
    images = real_scenes(labels, "train", seeded(10))
    words = encode_words(captions_of(labels))

    def error(vae):
        return (reconstruct(vae, images, words, seeded(11)) - images).square().mean().item()

    recipe = RefinedRecipe(steps=30, batch=16, rate=3e-2, average=0.5)
    after, training = refine_decoder(new_vae(), judge, recipe, quiet=True, log_every=10)
    assert error(after) < 0.96 * error(before)
    old, new = before.state_dict(), after.state_dict()
    for key in old:
        same = torch.equal(old[key], new[key])
        assert same == (not key.startswith("decoder")) or "num_batches" in key, key
    assert set(training.history) == {"step", "mse", "features", "slots", "d_loss"}
    assert training.history["mse"][-1] < training.history["mse"][0]


def test_reconstruction_metrics_count_what_the_judge_reads(judge, monkeypatch):
    real = real_scenes(draw_labels(40, seeded(5)), "test", seeded(5))

    def read(_judge, images):
        """A judge that reads real pictures rightly and any other as the first labels."""
        generator = seeded(5)
        labels = draw_labels(40, generator)
        same = len(images) == 40 and torch.equal(images, real_scenes(labels, "test", generator))
        return labels if same else torch.zeros_like(labels)

    monkeypatch.setattr(vae_refined, "label_slots", read)
    found = reconstruction_metrics(new_vae(), judge, n=40)
    assert found["judge_train_exact_real"] == 1.0 and found["judge_train_exact"] == 0.0
    assert 0.01 < found["test_mse"] < 1 and len(real) == 40


# --- the student ----------------------------------------------------------------------------------


def test_one_step_is_what_the_sampler_draws():
    model = new_net()
    noise = torch.randn(2, 8, generator=seeded(12))
    captions = ["a red boot", "a small green bag on a white background"]
    with torch.no_grad():
        z = one_step(model, noise, encode_words(captions))
    drawn = sample_latents(model, captions, noise, steps=1)
    assert torch.allclose(model.restore(z), drawn, atol=1e-6)


def test_the_coupling_is_the_distance_to_the_teachers_pairs(judge):
    model = new_net()
    recipe = StudentRecipe(steps=2, batch=8, pairs=16)
    student = StudentTrainer(model, new_vae(), judge, pairs_of(model), recipe)
    assert student.held().item() == pytest.approx(0.25, abs=1e-4)  # every pair is 0.5 away


def test_the_student_learns_from_its_pairs_and_leaves_the_others_alone(judge):
    model, vae = new_net(), new_vae()
    recipe = StudentRecipe(
        steps=25, batch=4, pairs=64, rate=5e-2, coupling=50.0, slot_weight=0.0, average=0.5
    )
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    judged = {k: v.clone() for k, v in judge.state_dict().items()}
    student = StudentTrainer(model, vae, judge, pairs_of(model), recipe)
    made = student.run(quiet=True, log_every=5)
    history = student.training.history
    assert history["coupling"][-1] < 0.7 * history["coupling"][0]
    assert not made.training and not any(p.requires_grad for p in made.parameters())
    assert all(torch.equal(v, vae.state_dict()[k]) for k, v in before.items())
    assert all(torch.equal(v, judge.state_dict()[k]) for k, v in judged.items())
    assert 0 <= student.check(40)["exact"] <= student.check(40)["slots"] <= 1


def test_the_discriminator_learns_and_steers_the_student(judge):
    model, before = new_net(), new_net()
    recipe = StudentRecipe(
        steps=30, batch=8, pairs=4, rate=1e-3, coupling=0.0, slot_weight=0.0, average=0.5
    )
    student = StudentTrainer(model, new_vae(), judge, pairs_of(model), recipe)
    student.run(quiet=True, log_every=5)
    d_loss = student.training.history["d_loss"]
    assert d_loss[0] == pytest.approx(8.0, abs=1.5)  # four heads that cannot tell: 1 + 1 each
    assert d_loss[-1] < 0.96 * d_loss[0]
    moved = (model.out.weight - before.out.weight).abs().max()
    assert 1e-4 < moved < 0.1


def test_a_killed_student_goes_on_as_if_nothing_had_happened(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    recipe = StudentRecipe(steps=6, batch=8, pairs=8)

    def fresh():
        model = new_net()
        return StudentTrainer(model, new_vae(), judge, pairs_of(model), recipe, "flow_student")

    whole = fresh().run(quiet=True)
    killed = fresh()
    killed.training.steps = 3
    killed.run(quiet=True)
    killed.training.save()
    again = fresh()
    assert again.training.resume() and again.training.step == 3
    for ours, theirs in zip(again.run(quiet=True).parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


# --- shipped --------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch, judge):
    """Tiny stand-ins for the shipped models; what is trained goes to an empty folder."""
    for module in (checkpoints, loop):
        monkeypatch.setattr(module, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(checkpoints, "require", lambda name, *_: tmp_path / name)
    made = {"vae_fashion": new_vae, "vae_refined": new_vae, "judge_train": lambda: judge}

    def load(name):
        if (tmp_path / "weights" / f"{name}.json").is_file():
            return checkpoints.load_model(name)
        return made[name]().requires_grad_(False)

    for module in (flows, flow_student, vae_refined):
        monkeypatch.setattr(module, "load_model", load)
    small = flows.FlowRecipe(steps=2, batch=8)
    monkeypatch.setattr(flows, "FLOW_RECIPE", small)
    monkeypatch.setattr(flows, "FLOW", TINY)
    monkeypatch.setattr(flows, "SCENES", 20)
    monkeypatch.setattr(flows, "PAIRS", 10)
    monkeypatch.setattr(flows, "replace", lambda x, **c: replace(x, **c | _few(x)))
    monkeypatch.setattr(flow_student, "PAIRS", 10)
    monkeypatch.setattr(flow_student, "STUDENT_RECIPE", StudentRecipe(steps=2, batch=8, pairs=8))
    monkeypatch.setattr(vae_refined, "REFINED_RECIPE", RefinedRecipe(steps=2, batch=8))
    return tmp_path


def _few(value):
    return {"steps": 2} if isinstance(value, flows.FlowRecipe) else {}


def test_everything_of_notebook_08_trains_and_ships_in_order(shipped, monkeypatch):
    told = {"command": "", "data_sha256": "", "minutes": 0, "machine": {}, "metrics": {}}
    checkpoints.save_checkpoint("vae_fashion", new_vae(), {"seed": 0, **told})
    monkeypatch.setattr(vae_refined, "reconstruction_metrics", lambda *a: {"test_mse": 0.1})
    monkeypatch.setattr(StudentTrainer, "check", lambda self, n=0: {"exact": 0.5, "slots": 0.9})
    order = ("vae_refined", "flow", "flow_guided", "flow_mean", "flow_reflow", "flow_student")
    for name in order:
        card = trainer(name)(name, quiet=True)
        assert card["command"] == f"python -m fastgen_course train {name}"
        assert (shipped / "weights" / f"{name}.safetensors").is_file()
        assert name in TRAINERS and name in checkpoints.MODELS
    times = {n: checkpoints.load_model(n).config.times for n in order[1:]}
    assert times == {
        "flow": ("t",),
        "flow_guided": ("t", "s"),
        "flow_mean": ("t", "r"),
        "flow_reflow": ("t",),
        "flow_student": ("t",),
    }
    flow, reflow = (checkpoints.load_model(n) for n in ("flow", "flow_reflow"))
    assert torch.equal(flow.mean, reflow.mean) and flow.mean.abs().max() > 0
