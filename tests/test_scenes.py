"""Scenes: what is composed, what is drawn, and that no held-out combination is ever trained on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS, held_out_mask, parse
from fastgen_course.datasets.compose import BACKGROUNDS, COLOURS, compose
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import (
    attributes_of,
    draw_captions,
    draw_labels,
    draw_photos,
    real_scenes,
    scene_batches,
)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_data_are_the_published_ones():
    train, test = load_fashion("train"), load_fashion("test")
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert train.labels.bincount().tolist() == [6000] * 10
    # Mean and deviation of the training pixels as every PyTorch tutorial states them.
    pixels = train.images.float() / 255
    assert round(pixels.mean().item(), 4) == 0.2860 and round(pixels.std().item(), 4) == 0.3530
    digits, held_back = load_digits_subset("train"), load_digits_subset("test")
    assert digits.labels.bincount().tolist() == [400] * 10
    assert held_back.labels.bincount().tolist() == [100] * 10
    ours = {row.tobytes() for row in digits.images.numpy()}
    assert not any(row.tobytes() in ours for row in held_back.images.numpy())


@given(st.integers(0, 2**31), st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_no_batch_drawn_for_training_holds_a_held_out_combination(seed, batch):
    batches = scene_batches("train", batch, _generator(seed))
    for _ in range(3):
        scenes = next(batches)
        assert not held_out_mask(scenes.labels).any()


def test_many_drawn_labels_are_uniform_and_never_held_out():
    labels = draw_labels(60_000, _generator())
    assert not held_out_mask(labels).any()
    assert abs((labels[:, 2] == EMPTY).float().mean() - 0.05) < 0.005
    garments = labels[labels[:, 2] != EMPTY]
    for column in range(5):
        counts = garments[:, column].bincount().float()
        assert (counts / counts.mean() - 1).abs().max() < 0.06, (column, counts)
    assert held_out_mask(draw_labels(500, _generator(), held_out=True)).all()


def test_captions_ask_for_what_the_image_shows_and_photos_are_of_that_garment():
    scenes = next(scene_batches("test", 200, _generator(3), free_share=0.3))
    labels = scenes.labels
    asked = scenes.asked
    assert ((asked == labels) | (asked == FREE)).all()
    shown = labels != FREE
    share = ((asked == FREE) & shown).float().sum() / shown.sum()
    assert 0.2 < share < 0.4
    for y, caption in zip(attributes_of(asked), draw_captions(asked, _generator(4)), strict=True):
        assert parse(caption) == y
    everything, classes = load_fashion("test")
    photos = draw_photos(labels, "test", _generator(1))
    lookup = {p.numpy().tobytes(): int(c) for p, c in zip(everything, classes, strict=True)}
    for photo, garment in zip(photos, labels[:, 2].tolist(), strict=True):
        assert garment == EMPTY or lookup[photo.numpy().tobytes()] == garment


def _one(size=1, colour=0, garment=0, background=0, style=0):
    row = int(torch.nonzero(load_fashion("train").labels == min(garment, 9))[0])
    photo = load_fashion("train").images[row : row + 1]
    return photo, torch.tensor([[size, colour, garment, background, style]])


@pytest.mark.parametrize("style", range(len(SLOTS["style"])))
@pytest.mark.parametrize("colour", range(len(SLOTS["colour"])))
def test_the_garment_has_its_colour_and_the_paper_its_own(style, colour):
    photo, labels = _one(colour=colour, style=style, background=1)
    scene = compose(photo, labels)
    pixels = (scene.images[0] + 1) / 2
    mask = scene.masks[0]
    paper = torch.tensor(BACKGROUNDS["grey"])
    outside = ~torch.nn.functional.max_pool2d(mask[None, None].float(), 3, 1, 1)[0, 0].bool()
    assert (pixels[:, outside] - paper[:, None]).abs().mean() < 0.01
    # Inside, the mean colour leaves the paper towards the garment's own colour, nearer than others.
    step = pixels[:, mask].mean(1) - paper
    towards = {c: torch.tensor(rgb) * 0.8 - paper for c, rgb in COLOURS.items()}
    cosine = {c: torch.cosine_similarity(step, t, dim=0).item() for c, t in towards.items()}
    assert cosine[SLOTS["colour"][colour]] > 0.9, cosine


def test_compose_is_deterministic_and_an_edit_keeps_the_garment():
    photos = load_fashion("train").images[:32]
    labels = draw_labels(32, _generator(8))
    first, again = compose(photos, labels), compose(photos.clone(), labels.clone())
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    edited = labels.clone()
    here = labels[:, 2] != EMPTY
    edited[here, 1] = (labels[here, 1] + 1) % 8
    target = compose(photos, edited)
    assert torch.equal(first.masks, target.masks)
    changed = (first.images != target.images).any(1)
    assert changed[here].any((1, 2)).all() and not changed[~here].any()


def test_size_scales_the_garment_and_an_empty_scene_is_paper():
    big, small = (compose(*_one(size=s)).masks.sum().item() for s in (1, 0))
    assert abs(small / big - (20 / 28) ** 2) < 0.08
    empty = compose(*_one(size=FREE, colour=FREE, garment=EMPTY, style=FREE, background=2))
    assert not empty.masks.any()
    assert np.ptp(empty.images[0].numpy(), axis=(1, 2)).max() == 0


def test_bad_input_is_named():
    photo, labels = _one()
    with pytest.raises(ValueError, match="uint8"):
        compose(photo.float(), labels)
    with pytest.raises(ValueError, match="zero photos"):
        compose(photo[:0], labels[:0])
    with pytest.raises(ValueError, match="colour label 8 is out of range: give 0 to 7"):
        compose(photo, labels + torch.tensor([[0, 8, 0, 0, 0]]))
    with pytest.raises(ValueError, match="size label -1"):
        compose(photo, labels - torch.tensor([[2, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="at least one"):
        next(scene_batches("train", 0, _generator()))
    with pytest.raises(ValueError, match="split"):
        load_fashion("validation")
    with pytest.raises(ValueError, match="split"):
        load_digits_subset("validation")


def test_real_scenes_are_the_same_in_chunks():
    labels = draw_labels(30, _generator(2))
    whole = real_scenes(labels, "test", _generator(5), chunk=30)
    assert torch.equal(whole, real_scenes(labels, "test", _generator(5), chunk=7))
