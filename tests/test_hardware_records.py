"""The sweep of notebook 09 on tiny networks: rows, reasons, going on after a kill, and figures."""

from __future__ import annotations

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from fastgen_course.runtimes import hardware_figures as figures
from fastgen_course.runtimes import hardware_records as records
from fastgen_course.runtimes import hardware_session
from fastgen_course.runtimes.hardware_points import best, cost, points, refusals, roof, splits
from fastgen_course.runtimes.hardware_process import process_environment, run_process
from fastgen_course.runtimes.hardware_records import Options, main, sessions, thread_counts
from fastgen_course.runtimes.hardware_session import (
    Session,
    measure_session,
    parse_session,
    session_text,
)
from fastgen_course.timing import MeasurementError, ResultError, all_results, record, result

TRIAL = Options(tiny=True, batches=(1, 3))
FLOW = Session("flow", "eager", batches=(1, 3), tiny=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A registry of its own, into which a trial on tiny networks records too."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    monkeypatch.setattr(Options, "keep", True)
    return tmp_path


def answer(session, ms=2.0):
    """What a session's process would print."""
    figures = {
        "median_ms": ms, "p90_ms": 1.2 * ms, "low_ms": 0.9 * ms, "repeats": 20, "prepare_ms": 30.0,
        "difference": 0.0, "checked": 1, "weights": "untrained",
    }  # fmt: skip
    return [{"call": call, "batch": batch, **figures} for call, batch in session.rows()]


def test_a_session_measures_every_row_against_pytorch():
    rows = list(measure_session(FLOW))
    assert [(row["call"], row["batch"]) for row in rows] == FLOW.rows()
    for row in rows:
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["difference"] == 0.0 and row["weights"] == "untrained" and row["repeats"] >= 3
    rounded = list(measure_session(replace(FLOW, dtype="bfloat16")))
    assert all(0 < row["difference"] < 0.1 for row in rounded)


def test_what_is_too_slow_is_left_out_with_its_reason():
    rows = list(measure_session(FLOW, slow_s=0.0))
    assert ["reason" in row for row in rows] == [False, False, True, True]
    assert "over 0 s are left out" in rows[-1]["reason"]


def test_another_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(hardware_session, "difference", lambda *_: float("nan"))
    rows = list(measure_session(FLOW))
    assert all("gives another result than PyTorch" in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "The memory is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB"), "memory is not enough"),
        (RuntimeError("no such kernel\nand pages of text"), "(no such kernel)."),
    ],
)
def test_a_runtime_that_fails_leaves_one_sentence(monkeypatch, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(hardware_session, "_first_calls", fail)
    rows = list(measure_session(FLOW))
    assert len(rows) == 4 and all(words in row["reason"] for row in rows)
    assert all("\n" not in row["reason"] for row in rows)


def test_sessions_are_written_and_read():
    assert parse_session(session_text(FLOW)) == FLOW
    with pytest.raises(ValueError, match="no colour"):
        parse_session('{"network": "flow", "runtime": "eager", "colour": 1}')


def test_a_process_of_its_own_prints_the_rows():
    rows = list(run_process("hardware_session", session_text(FLOW), threads=1))
    assert [(row["call"], row["batch"]) for row in rows] == FLOW.rows()
    assert process_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_process_that_fails_is_one_sentence():
    with pytest.raises(MeasurementError, match=r"status 1 \(.*JSONDecodeError"):
        list(run_process("hardware_session", "not json", threads=1))


def test_the_sweep_covers_every_combination(monkeypatch):
    monkeypatch.setattr(records, "core_count", lambda: 6)
    assert thread_counts() == (1, 2, 4, 6) and thread_counts("cuda") == (1,)
    every = list(sessions(Options(), ("cpu", "cuda")))
    assert len(every) == len(set(every)) == 3 * 4 * 2 * (4 + 1)
    assert {s.batches for s in every} == {(1, 4, 16, 64, 256)}


def test_the_sweep_goes_on_where_it_was(folder, monkeypatch, capsys):
    asked = []

    def process(module, request, threads):
        session = parse_session(request)
        asked.append(session)
        rows = answer(session)
        if session.runtime == "compile":  # killed after one row
            yield rows[0]
            raise MeasurementError("The process ended with status -9 (it said nothing).")
        yield from rows

    monkeypatch.setattr(records, "run_process", process)
    monkeypatch.setattr(records, "devices", lambda: ("cpu",))
    monkeypatch.setattr(records, "thread_counts", lambda device="cpu": (1,))
    monkeypatch.setattr(
        records,
        "refusal",
        lambda runtime, dtype, device: "It has no bfloat16." if dtype == "bfloat16" else None,
    )
    options = Options(batches=(1, 4))
    records.record_sweep(options)
    assert len(asked) == 3 * 4
    rows = points()
    assert len(rows) == 3 * 8 + 3  # all of three runtimes, one row a network of the killed one
    assert refusals()["flow.eager.bfloat16.threads1 cpu"] == "It has no bfloat16."
    assert "status -9" in refusals()["flow4.compile.float32.threads1.batch4 cpu"]
    entry = result("hardware.flow4.eager.float32.threads1.batch4_ms")
    assert entry.spread == (1.8, 2.4) and entry.base == "flow" and entry.runtime == "eager"
    assert entry.extra["weights"] == "untrained" and "hardware_records sweep" in entry.command

    asked.clear()
    records.record_sweep(options)
    assert asked == []  # everything is recorded or refused
    records.record_sweep(replace(options, batches=(1, 4, 16)))
    assert {session.batches for session in asked} == {(16,)}
    asked.clear()
    capsys.readouterr()
    records.record_sweep(replace(options, again=True, minutes=-1.0))
    assert asked == [] and "run the command again to go on" in capsys.readouterr().out
    records.record_sweep(replace(options, again=True))
    assert len(asked) == 3 * 4

    place = "flow4.compile.float32.threads1.batch4 cpu"
    (late,) = [row for row in answer(Session("flow", "compile")) if row["call"] == "flow4"
               and row["batch"] == 4]  # fmt: skip
    assert place in refusals()
    records.keep_row(options, Session("flow", "compile"), late)
    assert place not in refusals()


def test_the_roofline_and_every_calls_work_are_recorded(folder, monkeypatch):
    monkeypatch.setattr(records, "thread_counts", lambda device="cpu": (1,))
    monkeypatch.setattr(records, "devices", lambda: ("cpu",))
    records.record_roofline(TRIAL)
    limits = roof()
    assert limits.peak_flops > 0 and limits.bandwidth > 0 and limits.threads == 1
    for call in ("flow", "generator_base", "gpt"):
        one, three = cost(call, 1), cost(call, 3)
        assert three.macs == 3 * one.macs > 0 and three.launches == one.launches
    assert cost("flow4", 1).macs == 4 * cost("flow", 1).macs
    with pytest.raises(ResultError, match=r"hardware_records roofline"):
        roof(threads=64)


def test_the_peak_share_is_the_best_runtimes_on_one_thread(folder, monkeypatch):
    """100 MFLOP, a peak of 10 GFLOP/s: 10 ms at the peak. The better reading of the peak counts."""
    ms = {"eager": 40.0, "openvino": 12.5, "onnxruntime": 20.0}

    def process(module, request, threads):
        given = json.loads(request)
        row = {"median_ms": ms[given["runtime"]] / threads, "low_ms": 1.0}
        row["peak_flops"] = (1e10 if given["runtime"] == "eager" else 8e9) * threads
        if given["runtime"] == "openvino":
            row["kinds_ms"] = {"convolution": 10.0, "other": 2.5}
        yield row

    monkeypatch.setattr(records, "run_process", process)
    monkeypatch.setattr(records, "thread_counts", lambda device="cpu": (1, 2))
    monkeypatch.setattr(
        records, "exported_macs", lambda *_: {"convolution": 40_000_000, "matrix_product": 10**7}
    )
    monkeypatch.setattr(
        records, "refusal", lambda name, *_: "It has no compiler." if name == "compile" else None
    )
    records.record_peak(TRIAL)
    row = result("hardware.fp32_peak_share")
    assert row.value == pytest.approx(0.8) and row.runtime == "openvino" and row.threads == 1
    assert result("hardware.peak_share.eager.threads2").value == pytest.approx(0.25)
    shares = figures.peak_shares()
    assert list(shares) == ["eager", "onnxruntime", "openvino"]
    rows = figures.held_back()
    assert rows[0] == ("convolution", pytest.approx(0.8), pytest.approx(0.8))
    assert rows[1] == ("other", pytest.approx(0.2), 0.0)


def test_the_split_of_every_call_is_recorded_and_drawn(folder, monkeypatch):
    monkeypatch.setattr(records, "devices", lambda: ("cpu",))
    monkeypatch.setattr(records, "SPLIT_BATCHES", (1,))
    records.record_breakdown(TRIAL)
    found = splits()
    assert set(found) == {(c, 1) for c in ("flow", "flow4", "generator_base", "gpt")}
    for parts in found.values():
        whole = parts["python"].extra["part_of"]
        assert sum(row.value for row in parts.values()) == pytest.approx(whole)
        assert parts["compute"].extra["launches"] > 0
    fig = figures.plot_split()
    for bars in zip(*(box.patches for box in fig.axes[0].containers), strict=True):
        assert sum(bar.get_width() for bar in bars) == pytest.approx(1)
    plt.close(fig)
    assert "GENERATOR_BASE at batch 1" in figures.describe_split()


@pytest.fixture
def recorded(folder):
    """A sweep of two runtimes at two batches, its costs and a roof."""
    extra = {"command": "python -m x", "spread": None}
    record("hardware", "hardware.peak.float32.threads1", 50.0, "GFLOP/s", **extra)
    record("hardware", "hardware.bandwidth.threads1", 10.0, "GB/s", **extra)
    for batch in (1, 64):
        for call in ("flow", "flow4", "generator_base"):
            work = {
                "launches": 40, "bytes_moved": 10**6, "parameters": 9, "parameter_bytes": 36,
                "batch": batch,
            }  # fmt: skip
            name = f"hardware.cost.{call}.batch{batch}"
            record("hardware", name, 10**7 * batch, "MACs", **work, **extra)
    for n, runtime in enumerate(("eager", "openvino")):
        for name in ("flow", "generator_base"):
            session = Session(name, runtime, batches=(1, 64))
            for row in answer(session, ms=4.0 / (n + 1)):
                records.keep_row(Options(), session, row)


def test_figures_show_every_recorded_point(recorded):
    assert len(points()) == 12 and len(points(call="flow", batch=1)) == 2
    fastest = best(points(call="flow"))
    assert (fastest.runtime, fastest.batch, fastest.images_per_s) == ("openvino", 64, 32_000)
    # 2 x 10^7 FLOPs in 2 ms are 10 GFLOP/s, from 10^6 bytes.
    (row,) = points(call="flow", batch=1, runtime="openvino")
    assert figures.roofline_place(row) == pytest.approx((20.0, 1e10))
    fig = figures.plot_roofline()
    drawn = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(drawn) == 12
    plt.close(fig)
    words = figures.describe_roofline()
    assert "a roof of 50 GFLOP/s" in words and "640 GFLOP/s in OpenVINO at batch 64" in words
    fig = figures.plot_batch()
    assert len(fig.axes) == 3 and [len(axis.lines) for axis in fig.axes] == [2, 2, 2]
    plt.close(fig)
    assert "500 at batch 1 in OpenVINO" in figures.describe_batch()


def test_figures_say_what_is_not_recorded(folder):
    for draw in (figures.plot_batch, figures.plot_split, figures.held_back, figures.plot_roofline):
        with pytest.raises(ResultError, match="hardware_records"):
            draw()
    with pytest.raises(ResultError, match="peak_share"):
        figures.peak_shares()


def test_unknown_parts_and_a_busy_machine_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(records, "cores_taken", lambda: 1.5)
    assert main(["speed"]) == 2
    assert (
        "no part 'speed'; choose from roofline, peak, breakdown, sweep" in capsys.readouterr().err
    )
    assert main(["sweep"]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err


def test_a_trial_records_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    monkeypatch.setattr(records, "run_process", lambda module, request, threads: iter(()))
    assert main(["sweep", "--tiny"]) == 0
    assert "before it came to this row" in capsys.readouterr().out
    assert all_results("hardware") == []
