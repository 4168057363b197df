"""Honest measurement: the one timer, this machine, the roofline, and the registry of results."""

from fastgen_course.timing.machine import (
    adds_four_byte_products,
    describe_machine,
    machine,
)
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
from fastgen_course.timing.stopwatch import Percentile, Stopwatch, percentile

__all__ = [
    "Comparison",
    "MeasurementError",
    "Percentile",
    "Ratio",
    "Result",
    "ResultError",
    "Stopwatch",
    "Timing",
    "adds_four_byte_products",
    "all_results",
    "compare",
    "describe_machine",
    "format_results",
    "laps",
    "machine",
    "measure",
    "measure_once",
    "percentile",
    "record",
    "record_timing",
    "result",
    "synchronizer",
    "threads_set",
]
