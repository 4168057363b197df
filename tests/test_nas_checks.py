"""What notebook 10 holds its own results against is computed as it says."""

from __future__ import annotations

import pytest

from fastgen_course.models.searched import uniform
from fastgen_course.search import nas_checks
from fastgen_course.search.front import hypervolume, pareto_front
from fastgen_course.search.latency import LatencyTable, space_layers
from fastgen_course.search.noting import Options
from fastgen_course.search.space import SearchSpace
from fastgen_course.timing import result

SMALL = SearchSpace(
    {"stem": (32, 64), "conv7": (32, 64), "up14": (16, 32), "conv14": (16,), "up28": (8, 16),
     "conv28": (8,)},
    blocks={"conv7": ("none", "conv3"), "conv14": ("conv3",), "conv28": ("none",)},
)  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A space of a few networks; a table of milliseconds and a made-up quality."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    entries = {key: 0.01 + layer.macs / 1e8 for key, layer in space_layers(SMALL).items()}
    table = LatencyTable(entries, [(8, 0.01), (400, 0.05)], 0.05, -0.002, extra={"base_ms": 1.0})

    def quality(config):
        return 1 / (config.widths[0] + 3 * config.widths[2] + config.widths[4])

    monkeypatch.setattr(nas_checks, "SPACE", SMALL)
    monkeypatch.setattr(nas_checks, "SHARES", (0.6, 0.3))
    monkeypatch.setattr(LatencyTable, "load", lambda: table)
    recorded = [*SMALL.every()], [0.5] * SMALL.size()
    monkeypatch.setattr(nas_checks, "load_distances", lambda: recorded)
    monkeypatch.setattr(nas_checks.QualityPredictor, "fit", lambda *_: quality)
    monkeypatch.setattr(nas_checks, "load_finalists", lambda: ([SMALL.smallest()] * 2, 0))
    return table, quality


def test_the_exact_front_is_that_of_all_networks(small):
    table, quality = small
    nas_checks.record_exact(Options())
    row = result("nas.exact_hypervolume")
    points = [(table(c), quality(c)) for c in SMALL.every()]
    reference = table(SMALL.largest()), quality(SMALL.smallest())
    assert row.value == pytest.approx(hypervolume(points, reference))
    assert row.extra["front"] == len({points[i] for i in pareto_front(points)})
    assert row.extra["networks"] == SMALL.size() == len(points)
    for share, found in zip((0.6, 0.3), row.extra["limits"], strict=True):
        fits = [p for p in points if p[0] <= share]
        assert found["any"][:2] == pytest.approx(min(fits, key=lambda p: p[1]))
        light = [
            (table(c), quality(c)) for c in SMALL.every()
            if table(c) <= share and nas_checks.weight_bytes(c) <= nas_checks.MOST_BYTES
        ]  # fmt: skip
        assert found["light"][:2] == pytest.approx(min(light, key=lambda p: p[1]))


def test_the_ends_are_held_against_the_recorded_networks(small, monkeypatch):
    table, _ = small

    class Fake:
        def __init__(self, *_):
            pass

        def extract(self, config):
            return config

        def distance(self, config):
            return 0.4 if config == SMALL.smallest() else 0.1

    monkeypatch.setattr(nas_checks, "trained_supernet", lambda quiet: Fake())
    monkeypatch.setattr(nas_checks, "Lessons", Fake)
    monkeypatch.setattr(nas_checks, "teacher", lambda: None)
    nas_checks.record_ends(Options())
    row = result("nas.dominated_by_smallest")
    others = [c for c in SMALL.every() if c != SMALL.smallest()]
    slower = sum(table(c) > table(SMALL.smallest()) for c in others)
    assert row.value == pytest.approx(slower / len(others))
    assert (row.extra["smallest"], row.extra["largest"]) == (0.4, 0.1)


def test_a_plain_width_is_trained_as_a_finalist_is(monkeypatch):
    made = []
    monkeypatch.setattr(nas_checks, "MatchTrainer", lambda *args: made.append(args))
    monkeypatch.setattr(nas_checks, "teacher", lambda: "base")

    class Fake:
        def extract(self, config):
            return config

    nas_checks.width_trainer(250, Fake())
    assert made == [("nas_width_250", uniform(0.25), "base", nas_checks.FULL)]
