"""Record how drawing across workers scales: predicted from its serial part, then measured.

    python -m fastgen_course.runtimes.scale_records [rates|shards|memory|kill]

All four take about ten minutes on a machine with two idle cores. `rates` takes turns, round by
round: a plain one-thread loop, two such loops side by side (what the machine itself can give), the
driver's own work with nothing drawn (the serial part), one worker, two workers. `shards` varies the
pictures a file. `memory` draws 1,000 and then 100,000 pictures and watches driver and workers.
`kill` ends a worker half way and compares every picture with a plain loop's. Without a name, parts
that this machine has recorded for these weights are left as they are: a run that was interrupted
goes on with the next part.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastgen_course.runtimes.samplers import weights_hash
from fastgen_course.runtimes.scale_bench import (
    Sizes,
    measure_kill,
    measure_memory,
    measure_rates,
    measure_shards,
)
from fastgen_course.timing import all_results, describe_machine, record
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.timing.threads import core_count

COMMAND = "python -m fastgen_course.runtimes.scale_records"


def amdahl(serial_share: float, workers: int) -> float:
    """How many times faster `workers` are than one: 1 / (s + (1 - s) / p) (Amdahl 1967).

    serial_share: s, the share of one worker's time that only one process at a time can work on.
    """
    return 1.0 / (serial_share + (1.0 - serial_share) / workers)


def effective_serial_share(speedup: float, workers: int) -> float:
    """The s that a measured speed-up amounts to: (1/S - 1/p) / (1 - 1/p) (Karp and Flatt 1990).

    Above the serial part measured by itself, it holds what Amdahl leaves out: shared caches and
    memory, idle workers at the end, Ray's own processes on the same cores. Negative above p.
    """
    return (1.0 / speedup - 1.0 / workers) / (1.0 - 1.0 / workers)


# --- records ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A figure before it is recorded: one value a round, of which the median counts."""

    name: str
    values: Sequence[float]
    unit: str
    part: str
    extra: dict[str, object]

    def record(self) -> None:
        """Write it into the registry, with the lowest and highest round as its spread."""
        record(
            "distributed",
            self.name,
            statistics.median(self.values),
            self.unit,
            spread=(min(self.values), max(self.values)),
            command=f"{COMMAND} {self.part}",
            rounds=len(self.values),
            **self.extra,
        )

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        middle = statistics.median(self.values)
        return f"{self.name:45} {middle:10.4g} {self.unit}  [{low:.4g}, {high:.4g}]"


def _row(name: str, values: Sequence[float], unit: str, part: str, **extra: object) -> Row:
    known = {"threads": 1, "dtype": "float32", "runtime": "eager on Ray", **extra}
    return Row(f"distributed.{name}", values, unit, part, known)


def rates_rows(model: str, sizes: Sizes) -> list[Row]:
    """Rates, the serial share measured by itself, and the speed-up that it predicts beside ours."""
    ms, start_ms = measure_rates(model, sizes)
    extra = {"base": model, "batch": sizes.batch, "images": sizes.images, "shard": sizes.shard}
    drawn = {way: sizes.images * (2 if way == "two_loops" else 1) for way in ms if way != "serial"}
    rates = {way: [1000 * n / t for t in ms[way]] for way, n in drawn.items()}

    def paired(over: Sequence[float], under: Sequence[float]) -> list[float]:
        return [a / b for a, b in zip(over, under, strict=True)]

    # A share is at most 1 by its name; noise can put a worker's round above the loop's.
    shares = [min(1.0, x) for x in paired(rates["one_worker"], rates["loop"])]
    serial = [min(1.0, x) for x in paired(ms["serial"], ms["one_worker"])]
    speedups = paired(rates["two_workers"], rates["one_worker"])
    entries = [
        _row(f"{way}_images_per_s", values, "images/s", "rates", **extra)
        for way, values in rates.items()
    ]
    loops = paired(rates["two_loops"], rates["loop"])
    effective = [effective_serial_share(x, 2) for x in speedups]
    return [
        *entries,
        _row("start_seconds", [start_ms / 1000], "s", "rates", **extra),
        _row("one_worker_share", shares, "share", "rates", **extra),
        _row("serial_share", serial, "share", "rates", **extra),
        _row("two_worker_predicted_speedup", [amdahl(s, 2) for s in serial], "x", "rates", **extra),
        _row("two_worker_speedup", speedups, "x", "rates", **extra),
        _row("two_loops_speedup", loops, "x", "rates", **{**extra, "runtime": "eager"}),
        _row("effective_serial", effective, "of one worker's time", "rates", **extra),
    ]


