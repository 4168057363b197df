"""The memory of a tree of processes, sampled while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType

import psutil

LIMIT_MB = 1500.0


def process_mb(process: psutil.Process) -> float:
    """What one process holds, in MB (1e6 bytes), with shared pages counted once.

    Linux: the proportional set size (PSS), which shares a page among its users. Elsewhere: the
    unique set size, or the resident size where the system does not tell. 0 for one that has ended.
    """
    try:
        facts = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
    except psutil.AccessDenied:
        facts = process.memory_info()
    held = getattr(facts, "pss", None) or getattr(facts, "uss", None) or facts.rss
    return held / 1e6


def tree_mb(processes: Iterable[psutil.Process]) -> float:
    """The summed memory of `processes` and of everything they started, in MB."""
    seen: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            for member in [process, *process.children(recursive=True)]:
                seen[member.pid] = member
        except psutil.NoSuchProcess:
            continue
    return sum(process_mb(member) for member in seen.values())


def started_by(process: psutil.Process) -> list[psutil.Process]:
    """The direct children of `process`; empty when it has ended."""
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


class MemorySampler:
    """Sample the memory of everything that this process has started, in a thread.

    Used as a context manager, or through `start` and `stop`. `peak_mb` is the largest sum seen
    since the last `reset`.
    """

    def __init__(self, interval_s: float = 0.25) -> None:
        self.interval_s = interval_s
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def reset(self) -> None:
        """Forget the peak: a new notebook begins."""
        self.peak_mb = 0.0

    def sample(self) -> float:
        """Take one sample now and return it, in MB."""
        now = tree_mb(started_by(psutil.Process()))
        self.peak_mb = max(self.peak_mb, now)
        return now

    def start(self) -> MemorySampler:
        """Begin sampling in the background."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.sample()
            # Reading PSS walks page tables; never spend more than a tenth of a core on it.
            self._stop.wait(max(self.interval_s, 9 * (time.monotonic() - began)))

    def __enter__(self) -> MemorySampler:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
