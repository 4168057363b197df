"""The token painter: what its buttons do, by the values they leave behind."""

import numpy as np
import pytest
import torch

from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.show import to_uint8
from fastgen_course.widgets.token_painter import (
    MARK,
    elsewhere_picture,
    mark_places,
    painting_figure,
    token_painter,
    word_colours,
    word_table_figure,
    words_figure,
)

CONFIG = TokenizerConfig(codes=30, dim=3, width=8, deep=8)


@pytest.fixture(autouse=True)
def _close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Tokenizer(CONFIG).eval()


@pytest.fixture
def images():
    return torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def painter(model, images):
    tokens = torch.randint(30, (6, 49), generator=torch.Generator().manual_seed(2))
    return token_painter(model, images, tokens=tokens)


def test_buttons_show_the_words_of_the_picture(painter):
    assert [int(b.description) for b in painter.buttons] == painter.tokens[0].tolist()
    painter.picker.value = 3
    assert [int(b.description) for b in painter.buttons] == painter.tokens[3].tolist()
    assert painter.buttons[8].tooltip == f"row 2, column 2: word {int(painter.tokens[3, 8])}"


def test_a_click_looks_the_word_up_and_makes_it_the_brush(painter):
    before = painter.painted().copy()
    painter.buttons[10].click()
    word = int(painter.tokens[0, 10])
    assert painter.brush.value == word
    share = (painter.tokens == word).double().mean().item()
    assert f"Word {word}: {share:.2%}" in painter.status.value
    count = int((painter.tokens == word).any(1).sum())
    assert f"in {count} of 6 pictures" in painter.status.value
    assert f"word {word}," in painter.elsewhere.value
    assert np.array_equal(painter.painted(), before)


def test_painting_changes_one_word_and_the_picture(painter, model):
    painter.brush.value = 17
    painter.paint.value = True
    shown = painter.pictures.value
    place = int((painter.tokens[0] != 17).nonzero()[0, 0])
    painter.buttons[place].click()
    expected = painter.tokens[0].clone()
    expected[place] = 17
    assert torch.equal(painter.words, expected)
    with torch.no_grad():
        assert np.array_equal(painter.painted(), to_uint8(model.decode(expected[None]))[0])
    assert painter.pictures.value != shown
    assert "1 of them changed" in painter.pictures.value
    assert painter.buttons[place].style.font_weight == "bold"
    assert painter.brush.value == 17  # painting does not change the brush


def test_fill_undo_and_reset(painter):
    own = painter.tokens[0].clone()
    painter.brush.value = 4
    painter.fill.click()
    assert (painter.words == 4).all()
    painter.paint.value = True
    painter.brush.value = 5
    painter.buttons[0].click()
    painter.undo.click()
    assert (painter.words == 4).all()
    painter.undo.click()
    assert torch.equal(painter.words, own)
    painter.undo.click()  # nothing left to undo
    assert torch.equal(painter.words, own)
    painter.fill.click()
    painter.reset.click()
    assert torch.equal(painter.words, own)
    assert torch.equal(painter.tokens[0], own)  # the library of words was never painted on


def test_a_fault_becomes_a_sentence(painter):
    painter.words = torch.full((49,), 99)
    painter.redraw()
    assert "words are numbers from 0 to 29; got 99 to 99" in painter.status.value


def test_computed_words_are_the_models(model, images):
    painter = token_painter(model, images, names=list("abcdef"), start=2)
    assert torch.equal(painter.tokens, model.encode(images))
    assert painter.picker.label == "c"
    with pytest.raises(ValueError, match="6 pictures need as many names"):
        token_painter(model, images, names=["a"])


def test_frames_stand_around_their_place():
    framed = mark_places(np.zeros((28, 28, 3), np.uint8), [8], side=7, enlarge=2)
    marked = (framed == MARK).all(2)
    rows, columns = np.nonzero(marked)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 8, 15)
    assert marked.sum() == 4 * 7  # the frame alone, not what it frames


def test_elsewhere_shows_pictures_that_hold_the_word(images):
    tokens = torch.zeros(6, 49, dtype=torch.int64)
    tokens[4, 20] = 9
    strip = elsewhere_picture(images, tokens, 9, count=3, enlarge=2)
    assert strip.shape == (56, 3 * 56 + 2 * 4, 3)
    real = to_uint8(images[4]).repeat(2, 0).repeat(2, 1)
    differs = (strip[:, :56] != real).any(2)
    assert differs.sum() <= 28
    assert (strip[:, 60:] == 235).all()  # no second picture has it


def test_colours_and_figures(model, images):
    colours = word_colours(model)
    assert len(colours) == 30
    with torch.no_grad():
        alone = model.decode(torch.full((1, 49), 7))[0, :, 8:20, 8:20].mean((1, 2))
    assert colours[7] == "#{:02x}{:02x}{:02x}".format(*to_uint8(alone[:, None, None])[0, 0])
    tokens = model.encode(images)
    figure = words_figure(model, images[0], tokens[0])
    assert [int(t.get_text()) for t in figure.axes[1].texts] == tokens[0].tolist()
    painted = tokens[0].clone()
    painted[:7] = (painted[:7] + 1) % 30
    figure = painting_figure(model, images[0], tokens[0], {"top row": painted})
    assert [axis.get_title() for axis in figure.axes] == ["scene", "its words", "top row"]
    assert len(figure.axes[2].patches) == 7
    words = tokens.unique()[:2].tolist()
    figure = word_table_figure(images, images, tokens, words, 30, examples=3)
    assert len(figure.axes) == 2 * 5
    assert figure.axes[0].get_ylabel().startswith(f"{words[0]}\n")
