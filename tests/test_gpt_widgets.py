"""What readers touch in notebook 04: the word swap and the sampler's sliders, and its solutions."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from fastgen_course.datasets.captions import CaptionError, encode_words
from fastgen_course.exercises.gpt import attention_head, causal_mask, pick_top_p, picture_nats
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.gpt import GPT_SAMPLING, pick, sample_gpt, token_log_likelihoods
from fastgen_course.widgets.sampling_controls import (
    SamplingControls,
    sampling_controls,
    settings_figure,
    strip,
)
from fastgen_course.widgets.word_swap import WordSwap, swap, swap_change, swap_figure, word_swap

CAPTION = "a large red sneaker on a white background, photo style"


@pytest.fixture(scope="module")
def models():
    """A tiny GPT with opinions and a tiny tokenizer, never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gpt = GPT(TransformerConfig(width=16, layers=1, heads=2, codes=20)).eval()
        tokenizer = Tokenizer(TokenizerConfig(width=4, deep=8, codes=20)).eval()
    with torch.no_grad():
        for p in gpt.parameters():
            if p.ndim > 1:
                p.mul_(8)
    return gpt.requires_grad_(False), tokenizer.requires_grad_(False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- the word swap ------------------------------------------------------------------------------


def test_a_swap_changes_one_slot_and_says_both_in_plain_words():
    before, after = swap("scarlet gown, dark background, sketch style", "colour", "blue")
    assert before == "a red dress on a black background, sketch style"
    assert after == "a blue dress on a black background, sketch style"
    for wrong, words in (
        (("a red bag", "colour", "red"), "is red already"),
        (("a red bag", "material", "silk"), "no slot"),
        (("a red bag", "colour", "turquoise"), "unknown"),
        (("a red bag", "garment", "nothing"), "empty scene"),
        (("", "colour", "red"), "empty"),
    ):
        with pytest.raises(CaptionError, match=words):
            swap(*wrong)


def test_the_change_is_the_difference_of_two_likelihoods(models):
    gpt, _ = models
    before, after = swap(CAPTION, "colour", "blue")
    tokens = sample_gpt(gpt, [before, before], generator=torch.Generator().manual_seed(1))
    change = swap_change(gpt, [before] * 2, [after] * 2, tokens)
    assert change.shape == tokens.shape
    assert change.abs().max() > 0.01  # the caption matters to this model
    totals = [token_log_likelihoods(gpt, [c] * 2, tokens).sum(1) for c in (after, before)]
    assert torch.allclose(change.sum(1), totals[0] - totals[1], atol=1e-4)
    back = swap_change(gpt, [after] * 2, [before] * 2, tokens)
    assert torch.allclose(change, -back, atol=1e-5)


def test_the_map_lies_where_the_tokens_lie():
    change = torch.zeros(1, 49)
    change[0, 7 * 2 + 5] = -3.0  # row 2, column 5
    figure = swap_figure(torch.zeros(1, 3, 28, 28), change, ["a picture"])
    below = figure.axes[1]
    (text,) = below.texts
    assert (text.get_text(), text.get_position()) == ("-3.0", (5.5, 2.5))
    drawn = below.images[-1].get_array()
    assert float(drawn[2, 5]) == -3.0 and below.images[-1].get_clim() == (-3.0, 3.0)
    assert below.get_title() == "-3 nats in all"


def test_the_swap_widget_redraws_and_tells_mistakes(models):
    box = word_swap(*models)
    assert isinstance(box, WordSwap)
    seen = {box.picture.value}
    box.value.value = "green"
    seen.add(box.picture.value)
    box.seed.value = 3
    seen.add(box.picture.value)
    box.slot.value = "garment"
    seen.add(box.picture.value)
    assert len(seen) == 4
    assert box.value.value == "t-shirt"
    box.slot.value = "size"
    assert box.value.value == "small"  # the caption says large
    assert "nats likelier" in box.status.value
    before = box.picture.value
    box.text.value = "a red <car>"
    assert "car" in box.status.value and "<car>" not in box.status.value
    assert box.picture.value == before


# --- the sampler's sliders ----------------------------------------------------------------------


def test_a_strip_keeps_its_noise_when_a_setting_changes(models):
    first = strip(*models, CAPTION, seed=4, count=3)
    assert first.shape == (3, 3, 28, 28)
    assert torch.equal(first, strip(*models, CAPTION, seed=4, count=3, **GPT_SAMPLING))
    assert not torch.equal(first, strip(*models, CAPTION, seed=5, count=3))
    # At temperature 0 the noise decides nothing: all pictures of a caption are one.
    cold = strip(*models, CAPTION, seed=4, count=3, temperature=0.0)
    assert torch.equal(cold, strip(*models, CAPTION, seed=5, count=3, temperature=0.0))
    assert torch.allclose(cold[0], cold[2], atol=1e-5)


def test_sliders_redraw_and_a_bad_caption_keeps_the_picture(models):
    box = sampling_controls(*models, count=2)
    assert isinstance(box, SamplingControls)
    assert box.draw(CAPTION, 0).shape == (28, 58, 3)
    seen = {box.box.picture.value}
    for slider, value in (
        (box.temperature, 0.0),
        (box.temperature, 2.0),
        (box.top_k, 2),
        (box.guidance, 3.0),
        (box.top_p, 0.3),
    ):
        slider.value = value
        assert "ms" in box.box.status.value
        seen.add(box.box.picture.value)
    assert len(seen) >= 4
    before = box.box.picture.value
    box.box.text.value = "a red blue bag"
    assert "two values" in box.box.status.value
    assert box.box.picture.value == before


def test_every_row_of_the_static_figure_has_its_label(models):
    rows = {"cold": {"temperature": 0.0}, "hot": {"temperature": 1.5}}
    figure = settings_figure(*models, CAPTION, rows, count=2)
    assert [axis.get_ylabel() for axis in figure.axes] == ["cold", "", "hot", ""]
    with pytest.raises(ValueError, match="no settings"):
        settings_figure(*models, CAPTION, {})


# --- the references of the exercises are what the package computes ----------------------------


def test_the_head_is_pytorchs_attention():
    q, k, v = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(2))
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    assert torch.allclose(attention_head(q, k, v, causal_mask(12)), expected, atol=1e-6)


def test_picture_nats_is_what_the_sampler_would_pay(models):
    gpt, _ = models
    tokens = sample_gpt(gpt, [CAPTION], generator=torch.Generator().manual_seed(3))
    ids = torch.cat(
        [
            torch.tensor([[gpt.config.draw]]),
            encode_words([CAPTION])[:, : len(CAPTION.replace(",", "").split())],
            gpt.config.first_code + tokens,
        ],
        1,
    )
    words = ids.shape[1] - 50
    positions = torch.cat(
        [torch.arange(1 + words), gpt.config.first_image_position + torch.arange(49)]
    )
    logits = gpt(ids, positions)[0, words:-1]
    codes = logits[:, gpt.config.first_code :][:, : gpt.config.codes]
    paid = picture_nats(codes, tokens[0])
    assert float(paid) == pytest.approx(-float(token_log_likelihoods(gpt, [CAPTION], tokens).sum()))
    assert 0 < float(paid) / 49 < 2 * math.log(20)


def test_pick_top_p_is_the_packages_pick():
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(5000, 30, generator=generator)
    uniform = torch.rand(5000, generator=generator)
    for top_p in (0.3, 0.9, 1.0):
        assert torch.equal(pick_top_p(logits, uniform, top_p), pick(logits, uniform, top_p=top_p))
