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
from fastgen_course.pipeline import DRY, Delivered, Pipeline, PipelineError, Recipe, folded_from
from fastgen_course.search.inherit import inherited_supernet
from fastgen_course.search.space import SearchSpace
from fastgen_course.training import loop

SPACE = SearchSpace(
    widths={"stem": (8, 16), "conv7": (8, 16), "up14": (8,), "conv14": (8,), "up28": (8,),
            "conv28": (8,)},
    blocks=dict.fromkeys(("conv7", "conv14", "conv28"), ("conv3",)),
    kernels=dict.fromkeys(("up14", "up28"), (4,)),
)  # fmt: skip
TINY = replace(DRY, space=SPACE, most_macs=1.0, candidates=3)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return Generator(GeneratorConfig(channels=(16, 8, 8))).eval().requires_grad_(False)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath("data", *parts))
    return tmp_path


def made(base, folder, recipe=TINY):
    said = []
    return Pipeline(recipe, folder, base=base, say=said.append), said


def test_the_recipe_runs_once_and_only_what_changed_runs_again(base, runs):
    folder = runs / "made"
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
    assert len(searched.tried) <= 3
    assert all(b == round(0.85 * a) for a, b in zip(searched.widths, pruned.widths, strict=True))
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
        ({"most_macs": 1.5}, "most_macs must be above 0 and at most 1"),
        ({"space": SearchSpace()}, "blocks of conv3 and kernels of 4 alone"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(fields, words):
    with pytest.raises(PipelineError, match=words):
        Recipe(**fields)


def test_the_command_names_the_card(runs, monkeypatch, capsys):
    class Fake:
        folder = runs

        def __init__(self, recipe, folder, command):
            assert recipe is DRY
            assert command.endswith("--dry")

        def run(self):
            return Delivered("k", 1.0, {"onnxruntime": "a.onnx"}, 5, "card.json")

    monkeypatch.setattr(pipeline, "Pipeline", Fake)
    assert cli.main(["pipeline", "--dry"]) == 0
    assert "card.json" in capsys.readouterr().out


def test_pruning_in_the_dry_run_has_a_cut_after_the_first():
    assert isinstance(DRY.prune, PruneRecipe)
    assert DRY.prune.rounds == 2
