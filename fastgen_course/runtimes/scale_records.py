"""Record how drawing across workers scales: predicted from its serial part, then measured.

    python -m fastgen_course.runtimes.scale_records [rates|shards|memory]

All three take about eight minutes on a machine with two idle cores. `rates` takes turns, round by
round: a plain one-thread loop, two such loops side by side (what the machine itself can give), the
driver's own work with nothing drawn (the serial part), one worker, two workers. `shards` varies the
pictures a file. `memory` draws 1,000 and then 100,000 pictures and watches driver and workers.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch

from fastgen_course.datasets.scenes import captions_of, draw_labels
from fastgen_course.runtimes.prompts import PromptFile
from fastgen_course.runtimes.samplers import load_sampler
from fastgen_course.runtimes.shards import Job, plan
from fastgen_course.runtimes.workers import Drawn, WorkerPool
from fastgen_course.timing import measure_once, record
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.timing.threads import core_count

COMMAND = "python -m fastgen_course.runtimes.scale_records"
SHARDS = (64, 128, 256, 512, 1024, 2048)
PROMPTS = 1000  # captions in the file; they repeat
Rates = dict[str, list[float]]  # milliseconds a run, one a round, by way


@dataclass(frozen=True)
class Sizes:
    """How much is drawn: `images` a run, `rounds` of them; `few` and `many` where memory is asked.

    `batch` and `shard` are those of a `Job`; `shards` are the sizes that are tried.
    """

    images: int = 8192
    rounds: int = 5
    batch: int = 64
    shard: int = 512
    shards: tuple[int, ...] = SHARDS
    few: int = 1000
    many: int = 100_000


def amdahl(serial_share: float, workers: int) -> float:
    """How many times faster `workers` are than one: 1 / (s + (1 - s) / p) (Amdahl 1967).

    serial_share: s, the share of one worker's time that only one process at a time can work on.
    """
    return 1.0 / (serial_share + (1.0 - serial_share) / workers)


def effective_serial_share(speedup: float, workers: int) -> float:
    """The s that a measured speed-up amounts to: (1/S - 1/p) / (1 - 1/p) (Karp and Flatt 1990).

    Above the serial part measured by itself, it holds what Amdahl leaves out: shared caches and
    memory, idle workers at the end, Ray's own processes on the same cores. Negative above p.
    """
    return (1.0 / speedup - 1.0 / workers) / (1.0 - 1.0 / workers)


class _Bench:
    """Workers, plain loops and a prompt file, ready to be timed."""

    def __init__(self, model: str, sizes: Sizes, folder: Path) -> None:
        self.model, self.sizes, self.folder = model, sizes, folder
        self.prompts = folder / "prompts.txt"
        labels = draw_labels(PROMPTS, torch.Generator().manual_seed(0))
        self.prompts.write_text("\n".join(captions_of(labels)), encoding="utf-8")
        self.source = PromptFile(self.prompts)
        self.pool = WorkerPool(2, model)

    def ray(
        self,
        workers: int = 2,
        *,
        dry: bool = False,
        images: int | None = None,
        shard: int | None = None,
        on_shard: Callable[[Drawn], None] = lambda drawn: None,
    ) -> float:
        """Milliseconds of one run on Ray, from reading the prompt file to the last shard."""
        sizes, out = self.sizes, self.folder / "out"
        count, size = images or sizes.images, shard or sizes.shard
        out.mkdir()

        def run() -> None:
            source = PromptFile(self.prompts)
            job = Job(self.model, None, source.sha256, count, 0, sizes.batch, size)
            shards = plan(job, source.captions())
            self.pool.draw(job, shards, out, on_shard, only=workers, dry=dry)

        try:
            return measure_once(run, device="cpu")[0]
        finally:
            shutil.rmtree(out)

    def loops(self, processes: ProcessPoolExecutor, count: int) -> float:
        """Milliseconds until `count` plain loops side by side, in processes of their own, are done.

        Each draws all the pictures of a run and writes nothing.
        """
        sizes = self.sizes
        jobs = [
            processes.submit(plain_loop, self.model, self.prompts, sizes.images, sizes.batch)
            for _ in range(count)
        ]
        return max(job.result() for job in jobs)


def plain_loop(model: str, prompts: Path, images: int, batch: int) -> float:
    """Milliseconds of a one-thread loop that draws and does nothing else."""
    torch.set_num_threads(1)
    sample, captions = _sampler(model), PromptFile(prompts).captions()
    batches = [
        [next(captions) for _ in range(min(batch, images - start))]
        for start in range(0, images, batch)
    ]
    sample(batches[0], torch.Generator().manual_seed(0))  # warm

    def loop() -> None:
        with torch.inference_mode():
            for number, part in enumerate(batches):
                sample(part, torch.Generator().manual_seed(number))

    return measure_once(loop, device="cpu")[0]


_sampler = lru_cache(maxsize=1)(load_sampler)


@contextmanager
def _bench(model: str, sizes: Sizes) -> Iterator[_Bench]:
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(model, sizes, Path(folder))
        with bench.pool:
            bench.ray(images=2 * sizes.shard)  # warm
            yield bench


def measure_rates(model: str, sizes: Sizes) -> tuple[Rates, float]:
    """Milliseconds of every way, one a round, in rotating order; and of starting the workers."""
    with (
        _bench(model, sizes) as bench,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes,
    ):
        ways: Mapping[str, Callable[[], float]] = {
            "loop": lambda: bench.loops(processes, 1),
            "two_loops": lambda: bench.loops(processes, 2),
            "serial": lambda: bench.ray(1, dry=True),
            "one_worker": lambda: bench.ray(1),
            "two_workers": lambda: bench.ray(2),
        }
        return _in_turn(ways, sizes.rounds), bench.pool.start_ms


def measure_shards(model: str, sizes: Sizes) -> Rates:
    """Milliseconds of two workers with each shard size ("64", "128", ...), one a round."""
    with _bench(model, sizes) as bench:
        ways = {str(size): lambda size=size: bench.ray(shard=size) for size in sizes.shards}
        return _in_turn(ways, sizes.rounds)


def measure_memory(model: str, sizes: Sizes) -> dict[str, float]:
    """The largest resident MB of "driver" and "worker" while few and then many pictures are drawn.

    Keys: driver_few, worker_few, driver_many, worker_many. The same processes draw both.
    """
    peaks: dict[str, float] = {}
    with _bench(model, sizes) as bench:
        for name, images in (("few", sizes.few), ("many", sizes.many)):

            def watch(drawn: Drawn, name: str = name) -> None:
                for who, pid in (("driver", None), ("worker", drawn.pid)):
                    held = psutil.Process(pid).memory_info().rss / 1e6
                    peaks[f"{who}_{name}"] = max(held, peaks.get(f"{who}_{name}", 0.0))

            bench.ray(images=images, on_shard=watch)
    return peaks


def _in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    times: Rates = {way: [] for way in ways}
    for turn in range(rounds):
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for way in order:
            times[way].append(ways[way]())
    return times


# --- records ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A figure before it is recorded: one value a round, of which the median counts."""

    name: str
    values: Sequence[float]
    unit: str
    part: str
    extra: dict[str, object]

    def record(self) -> None:
        """Write it into the registry, with the lowest and highest round as its spread."""
        record(
            "distributed",
            self.name,
            statistics.median(self.values),
            self.unit,
            spread=(min(self.values), max(self.values)),
            command=f"{COMMAND} {self.part}",
            rounds=len(self.values),
            **self.extra,
        )

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        middle = statistics.median(self.values)
        return f"{self.name:45} {middle:10.4g} {self.unit}  [{low:.4g}, {high:.4g}]"


