"""The timer, on a clock that the tests wind themselves: no assert here depends on real time."""

from __future__ import annotations

import gc
import itertools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.timing import (
    MeasurementError,
    adds_four_byte_products,
    compare,
    describe_machine,
    laps,
    machine,
    measure,
    measure_once,
    threads_set,
)


class FakeDevice:
    """A device that queues work: only `synchronize` lets the clock move over what is queued.

    Reading the clock with work in the queue is the mistake that a timer must not make; it is
    counted in `unsynchronised_reads`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.queued = 0.0
        self.unsynchronised_reads = 0

    def work(self, seconds: float) -> None:
        self.queued += seconds

    def synchronize(self) -> None:
        self.now += self.queued
        self.queued = 0.0

    def clock(self) -> float:
        self.unsynchronised_reads += self.queued > 0
        return self.now


def timed(device: FakeDevice, seconds: float, **options):
    return measure(
        lambda: device.work(seconds),
        clock=device.clock,
        synchronize=device.synchronize,
        **options,
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e-1), st.floats(1.5, 20))
def test_a_planted_slowdown_is_seen(seconds, factor):
    device = FakeDevice()
    plain, slow = timed(device, seconds), timed(device, seconds * factor)
    assert slow.median_ms / plain.median_ms == pytest.approx(factor, rel=1e-6)


def test_compare_sees_a_planted_twofold_slowdown_on_a_machine_that_drifts():
    device, rounds = FakeDevice(), []

    def variant(name, factor):
        def call():
            rounds.append(name)
            device.work(0.001 * factor * (1 + 0.01 * len(rounds)))  # ever slower machine

        return call

    table = compare(
        {"slow": variant("slow", 2), "plain": variant("plain", 1)},
        warmup=1,
        min_repeats=40,
        clock=device.clock,
        synchronize=device.synchronize,
    )
    ratio = table.speedup("plain")
    assert ratio.value == pytest.approx(2, rel=0.05)
    assert ratio.low <= ratio.value <= ratio.high
    assert table.speedup("slow").value == 1
    assert table.speedup("slow", over="plain").value == pytest.approx(0.5, rel=0.05)
    # Interleaved: both run in every round, and neither always goes first.
    pairs = list(zip(rounds[::2], rounds[1::2], strict=True))
    assert all(set(pair) == {"slow", "plain"} for pair in pairs)
    assert len(set(pairs)) == 2
    assert "faster than slow" in table.table()


def test_a_variant_can_be_called_before_each_of_its_timed_calls():
    device, said = FakeDevice(), []

    def variant(name):
        def call():
            cold = not said or said[-1] != name  # another variant has just had the caches
            said.append(name)
            device.work(0.004 if cold else 0.001)

        return call

    options = {"warmup": 1, "min_repeats": 5, "max_seconds": 1e-6, "clock": device.clock}
    options |= {"synchronize": device.synchronize}
    variants = {"one": variant("one"), "other": variant("other")}
    warm = compare(variants, before_each=1, **options)
    assert [warm[name].median_ms for name in warm] == pytest.approx([1, 1])
    cold = compare(variants, **options)
    assert cold["other"].median_ms == pytest.approx(4)


def test_every_reading_of_the_clock_is_synchronised():
    device = FakeDevice()
    timing = timed(device, 0.002, min_repeats=7)
    assert device.unsynchronised_reads == 0
    assert timing.median_ms == pytest.approx(2)
    # The fake device does report a timer that forgets to wait.
    forgetful = FakeDevice()
    measure(lambda: forgetful.work(0.002), clock=forgetful.clock, synchronize=lambda: None)
    assert forgetful.unsynchronised_reads > 0
    milliseconds, _ = measure_once(
        lambda: device.work(0.5), clock=device.clock, synchronize=device.synchronize
    )
    assert milliseconds == pytest.approx(500)
    assert device.unsynchronised_reads == 0


def test_the_warm_up_lasts_until_calls_are_stable_and_is_thrown_away():
    device = FakeDevice()
    cold = iter([1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    timing = measure(
        lambda: device.work(next(cold, 0.001)),
        clock=device.clock,
        synchronize=device.synchronize,
        max_seconds=10,
    )
    assert timing.warmup_calls > 8
    assert max(timing.times_ms) == pytest.approx(1)
    # A function that never settles does not warm up for ever.
    wild = itertools.count()
    unstable = measure(
        lambda: device.work(1e-6 * 2.0 ** (next(wild) % 7)),
        clock=device.clock,
        synchronize=device.synchronize,
    )
    assert unstable.warmup_calls <= 50


def test_median_p90_and_rates():
    device = FakeDevice()
    waits = iter([0.001 * n for n in range(1, 11)])
    timing = timed_sequence = measure(
        lambda: device.work(next(waits)),
        warmup=0,
        min_repeats=10,
        min_seconds=0,
        batch=4,
        dtype=torch.bfloat16,
        device="cpu",
        clock=device.clock,
        synchronize=device.synchronize,
        label="ten calls",
    )
    assert timing.median_ms == pytest.approx(5.5)
    assert timing.p90_ms == pytest.approx(9.1)
    assert timing.repeats == 10
    assert timing.images_per_s == pytest.approx(4000 / 5.5)
    assert timing.ms_per_image == pytest.approx(5.5 / 4)
    assert timing.dtype == "bfloat16"
    assert "ten calls" in str(timed_sequence)
    assert "p90 9.1 ms" in str(timing)
    assert timing.as_dict()["batch"] == 4
    assert "times_ms" not in timing.as_dict()


def test_the_time_limit_ends_a_slow_measurement_after_three_repeats():
    device = FakeDevice()
    timing = timed(device, 60.0, warmup=0, min_repeats=100, max_seconds=1.0)
    assert timing.repeats == 3


def test_the_device_is_read_off_the_result_and_threads_are_restored():
    before = torch.get_num_threads()
    seen = []

    def work():
        seen.append((torch.get_num_threads(), gc.isenabled()))
        return {"image": torch.ones(2, device="meta")}

    timing = measure(work, min_repeats=3, min_seconds=0, threads=before + 1)
    assert timing.device == "meta"
    assert timing.threads == before + 1
    assert set(seen) == {(before + 1, False)}
    assert torch.get_num_threads() == before
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="boom"), threads_set(before + 2):
        raise RuntimeError("boom")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"min_repeats": 0}, "min_repeats must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"warmup": "a while"}, "until stable"),
        ({"warmup": -1}, "until stable"),
    ],
)
def test_a_meaningless_measurement_is_refused(options, sentence):
    with pytest.raises(MeasurementError, match=sentence):
        measure(lambda: None, **options)


def test_refusals_of_the_wrong_arguments():
    with pytest.raises(MeasurementError, match="wrap the work in a lambda"):
        measure(torch.ones(1))
    with pytest.raises(MeasurementError, match="no variants"):
        compare({})
    table = compare({"a": lambda: None}, min_repeats=3, min_seconds=0)
    with pytest.raises(MeasurementError, match="'b' was not measured"):
        table.speedup("b")


def test_machine_facts_are_complete_and_private(monkeypatch):
    import getpass
    import platform

    facts = machine()
    assert facts["cpu"]
    assert 1 <= facts["cores_usable"] <= facts["cores"]
    assert facts["memory_gb"] > 0
    assert facts["torch"] == torch.__version__
    text = repr(facts) + describe_machine()
    for secret in (platform.node(), getpass.getuser()):
        assert len(secret) < 5 or secret not in text
    assert "/home" not in text
    assert facts["cpu"] in describe_machine()


@pytest.mark.parametrize(
    ("isa", "words", "four"),
    [
        (["avx2", "fma"], "A CPU (AVX2), ", False),
        (["avx2", "avx512f"], "A CPU (AVX-512), ", False),
        (["avx2", "avx512f", "avx512_vnni"], "A CPU (AVX-512 VNNI), ", True),
        (["asimd", "asimddp"], "A CPU (dot products), ", True),
        ([], "A CPU, ", False),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_instructions(monkeypatch, isa, words, four):
    facts = machine() | {"cpu": "A CPU", "isa": isa}
    # The package's `machine` is the function, which hides the module of that name.
    monkeypatch.setattr(sys.modules["fastgen_course.timing.machine"], "_facts", lambda: facts)
    assert describe_machine().startswith(words)
    assert adds_four_byte_products() is four


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_an_accelerator_is_waited_for_before_and_after_each_call(kind, monkeypatch):
    waits = []
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *device: waits.append(device))
    timing = measure(lambda: None, device=kind, warmup=1, min_repeats=4, min_seconds=0)
    assert timing.device == kind
    assert len(waits) == 2 * (1 + timing.repeats)
    measure(lambda: None, device="cpu", warmup=0, min_repeats=3, min_seconds=0)
    assert len(waits) == 2 * (1 + timing.repeats)


def test_laps_are_times_since_the_start_of_the_last_call():
    device, calls = FakeDevice(), []

    def parts(lap):
        calls.append(len(calls))
        for seconds in (0.25, 0.5):
            device.work(seconds * (10 if len(calls) == 1 else 1))  # the first call is cold
            lap()

    times = laps(parts, warmup=2, clock=device.clock, synchronize=device.synchronize)
    assert times == pytest.approx([250, 750])
    assert len(calls) == 3
    assert device.unsynchronised_reads == 0
    with pytest.raises(MeasurementError, match="never called lap"):
        laps(lambda lap: None, clock=device.clock)
