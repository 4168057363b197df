"""The results registry: every figure the course quotes, with how, where and when it was made.

`data/results/AREA.json` holds the entries of one area, keyed by (name, device). AREA is the part
of a name before its first dot: `vae.elbo_gap_error` lives in `vae.json`.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastgen_course.files import data_path, read_json, write_json
from fastgen_course.timing.machine import describe_machine, versions
from fastgen_course.timing.rows import Timing

_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_PATH = re.compile(r"(^|[\s='\"])(~?/[\w.-]+/|[A-Za-z]:\\)")
_EXTRAS = ("base", "batch", "runtime", "threads", "dtype")
_TIMED_EXTRAS = ("batch", "runtime", "threads", "dtype")


class ResultError(ValueError):
    """An entry that the registry refuses, or one that it does not hold."""


@dataclass(frozen=True)
class Result:
    """One measured figure. `float(r)` and `f"{r:.3f}"` give its value.

    `spread` is a standard deviation or half-width (one number), an interval (low, high), or None
    for an exact count. `base` names the model; the five extras are None where they say nothing.
    """

    name: str
    value: float
    unit: str
    spread: float | tuple[float, float] | None
    command: str
    machine: str
    versions: dict[str, str]
    date: str
    device: str = "cpu"
    base: str | None = None
    batch: int | None = None
    runtime: str | None = None
    threads: int | str | None = None
    dtype: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit}"


def record(
    area: str,
    name: str,
    value: float,
    unit: str,
    *,
    spread: float | tuple[float, float] | None,
    command: str,
    machine: str | None = None,
    device: str = "cpu",
    **extra: Any,
) -> Result:
    """Write one measured figure into `data/results/AREA.json`, in place of an older one.

    Args:
        area: the file, and the part of `name` before its first dot.
        name: `area.words_with_underscores`; its suffix fixes unit and range (see `check_value`).
        value: a finite number.
        unit: "share", "ms", "bytes", "MB", "minutes", "x", "nats", "FID", ...
        spread: standard deviation or half-width, or (low, high), or None for an exact count.
        command: what to type to measure it again; no machine's path.
        machine: where it was measured; None describes this machine.
        device: "cpu", "cuda", "mps", or a GPU's name.
        extra: `base`, `batch`, `runtime`, `threads`, `dtype`, and anything else JSON can hold.

    Raises `ResultError`, and writes nothing, for an entry without unit, command or machine, for a
    value that is not finite or outside its range, and for a `*_ms` without batch, runtime, threads
    and dtype. Two processes may record at once.
    """
    result = _checked(area, name, value, unit, spread, command, machine, device, extra)
    path = data_path("results", f"{area}.json")
    with _locked(path):
        rows = {(r.name, r.device): r for r in _read_area(path)}
        rows[result.name, result.device] = result
        write_json(path, {"area": area, "entries": [_row(rows[key]) for key in sorted(rows)]})
    return result


def record_timing(
    area: str, name: str, timing: Timing, *, command: str, runtime: str, **extra: Any
) -> Result:
    """Record a `Timing` as `name` (ending in `_ms`): its median, spread up to its p90."""
    low = min(timing.times_ms, default=timing.median_ms)
    return record(
        area,
        name,
        timing.median_ms,
        "ms",
        spread=(low, max(timing.p90_ms, timing.median_ms)),
        command=command,
        device=timing.device,
        batch=timing.batch,
        threads=timing.threads,
        dtype=timing.dtype,
        runtime=runtime,
        **extra,
    )


def result(name: str, device: str = "cpu") -> Result:
    """The recorded figure `name` on `device`.

    Raises `ResultError` in one sentence when it was never recorded, naming the nearest ones.
    """
    if not _NAME.fullmatch(name):
        raise ResultError(f"{name!r} is not a result's name; names look like vae.elbo_gap_error.")
    rows = _read_area(data_path("results", f"{name.split('.')[0]}.json"))
    for row in rows:
        if (row.name, row.device) == (name, device):
            return row
    devices = [row.device for row in rows if row.name == name]
    if devices:
        hint = f"it is recorded for {', '.join(devices)}"
    else:
        near = difflib.get_close_matches(name, [row.name for row in all_results()], n=3)
        hint = (
            f"the nearest recorded names are {', '.join(near)}"
            if near
            else ("`python -m fastgen_course results` lists what is recorded")
        )
    raise ResultError(f"No result {name!r} is recorded for device {device!r}; {hint}.")


def all_results(area: str | None = None) -> list[Result]:
    """Every recorded figure (or one area's), sorted by name and device."""
    folder = data_path("results")
    paths = sorted(folder.glob("*.json")) if area is None else [folder / f"{area}.json"]
    return [row for path in paths for row in _read_area(path)]


def format_results(rows: Iterable[Result]) -> str:
    """The figures as a text table, each followed by the command that makes it again."""
    rows = list(rows)
    if not rows:
        return "Nothing is recorded yet."
    cells = [
        (row.name, row.device, f"{row.value:.4g}", row.unit, _spread_text(row.spread), row.command)
        for row in rows
    ]
    head = ("name", "device", "value", "unit", "spread", "command")
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(5)]
    lines = []
    for line in [head, *cells]:
        left = [text.ljust(width) for text, width in zip(line[:5], widths, strict=True)]
        left[2] = line[2].rjust(widths[2])
        lines.append("  ".join([*left, line[5]]).rstrip())
    return "\n".join(lines)


