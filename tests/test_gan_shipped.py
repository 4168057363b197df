"""What notebook 01 ships: weights that do what their cards say, and the recorded figures."""

import pytest
import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.metrics import digit_accuracy
from fastgen_course.timing import result
from fastgen_course.training.dcgan import asked_for_accuracy, load_grids
from fastgen_course.training.digit_judge import digits_sha256
from fastgen_course.training.ring import REMEDIES, load_ring_points, ring_quality


def test_digit_judge_reads_the_test_digits():
    accuracy = float(digit_accuracy(*load_digits_subset("test")))
    assert accuracy >= 0.97
    assert accuracy == pytest.approx(load_card("digit_judge")["metrics"]["accuracy"], abs=0.003)


@pytest.mark.parametrize("name", ["digit_judge", "dcgan_digits"])
def test_cards_name_the_data_they_were_trained_on(name):
    assert load_card(name)["data_sha256"] == digits_sha256()
    assert load_card(name)["command"] == f"python -m fastgen_course train {name}"


def test_shipped_gan_draws_the_digit_asked_for():
    accuracy = asked_for_accuracy(load_model("dcgan_digits"), count=500)
    assert accuracy > 0.9
    assert accuracy == pytest.approx(load_card("dcgan_digits")["metrics"]["accuracy"], abs=0.05)


def test_shipped_gan_has_many_ways_to_draw_a_digit():
    model = load_model("dcgan_digits")
    noise = torch.randn(50, model.config.noise, generator=torch.Generator().manual_seed(0))
    images = model(noise, torch.full((50,), 7))
    real = load_digits_subset("test")
    sevens = real.images[real.labels == 7]
    spread, real_spread = (torch.pdist(x.flatten(1)).mean() for x in (images, sevens))
    assert spread > 0.5 * real_spread


def test_shipped_grids_show_a_training():
    grids = load_grids()
    steps = list(grids)
    assert steps == sorted(steps)
    assert len(steps) >= 10
    assert all(grid.shape == (100, 1, 28, 28) for grid in grids.values())
    labels = torch.arange(10).repeat(10)
    assert digit_accuracy(grids[steps[-1]], labels).value > 0.9


def test_live_gan_was_recorded_over_three_seeds_above_its_goal():
    row = result("gan_digits.live_accuracy")
    assert len(row.extra["by_seed"]) >= 3
    assert row.spread[0] >= 0.85


def test_recorded_ring_runs_are_the_ones_that_were_kept():
    points = load_ring_points()
    for name in REMEDIES:
        share = result(f"ring.{name}_quality_share").extra["by_seed"]
        assert points[name].shape == (len(share), 500, 2)
        # 500 of the 2,000 points that were scored, rounded to half precision
        kept = [ring_quality(cloud).share for cloud in points[name]]
        assert kept == pytest.approx(share, abs=0.08)
    assert {result(f"ring.{name}_modes").extra["gflops"] for name in REMEDIES} == {200.0}