def shards_rows(model: str, sizes: Sizes) -> list[Row]:
    """Pictures a second of two workers for each shard size."""
    extra = {"base": model, "batch": sizes.batch, "images": sizes.images}
    return [
        _row(
            f"shard_{size}_images_per_s",
            [1000 * sizes.images / t for t in times],
            "images/s",
            "shards",
            shard=int(size),
            **extra,
        )
        for size, times in measure_shards(model, sizes).items()
    ]


def memory_rows(model: str, sizes: Sizes) -> list[Row]:
    """Memory of driver and worker with few and with many pictures, and how far the median grew."""
    held = measure_memory(model, sizes)
    extra = {"base": model, "batch": sizes.batch, "shard": sizes.memory_shard}
    images = {"few": sizes.few, "many": sizes.many}
    entries = [
        _row(f"{name}_mb", mbs, "MB", "memory", images=images[name.split("_")[1]], **extra)
        for name, mbs in held.items()
    ]
    for who in ("driver", "worker"):
        few, many = (statistics.median(held[f"{who}_{name}"]) for name in ("few", "many"))
        growth = max(0.0, many - few)
        entries.append(
            _row(f"{who}_growth_mb", [growth], "MB", "memory", images=sizes.many, **extra)
        )
    return entries


def kill_rows(model: str, sizes: Sizes) -> list[Row]:
    """Pictures lost, doubled and changed by a worker that was killed; its shards as a timeline.

    `timeline` holds [shard, worker (from 0, as they appear), images, began, ended], in seconds
    since the first shard began; `killed_at_seconds` is on the same clock.
    """
    killed = measure_kill(model, sizes)
    start = min(drawn.began for drawn in killed.shards)
    pids = list(dict.fromkeys(drawn.pid for drawn in killed.shards))
    timeline = [
        [d.index, pids.index(d.pid), d.images, round(d.began - start, 4), round(d.ended - start, 4)]
        for d in killed.shards
    ]
    extra = {"base": model, "batch": sizes.batch, "shard": sizes.kill_shard}
    extra |= {"images": sizes.images, "workers_lost": killed.report.workers_lost}
    shown = {"timeline": timeline, "killed_at_seconds": round(killed.killed_at - start, 4)}
    return [
        _row("killed_images_lost", [killed.lost], "images", "kill", **extra, **shown),
        _row("killed_images_doubled", [killed.doubled], "images", "kill", **extra),
        _row("killed_images_changed", [killed.changed], "images", "kill", **extra),
    ]


PARTS: dict[str, Callable[[str, Sizes], list[Row]]] = {
    "rates": rates_rows,
    "shards": shards_rows,
    "memory": memory_rows,
    "kill": kill_rows,
}


def is_recorded(part: str, model: str) -> bool:
    """Whether this machine has recorded the part for the weights that are shipped now."""
    rows = [row for row in all_results("distributed") if row.command == f"{COMMAND} {part}"]
    here = {"weights": weights_hash(model)[:12], "machine": describe_machine()}
    return bool(rows) and all(
        {"weights": row.extra.get("weights"), "machine": row.machine} == here for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; refuses a machine that is not idle or has one core, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; without one, those missing")
    parser.add_argument("--model", default="generator_base", help="shipped weights that draw")
    parser.add_argument("--tiny", action="store_true", help="a trial in small sizes, not recorded")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    taken = cores_taken()
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}."
    elif core_count() < 2 and not options.tiny:
        problem = "two workers need two cores, and this process may use one."
    elif taken > 0.3 and not options.tiny:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    sizes = Sizes(32, 2, 4, 8, (4, 16), 16, 64, 4) if options.tiny else Sizes()
    missing = [p for p in PARTS if options.tiny or not is_recorded(p, options.model)]
    for part in options.parts or missing:
        for row in PARTS[part](options.model, sizes):
            print(row, flush=True)
            if not options.tiny:
                weights = weights_hash(options.model)[:12]
                replace(row, extra={**row.extra, "weights": weights}).record()
    if len(missing) < len(PARTS) and not options.parts:
        kept = ", ".join(part for part in PARTS if part not in missing)
        print(f"recorded before and left as it is: {kept}; name a part to measure it again")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
