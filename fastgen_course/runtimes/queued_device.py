"""A simulated accelerator: calls are queued and return at once, and a thread works them off.

It has nothing of a GPU but this one property, which is the one that spoils naive timing. Notebook
09 uses it where no GPU is; what it measures is a thread, and is labelled so.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class QueuedDevice:
    """A queue of kernels (any functions) and one thread that runs them in order.

    Use as a context manager, or call `close`. `finished` counts the kernels that have run.
    """

    def __init__(self) -> None:
        self.finished = 0
        self._queue: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def launch(self, kernel: Callable[[], Any]) -> None:
        """Queue a kernel; returns at once. Raises RuntimeError after `close`."""
        if not self._thread.is_alive():
            raise RuntimeError("this device is closed.")
        self._queue.put(kernel)

    def synchronize(self) -> None:
        """Wait until every kernel that was launched has run."""
        self._queue.join()

    def close(self) -> None:
        """Run what is queued and end the thread; safe twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def __enter__(self) -> QueuedDevice:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _run(self) -> None:
        while (kernel := self._queue.get()) is not None:
            try:
                kernel()
            finally:
                self.finished += 1
                self._queue.task_done()
        self._queue.task_done()
