"""Record what notebook 09 shows: the machine's roofs, shares of its peak, and the sweep.

    python -m fastgen_course.runtimes.hardware_records [roofline|peak|breakdown|sweep]

On an idle machine with two cores `roofline` takes about 3 minutes, `peak` 12, `breakdown` 6 and
`sweep` up to 90; `--minutes` ends a sweep sooner, and the same command goes on where it was, row by
row (`--again` measures everything anew). Each combination of network, runtime, precision and thread
count is a process of its own; a call that would take over 15 s is left out. What a runtime cannot
do is kept as `hardware.refused.*` with one sentence. `--tiny` tries it all on tiny networks and
records nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from fastgen_course.runtimes.hardware_networks import (
    CALLS,
    Call,
    calls,
    convert,
    shipped_network,
    tiny_network,
    twin,
)
from fastgen_course.runtimes.hardware_peak import (
    BATCH,
    copy_rates,
    exported_macs,
    peak_rates,
)
from fastgen_course.runtimes.hardware_points import COMMAND
from fastgen_course.runtimes.hardware_process import run_process
from fastgen_course.runtimes.hardware_runtimes import DTYPES, RUNTIMES, devices, refusal
from fastgen_course.runtimes.hardware_session import BATCHES, Session, session_text
from fastgen_course.runtimes.hardware_split import PARTS, split_call
from fastgen_course.timing import MeasurementError, all_results, describe_machine, record
from fastgen_course.timing.cost import model_cost
from fastgen_course.timing.roofline import Roofline
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.timing.threads import core_count

ROUNDS = 3
SPLIT_BATCHES = (1, 64)


@dataclass(frozen=True)
class Options:
    """What the command line asked for; `keep` is False for a trial, which records nothing."""

    minutes: float = 90.0
    again: bool = False
    tiny: bool = False
    batches: tuple[int, ...] = BATCHES

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny


def thread_counts(device: str = "cpu") -> tuple[int, ...]:
    """1, 2, 4, ... and the number of cores; the CPU's threads do not matter to another device."""
    if device != "cpu":
        return (1,)
    cores = core_count()
    return tuple(sorted({2**n for n in range(cores.bit_length()) if 2**n <= cores} | {cores}))


def _keep(options: Options, name: str, value: float, unit: str, part: str, **extra: Any) -> None:
    print(f"{name:68} {value:12.4g} {unit}", flush=True)
    if options.keep:
        spread = extra.pop("spread", None)
        record("hardware", name, value, unit, spread=spread, command=f"{COMMAND} {part}", **extra)


# --- roofline -----------------------------------------------------------------------------------


def record_roofline(options: Options) -> None:
    """Peak in each precision and bandwidth by device and threads; then each call's work."""
    tiny, megabytes = _tiny_roof(options)
    for device in devices():
        for threads in thread_counts(device):
            same = {"device": device, "threads": threads, "part": "roofline"}
            for dtype in DTYPES:
                middle, top = peak_rates(device, dtype, threads, **tiny)
                name = f"hardware.peak.{dtype}.threads{threads}"
                spread = (middle / 1e9, top / 1e9)
                _keep(options, name, top / 1e9, "GFLOP/s", spread=spread, dtype=dtype, **same)
            middle, top = copy_rates(device, threads, megabytes)
            name = f"hardware.bandwidth.threads{threads}"
            _keep(options, name, top / 1e9, "GB/s", spread=(middle / 1e9, top / 1e9), **same)
    for network_name in CALLS:
        network = (tiny_network if options.tiny else shipped_network)(network_name)
        for batch in options.batches:
            for name, call in calls(network, batch).items():
                work = asdict(model_cost(_Calling(network.model, call), ()))
                macs = work.pop("macs")
                entry = f"hardware.cost.{name}.batch{batch}"
                extra = {**work, "base": network_name, "batch": batch, "part": "roofline"}
                _keep(options, entry, macs, "MACs", **extra)


def _tiny_roof(options: Options) -> tuple[dict[str, Any], int]:
    """What a trial passes to `peak_rates`, and the megabytes that it copies."""
    return ({"sizes": (32,), "seconds": 0.02}, 4) if options.tiny else ({}, 128)


