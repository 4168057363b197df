"""One-step sampling: what it draws, and how it refuses what it cannot draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fastgen_course.datasets.captions import CaptionError, encode_words
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.sampling.one_step import draw, sample_generator

CAPTION = "a small red sneaker on a white background, sketch style"


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Generator(GeneratorConfig(noise=4, caption=8, channels=(8, 8, 4)))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_have_the_shape_and_range_of_the_course(tiny):
    images = sample_generator(tiny, [CAPTION, "nothing on a black background"])
    assert images.shape == (2, 3, 28, 28)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert not images.requires_grad


def test_the_seed_decides_and_texts_are_their_words(tiny):
    first = sample_generator(tiny, [CAPTION], generator=_seeded(1))
    assert torch.equal(first, sample_generator(tiny, encode_words([CAPTION]), generator=_seeded(1)))
    assert not torch.equal(first, sample_generator(tiny, [CAPTION], generator=_seeded(2)))


def test_chunks_do_not_change_the_pictures(tiny):
    noise = torch.randn(5, 4, generator=_seeded(0))
    whole = sample_generator(tiny, [CAPTION] * 5, noise)
    parts = sample_generator(tiny, [CAPTION] * 5, noise, chunk=2)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_the_models_mode_is_put_back_and_its_statistics_untouched(tiny):
    tiny.train()
    before = tiny.norm28a.running_mean.clone()
    sample_generator(tiny, [CAPTION])
    assert tiny.training
    assert torch.equal(before, tiny.norm28a.running_mean)
    tiny.eval()


def test_runs_on_the_models_device():
    with torch.device("meta"):
        model = Generator(GeneratorConfig(noise=4, caption=8, channels=(8, 8, 4)))
    assert sample_generator(model, [CAPTION]).device.type == "meta"


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        (["a red spaceship"], "spaceship"),
        ([""], "empty"),
        (["red " * 2500], "10,000 characters"),
        ([], "no caption"),
        (torch.zeros(0, 20, dtype=torch.int64), "zero captions"),
        (torch.zeros(2, 20), "int64"),
    ],
)
def test_captions_that_cannot_be_drawn(tiny, captions, words):
    with pytest.raises(ValueError, match=words):
        sample_generator(tiny, captions)


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (torch.zeros(1, 3), r"\(1, 4\)"),
        (torch.zeros(2, 4), r"\(1, 4\)"),
        (torch.zeros(1, 4, dtype=torch.int64), "floats"),
        (torch.full((1, 4), float("nan")), "NaN"),
    ],
)
def test_noise_that_cannot_be_used(tiny, noise, words):
    with pytest.raises(ValueError, match=words):
        sample_generator(tiny, [CAPTION], noise)


def test_chunk_of_zero(tiny):
    with pytest.raises(ValueError, match="chunk"):
        sample_generator(tiny, [CAPTION], chunk=0)


def test_draw_gives_a_readers_picture(tiny):
    picture = draw(CAPTION, seed=3, model=tiny)
    assert picture.shape == (28, 28, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, draw(CAPTION, seed=3, model=tiny))
    with pytest.raises(CaptionError, match="two values of colour"):
        draw("a red blue coat", model=tiny)
