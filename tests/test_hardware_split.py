"""Where the milliseconds go: the parts are those a clock that we hold was given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgen_course.runtimes.hardware_networks import CALLS, calls, tiny_network, twin
from fastgen_course.runtimes.hardware_split import (
    flat,
    operator_ms,
    operators,
    split_call,
    split_times,
)
from fastgen_course.timing import MeasurementError
from fastgen_course.timing.roofline import Roofline

ROOF = Roofline(peak_flops=1e9, bandwidth=1e9, threads=1, dtype="float32")  # ridge: 1 FLOP a byte


class HandClock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_ms(self, ms: float) -> None:
        self.now += ms / 1000


@pytest.fixture(scope="module")
def clock():
    return HandClock()


@pytest.fixture(scope="module")
def work(clock):
    """An operator that takes 1 ms to start and 0.25 ms an element."""

    @torch.library.custom_op("fastgen_tests::work", mutates_args=())
    def work(x: torch.Tensor) -> torch.Tensor:
        clock.pass_ms(1 + 0.25 * x.numel())
        return x.clone()

    return work


class Program(nn.Module):
    """Python takes 2 ms before each of three operators."""

    def __init__(self, clock, work, size):
        super().__init__()
        self.clock, self.work, self.x = clock, work, torch.zeros(size)

    def forward(self):
        x = self.x
        for _ in range(3):
            self.clock.pass_ms(2)
            x = self.work(x)
        return x


def test_each_part_is_what_the_program_spends(clock, work, monkeypatch):
    """T = 3 (2 + 1 + size / 4): Python 6, dispatch 3, work 0.75 size, and no part more or less."""
    # A flat replay calls what PyTorch was asked for; a custom operator is asked by its own name.
    big, small = Program(clock, work, 8), Program(clock, work, 0)
    monkeypatch.setattr(
        "fastgen_course.runtimes.hardware_split.flat",
        lambda call: lambda: [work(small.x) for _ in range(3)],
    )
    parts = split_call(big, small, ROOF, clock=clock, synchronize=lambda: None)
    assert parts.python == pytest.approx(6)
    assert parts.dispatch == pytest.approx(3)
    assert parts.compute == 0  # the operator has no FLOPs that the counter knows
    assert parts.memory == pytest.approx(6)
    assert parts.total_ms == pytest.approx(15)
    assert parts.agreement == pytest.approx(1)


@pytest.mark.parametrize(
    ("whole", "small", "flat_ms"),
    [(10.0, 4.0, 3.0), (4.0, 5.0, 3.0), (10.0, 4.0, 6.0), (2.0, 3.0, 4.0)],
)
def test_the_parts_add_up_to_the_whole_and_none_is_negative(whole, small, flat_ms):
    """Also where noise makes the small network slower than the real one, or the loop than it."""
    for works in ([3.0, 1.0], [-0.1, 0.5], [-1.0, -1.0], [0.0, 0.0]):
        parts = split_times(whole, small, flat_ms, works, [True, False])
        assert parts.total_ms == pytest.approx(whole)
        assert min(parts.python, parts.dispatch, parts.memory, parts.compute) >= 0
    parts = split_times(10.0, 4.0, 3.0, [3.0, 1.0], [True, False])
    assert (parts.python, parts.dispatch, parts.compute, parts.memory) == (1.0, 3.0, 4.5, 1.5)
    assert parts.agreement == pytest.approx(4 / 6)


def test_operators_stand_left_or_right_of_the_ridge():
    a = torch.zeros(64, 64)
    product, total = operators(lambda: (a @ a).add(1.0))
    assert product.flops == 2 * 64**3 and product.bytes_moved == 3 * 4 * 64**2
    assert product.computes(ROOF) and not total.computes(ROOF)
    column = torch.zeros(64, 1)
    (thin,) = operators(lambda: a @ column)
    assert thin.flops and not thin.computes(ROOF)  # reads a matrix to use each number once


@pytest.mark.parametrize("name", CALLS)
def test_real_calls_are_split_and_the_replay_makes_the_same_operators(name):
    network, small = tiny_network(name), twin(tiny_network(name))
    for key, call in calls(network, 2).items():
        alike = calls(small, 1)[key]
        parts = split_call(call, alike, ROOF, threads=1, seconds=0.05, repeats=1)
        assert parts.total_ms > 0 and parts.launches == len(operators(call))
        assert min(parts.python, parts.dispatch, parts.memory, parts.compute) >= 0
        replayed = [o.name for o in operators(flat(alike))]
        assert replayed == [o.name for o in operators(alike)]


def test_another_program_is_refused():
    x = torch.zeros(3)
    with pytest.raises(MeasurementError, match="starts 1 operators and the real one 2"):
        split_call(lambda: (x + 1) * 2, lambda: x + 1, ROOF)


def test_a_call_that_changes_its_mind_is_refused():
    x, turns = torch.zeros(3), []

    def moody():
        turns.append(1)
        return x + 1 if len(turns) % 4 else (x + 1) * 2

    with pytest.raises(MeasurementError, match="same operators every time"):
        operator_ms(moody, repeats=2)
