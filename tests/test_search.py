"""Searchers, fronts, predictors and trials: mathematics, resuming, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.models.searched import Architecture, ArchitectureError, SearchedGenerator
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.search import nas_records, noting
from fastgen_course.search.finalists import choose_finalists, ratio_of, weight_bytes
from fastgen_course.search.front import (
    crowding,
    dominates,
    hypervolume,
    nondominated_ranks,
    pareto_front,
)
from fastgen_course.search.graphs import write_network
from fastgen_course.search.latency import LatencyTable, key_of, space_layers, time_networks
from fastgen_course.search.quality import (
    QualityPredictor,
    expanded,
    features,
    load_distances,
    paired_p_value,
    rank_correlation,
    ridge,
    save_distances,
)
from fastgen_course.search.searchers import (
    SEARCHERS,
    Evaluator,
    Evolution,
    Optuna,
    RandomSearch,
    Reinforce,
    policy_gradient,
    run_search,
    softmax,
)
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.search.trials import read_log, run_trials


def latency(config: Architecture) -> float:
    return 0.1 + config.macs() / 2.5e7


def quality(config: Architecture) -> float:
    return math.exp(-1 - 0.25 * sum(features(config)[:6]) + 0.1 * sum(features(config)[6:]))


def evaluator(budget: int = 120, **options) -> Evaluator:
    return Evaluator(SPACE, latency, quality, budget, **options)


points = st.lists(
    st.tuples(st.integers(0, 12).map(float), st.integers(0, 12).map(float)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(points=points)
def test_fronts_ranks_and_hypervolume_are_what_they_are_by_definition(points):
    front = pareto_front(points)
    values = {points[i] for i in front}
    best = {p for p in points if not any(dominates(q, p) for q in points)}
    assert values == best and len(front) == len(values)
    ranks = nondominated_ranks(points)
    assert {p for p, r in zip(points, ranks, strict=True) if r == 0} == best
    # The share of unit squares whose lower corner some point dominates or is.
    squares = sum(
        any(x <= a and y <= b for x, y in points) for a in range(10) for b in range(8)
    )  # fmt: skip
    assert hypervolume(points, (10.0, 8.0)) == pytest.approx(squares / 80)


def test_crowding_keeps_the_ends_and_prefers_room():
    assert crowding([(0, 4), (1, 3), (3, 1), (4, 0)]) == [math.inf, 1.5, 1.5, math.inf]
    with pytest.raises(ArchitectureError, match="above 0"):
        hypervolume([(1, 1)], (0, 1))


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_spends_its_budget_and_repeats_itself(name):
    pytest.importorskip("optuna")
    runs = [run_search(SEARCHERS[name], evaluator(45), seed).asked for seed in (3, 3, 4)]
    assert len(runs[0]) == 45 and runs[0] == runs[1] != runs[2]
    assert all(SPACE.decode(g) in SPACE for g in runs[0])


def test_searching_beats_drawing_at_random_on_smooth_predictors():
    reference = latency(SPACE.largest()), quality(SPACE.smallest())

    def volumes(searcher):
        return [
            hypervolume(run_search(searcher, evaluator(200), s).points, reference) for s in range(6)
        ]

    drawn, evolved, learned = map(volumes, (RandomSearch(), Evolution(), Reinforce()))
    assert min(evolved) > max(drawn) and np.median(learned) > np.median(drawn)
    assert paired_p_value(evolved, drawn) < 0.05 < paired_p_value(drawn, evolved)


def test_a_killed_search_computes_at_most_one_answer_twice(tmp_path):
    log, calls = tmp_path / "search.jsonl", []

    def slow(config):
        calls.append(config)
        if len(calls) == 57:
            raise KeyboardInterrupt  # killed in the middle of an answer
        return quality(config)

    whole = run_search(Evolution(20), evaluator(100), seed=1)
    with pytest.raises(KeyboardInterrupt):
        run_search(Evolution(20), Evaluator(SPACE, latency, slow, 100, log), seed=1)
    log.write_text(log.read_text() + "[[1, 2")  # a line that was cut off
    done = run_search(Evolution(20), Evaluator(SPACE, latency, slow, 100, log), seed=1)
    assert done.asked == whole.asked and done.points == whole.points
    assert len(calls) == whole.computed + 1
    assert len(log.read_text().splitlines()) == 100
    with pytest.raises(ArchitectureError, match=r"search\.jsonl is of another search"):
        run_search(RandomSearch(), Evaluator(SPACE, latency, quality, 100, log), seed=9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: evaluator(0), "budget must be at least 1"),
        (lambda: Evolution(population=1), "population must be at least 2"),
        (lambda: Reinforce(exponents=()), "exponents must not be empty"),
        (lambda: Optuna("bayes"), "sampler must be nsga2 or tpe"),
        (lambda: run_trials([], quality, None), "at least one architecture"),
        (lambda: QualityPredictor.fit([SPACE.largest()], [1.0]), "at least 10 networks"),
        (lambda: rank_correlation([1, 2], [1, 2]), "two equal lists of at least 3"),
        (lambda: paired_p_value([1, 2], [1, 2]), "two equal lists of at least 5"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ArchitectureError, match=words):
        make()


def test_a_tiny_space_is_searched_without_end_in_sight():
    space = SearchSpace(dict.fromkeys(SPACE.widths, (8,)), dict.fromkeys(SPACE.blocks, ("conv1",)))
    for searcher in (RandomSearch(), Evolution(), Reinforce()):
        found = run_search(searcher, Evaluator(space, latency, quality, 30), seed=0)
        assert len(found.asked) == 30 and found.computed <= space.size() == 4


def test_softmax_and_the_controllers_gradient():
    logits = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    logits.log_softmax(0)[1].backward()
    by_hand = policy_gradient(logits.tolist(), 1, reward=3.0, baseline=2.0)
    assert by_hand == pytest.approx(logits.grad.tolist(), abs=1e-6)
    assert softmax([1000.0, 1000.0]) == [0.5, 0.5]


# --- predictors ---------------------------------------------------------------------------------


def test_the_table_knows_every_layer_of_the_space_and_adds_them_up():
    layers = space_layers()
    for config in SPACE.samples(40, seed=1):
        assert {key_of(layer) for layer in config.layers().values()} <= layers.keys()
    entries = {key: 0.01 + layer.macs / 1e8 for key, layer in layers.items()}
    table = LatencyTable(entries, [(0, 0.0), (400, 0.04)])
    configs = list(SPACE.samples(12, seed=2))
    ms = [0.3 - 0.005 * len(table.parts(c)) + 0.6 * sum(table.parts(c).values()) for c in configs]
    for _ in range(2):  # a fitted table is fitted again alike
        table.fit(configs, ms)
        assert [table(c) for c in configs] == pytest.approx(ms)
        assert table.factor == pytest.approx(0.6) and table.layer_ms == pytest.approx(-0.005)
    added = table.contributions(configs[0])
    assert list(added) == [*configs[0].layers(), "modulation", "call"]
    assert sum(added.values()) == pytest.approx(ms[0])
    with pytest.raises(ArchitectureError, match="not in the latency table"):
        table(Architecture())
    with pytest.raises(ArchitectureError, match="at least 4 networks"):
        table.fit(configs[:3], ms[:3])


def test_a_saved_table_predicts_the_same(tmp_path):
    table = LatencyTable(dict.fromkeys(space_layers(), 0.02), [(0, 0.0), (400, 0.04)], 0.1, -0.01,
                         0.7)  # fmt: skip
    table.extra = {"base_ms": 1.2}
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json")
    assert again(SPACE.largest()) == pytest.approx(table(SPACE.largest()))
    assert again.extra == table.extra


def test_written_graphs_compute_the_network(tmp_path):
    noise = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    words = torch.randint(0, 40, (3, 20), generator=torch.Generator().manual_seed(1))
    words[:, 0] = 5
    for config in [*SPACE.samples(4, seed=3), Architecture(activation="silu"),
                   Architecture(activation="leaky_relu")]:  # fmt: skip
        network = SearchedGenerator(config).eval()
        path = write_network(network, tmp_path / "network.onnx")
        with torch.no_grad():
            expected = network(noise, words).numpy()
        np.testing.assert_allclose(OnnxModel(path)(noise, words), expected, atol=2e-5)


def test_networks_are_timed_in_the_order_given():
    small, large = time_networks([SPACE.smallest(), Architecture()], repeats=5)
    assert 0 < small < large  # five times the work: no clock is that wrong


def test_ridge_leaves_out_a_row_as_if_it_had_not_been_there():
    source = np.random.default_rng(0)
    a = np.concatenate([np.ones((12, 1)), source.normal(size=(12, 3))], 1)
    b = source.normal(size=12)
    _, errors = ridge(a, b, 0.5)
    kept = np.arange(12) != 4
    weights, _ = ridge(a[kept], b[kept], 0.5)
    assert errors[4] == pytest.approx(b[4] - a[4] @ weights)


def test_the_quality_predictor_learns_what_hangs_on_the_decisions(tmp_path):
    configs = list(SPACE.samples(260, seed=4))
    distances = [quality(c) for c in configs]
    save_distances(configs, distances, tmp_path / "q.json")
    again = load_distances(tmp_path / "q.json")
    assert again[0] == configs
    predictor = QualityPredictor.fit(*again)
    unseen = list(SPACE.samples(20, seed=5))
    assert rank_correlation([predictor(c) for c in unseen], [quality(c) for c in unseen]) > 0.95
    assert predictor.error < 0.05 and len(expanded(unseen[0])) == len(predictor.weights)


def test_finalists_keep_their_limits_and_the_better_measured_one_wins():
    limits = [0.5, 0.35]
    chosen = choose_finalists(latency, quality, quality, limits, budget=300)
    assert all(latency(c) <= limit for c, limit in zip(chosen, limits, strict=True))
    assert all(weight_bytes(c) <= 1_000_000 for c in chosen) and len(set(chosen)) == 2
    with pytest.raises(ArchitectureError, match="no network of"):
        choose_finalists(latency, quality, quality, [0.01], budget=50)
    assert ratio_of([2.0, 4.0], [1.0, 1.0]) == (3.0, (2.0, 4.0))


# --- trials -------------------------------------------------------------------------------------


def test_killed_trials_go_on_after_the_last_finished_one(tmp_path):
    configs, log, calls = list(SPACE.samples(6, seed=8)), tmp_path / "runs" / "log.jsonl", []

    def trial(config):
        calls.append(config)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return float(config.macs())

    with pytest.raises(KeyboardInterrupt):
        run_trials(configs, trial, log)
    log.write_text(log.read_text() + '[[32, 32], ["conv')
    told = []
    answers = run_trials(configs, trial, log, report=lambda *done: told.append(done))
    assert answers == [float(c.macs()) for c in configs]
    assert calls == [*configs[:4], *configs[3:]] and told[-1] == (6, 6)
    assert read_log(log) == dict(zip(configs, answers, strict=True))


def test_trials_run_on_ray(tmp_path):
    pytest.importorskip("ray")
    configs = list(SPACE.samples(4, seed=9))
    answers = run_trials(configs, lambda c: c.macs() / 2, tmp_path / "log.jsonl", workers=2)
    assert answers == [c.macs() / 2 for c in configs]


# --- records ------------------------------------------------------------------------------------


def test_the_command_line_names_its_parts_and_refuses_others(capsys):
    assert nas_records.main(["halvings"]) == 2
    assert "there is no part 'halvings'; choose from supernet" in capsys.readouterr().err
    assert nas_records.main(["--tiny", "ratios"]) == 2
    assert nas_records.main(["--workers", "-1", "quality"]) == 2
    assert noting.binomial(0.9, 200)[0] < 0.9 < noting.binomial(0.9, 200)[1]


def test_the_best_initialisation_is_the_one_that_relu_went_furthest_with(monkeypatch):
    rows = {
        "updates_20": {"relu he": 0.9, "relu dcgan": 0.8, "silu he": 0.5},
        "updates_40": {"relu he": 0.7, "silu he": 0.4},
    }

    class Row:
        def __init__(self, extra):
            self.extra = extra

    def recorded(name):
        key = name.split(".")[-1]
        if key not in rows:
            raise noting.ResultError(name)
        return Row({"distances": rows[key]})

    monkeypatch.setattr(noting, "result", recorded)
    assert noting.best_initialisation() == "he"
    rows.clear()
    assert noting.best_initialisation() == "he"


def test_recorded_files_are_read_where_they_exist():
    if not noting.has("latency_within_10_percent"):
        pytest.skip("not recorded yet")
    table = LatencyTable.load()
    assert 0 < table(SPACE.smallest()) < table(SPACE.largest())
