"""The server in a process of its own, under a real load over loopback; and how a load is told."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from fastgen_course.serve.client import Answer, Connection
from fastgen_course.serve.load import Phase, Report, keep, load, main, running_server
from fastgen_course.serve.model import Served, ServeError, checked
from fastgen_course.timing import MeasurementError, Stopwatch, percentile, result
from tests.helpers_serve import CAPTION, export_slow, export_tiny, served

PICTURE = {"pictures": [{"png": "iVBORw0KGgo="}]}  # a PNG's first bytes


@pytest.fixture(scope="module")
def slow_file(tmp_path_factory):
    """A model that takes a few ms a picture, so that visitors can ask for more than it draws."""
    return export_slow(tmp_path_factory.mktemp("onnx") / "slow.onnx")


def test_a_real_load_overload_and_recovery(slow_file):
    """40 visitors: no error; then all at once, refused with a sentence; then no error again."""
    with running_server("--model", str(slow_file), "--batch", "1") as (address, pid):
        report = asyncio.run(load(address, pid, seconds=3, clients=45, think_s=2.0, overload_s=2.5))
    assert report.errors == 0, str(report)
    assert len(report.steady.times_ms) >= 45
    assert report.overload.refused > 0 and report.overload.times_ms, str(report)
    assert len(report.recovery.times_ms) >= 45 and report.recovery.refused == 0
    assert len(report.memory_mb) >= 5 and min(report.memory_mb) > 50


def test_a_stop_finishes_what_is_under_way(slow_file):
    """SIGTERM while a request is drawn: it is answered, the port closes, the status is 0."""
    with served("--model", str(slow_file)) as (address, server):
        where = urlsplit(address)
        with socket.create_connection((where.hostname, where.port)) as idle:
            asked = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
            asked.request("POST", "/draw", json.dumps({"caption": CAPTION, "count": 8}),
                          {"Content-Type": "application/json"})  # fmt: skip
            time.sleep(0.02)  # eight pictures take longer than this
            if sys.platform == "win32":
                server.terminate()
            else:
                server.send_signal(signal.SIGTERM)
            answer = asked.getresponse()
            assert answer.status == 200 and len(json.load(answer)["pictures"]) == 8
            out, err = server.communicate(timeout=30)
            assert idle.recv(1) == b""
        assert server.returncode == 0 and out.strip() == "stopped." and err == ""


def test_ctrl_c_stops_too(slow_file):
    if sys.platform == "win32":
        pytest.skip("another process cannot press Ctrl-C there")
    with served("--model", str(slow_file)) as (_, server):
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
        assert server.returncode == 0 and out.strip() == "stopped." and err == ""


def test_a_broken_visitor_harms_nobody(slow_file):
    """Garbage, half a request, and a visitor who leaves: the next one is answered."""
    with served("--model", str(slow_file)) as (address, server):
        where = urlsplit(address)
        to = (where.hostname, where.port)
        with socket.create_connection(to) as one:
            one.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert one.recv(99).startswith(b"HTTP/1.1 400")
        half = socket.create_connection(to)
        half.sendall(b"POST /draw HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 999\r\n\r\n{")  # fmt: skip
        gone = socket.create_connection(to)
        body = json.dumps({"caption": CAPTION, "count": 8}).encode()
        gone.sendall(b"POST /draw HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
        gone.close()

        async def ask():
            async with Connection(address) as connection:
                return await connection.post("draw", {"caption": CAPTION})

        assert asyncio.run(ask()).status == 200
        half.close()
        assert asyncio.run(ask()).status == 200
        server.terminate()
        _, err = server.communicate(timeout=30)
        assert server.returncode == 0 and "Traceback" not in err, err


# --- how a load is told ---------------------------------------------------------------------------


def test_a_phase_counts_what_came():
    phase = Phase(2.0)
    phase.note(5.0, Answer(200, {}, PICTURE))
    phase.note(7.0, Answer(200, {}, {"pictures": [{"png": "bm90IGEgUE5H"}]}))
    busy = {"error": "come again in 1 s."}
    phase.note(1.0, Answer(429, {"retry-after": "1"}, busy))
    phase.note(1.0, Answer(429, {}, busy))
    phase.note(1.0, Answer(429, {"retry-after": "1"}, {"error": ""}))
    phase.note(1.0, Answer(500, {}, {"error": "x"}))
    assert phase.times_ms == [5.0, 7.0] and phase.refused == 3
    assert phase.pictures_per_s == 1.0 and phase.refused_share == 0.6
    assert dict(phase.faults) == {
        "200 without a picture": 1,
        "429 without a sentence or Retry-After": 2,
        "status 500": 1,
    }
    assert "2 pictures (1/s)" in str(phase) and "1 x status 500" in str(phase)


def a_report():
    phases = [Phase(60.0), Phase(10.0), Phase(10.0)]
    for k in range(200):
        for phase in phases:
            phase.note(10.0 + k, Answer(200, {}, PICTURE))
    for _ in range(100):
        phases[1].note(1.0, Answer(429, {"retry-after": "1"}, {"error": "come again."}))
    return Report(*phases, memory_mb=[200.0] * 5 + [201.0] * 15 + [202.0] * 5)


def test_refusals_count_as_errors_where_nobody_overloads():
    report = a_report()
    assert report.errors == 0 and (report.memory_start_mb, report.memory_end_mb) == (200, 202)
    report.steady.note(1.0, Answer(429, {"retry-after": "1"}, {"error": "come again."}))
    report.recovery.note(1.0, Answer(503, {}, {}))
    assert report.errors == 2
    assert "no error" in str(a_report()) and "memory 200.0 MB" in str(report)


def test_a_report_is_recorded(tmp_path, monkeypatch):
    tiny = checked("tiny", export_tiny(tmp_path / "tiny.onnx"))
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    for name in ("batched", "unbatched"):
        keep(name, a_report(), tiny, 100, "python -m x")
    row = result("serve.p99_ms")
    assert row.value == pytest.approx(np.quantile(np.arange(200) + 10, 0.99))
    assert row.spread[0] <= row.value <= row.spread[1]
    assert (row.base, row.threads, row.dtype, row.runtime) == ("tiny", 1, "float32", "onnxruntime")
    assert row.extra["pictures_a_call"] == 16 and row.extra["clients"] == 100
    assert result("serve.unbatched_p50_ms").extra["pictures_a_call"] == 1
    assert result("serve.errors").value == 0
    assert result("serve.overload_refused_share").value == pytest.approx(1 / 3)
    assert result("serve.memory_end_mb").value == 202


def test_a_busy_machine_records_nothing(tmp_path, monkeypatch, capsys):
    from fastgen_course.serve import load as module

    served_model = Served("x", tmp_path, 1, "k")
    monkeypatch.setattr(module, "load_served", lambda name: served_model)
    monkeypatch.setattr(module, "cores_taken", lambda: 1.5)
    monkeypatch.setattr(module, "running_server", None)
    assert main([]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err


def test_a_server_that_does_not_start_or_draw_is_one_sentence(slow_file, capfd):
    with (
        pytest.raises(ServeError, match="the server did not start"),
        running_server("--model", "no.onnx"),
    ):
        pass
    assert "no.onnx is missing" in capfd.readouterr().err

    async def nothing_there():
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        await load(f"http://127.0.0.1:{port}/", 1, seconds=0.2, clients=2)

    with pytest.raises(ServeError, match=r"the server does not draw: .*no answer"):
        asyncio.run(nothing_there())


def test_a_connection_that_breaks_is_an_error_and_opens_again():
    """A server that closes without a word, then answers: one ConnectionError, then an answer."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer_the_second():
        listening.accept()[0].close()
        second, _ = listening.accept()
        second.recv(9999)
        second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        second.close()

    threading.Thread(target=answer_the_second, daemon=True).start()

    async def ask():
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/course/"
        async with Connection(address) as connection:
            with pytest.raises(ConnectionError):
                await connection.post("draw", {})
            return await connection.post("draw", {})

    assert asyncio.run(ask()) == Answer(200, {"content-length": "2", "connection": "close"}, {})
    listening.close()