def results_json(rows: Iterable[Result]) -> str:
    """The figures as JSON text, a list of flat objects."""
    return json.dumps([_row(row) for row in rows], indent=1, sort_keys=True, ensure_ascii=False)


def markdown_table(
    names: Iterable[str], device: str = "cpu", labels: dict[str, str] | None = None
) -> str:
    """A Markdown table (figure, value, spread) of recorded results, for README and notebooks."""
    lines = ["| figure | value | spread |", "|---|---|---|"]
    for name in names:
        row = result(name, device)
        label = (labels or {}).get(name, f"`{name}`")
        lines.append(f"| {label} | {row} | {_spread_text(row.spread)} |")
    return "\n".join(lines)


def check_value(name: str, value: float, unit: str) -> None:
    """Raise `ResultError` unless `value` and `unit` fit what the name promises.

    accuracy, share, recall, precision: "share" in [0, 1]. `*_drop`: "share" in [-1, 1].
    `*_speedup`, `*_reduction`, `*_ratio`: "x", above 0. `*_ms`: "ms", `*_bytes`: "bytes",
    `*_mb` and `peak_mb.*`: "MB", `minutes.*`: "minutes", all from 0.
    """
    for part, wanted, low, high in _rules(name):
        if unit != wanted:
            raise ResultError(
                f'{name}: its unit must be "{wanted}" ({part} is in its name), got {unit!r}.'
            )
        if not low <= value <= high:
            limits = f"in [{low:g}, {high:g}]" if high < math.inf else f"at least {low:g}"
            raise ResultError(f"{name} must be {limits} ({part} is in its name), got {value:g}.")
        if wanted == "x" and value == 0:
            raise ResultError(f"{name} must be above 0 ({part} is in its name), got 0.")


_SUFFIXES = {
    "ms": ("ms", 0, math.inf),
    "bytes": ("bytes", 0, math.inf),
    "mb": ("MB", 0, math.inf),
    "minutes": ("minutes", 0, math.inf),
    "speedup": ("x", 0, math.inf),
    "reduction": ("x", 0, math.inf),
    "ratio": ("x", 0, math.inf),
    "drop": ("share", -1, 1),
}
_SHARES = {"accuracy", "share", "recall", "precision"}


def _rules(name: str) -> list[tuple[str, str, float, float]]:
    """The rule a name is under, if any: the last dotted part that has one decides."""
    for part in reversed(name.split(".")[1:]):
        words = part.split("_")
        if words[-1] in _SUFFIXES:
            return [(words[-1], *_SUFFIXES[words[-1]])]
        if shares := _SHARES.intersection(words):
            # `accuracy_real` is an accuracy too; `accuracy_seeds` would be a count: name it so.
            return [(sorted(shares)[0], "share", 0.0, 1.0)]
    return []


