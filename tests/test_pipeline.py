"""The whole recipe on tiny budgets: typed results, cached by content, resumed, drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastgen_course import cli, pipeline
from fastgen_course.compression.deploy import Painter
from fastgen_course.compression.pruning import PruneRecipe
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.searched import Architecture
from fastgen_course.pipeline import (
    DRY,
    Delivered,
    Pipeline,
    PipelineError,
    Recipe,
    folded_from,
    records,
    stages,
)
from fastgen_course.pipeline.stages import kept_widths
from fastgen_course.search import latency as tables
from fastgen_course.search.inherit import inherited_supernet
from fastgen_course.search.latency import LatencyTable, space_layers
from fastgen_course.search.searchers import Evolution, RandomSearch, Reinforce
from fastgen_course.search.space import SearchSpace
from fastgen_course.timing import ResultError, results
from fastgen_course.training import loop

SPACE = SearchSpace(
    widths={"stem": (8, 16), "conv7": (8, 16), "up14": (8,), "conv14": (8,), "up28": (8,),
            "conv28": (8,)},
    blocks=dict.fromkeys(("conv7", "conv14", "conv28"), ("conv3",)),
    kernels=dict.fromkeys(("up14", "up28"), (4,)),
)  # fmt: skip
TINY = replace(DRY, space=SPACE, candidates=3)
# A population as large as the space: all four networks are asked for.
SEARCH = replace(TINY, searcher=Evolution(population=4), candidates=24)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return Generator(GeneratorConfig(channels=(16, 8, 8))).eval().requires_grad_(False)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath("data", *parts))
    return tmp_path


def predicted(config):
    """Milliseconds as a table might have them: GENERATOR_BASE takes 10."""
    return 10 * sum(config.widths[:2]) / 256


def made(base, folder, recipe=TINY, latency=predicted):
    said = []
    return Pipeline(recipe, folder, base=base, latency=latency, say=said.append), said


def spied(monkeypatch, name):
    """The trainers of this name that are made from now on."""
    found, plain = [], getattr(stages, name)

    def make(*args, **fields):
        found.append(plain(*args, **fields))
        return found[-1]

    monkeypatch.setattr(stages, name, make)
    return found


def test_the_recipe_runs_once_and_only_what_changed_runs_again(base, runs, monkeypatch):
    folder = runs / "made"
    trainers = [t for name in ("PruneTrainer", "QATTrainer") for t in [spied(monkeypatch, name)]]
    work, said = made(base, folder)
    done = work.run()
    assert isinstance(done, Delivered)
    assert [text.split(":")[0] for text in said if "working" in text] == [
        "search", "distil", "prune", "quantise", "export",
    ]  # fmt: skip
    card = json.loads((folder / done.card).read_text())
    assert card["command"] == "python -m fastgen_course pipeline"
    assert card["minutes"] == pytest.approx(sum(card["minutes_by_stage"].values()))
    searched, pruned = work.search(), work.prune()
    assert 1 <= len(searched.tried) <= 3
    assert (searched.cost, searched.distance) in searched.tried
    assert card["recipe"]["searcher"] == ["Evolution", {"mutation": 1.5, "population": 30}]
    for (trainer,) in trainers:  # both are taught by the base, not by the network they begin with
        with torch.no_grad():
            lesson = trainer.original(work.noise, work.words)
            torch.testing.assert_close(lesson, base(work.noise, work.words), rtol=0, atol=1e-5)
    assert pruned.widths == kept_widths(searched.widths, TINY.keep)
    painter = Painter(folder / done.graphs["onnxruntime"])
    picture = painter(["a small red boot"], torch.Generator().manual_seed(0))
    assert picture.shape == (1, 28, 28, 3)
    assert picture.dtype == np.uint8

    again, said = made(base, folder)
    assert again.run() == done
    assert not any("working" in text for text in said)

    other = replace(TINY, prune=replace(TINY.prune, seed=99))
    changed, said = made(base, folder, other)
    assert changed.quantise().weights != work.quantise().weights
    assert [text.split(":")[0] for text in said if "working" in text] == ["prune", "quantise"]


def test_a_stage_that_was_cut_short_is_made_again(base, runs):
    work, _ = made(base, runs / "made")
    first = work.distil()
    (runs / "made" / f"distil-{first.key}.json").unlink()
    again, said = made(base, runs / "made")
    assert again.distil().widths == first.widths
    assert [text for text in said if "working" in text] == ["distil: working"]
    # What was trained before counts, though nothing is trained now.
    trained = torch.load(runs / "data" / "runs" / f"pipeline_distil_{first.key}.pt")["seconds"]
    assert again.distil().seconds >= trained > 0


def test_the_networks_of_the_stages_are_what_their_distances_say(base, runs):
    work, _ = made(base, runs / "made")
    for stage in stages.STAGES:
        network = work.network(stage)
        with torch.no_grad():
            distance = work._distance(network)
        assert distance == pytest.approx(getattr(work, stage)().distance, rel=1e-5)
    with pytest.raises(ValueError, match="stage must be one of search, distil, prune, quantise"):
        work.network("export")


def test_stages_are_scored_once_and_timed_into_one_table(base, runs, monkeypatch):
    monkeypatch.setattr(results, "data_path", lambda *parts: runs.joinpath(*parts))
    work, _ = made(base, runs / "made")
    shipped = {"generator_base": base, "student_int8": work.network("quantise")}
    monkeypatch.setattr(records, "load_model", shipped.__getitem__)
    few = {"n": 60, "n_held_out": 20, "seeds": (0, 1)}
    said, timed = [], records.time_stages(work, 0.1)
    monkeypatch.setattr(records, "time_stages", lambda *_: timed)
    with pytest.raises(ResultError, match="No result"):
        records.recorded_table()
    records.record_pipeline(work, said.append, **few)
    assert [text.split(":")[0] for text in said[:4]] == list(stages.STAGES)
    scored = results.result("pipeline.exact_accuracy.prune")
    assert scored.value == pytest.approx(sum(scored.extra["by_seed"]) / 2)
    assert results.result("pipeline.minutes.total").value == pytest.approx(
        sum(getattr(work, name)().seconds for name in stages.STAGES) / 60
    )
    faster = results.result("pipeline.export_over_base_speedup")
    assert faster.spread[0] <= faster.value <= faster.spread[1]
    assert results.result("pipeline.base_over_base_speedup").value == 1
    stored = results.result("pipeline.stored_bytes")
    assert stored.value == work.run().weight_bytes == stored.extra["bytes_by_stage"]["quantise"]

    # Recorded elsewhere: the first row's and the last one's quality.
    for figure in records.SHOWN:
        unit = "FID" if figure == "fid" else "share"
        for area, name in (("generator_base", figure), ("ladder", f"{figure}.int8")):
            results.record(area, f"{area}.{name}", 0.5, unit, spread=None, command="none")
    table = records.recorded_table().splitlines()
    assert len(table) == 2 + len(records.ROWS)
    assert len({line.count("|") for line in table}) == 1
    assert f"{stored.value:,}" in table[-3]

    monkeypatch.setattr(records, "delivered_quality", None)  # whoever scores again fails
    said.clear()
    records.record_pipeline(work, said.append, **few)
    assert said[:4] == [f"{name}: scored already" for name in stages.STAGES]


def test_the_best_of_those_that_keep_the_limit_is_chosen(base, runs, monkeypatch):
    def quality(self, supernet, config):
        return 1 / (2 * config.widths[0] + config.widths[1])

    monkeypatch.setattr(Pipeline, "_slice_distance", quality)
    open_, _ = made(base, runs / "made", SEARCH)
    every = open_.search()
    assert every.unit == "ms"
    assert len(every.tried) == SPACE.size() == 4  # each once, however often it was asked for
    assert every.distance == min(distance for _, distance in every.tried)
    costs = sorted({cost for cost, _ in every.tried})
    assert costs == [predicted(Architecture(widths=(w, 8, 8, 8, 8, 8))) for w in (8, 16, 24)]
    below = every.cost - 0.01  # the best of all is not allowed
    closer, said = made(base, runs / "made", replace(SEARCH, most_ms=below / 10))
    held = closer.search()
    allowed = [point for point in held.tried if point[0] <= below]
    assert held.key != every.key
    assert (held.cost, held.distance) == min(allowed, key=lambda point: point[1])
    assert held.cost == predicted(Architecture(widths=held.widths)) < every.cost
    assert held.macs == Architecture(widths=held.widths).macs()
    assert f"{held.cost:.3f} ms" in said[-1]


def counted(work, monkeypatch, stop=None):
    """The distances that this pipeline measures; `stop` cuts it short at that one."""
    asked, plain = [], work._slice_distance

    def distance(supernet, config):
        if len(asked) == stop:
            raise KeyboardInterrupt
        asked.append(plain(supernet, config))
        return asked[-1]

    monkeypatch.setattr(work, "_slice_distance", distance)
    return asked


def test_a_killed_search_goes_on_without_asking_or_training_again(base, runs, monkeypatch):
    killed, _ = made(base, runs / "made", SEARCH)
    first = counted(killed, monkeypatch, stop=2)
    with pytest.raises(KeyboardInterrupt):
        killed.search()
    (log,) = (runs / "made").glob("search-*-log.jsonl")
    log.write_text(log.read_text() + "[[0, 0")  # a line that the kill cut off
    again, _ = made(base, runs / "made", SEARCH)
    second = counted(again, monkeypatch)
    updates = []
    monkeypatch.setattr(stages.SupernetTrainer, "step", lambda *args: updates.append(args))
    found = again.search()
    assert (len(first), len(second)) == (2, 2)
    assert [distance for _, distance in found.tried] == first + second
    assert not updates

    # Another limit chooses anew among the same answers.
    limited, _ = made(base, runs / "made", replace(SEARCH, most_ms=0.08))
    third = counted(limited, monkeypatch)
    assert limited.search().tried == found.tried
    assert not third
    whole, _ = made(base, runs / "whole", SEARCH)
    assert whole.search() == replace(found, seconds=whole.search().seconds)


def table(**extra):
    entries = dict.fromkeys(space_layers(SPACE), 0.125)
    return LatencyTable(entries, [(8, 0.0), (96, 0.0)], extra=extra)


def test_a_table_is_asked_and_its_content_counts(base, runs):
    work, said = made(base, runs / "made", SEARCH, table(base_ms=2.0))
    assert (work.search().unit, work.search().cost) == ("ms", 7 * 0.125)
    assert not [text for text in said if "MACs" in text]
    slower, other = table(base_ms=2.0), table(base_ms=2.5)
    slower.entries[next(iter(slower.entries))] = 0.25
    keys = {made(base, runs / "made", SEARCH, t)[0].search().key for t in (slower, other)}
    assert len(keys | {work.search().key}) == 3
    assert made(base, runs, SEARCH, other)[0].cost.base == 2.5


@pytest.mark.parametrize(
    ("space", "extra", "words"),
    [
        (None, None, "there is no latency table"),
        (SPACE, {}, "does not say what GENERATOR_BASE takes"),
        (replace(SPACE, widths={**SPACE.widths, "conv28": (8, 16)}), {"base_ms": 2.0},
         "2 of the space's layers are not in the latency table, the first 'conv3 8>16 @28'"),
    ],
)  # fmt: skip
def test_without_a_table_that_serves_macs_do_and_it_is_said(base, runs, monkeypatch, space, extra,
                                                            words):  # fmt: skip
    monkeypatch.setattr(tables, "data_path", lambda *parts: runs.joinpath("empty", *parts))
    recipe = replace(SEARCH, space=space or SPACE, most_ms=0.0422)
    work, said = made(base, runs / "made", recipe, None if extra is None else table(**extra))
    assert work.cost.unit == "macs"
    assert words in said[0]
    assert said[0].endswith("MACs stand for milliseconds, as a share of GENERATOR_BASE's.")
    assert work.cost.base == Architecture().macs()
    if space is None:
        found = work.search()
        assert found.unit == "macs"
        assert found.cost == found.macs <= 0.0422 * Architecture().macs()
        assert max(cost for cost, _ in found.tried) > 0.0422 * Architecture().macs()
        assert len([text for text in said if "MACs stand" in text]) == 1


def test_a_limit_that_nothing_keeps_is_said_with_the_mend(base, runs):
    work, _ = made(base, runs / "made", replace(SEARCH, most_ms=0.05))
    words = (
        r"most_ms 0.05 allows 0.500 ms and the fastest of 4 candidates takes 0.625 ms: raise "
        r"most_ms \(up to 1\) or candidates, or give the space narrower widths"
    )
    with pytest.raises(PipelineError, match=words):
        work.run()
    assert not list((runs / "made").glob("*.json"))


def test_a_searcher_has_the_same_key_in_every_process():
    names = [stages._json(x) for x in (RandomSearch(), Reinforce(), Evolution())]
    assert len(set(names)) == 3
    assert not any("0x" in name for name in names)
    assert stages._json(Reinforce(rate=0.1)) != names[1]


def test_a_slice_of_the_supernet_is_the_folded_network(base):
    supernet = inherited_supernet(base, SPACE.largest())
    config = SPACE.smallest()
    noise, words = torch.randn(2, 64), torch.randint(1, 20, (2, 6))
    with torch.no_grad():
        ours, theirs = folded_from(supernet, config)(noise, words), supernet(noise, words, config)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"keep": 0.0}, "keep must be above 0"),
        ({"most_ms": 1.5}, "most_ms must be above 0 and at most 1"),
        ({"space": SearchSpace()}, "blocks of conv3 and kernels of 4 alone"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(fields, words):
    with pytest.raises(PipelineError, match=words):
        Recipe(**fields)


def test_the_command_names_the_card(runs, monkeypatch, capsys):
    class Fake:
        folder = runs

        def __init__(self, recipe, folder, command, progress):
            assert recipe is DRY
            assert progress
            assert command.endswith("--dry")

        def run(self):
            return Delivered("k", 1.0, {"onnxruntime": "a.onnx"}, 5, "card.json")

    monkeypatch.setattr(pipeline, "Pipeline", Fake)
    assert cli.main(["pipeline", "--dry"]) == 0
    assert "card.json" in capsys.readouterr().out
    assert cli.main(["pipeline", "--dry", "--record"]) == 2
    assert "leave --dry or --record out" in capsys.readouterr().err


def test_what_pruning_keeps_fills_registers():
    assert kept_widths((64, 64, 32, 32, 16, 8), 0.75) == (48, 48, 24, 24, 16, 8)
    assert kept_widths((64, 20, 12, 4), 0.5) == (32, 8, 8, 4)  # never more than there is
    assert kept_widths((64, 20), 1.0) == (64, 16)


def test_pruning_in_the_dry_run_has_a_cut_after_the_first():
    assert isinstance(DRY.prune, PruneRecipe)
    assert DRY.prune.rounds == 2
