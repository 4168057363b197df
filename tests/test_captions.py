"""The grammar is invertible, its labels too; a caption it cannot draw is named in a sentence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgen_course.datasets.captions import (
    FREE,
    HELD_OUT,
    MAX_WORDS,
    PATTERNS,
    SLOTS,
    VOCABULARY,
    Attributes,
    CaptionError,
    attributes_of,
    encode_words,
    held_out_mask,
    is_held_out,
    labels_of,
    parse,
    render,
)


@st.composite
def attributes(draw):
    garment = draw(st.none() | st.sampled_from(SLOTS["garment"]))
    background = draw(st.none() | st.sampled_from(SLOTS["background"]))
    if garment == "nothing":
        return Attributes(garment=garment, background=background)
    size, colour, style = (
        draw(st.none() | st.sampled_from(SLOTS[s])) for s in ("size", "colour", "style")
    )
    return Attributes(size, colour, garment, background, style)


synonyms = st.lists(st.integers(0, 11), min_size=5, max_size=5)


@given(attributes(), st.integers(0, PATTERNS - 1), synonyms)
def test_parse_inverts_render(y, pattern, numbers):
    caption = render(y, pattern, numbers)
    assert parse(caption) == y
    assert parse(caption.upper()) == y


@given(attributes(), st.integers(0, PATTERNS - 1), synonyms)
def test_every_caption_encodes_and_its_words_come_back(y, pattern, numbers):
    caption = render(y, pattern, numbers)
    row = encode_words([caption])[0]
    words = [VOCABULARY[i] for i in row if i]
    assert row.shape == (MAX_WORDS,)
    assert " ".join(words) == caption.replace(",", "").replace(":", "")


@given(attributes())
def test_labels_invert(y):
    assert attributes_of(labels_of([y])) == [y]
    assert bool(held_out_mask(labels_of([y]))[0]) == is_held_out(y)


def test_held_out_combinations_are_a_tenth_and_balanced():
    assert len(HELD_OUT) == 32
    for slot, index, least, most in (("colour", 0, 4, 4), ("garment", 1, 2, 4), ("style", 2, 8, 8)):
        values = SLOTS[slot][:10]
        counts = [sum(combination[index] == v for combination in HELD_OUT) for v in values]
        assert least <= min(counts) and max(counts) <= most, (slot, counts)


def test_the_issues_example_reads_as_it_should():
    y = parse("a small red sneaker on a white background, sketch style")
    assert y == Attributes("small", "red", "sneaker", "white", "sketch")
    assert render(y) == "a small red sneaker on a white background, sketch style"
    assert parse("nothing on a pale blue background") == Attributes(
        garment="nothing", background="pale blue"
    )


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("", "the caption is empty"),
        ("  ,. ", "the caption is empty"),
        ("👟👟", "the caption is empty"),
        ("x" * 10_000, "10,000 characters"),
        ("red " * 30, "30 words"),
        ("a red unicorn", '"unicorn"'),
        ("a snaeker", 'did you mean "sneaker"'),
        ("a red blue sneaker", 'two values of colour, "red" and "blue"'),
        ("a red sneaker on a blue background", "Backgrounds are"),
        ("a pale sneaker", '"pale" alone'),
        ("a red nothing", "an empty scene has no"),
    ],
)
def test_bad_captions_are_answered_in_one_sentence(caption, said):
    with pytest.raises(CaptionError, match=said) as caught:
        parse(caption)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_bad_attributes_labels_and_patterns_are_named():
    with pytest.raises(CaptionError, match="colour='mauve' is unknown; choose from red"):
        Attributes(colour="mauve")
    with pytest.raises(ValueError, match="background label 9 is out of range"):
        attributes_of(torch.tensor([[0, 0, 0, 9, 0]]))
    with pytest.raises(CaptionError, match="pattern 7"):
        render(Attributes(), 7)
    with pytest.raises(CaptionError, match="at least one"):
        encode_words([])
    with pytest.raises(CaptionError, match="a caption is a text"):
        parse(None)


def test_free_is_minus_one_everywhere():
    assert labels_of([Attributes()]).tolist() == [[FREE] * 5]
