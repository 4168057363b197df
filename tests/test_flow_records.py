"""The recorders of notebook 08 on tiny networks: what they write, choose, count and refuse."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.flow import FlowConfig, VelocityNet
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.vae import ConvVAE, VAEConfig
from fastgen_course.sampling.flow import FLOW_SAMPLING, sample_flow
from fastgen_course.timing import ResultError, all_results, result
from fastgen_course.training import flow_records as records
from fastgen_course.training.flow_methods import (
    BASE,
    METHODS,
    NETWORKS,
    FlowMethod,
    FlowModels,
    candidates,
)
from fastgen_course.training.masked_scores import MaskedPoint
from fastgen_course.widgets.flow_steps import flow_steps, steps_figure

CAPTIONS = ["a large red sneaker on a white background, photo style"] * 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results go to an empty folder; data stay where they are."""
    monkeypatch.setattr(
        "fastgen_course.timing.results.data_path", lambda *parts: tmp_path.joinpath(*parts)
    )
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def models():
    """A network of each kind with opinions and a decoder, none of them trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VAEConfig(channels=3, latent=8, widths=(8, 8, 8), vocabulary=73, caption=12)
        vae = ConvVAE(config).eval().requires_grad_(False)
        networks = {}
        times = {"flow_mean": ("t", "r"), "flow_guided": ("t", "s")}
        for name in NETWORKS:
            tiny = FlowConfig(8, 16, 3, 12, 10, times=times.get(name, ("t",)))
            networks[name] = VelocityNet(tiny).eval().requires_grad_(False)
            for p in networks[name].parameters():
                if p.ndim == 2:
                    p.normal_(std=0.3)
    weights = {name: f"w-{name}" for name in (*NETWORKS, "vae_refined")}
    return FlowModels(networks, vae, weights)


@pytest.fixture(scope="module")
def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        return SlotJudge(config).eval()


@pytest.mark.parametrize("name", METHODS)
def test_evaluations_are_what_the_network_is_asked(models, name):
    method = METHODS[name]
    network = models.networks[method.network]
    asked = []
    hook = network.condition.register_forward_hook(lambda *_: asked.append(1))
    images = method(models, CAPTIONS, torch.Generator().manual_seed(0))
    hook.remove()
    assert len(asked) == method.evaluations
    assert images.shape == (2, 3, 28, 28) and images.abs().max() <= 1


def test_methods_draw_what_their_settings_say(models):
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    scale = FLOW_SAMPLING["guidance"]
    expected = sample_flow(models.networks["flow"], models.vae, CAPTIONS, noise, guidance=scale)
    assert torch.equal(METHODS[BASE](models, CAPTIONS, noise=noise), expected)
    plain = sample_flow(models.networks["flow"], models.vae, CAPTIONS, noise)
    assert torch.equal(METHODS["unguided50"](models, CAPTIONS, noise=noise), plain)
    kept = METHODS["cached50_5"](models, CAPTIONS, noise=noise)
    every = METHODS["distilled50"](models, CAPTIONS, noise=noise)
    assert not torch.equal(kept, every)
    once = FlowMethod("", "flow_guided", 50, guided=True, cache_every=1)
    assert torch.equal(once(models, CAPTIONS, noise=noise), every)


def test_the_inner_blocks_are_skipped_where_features_are_kept(models):
    network, computed = models.networks["flow_guided"], []
    hook = network.blocks[1].register_forward_hook(lambda *_: computed.append(1))
    METHODS["cached50_5"](models, CAPTIONS)
    METHODS["cached8_2"](models, CAPTIONS)
    hook.remove()
    assert len(computed) == 10 + 4


def test_candidates_have_one_evaluation_a_step():
    assert candidates(1) == ("reflow1", "mean1", "student1") or FLOW_SAMPLING["guidance"] == 1.0
    assert {"reflow4", "mean4", "distilled4"} <= set(candidates(4))
    assert not any(name.startswith("heun") for name in (*candidates(4), *candidates(1)))


def test_quality_is_recorded_row_by_row(folder, models, judge, monkeypatch):
    options = {"names": ("reflow1", "student1"), "n": 20, "seeds": (0, 1), "judge": judge}
    records.record_quality(models, **options)
    for name in ("real", "reconstructed", "prior", "reflow1", "student1"):
        row = result(f"flow.fid.{name}")
        assert row.extra["judge"] == "judge_report" and row.extra["captions"] == 20
        assert row.spread[0] < row.spread[1] and row.value > 0
    assert result("flow.fid.student1").extra["weights"] == "w-flow_student-w-vae_refined"
    assert result("flow.evaluations.student1").value == 1
    assert result("flow.fid.reflow1").value != result("flow.fid.student1").value
    scored = []
    monkeypatch.setattr(
        records, "score", lambda *a: scored.append(a) or (MaskedPoint(1, 1, 1, 1), {})
    )
    records.record_quality(models, **options)
    assert not scored  # all recorded with these weights
    other = FlowModels(models.networks, models.vae, {**models.weights, "flow_student": "new"})
    records.record_quality(other, **options)
    assert len(scored) == 1  # the student alone


def test_the_fid_of_reconstructions_is_that_of_the_latent(folder, models, judge):
    options = {"names": (), "n": 20, "seeds": (0,), "judge": judge}
    records.record_quality(models, **options)
    real, back = (float(result(f"flow.fid.{n}")) for n in ("real", "reconstructed"))
    assert back > 2 * real  # an untrained decoder


def test_the_scale_is_chosen_by_a_rule():
    latent = MaskedPoint(0.85, 10.0, 0.9, 0.9)
    scales = (1.0, 1.5, 2.0)

    def choice(*rows):
        points = [MaskedPoint(exact, fid, 0.9, recall) for exact, fid, recall in rows]
        return records.choose_guidance(points, latent, scales)

    assert choice((0.7, 15, 0.8), (0.75, 15, 0.8), (0.8, 15, 0.8)) == 2.0
    assert choice((0.7, 15, 0.8), (0.75, 15, 0.8), (0.8, 15, 0.3)) == 1.5  # recall lost
    assert choice((0.7, 15, 0.8), (0.75, 25, 0.8), (0.8, 25, 0.8)) == 1.0  # FID lost
    assert choice((0.7, 15, 0.8), (0.705, 15, 0.8), (0.706, 15, 0.8)) == 1.0  # no gain
    assert choice((0.7, 45, 0.1), (0.8, 45, 0.1), (0.9, 45, 0.1)) == 1.0  # none is near


def test_guidance_is_scored_by_the_judge_that_may_choose(folder, models, judge):
    records.record_guidance(models, scales=(1.0, 2.0), n=20, judge=judge)
    assert result("flow_guidance.fid.s2").extra["judge"] == "judge_train"
    assert result("flow_guidance.fid.s1").value != result("flow_guidance.fid.s2").value
    with pytest.raises(ValueError, match="flow_guidance"):
        records.recorded_guidance()  # not all scales are there


def test_the_shipped_scale_is_the_recorded_choice():
    if not all_results("flow_guidance"):
        pytest.skip("the guidance scales are not recorded yet")
    assert FLOW_SAMPLING["guidance"] == records.recorded_guidance()


def test_few_steps_must_keep_the_words_before_the_fid_counts():
    base = MaskedPoint(0.9, 20.0, 0.9, 0.9)

    def choice(**rows):
        points = {k: MaskedPoint(exact, fid, 0.9, 0.9) for k, (exact, fid) in rows.items()}
        return records.choose_few(points, base)

    assert choice(a=(0.89, 30), b=(0.95, 25), c=(0.87, 10)) == "b"
    assert choice(a=(0.881, 24), b=(0.95, 25), c=(0.87, 10)) == "a"
    assert choice(a=(0.8, 30), b=(0.7, 25), c=(0.85, 90)) == "c"  # all lose: the most exact


def test_ratios_come_from_the_table_and_from_the_choice(folder, models, judge):
    few = ("reflow4", "reflow1", "mean4", "mean1", "distilled4", "student1")
    few = tuple(sorted({*few, *candidates(4), *candidates(1)}))
    records.record_quality(models, names=(BASE, *few), n=20, seeds=(0, 1), judge=judge)
    records.record_choice(models, n=20, judge=judge)
    records.record_speed(models, names=(BASE, *few), batches=(1, 64), seconds=0.5)
    row = records.recorded_row("student1")
    assert row["evaluations"] == 1 and row["fid"] == result("flow.fid.student1").value
    assert row["batch64_ms"] == result("flow.batch64_ms.student1").value
    records.record_ratios()
    base = result(f"flow.fid.{BASE}")
    for title, steps in (("four_step", 4), ("one_step", 1)):
        name = records.recorded_choice(steps)
        assert name in candidates(steps)
        ratio = result(f"flow.{title}_fid_ratio")
        fid = result(f"flow.fid.{name}")
        assert ratio.value == pytest.approx(fid.value / base.value)
        assert ratio.spread[0] <= ratio.value <= ratio.spread[1]
        speedup = result(f"flow.{title}_speedup")
        assert speedup.value == result(f"flow.over_{BASE}_batch1_speedup.{name}").value
        assert speedup.extra["method"] == ratio.extra["method"] == name
    retrained = {**models.weights, **dict.fromkeys(NETWORKS, "new")}
    records.record_choice(FlowModels(models.networks, models.vae, retrained), n=20, judge=judge)
    with pytest.raises(ResultError, match="different weights"):
        records.record_ratios()


def test_recorders_are_named(capsys):
    assert records.main(["nothing"]) == 2
    assert "quality, choice, speed, ratios, guidance" in capsys.readouterr().out


# --- the widget -----------------------------------------------------------------------------------


def test_the_steps_widget_draws_from_one_noise(models):
    flow = models.networks["flow"]
    figure = steps_figure(flow, models.vae, CAPTIONS[0], (1, 4), count=3)
    assert len(figure.axes) >= 6
    box = flow_steps(flow, models.vae, caption=CAPTIONS[0], count=2)
    seen = {box.box.picture.value}
    box.steps.value = 1
    seen.add(box.box.picture.value)
    box.solver.value = "heun"
    seen.add(box.box.picture.value)
    box.guidance.value = 3.0
    seen.add(box.box.picture.value)
    assert len(seen) == 4
    assert "4 evaluations" in box.said.value  # one step, two slopes, two forwards each
    before = box.box.picture.value
    box.box.text.value = "a red car"
    assert "car" in box.box.status.value and box.box.picture.value == before
    words = encode_words([CAPTIONS[0]] * 2)
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    direct = sample_flow(flow, models.vae, words, noise, steps=1, solver="heun", guidance=3.0)
    assert torch.allclose(box.images(CAPTIONS[0], 0), direct, atol=1e-6)