class _Calling(torch.nn.Module):
    """A call in a module's place, so that its whole work is counted."""

    def __init__(self, model: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self) -> torch.Tensor:
        return self.call()


# --- the share of the peak ----------------------------------------------------------------------


def record_peak(options: Options) -> None:
    """GENERATOR_BASE in float32 at batch 64 as a share of the GEMM peak on the same threads.

    Every runtime, each in a process of its own, in turn, three rounds. The peak is the best reading
    of all rounds and sizes, so that a share is rather too low; a share is the median round's. The
    headline `hardware.fp32_peak_share` is the best runtime on one thread.
    """
    network = (tiny_network if options.tiny else shipped_network)("generator_base")
    macs = exported_macs(network, BATCH)
    flops = 2 * sum(macs.values())
    _keep(
        options, "hardware.exported.generator_base", sum(macs.values()), "MACs", "peak",
        base="generator_base", batch=BATCH, kinds=macs,
    )  # fmt: skip
    runtimes = [name for name in RUNTIMES if refusal(name, "float32", "cpu") is None]
    headline: tuple[float, tuple[float, float], str] | None = None
    for threads in thread_counts():
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in runtimes}
        for turn in range(1 if options.tiny else ROUNDS):
            shift = turn % len(runtimes)
            for name in runtimes[shift:] + runtimes[:shift]:
                request = {"runtime": name, "threads": threads, "tiny": options.tiny}
                rows[name] += run_process("hardware_peak", json.dumps(request), threads)
        peak = max(row["peak_flops"] for found in rows.values() for row in found)
        for name, found in rows.items():
            shares = [min(1.0, 1000 * flops / row["median_ms"] / peak) for row in found]
            same = {
                "base": "generator_base", "batch": BATCH, "runtime": name, "threads": threads,
                "dtype": "float32", "part": "peak",
            }  # fmt: skip
            value, spread = statistics.median(shares), (min(shares), max(shares))
            entry = f"hardware.peak_share.{name}.threads{threads}"
            _keep(options, entry, value, "share", spread=spread, gflops=peak / 1e9, **same)
            if threads == 1 and (headline is None or value > headline[0]):
                headline = value, spread, name
            for kind in found[0].get("kinds_ms", {}):
                ms = [row["kinds_ms"].get(kind, 0.0) for row in found]
                entry = f"hardware.kind.{name}.threads{threads}.{kind}_ms"
                extra = {"macs": macs.get(kind, 0), "gflops": peak / 1e9}
                middle, ends = statistics.median(ms), (min(ms), max(ms))
                _keep(options, entry, middle, "ms", spread=ends, **extra, **same)
    value, spread, name = headline
    _keep(
        options, "hardware.fp32_peak_share", value, "share", "peak", spread=spread,
        base="generator_base", batch=BATCH, runtime=name, threads=1, dtype="float32",
    )  # fmt: skip


# --- where the milliseconds go ------------------------------------------------------------------


def record_breakdown(options: Options) -> None:
    """Python, dispatch, memory and compute of every call in eager PyTorch, on one thread."""
    tiny, megabytes = _tiny_roof(options)
    for device in devices():
        peak, bandwidth = peak_rates(device, threads=1, **tiny), copy_rates(device, 1, megabytes)
        roofline = Roofline(peak[1], bandwidth[1], 1, "float32")
        for network_name in CALLS:
            network = (tiny_network if options.tiny else shipped_network)(network_name)
            there, small = convert(network, device), convert(twin(network), device)
            for batch in SPLIT_BATCHES:
                alike = calls(small, 1)
                for name, call in calls(there, batch).items():
                    seconds = 0.5 if options.tiny else 20.0
                    try:
                        parts = split_call(
                            call, alike[name], roofline, threads=1, device=device, seconds=seconds
                        )
                    except MeasurementError as error:
                        _refuse(options, f"split.{name}.batch{batch}", str(error), device)
                        continue
                    for part in PARTS:
                        _keep(
                            options, f"hardware.split.{name}.batch{batch}.{part}_ms",
                            getattr(parts, part), "ms", split=name, part_of=parts.total_ms,
                            launches=parts.launches, agreement=parts.agreement, batch=batch,
                            base=network_name, runtime="eager", threads=1, dtype="float32",
                            device=device, part="breakdown", which=part,
                        )  # fmt: skip


