"""The rules of the one nbval pass: `pytest -p tests.nbval_guard --nbval-lax ... notebooks`.

- Kernels may reach loopback and nothing else. An audit hook, put into every Python process that
  the pass starts, refuses an address before a packet leaves.
- The summed memory of the kernel's process tree is sampled all the time. A notebook that goes over
  the limit fails at the cell where it did. Minutes and peaks are printed at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from fastgen_course.authoring.memory import LIMIT_MB, MemorySampler

# Runs at the start of every Python process with this folder on PYTHONPATH.
SITECUSTOMIZE = """\
import ipaddress
import sys


def _loopback(host):
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


def _only_loopback(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not _loopback(host):
        raise ConnectionRefusedError(
            f"the notebooks must run without a network, and this cell wants to reach {host!r}"
        )


sys.addaudithook(_only_loopback)
"""


class NotebookPass:
    """Samples one notebook after another, in the order in which pytest runs their cells."""

    def __init__(self, limit_mb: float) -> None:
        self.limit_mb = limit_mb
        self.memory = MemorySampler()
        self.rows: dict[Path, tuple[float, float]] = {}
        self._began = 0.0
        self._current: Path | None = None
        self._over: set[Path] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="fastgen-nbval-"))
        (self._folder / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
        self._old_path = os.environ.get("PYTHONPATH")

    def pytest_sessionstart(self) -> None:
        paths = [str(self._folder), *filter(None, [self._old_path])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        self.memory.start()

    def pytest_sessionfinish(self) -> None:
        self.memory.stop()
        if self._old_path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = self._old_path
        shutil.rmtree(self._folder, ignore_errors=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None):
        if item.path != self._current:
            self._current = item.path
            self._began = time.perf_counter()
            self.memory.reset()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        outcome = yield
        self.memory.sample()
        minutes = (time.perf_counter() - self._began) / 60
        self.rows[item.path] = (minutes, self.memory.peak_mb)
        peak = self.memory.peak_mb
        if peak > self.limit_mb and item.path not in self._over:
            self._over.add(item.path)  # name the cell that went over, not every later one
            raise MemoryError(
                f"{item.path.name} held {peak:.0f} MB up to this cell; "
                f"at most {self.limit_mb:.0f} MB are allowed"
            )
        return outcome

    def pytest_terminal_summary(self, terminalreporter) -> None:
        terminalreporter.section("notebooks: minutes and peak memory")
        for path, (minutes, peak) in self.rows.items():
            terminalreporter.write_line(f"{path.name}: {minutes:.2f} minutes, {peak:.0f} MB")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--memory-limit-mb",
        type=float,
        default=LIMIT_MB,
        help="the most that a notebook's processes may hold together",
    )


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("--memory-limit-mb")
    config.pluginmanager.register(NotebookPass(limit), "notebook-pass")
