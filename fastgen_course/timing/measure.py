"""The course's only timer: warm up until stable, synchronise, repeat, report median and p90."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fastgen_course.timing.rows import Comparison, MeasurementError, Timing

Clock = Callable[[], float]
Synchronize = Callable[[], None]

# Warm-up: two windows of calls whose medians agree within the tolerance count as stable.
_WINDOW = 3
_TOLERANCE = 0.1
_MAX_WARMUP_CALLS = 50
# Enough for any percentile, and an end for a clock that stands still.
_MAX_REPEATS = 10_000


def measure(
    fn: Callable[[], Any],
    *,
    warmup: str | int = "until stable",
    min_repeats: int = 20,
    min_seconds: float = 0.2,
    max_seconds: float = 5.0,
    batch: int = 1,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    threads: int | None = None,
    synchronize: Synchronize | None = None,
    clock: Clock = time.perf_counter,
    label: str = "",
) -> Timing:
    """Time `fn()`: warm up, then repeat with the device idle before each reading of the clock.

    Args:
        fn: a call without arguments; what it returns is thrown away.
        warmup: "until stable" (until the medians of two successive windows of three calls agree
            within 10 %, at most 50 calls or `max_seconds`), or a number of calls.
        min_repeats, min_seconds: repeat until both are reached.
        max_seconds: stop here even if they are not, but never before three repeats.
        batch: images (items) that one call makes.
        device: "cpu", "cuda", "mps"; None takes it from the tensor that `fn` returns.
        dtype: the precision to write down; it changes nothing.
        threads: PyTorch's CPU threads during the measurement; None leaves them as they are.
        synchronize: waits until the device is idle; None chooses it for `device`.
        clock: seconds, monotonic (tests pass a fake one).
        label: a name for the row.

    Returns a `Timing`. Raises `MeasurementError` for a batch, repeats or threads below 1.
    """
    _check(fn, min_repeats, batch, label)
    with threads_set(threads) as used, _quiet_collector():
        call = _TimedCall(fn, device, synchronize, clock)
        warmed = _warm_up([call], warmup, max_seconds, clock)
        start = clock()
        times: list[float] = []
        while _again(len(times), clock() - start, min_repeats, min_seconds, max_seconds):
            times.append(call())
    return _timing(times, batch, call.device, used, dtype, label, warmed)


def compare(
    variants: Mapping[str, Callable[[], Any]],
    *,
    warmup: str | int = "until stable",
    min_repeats: int = 20,
    min_seconds: float = 0.2,
    max_seconds: float = 10.0,
    batch: int | Mapping[str, int] = 1,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | Mapping[str, str] = "float32",
    threads: int | None = None,
    before_each: int = 0,
    synchronize: Synchronize | None = None,
    clock: Clock = time.perf_counter,
) -> Comparison:
    """Time several variants interleaved: every round calls each once, in a rotating order.

    A slow spell of the machine then falls on all of them alike, and the ratios stay right. Runtimes
    with their own thread pool must let it sleep between calls (ONNX Runtime:
    `session.intra_op.allow_spinning=0`, which `OnnxModel` sets).

    Args: as `measure`; `min_repeats` counts rounds, the seconds are for all variants together;
    `batch` and `dtype` may be dictionaries by label. `before_each`: untimed calls of a variant
    right before its timed one. A call of a millisecond that comes right after another variant's
    hundred finds the processor's caches full of that one's numbers; those who draw picture after
    picture do not.

    Returns a `Comparison`: a dictionary label -> `Timing`, the first being the baseline.
    """
    if not variants:
        raise MeasurementError("compare got no variants; pass {label: function, ...}.")
    batches = {k: batch[k] if isinstance(batch, Mapping) else batch for k in variants}
    dtypes = {k: dtype[k] if isinstance(dtype, Mapping) else dtype for k in variants}
    for label, fn in variants.items():
        _check(fn, min_repeats, batches[label], label)
    labels = list(variants)
    with threads_set(threads) as used, _quiet_collector():
        calls = {k: _TimedCall(variants[k], device, synchronize, clock) for k in labels}
        warmed = _warm_up(list(calls.values()), warmup, max_seconds, clock)
        start = clock()
        times: dict[str, list[float]] = {k: [] for k in labels}
        rounds = 0
        while _again(rounds, clock() - start, min_repeats, min_seconds, max_seconds):
            shift = rounds % len(labels)
            for label in labels[shift:] + labels[:shift]:
                for _ in range(before_each):
                    calls[label]()
                times[label].append(calls[label]())
            rounds += 1
    return Comparison(
        {
            k: _timing(times[k], batches[k], calls[k].device, used, dtypes[k], k, warmed)
            for k in labels
        }
    )


def measure_once(
    fn: Callable[[], Any],
    *,
    device: str | torch.device | None = None,
    synchronize: Synchronize | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[float, Any]:
    """Time one cold call, for what happens once (compiling, exporting, loading a model).

    Returns (milliseconds, what `fn` returned). This is never mixed into a `Timing`.
    """
    _check(fn, 1, 1, "")
    wait = synchronize or synchronizer(device)
    wait()
    start = clock()
    value = fn()
    wait()
    return 1000.0 * (clock() - start), value


def synchronizer(device: str | torch.device | None = None) -> Synchronize:
    """The function that waits until `device` is idle; None waits for every accelerator in use.

    CUDA and MPS calls return before their work is done, so a clock read without waiting measures
    the queueing. On the CPU there is nothing to wait for.
    """
    if device is None:
        return _wait_for_all
    kind = torch.device(device).type
    if kind == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if kind == "mps" else _nothing


def _wait_for_all() -> None:
    if torch.cuda.is_initialized():  # asked at each call: `fn` may be what initialises CUDA
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def _nothing() -> None:
    return None


@contextmanager
def threads_set(count: int | None) -> Iterator[int]:
    """Run PyTorch's CPU operators on `count` threads inside the block; yields the count in force.

    None changes nothing. Raises `MeasurementError` for a count below 1.
    """
    before = torch.get_num_threads()
    if count is None:
        yield before
        return
    if count < 1:
        raise MeasurementError(f"threads must be at least 1, got {count}.")
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


class _TimedCall:
    """`fn` as a call that returns its milliseconds, the device idle before and after."""

    def __init__(
        self,
        fn: Callable[[], Any],
        device: str | torch.device | None,
        synchronize: Synchronize | None,
        clock: Clock,
    ) -> None:
        self.fn, self.clock = fn, clock
        self.device = None if device is None else torch.device(device).type
        self.wait = synchronize or synchronizer(device)

    def __call__(self) -> float:
        self.wait()
        start = self.clock()
        value = self.fn()
        self.wait()
        elapsed = 1000.0 * (self.clock() - start)
        if self.device is None:
            self.device = _device_of(value)
        return elapsed


def _device_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return value.device.type
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list) and value:
        return _device_of(value[0])
    return "cpu"


def _warm_up(calls: list[_TimedCall], warmup: str | int, max_seconds: float, clock: Clock) -> int:
    """Warm all calls, a round at a time; returns how many rounds were thrown away."""
    if isinstance(warmup, int) and not isinstance(warmup, bool) and warmup >= 0:
        for _ in range(warmup):
            for call in calls:
                call()
        return warmup
    if warmup != "until stable":
        raise MeasurementError(
            f'warmup must be "until stable" or a number of calls from 0, got {warmup!r}.'
        )
    history: list[list[float]] = []
    start = clock()
    while len(history) < _MAX_WARMUP_CALLS:
        history.append([call() for call in calls])
        if len(history) >= 2 * _WINDOW and _stable(history):
            break
        if clock() - start > max_seconds and len(history) >= 2:
            break
    return len(history)


def _stable(history: list[list[float]]) -> bool:
    last = np.median(history[-_WINDOW:], axis=0)
    before = np.median(history[-2 * _WINDOW : -_WINDOW], axis=0)
    return bool((np.abs(last - before) <= _TOLERANCE * np.maximum(before, 1e-9)).all())


def _again(
    done: int, elapsed: float, min_repeats: int, min_seconds: float, max_seconds: float
) -> bool:
    if done < min(3, min_repeats):
        return True
    if elapsed >= max_seconds or done >= max(min_repeats, _MAX_REPEATS):
        return False
    return done < min_repeats or elapsed < min_seconds


def _timing(
    times: list[float],
    batch: int,
    device: str | None,
    threads: int,
    dtype: str | torch.dtype,
    label: str,
    warmup_calls: int,
) -> Timing:
    return Timing(
        median_ms=float(np.median(times)),
        p90_ms=float(np.percentile(times, 90)),
        repeats=len(times),
        batch=batch,
        device=device or "cpu",
        threads=threads,
        dtype=str(dtype).removeprefix("torch."),
        label=label,
        warmup_calls=warmup_calls,
        times_ms=tuple(times),
    )


def _check(fn: Callable[[], Any], min_repeats: int, batch: int, label: str) -> None:
    name = f" for {label!r}" if label else ""
    if not callable(fn):
        raise MeasurementError(
            f"measure needs a function to call{name}, got {type(fn).__name__}; "
            "wrap the work in a lambda."
        )
    if batch < 1:
        raise MeasurementError(f"batch must be at least 1{name}, got {batch}.")
    if min_repeats < 1:
        raise MeasurementError(f"min_repeats must be at least 1{name}, got {min_repeats}.")


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """No garbage collection inside the block: it would land on one call at random."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def laps(
    fn: Callable[[Callable[[], None]], Any],
    *,
    warmup: int = 3,
    threads: int | None = None,
    device: str | torch.device = "cpu",
    synchronize: Synchronize | None = None,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """When each part of one call ended: milliseconds since its start at every `lap()`.

    Args:
        fn: a call `fn(lap)` that calls `lap()` after each of its parts.
        warmup: so many whole calls before the one that counts.
        threads: PyTorch's CPU threads meanwhile; None leaves them as they are.
        device, synchronize, clock: as for `measure`; the device is idle at each reading.

    Raises `MeasurementError` if `fn` never calls `lap`.
    """
    wait = synchronize or synchronizer(device)
    with threads_set(threads), _quiet_collector():
        for _ in range(warmup + 1):
            times: list[float] = []

            def lap(times: list[float] = times) -> None:
                wait()
                times.append(clock())

            lap()
            fn(lap)
    if len(times) == 1:
        raise MeasurementError("fn(lap) never called lap(), so there is nothing to time.")
    return [1000 * (t - times[0]) for t in times[1:]]
