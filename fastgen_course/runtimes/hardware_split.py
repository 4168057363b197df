"""Where the milliseconds of a call go: Python, dispatch, compute and memory, each measured.

No clock can be put between the four, for Python prepares the next operator in a microsecond or two.
What can be measured undisturbed are whole calls, and three of them are taken in turn:

- T, the call itself;
- E, the same program on the smallest network (`hardware_networks.twin`): it starts the same
  operators in the same order (checked) and gives them next to nothing to do;
- F, that network's calls into PyTorch, noted down once with their arguments and made again from a
  flat loop: no modules, no attributes, no sampler, only PyTorch.

Then, in milliseconds of the call, and adding up to T exactly:

    dispatch = F                 what PyTorch takes to start the operators: reading arguments,
                                 choosing a kernel, allocating the result
    Python   = E - F             the interpreter between them: modules, the sampler's loop
    work     = T - E             what the real sizes add

Work is split into compute and memory by operator: both networks run once more with a clock around
every operator, the difference of the two readings is that operator's work, and it counts as compute
if the operator stands right of the roofline's ridge (FLOPs / peak > bytes / bandwidth) and as
memory otherwise. The clock disturbs both networks alike, so only the *proportion* is taken.

Errors, and their signs. The smallest network still computes a little, so overheads come out too
high by at most that work: far below a microsecond an operator. Kernels may choose another path for
one channel; what a kernel prepares for large tensors (threads to wake, layouts to change) counts as
work. Calls of `torch.nn.functional` that are thin Python around one operator count as dispatch.
"Memory" is the traffic of every operator as if nothing stayed in a cache: it names what kind of
operator waits, not which memory it waits for. On a GPU the call ends when the device is idle, so
what the device does while Python prepares the next operator is hidden in Python and dispatch, which
is what waiting for launches means. A difference that noise makes negative is set to 0 and taken
from its neighbour. `agreement`, the operators' own work over T - E, says how far the two ways of
measuring agree: 1 is perfect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fastgen_course.timing import MeasurementError, compare, laps
from fastgen_course.timing.cost import CPU_ATTENTION, KernelCounter, starts_kernel
from fastgen_course.timing.roofline import Roofline

Call = Callable[[], Any]
PARTS = ("python", "dispatch", "memory", "compute")


@dataclass(frozen=True)
class Split:
    """Milliseconds of one call by part; `total_ms` is their sum and the measured whole.

    `launches` counts the operators; `agreement` is described above (None where there is no work).
    """

    python: float
    dispatch: float
    memory: float
    compute: float
    launches: int
    agreement: float | None

    @property
    def total_ms(self) -> float:
        """The parts together."""
        return self.python + self.dispatch + self.memory + self.compute


def split_call(
    call: Call,
    small: Call,
    roofline: Roofline,
    *,
    threads: int | None = None,
    device: str = "cpu",
    seconds: float = 6.0,
    repeats: int = 5,
    **timing: Any,
) -> Split:
    """Split `call`'s time with the help of `small`, the same program on the smallest network.

    Args:
        roofline: this machine's, for the ridge between compute and memory.
        seconds: about how long the three whole calls are measured.
        repeats: runs with a clock around every operator, of which the median counts.
        timing: `clock` and `synchronize`, as for `measure`.

    Raises `MeasurementError` when the two do not start the same operators.
    """
    with torch.no_grad():
        big, little = operators(call), operators(small)
        if [o.name for o in big] != [o.name for o in little]:
            raise MeasurementError(
                f"the smallest network starts {len(little)} operators and the real one {len(big)}, "
                "or others: their times cannot be compared."
            )
        rows = compare(
            {"whole": call, "small": small, "flat": flat(small)},
            threads=threads,
            device=device,
            max_seconds=seconds,
            **timing,
        )
        spans = [
            operator_ms(each, repeats, threads=threads, device=device, **timing)
            for each in (call, small)
        ]
    works = [mine - other for mine, other in zip(*spans, strict=True)]
    return split_times(
        rows["whole"].median_ms,
        rows["small"].median_ms,
        rows["flat"].median_ms,
        works,
        [o.computes(roofline) for o in big],
    )


def split_times(
    whole_ms: float,
    small_ms: float,
    flat_ms: float,
    works_ms: Sequence[float],
    computes: Sequence[bool],
) -> Split:
    """The arithmetic of the module's docstring: readings in, parts out, which add up to the whole.

    works_ms: each operator's work by its own clock; computes: whether it counts as compute.
    """
    small_ms = min(small_ms, whole_ms)
    dispatch = min(flat_ms, small_ms)
    work = whole_ms - small_ms
    by_kind = [
        sum(w for w, c in zip(works_ms, computes, strict=True) if c is kind)
        for kind in (True, False)
    ]
    compute, memory = (max(0.0, kind) for kind in by_kind)
    both = compute + memory
    share = compute / both if both > 0 else 0.0
    return Split(
        python=small_ms - dispatch,
        dispatch=dispatch,
        memory=(1 - share) * work,
        compute=share * work,
        launches=len(computes),
        agreement=both / work if work > 0 else None,
    )


@dataclass(frozen=True)
class Operator:
    """One operator of a call: its name, FLOPs, and the bytes that it reads and writes."""

    name: str
    flops: int
    bytes_moved: int

    def computes(self, roofline: Roofline) -> bool:
        """Whether arithmetic and not memory bounds it."""
        return self.flops / roofline.peak_flops > self.bytes_moved / roofline.bandwidth


def operators(call: Call) -> list[Operator]:
    """The operators that start a kernel in one run of `call`, in order."""
    with torch.no_grad():
        call()  # what happens once (libraries, caches) is not part of it
        log = _Log()
        with log.counter, log:
            call()
    return log.found


def operator_ms(call: Call, repeats: int = 5, **timing: Any) -> list[float]:
    """Milliseconds of each operator by a clock around it: the median of `repeats` runs."""
    runs = []
    with torch.no_grad():
        for _ in range(repeats):

            def run(lap: Callable[[], None]) -> None:
                with _Clocked(lap):
                    call()

            times = laps(run, warmup=1, **timing)
            runs.append([end - start for start, end in zip(times[::2], times[1::2], strict=True)])
    if len({len(run) for run in runs}) != 1:
        raise MeasurementError("the call does not start the same operators every time.")
    return [median(column) for column in zip(*runs, strict=True)]


def flat(call: Call) -> Call:
    """The calls into PyTorch that `call` makes, as a loop over functions and their arguments."""
    log = _Calls()
    with torch.no_grad(), log:
        call()
    made = tuple(log.made)

    def replay() -> None:
        for function, arguments, names in made:
            function(*arguments, **names)

    return replay


class _Calls(TorchFunctionMode):
    """Notes down every function of PyTorch that Python calls, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Callable[..., Any], tuple, dict]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        # Switching gradients on and off is the sampler's, and would last beyond a replay.
        if "grad" not in getattr(func, "__name__", ""):
            self.made.append((func, args, kwargs))
        return func(*args, **kwargs)


class _Log(KernelCounter):
    """The kernel counter of `timing.cost`, with a line for each kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        self.found: list[Operator] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        before = self.launches, self.bytes_moved, self.counter.get_total_flops()
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self.launches > before[0]:
            flops = self.counter.get_total_flops() - before[2]
            self.found.append(Operator(str(func), flops, self.bytes_moved - before[1]))
        return out


class _Clocked(TorchDispatchMode):
    """Reads the clock before and after every operator that starts a kernel."""

    def __init__(self, lap: Callable[[], None]) -> None:
        super().__init__()
        self.lap = lap

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if not starts_kernel(func):
            return func(*args, **(kwargs or {}))
        self.lap()
        out = func(*args, **(kwargs or {}))
        self.lap()
        return out
