"""Networks and training of notebook 01: shapes, determinism, resuming, refusals."""

import numpy as np
import pytest
import torch

from fastgen_course.models.dcgan import (
    DCGAN_DIGITS,
    DCGAN_TINY,
    DCGANDiscriminator,
    DCGANGenerator,
)
from fastgen_course.models.digit_judge import DIGIT_JUDGE, DIGIT_JUDGE_TINY, DigitJudge
from fastgen_course.models.ring import RING_MLP, RING_TINY, RingDiscriminator, RingGenerator
from fastgen_course.training import dcgan, ring
from fastgen_course.training.dcgan import DCGANRecipe, grid_labels, sample_digits, train_dcgan
from fastgen_course.training.digit_judge import batches, digit_judge_training, random_shift
from fastgen_course.training.gan_losses import saturating_loss
from fastgen_course.training.vanishing import vanishing_gradients

TINY = DCGANRecipe(steps=4, batch=5, pictures=2)


@pytest.fixture
def digits():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 28, 28, generator=generator) * 2 - 1
    return images, torch.arange(20) % 10


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))


def test_every_model_passes_on_the_meta_device():
    """A tensor made on the CPU inside a forward would fail here as it would on a GPU."""
    labels = torch.zeros(3, dtype=torch.int64, device="meta")
    images = torch.empty(3, 1, 28, 28, device="meta")
    noise = torch.empty(3, DCGAN_DIGITS.noise, device="meta")
    assert DCGANGenerator(DCGAN_DIGITS).to("meta")(noise, labels).shape == (3, 1, 28, 28)
    assert DCGANDiscriminator(DCGAN_DIGITS).to("meta")(images, labels).shape == (3,)
    assert DigitJudge(DIGIT_JUDGE).to("meta")(images).shape == (3, 10)
    points = torch.empty(3, 2, device="meta")
    assert RingGenerator(RING_MLP).to("meta")(points).shape == (3, 2)
    assert RingDiscriminator(RING_MLP).to("meta")(points).shape == (3,)


def test_generator_draws_in_range_and_the_label_matters():
    model = DCGANGenerator(DCGAN_TINY).eval()
    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    zero, one = (model(noise, torch.full((2,), digit)) for digit in (0, 1))
    assert zero.shape == (2, 1, 28, 28)
    assert zero.abs().max() <= 1
    assert not torch.equal(zero, one)


def test_discriminator_is_linear_score_plus_projection():
    model = DCGANDiscriminator(DCGAN_TINY).eval()
    images, labels = torch.rand(3, 1, 28, 28), torch.tensor([0, 4, 9])
    hidden = model.features(images)
    by_hand = hidden @ model.score.weight[0] + model.score.bias
    by_hand = by_hand + torch.einsum("bd,bd->b", model.embed.weight[labels], hidden)
    torch.testing.assert_close(model(images, labels), by_hand)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_label_out_of_range_is_named(wrong):
    labels = torch.tensor([0, wrong])
    with pytest.raises(ValueError, match=f"label {wrong} is out of range"):
        DCGANGenerator(DCGAN_TINY)(torch.zeros(2, 4), labels)
    with pytest.raises(ValueError, match="0 to 9"):
        DCGANDiscriminator(DCGAN_TINY)(torch.zeros(2, 1, 28, 28), labels)


def test_judge_features_feed_its_head():
    judge = DigitJudge(DIGIT_JUDGE_TINY).eval()
    images = torch.rand(2, 1, 28, 28)
    assert judge.features(images).shape == (2, 4)
    torch.testing.assert_close(judge(images), judge.head(judge.features(images)))


def test_shift_moves_whole_pixels_and_pads_with_background():
    image = torch.full((200, 1, 5, 5), -1.0)
    image[:, :, 2, 2] = 1.0
    moved = random_shift(image, 1, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sum((1, 2, 3)), image.sum((1, 2, 3)))
    rows = moved.amax((1, 3)).argmax(1)
    assert set(rows.tolist()) == {1, 2, 3}
    assert torch.equal(random_shift(image, 0, torch.Generator()), image)


def test_batches_cover_an_epoch_and_refuse_the_impossible():
    draw = batches(10, 5, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(draw), next(draw)])
    assert sorted(epoch.tolist()) == list(range(10))
    for batch in (0, 11):
        with pytest.raises(ValueError, match="cannot be drawn"):
            next(batches(10, batch, torch.Generator()))


def test_judge_learns_what_it_is_shown(digits):
    images, labels = digits
    judge, _ = digit_judge_training(
        images, labels, config=DIGIT_JUDGE_TINY, steps=3, batch=10, quiet=True
    )
    assert not judge.training
    again, _ = digit_judge_training(
        images, labels, config=DIGIT_JUDGE_TINY, steps=3, batch=10, quiet=True
    )
    torch.testing.assert_close(judge(images), again(images), rtol=0, atol=0)


