"""Honest measurement: the one timer, this machine, the roofline, and the registry of results."""

from fastgen_course.timing.machine import describe_machine, machine
from fastgen_course.timing.measure import (
    compare,
    laps,
    measure,
    measure_once,
    synchronizer,
    threads_set,
)
from fastgen_course.timing.results import (
    Result,
    ResultError,
    all_results,
    format_results,
    record,
    record_timing,
    result,
)
from fastgen_course.timing.rows import Comparison, MeasurementError, Ratio, Timing

__all__ = [
    "Comparison",
    "MeasurementError",
    "Ratio",
    "Result",
    "ResultError",
    "Timing",
    "all_results",
    "compare",
    "describe_machine",
    "format_results",
    "laps",
    "machine",
    "measure",
    "measure_once",
    "record",
    "record_timing",
    "result",
    "synchronizer",
    "threads_set",
]
