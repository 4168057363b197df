"""The widgets and figures of notebook 01: sliders redraw, figures show what they should."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastgen_course.training.gan_figures import (
    clouds_figure,
    history_figure,
    recipe_history_figure,
    vanishing_figure,
)
from fastgen_course.training.ring import ring_centres
from fastgen_course.widgets.densities import Densities, density_explorer, density_words
from fastgen_course.widgets.scrubber import epoch_scrubber, scrubber_strip, tile


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_densities_equal_and_far_apart():
    # One bump of the data's own width at the same place: nothing can be told apart.
    same = Densities(gap=0.0, mean=0.0, std=0.6).figures()
    assert same["jsd"] == pytest.approx(0, abs=1e-9)
    assert same["cost"] == pytest.approx(-math.log(4))
    far = Densities(gap=0.0, mean=4.0, std=0.2).figures()
    assert far["jsd"] == pytest.approx(math.log(2), abs=1e-3)
    assert abs(far["saturating"]) < 0.01 < 1 < far["nonsaturating"]


def test_every_corner_of_the_sliders_gives_finite_figures():
    for gap in (0.0, 8.0):
        for mean in (-4.0, 4.0):
            for std in (0.2, 3.0):
                state = Densities(gap, mean, std)
                assert all(math.isfinite(v) for v in state.figures().values()), state


def test_moving_a_slider_redraws_picture_and_words():
    box = density_explorer()
    gap, _, _, picture, words = box.children
    before = picture.value, words.value
    gap.value = 1.0
    assert picture.value != before[0]
    assert words.value != before[1]
    assert "two Gaussians 1 apart" in picture.value
    assert "D" in density_words(Densities())


def test_tile_puts_each_image_in_its_place():
    images = torch.full((3, 1, 2, 2), -1.0)
    images[2] = 1.0
    picture = tile(images, columns=2)
    assert picture.shape == (7, 7, 1)
    assert (picture[4:6, 1:3] == 255).all()
    assert picture.sum() == 4 * 255
    with pytest.raises(ValueError, match="needs images"):
        tile(images[:0])


def test_scrubber_shows_another_grid_when_moved():
    grids = {s: torch.full((10, 1, 4, 4), v) for s, v in ((10, -1.0), (20, 0.0), (30, 1.0))}
    box = epoch_scrubber(grids, what="squares")
    (play, slider), picture = box.children[0].children, box.children[1]
    assert "10 squares after 10 training steps" in picture.value
    before = picture.value
    slider.value = 2
    assert "after 30 training steps" in picture.value
    assert picture.value != before
    play.value = 1
    assert "after 20 training steps" in picture.value


def test_strip_and_scrubber_refuse_what_they_cannot_show():
    with pytest.raises(ValueError, match="no grids"):
        epoch_scrubber({})
    grids = {1: torch.zeros(10, 1, 4, 4)}
    with pytest.raises(ValueError, match="no grid was saved at step 2"):
        scrubber_strip(grids, steps=[2])
    assert len(scrubber_strip(grids).axes) == 1


def test_figures_draw_what_they_are_given():
    figure = clouds_figure({"all": ring_centres(), "one": ring_centres()[:1]})
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["all\n8 of 8 modes, 100%", "one\n1 of 8 modes, 100%"]
    seen = {k: [1.0, 0.5] for k in ("step", "d_real", "d_fake", "saturating", "nonsaturating")}
    curves = vanishing_figure(seen).axes[1].lines
    assert [line.get_ydata().tolist() for line in curves] == [[1.0, 0.5]] * 2
    history = {k: [0.5, 0.4] for k in ("step", "discriminator", "generator", "d_real", "d_fake")}
    found = history_figure(history, {10: 0.2, 20: 0.9}).axes[2].lines[0]
    assert np.array_equal(found.get_ydata(), [0.2, 0.9])
    assert len(recipe_history_figure({"step": [1], "d_loss": [2.0], "slots": [3.0]}).axes) == 2
