"""Put values into words: what an argument was, what came back, and where two results differ."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import nn

from .compare import significant

FEW = 8  # a tensor of at most this many numbers is written out whole


def describe(value: Any, limit: int = FEW) -> str:
    """A value in at most about 100 characters: small tensors whole, large ones by shape."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "" if isinstance(value, torch.Tensor) else "array "
        if value.ndim == 0:
            return significant(value.item())
        flat = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if flat.size <= limit:
            return kind + _nested(flat)
        first = ", ".join(significant(v.item()) for v in flat.reshape(-1)[:4])
        return f"{kind_of(value)}, starting {first}, ..."
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else repr(value[:57] + "...")
    if value is None or value is ... or isinstance(value, bool):
        return "..." if value is ... else str(value)
    if isinstance(value, numbers.Number):
        return significant(value)  # type: ignore[arg-type]
    if isinstance(value, tuple | list):
        brackets = "()" if isinstance(value, tuple) else "[]"
        inner = ", ".join(describe(item, 4) for item in value[:4])
        more = ", ..." if len(value) > 4 else ""
        return f"{brackets[0]}{inner}{more}{brackets[1]}"
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r}: {describe(item, 4)}" for key, item in list(value.items())[:4])
        return "{" + inner + (", ..." if len(value) > 4 else "") + "}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, torch.Generator | np.random.Generator):
        return "a seeded generator"
    if callable(value):
        return getattr(value, "__name__", "a function")
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def kind_of(value: Any) -> str:
    """What sort of thing a value is: "float32 tensor of shape (4, 2)", "tuple of 2", "float"."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {shape_of(value)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} NumPy array of shape {shape_of(value)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__


def shape_of(value: torch.Tensor | np.ndarray) -> str:
    """A shape as Python writes a tuple."""
    return str(tuple(value.shape))


def part(value: Any, where: str) -> Any:
    """The part of a nested result that a Difference's `where` names ("item 0 of item 1")."""
    for step in reversed([w for w in where.split(" of ") if w.startswith("item ")]):
        key = step.removeprefix("item ")
        value = value[key.strip("'")] if isinstance(value, dict) else value[int(key)]
    return value


def at(value: Any, index: tuple[int, ...]) -> str:
    """The number at `index` of a tensor or array; other values as they are."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == len(index):
        return significant(value[index].item())
    return describe(value)


def is_small(*values: Any) -> bool:
    """Whether all tensors and arrays among `values` have few enough numbers to be written out."""
    return all(
        v.numel() <= FEW if isinstance(v, torch.Tensor) else v.size <= FEW
        for v in values
        if isinstance(v, torch.Tensor | np.ndarray)
    )


def _nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        return significant(array.item())
    return "[" + ", ".join(_nested(row) for row in array) + "]"
