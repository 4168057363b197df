"""Start `data_parallel --compare` under torchrun from a notebook, and read what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fastgen_course.timing import result

#: Ways of `compare_ways`, in the order of its table.
NAMES = ("sum", "library", "mean_of_means", "own_norms", "float32", "one_float32")
_MODULE = "fastgen_course.training.data_parallel"


def run_comparison(processes: int = 2, timeout_s: float = 240.0) -> dict[str, float]:
    """Gradients of `processes` processes on this machine against one's: `compare_ways`, by name.

    Raises RuntimeError in one sentence where torchrun does not get through.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # By its name a machine would be looked up on the network.
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", "2"]  # gloo was seen to abort as a process left a busy machine
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [*command, "-m", _MODULE, "--compare"],
            env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"torchrun was stopped after {timeout_s:.0f} seconds.") from error
    found = _read(done.stdout)
    if done.returncode != 0 or set(found) != set(NAMES):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise RuntimeError(f"torchrun ended with code {done.returncode} ({last[:200]}).")
    return found


def recorded_comparison() -> dict[str, float]:
    """What `torchrun ... data_parallel --record` keeps, by name; `ResultError` if it never ran."""
    return {name: float(result(f"distributed.gradient_difference_{name}")) for name in NAMES}


def _read(text: str) -> dict[str, float]:
    """The lines of `--compare`: a name, a number, words."""
    lines = [line.split() for line in text.splitlines()]
    return {words[0]: float(words[1]) for words in lines if words and words[0] in NAMES}
