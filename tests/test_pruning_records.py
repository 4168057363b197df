"""Notebook 11's records: every part writes what the figures read, once; faults are refused."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from fastgen_course.compression import pruning, pruning_rows, pruning_speed
from fastgen_course.compression import pruning_figures as figures
from fastgen_course.compression import pruning_records as records
from fastgen_course.compression.folding import fold
from fastgen_course.compression.pruning import PruneRecipe, prune
from fastgen_course.compression.quantization_quality import Quality
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.timing import result, results
from fastgen_course.timing.rows import Comparison, Timing
from fastgen_course.training import loop, matching
from fastgen_course.training.matching import MatchRecipe

TINY = GeneratorConfig(noise=4, caption=8, channels=(8, 8, 4))
WIDTHS = (5, 5, 4, 4, 2, 2)
QUICK = MatchRecipe(steps=1, batch=2, features=0.0)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Everything small, the registry in a folder of its own; returns what was scored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = Generator(TINY).eval().requires_grad_(False)
        judge = SlotJudge(JudgeConfig(channels=(4, 4, 8), features=8)).eval()
    models = {"generator_base": base, "judge_train": judge.requires_grad_(False)}
    models["generator_pruned"] = prune(fold(base), WIDTHS, "magnitude")
    for module in (records, pruning, pruning_rows, pruning_speed, matching):
        monkeypatch.setattr(module, "load_model", models.__getitem__)
    for module in (pruning_rows, records, pruning_speed):
        monkeypatch.setattr(module, "PRUNED_WIDTHS", WIDTHS)
    monkeypatch.setattr(pruning_speed, "load_card", lambda name: {"sha256": name})
    monkeypatch.setattr(records, "key", lambda name="": "w")
    monkeypatch.setattr(results, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(loop, "run_path", lambda name: tmp_path / f"{name}.pt")
    monkeypatch.setattr(records, "PAIRED_CAPTIONS", 4)
    monkeypatch.setattr(records, "MENDED", QUICK)
    monkeypatch.setattr(records, "LOTTERY_RECIPE", QUICK)
    monkeypatch.setattr(records, "LOTTERY_CHANNELS", (6, 4, 3))
    recipe = PruneRecipe(steps=2, batch=2, features=0.0, widths=WIDTHS, rounds=1, every=1)
    monkeypatch.setattr(records, "RECIPE", recipe)
    asked = []

    def quality(draw, noise, *, seeds, n, chunk):
        asked.append(n)
        value = 13.0 + len(asked)
        return Quality((value,) * len(seeds), (0.9,) * len(seeds), (0.8,) * len(seeds))

    monkeypatch.setattr(records.scores, "quality", quality)
    yield asked
    plt.close("all")


def test_quality_parts_record_what_the_figures_read_and_only_once(tiny, capsys):
    options = records.Options(rows=("rounds", "scratch"))
    parts = [name for name in records.RECORDERS if name != "speed"]
    for part in parts:
        records.RECORDERS[part](options)
    scored = len(tiny)
    assert figures.share_of_variance("pruned") > 0 and -1 <= figures.agreement() <= 1
    for table, words in (
        (figures.sensitivity_table(), "conv14"),
        (figures.shapes_table(), "even"),
        (figures.zeros_table(), "2:4"),
        (figures.lottery_table(), "the winning ticket, rewound"),
        (figures.compared_table(), "fresh weights"),
    ):
        assert words in table
    for plot in (figures.plot_sensitivity, figures.plot_zeros, figures.plot_compared):
        assert plot().axes
    for text in (figures.describe_sensitivity, figures.describe_zeros, figures.describe_compared):
        assert text().endswith(".")
    assert result("pruning.macs_reduction").value > 1
    row = result("pruning.fid_ratio")
    assert row.base == "generator_base" and row.extra["captions"] == 10_000
    assert row.extra["widths"] == list(WIDTHS)
    assert "torch-pruning" not in figures.compared_table()  # was not asked for

    for part in parts:
        records.RECORDERS[part](options)
    assert len(tiny) == scored
    assert "rounds is recorded already" in capsys.readouterr().out
    records.RECORDERS["two_four"](replace(options, again=True))
    assert len(tiny) == scored + 2


def test_a_trial_records_nothing(tiny, tmp_path):
    records.RECORDERS["compared"](records.Options(tiny=True, rows=("at_once",)))
    assert tiny == [60]
    assert not list(tmp_path.rglob("pruning.json"))


def test_the_headline_is_the_fastest_form_of_either_side(tiny, monkeypatch):
    ms = {"base": 9.0, "base_transposed": 8.0, "base_blocks": 6.0, "pruned_transposed": 3.0,
          "pruned_blocks": 4.0, "odd": 3.5, "two_four": 8.0, "zeros_90": 8.0}  # fmt: skip

    def timed(networks, batch, folder, seconds):
        assert set(networks) == set(ms)
        return Comparison(
            {n: Timing(t, t, 3, batch, "cpu", 1, "float32", n, 1, (t, t, t)) for n, t in ms.items()}
        )

    split = {"convolutions": 4.0, "modulation, ReLU, tanh, captions": 1.0, "layout": 0.5}
    split |= {"matrix products": 0.3, "to integers and back": 0.0}
    monkeypatch.setattr(pruning_speed, "time_rows", timed)
    monkeypatch.setattr(pruning_speed, "split_times", lambda *a: split)
    pruning_speed.record_speed("python -m x speed", 1.0)
    row = result("pruning.speedup")
    assert row.value == pytest.approx(2.0) and row.batch == 64 and row.dtype == "float32"
    assert row.extra["row"] == "pruned_transposed" and row.extra["over"] == "base_blocks"
    assert result("pruning.speedup_batch1").value == pytest.approx(2.0)
    table = figures.speed_table(64)
    assert "0.75x" in table and pruning_speed.WHY["zeros_90"] in table
    assert "1.00x" in figures.split_table(64)


def test_unknown_parts_rows_and_a_busy_machine_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(records, "cores_taken", lambda: 1.5)
    assert records.main(["size"]) == 2
    assert "no part 'size'; choose from sensitivity" in capsys.readouterr().err
    assert records.main(["compared", "--rows", "best"]) == 2
    assert "no row 'best'" in capsys.readouterr().err
    assert records.main(["speed"]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err


def test_ranks_are_spearmans():
    assert figures.spearman([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == 1.0
    assert figures.spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1.0
    assert figures.spearman([1.0, 2.0, 3.0], [2.0, 1.0, 3.0]) == 0.5
