"""Run one measurement of notebook 09 in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastgen_course.runtimes.hardware_runtimes import reason_of
from fastgen_course.timing import MeasurementError

SESSION_LIMIT_S = 900.0


def run_process(module: str, request: str, threads: int) -> Iterator[dict[str, Any]]:
    """The lines of JSON that `python -m fastgen_course.runtimes.MODULE REQUEST` prints.

    A process has 15 minutes. Raises `MeasurementError` in one sentence when it fails.
    """
    environment = process_environment(threads)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", f"fastgen_course.runtimes.{module}", request],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
        )
        timer = threading.Timer(SESSION_LIMIT_S, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            timer.cancel()
            process.kill()  # also when the reader has gone; one that has ended does not mind
            status = process.wait()
            process.stdout.close()
        if status:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
            raise MeasurementError(
                f"The process ended with status {status} ({reason_of(RuntimeError(last))})."
            )


def process_environment(threads: int) -> dict[str, str]:
    """The environment of a measuring process: its thread count, and this package to be found."""
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    joined = os.pathsep.join(filter(None, paths))
    return {**kept, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": joined}
