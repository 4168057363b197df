"""The training loop survives a kill, the models run on the meta device, the GAN resumes."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from fastgen_course.checkpoints import MODELS, build_model
from fastgen_course.datasets.captions import EMPTY, MAX_WORDS, SLOTS, held_out_mask
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.discriminator import ProjectedDiscriminator, judge_features
from fastgen_course.models.generator import CaptionEncoder, GeneratorConfig
from fastgen_course.models.judges import JudgeConfig, SlotJudge, garment_channels, slot_loss
from fastgen_course.training import TRAINERS, trainer
from fastgen_course.training.gan import GAN_RECIPE, GANTrainer
from fastgen_course.training.judges import TEMPERATURE, disturb, soft_label_loss, train_judge
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, run_path

TINY_JUDGE = JudgeConfig(channels=(8, 8, 8), convolutions=(1, 1, 1), features=16)
TINY_GENERATOR = GeneratorConfig(noise=8, caption=16, channels=(16, 8, 8))


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    """Unfinished trainings go to a folder of the test's own; the data stay where they are."""
    from fastgen_course.training import loop

    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath(*parts))


def _regression(name, steps):
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    training = Training(name, {"m": model, "o": optimiser}, generator, steps, save_every_s=0)

    def step(index):
        x = torch.randn(16, 4, generator=generator)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    return training, model, step


def test_a_killed_training_goes_on_as_if_nothing_had_happened():
    whole, expected, step = _regression("whole", 200)
    whole.run(step, quiet=True, log_every=50)
    first, _, step = _regression("killed", 200)

    def dies(index):
        if index == 120:
            raise KeyboardInterrupt
        return step(index)

    with pytest.raises(KeyboardInterrupt):
        first.run(dies, quiet=True, log_every=50)
    second, model, step = _regression("killed", 200)
    assert second.resume() and second.step == 120
    history = second.run(step, quiet=True, log_every=50)
    assert torch.equal(model.weight, expected.weight)
    assert history["step"] == [50, 100, 150, 200]
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    second.finish()
    assert not run_path("killed").exists() and not _regression("killed", 9)[0].resume()


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    training = Training("nan", {}, torch.Generator(), 10)
    with pytest.raises(FloatingPointError, match="not finite at step 5; lower the learning rate"):
        training.run(lambda index: {"loss": float("nan")}, quiet=True, log_every=5)


def test_the_running_average_is_the_formulas():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = RunningAverage(model, decay=0.5)
    expected = 1.0
    for t, value in enumerate((2.0, 4.0, -1.0), start=1):
        nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
    assert average.model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_the_rate_rises_then_falls_to_nothing():
    rates = [cosine_with_warmup(i, 1000, 100) for i in range(1001)]
    assert rates[0] == 0.01 and max(rates) == rates[99] == 1.0 and rates[1000] < 1e-6
    assert all(a >= b for a, b in itertools.pairwise(rates[99:]))


def _inputs(name, model, device):
    side = {"device": device}
    if name.startswith("judge"):
        return (torch.zeros(2, model.config.in_channels, 28, 28, **side),)
    words = torch.zeros(2, MAX_WORDS, dtype=torch.int64, **side)
    return torch.zeros(2, model.config.noise, **side), words


# The digit models and the VAEs are in test_gan_models.py and test_vae_model.py.
@pytest.mark.parametrize("name", ["generator_base", "judge_plain", "judge_report", "judge_train"])
def test_every_model_runs_on_the_meta_device(name):
    """A tensor made on the CPU inside a forward would raise there, as it would on a GPU."""
    model = build_model(name).to("meta").eval()
    outputs = model(*_inputs(name, model, "meta"))
    for tensor in outputs.values() if isinstance(outputs, dict) else [outputs]:
        assert tensor.device.type == "meta" and tensor.shape[0] == 2


def test_the_projected_discriminator_runs_on_the_meta_device():
    judge = SlotJudge(TINY_JUDGE).to("meta").eval()
    discriminator = ProjectedDiscriminator(TINY_JUDGE.channels, 16).to("meta").eval()
    images = torch.zeros(2, 3, 28, 28, device="meta")
    asked = torch.zeros(2, len(SLOTS), dtype=torch.int64, device="meta")
    logits = discriminator(judge_features(judge, images), asked)
    assert [x.device.type for x in logits] == ["meta"] * 4


def test_the_caption_encoder_ignores_padding_and_knows_order():
    encoder = CaptionEncoder(16).eval()
    words = torch.tensor([[5, 6, 7, 0, 0, 0]])
    padded = torch.cat([words, torch.zeros(1, 9, dtype=torch.int64)], 1)
    assert torch.allclose(encoder(words), encoder(padded), atol=1e-6)
    swapped = torch.tensor([[7, 6, 5, 0, 0, 0]])
    assert not torch.allclose(encoder(words), encoder(swapped), atol=1e-3)


