"""The measurements of `scale_records`: workers, plain loops and a prompt file, timed in turn."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

from fastgen_course.datasets.scenes import captions_of, draw_labels
from fastgen_course.runtimes.prompts import PromptFile
from fastgen_course.runtimes.samplers import Sampler, load_sampler
from fastgen_course.runtimes.scale import ScaleReport, draw_many
from fastgen_course.runtimes.shards import Job, draw_shard, plan, read_job, read_shards
from fastgen_course.runtimes.workers import Drawn, WorkerPool
from fastgen_course.timing import measure_once, threads_set

SHARDS = (64, 128, 256, 512, 1024, 2048)
PROMPTS = 1000  # captions in the file; they repeat
Rates = dict[str, list[float]]  # milliseconds a run, one a round, by way


@dataclass(frozen=True)
class Sizes:
    """How much is drawn: `images` a run, `rounds` of them; `few` and `many` where memory is asked.

    `batch` and `shard` are those of a `Job`; `shards` are the sizes that are tried, `kill_shard`
    that of the run whose worker is killed, and `memory_shard` that of the runs whose memory is
    watched: small enough that each worker draws several of the few pictures' shards.
    """

    images: int = 8192
    rounds: int = 5
    batch: int = 64
    shard: int = 512
    shards: tuple[int, ...] = SHARDS
    few: int = 1000
    many: int = 100_000
    kill_shard: int = 256
    memory_shard: int = 128


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


def measure_memory(model: str, sizes: Sizes) -> dict[str, list[float]]:
    """Resident MB of "driver" and "worker" after every shard of few and then of many pictures.

    Keys: driver_few, worker_few, driver_many, worker_many. The same processes draw both. A worker's
    memory swings by a tenth from shard to shard: more shards have a larger maximum, so it is the
    medians that say whether it grows.
    """
    held: dict[str, list[float]] = {}
    with _bench(model, sizes) as bench:
        for name, images in (("few", sizes.few), ("many", sizes.many)):

            def watch(drawn: Drawn, name: str = name) -> None:
                for who, pid in (("driver", None), ("worker", drawn.pid)):
                    mb = psutil.Process(pid).memory_info().rss / 1e6
                    held.setdefault(f"{who}_{name}", []).append(mb)

            bench.ray(images=images, shard=sizes.memory_shard, on_shard=watch)
    return held


@dataclass(frozen=True)
class Killed:
    """A run of which one worker was killed half way, and what its folder then holds.

    `lost` pictures are missing, `doubled` ones are there more often than in a plain loop, `changed`
    ones differ from that loop's; `shards` are the finished ones as they came, and `killed_at`
    seconds since the epoch.
    """

    report: ScaleReport
    shards: tuple[Drawn, ...]
    killed_at: float
    lost: int
    doubled: int
    changed: int


def measure_kill(model: str, sizes: Sizes) -> Killed:
    """Draw a run with two workers, kill one in the middle of a shard, and look at every picture."""
    with _bench(model, sizes) as bench:
        killed = kill_half_way(bench.prompts, bench.folder / "killed", bench.pool, sizes)
    return killed


def kill_half_way(prompts: Path, folder: Path, pool: WorkerPool, sizes: Sizes) -> Killed:
    """`measure_kill` with workers that are there already."""
    seen: list[Drawn] = []
    killed_at: list[float] = []

    def watch(drawn: Drawn) -> None:
        seen.append(drawn)
        if not killed_at and 2 * sum(d.images for d in seen) >= sizes.images:
            # Not the one that has just finished: the other is in the middle of a shard.
            victim = next(pid for pid in pool.pids if pid != drawn.pid)
            # This moment, not the end of the shard that came in last: those seen before it may have
            # ended after it, for two workers' results come in an order of their own.
            killed_at.append(time.time())
            psutil.Process(victim).kill()

    report = draw_many(
        prompts, folder, pool=pool, images=sizes.images, batch=sizes.batch, shard=sizes.kill_shard,
        on_shard=watch, progress=False,
    )  # fmt: skip
    lost, doubled, changed = look_at(folder, load_sampler(pool.model), prompts)
    return Killed(report, tuple(seen), killed_at[0], lost, doubled, changed)


def look_at(folder: Path, sample: Sampler, prompts: Path) -> tuple[int, int, int]:
    """(lost, doubled, changed) pictures of a folder beside a plain loop's over the same job."""
    job = read_job(folder)
    changed, found, expected = 0, Counter(), Counter()
    shards = plan(job, PromptFile(prompts).captions())
    for shard, (captions, images) in zip(shards, read_shards(folder), strict=True):
        with torch.inference_mode(), threads_set(1):
            wanted = draw_shard(sample, job, shard)
        theirs = zip(captions, images, strict=True)
        ours = zip(shard.captions, wanted, strict=True)
        pairs = zip(theirs, ours, strict=False)  # a shard that lost pictures is shorter
        changed += sum(a[0] != b[0] or not np.array_equal(a[1], b[1]) for a, b in pairs)
        found.update(image.tobytes() for image in images)
        expected.update(image.tobytes() for image in wanted)
    # Scenes without a garment may look alike of themselves: doubled is what is there too often.
    doubled = sum(max(0, found[image] - count) for image, count in expected.items())
    return job.images - found.total(), doubled, changed


def _in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    times: Rates = {way: [] for way in ways}
    for turn in range(rounds):
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for way in order:
            times[way].append(ways[way]())
    return times
