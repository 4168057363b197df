"""The recorders and the replay of notebook 05 on tiny models: what they write, choose and show."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastgen_course.models.gpt import GPT
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.masked import (
    MASKED_SAMPLING,
    draw_masked_images,
    replay_masked,
    sample_masked,
)
from fastgen_course.timing import all_results, result
from fastgen_course.training import masked_records, masked_steps
from fastgen_course.training.masked_costs import haste, hidden_before
from fastgen_course.training.masked_records import (
    GRID,
    choose_sampling,
    main,
    record_bound,
    record_quality,
    record_sampling,
    recorded_choice,
    recorded_curve,
    recorded_sampling,
    settings_name,
)
from fastgen_course.training.masked_scores import MaskedPoint
from fastgen_course.training.masked_steps import record_steps, record_times, recorded_steps
from fastgen_course.widgets.replay import (
    CELL,
    MaskedReplay,
    masked_replay,
    replay_figure,
    revealed_at,
    step_picture,
)

CAPTION = "a large red sneaker on a white background, photo style"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results go to an empty folder; data stay where they are."""
    monkeypatch.setattr(
        "fastgen_course.timing.results.data_path", lambda *parts: tmp_path.joinpath(*parts)
    )
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def tiny():
    """A masked model with opinions, a tokenizer, a GPT and a judge, none of them trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        masked = MaskedModel(MaskedConfig(width=16, layers=1, heads=2, codes=20)).eval()
        tokenizer = Tokenizer(TokenizerConfig(width=4, deep=8, codes=20)).eval()
        gpt = GPT(TransformerConfig(width=16, layers=1, heads=2, codes=20)).eval()
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        judge = SlotJudge(config).eval()
    with torch.no_grad():
        for p in masked.parameters():
            if p.ndim > 1:
                p.mul_(6)
    for model in (masked, tokenizer, gpt):
        model.requires_grad_(False)
    return masked, tokenizer, gpt, judge


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- drawing step by step -------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5])
def test_a_replay_ends_where_the_sampler_ends(tiny, steps):
    noise = torch.rand(2, 2, steps, 49, generator=torch.Generator().manual_seed(1))
    trace = replay_masked(tiny[0], [CAPTION] * 2, noise, steps=steps)
    assert torch.equal(trace[-1].tokens, sample_masked(tiny[0], [CAPTION] * 2, noise, steps=steps))
    hidden = [int(step.hidden[0].sum()) for step in trace]
    assert hidden == hidden_before(steps, 49)[1:]
    for before, after in itertools.pairwise(trace):
        known = ~before.hidden
        assert torch.equal(before.tokens[known], after.tokens[known])
        assert not (after.hidden & known).any()
        kept = before.confidence.masked_fill(before.hidden, torch.inf).amin(1)
        dropped = before.confidence.masked_fill(~before.hidden, -torch.inf).amax(1)
        assert (kept >= dropped).all()


def test_images_are_drawn_with_the_shipped_settings_unless_told(tiny):
    masked, tokenizer, *_ = tiny
    draw = [
        draw_masked_images(
            masked, tokenizer, [CAPTION], generator=torch.Generator().manual_seed(2), **settings
        )
        for settings in ({}, dict(MASKED_SAMPLING), {"steps": 2})
    ]
    assert draw[0].shape == (1, 3, 28, 28)
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


# --- records --------------------------------------------------------------------------------------


def test_the_bound_is_the_area_under_the_recorded_curve(folder, tiny):
    record_bound(*tiny[:2], n=20)
    curve = recorded_curve()
    assert len(curve) == 49 and float(result("masked.bound_nats")) == pytest.approx(
        sum(curve), abs=0.01
    )
    for steps in (1, 8, 49):
        row = result(f"masked.haste_nats.steps{steps}")
        assert float(row) == pytest.approx(haste(curve, hidden_before(steps, 49)), abs=0.02)
    best, even = (float(result(f"masked.haste_nats{s}.steps8")) for s in ("_best", "_even"))
    assert best <= min(even, float(result("masked.haste_nats.steps8"))) + 1e-6


def test_sampling_is_scored_by_the_judge_that_may_choose_and_goes_on(folder, tiny, monkeypatch):
    masked, tokenizer, _, judge = tiny
    grid = (
        {"steps": 2, "temperature": 1.0, "choice_temperature": 0.0, "guidance": 1.0},
        {"steps": 2, "temperature": 1.0, "choice_temperature": 4.5, "guidance": 2.0},
    )
    options = {"grid": grid, "n": 30, "seeds": (0, 1), "judge": judge, "weights": "w1"}
    record_sampling(masked, tokenizer, **options)
    for name in ("real", "tokens", *map(settings_name, grid)):
        point = recorded_sampling(name)
        assert 0 <= point.exact_accuracy <= 1 and 0 <= point.recall <= 1
        assert result(f"masked_sampling.fid.{name}").extra["judge"] == "judge_train"
    row = result("masked_sampling.fid.s2_t1_c4_5_g2")
    assert row.extra["settings"] == grid[1] and row.spread[0] < row.spread[1]
    scored = []
    monkeypatch.setattr(
        masked_records, "score", lambda *a: scored.append(a) or (MaskedPoint(1, 1, 1, 1), {})
    )
    record_sampling(masked, tokenizer, **options)
    assert not scored  # all recorded with these weights
    record_sampling(masked, tokenizer, **{**options, "weights": "w2"})
    assert len(scored) == 4


def test_the_sampling_rule_buys_forwards_only_for_a_gain():
    tokens = MaskedPoint(0.85, 10.0, 0.9, 0.9)

    def setting(steps, choice, guidance=1.0):
        return {
            "steps": steps, "temperature": 1.0, "choice_temperature": choice, "guidance": guidance
        }  # fmt: skip

    grid = [setting(8, 0.0), setting(8, 4.5), setting(8, 4.5, 2.0), setting(16, 4.5)]

    def choice(*rows):
        points = [MaskedPoint(exact, fid, 0.9, recall) for exact, fid, recall in rows]
        return choose_sampling(points, tokens, grid)

    near = (15.0, 0.8)
    assert choice((0.9, 15.0, 0.1), (0.8, *near), (0.805, *near), (0.8, *near)) == grid[1]
    assert choice((0.9, 15.0, 0.1), (0.8, *near), (0.83, *near), (0.82, *near)) == grid[2]
    assert choice((0.9, 50.0, 0.9), (0.8, *near), (0.7, *near), (0.9, *near)) == grid[3]
    assert choice(*[(0.9, 40.0 - i, 0.1) for i in range(4)]) == grid[3]  # none is near: least FID
    names = [settings_name(settings) for settings in GRID]
    assert len(set(names)) == len(names)


def test_the_shipped_settings_are_the_recorded_choice():
    if not all_results("masked_sampling"):
        pytest.skip("the grid of sampling settings is not recorded yet")
    assert dict(MASKED_SAMPLING) == dict(recorded_choice())


def test_steps_and_times_are_recorded(folder, tiny):
    masked, tokenizer, gpt, judge = tiny
    options = {"n": 30, "seeds": (0, 1), "judge": judge, "weights": "w1", "times": False}
    record_steps(masked, tokenizer, steps=(1, 3), **options)
    for name in ("real", "tokens", "steps1", "steps3"):
        assert recorded_steps(name).fid >= 0
    row = result("masked_steps.exact_accuracy.steps3")
    assert row.extra["settings"]["steps"] == 3 and row.extra["captions"] == 30
    record_times(masked, tokenizer, gpt, steps=(1, 3), batches=(2,), seconds=0.2)
    timed = [result(f"masked_steps.batch2_ms.{n}") for n in ("gpt", "steps1", "steps3")]
    assert all(t.value > 0 and t.batch == 2 and t.threads == 1 for t in timed)
    assert result("masked_steps.over_gpt_batch2_speedup.steps1").value > 0
    cost = result("masked_steps.guidance_cost_batch2_ratio")
    assert cost.value > 0 and cost.extra["steps"] == MASKED_SAMPLING["steps"]


def test_quality_goes_into_the_area_of_the_model(folder, tiny, capsys):
    masked, tokenizer, _, judge = tiny
    sizes = {"seeds": (0,), "n": 20, "n_held_out": 8, "copy_captions": 1}
    record_quality(masked, tokenizer, judge=judge, **sizes)
    for name in ("exact_accuracy", "heldout_exact_accuracy", "fid", "recall", "fid_real"):
        assert result(f"masked.{name}").command.endswith("masked_records quality")
    assert result("masked.fid").extra["settings"] == dict(MASKED_SAMPLING)
    assert "tokens.fid is not recorded" in capsys.readouterr().out


def test_recorders_are_named(capsys):
    assert main(["nothing"]) == 2
    assert "bound, sampling, steps, quality, times" in capsys.readouterr().out


def test_every_way_of_the_race_draws_its_batch(tiny):
    masked, tokenizer, gpt, _ = tiny
    ways = masked_steps.step_ways((1, 2)) | masked_steps.guidance_ways()
    calls = masked_steps.drawing_calls(masked, tokenizer, gpt, 2, ways)
    assert list(calls) == ["GPT", "steps1", "steps2", "guided", "unguided"]
    forwards = []
    with torch.no_grad():
        hook = masked.norm.register_forward_hook(lambda *a: forwards.append(1))
        twice = 1 + (MASKED_SAMPLING["guidance"] != 1)
        steps = int(MASKED_SAMPLING["steps"])
        for label, expected in (
            ("steps2", 2 * twice),
            ("guided", 2 * steps),
            ("unguided", steps),
        ):
            forwards.clear()
            assert calls[label]().shape == (2, 3, 28, 28)
            assert len(forwards) == expected
        hook.remove()


# --- the replay -----------------------------------------------------------------------------------


def test_the_picture_of_a_step_covers_what_is_hidden(tiny):
    masked, tokenizer, *_ = tiny
    trace = replay_masked(masked, [CAPTION], generator=torch.Generator().manual_seed(3), steps=4)
    order = revealed_at(trace)[0]
    assert order.min() == 1 and order.max() == 4
    assert [int((order <= s).sum()) for s in (1, 2, 3, 4)] == [
        49 - left for left in hidden_before(4, 49)[1:]
    ]
    picture = step_picture(tokenizer, trace, 2)
    assert picture.shape == (7 * CELL, 7 * CELL, 3) and picture.dtype == np.uint8
    centres = picture[CELL // 2 :: CELL, CELL // 2 :: CELL].reshape(49, 3)
    grey = (centres == 150).all(1)
    assert torch.equal(torch.from_numpy(grey), trace[1].hidden[0])
    edges = picture[::CELL, CELL // 2 :: CELL].reshape(49, 3)
    framed = (edges == np.array([213, 94, 0])).all(1)
    assert torch.equal(torch.from_numpy(framed), order == 2)
    with pytest.raises(ValueError, match="steps 1 to 4"):
        step_picture(tokenizer, trace, 5)
    figure = replay_figure(tokenizer, trace)
    assert len(figure.axes) == 5 and figure.axes[0].get_title().startswith("step 1\n4 known")


def test_the_replay_follows_its_sliders(tiny):
    box = masked_replay(*tiny[:2], steps=4)
    assert isinstance(box, MaskedReplay) and len(box.trace) == 4
    seen = {box.box.picture.value}
    box.step.value = 4
    seen.add(box.box.picture.value)
    assert "step 4 of 4" in box.said.value and "nothing is hidden" in box.said.value
    box.steps.value = 2
    assert len(box.trace) == 2 and box.step.max == 2 and box.step.value == 2
    seen.add(box.box.picture.value)
    box.box.seed.value = 5
    seen.add(box.box.picture.value)
    assert len(seen) == 4
    before = box.box.picture.value
    box.box.text.value = "a red car"
    assert "car" in box.box.status.value and "Traceback" not in box.box.status.value
    assert box.box.picture.value == before
