"""LoRA: a frozen matrix W learns through two thin ones, W + (alpha / r) B A.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". B starts at zero, so that an
untrained adapter changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgen_course.language.smollm import Llama


@dataclass(frozen=True)
class LoRAConfig:
    """Which matrices of which LLaMA are adapted. The defaults fit SmolLM2-135M."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q", "k", "v", "o")
    layers: int = 30
    dim: int = 576
    kv_width: int = 192  # of k and v: their heads times the heads' width


class LoRALinear(nn.Module):
    """y = W x + (alpha / r) B A x, with W frozen and A (r, in), B (out, r) trained."""

    def __init__(self, linear: nn.Linear, A: nn.Parameter, B: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.linear, self.A, self.B, self.scale = linear, A, B, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.A), self.B) * self.scale


class Adapter(nn.Module):
    """All pairs A, B of one adapter; put on a model with `attach` or `merge`, taken off exactly.

    Attached, it runs beside the model and can be trained. Merged, it costs nothing: W + s B A takes
    the place of W, which is kept and comes back bit for bit.
    """

    def __init__(self, config: LoRAConfig) -> None:
        super().__init__()
        self.config, self.scale = config, config.alpha / config.rank
        self.A, self.B, self._kept = nn.ParameterDict(), nn.ParameterDict(), {}
        for layer in range(config.layers):
            for part in config.targets:
                out = config.kv_width if part in ("k", "v") else config.dim
                first = torch.randn(config.rank, config.dim) / config.dim**0.5
                self.A[f"{layer}_{part}"] = nn.Parameter(first)
                self.B[f"{layer}_{part}"] = nn.Parameter(torch.zeros(out, config.rank))

    def _places(self, model: Llama):
        for name in self.A:
            layer, part = name.split("_")
            yield name, model.blocks[int(layer)].attn, part

    def attach(self, model: Llama) -> None:
        """Put a `LoRALinear` in the place of every adapted matrix of `model`."""
        for name, attention, part in self._places(model):
            linear = getattr(attention, part)
            if isinstance(linear, LoRALinear):
                raise ValueError("the model has an adapter already; detach that one first.")
            wrapped = LoRALinear(linear, self.A[name], self.B[name], self.scale)
            setattr(attention, part, wrapped)

    def detach(self, model: Llama) -> None:
        """Undo `attach`."""
        for _, attention, part in self._places(model):
            setattr(attention, part, getattr(attention, part).linear)

    @torch.no_grad()
    def merge(self, model: Llama) -> None:
        """Add s B A to every adapted matrix; the old ones are kept for `unmerge`."""
        if self._kept:
            raise ValueError("the adapter is merged already; unmerge it first.")
        for name, attention, part in self._places(model):
            linear = getattr(attention, part)
            self._kept[name] = linear.weight
            merged = linear.weight + self.scale * self.B[name] @ self.A[name]
            linear.weight = nn.Parameter(merged, requires_grad=False)

    def unmerge(self, model: Llama) -> None:
        """Put the old matrices back, bit for bit."""
        for name, attention, part in self._places(model):
            getattr(attention, part).weight = self._kept.pop(name)
