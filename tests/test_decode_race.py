"""The replay of recorded drawings: what stands at a time, which guesses were kept."""

import numpy as np
import pytest
import torch

from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.sampling.drawing import Step
from fastgen_course.training.fast_records import Run
from fastgen_course.widgets.decode_race import (
    CELL,
    DRAWN,
    KEPT,
    REJECTED,
    decode_race,
    race_figure,
    race_picture,
    standing,
)

SLOW = Run("plain", "plain loop", [1] * 49, [float(i + 1) for i in range(49)],
           [Step((i,)) for i in range(49)])  # fmt: skip
# Three rounds: two guesses kept and a token more; one kept, one replaced; and the rest.
GUESSED = Run(
    "speculative2",
    "speculative",
    [2] * 49,
    [4.0, 8.0, 20.0],
    [Step((0, 1, 2), (0, 1)), Step((3, 4), (3,), (4,)), Step(tuple(range(5, 49)))],
)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(codes=64, dim=4, width=12, deep=12)).eval()


def frame_of(picture, place):
    top, left = place // 7 * CELL, place % 7 * CELL
    return picture[top, left + CELL // 2]


def test_what_stands_grows_with_time():
    assert standing(GUESSED, 3.9) == (set(), 0)
    assert standing(GUESSED, 4.0) == ({0, 1, 2}, 1)
    assert standing(GUESSED, 19.0) == ({0, 1, 2, 3, 4}, 2)
    assert standing(GUESSED, 20.0) == (set(range(49)), 3)


def test_frames_tell_kept_guesses_from_rejected_ones(tokenizer):
    first = race_picture(tokenizer, GUESSED, 5)
    assert np.array_equal(frame_of(first, 0), KEPT)
    assert np.array_equal(frame_of(first, 2), DRAWN)
    second = race_picture(tokenizer, GUESSED, 9)
    assert np.array_equal(frame_of(second, 3), KEPT)
    assert np.array_equal(frame_of(second, 4), REJECTED)
    assert not np.array_equal(frame_of(second, 0), KEPT)  # an earlier step's frame is gone
    assert (second[-2, -2] == 170).all()  # not drawn yet


def test_at_the_end_the_picture_is_the_drawing(tokenizer):
    picture = race_picture(tokenizer, GUESSED, 20)
    with torch.no_grad():
        image = tokenizer.decode(torch.tensor([GUESSED.tokens]))
    expected = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert np.abs(picture[::4, ::4].astype(int) - expected).max() <= 1


def test_the_widget_replays_all_runs_on_one_clock(tokenizer):
    race = decode_race(tokenizer, [SLOW, GUESSED])
    assert "0 of 49" in race.labels[0].value and "0 of 49" in race.labels[1].value
    before = race.pictures[1].value
    race.frame.value = race.FRAMES // 2  # 24.5 of 49 ms
    assert "24 of 49" in race.labels[0].value
    assert "ready at 20 ms" in race.labels[1].value
    assert race.pictures[1].value != before
    race.frame.value = race.FRAMES
    assert "ready at 49 ms" in race.labels[0].value
    assert race.play.value == race.FRAMES


def test_the_figure_has_a_row_a_run(tokenizer):
    fig = race_figure(tokenizer, [SLOW, GUESSED])
    assert len(fig.axes) == 8
    assert fig.axes[4].get_ylabel() == "speculative\n20 ms"
    assert [axis.get_title() for axis in fig.axes[:4]] == ["5 ms", "12 ms", "24 ms", "49 ms"]
