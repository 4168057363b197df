"""Load the page's server with many visitors over loopback, overload it, and see it recover.

    python -m fastgen_course.serve.load

takes about 3 minutes and belongs on an otherwise idle machine. Each visitor asks for one picture,
waits a second after the answer, and asks again, for a minute; then nobody waits, for ten seconds;
then all wait again. It is done with micro-batching, as the server is by default, and without, and
records both. `--seconds 5` is a try that records nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import os
import random
import re
import statistics
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import psutil

from fastgen_course.datasets.captions import SLOTS, Attributes, render
from fastgen_course.serve.batching import Limits
from fastgen_course.serve.client import Answer, Connection
from fastgen_course.serve.model import MODEL, Served, ServeError, load_served, stored_as
from fastgen_course.serve.wire import MAX_SEED
from fastgen_course.timing import Percentile, Stopwatch, percentile, record
from fastgen_course.timing.thread_experiment import cores_taken

COMMAND = "python -m fastgen_course.serve.load"
SECONDS = 60.0
CLIENTS = 100
THINK_S = 1.0
OVERLOAD_SHARE = 1 / 6  # of the seconds, for overload and for recovery each
PNG = b"\x89PNG\r\n\x1a\n"
START_S = 300.0
BATCHES = {"batched": Limits.batch, "unbatched": 1}


@dataclass
class Phase:
    """What came of one phase: milliseconds of each answered request, and what went wrong.

    Attributes:
        seconds: how long it went on.
        times_ms: from sending to the whole answer, of requests that got a picture.
        refused: answers of 429.
        faults: anything else, in words: a 429 without its sentence or Retry-After, another status,
            a broken connection, a picture that is none.
    """

    seconds: float
    times_ms: list[float] = field(default_factory=list)
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, elapsed_ms: float, answer: Answer) -> None:
        """Count one answer."""
        if answer.status == 200:
            self.times_ms.append(elapsed_ms)
            if not _is_picture(answer.body):
                self.faults["200 without a picture"] += 1
        elif answer.status == 429:
            self.refused += 1
            said = answer.body.get("error", "") if isinstance(answer.body, dict) else ""
            if not said.endswith(".") or not answer.headers.get("retry-after", "").isdecimal():
                self.faults["429 without a sentence or Retry-After"] += 1
        else:
            self.faults[f"status {answer.status}"] += 1

    @property
    def pictures_per_s(self) -> float:
        """Pictures that visitors got."""
        return len(self.times_ms) / self.seconds

    @property
    def refused_share(self) -> float:
        """Of all answers."""
        return self.refused / max(1, self.refused + len(self.times_ms))

    def at(self, share: float) -> Percentile:
        """A percentile of `times_ms`."""
        return percentile(self.times_ms, share)

    def __str__(self) -> str:
        shown = [f"{len(self.times_ms)} pictures ({self.pictures_per_s:.0f}/s)"]
        if self.times_ms:
            shown += [f"p50 {self.at(0.5)}", f"p99 {self.at(0.99)}"]
            shown.append(f"max {max(self.times_ms):.3g} ms")
        shown.append(f"{self.refused} refused (429)")
        wrong = ", ".join(f"{count} x {what}" for what, count in self.faults.items())
        return ", ".join([*shown, wrong or "no error"])


@dataclass
class Report:
    """The three phases, and the server's memory (RSS, MB) once a second."""

    steady: Phase
    overload: Phase
    recovery: Phase
    memory_mb: list[float]

    @property
    def errors(self) -> int:
        """Faults of any phase, and refusals where there was no overload."""
        phases = (self.steady, self.overload, self.recovery)
        faults = sum(sum(phase.faults.values()) for phase in phases)
        return faults + self.steady.refused + self.recovery.refused

    @property
    def memory_start_mb(self) -> float:
        """The first fifth's median, after the warm-up."""
        return statistics.median(self.memory_mb[: max(1, len(self.memory_mb) // 5)])

    @property
    def memory_end_mb(self) -> float:
        """The last fifth's median, after the overload."""
        return statistics.median(self.memory_mb[-max(1, len(self.memory_mb) // 5) :])

    def __str__(self) -> str:
        return (
            f"  one second between requests: {self.steady}\n  no waiting: {self.overload}\n"
            f"  a second again: {self.recovery}\n"
            f"  memory {self.memory_start_mb:.1f} MB at the start, {self.memory_end_mb:.1f} MB at "
            "the end"
        )


async def visit(address: str, phase: Phase, clients: int, think_s: float, seed: int = 0) -> None:
    """`clients` visitors for `phase.seconds`; what they find is noted in `phase`.

    Each starts at its own moment of the first `think_s` seconds, and starts no request after the
    end.
    """
    clock = Stopwatch()
    await asyncio.gather(
        *(_visitor(address, phase, clock, think_s, random.Random(f"{seed} {k}"))
          for k in range(clients))
    )  # fmt: skip


async def _visitor(
    address: str, phase: Phase, clock: Stopwatch, think_s: float, rng: random.Random
) -> None:
    await asyncio.sleep(think_s * rng.random())
    async with Connection(address) as connection:
        while clock.ms < 1000 * phase.seconds:
            watch = Stopwatch()
            try:
                answer = await connection.post("draw", a_request(rng))
            except (ConnectionError, ValueError, KeyError) as error:
                phase.faults[f"no answer ({type(error).__name__})"] += 1
                await asyncio.sleep(0.1)
                continue
            phase.note(watch.ms, answer)
            await asyncio.sleep(think_s)


def a_request(rng: random.Random) -> dict[str, Any]:
    """A request for one picture of a complete caption."""
    values = {slot: rng.choice([v for v in values if v != "nothing"])
              for slot, values in SLOTS.items()}  # fmt: skip
    return {"caption": render(Attributes(**values)), "seed": rng.randrange(MAX_SEED // 2)}


def _is_picture(body: Any) -> bool:
    try:
        (picture,) = body["pictures"]
        return base64.b64decode(picture["png"], validate=True).startswith(PNG)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return False


@contextmanager
def running_server(*arguments: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, on a free port: its address and process number.

    Raises `ServeError` when it does not start, or does not stop gracefully.
    """
    command = [sys.executable, "-m", "fastgen_course", "serve", "--port", "0", *arguments]
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(START_S, server.kill)
    late.start()
    try:
        line = server.stdout.readline() if server.stdout else ""
        late.cancel()
        address = re.search(r"http://\S+/", line)
        if not address:
            raise ServeError("the server did not start; it says why above.")
        yield address.group(), server.pid
        server.terminate()
        if server.wait(timeout=30) != 0:
            raise ServeError(f"the server ended with status {server.returncode}, not gracefully.")
    finally:
        late.cancel()
        if server.poll() is None:
            server.kill()
            server.wait()


async def load(
    address: str,
    pid: int,
    seconds: float,
    clients: int,
    think_s: float = THINK_S,
    overload_s: float | None = None,
) -> Report:
    """All three phases against a running server, whose memory is read all the while.

    Args:
        address, pid: of the server.
        seconds: of the first phase.
        clients: visitors at once.
        think_s: between an answer and the next request, but for the overload.
        overload_s: of the overload, and of the recovery after it; None takes a sixth of `seconds`,
            and more than a queue may stand (`Limits.patience_ms`).

    Raises `ServeError` for a server that does not draw.
    """
    overload_s = max(2.5, seconds * OVERLOAD_SHARE) if overload_s is None else overload_s
    warm = Phase(min(2.0, seconds / 5))
    await visit(address, warm, min(10, clients), 0.1)
    if warm.faults or not warm.times_ms:
        raise ServeError(f"the server does not draw: {warm}")
    memory_mb: list[float] = []
    reading = asyncio.create_task(_read_memory(pid, memory_mb))
    phases = [Phase(seconds), Phase(overload_s), Phase(overload_s)]
    try:
        for number, (phase, think) in enumerate(zip(phases, (think_s, 0.0, think_s), strict=True)):
            if number == 2:
                await asyncio.sleep(1.0)  # what Retry-After said
            await visit(address, phase, clients, think, seed=number)
    finally:
        reading.cancel()
    return Report(*phases, memory_mb)


async def _read_memory(pid: int, readings_mb: list[float]) -> None:
    process = psutil.Process(pid)
    while True:
        readings_mb.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(1.0)


def keep(name: str, report: Report, served: Served, clients: int, command: str) -> None:
    """Record a report, "batched" under `serve.*` and "unbatched" under `serve.unbatched_*`."""
    prefix = "serve." if name == "batched" else f"serve.{name}_"
    facts: dict[str, Any] = {
        "command": command, "base": served.name, "batch": 1, "threads": 1,
        "runtime": "onnxruntime", "dtype": stored_as(served), "clients": clients,
        "think_s": THINK_S, "pictures_a_call": BATCHES[name], "weights": served.key,
        "server": f"uvicorn {version('uvicorn')}, starlette {version('starlette')}",
    }  # fmt: skip

    def note(what: str, value: float, unit: str, spread: Any, **more: Any) -> None:
        record("serve", prefix + what, value, unit, spread=spread, **facts, **more)

    for what, share, phase in (
        ("p50_ms", 0.5, report.steady), ("p99_ms", 0.99, report.steady),
        ("overload_p99_ms", 0.99, report.overload), ("recovery_p99_ms", 0.99, report.recovery),
    ):  # fmt: skip
        at = phase.at(share)
        note(what, at.value_ms, "ms", (at.low_ms, at.high_ms), requests=len(phase.times_ms),
             max_ms=max(phase.times_ms), seconds=phase.seconds)  # fmt: skip
    note("errors", report.errors, "requests", None, faults=dict(report.steady.faults))
    overload = report.overload
    note("overload_pictures_per_s", overload.pictures_per_s, "pictures/s", None)
    note("overload_refused_share", overload.refused_share, "share", None)
    note("memory_start_mb", report.memory_start_mb, "MB", None)
    note("memory_end_mb", report.memory_end_mb, "MB", None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the server as the command line says; 1 when an error happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="shipped weights or a .onnx file")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="visitors at once")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="below 60 is a try")
    parser.add_argument("--only", choices=BATCHES, help="with batching, or without")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.clients < 1:
        parser.error("--seconds and --clients must be above 0.")
    kept = options.seconds >= SECONDS
    given = {"model": MODEL, "clients": CLIENTS, "seconds": SECONDS}
    changed = [f" --{k} {getattr(options, k):g}" if k != "model" else f" --model {options.model}"
               for k, usual in given.items() if getattr(options, k) != usual]  # fmt: skip
    served = load_served(options.model)
    if kept and (taken := cores_taken()) > 0.3:
        print(
            f"error: other processes use {taken:.1f} cores; measure when they have ended, or try "
            "with --seconds 5.",
            file=sys.stderr,
        )
        return 2
    errors = 0
    for name, batch in BATCHES.items():
        if options.only not in (None, name):
            continue
        with running_server("--model", options.model, "--batch", str(batch)) as (address, pid):
            report = asyncio.run(load(address, pid, options.seconds, options.clients))
        print(f"{name}, {options.clients} visitors, {served.name}:\n{report}", flush=True)
        errors += report.errors
        if kept:
            keep(name, report, served, options.clients, COMMAND + "".join(changed))
    if not kept:
        print(f"a try of {options.seconds:g} s: nothing is recorded.")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
