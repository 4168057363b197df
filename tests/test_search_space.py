"""The search space: every architecture builds, runs and has the MACs that are said; bad input."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgen_course.checkpoints import load_model
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.searched import (
    Architecture,
    ArchitectureError,
    SearchedGenerator,
    uniform,
)
from fastgen_course.search.inherit import inherited_supernet, sort_channels, without_norms
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.search.standalone import (
    Lessons,
    ShortRecipe,
    initialise,
    successive_halving,
)
from fastgen_course.search.supernet import Supernet, SupernetRecipe, SupernetTrainer
from fastgen_course.timing.cost import model_cost

NOISE = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
WORDS = torch.randint(1, 40, (2, 20), generator=torch.Generator().manual_seed(1))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def supernet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet()


def test_the_space_is_large_and_its_ends_are_in_it():
    assert SPACE.size() >= 1_000_000
    assert SPACE.largest() in SPACE and SPACE.smallest() in SPACE
    assert uniform(0.75) == SPACE.largest() and uniform(1.0) == Architecture()


@quick
@given(seed=seeds)
def test_every_architecture_builds_runs_and_has_its_macs(seed, supernet):
    config = SPACE.decode(SPACE.random(random.Random(seed)))
    assert SPACE.decode(SPACE.encode(config)) == config
    network = SearchedGenerator(config).eval()
    cost = model_cost(network, (NOISE[:1], WORDS[:1]))
    assert cost.macs == config.macs(WORDS.shape[1])
    assert cost.parameters == config.parameters()
    with torch.no_grad():
        images = network(NOISE, WORDS)
        assert images.shape == (2, 3, 28, 28) and images.isfinite().all()
        # The supernet's slices of it and the network taken out of it draw the same.
        shared = supernet(NOISE, WORDS, config)
        torch.testing.assert_close(supernet.extract(config)(NOISE, WORDS), shared)


def test_a_space_counts_what_it_holds():
    space = SearchSpace(
        widths=dict.fromkeys(SPACE.widths, (8, 16)),
        blocks={"conv7": ("none", "conv3"), "conv14": ("none",), "conv28": ("conv1",)},
    )
    every = set(space.samples(space.size(), seed=0))
    assert len(every) == space.size() == 2 * 3 * 4 * 1 * 4 * 2
    in_order = list(space.every())
    assert len(in_order) == len(every) and set(in_order) == every
    with pytest.raises(ArchitectureError, match="n must be from 1"):
        list(space.samples(space.size() + 1, seed=0))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"widths": {**SPACE.widths, "stem": ()}}, "space is empty: the widths of stem"),
        ({"widths": {**SPACE.widths, "up14": (20,)}}, "multiples of 8"),
        ({"blocks": {**SPACE.blocks, "conv7": ()}}, "space is empty: the blocks of conv7"),
        ({"kernels": {"up14": (2,), "up28": (3,)}}, "kernels of up28 must be of"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ArchitectureError, match=words):
        SearchSpace(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"widths": (100, 128, 64, 64, 32, 32)}, "stem must be a multiple of 8"),
        ({"widths": (64, 64)}, "6 entries"),
        ({"blocks": ("none", "conv3", "conv3")}, "conv7 is absent, so its width must be 0"),
        ({"blocks": ("conv5", "conv3", "conv3")}, "blocks must be of"),
        ({"ups": (4, 3)}, "ups must be 2 or 4"),
        ({"activation": "step"}, "activation must be of"),
        ({"noise": 0}, "at least 1"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(fields, words):
    with pytest.raises(ArchitectureError, match=words):
        Architecture(**fields)


def test_genotypes_and_slices_out_of_range_are_refused(supernet):
    with pytest.raises(ArchitectureError, match="has 11 indices"):
        SPACE.decode((0, 0))
    with pytest.raises(ArchitectureError, match=r"stem.width must be from 0 to 8"):
        SPACE.decode((9,) + (0,) * 10)
    with pytest.raises(ArchitectureError, match="at most the supernet's"):
        supernet.extract(Architecture())
    with pytest.raises(ArchitectureError, match="blocks of conv3"):
        Supernet(SPACE.smallest())


def test_the_supernet_begins_from_the_trained_generator():
    base = load_model("generator_base")
    words = torch.zeros(2, 20, dtype=torch.int64)
    words[:, :4] = torch.tensor([[5, 9, 21, 30], [3, 8, 13, 22]])
    with torch.no_grad():
        pictures = base(NOISE, words)
        network = without_norms(base)
        torch.testing.assert_close(network(NOISE, words), pictures, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            sort_channels(network)(NOISE, words), pictures, atol=1e-4, rtol=0
        )
        whole = inherited_supernet(base, Architecture())
        torch.testing.assert_close(whole(NOISE, words), pictures, atol=1e-4, rtol=0)


@pytest.fixture
def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SlotJudge(JudgeConfig(channels=(4, 4, 8), features=8)).eval().requires_grad_(False)


def test_a_killed_supernet_training_goes_on_with_the_same_networks(judge, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen_course.training.loop.run_path", lambda name: tmp_path / name)
    base = load_model("generator_base")
    recipe = SupernetRecipe(steps=4, batch=2, drawn=1)

    def trainer():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SupernetTrainer("supernet", Supernet(), base, recipe, judge)

    whole = trainer().run(quiet=True)
    first = trainer()
    first.training.steps = 2
    first.run(quiet=True, keep=True)
    second = trainer().run(quiet=True)
    for ours, theirs in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_initialisations_have_the_variance_they_promise():
    network = SearchedGenerator(uniform(0.5))
    for scheme, variance in (("he", 2 / (64 * 9)), ("glorot", 2 / (2 * 64 * 9)), ("dcgan", 4e-4)):
        initialise(network, scheme)
        assert network.layers["conv7"].weight.var().item() == pytest.approx(variance, rel=0.1)
    rows = initialise(network, "orthogonal").layers["conv7"].weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(64), atol=1e-4, rtol=0)
    with pytest.raises(ArchitectureError, match="initialisation must be of"):
        initialise(network, "zero")


def test_lessons_are_kept_and_travel_to_workers_without_them(judge):
    base = load_model("generator_base")
    lessons = Lessons(base, ShortRecipe(batch=2), judge)
    first, second = lessons[0][0], lessons[1][0]
    assert torch.equal(first, Lessons(base, ShortRecipe(batch=2), judge)[0][0])
    assert not torch.equal(first, second) and lessons[1][0] is second
    assert lessons.distance(base) < 1e-6
    sent = pickle.loads(pickle.dumps(lessons))
    assert sent.distance(base) < 1e-6 and torch.equal(sent[1][0], second)


def test_successive_halving_keeps_the_better_half_and_spends_evenly():
    spent = {}

    def train(candidate, updates):
        spent[candidate] = updates
        return candidate / updates

    rungs = successive_halving([5, 3, 8, 1, 7, 2, 6, 4], train, first=10)
    assert [sorted(r.distances) for r in rungs] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4], [1, 2]]
    assert [r.updates for r in rungs] == [10, 20, 40]
    assert spent[8] == 10 and spent[1] == 40
    for bad in (
        lambda: successive_halving([1], train, 10),
        lambda: successive_halving([1, 2], train, 0),
        lambda: successive_halving([1, 2], train, 10, 1.0),
    ):
        with pytest.raises(ArchitectureError):
            bad()
