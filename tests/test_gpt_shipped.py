"""The shipped language model does what notebook 04 says of it, and so do its records."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import FREE, SLOTS, labels_of
from fastgen_course.datasets.scenes import captions_of, scene_batches
from fastgen_course.files import data_path
from fastgen_course.models.gpt import GPT_BASE, GPT_SIZES
from fastgen_course.models.judges import label_slots
from fastgen_course.sampling.gpt import (
    GPT_SAMPLING,
    describe_tokens,
    description_log_likelihoods,
    draw_images,
    token_log_likelihoods,
    unlike_any,
)
from fastgen_course.timing import result
from fastgen_course.training.gpt_records import (
    GRID,
    choose_sampling,
    recorded_sampling,
    settings_name,
)
from fastgen_course.training.gpt_sweep import recorded_choice, recorded_sweep
from fastgen_course.widgets.word_swap import swap, swap_change

pytestmark = pytest.mark.skipif(
    not data_path("weights", "gpt.json").is_file(),
    reason="no language model is shipped yet; `python -m fastgen_course train gpt` makes one",
)


def needs(area: str, recorder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not data_path("results", f"{area}.json").is_file(),
        reason=f"record first: `python -m fastgen_course.training.gpt_records {recorder}`",
    )


@pytest.fixture(scope="module")
def gpt():
    return load_model("gpt")


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("tokenizer")


@pytest.fixture(scope="module")
def scenes():
    batches = scene_batches("test", 300, torch.Generator().manual_seed(3), free_share=0.0)
    return next(batches)


@pytest.fixture(scope="module")
def tokens(tokenizer, scenes):
    return tokenizer.encode(scenes.images)


def test_it_predicts_test_pictures_as_well_as_its_card_says(gpt, scenes, tokens):
    logs = token_log_likelihoods(gpt, captions_of(scenes.labels), tokens)
    recorded = load_card("gpt")["metrics"]["test_draw_nats"]
    assert -float(logs.mean()) == pytest.approx(recorded, abs=0.1)
    without = token_log_likelihoods(gpt, torch.zeros(300, 1, dtype=torch.int64), tokens)
    gain = (logs - without).sum(1)
    assert float(gain.mean()) > 4  # the caption helps, by several of its 8 nats


def test_it_draws_what_is_asked(gpt, tokenizer, scenes):
    judge = load_model("judge_train")
    generator = torch.Generator().manual_seed(4)
    drawn = draw_images(gpt, tokenizer, captions_of(scenes.labels), generator=generator)
    right = label_slots(judge, drawn) == scenes.labels
    asked = scenes.labels != FREE
    shares = [float(right[asked[:, i], i].float().mean()) for i in range(5)]
    assert min(shares) > 0.7
    assert min(shares[1], shares[3]) > 0.9  # colour and background


def test_it_describes_what_it_sees(gpt, scenes, tokens):
    said = labels_of(describe_tokens(gpt, tokens))
    asked = scenes.labels != FREE
    shares = [
        float((said == scenes.labels)[asked[:, i], i].float().mean()) for i in range(len(SLOTS))
    ]
    assert min(shares) > 0.7
    captions = captions_of(scenes.labels)
    right = description_log_likelihoods(gpt, captions, tokens)
    other = description_log_likelihoods(gpt, captions[1:] + captions[:1], tokens)
    assert (right > other).float().mean() > 0.95


def test_a_changed_colour_lies_on_the_garment(gpt, scenes, tokens):
    red = (scenes.labels[:, 1] == SLOTS["colour"].index("red")).nonzero()[:, 0]
    pairs = [swap(caption, "colour", "blue") for caption in captions_of(scenes.labels[red])]
    change = swap_change(gpt, *map(list, zip(*pairs, strict=True)), tokens[red])
    assert float(change.sum(1).mean()) < -2
    corners = change[:, [0, 6, 42, 48]]
    assert float(corners.abs().mean()) < 0.2 * float(change.abs().max(1).values.mean())


def test_real_scenes_are_not_taken_for_strangers(tokenizer, scenes):
    assert not unlike_any(tokenizer, scenes.images).any()
    noise = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(5)) * 2 - 1
    assert unlike_any(tokenizer, noise).all()


@needs("gpt_sampling", "sampling quality")
def test_the_settings_are_those_that_the_rule_chose():
    points = [recorded_sampling(settings_name(settings)) for settings in GRID]
    ends = (recorded_sampling(name) for name in ("tokens", "real"))
    chosen = GRID[choose_sampling(points, *ends)]
    assert {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0} | chosen == dict(GPT_SAMPLING)
    assert result("text_to_image.fid").extra["settings"] == dict(GPT_SAMPLING)


@needs("gpt_sweep", "sweep")
def test_the_size_is_the_one_that_the_sweep_chose():
    sweep = recorded_sweep()
    assert GPT_SIZES[recorded_choice()] == GPT_BASE
    nats = [point.draw_nats for point in sweep.values()]
    assert nats[0] == max(nats)


@needs("text_to_image", "speed")
def test_one_pass_is_faster_than_forty_nine():
    for name in ("gan", "vae"):
        for batch in (1, 64):
            assert float(result(f"text_to_image.{name}_over_gpt_batch{batch}_speedup")) > 2
