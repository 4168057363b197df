"""The rules of the nbval pass hold: a kernel that calls out or takes too much memory fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers_notebooks import good_notebook, write

ROOT = Path(__file__).resolve().parents[1]


def run_pass(path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "tests.nbval_guard", "--nbval-lax"]
    command += ["--nbval-current-env", "--nbval-cell-timeout=60", "--color=no", *options]
    command += ["-p", "no:cacheprovider", str(path)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_only_loopback_can_be_reached(tmp_path):
    sources = [
        # Loopback works, by name and by number; the address is refused before a packet leaves.
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(('localhost', server.getsockname()[1]))\nprint('reached')",
        "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=5)",
        "import urllib.request\nurllib.request.urlopen('https://example.org', timeout=5)",
        "import subprocess, sys\n"
        "code = 'import socket; socket.getaddrinfo(\"example.org\", 80)'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)",
    ]
    done = run_pass(write(tmp_path / "07_trial.ipynb", good_notebook(*sources)))
    assert done.returncode == 1
    for cell, passed in enumerate([True, True, False, False, False]):
        failed = re.search(rf"FAILED .*::Cell {cell}\b", done.stdout)
        assert (failed is None) == passed, done.stdout
    assert "must run without a network, and this cell wants to reach '192.0.2.1'" in done.stdout
    assert "wants to reach 'example.org'" in done.stdout


def test_memory_is_sampled_and_limited(tmp_path):
    source = "kept = bytearray(300_000_000)\nkept[::4096] = b'x' * len(kept[::4096])"
    path = write(tmp_path / "07_trial.ipynb", good_notebook("1 + 1", source, "print('after')"))
    done = run_pass(path, "--memory-limit-mb=250")
    assert done.returncode == 1
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    held = re.search(r"held (\d+) MB up to this cell; at most 250 MB are allowed", done.stdout)
    assert 300 < int(held.group(1)) < 1000
    assert re.search(r"07_trial.ipynb: \d+\.\d\d minutes, \d+ MB", done.stdout)
