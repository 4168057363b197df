"""What an allocator costs: GENERATOR_BASE with freed memory handed back, and with it kept.

    python -m fastgen_course.runtimes.page_faults

measures one process as it was started and prints a line of JSON. The C library of Linux (glibc)
hands large freed blocks back to the system, and whoever asks again gets pages that the system must
clear first, one page fault each. Whether a program meets that depends on what it allocated before,
so that the same call takes another time in another process. `MALLOC_TOP_PAD_` tells the library to
keep so many bytes (mallopt(3), M_TOP_PAD).
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fastgen_course.runtimes.hardware_networks import calls, shipped_network
from fastgen_course.runtimes.hardware_process import process_environment
from fastgen_course.timing import measure

# More than all buffers of the largest call here.
KEPT_BYTES = 256 * 2**20


class Allocation(NamedTuple):
    """One process: milliseconds of a call, and page faults in it."""

    ms: float
    faults: float


def faults_a_call(call: Callable[[], Any], count: int = 5) -> float:
    """Page faults of one call, without those of the disk, a mean over `count`.

    Raises OSError where the system does not count them (Windows).
    """
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        raise OSError("page faults are not counted on this system.") from None
    call()
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(count):
        call()
    return (getrusage(RUSAGE_SELF).ru_minflt - before) / count


def compare_allocators(batch: int = 64) -> dict[str, Allocation]:
    """GENERATOR_BASE in eager PyTorch, one thread: "handed back" and "kept", a process each.

    Raises OSError on a system without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        raise OSError("what is freed is handed back in another way on this system: no glibc.")
    rows = {}
    for name, extra in (("handed back", {}), ("kept", {"MALLOC_TOP_PAD_": str(KEPT_BYTES)})):
        plain = {k: v for k, v in process_environment(1).items() if not k.startswith("MALLOC_")}
        done = subprocess.run(
            [sys.executable, "-m", "fastgen_course.runtimes.page_faults", str(batch)],
            env={**plain, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        rows[name] = Allocation(**json.loads(done.stdout.splitlines()[-1]))
    return rows


def main(arguments: list[str]) -> int:
    """Measure this process; the batch is the only argument."""
    batch = int(arguments[0]) if arguments else 64
    torch.set_num_threads(1)
    with torch.no_grad():
        call = calls(shipped_network("generator_base"), batch)["generator_base"]
        timing = measure(call, batch=batch, threads=1, device="cpu", max_seconds=3.0)
        print(json.dumps(Allocation(timing.median_ms, faults_a_call(call))._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