def _row(name: str, values: Sequence[float], unit: str, part: str, **extra: object) -> Row:
    known = {"threads": 1, "dtype": "float32", "runtime": "eager on Ray", **extra}
    return Row(f"distributed.{name}", values, unit, part, known)


def rates_rows(model: str, sizes: Sizes) -> list[Row]:
    """Rates, the serial share measured by itself, and the speed-up that it predicts beside ours."""
    ms, start_ms = measure_rates(model, sizes)
    extra = {"base": model, "batch": sizes.batch, "images": sizes.images, "shard": sizes.shard}
    drawn = {way: sizes.images * (2 if way == "two_loops" else 1) for way in ms if way != "serial"}
    rates = {way: [1000 * n / t for t in ms[way]] for way, n in drawn.items()}

    def paired(over: Sequence[float], under: Sequence[float]) -> list[float]:
        return [a / b for a, b in zip(over, under, strict=True)]

    # A share is at most 1 by its name; noise can put a worker's round above the loop's.
    shares = [min(1.0, x) for x in paired(rates["one_worker"], rates["loop"])]
    serial = [min(1.0, x) for x in paired(ms["serial"], ms["one_worker"])]
    speedups = paired(rates["two_workers"], rates["one_worker"])
    entries = [
        _row(f"{way}_images_per_s", values, "images/s", "rates", **extra)
        for way, values in rates.items()
    ]
    loops = paired(rates["two_loops"], rates["loop"])
    effective = [effective_serial_share(x, 2) for x in speedups]
    return [
        *entries,
        _row("start_seconds", [start_ms / 1000], "s", "rates", **extra),
        _row("one_worker_share", shares, "share", "rates", **extra),
        _row("serial_share", serial, "share", "rates", **extra),
        _row("two_worker_predicted_speedup", [amdahl(s, 2) for s in serial], "x", "rates", **extra),
        _row("two_worker_speedup", speedups, "x", "rates", **extra),
        _row("two_loops_speedup", loops, "x", "rates", **{**extra, "runtime": "eager"}),
        _row("effective_serial", effective, "of one worker's time", "rates", **extra),
    ]