# --- the stopwatch --------------------------------------------------------------------------------


def test_a_stopwatch_reads_its_clock():
    now = iter((10.0, 10.5, 12.0, 20.0, 20.25))
    watch = Stopwatch(clock=lambda: next(now))
    assert (watch.ms, watch.ms) == (500.0, 2000.0)
    watch.start()
    assert watch.ms == 250.0


def test_a_percentile_is_numpy_s_with_an_interval_that_holds_it():
    times = np.random.default_rng(3).exponential(10, 2000)
    at = percentile(times, 0.99)
    assert at.value_ms == pytest.approx(np.quantile(times, 0.99))
    assert at.low_ms < at.value_ms < at.high_ms
    # The truth of this distribution, 10 ln 100 = 46, lies in it; so does little else.
    assert at.low_ms < 46.05 < at.high_ms < 70
    assert percentile([4.0], 0.5) == percentile([4.0, 4.0], 0.99)
    assert str(percentile([4.0], 0.5)) == "4 ms [4, 4]"


@pytest.mark.parametrize(("times", "share"), [([], 0.5), ([1.0, float("nan")], 0.5), ([1.0], 1.5),
                                              ([1.0], float("nan"))])  # fmt: skip
def test_a_percentile_that_cannot_be(times, share):
    with pytest.raises(MeasurementError):
        percentile(times, share)
