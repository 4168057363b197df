"""What threads cost a training beside a busy neighbour, measured:
`python -m fastgen_course.timing.thread_experiment`.

One small convolutional training, four ways (one thread, two, two that sleep while they wait, the
policy of `timing.threads`), alone on the machine and beside a second training that uses every core.
Every way is a process of its own, all stay loaded, and they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn

from fastgen_course.show import PALETTE
from fastgen_course.timing.machine import usable_cores
from fastgen_course.timing.results import ResultError, record, result
from fastgen_course.timing.rows import MeasurementError
from fastgen_course.timing.threads import ThreadPolicy, core_count, sample_cpu

COMMAND = "python -m fastgen_course.timing.thread_experiment"
BATCH = 32
WAYS = {
    "one": "one thread",
    "two": "two threads",
    "passive": "two threads,\nsleeping waits",
    "policy": "the policy",
}
_PLACES = {"alone": "alone on the machine", "busy": "beside a training on every core"}


class TrainingStep:
    """One step of a small convolutional autoencoder on random images: milliseconds of work.

    Small operators between barriers are what a course-sized training consists of, and what
    waiting threads hurt most.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(BATCH, 1, 28, 28, generator=generator) * 2 - 1
        layers: list[nn.Module] = []
        for conv in (
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
        ):
            layers += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2, 1))
        self.optimiser = torch.optim.Adam(self.model.parameters())

    def __call__(self) -> float:
        """Train one step; returns the loss."""
        loss = (self.model(self.images) - self.images).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def run_experiment(seconds: float = 2.0, rounds: int = 3, limit_s: float = 60.0) -> dict:
    """Milliseconds a step, {place: {way: [one mean a round]}}; places "alone" and "busy".

    Each way trains for `seconds` in each place, `rounds` times, in rotating order; no new round
    begins after `limit_s` seconds. Raises `MeasurementError` with fewer than two usable cores.
    """
    if core_count() < 2:
        raise MeasurementError(
            f"The thread experiment needs two cores, and this process may use {usable_cores()}; "
            "run it without an affinity mask (taskset) or on another machine."
        )
    figures: dict[str, dict[str, list[float]]] = {
        place: {way: [] for way in WAYS} for place in _PLACES
    }
    workers: dict[str, _Worker] = {}
    neighbour = None
    try:
        workers.update({way: _Worker(way) for way in WAYS})
        neighbour = _Worker("neighbour")
        for worker in (*workers.values(), neighbour):
            worker.ready()
        start = time.monotonic()
        for turn in range(rounds):
            if turn and time.monotonic() - start > limit_s:
                break
            order = list(WAYS)[turn % len(WAYS) :] + list(WAYS)[: turn % len(WAYS)]
            for place in _PLACES:
                for way in order:
                    if place == "busy":
                        neighbour.send("run 600")
                        time.sleep(0.3)
                    workers[way].send(f"run {seconds}")
                    figures[place][way].append(workers[way].answer())
                    if place == "busy":
                        neighbour.send("stop")
                        neighbour.answer()
    finally:
        for worker in (*workers.values(), *([neighbour] if neighbour else [])):
            worker.close()
    return figures


def record_experiment(figures: dict) -> list:
    """Write the experiment's figures into the registry, area `threads`; returns the entries.

    `threads.PLACE_WAY_ms`: mean milliseconds a step, median over the rounds, spread lowest to
    highest. `threads.busy_slowdown_WAY`: that beside the neighbour, over two threads alone.
    """
    base = statistics.median(figures["alone"]["two"])
    entries = []
    for place, ways in figures.items():
        for way, values in ways.items():
            extra = {
                "command": COMMAND,
                "base": "small convolutional autoencoder, one training step",
                "batch": BATCH,
                "runtime": "eager",
                "threads": {"one": 1, "policy": "1 to 2"}.get(way, 2),
                "dtype": "float32",
                "rounds": len(values),
            }
            middle, spread = statistics.median(values), (min(values), max(values))
            name = f"threads.{place}_{way}_ms"
            entries.append(record("threads", name, middle, "ms", spread=spread, **extra))
            if place == "busy":
                entries.append(
                    record(
                        "threads",
                        f"threads.busy_slowdown_{way}",
                        middle / base,
                        "x",
                        spread=(spread[0] / base, spread[1] / base),
                        **{**extra, "base": "two threads alone on the machine"},
                    )
                )
    return entries


