"""One process of notebook 09's sweep: a network in one runtime, precision and thread count.

    python -m fastgen_course.runtimes.hardware_session '{"network": "flow", "runtime": "eager"}'

Every combination is measured in a process of its own, so that no other runtime's threads, caches
or settings are left over from the one before. A line of JSON is printed for each row as soon as it
is known, so that a killed process loses one row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from fastgen_course.runtimes.hardware_networks import (
    CALLS,
    Network,
    calls,
    difference,
    shipped_network,
    tiny_network,
)
from fastgen_course.runtimes.hardware_runtimes import (
    RUNTIMES,
    Runtime,
    RuntimeRefusal,
    out_of_memory,
    reason_of,
)
from fastgen_course.timing import measure, measure_once

BATCHES = (1, 4, 16, 64, 256)
# A call that would take longer than this is left out: five of them would take over a minute.
SLOW_S = 15.0
# Up to this batch a runtime's result is compared with PyTorch's before anything is timed.
CHECKED = 4
# What still counts as the same result in float32: pixels and velocities, or the share of tokens
# that rounding flipped.
SAME = {"gpt": 0.05}
SAME_NUMBERS = 1e-3


@dataclass(frozen=True)
class Session:
    """What one process measures; `tiny` takes tiny networks and a tenth of the time, for trials."""

    network: str
    runtime: str
    dtype: str = "float32"
    threads: int = 1
    device: str = "cpu"
    batches: tuple[int, ...] = BATCHES
    tiny: bool = False

    @property
    def key(self) -> str:
        """A name for what this session cannot do."""
        return f"{self.network}.{self.runtime}.{self.dtype}.threads{self.threads}"

    def row(self, call: str, batch: int) -> str:
        """The registry's name of a row."""
        return f"hardware.{call}.{self.runtime}.{self.dtype}.threads{self.threads}.batch{batch}_ms"

    def rows(self) -> list[tuple[str, int]]:
        """Every (call, batch) that it measures."""
        return [(call, batch) for batch in self.batches for call in CALLS[self.network]]


def measure_session(
    session: Session, network: Network | None = None, slow_s: float = SLOW_S
) -> Iterator[dict[str, Any]]:
    """Measure every row of a session: dictionaries with `call`, `batch` and figures or a `reason`.

    The figures: `median_ms`, `p90_ms`, `low_ms`, `repeats`, `prepare_ms` (compiling, exporting and
    the first call, apart from all others), `difference` from eager float32 on the CPU at batch
    `checked`, and `weights`.
    """
    make = tiny_network if session.tiny else shipped_network
    network = network or make(session.network)
    runtime = Runtime(session.runtime, session.dtype, session.device, session.threads)
    torch.set_num_threads(session.threads)
    last: dict[str, tuple[int, float]] = {}
    checks: dict[str, tuple[int, float]] = {}
    with torch.no_grad(), runtime.ready() as ready:
        for batch in session.batches:
            names = []
            for name in network.calls:
                expected = last[name][1] * batch / last[name][0] / 1000 if name in last else 0.0
                if expected > slow_s:
                    yield {
                        "call": name,
                        "batch": batch,
                        "reason": f"One call would take about {expected:.0f} s, and over "
                        f"{slow_s:g} s are left out.",
                    }
                else:
                    names.append(name)
            if not names:
                continue
            try:
                prepare_ms, ours = measure_once(
                    lambda batch=batch: _first_calls(ready, network, batch), device=session.device
                )
            except Exception as error:
                reason = _sentence(session, error)
                yield from ({"call": name, "batch": batch, "reason": reason} for name in names)
                continue
            for name in names:
                call, result = ours[name]
                if batch <= CHECKED or name not in checks:
                    reference = calls(network, batch)[name]()
                    checks[name] = batch, difference(name, result.float(), reference.float())
                checked, gap = checks[name]
                if session.dtype == "float32" and not gap <= SAME.get(name, SAME_NUMBERS):
                    words = RUNTIMES[session.runtime]
                    reason = f"{words} gives another result than PyTorch (by {gap:.2g})."
                    yield {"call": name, "batch": batch, "reason": reason}
                    continue
                scale = 0.02 if session.tiny else 1.0
                timing = measure(
                    call,
                    batch=batch,
                    device=session.device,
                    dtype=session.dtype,
                    threads=session.threads,
                    min_seconds=scale,
                    max_seconds=3 * scale,
                )
                last[name] = batch, timing.median_ms
                yield {
                    "call": name,
                    "batch": batch,
                    "median_ms": timing.median_ms,
                    "p90_ms": timing.p90_ms,
                    "low_ms": min(timing.times_ms),
                    "repeats": timing.repeats,
                    "prepare_ms": prepare_ms,
                    "difference": gap,
                    "checked": checked,
                    "weights": network.weights,
                }


def _first_calls(ready: Callable[..., Any], network: Network, batch: int) -> dict[str, Any]:
    """Every call of a network with its first result, copied: a runtime may use its memory again."""
    return {name: (call, call().clone()) for name, call in ready(network, batch).items()}


def _sentence(session: Session, error: Exception) -> str:
    if out_of_memory(error):
        return "The memory is not enough for this batch."
    if isinstance(error, RuntimeRefusal):
        return str(error)
    return f"{RUNTIMES[session.runtime]} cannot run {session.network} ({reason_of(error)})."


def parse_session(text: str) -> Session:
    """A session from JSON. Raises ValueError for a field that nobody knows."""
    given = json.loads(text)
    known = {field.name for field in fields(Session)}
    if unknown := set(given) - known:
        raise ValueError(f"a session has no {unknown.pop()}; it has {', '.join(sorted(known))}.")
    return Session(**{**given, "batches": tuple(given.get("batches", BATCHES))})


def session_text(session: Session) -> str:
    """The JSON that `parse_session` reads."""
    return json.dumps(asdict(session))


if __name__ == "__main__":
    for line in measure_session(parse_session(sys.argv[1])):
        print(json.dumps(line), flush=True)
