"""What notebook 09's sweep has recorded, read back: points, refusals, costs, splits, roofs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastgen_course.runtimes.hardware_split import PARTS
from fastgen_course.timing import Result, ResultError, all_results, result
from fastgen_course.timing.cost import ModelCost
from fastgen_course.timing.roofline import Roofline

COMMAND = "python -m fastgen_course.runtimes.hardware_records"


@dataclass(frozen=True)
class Point:
    """One recorded row of the sweep."""

    call: str
    runtime: str
    dtype: str
    threads: int
    batch: int
    device: str
    ms: float
    spread: tuple[float, float]
    difference: float

    @property
    def images_per_s(self) -> float:
        """Pictures a second."""
        return 1000.0 * self.batch / self.ms

    @property
    def ms_per_image(self) -> float:
        """Milliseconds a picture."""
        return self.ms / self.batch


def points(**wanted: object) -> list[Point]:
    """The recorded rows, or those with these fields: points(call="gpt", threads=1)."""
    found = []
    for row in all_results("hardware"):
        if "call" not in row.extra or not row.name.endswith("_ms"):
            continue
        point = Point(
            row.extra["call"],
            row.runtime,
            row.dtype,
            row.threads,
            row.batch,
            row.device,
            row.value,
            row.spread,
            row.extra["difference"],
        )
        if all(getattr(point, key) == value for key, value in wanted.items()):
            found.append(point)
    return sorted(found, key=lambda p: (p.call, p.device, p.dtype, p.runtime, p.threads, p.batch))


def best(rows: Iterable[Point]) -> Point:
    """The fastest row. Raises `ResultError` where there is none."""
    rows = list(rows)
    if not rows:
        raise ResultError(f"No such row is recorded; run `{COMMAND} sweep` on an idle machine.")
    return min(rows, key=lambda p: p.ms_per_image)


def refusals() -> dict[str, str]:
    """What could not be measured, and why: {"flow.onnxruntime.bfloat16.threads1 cpu": sentence}."""
    prefix = "hardware.refused."
    rows = all_results("hardware")
    measured = {(row.name, row.device) for row in rows}
    return {
        f"{row.name.removeprefix(prefix)} {row.device}": row.extra["reason"]
        for row in rows
        if row.name.startswith(prefix)
        # What failed once and was measured later is no refusal any more.
        and (f"hardware.{row.name.removeprefix(prefix)}_ms", row.device) not in measured
    }


def cost(call: str, batch: int) -> ModelCost:
    """The recorded work of a call at a batch. Raises `ResultError` where it was not counted."""
    row = result(f"hardware.cost.{call}.batch{batch}")
    keys = ("launches", "bytes_moved", "parameters", "parameter_bytes")
    return ModelCost(int(row.value), *(row.extra[key] for key in keys))


def roof(threads: int = 1, dtype: str = "float32", device: str = "cpu") -> Roofline:
    """The recorded roofline. Raises `ResultError` where it was not measured."""
    try:
        peak = result(f"hardware.peak.{dtype}.threads{threads}", device)
        bandwidth = result(f"hardware.bandwidth.threads{threads}", device)
    except ResultError as error:
        raise ResultError(
            f"No roofline of {threads} threads in {dtype} is recorded for {device}; run "
            f"`{COMMAND} roofline` on an idle machine."
        ) from error
    return Roofline(1e9 * peak.value, 1e9 * bandwidth.value, threads, dtype)


def splits(device: str = "cpu") -> dict[tuple[str, int], dict[str, Result]]:
    """The recorded parts of every call's milliseconds: {(call, batch): {part: entry}}."""
    found: dict[tuple[str, int], dict[str, Result]] = {}
    for row in all_results("hardware"):
        if row.device == device and row.extra.get("which") in PARTS:
            found.setdefault((row.extra["split"], row.batch), {})[row.extra["which"]] = row
    return {key: parts for key, parts in sorted(found.items()) if len(parts) == len(PARTS)}
