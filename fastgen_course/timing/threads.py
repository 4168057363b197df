"""How many threads to train with: all cores when they are free, fewer when others use them.

PyTorch splits an operator over its OpenMP threads and waits at a barrier until the last one is
done. The waiting threads *spin* (GCC's libgomp: 300,000 turns; Intel's and LLVM's: 200 ms), because
waking a sleeping thread costs more than a small operator. On a free machine that is right. On a
busy one the thread that everybody waits for may not be running at all, and its core is given to
threads that spin: every operator then waits for the scheduler, and a training step can take ten
times as long as on one thread.

Two remedies. `OMP_WAIT_POLICY=passive` (for Intel's and LLVM's library also `KMP_BLOCKTIME=0`) lets
waiting threads sleep at once; the library reads it when it is loaded, so it must be in the
environment *before* `import torch` and a running notebook cannot set it for itself. The policy
here works at any time: look at how much of the cores is free, and use no more threads than that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from fastgen_course.timing.machine import cpu_limit, usable_cores

# A core counts as free from three quarters on: the sampling, the desktop and the kernel's own
# work cost a little of every core.
_SLACK = 0.25


@dataclass(frozen=True)
class CpuSample:
    """Seconds since some start: `idle` summed over the usable cores, `own` used by this process."""

    at: float
    idle: float
    own: float


def training_threads(seconds: float = 0.3, limit: int | None = None) -> int:
    """How many threads to train with, from watching the cores for `seconds` (0.1 to 2 s).

    What this process uses already counts as free for it. Returns 1 to the number of physical
    cores (or `limit`, or a container's share of cores).
    """
    before = sample_cpu()
    time.sleep(seconds)
    return threads_between(before, sample_cpu(), limit)


def threads_between(before: CpuSample, after: CpuSample, limit: int | None = None) -> int:
    """The decision between two samples: as many threads as cores were idle or ours."""
    elapsed = max(after.at - before.at, 1e-6)
    return choose_threads(
        idle_cores=(after.idle - before.idle) / elapsed,
        own_cores=(after.own - before.own) / elapsed,
        cores=core_count() if limit is None else min(limit, core_count()),
    )


def choose_threads(idle_cores: float, own_cores: float, cores: int) -> int:
    """floor(idle + own + 1/4), at least 1 and at most `cores`; cores' worth of time each."""
    return max(1, min(cores, math.floor(max(0.0, idle_cores) + max(0.0, own_cores) + _SLACK)))


def core_count() -> int:
    """Cores worth a thread: the physical ones this process may use, within a container's share."""
    cores = min(psutil.cpu_count(logical=False) or usable_cores(), usable_cores())
    share = cpu_limit()
    return max(1, cores if share is None else min(cores, math.floor(share)))


class ThreadPolicy:
    """Keeps PyTorch's thread count right during a training: call `step()` once a step.

    It watches the cores for `first_look_s` seconds and sets the count; then, every `every_s`
    seconds, it looks at the time since the last look (nothing sleeps) and sets it again.
    `threads` is the count in force, `changes` how often it changed. Used as a context manager it
    restores the count that was there before.
    """

    def __init__(
        self,
        every_s: float = 2.0,
        limit: int | None = None,
        first_look_s: float = 0.3,
        *,
        sample: Callable[[], CpuSample] | None = None,
        apply: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        self.every_s, self.limit, self.apply = every_s, limit, apply
        self.sample = sample or sample_cpu
        self.threads = self._before_all = torch.get_num_threads()
        self.changes = 0
        self._last = self.sample()
        if first_look_s > 0:  # or the first steps would pay for the wrong count
            time.sleep(first_look_s)
            self.decide()

    def step(self) -> int:
        """Look again if it is time to; returns the thread count in force."""
        if time.monotonic() - self._last.at >= self.every_s:
            self.decide()
        return self.threads

    def decide(self) -> int:
        """Look at the time since the last look and set the thread count at once."""
        now = self.sample()
        chosen = threads_between(self._last, now, self.limit)
        self._last = now
        if chosen != self.threads:
            self.apply(chosen)
            self.threads = chosen
            self.changes += 1
        return chosen

    def __enter__(self) -> ThreadPolicy:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.changes:
            self.apply(self._before_all)


def sample_cpu() -> CpuSample:
    """Read the system's counters of idle time and this process's own CPU time (about 0.1 ms)."""
    per_core = psutil.cpu_times(percpu=True)
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # Linux, Windows
        usable = [n for n in process.cpu_affinity() if n < len(per_core)]
        per_core = [per_core[n] for n in usable] or per_core
    idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in per_core)
    own = process.cpu_times()
    return CpuSample(time.monotonic(), idle, own.user + own.system)
