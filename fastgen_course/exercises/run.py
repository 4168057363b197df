"""Call a reader's function on one input: cloned arguments, a time limit, gradients, no mess left.

The time limit. On the main thread of Unix (where Jupyter runs cells) an interval timer raises
inside the reader's code, which stops Python loops at once and leaves the kernel alive. Elsewhere
(Windows, a worker thread, or when someone else holds the timer) the code runs in a daemon thread
into which the exception is injected; a thread stuck in one long C call cannot be stopped and is
left behind, which the report says.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import ctypes
import inspect
import io
import linecache
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn


class _TimeUp(BaseException):
    """Raised inside the reader's code; a BaseException so that `except Exception` lets it by."""


class TimeLimitError(ValueError):
    """A call ran past its limit; `stopped` is False when it still runs in the background."""

    def __init__(self, seconds: float, stopped: bool = True) -> None:
        super().__init__(f"the code was still running after {seconds:g} s")
        self.seconds = seconds
        self.stopped = stopped


@dataclass(frozen=True)
class Case:
    """One input of an exercise: positional and keyword arguments, and what to call it."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = ""


@dataclass
class Outcome:
    """What one call did. `gradients` maps an input's name to its gradient, None if none flows."""

    kind: Literal["value", "error", "timeout"]
    value: Any = None
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)
    error: BaseException | None = None
    line: tuple[int, str] | None = None
    printed: str = ""
    mutated: list[str] = field(default_factory=list)
    stopped: bool = True


def observe(
    fn: Callable[..., Any],
    case: Case,
    *,
    call: Callable[..., Any] | None = None,
    gradients: bool = False,
    time_limit_s: float = 10.0,
) -> Outcome:
    """Run `fn` on clones of `case`'s arguments and report what came of it.

    `call(fn, *args, **kwargs)` replaces the plain call (for classes, or to test a property).
    Torch's and NumPy's global random states are set before and restored after, so that a check
    neither depends on nor changes what a notebook draws.
    """
    args, kwargs = clone(case.args), clone(case.kwargs)
    names = argument_names(fn if call is None else call, case, skip=0 if call is None else 1)
    leaves: dict[str, torch.Tensor] = {}
    if gradients:
        for name, value in zip(names, (*args, *kwargs.values()), strict=True):
            leaves.update(_differentiable(value, name))
    printed = io.StringIO()

    def work() -> Outcome:
        with torch.enable_grad() if gradients else contextlib.nullcontext():
            value = fn(*args, **kwargs) if call is None else call(fn, *args, **kwargs)
            return Outcome("value", value, _gradients(value, leaves))

    try:
        with isolated(printed):
            outcome = limited(work, time_limit_s)
    except TimeLimitError as late:
        return Outcome("timeout", error=late, printed=printed.getvalue(), stopped=late.stopped)
    except (Exception, SystemExit) as error:
        line = _line_in(fn, error)
        # The traceback holds the reader's frames, and so their tensors, alive.
        error = error.with_traceback(None)
        return Outcome("error", error=error, line=line, printed=printed.getvalue())
    outcome.printed = printed.getvalue()
    originals = (*case.args, *case.kwargs.values())
    outcome.mutated = [
        name
        for name, before, after in zip(names, originals, (*args, *kwargs.values()), strict=True)
        if isinstance(before, torch.Tensor | np.ndarray) and not _identical(before, after)
    ]
    return outcome


def argument_names(fn: Callable[..., Any], case: Case, skip: int = 0) -> list[str]:
    """Names for `case`'s arguments, read from `fn`'s signature where it has one."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    positional = [
        named[i] if i < len(named) else f"argument {i + 1}" for i in range(len(case.args))
    ]
    return positional + list(case.kwargs)


def clone(value: Any) -> Any:
    """A deep copy that also copies generators' states and detaches tensors from any graph."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(clone, value))
    if isinstance(value, tuple | list):
        return type(value)(clone(item) for item in value)
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    try:
        return copy.deepcopy(value)
    except (TypeError, RuntimeError):  # an open file, a non-leaf tensor inside an object
        return value


def limited(work: Callable[[], Any], seconds: float) -> Any:
    """`work()`, or TimeLimitError after `seconds`; see the module's docstring for how."""
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer") and not any(signal.getitimer(signal.ITIMER_REAL)):
        return _limited_by_timer(work, seconds)
    return limited_in_thread(work, seconds)


def _limited_by_timer(work: Callable[[], Any], seconds: float) -> Any:
    def ring(_number: int, _frame: Any) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # The interval rings again in case a bare `except:` swallowed the first one.
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TimeUp:
        raise TimeLimitError(seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)


def limited_in_thread(work: Callable[[], Any], seconds: float) -> Any:
    """The time limit of platforms without interval timers; usable from any thread."""
    box: dict[str, Any] = {}
    context = contextvars.copy_context()
    grad = torch.is_grad_enabled()  # torch keeps this setting per thread

    def target() -> None:
        try:
            with torch.set_grad_enabled(grad):
                box["value"] = context.run(work)
        except BaseException as error:  # handed to the caller below
            box["error"] = error

    thread = threading.Thread(target=target, daemon=True, name="fastgen-exercise")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TimeUp)
        )
        thread.join(1.0)
        raise TimeLimitError(seconds, stopped=not thread.is_alive())
    if "error" in box:
        raise box["error"]
    return box["value"]


@contextlib.contextmanager
def isolated(printed: io.StringIO) -> Iterator[None]:
    """Gather what runs inside prints and warns, and keep the global random states as they were.

    A reader's code runs many times in a check; what it says is said once, and what it draws must
    not change what the notebook draws afterwards.
    """
    # Readers may use NumPy's legacy global state.
    numpy_state = np.random.get_state()  # noqa: NPY002
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        torch.random.default_generator.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def _differentiable(value: Any, name: str) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value.requires_grad_()} if value.is_floating_point() else {}
    if isinstance(value, nn.Module):
        return {f"{name}.{key}": p for key, p in value.named_parameters() if p.requires_grad}
    if isinstance(value, tuple | list):
        found = [_differentiable(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return {key: leaf for part in found for key, leaf in part.items()}
    return {}


def _gradients(value: Any, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    """Gradients of a fixed random projection of all float outputs with respect to `leaves`."""
    if not leaves:
        return {}
    outputs = [t for t in _tensors(value) if t.is_floating_point() and t.requires_grad]
    if not outputs:
        return dict.fromkeys(leaves)
    generator = torch.Generator().manual_seed(0)
    # A random cotangent tells apart gradients that agree when merely summed.
    weights = [
        torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) + 1 for t in outputs
    ]
    found = torch.autograd.grad(outputs, list(leaves.values()), weights, allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _identical(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        before, after = before.detach(), after.detach()
        return before.shape == after.shape and torch.allclose(before, after, 0, 0, equal_nan=True)
    return np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")


def _line_in(fn: Callable[..., Any], error: BaseException) -> tuple[int, str] | None:
    """The last line of the reader's own file or cell that the error went through."""
    try:
        filename = inspect.unwrap(fn).__code__.co_filename
    except AttributeError:
        try:
            filename = inspect.getsourcefile(fn)
        except (TypeError, OSError):
            return None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    if not frames:
        return None
    number = frames[-1].lineno or 0
    return number, linecache.getline(filename, number).strip()
