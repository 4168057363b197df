"""The thread policy on samples made by hand, and the experiment's bookkeeping."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgen_course.timing import ResultError, result
from fastgen_course.timing import thread_experiment as experiment
from fastgen_course.timing.rows import MeasurementError
from fastgen_course.timing.threads import (
    CpuSample,
    ThreadPolicy,
    choose_threads,
    core_count,
    sample_cpu,
    threads_between,
    training_threads,
)


@pytest.mark.parametrize(
    ("idle", "own", "cores", "threads"),
    [
        (2.0, 0.0, 2, 2),  # an idle machine
        (1.0, 1.0, 2, 2),  # we use one thread, the other core is free
        (0.0, 2.0, 2, 2),  # we use both, nobody else wants them
        (0.0, 1.0, 2, 1),  # a neighbour has the other core
        (0.0, 1.3, 2, 1),  # our two threads share two cores with one neighbour
        (0.0, 0.0, 2, 1),  # nothing is free: one thread all the same
        (0.9, 0.9, 2, 2),  # a little of both cores goes to the system
        (0.7, 1.0, 2, 1),  # a core must be three quarters free
        (0.0, 3.1, 4, 3),  # four cores, one neighbour
        (9.0, 0.0, 4, 4),
    ],
)
def test_the_choice(idle, own, cores, threads):
    assert choose_threads(idle, own, cores) == threads


@given(st.floats(0, 64), st.floats(0, 64), st.integers(1, 64))
def test_the_choice_is_never_more_than_is_free(idle, own, cores):
    threads = choose_threads(idle, own, cores)
    assert 1 <= threads <= cores
    assert threads == 1 or threads <= idle + own + 0.25
    assert choose_threads(idle + 1, own, cores) >= threads


def test_samples_become_rates():
    before = CpuSample(at=100.0, idle=50.0, own=7.0)
    after = CpuSample(at=102.0, idle=50.2, own=9.0)  # 0.1 idle cores, 1 of our own
    assert threads_between(before, after, limit=1) == 1
    free = CpuSample(at=102.0, idle=54.0, own=7.0)
    assert threads_between(before, free) == core_count()
    # A look without any time between does not divide by zero.
    assert threads_between(before, before) == 1


def test_the_policy_follows_a_neighbour_that_comes_and_goes(monkeypatch):
    monkeypatch.setattr("fastgen_course.timing.threads.core_count", lambda: 2)
    now = time.monotonic() - 100
    story = iter(
        [
            CpuSample(now, 0.0, 0.0),
            CpuSample(now + 2, 0.0, 4.0),  # alone: both cores ours
            CpuSample(now + 4, 0.0, 6.0),  # a neighbour: one core ours
            CpuSample(now + 6, 0.0, 8.0),  # still there
            CpuSample(now + 8, 2.0, 10.0),  # gone: the other core is idle
        ]
    )
    applied: list[int] = []
    policy = ThreadPolicy(first_look_s=0, sample=lambda: next(story), apply=applied.append)
    policy.threads = 2
    assert [policy.step() for _ in range(4)] == [2, 1, 1, 2]
    assert applied == [1, 2]
    assert policy.changes == 2


def test_between_looks_a_step_costs_nothing(monkeypatch):
    looks: list[CpuSample] = []

    def look() -> CpuSample:
        looks.append(sample_cpu())
        return looks[-1]

    policy = ThreadPolicy(every_s=3600, first_look_s=0, sample=look)
    for _ in range(100):
        policy.step()
    assert len(looks) == 1


def test_leaving_restores_the_count():
    before = torch.get_num_threads()
    with ThreadPolicy(first_look_s=0.02, limit=1) as policy:
        assert policy.threads == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_this_machine_answers():
    first, second = sample_cpu(), sample_cpu()
    assert second.at >= first.at
    assert second.own >= first.own
    assert 1 <= training_threads(0.05) <= core_count()
    assert training_threads(0.05, limit=1) == 1


FIGURES = {
    "alone": {"one": [10.0], "two": [6.0, 5.0, 7.0], "passive": [7.0], "policy": [6.1]},
    "busy": {"one": [12.0], "two": [60.0, 50.0, 90.0], "passive": [14.0], "policy": [12.5]},
}


@pytest.fixture
def own_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))


def test_the_experiment_is_recorded_and_drawn(own_registry):
    experiment.record_experiment(FIGURES)
    row = result("threads.busy_slowdown_two")
    assert row.value == pytest.approx(60 / 6)
    assert row.spread == pytest.approx((50 / 6, 90 / 6))
    assert row.unit == "x"
    assert row.base == "two threads alone on the machine"
    assert result("threads.busy_slowdown_policy").value == pytest.approx(12.5 / 6)
    assert result("threads.alone_two_ms").spread == (5.0, 7.0)
    assert result("threads.alone_policy_ms").threads == "1 to 2"
    fig = experiment.plot_thread_policy()
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert heights == [10.0, 6.0, 7.0, 6.1, 12.0, 60.0, 14.0, 12.5]
    words = experiment.describe_thread_policy()
    assert "two threads: 6 alone, 60 beside the neighbour" in words


def test_without_a_recording_the_figure_says_what_to_run(own_registry):
    with pytest.raises(ResultError, match=r"run `python -m fastgen_course\.timing"):
        experiment.plot_thread_policy()


def test_a_single_core_is_refused(monkeypatch):
    monkeypatch.setattr(experiment, "core_count", lambda: 1)
    with pytest.raises(MeasurementError, match="needs two cores"):
        experiment.run_experiment()


def test_a_busy_machine_records_nothing(monkeypatch, capsys, own_registry):
    monkeypatch.setattr(experiment, "cores_taken", lambda: 1.0)
    assert experiment.main([]) == 2
    assert "other processes use 1.0 cores" in capsys.readouterr().err
    with pytest.raises(ResultError):
        result("threads.busy_slowdown_two")


def test_the_training_step_learns():
    step = experiment.TrainingStep()
    first = step()
    for _ in range(5):
        last = step()
    assert last < first
