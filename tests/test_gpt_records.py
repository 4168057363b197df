"""The recorders of notebook 04 on tiny models: what they write, and what they choose."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from fastgen_course.datasets.captions import SLOTS, attributes_of
from fastgen_course.models.gpt import GPT, GPT_SIZES
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.gpt import GPT_SAMPLING
from fastgen_course.timing import result
from fastgen_course.training import gpt_figures, gpt_records, gpt_speed, gpt_sweep
from fastgen_course.training.gpt import GPTRecipe, ShippedGPT
from fastgen_course.training.gpt_records import (
    GRID,
    PARTS,
    SamplingPoint,
    choose_sampling,
    main,
    record_descriptions,
    record_quality,
    record_reward,
    record_sampling,
    recorded_part,
    recorded_sampling,
    settings_name,
)
from fastgen_course.training.gpt_sweep import (
    SweepPoint,
    record_sweep,
    recorded_sweep,
    smallest_within_noise,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results and unfinished trainings go to an empty folder; data stay where they are."""
    for module in ("timing.results", "training.loop"):
        monkeypatch.setattr(
            f"fastgen_course.{module}.data_path", lambda *parts: tmp_path.joinpath(*parts)
        )
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def tiny():
    """A GPT, a tokenizer and two judges, never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gpt = GPT(TransformerConfig(width=16, layers=1, heads=2, codes=20)).eval()
        tokenizer = Tokenizer(TokenizerConfig(width=4, deep=8, codes=20)).eval()
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        judges = SlotJudge(config).eval(), SlotJudge(config).eval()
    return gpt, tokenizer, judges


def test_the_sweep_records_every_figure_and_goes_on_where_it_was(folder, tiny, monkeypatch):
    _, tokenizer, judges = tiny
    sizes = {
        "gpt_xs": TransformerConfig(width=8, layers=1, heads=1),
        "gpt_s": TransformerConfig(width=16, layers=1, heads=2),
    }
    monkeypatch.setattr(gpt_sweep, "GPT_SIZES", sizes)
    monkeypatch.setattr(gpt_sweep, "SWEEP", tuple(sizes))
    short, other = GPTRecipe(steps=2), GPTRecipe(steps=3)
    monkeypatch.setattr(gpt_sweep, "gpt_metrics", lambda *a, **k: _NATS)
    options = {"n": 12, "tokenizer": tokenizer, "tokenizer_id": "t1", "judges": judges}
    record_sweep(short, ["gpt_xs"], **options)
    trained = []

    def counted(config, recipe, **keywords):
        trained.append((config.width, recipe.steps))
        return gpt_sweep_train(config, recipe, **keywords)

    gpt_sweep_train = gpt_sweep.train_gpt
    monkeypatch.setattr(gpt_sweep, "train_gpt", counted)
    record_sweep(short, tuple(sizes), **options)
    assert trained == [(16, 2)]  # the first size was recorded with these steps
    points = recorded_sweep()
    assert list(points) == ["gpt_xs", "gpt_s"]
    assert points["gpt_xs"].parameters < points["gpt_s"].parameters
    assert all(p.draw_nats == 3.0 for p in points.values())
    row = result("gpt_sweep.exact_accuracy.gpt_s")
    assert (row.extra["steps"], row.base) == (2, "gpt_s")
    assert not list((folder / "runs").glob("*.pt"))  # finished
    record_sweep(other, ["gpt_xs"], **options)  # other steps: trained again
    record_sweep(other, ["gpt_xs"], **{**options, "tokenizer_id": "t2"})
    assert trained[1:] == [(8, 3), (8, 3)]
    # The shipped recipe and size: not trained again.
    shipped = ShippedGPT(sizes["gpt_s"], GPTRecipe(steps=4))
    monkeypatch.setattr(gpt_sweep, "SHIPPED", {"gpt": shipped})
    monkeypatch.setattr(gpt_sweep, "load_card", lambda name: {"minutes": 7.0})
    monkeypatch.setattr(
        gpt_sweep, "load_model", lambda name: GPT(replace(sizes["gpt_s"], codes=20))
    )
    record_sweep(None, tuple(sizes), **options)
    assert trained[3:] == [(8, 4)]
    assert result("gpt_sweep.exact_accuracy.gpt_s").extra["training_minutes"] == 7.0


_NATS = {"test_draw_nats": 3.0, "test_describe_nats": 0.5}


def _swept(**accuracies: float) -> dict[str, SweepPoint]:
    sizes = {"gpt_xs": 1e5, "gpt_s": 4e5, "gpt_m": 1e6, "gpt_l": 3e6}
    return {k: SweepPoint(sizes[k], 3.0, 0.5, 0.0, v) for k, v in accuracies.items()}


def test_the_choice_is_the_smallest_size_that_noise_cannot_tell_from_the_best():
    points = _swept(gpt_xs=0.5, gpt_s=0.79, gpt_m=0.81, gpt_l=0.80)
    assert smallest_within_noise(points, halfwidth=0.001) == "gpt_m"
    assert smallest_within_noise(points, halfwidth=0.02) == "gpt_s"
    assert smallest_within_noise(points, halfwidth=0.5) == "gpt_xs"


def test_sampling_records_every_setting_with_the_judge_that_may_choose(folder, tiny):
    gpt, tokenizer, judges = tiny
    grid = ({"temperature": 0.0}, {"temperature": 1.0, "top_k": 3, "guidance": 1.5})
    record_sampling(gpt, tokenizer, grid=grid, n=40, seeds=(0, 1), judge=judges[1])
    for name in ("real", "tokens", *map(settings_name, grid)):
        point = recorded_sampling(name)
        assert 0 <= point.exact_accuracy <= 1 and 0 <= point.recall <= 1
        row = result(f"gpt_sampling.fid.{name}")
        assert row.extra["judge"] == "judge_train" and row.extra["captions"] == 40
    assert result("gpt_sampling.fid.t1_k3_g1_5").extra["settings"] == grid[1]
    # Real images lie nearer to other real images than what an untrained model paints.
    real, tokens, cold = (recorded_sampling(n).fid for n in ("real", "tokens", "t0"))
    assert real < min(tokens, cold)


def test_the_parts_of_the_training_are_compared_by_two_judges(folder, tiny, monkeypatch):
    gpt, tokenizer, judges = tiny
    monkeypatch.setattr(gpt_records, "gpt_metrics", lambda *a, **k: _NATS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = GPT(gpt.config).eval()
    record_reward((gpt, other), tokenizer, n=40, seeds=(0, 1), judges=judges)
    first, second = (recorded_part(part) for part in PARTS)
    assert first != second and first.draw_nats == 3.0 and first.describe_nats == 0.5
    record_reward((gpt, gpt), tokenizer, n=40, seeds=(0, 1), judges=judges)
    assert recorded_part("first") == recorded_part("second") == first
    row = result("gpt_reward.fid.second")
    assert row.unit == "FID" and row.spread[0] <= row.value <= row.spread[1]


def test_settings_have_names_of_their_own():
    names = [settings_name(settings) for settings in GRID]
    assert len(set(names)) == len(names)
    assert settings_name({"temperature": 0.85, "top_p": 0.9}) == "t0_85_p0_9"


def test_the_sampling_rule():
    tokens, real = SamplingPoint(0.85, 10.0, 0.9, 0.9), SamplingPoint(0.9, 5.0, 0.95, 0.95)
    poor = SamplingPoint(0.5, 40.0, 0.9, 0.3)

    def choice(**near: float) -> str:
        """The setting chosen when these are near enough to the tokens, with these accuracies."""
        points = [
            SamplingPoint(near[n], fids.get(n, 15.0), 0.9, 0.8)
            if (n := settings_name(s)) in near
            else poor
            for s in GRID
        ]
        return settings_name(GRID[choose_sampling(points, tokens, real)])

    fids: dict[str, float] = {}

    assert choice(t1=0.80, t0_85=0.84) == "t0_85"
    assert choice(t1=0.80, t0_85=0.84, t1_g1_5=0.845) == "t0_85"  # not worth a second forward
    assert choice(t1=0.80, t0_85=0.84, t1_g1_5=0.87) == "t1_g1_5"
    # Clearer than real images is no better: then FID decides, and guidance gains nothing.
    fids = {"t1": 11.0}
    assert choice(t1=0.91, t0_85=0.94) == "t1"
    assert choice(t1=0.91, t0_85=0.94, t1_g1_5=0.96) == "t1"
    # Nothing is near enough: the smallest FID, without guidance.
    far = [SamplingPoint(0.5, 90.0 - i, 0.9, 0.1) for i in range(len(GRID))]
    assert GRID[choose_sampling(far, tokens, real)].get("guidance", 1.0) == 1.0


def test_quality_records_drawings_and_descriptions(folder, tiny):
    gpt, tokenizer, judges = tiny
    sizes = {"seeds": (0,), "n": 30, "n_held_out": 10, "copy_captions": 1}
    record_quality(gpt, tokenizer, judge=judges[0], **sizes)
    for name in (
        "exact_accuracy",
        "exact_accuracy_real",
        "garment_accuracy",
        "heldout_exact_accuracy",
        "fid",
        "recall",
    ):
        assert result(f"text_to_image.{name}").command.endswith("gpt_records quality")
    assert result("text_to_image.fid").extra["settings"] == dict(GPT_SAMPLING)
    assert result("describe.worst_slot_drop").extra["slot"] in SLOTS


def test_a_description_is_compared_with_the_judge_slot_by_slot(folder, tiny, monkeypatch):
    gpt, tokenizer, judges = tiny
    truth = []

    def remember(n, generator):
        labels = draw(n, generator)
        truth.append(labels)
        return labels

    draw = gpt_records.draw_labels
    monkeypatch.setattr(gpt_records, "draw_labels", remember)

    def nearly_right(model, tokens):
        said = truth[-1].clone()
        garments = said[:, 2] < 10
        said[garments, 3] = (said[garments, 3] + 1) % 6  # every background wrong
        return attributes_of(said)

    monkeypatch.setattr(gpt_records, "describe_tokens", nearly_right)
    worst = record_descriptions(gpt, tokenizer, n=60, judge=judges[0])
    assert float(result("describe.colour_accuracy")) == 1.0
    wrong = float(result("describe.background_accuracy"))
    assert wrong == pytest.approx(float((truth[-1][:, 2] == 10).float().mean()))
    judged = float(result("describe.background_accuracy_judge"))
    assert float(result("describe.background_drop")) == pytest.approx(judged - wrong)
    assert worst == max(float(result(f"describe.{slot}_drop")) for slot in SLOTS)


def test_every_model_of_the_race_draws_its_batch(monkeypatch, tiny):
    from fastgen_course.checkpoints import load_model

    gpt, tokenizer, _ = tiny
    small = {"gpt": gpt, "tokenizer": tokenizer}
    monkeypatch.setattr(gpt_speed, "load_model", lambda name: small.get(name) or load_model(name))
    calls = gpt_speed.drawing_calls(2)
    assert list(calls) == ["GPT", "GPT, no cache", "VAE", "GAN"]
    pictures = {label: call() for label, call in calls.items()}
    assert all(p.shape == (2, 3, 28, 28) for p in pictures.values())
    assert torch.allclose(pictures["GPT"], pictures["GPT, no cache"])  # the same picture, slower
    assert "GPT, no cache" not in gpt_speed.drawing_calls(2, plain=False)


def test_recorders_are_named(capsys):
    assert main(["nothing"]) == 2
    assert "sweep, sampling, quality, speed" in capsys.readouterr().out
    assert set(GPT_SIZES) == {"gpt_xs", "gpt_s", "gpt_m", "gpt_l"}


def test_the_figures_show_what_was_recorded():
    tokens = SamplingPoint(0.9, 5.0, 0.9, 0.95)
    points = [SamplingPoint(0.01 * i, 10.0, 0.9, 0.02 * i) for i in range(len(GRID))]
    (axis,) = gpt_figures.sampling_figure(GRID, points, tokens).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axis.lines}
    assert len(lines["temperature"]) == sum(list(s) == ["temperature"] for s in GRID)
    index = GRID.index({"temperature": 1.0, "top_p": 0.9})
    assert points[index].exact_accuracy in lines["top-p at T = 1"]
    assert lines["real, as tokens"] == [0.9]
    sweep = _swept(gpt_xs=0.5, gpt_s=0.8)
    left, right = gpt_figures.sweep_figure(sweep, dict.fromkeys(sweep, (0.0, 0.9))).axes
    assert left.lines[0].get_xdata().tolist() == [1e5, 4e5]
    assert [text.get_text() for text in right.texts] == ["gpt_xs", "gpt_s"]
    text, *others = gpt_figures.place_figure(torch.eye(3)).axes[0].texts
    assert text.get_text() == "1.0" and len(others) == 8
    plt.close("all")
