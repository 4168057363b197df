"""OpenVINO beside other libraries in one process."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Two models that end in the order in which they began, then a signal, as an exercise's time limit
# sends it. In a process of its own: what is tested for is its death.
SCRIPT = """
import gc, signal, sys, time
import torch
from fastgen_course.runtimes.onnx_export import export_onnx
from fastgen_course.runtimes.openvino_model import OpenVinoModel, openvino_has_bfloat16

openvino_has_bfloat16()
path = sys.argv[1]
export_onnx(torch.nn.Linear(4, 4).eval(), (torch.zeros(1, 4),), path)
first, second = OpenVinoModel(path, batch=1), OpenVinoModel(path, batch=1)
first(torch.zeros(1, 4))
del first
gc.collect()
del second
gc.collect()
rung = []
signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
signal.setitimer(signal.ITIMER_REAL, 0.05)
end = time.monotonic() + 10
while not rung and time.monotonic() < end:
    torch.ones(3) + 1
print("alive" if rung else "no signal came")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interval timers")
def test_a_signal_after_models_ended_does_not_kill_the_process(tmp_path):
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "linear.onnx")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["alive"]), done.stderr