def plot_thread_policy() -> Figure:
    """The recorded experiment as bars: milliseconds a step, alone and beside the neighbour.

    Raises `ResultError` when it was not recorded.
    """
    fig, axis = plt.subplots(figsize=(7, 3.4))
    for slot, (place, words) in enumerate(_PLACES.items()):
        rows = [_recorded(f"threads.{place}_{way}_ms") for way in WAYS]
        spreads = [row.spread or (row.value, row.value) for row in rows]
        places = [n + 0.4 * slot for n in range(len(rows))]
        axis.bar(
            places,
            [row.value for row in rows],
            0.37,
            yerr=[
                [row.value - low for row, (low, _) in zip(rows, spreads, strict=True)],
                [high - row.value for row, (_, high) in zip(rows, spreads, strict=True)],
            ],
            capsize=3,
            color=PALETTE[slot],
            ecolor=PALETTE[6],
            label=words,
        )
        for at, row, (_, high) in zip(places, rows, spreads, strict=True):
            axis.annotate(
                f"{row.value:.3g}",
                (at, high),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axis.set_yscale("log")
    axis.margins(y=0.15)
    axis.set_xticks([n + 0.2 for n in range(len(WAYS))], WAYS.values())
    axis.grid(axis="x", visible=False)
    axis.set_ylabel("milliseconds a training step")
    axis.legend(loc="upper left", fontsize=8)
    return fig


def describe_thread_policy() -> str:
    """`plot_thread_policy` in words, with its numbers: the figure's alt text."""
    parts = []
    for way, words in WAYS.items():
        alone = _recorded(f"threads.alone_{way}_ms")
        busy = _recorded(f"threads.busy_{way}_ms")
        label = words.replace("\n", " ")
        parts.append(f"{label}: {alone.value:.3g} alone, {busy.value:.3g} beside the neighbour")
    return (
        "Bars on a logarithmic axis: milliseconds a training step, alone on the machine and beside "
        f"a training that uses every core. {'; '.join(parts)}."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment and record it; refuses on a machine that is not idle."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="training time a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dry-run", action="store_true", help="record nothing; allowed on a busy machine"
    )
    parser.add_argument("--worker", choices=[*WAYS, "neighbour"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        _work(options.worker)
        return 0
    taken = cores_taken()
    if taken > 0.3 and not options.dry_run:
        print(
            f"error: other processes use {taken:.1f} cores, so nothing measured now would be "
            '"alone"; stop them, or look without recording with --dry-run.',
            file=sys.stderr,
        )
        return 2
    try:
        figures = run_experiment(options.seconds, options.rounds)
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.dry_run:
        record_experiment(figures)
    base = statistics.median(figures["alone"]["two"])
    for place, ways in figures.items():
        for way, values in ways.items():
            middle = statistics.median(values)
            print(f"{place:<6} {way:<8} {middle:9.2f} ms a step  {middle / base:6.2f} x")
    return 0


def cores_taken(seconds: float = 1.0) -> float:
    """Cores' worth of time that other processes used during `seconds` on the usable cores."""
    before = sample_cpu()
    time.sleep(seconds)
    after = sample_cpu()
    elapsed = after.at - before.at
    ours = (after.idle - before.idle) + (after.own - before.own)
    return max(0.0, usable_cores() - ours / elapsed)


def _recorded(name: str):  # type: ignore[no-untyped-def]
    try:
        return result(name)
    except ResultError as error:
        raise ResultError(f"{name} is not recorded; run `{COMMAND}` on an idle machine.") from error


class _Worker:
    """A training process that runs when it is told to, and sleeps between turns."""

    def __init__(self, way: str) -> None:
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
        }
        if way == "passive":
            environment |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastgen_course.timing.thread_experiment", "--worker", way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self) -> None:
        self.answer()

    def send(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> float:
        """Mean milliseconds a step of the turn that has just ended."""
        line = self.process.stdout.readline()
        if not line:
            raise MeasurementError(
                f"A training process of the thread experiment ended (status {self.process.wait()})."
            )
        return json.loads(line)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _work(way: str) -> None:
    """The worker's side: obeys "run SECONDS" and "stop" on stdin, answers on stdout."""
    torch.set_num_threads(1 if way == "one" else core_count() if way == "neighbour" else 2)
    train = TrainingStep()
    train()
    lines: queue.Queue[str | None] = queue.Queue()
    stop = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            if line.startswith("stop"):
                stop.set()
            else:
                lines.put(line)
        stop.set()
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    print("0", flush=True)
    while (line := lines.get()) is not None:
        stop.clear()
        seconds = float(line.split()[1])
        policy = ThreadPolicy(every_s=0.5, limit=2) if way == "policy" else None
        start, steps = time.perf_counter(), 0
        while steps == 0 or (time.perf_counter() - start < seconds and not stop.is_set()):
            train()
            steps += 1
            if policy:
                policy.step()
        print(json.dumps(1000 * (time.perf_counter() - start) / steps), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
