"""Compare two results: structure, shape, dtype, values, gradients; say where they first differ."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .run import Outcome

Kind = Literal["error", "nothing", "type", "length", "shape", "dtype", "nonfinite", "value"]


@dataclass(frozen=True)
class Difference:
    """The first difference found between a reader's result (`yours`) and the reference (`ours`).

    `where` names a part of the result ("item 1 of the result", "the gradient of z"), empty for
    the result as a whole. `index` is the place of the largest deviation inside a tensor.
    """

    kind: Kind
    where: str = ""
    yours: Any = None
    ours: Any = None
    index: tuple[int, ...] = ()
    gradient: bool = False
    share: float = 1.0

    @property
    def runs(self) -> bool:
        """Whether a notebook can go on with a result that is wrong in this way."""
        return self.kind == "value"


def compare(yours: Any, ours: Any, tolerance: float, where: str = "") -> Difference | None:
    """The first difference between two results, None when they agree.

    Numbers agree within `tolerance` relative to the largest magnitude in `ours` (per tensor);
    NaN and infinities must stand in the same places. Tensors must agree in shape and dtype too,
    arrays likewise; tuples and lists are alike; plain numbers are compared by value. Other types
    are compared by `==`.
    """
    if yours is None or yours is ...:
        return None if yours is ours else Difference("nothing", where, yours, ours)
    if isinstance(ours, torch.Tensor | np.ndarray):
        if not isinstance(yours, type(ours)) and not _both_tensors(yours, ours):
            return Difference("type", where, yours, ours)
        return _compare_arrays(yours, ours, tolerance, where)
    if isinstance(ours, bool | str | bytes):
        same = type(yours) is type(ours) or isinstance(yours, str | bool | np.bool_)
        if not same:
            return Difference("type", where, yours, ours)
        return None if yours == ours else Difference("value", where, yours, ours)
    if isinstance(ours, numbers.Number):
        if not isinstance(yours, numbers.Number) or isinstance(yours, bool):
            return Difference("type", where, yours, ours)
        return _compare_arrays(
            torch.as_tensor(yours, dtype=torch.complex128),
            torch.as_tensor(ours, dtype=torch.complex128),
            tolerance,
            where,
            raw=(yours, ours),
        )
    if isinstance(ours, dict):
        if not isinstance(yours, dict):
            return Difference("type", where, yours, ours)
        if yours.keys() != ours.keys():
            return Difference("length", where, yours, ours)
        parts = [(f"item {key!r}", yours[key], value) for key, value in ours.items()]
    elif isinstance(ours, tuple | list):
        if not isinstance(yours, tuple | list):
            return Difference("type", where, yours, ours)
        if len(yours) != len(ours):
            return Difference("length", where, yours, ours)
        parts = [(f"item {i}", y, o) for i, (y, o) in enumerate(zip(yours, ours, strict=True))]
    else:
        if type(yours) is not type(ours):
            return Difference("type", where, yours, ours)
        return None if yours == ours else Difference("value", where, yours, ours)
    for name, your_part, our_part in parts:
        inner = f"{name} of {where}" if where else name
        if difference := compare(your_part, our_part, tolerance, inner):
            return difference
    return None


def compare_outcomes(yours: Outcome, ours: Outcome, tolerance: float) -> Difference | None:
    """Compare two calls: how they ended, their results, then gradients where both have them."""
    if yours.kind != "value" or ours.kind != "value":
        # A subclass of the exception asked for is as good.
        alike = yours.kind == ours.kind and isinstance(yours.error, type(ours.error))
        return None if alike else Difference("error", "", yours.error, ours.error)
    if difference := compare(yours.value, ours.value, tolerance):
        return difference
    for name, our_gradient in ours.gradients.items():
        your_gradient = yours.gradients.get(name)
        if our_gradient is None and your_gradient is None:
            continue
        # No path at all and a gradient of zero mean the same to an optimiser.
        shape = (our_gradient if our_gradient is not None else your_gradient).detach()
        a = torch.zeros_like(shape) if your_gradient is None else your_gradient
        b = torch.zeros_like(shape) if our_gradient is None else our_gradient
        if found := compare(a, b, tolerance, f"the gradient of {name}"):
            missing = your_gradient is None
            return Difference(
                found.kind,
                found.where,
                None if missing else your_gradient,
                b,
                found.index,
                gradient=True,
                share=found.share,
            )
    return None


def numbers_of(value: Any) -> torch.Tensor | None:
    """All numbers of a result in one float64 vector, None when it holds anything else."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return None
        return value.detach().to("cpu", torch.float64).flatten()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.asarray(value, np.float64)).flatten()
    if isinstance(value, numbers.Real):
        return torch.tensor([float(value)], dtype=torch.float64)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list) and value:
        parts = [numbers_of(item) for item in value]
        return None if any(p is None for p in parts) else torch.cat(parts)  # type: ignore[arg-type]
    return None


def _both_tensors(yours: Any, ours: Any) -> bool:
    return isinstance(yours, torch.Tensor) and isinstance(ours, torch.Tensor)


def _compare_arrays(
    yours: Any, ours: Any, tolerance: float, where: str, raw: tuple[Any, Any] | None = None
) -> Difference | None:
    shown = raw or (yours, ours)
    if tuple(yours.shape) != tuple(ours.shape):
        return Difference("shape", where, *shown)
    if yours.dtype != ours.dtype:
        return Difference("dtype", where, *shown)
    if isinstance(ours, np.ndarray):
        if ours.dtype.kind not in "biufc":
            same = np.array_equal(yours, ours)
            return None if same else Difference("value", where, *shown)
        yours, ours = torch.from_numpy(yours.copy()), torch.from_numpy(ours.copy())
    wide = torch.complex128 if ours.is_complex() else torch.float64
    a, b = yours.detach().to("cpu", wide), ours.detach().to("cpu", wide)
    if b.numel() == 0:
        return None
    finite = torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), finite):
        index = _unravel(int((torch.isfinite(a) != finite).flatten().int().argmax()), b.shape)
        return Difference("nonfinite", where, *shown, index=index)
    if not torch.equal(a[~finite].nan_to_num(0.0), b[~finite].nan_to_num(0.0)):
        index = _unravel(int((~finite).flatten().int().argmax()), b.shape)
        return Difference("value", where, *shown, index=index)
    scale = float(b[finite].abs().max()) if bool(finite.any()) else 0.0
    error = torch.where(finite, (a - b).abs(), 0.0)
    limit = tolerance * scale if scale > 0 else tolerance
    if bool((error <= limit).all()):
        return None
    index = _unravel(int(error.flatten().argmax()), b.shape)
    share = float((error > limit).double().mean())
    return Difference("value", where, *shown, index=index, share=share)


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))


def significant(value: float, digits: int = 4) -> str:
    """A number as readers see it in a message: at most `digits` significant digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "NaN")
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
