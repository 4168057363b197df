"""Draw a file of captions across workers: resumable, verified, in constant memory.

The driver reads the prompts as a stream, hands out a shard whenever a worker comes free and holds
neither pictures nor prompts, so that its memory does not depend on how many there are.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from fastgen_course.runtimes.prompts import PromptFile, ScaleError
from fastgen_course.runtimes.samplers import Load, check_device, load_sampler, weights_hash
from fastgen_course.runtimes.shards import Job, open_folder, plan, remove_halves, shard_state
from fastgen_course.runtimes.workers import Drawn, WorkerPool
from fastgen_course.timing import measure_once


@dataclass(frozen=True)
class ScaleReport:
    """What a run did: pictures in all, drawn now and kept from before, and how it went.

    `damaged` counts files of an earlier run that were drawn again, `workers_lost` the workers that
    died and were replaced; `start_ms` is the time to have Ray and the workers ready, `draw_ms` the
    time from the first shard handed out to the last one finished.
    """

    folder: Path
    images: int
    drawn: int
    kept: int
    damaged: int
    workers: int
    workers_lost: int
    start_ms: float
    draw_ms: float
    skipped: str | None

    @property
    def images_per_s(self) -> float:
        """Pictures drawn a second, the start not counted; 0 when all were there."""
        return 1000.0 * self.drawn / self.draw_ms if self.drawn else 0.0

    def __str__(self) -> str:
        text = f"{self.folder}: {self.images:,} images"
        if self.kept:
            text += f", {self.kept:,} of them from before"
        if self.damaged:
            text += f", {self.damaged} damaged shard{'s' * (self.damaged > 1)} drawn again"
        if not self.drawn:
            return text + "; nothing was left to draw"
        text += f"; {self.drawn:,} drawn by {self.workers} worker{'s' * (self.workers > 1)}"
        text += (
            f" at {self.images_per_s:.0f} images/s after {self.start_ms / 1000:.1f} s of starting"
        )
        if self.workers_lost:
            text += f"; {self.workers_lost} died, and their shards were drawn again"
        return text


def draw_many(
    prompts: Path | str,
    folder: Path | str,
    *,
    workers: int = 2,
    model: str = "generator_base",
    images: int | None = None,
    seed: int = 0,
    batch: int = 64,
    shard: int = 512,
    device: str = "cpu",
    address: str | None = None,
    load: Load = load_sampler,
    pool: WorkerPool | None = None,
    on_shard: Callable[[Drawn], None] = lambda drawn: None,
    progress: bool = True,
) -> ScaleReport:
    """Draw the captions of a file into a folder of shards; goes on where a killed run stopped.

    Args:
        prompts: a text file, one caption a line; lines that cannot be read are skipped, named in
            the report.
        folder: where the shards go, or lie already: those that verify are kept.
        images: how many pictures; None draws one a caption. The captions repeat when they run out.
        seed, batch, shard: see `Job`.
        workers, model, device, address, load: see `WorkerPool`.
        pool: workers that are running already; the arguments that would start some are not used.
        on_shard: is told of each finished shard.
        progress: show a bar.

    Raises `ScaleError` for settings that cannot be or a folder of another run, `DataFileError` for
    weights or a disk that fail, and what the sampler raises; finished shards stay.
    """
    if pool is not None:
        model, load = pool.model, pool.load
    where = {"device": device, "address": address, "load": load}
    folder, source = Path(folder), PromptFile(prompts)
    shipped = weights_hash(model) if load is load_sampler else None
    count = source.count if images is None else images
    job = Job(model, shipped, source.sha256, count, seed, batch, shard)
    if address is None:
        check_device(device)
    with _only_run(folder):
        open_folder(folder, job)
        states = {s.index: shard_state(folder, job, s) for s in plan(job, source.captions())}
        whole = {index for index, state in states.items() if state == "whole"}
        damaged = sum(state == "damaged" for state in states.values())
        todo = (s for s in plan(job, source.captions()) if s.index not in whole)
        kept = sum(min(shard, count - index * shard) for index in whole)
        lost, start_ms, draw_ms = 0, 0.0, 0.0
        with tqdm(
            total=count, initial=kept, unit=" images", leave=False, disable=not progress
        ) as bar:

            def finished(drawn: Drawn) -> None:
                bar.update(drawn.images)
                on_shard(drawn)

            if kept < count:
                team = nullcontext(pool) if pool else WorkerPool(workers, model, **where)
                with team as team:
                    start_ms, workers = team.start_ms, team.workers
                    draw_ms, lost = measure_once(
                        lambda: team.draw(job, todo, folder, finished), device="cpu"
                    )
        remove_halves(folder)
    return ScaleReport(
        folder, count, count - kept, kept, damaged, workers, lost, start_ms, draw_ms,
        source.skipped(),
    )  # fmt: skip


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process dies."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"fastgen-scale-{digest}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ScaleError(
            f"another run is drawing into {folder.name}; wait for it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