def shards_rows(model: str, sizes: Sizes) -> list[Row]:
    """Pictures a second of two workers for each shard size."""
    extra = {"base": model, "batch": sizes.batch, "images": sizes.images}
    return [
        _row(
            f"shard_{size}_images_per_s",
            [1000 * sizes.images / t for t in times],
            "images/s",
            "shards",
            shard=int(size),
            **extra,
        )
        for size, times in measure_shards(model, sizes).items()
    ]


def memory_rows(model: str, sizes: Sizes) -> list[Row]:
    """The largest memory of driver and worker with few and with many pictures, and the growth."""
    peaks = measure_memory(model, sizes)
    extra = {"base": model, "batch": sizes.batch, "shard": sizes.shard}
    images = {"few": sizes.few, "many": sizes.many}
    entries = [
        _row(f"{name}_mb", [mb], "MB", "memory", images=images[name.split("_")[1]], **extra)
        for name, mb in peaks.items()
    ]
    for who in ("driver", "worker"):
        growth = max(0.0, peaks[f"{who}_many"] - peaks[f"{who}_few"])
        entries.append(
            _row(f"{who}_growth_mb", [growth], "MB", "memory", images=sizes.many, **extra)
        )
    return entries


PARTS: dict[str, Callable[[str, Sizes], list[Row]]] = {
    "rates": rates_rows,
    "shards": shards_rows,
    "memory": memory_rows,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; refuses a machine that is not idle or has one core, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; without one, all")
    parser.add_argument("--model", default="generator_base", help="shipped weights that draw")
    parser.add_argument("--tiny", action="store_true", help="a trial in small sizes, not recorded")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    taken = cores_taken()
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}."
    elif core_count() < 2 and not options.tiny:
        problem = "two workers need two cores, and this process may use one."
    elif taken > 0.3 and not options.tiny:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    sizes = Sizes(32, 2, 4, 8, (4, 16), 16, 64) if options.tiny else Sizes()
    for part in options.parts or PARTS:
        for row in PARTS[part](options.model, sizes):
            print(row, flush=True)
            if not options.tiny:
                row.record()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