# --- the sweep ----------------------------------------------------------------------------------


def sessions(options: Options, found: Sequence[str] | None = None) -> Iterator[Session]:
    """Every session of the sweep, the quick and telling ones first."""
    for device in found or devices():
        for dtype in DTYPES:
            for threads in thread_counts(device):
                for network in CALLS:
                    for runtime in RUNTIMES:
                        yield Session(
                            network, runtime, dtype, threads, device, options.batches, options.tiny
                        )


def record_sweep(options: Options) -> None:
    """Every row that is not recorded on this machine yet; refusals are kept with their reasons."""
    start = time.monotonic()
    known = set() if options.again or options.tiny else known_names()
    for session in sessions(options):
        if reason := refusal(session.runtime, session.dtype, session.device):
            if (f"hardware.refused.{session.key}", session.device) not in known:
                _refuse(options, session.key, reason, session.device)
            continue
        missing = unmeasured(session, known)
        if not missing:
            continue
        if time.monotonic() - start > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over; run the command again to go on.")
            return
        todo = replace(session, batches=tuple(sorted({batch for _, batch in missing})))
        done: set[tuple[str, int]] = set()
        problem = "The process ended before it came to this row."
        try:
            for row in run_process("hardware_session", session_text(todo), session.threads):
                done.add((row["call"], row["batch"]))
                keep_row(options, session, row)
        except MeasurementError as error:
            problem = str(error)
        for call, batch in todo.rows():
            if (call, batch) not in done:
                _refuse(options, f"{_place(session, call, batch)}", problem, session.device)


def keep_row(options: Options, session: Session, row: dict[str, Any]) -> None:
    """Record what a session's process said about one row."""
    call, batch = row["call"], row["batch"]
    if "reason" in row:
        _refuse(options, _place(session, call, batch), row["reason"], session.device)
        return
    keys = ("repeats", "prepare_ms", "difference", "checked", "weights")
    _keep(
        options, session.row(call, batch), row["median_ms"], "ms", "sweep",
        spread=(row["low_ms"], max(row["p90_ms"], row["median_ms"])), device=session.device,
        base=session.network, batch=batch, runtime=session.runtime, threads=session.threads,
        dtype=session.dtype, call=call, **{key: row[key] for key in keys},
    )  # fmt: skip


def known_names() -> set[tuple[str, str]]:
    """(name, device) of what is recorded on this machine."""
    machine = describe_machine()
    return {(row.name, row.device) for row in all_results("hardware") if row.machine == machine}


def unmeasured(session: Session, known: set[tuple[str, str]]) -> list[tuple[str, int]]:
    """The (call, batch) of a session that are neither recorded nor refused yet."""
    return [
        (call, batch)
        for call, batch in session.rows()
        if (session.row(call, batch), session.device) not in known
        and (f"hardware.refused.{_place(session, call, batch)}", session.device) not in known
    ]


def _place(session: Session, call: str, batch: int) -> str:
    return f"{call}.{session.runtime}.{session.dtype}.threads{session.threads}.batch{batch}"


def _refuse(options: Options, key: str, reason: str, device: str) -> None:
    _keep(options, f"hardware.refused.{key}", 0, "rows", "sweep", reason=reason, device=device)
    print(f"    {reason}", flush=True)


RECORDERS: dict[str, Callable[[Options], None]] = {
    "roofline": record_roofline,
    "peak": record_peak,
    "breakdown": record_breakdown,
    "sweep": record_sweep,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; refuses a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin no session after these")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on tiny networks")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in RECORDERS]
    taken = 0.0 if given.tiny or unknown else cores_taken()
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(RECORDERS)}."
    elif taken > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    batches = (1, 3) if given.tiny else BATCHES
    options = Options(given.minutes, given.again, given.tiny, batches)
    try:
        for part in given.parts or RECORDERS:
            RECORDERS[part](options)
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
