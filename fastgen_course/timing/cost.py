"""What a model asks of a machine: multiply-accumulates, kernel launches and bytes moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# Operators that allocate or rename memory and start no kernel; views are told by their schema.
_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
    "_local_scalar_dense",
}
# Attention's fused CPU kernel, which PyTorch's own counter does not know.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *args, out_shape=None, **kwargs: sdpa_flop_count(
            query, key, value
        )
    )
}
# Operators that read only the rows they are asked for, not the whole first argument.
_GATHERS = {"embedding", "index", "index_select", "gather"}


@dataclass(frozen=True)
class ModelCost:
    """The work of one forward pass in eager PyTorch.

    `macs`: multiply-accumulates of matrix products, convolutions and attention (FLOPs / 2; the
    elementwise operators' few are left out). `launches`: operators that start a kernel.
    `bytes_moved`: what those operators read and write if nothing stays in a cache and nothing is
    fused. `parameters` and `parameter_bytes`: of the model.
    """

    macs: int
    launches: int
    bytes_moved: int
    parameters: int
    parameter_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations: two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOPs a byte: where the model stands on the roofline."""
        return self.flops / self.bytes_moved if self.bytes_moved else 0.0


def model_cost(model: nn.Module, inputs: torch.Tensor | Sequence[Any]) -> ModelCost:
    """Count one forward pass of `model(*inputs)` by watching the operators it dispatches.

    `inputs` is a tensor or a sequence of arguments on the model's device ("meta" works: then
    nothing is computed). The batch is part of the inputs; MACs grow with it, `parameters` do not.
    The pass runs in evaluation mode without gradients, and the mode is restored.
    """
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    was_training = model.training
    model.eval()
    kernels = KernelCounter()
    flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    try:
        # no_grad and not inference_mode: under the latter composite operators are not taken apart.
        with torch.no_grad(), flops, kernels:
            model(*arguments)
    finally:
        model.train(was_training)
    parameters = list(model.parameters())
    return ModelCost(
        macs=flops.get_total_flops() // 2,
        launches=kernels.launches,
        bytes_moved=kernels.bytes_moved,
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=sum(_bytes(p) for p in parameters),
    )


class KernelCounter(TorchDispatchMode):
    """Counts operators that start a kernel, and the bytes of the tensors they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.bytes_moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if starts_kernel(func):
            read = _tensors((args, kwargs))
            if name in _GATHERS:
                read = read[1:]  # the rows that are read equal the output, counted twice below
            written = _tensors(out)
            self.launches += 1
            self.bytes_moved += sum(map(_bytes, read)) + sum(map(_bytes, written))
            if name in _GATHERS:
                self.bytes_moved += sum(map(_bytes, written))
        return out


def starts_kernel(func: Any) -> bool:
    """Whether an operator does something: it is no view and no bare allocation."""
    return func._schema.name.split("::")[-1] not in _NO_KERNEL and not _is_view(func)


def _is_view(func: Any) -> bool:
    """A view's result shares memory with an argument that it does not write."""
    returned = [r.alias_info for r in func._schema.returns]
    return bool(returned) and all(info is not None and not info.is_write for info in returned)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
