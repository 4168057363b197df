"""A bounded queue of drawings and the workers that draw them, several requests at once.

A worker takes what waits and draws it in one call; it never waits for more, so that a lone request
is drawn at once and a crowd is drawn in batches (a larger batch takes less time a picture).

How many may wait depends on how long they have. A burst, a hundred readers who press Enter in the
same moment, is let in: the queue is empty again before anyone minds. A queue that has not been
empty for a second is no burst but overload, and all that a long queue does then is make everyone
wait; it is cut short until it has been empty again. (The same distinction, for packets: Nichols and
Jacobson 2012, "Controlling queue delay".)
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from fastgen_course.timing import Stopwatch, measure_once

Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Overloaded(Exception):
    """Too many wait already; `retry_after_s` is when to come again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"come again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Limits:
    """How many pictures are drawn in one call, and how many may wait.

    Attributes:
        batch: pictures a call, if that many wait; 1 draws one request at a time.
        burst: pictures that may wait in a queue that was empty within `patience_ms`.
        standing: pictures that may wait otherwise.
        patience_ms: how long a queue may stand before it is overload.
    """

    batch: int = 16
    burst: int = 128
    standing: int = 32
    patience_ms: float = 1000.0

    def __post_init__(self) -> None:
        if not 1 <= self.standing <= self.burst or self.batch < 1:
            raise ValueError(
                "a queue needs batch from 1, and burst at least standing, at least 1; got "
                f"{self.batch}, {self.burst} and {self.standing}."
            )


@dataclass(frozen=True)
class Drawn:
    """What became of one request.

    Attributes:
        images: float32 (n, 3, H, W) in [-1, 1].
        wait_ms: from asking to the start of the call that drew it.
        model_ms: that call, all of its pictures.
        batch: how many pictures the call drew, others' included.
    """

    images: np.ndarray
    wait_ms: float
    model_ms: float
    batch: int


@dataclass
class _Job:
    noise: np.ndarray
    words: np.ndarray
    done: asyncio.Future[Drawn]
    waiting: Stopwatch = field(default_factory=Stopwatch)


class Batcher:
    """Draws requests in order, each worker a thread with a `draw(noise, words)` of its own.

    Args:
        draws: one function a worker; float32 (B, Z) and int64 (B, L) to float32 (B, 3, H, W).
        limits: of the queue.

    `start` and `close` belong to the event loop that asks. `drawn`, `refused` and `waiting` count
    pictures.
    """

    def __init__(self, draws: list[Draw], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.drawn = self.refused = self.waiting = 0
        self._draws = draws
        self._jobs: deque[_Job] = deque()
        self._standing = Stopwatch()  # since the queue was last empty
        self._ms_a_picture = 2.0  # a guess, replaced by what is measured

    def start(self) -> None:
        """Start the workers."""
        self._come = asyncio.Event()
        self._threads = ThreadPoolExecutor(len(self._draws), thread_name_prefix="draw")
        self._workers = [asyncio.create_task(self._work(draw)) for draw in self._draws]

    async def close(self) -> None:
        """Stop the workers; whoever still waits is refused."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(Overloaded(1))
        self._jobs.clear()
        self.waiting = 0
        # In a thread: a call that still draws would hold up everything else until it ends.
        await asyncio.to_thread(self._threads.shutdown)

    async def draw(self, noise: np.ndarray, words: np.ndarray) -> Drawn:
        """Queue one request of n pictures and wait for it. Raises `Overloaded` at once."""
        waiting = self.waiting
        if not waiting:
            self._standing.start()
        stands = self._standing.ms > self.limits.patience_ms
        allowed = self.limits.standing if stands else self.limits.burst
        if waiting + len(noise) > max(allowed, len(noise)):
            self.refused += len(noise)
            seconds = waiting * self._ms_a_picture / len(self._draws) / 1000
            raise Overloaded(max(1, math.ceil(seconds)))
        job = _Job(noise, words, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(noise)
        self._come.set()
        return await job.done

    async def _work(self, draw: Draw) -> None:
        while True:
            while not self._jobs:
                self._come.clear()
                await self._come.wait()
            await self._draw_together(draw, self._take())

    def _take(self) -> list[_Job]:
        """The next jobs, as many as fit into one call; at least one."""
        jobs, pictures = [], 0
        while self._jobs and (not jobs or pictures + len(self._jobs[0].noise) <= self.limits.batch):
            job = self._jobs.popleft()
            self.waiting -= len(job.noise)
            if not job.done.cancelled():
                jobs.append(job)
                pictures += len(job.noise)
        return jobs

    async def _draw_together(self, draw: Draw, jobs: list[_Job]) -> None:
        if not jobs:  # all of them had gone away
            return
        waits = [job.waiting.ms for job in jobs]
        noise = np.concatenate([job.noise for job in jobs])
        words = np.concatenate([job.words for job in jobs])
        loop = asyncio.get_running_loop()
        try:
            call = loop.run_in_executor(
                self._threads, lambda: measure_once(lambda: draw(noise, words), device="cpu")
            )
            model_ms, images = await call
        except BaseException as error:  # whatever the runtime raises is told to those who asked
            stopped = isinstance(error, asyncio.CancelledError)
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(Overloaded(1) if stopped else error)
            if not isinstance(error, Exception):
                raise
            return
        self.drawn += len(noise)
        self._ms_a_picture += 0.1 * (model_ms / len(noise) - self._ms_a_picture)
        at = 0
        for job, wait_ms in zip(jobs, waits, strict=True):
            count = len(job.noise)
            if not job.done.done():
                job.done.set_result(Drawn(images[at : at + count], wait_ms, model_ms, len(noise)))
            at += count
