"""The shipped tokenizer does what notebook 03 says of it, with margin, and so do its records."""

import pytest
import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.files import data_path
from fastgen_course.models.judges import label_slots
from fastgen_course.models.tokenizer import perplexity
from fastgen_course.timing import result
from fastgen_course.training.tokenizer import reconstruct
from fastgen_course.training.tokenizer_records import VARIANTS, recorded_budget, recorded_compare
from fastgen_course.training.tokenizer_words import change_of_word, encode_all, word_shares


@pytest.fixture(scope="module")
def model():
    return load_model("tokenizer")


@pytest.fixture(scope="module")
def scenes():
    return next(scene_batches("test", 400, torch.Generator().manual_seed(3), free_share=0.0))


def test_pictures_survive_their_words(model, scenes):
    painted = reconstruct(model, scenes.images)
    error = (painted - scenes.images).square().mean().item() / 4
    assert error < 0.006
    assert error == pytest.approx(load_card("tokenizer")["metrics"]["mse"], rel=0.15)
    judge = load_model("judge_train")
    before, after = (label_slots(judge, images) for images in (scenes.images, painted))
    assert (before == after).float().mean() > 0.92
    assert (before == after)[:, 4].float().mean() > 0.85  # the style, which squared error loses


def test_many_words_are_in_use_and_the_commonest_are_background(model, scenes):
    tokens = encode_all(model, scenes.images)
    assert perplexity(tokens, 512) > 120
    commonest = word_shares(tokens, 512).topk(10).indices
    where = torch.isin(tokens, commonest).float().mean(0).view(7, 7)
    border = torch.ones(7, 7, dtype=torch.bool)
    border[1:6, 1:6] = False
    assert where[border].mean() > 2 * where[2:5, 2:5].mean()


def test_a_change_of_one_word_stays_near(model, scenes):
    tokens = model.encode(scenes.images[:1])
    change = change_of_word(model, tokens, 24, torch.arange(0, 512, 16)).square()
    assert change[4:24, 4:24].sum() > 0.9 * change.sum()
    assert change[12:16, 12:16].mean() > 5 * change.mean()


needs_records = pytest.mark.skipif(
    not data_path("results", "tokens.json").is_file(),
    reason="record first: `python -m fastgen_course.training.tokenizer_records compare quality`",
)


@needs_records
def test_records_are_of_these_weights():
    row = result("tokens.test_mse")
    assert row.extra["weights"] == load_card("tokenizer")["sha256"][:12]
    assert row.value == pytest.approx(load_card("tokenizer")["metrics"]["mse"], rel=0.1)
    assert float(result("tokens.perplexity")) > 120
    floor = float(result("fid.floor"))
    for name in ("tokens.fid", "tokens.fid_train"):
        assert 0.3 * floor < float(result(name)) < 16 * floor
    assert float(result("tokens.recall")) > 0.7


@needs_records
def test_the_recorded_comparison_says_what_the_notebook_says():
    points, budget = recorded_compare(), recorded_budget()
    assert set(points) == set(VARIANTS)
    assert budget["steps"] > 0
    assert points["ema"].bits == pytest.approx(441)
    assert points["ema_16"].bits == pytest.approx(144)
    assert points["ema_16"].mse > 1.2 * points["ema"].mse
    assert points["ema_no_restarts"].unused > points["ema"].unused + 50
    assert points["ema"].perplexity > points["ema_no_restarts"].perplexity
    assert all(p.entropy_bits < p.bits for p in points.values())