def test_dcgan_training_is_deterministic_and_keeps_its_grids(digits):
    runs = [train_dcgan(*digits, recipe=TINY, config=DCGAN_TINY, quiet=True) for _ in range(2)]
    for a, b in zip(runs[0].generator.parameters(), runs[1].generator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(runs[0].grids) == [2, 4]
    assert runs[0].grids[4].shape == (100, 1, 28, 28)
    assert not torch.equal(runs[0].grids[2], runs[0].grids[4])
    history = runs[0].history
    assert history["step"][-1] == 4
    assert all(0 < d < 1 for d in history["d_real"] + history["d_fake"])


def test_dcgan_takes_a_readers_loss(digits):
    usual = train_dcgan(*digits, recipe=TINY, config=DCGAN_TINY, quiet=True)
    other = train_dcgan(
        *digits, recipe=TINY, config=DCGAN_TINY, generator_loss=saturating_loss, quiet=True
    )
    assert not torch.equal(usual.grids[4], other.grids[4])


def test_dcgan_leaves_nothing_behind_and_does_not_touch_global_randomness(digits, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_dcgan(*digits, recipe=TINY, config=DCGAN_TINY, quiet=True)
    assert torch.equal(torch.rand(1), expected)
    assert not list(tmp_path.rglob("*.p*t"))


def test_sampling_is_by_label_and_repeatable():
    model = DCGANGenerator(DCGAN_TINY).train()
    a, b = (
        sample_digits(model, grid_labels(2), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(a, b)
    assert a.shape == (20, 1, 28, 28)
    assert model.training


def test_grids_come_back_as_they_were_saved(tmp_path):
    grids = {7: torch.rand(100, 1, 28, 28) * 2 - 1, 3: torch.zeros(100, 1, 28, 28)}
    dcgan.save_grids(grids)
    back = dcgan.load_grids()
    assert list(back) == [3, 7]
    torch.testing.assert_close(back[7], grids[7], rtol=0, atol=1 / 127.5)


def test_missing_grids_are_named():
    with pytest.raises(OSError, match="dcgan_grids"):
        dcgan.load_grids()


def test_ring_itself_scores_full_marks():
    quality = ring.ring_quality(ring.ring_sample(8000, torch.Generator().manual_seed(0)))
    assert quality.covered == 8
    # A Gaussian in the plane lies within three deviations with probability 1 - exp(-9 / 2).
    assert quality.share == pytest.approx(1 - np.exp(-4.5), abs=0.005)


def test_ring_quality_counts_modes_and_stray_points():
    centres = ring.ring_centres()
    points = torch.cat([centres[:3].repeat(20, 1), torch.zeros(40, 2)])
    assert ring.ring_quality(points) == (3, pytest.approx(0.6))


def test_step_cost_counts_every_matrix_product():
    """One hidden layer of 8: products of 2*8 and 8*1 weights a point, by hand."""
    forward_d = 2 * (2 * 8 + 8 * 1)
    forward_g = 2 * (2 * 8 + 8 * 2)
    backward_d = 2 * forward_d - 2 * 2 * 8  # no gradient of D with respect to points
    d_step = forward_g + 2 * (forward_d + backward_d)
    # In G's step D's weights get no gradient, and neither does the noise.
    g_step = forward_g + forward_d + forward_d + 2 * forward_g - 2 * 2 * 8
    cost = ring.step_gflops(ring.REMEDIES["nonsaturating"], config=RING_TINY, batch=10)
    assert cost * 1e9 == 10 * (d_step + g_step)


def test_remedies_get_equal_compute_and_are_deterministic():
    budgets = {}
    for name, remedy in ring.REMEDIES.items():
        cost = ring.step_gflops(remedy, config=RING_TINY, batch=8)
        runs = [
            ring.train_ring(remedy, gflops=9 * cost, config=RING_TINY, batch=8, samples=20)
            for _ in range(2)
        ]
        assert runs[0].steps in (8, 9)
        last = runs[0].snapshots[runs[0].steps]
        assert torch.isfinite(last).all()
        assert torch.equal(last, runs[1].snapshots[runs[1].steps])
        budgets[name] = cost
    assert budgets["wgan_gp"] > budgets["r1"] > budgets["nonsaturating"]


def test_ring_refuses_a_budget_that_pays_for_nothing():
    with pytest.raises(ValueError, match="raise gflops"):
        ring.train_ring(ring.REMEDIES["r1"], gflops=1e-9, config=RING_TINY)


def test_only_the_saturating_gradient_vanishes():
    seen = vanishing_gradients(steps=60, every=60, batch=128, seed=0)
    assert seen["d_fake"][-1] < 0.2 < seen["d_fake"][0]
    before = seen["nonsaturating"][0] / seen["saturating"][0]
    after = seen["nonsaturating"][-1] / seen["saturating"][-1]
    assert after > 5 * before