def _checked(
    area: str,
    name: str,
    value: float,
    unit: str,
    spread: float | tuple[float, float] | None,
    command: str,
    machine: str | None,
    device: str,
    extra: dict[str, Any],
) -> Result:
    if not _NAME.fullmatch(name) or name.split(".")[0] != area:
        raise ResultError(
            f"{name!r} cannot be recorded in area {area!r}: a name is AREA.words, in lower case, "
            "with the area first."
        )
    machine = describe_machine() if machine is None else machine
    for what, text in {
        "unit": unit,
        "command": command,
        "machine": machine,
        "device": device,
    }.items():
        if not isinstance(text, str) or not text.strip():
            raise ResultError(f"{name} was not recorded: it has no {what}.")
    if _PATH.search(command):
        raise ResultError(
            f"{name} was not recorded: its command names a path of this machine ({command}); "
            "give it relative to the checkout."
        )
    number = _finite(name, "value", value)
    check_value(name, number, unit)
    clean_spread = _clean_spread(name, number, spread)
    missing = [k for k in _TIMED_EXTRAS if extra.get(k) is None]
    if name.endswith("_ms") and missing:
        raise ResultError(
            f"{name} was not recorded: a time needs {', '.join(missing)} (record_timing fills in "
            "all but runtime)."
        )
    known = {key: extra.pop(key, None) for key in _EXTRAS}
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultError(f"{name} was not recorded: its extras are not plain JSON.") from error
    return Result(
        name=name,
        value=number,
        unit=unit,
        spread=clean_spread,
        command=command.strip(),
        machine=machine,
        versions=versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        device=device,
        extra=extra,
        **known,
    )


def _finite(name: str, what: str, value: Any) -> float:
    if isinstance(value, bool | str):
        raise ResultError(f"{name} was not recorded: its {what} {value!r} is not a number.")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ResultError(
            f"{name} was not recorded: its {what} is a {type(value).__name__}, not a number."
        ) from error
    if not math.isfinite(number):
        raise ResultError(f"{name} was not recorded: its {what} is {number}.")
    return int(value) if isinstance(value, int) else number


def _clean_spread(name: str, value: float, spread: Any) -> float | tuple[float, float] | None:
    if spread is None:
        return None
    if isinstance(spread, tuple | list):
        if len(spread) != 2:
            raise ResultError(f"{name} was not recorded: a spread interval is (low, high).")
        low, high = (_finite(name, "spread", end) for end in spread)
        if not low <= value <= high:
            raise ResultError(
                f"{name} was not recorded: its value {value:g} lies outside its spread "
                f"({low:g}, {high:g})."
            )
        return (low, high)
    half = _finite(name, "spread", spread)
    if half < 0:
        raise ResultError(f"{name} was not recorded: its spread {half:g} is negative.")
    return half


def _row(row: Result) -> dict[str, Any]:
    flat = asdict(row)
    flat.update(flat.pop("extra"))
    return flat


def _read_area(path: Path) -> list[Result]:
    if not path.is_file():
        return []
    fields = set(Result.__dataclass_fields__) - {"extra"}
    try:
        rows = []
        for entry in read_json(path)["entries"]:
            spread = entry["spread"]
            known = {key: value for key, value in entry.items() if key in fields}
            known["spread"] = tuple(spread) if isinstance(spread, list) else spread
            rows.append(Result(**known, extra={k: v for k, v in entry.items() if k not in fields}))
        return rows
    except (KeyError, TypeError) as error:
        raise ResultError(
            f"data/results/{path.name} is not a results file (a field is missing or misplaced); "
            "restore it with `git checkout -- data/results`."
        ) from error


def _spread_text(spread: float | tuple[float, float] | None) -> str:
    if spread is None:
        return "exact"
    if isinstance(spread, tuple):
        return f"[{spread[0]:.4g}, {spread[1]:.4g}]"
    return f"± {spread:.2g}"


def _locked(path: Path) -> Any:
    """A lock between processes; it lives in the temporary folder, so data/ stays clean."""
    from filelock import FileLock

    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"fastgen-results-{digest}.lock", timeout=60)