def test_the_garment_channels_are_the_same_in_every_colour():
    shape = torch.zeros(28, 28)
    shape[8:20, 6:22] = torch.linspace(0.5, 1, 16)
    papers = torch.tensor([[0.9, 0.9, 0.9], [-0.9, -0.9, -0.9]])
    inks = torch.tensor([[-0.5, 0.1, 0.6], [0.8, -0.2, 0.1]])
    images = papers[:, :, None, None] + (inks - papers)[:, :, None, None] * shape
    (outline, shading), (_, other) = garment_channels(images)
    assert torch.equal(outline > 0, shape > 0)
    # Bright ink on black and dark ink on white shade in opposite directions, by the same amount.
    assert torch.allclose(shading, -other, atol=0.15)
    assert shading[shape > 0].std() == pytest.approx(1, abs=0.15)
    empty = torch.full((1, 3, 28, 28), 0.7, requires_grad=True)
    channels = garment_channels(empty)
    assert channels.abs().max() == 0
    channels.square().sum().backward()
    assert torch.isfinite(empty.grad).all()


def test_soft_labels_pull_towards_the_teacher_and_leave_empty_scenes_aside():
    soft = torch.tensor([[0.9] + [0.1 / 9] * 9] * 2)
    garments = torch.tensor([0, EMPTY])
    logits = torch.zeros(2, 11, requires_grad=True)
    loss = soft_label_loss(logits, soft, garments)
    expected = TEMPERATURE**2 * float((soft[0] * (soft[0] * 10).log()).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[0, 0] < 0 and (logits.grad[0, 1:10] > 0).all() and logits.grad[0, 10] == 0


def test_free_slots_do_not_count_in_the_judges_loss():
    logits = {s: torch.randn(3, len(v)) for s, v in SLOTS.items()}
    labels = torch.full((3, 5), -1)
    assert slot_loss(logits, labels) == 0
    labels[1, 2] = 4
    expected = nn.functional.cross_entropy(logits["garment"][1:2], torch.tensor([4]))
    assert slot_loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def _tiny_gan(steps=4, seed=7):
    torch.manual_seed(0)
    judge = SlotJudge(TINY_JUDGE).eval().requires_grad_(False)
    recipe = replace(GAN_RECIPE, steps=steps, batch=8, seed=seed)
    return GANTrainer("tiny", TINY_GENERATOR, recipe, judge)


def test_a_gan_step_is_deterministic_and_resumes_exactly():
    first, second = _tiny_gan(), _tiny_gan()
    first.training.run(first.step, quiet=True)
    second.training.steps = 2
    second.training.run(second.step, quiet=True)
    second.training.save()
    third = _tiny_gan()
    assert third.training.resume() and third.training.step == 2
    # Batches are drawn from the saved generator, so the pair sees the very same scenes.
    third.training.run(third.step, quiet=True)
    for a, b in zip(first.model.parameters(), third.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_packs_share_a_caption_and_tell_a_repeated_picture_from_two():
    batch = next(scene_batches("train", 8, torch.Generator().manual_seed(1), repeats=2))
    for tensor in (batch.words, batch.labels, batch.asked):
        assert torch.equal(tensor[::2], tensor[1::2])
    assert not any(
        torch.equal(a, b) for a, b in zip(batch.photos[::2], batch.photos[1::2], strict=True)
    )
    torch.manual_seed(0)
    judge = SlotJudge(TINY_JUDGE).eval()
    packed = ProjectedDiscriminator(TINY_JUDGE.channels, 16, pack=2).eval()
    same = batch.images[::2].repeat_interleave(2, 0)
    two, one = (packed(judge_features(judge, x), batch.asked) for x in (batch.images, same))
    assert all(x.shape[0] == 4 for x in two)
    assert not any(torch.allclose(a, b) for a, b in zip(two, one, strict=True))
    with pytest.raises(ValueError, match="repeats=3 does not divide a batch of 8"):
        next(scene_batches("train", 8, torch.Generator(), repeats=3))


def test_the_gan_never_sees_a_held_out_combination():
    trainer_ = _tiny_gan()
    seen = []
    original = trainer_.batches

    def watched():
        for batch in original:
            seen.append(batch.labels)
            yield batch

    trainer_.batches = watched()
    for index in range(4):
        trainer_.step(index)
    assert len(seen) == 4 and not held_out_mask(torch.cat(seen)).any()


def test_each_training_exists_and_an_unknown_one_is_named():
    for name in TRAINERS:
        assert name in MODELS and callable(trainer(name))
    with pytest.raises(ValueError, match="there is no training 'gpt9'; choose from"):
        trainer("gpt9")
    with pytest.raises(KeyError):
        train_judge("generator_base")


def test_disturbed_scenes_stay_near_and_half_of_them_are_untouched_by_each_fault():
    generator = torch.Generator().manual_seed(3)
    edge = torch.full((400, 3, 28, 28), -0.5)
    edge[..., 14:] = 0.5
    disturbed = disturb(edge, generator)
    assert disturbed.abs().max() <= 1
    difference = (disturbed - edge).flatten(1)
    untouched = (difference.abs().max(1).values == 0).float().mean()
    assert untouched == pytest.approx(0.25, abs=0.07)  # neither noise nor blur
    far = (disturbed - edge)[..., :5].flatten(1).std(1)  # away from the edge there is noise alone
    assert (far == 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert 0.13 < far.max() < 0.16
    assert (disturbed.mean((0, 1, 2))[13:15] - torch.tensor([-0.45, 0.45])).abs().max() < 0.06
