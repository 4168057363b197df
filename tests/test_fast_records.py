"""The recorder of notebook 07 on tiny models: counts, times, quality and the race."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fastgen_course.models.gpt import GPT, GPT_SIZES
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.sampling.masked import MASKED_SAMPLING
from fastgen_course.timing import all_results, result
from fastgen_course.training import fast_methods, fast_records
from fastgen_course.training.fast_methods import METHODS, Models
from fastgen_course.training.fast_records import main
from fastgen_course.training.masked_scores import MaskedPoint


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = replace(GPT_SIZES["gpt_xs"], width=16, layers=1, heads=2, codes=64)
    tokenizer = Tokenizer(TokenizerConfig(codes=64, dim=4, width=12, deep=12)).eval()
    masked = [MaskedModel(MaskedConfig(width=16, layers=1, heads=2, codes=64)) for _ in range(2)]
    return Models(GPT(config).eval(), GPT(config).eval(), *(m.eval() for m in masked), tokenizer)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for module in ("timing.results", "training.fast_records"):
        monkeypatch.setattr(
            f"fastgen_course.{module}.data_path", lambda *parts: tmp_path.joinpath(*parts)
        )
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", METHODS)
def test_every_method_draws_all_tokens_once(models, name):
    seen = []
    drawn = METHODS[name](
        models, ["a red boot"], torch.Generator().manual_seed(1), watch=seen.append
    )
    assert drawn.tokens.shape == (1, 49)
    assert sorted(place for step in drawn.steps for place in step.settled) == list(range(49))
    assert tuple(seen) == drawn.steps
    again = METHODS[name](models, ["a red boot"], torch.Generator().manual_seed(1))
    assert torch.equal(again.tokens, drawn.tokens)


def test_costs_are_counted_and_told_apart(models, folder):
    fast_records.record_costs(models, n=3)
    count = {name: fast_records.recorded_costs(name) for name in METHODS}
    assert count["plain"]["forwards"] == count["cached"]["forwards"] == 49
    assert count["plain"]["token_forwards"] > 10 * count["cached"]["token_forwards"]
    assert count["masked8"]["forwards"] == 8 * (1 + (MASKED_SAMPLING["guidance"] != 1))
    assert count["wavefront2"]["forwards"] == 20  # 19 steps and the prefill
    speculative = count["speculative4"]
    assert 11 <= speculative["forwards"] <= 50
    assert speculative["draft_forwards"] == pytest.approx(5 * (speculative["forwards"] - 1) + 1)
    assert 0 < float(result("fast.accepted.speculative4")) < 1
    # Untrained models: every token costs about ln 64 nats, whoever drew it.
    for name in METHODS:
        assert float(result(f"fast.nats.{name}")) == pytest.approx(49 * 4.16, rel=0.05)


def test_quality_is_of_the_lossy_methods_and_goes_on_after_a_kill(models, folder, capsys):
    judge = SlotJudge(JudgeConfig(channels=(8, 8, 8), features=8)).eval()
    settings = {"n": 40, "seeds": (0,), "judge": judge, "weights": "w"}
    fast_records.record_quality(models, **settings)
    names = {r.name for r in all_results() if r.name.startswith("fast.fid")}
    lossy = {name for name, method in METHODS.items() if not method.lossless}
    assert names == {f"fast.fid.{name}" for name in lossy | {"cached"}}
    assert fast_records.recorded_quality("speculative4") == fast_records.recorded_quality("cached")
    capsys.readouterr()
    fast_records.record_quality(models, **settings)
    assert capsys.readouterr().out.count("is recorded already") == len(lossy) + 1


@pytest.fixture
def quality(monkeypatch):
    """Exact accuracies as if recorded: the wavefronts lose little, the masked steps a lot."""
    exact = dict.fromkeys(METHODS, 0.7)
    exact.update(cached=0.9, wavefront3=0.895, wavefront2=0.891, wavefront1=0.889)

    def recorded(name):
        return MaskedPoint(exact[name], 30.0, 0.8, 0.8)

    monkeypatch.setattr(fast_records, "recorded_quality", recorded)
    return exact


def test_the_best_parallel_method_is_the_fewest_forwards_within_a_point(models, folder, quality):
    fast_records.record_costs(models, n=2)
    assert fast_records.best_parallel() == "wavefront2"
    quality["groups4"] = 0.91  # better than the language model, and fewer forwards
    assert fast_records.best_parallel() == "groups4"
    quality.update({name: 0.5 for name in METHODS if name != "cached"})
    with pytest.raises(ValueError, match="no parallel method is within 1%"):
        fast_records.best_parallel()


def test_speed_is_recorded_in_both_forms_and_its_ratios_against_the_plain_loop(
    models, folder, quality
):
    fast_records.record_costs(models, n=2)
    fast_records.record_speed(models, seconds=1.0)
    for name in METHODS:
        for label in (f"batch1_ms.{name}", f"batch1_ms.{name}_written", f"batch64_ms.{name}"):
            row = result(f"fast.{label}")
            assert row.unit == "ms" and row.value > 0
    for name, (fast_one, slow) in {
        "kv_cache": ("cached_written", "plain"),
        "parallel_written": ("wavefront2_written", "plain_written"),
    }.items():
        row = result(f"sampling.{name}_speedup")
        assert row.spread[0] <= row.value <= row.spread[1]
        fast_ms, slow_ms = (float(result(f"fast.batch1_ms.{k}")) for k in (fast_one, slow))
        assert row.value == pytest.approx(slow_ms / fast_ms, rel=0.3)
    drop = result("sampling.parallel_exact_accuracy_drop")
    assert drop.value == pytest.approx(0.9 - 0.891)


def test_the_race_is_written_and_read_back(models, folder):
    (folder / "recordings").mkdir()
    fast_records.record_race(models)
    runs = fast_records.recorded_race()
    assert [run.name for run in runs] == list(fast_records.RACERS)
    for run in runs:
        assert len(run.tokens) == 49 and len(run.ms) == len(run.steps)
        assert run.ms == sorted(run.ms) and run.ms[0] > 0
    text = json.loads((folder / "recordings" / "decode_race.json").read_text())
    assert text["command"] == "python -m fastgen_course.training.fast_records race"


def test_guidance_is_refused_rather_than_left_aside(models, monkeypatch):
    monkeypatch.setattr(fast_methods, "GPT_SAMPLING", {"temperature": 1.0, "guidance": 2.0})
    with pytest.raises(ValueError, match="without guidance"):
        METHODS["cached"](models, ["a red boot"])


def test_unknown_recorders_are_named(capsys):
    assert main(["nonsense"]) == 2
    assert "choose from costs, quality, speed, race" in capsys.readouterr().out
