"""The caption box and the batch slider: they draw, they say what went wrong, they never raise."""

from __future__ import annotations

import numpy as np
import pytest

from fastgen_course.datasets.captions import parse
from fastgen_course.timing import Timing
from fastgen_course.widgets.batch_slider import BatchSlider, batch_curves, batch_line
from fastgen_course.widgets.caption_box import caption_box
from fastgen_course.widgets.pictures import picture_png

PNG = b"\x89PNG"


def _draw(caption: str, seed: int) -> np.ndarray:
    parse(caption)
    return np.full((28, 28, 3), 10 * len(caption) + seed, np.int64).astype(np.uint8)


def test_it_draws_at_once_and_again_when_something_changes():
    box = caption_box(_draw)
    first = box.picture.value
    assert first[:4] == PNG
    assert "ms" in box.status.value
    box.seed.value = 7
    assert box.picture.value != first
    box.text.value = "a red boot"
    box.button.click()
    assert len(box.readings_ms) == 4
    assert "median of 4" in box.status.value


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("", "the caption is empty"),
        ("a red spaceship", "spaceship"),
        ("a " * 5000, "10,000 characters"),
        ("a <b>red</b> boot", "not one that the course can draw"),
    ],
)
def test_a_caption_that_cannot_be_drawn_is_one_sentence_and_the_picture_stays(caption, words):
    box = caption_box(_draw)
    before = box.picture.value
    box.text.value = caption
    assert words in box.status.value
    assert "Traceback" not in box.status.value
    assert "<b>" not in box.status.value
    assert box.picture.value == before
    box.text.value = "a red boot"
    assert "ms" in box.status.value


@pytest.mark.parametrize("broken", [lambda c, s: 1 / 0, lambda c, s: None, lambda c, s: "text"])
def test_a_readers_broken_sampler_is_told_in_the_box(broken):
    box = caption_box(broken)
    assert box.picture.value == b""
    assert "color" in box.status.value
    assert not box.readings_ms


def test_a_seed_off_the_slider():
    with pytest.raises(ValueError, match="0 to 99"):
        caption_box(_draw, seed=100)


def test_pictures_are_enlarged_without_blur():
    image = np.zeros((2, 3, 3), np.uint8)
    assert int.from_bytes(picture_png(image, 5)[16:20], "big") == 15
    for wrong in (
        image.astype(float),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((2, 2, 2), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8"):
            picture_png(wrong)


def _timing(batch: int, ms: float) -> Timing:
    return Timing(ms, 1.1 * ms, 10, batch, "cpu", 1, "float32")


def test_the_slider_moves_the_dot():
    box = BatchSlider([_timing(8, 5.0), _timing(1, 1.5), _timing(64, 33.0)])
    first = box.picture.value
    assert "batch 1:" in box.status.value
    box.slider.value = 64
    assert box.picture.value != first
    assert "batch 64: 33 ms a call" in box.status.value


def test_the_line_through_exact_times():
    start, each = batch_line(_timing(b, 2.0 + 0.5 * b) for b in (1, 4, 32))
    assert start == pytest.approx(2.0)
    assert each == pytest.approx(0.5)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no timings"):
        BatchSlider([])
    with pytest.raises(ValueError, match="two different"):
        batch_line([_timing(1, 1.0)])
    with pytest.raises(ValueError, match="choose from 1"):
        batch_curves([_timing(1, 1.0)], batch=2)
