"""Cold readings: what one call costs in a process that has never made it before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fastgen_course.timing.rows import MeasurementError

_PROGRAM = """\
{setup}
import time as _time
_start = _time.time()
{statement}
print("fastgen-cold-ms", 1000 * (_time.time() - _start))
"""


def cold_readings(
    setup: str, statement: str, repeats: int = 10, timeout_s: float = 60.0
) -> list[float]:
    """Milliseconds of `statement`, timed once with `time.time()` in each of several new processes.

    This is how not to measure: `measure` is for results, this is for showing what a script that
    times its only call would have reported. `setup` (imports, loading a model) is not timed.
    Raises `MeasurementError`, with the process's last line, when the code fails or hangs.
    """
    if repeats < 1:
        raise MeasurementError(f"repeats must be at least 1, got {repeats}.")
    program = _PROGRAM.format(setup=setup, statement=statement)
    # The child must find the package where this process found it, also when nothing is installed.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    readings = []
    for _ in range(repeats):
        try:
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"a cold reading took longer than {timeout_s:g} s; time something smaller."
            ) from error
        last = (done.stdout.strip().splitlines() or [""])[-1]
        if done.returncode != 0 or not last.startswith("fastgen-cold-ms "):
            said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise MeasurementError(f"a cold reading failed: {said}")
        readings.append(float(last.split()[1]))
    return readings
