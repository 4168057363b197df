"""The transformers' forward pass written out: the same arithmetic with less between the operators.

A module call costs a microsecond or two whatever it computes, a forward over one token makes about
seventy of them, and the products themselves take a few microseconds each. Here the weights lie in a
plain list and every operator is called directly, on a vector or a matrix, with keys and values
written in one copy. For inference alone: nothing is differentiated and no hook is called.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.transformer import KVCache, Transformer


def _matrices(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    return layer.bias, layer.weight, layer.weight.T


def _linear(x: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """x (rows, in) to (rows, out), or a vector (in,) to (out,), which is faster than one row."""
    bias, weight, transposed = matrices
    if x.ndim == 1:
        return torch.addmv(bias, weight, x)
    return torch.addmm(bias, x, transposed)


class _WrittenOut(Transformer):
    """`Transformer.states` without modules; set up by `written_out`."""

    def take(self, model: Transformer) -> None:
        """Take over a model's weights as they are now, on its device; nothing is copied."""
        theirs = dict(model.named_parameters())  # by name: some moves untie head and embedding
        for name, own in self.named_parameters():
            own.data = theirs[name].data
        self.eval().requires_grad_(False)
        self.layers = [
            (
                (block.norm1.weight, block.norm1.bias),
                _matrices(block.attention.qkv),
                _matrices(block.attention.out),
                (block.norm2.weight, block.norm2.bias),
                _matrices(block.mlp[0]),
                _matrices(block.mlp[2]),
            )
            for block in self.blocks
        ]
        self.tables = (self.embedding.weight, self.position.weight)
        self.last_norm = (self.norm.weight, self.norm.bias)

    @torch.inference_mode()
    def states(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        places: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """The last layer's normalised states (B, T, C); arguments as in `Transformer.states`."""
        self.check_wanted(wanted)
        config, (batch, tokens) = self.config, ids.shape
        width, heads = config.width, config.heads
        shape, rows = (width,), batch * tokens
        start = 0 if cache is None else cache.length
        if places is not None:
            if cache is None or mask is not None:
                raise ValueError("places need a cache, and make the mask themselves.")
            mask = cache.sees(places)[:, None]
        elif mask is not None:
            mask = mask[:, None, None]
        causal = config.causal and tokens > 1 and places is None
        if causal and start:
            raise ValueError("with a filled cache, give one token at a time, or places.")
        if cache is not None and places is None:
            # Views of all layers at once: one call each where a loop would make twelve.
            new = cache.buffers[:, :, :, :, start : start + tokens].unbind(0)
            seen = cache.buffers[:, :, :, :, : start + tokens].flatten(0, 1).unbind(0)
        embedding, position = self.tables
        x = F.embedding(ids, embedding) + F.embedding(positions, position)
        x = x.view(width) if rows == 1 else x.view(rows, width)
        for index, (norm1, qkv, out, norm2, up, down) in enumerate(self.layers):
            y = _linear(torch.layer_norm(x, shape, *norm1), qkv)
            parts = y.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
            if cache is None:
                _, k, v = parts
            elif places is None:
                new[index].copy_(parts[1:])
                k, v = seen[2 * index], seen[2 * index + 1]
            else:
                k, v = cache.put(index, parts[1], parts[2], places)
            q = parts[0]
            if wanted is not None and index == config.layers - 1:
                tokens = len(wanted)
                q, x = q[:, :, wanted], x.view(batch, -1, width)[:, wanted].flatten(0, 1)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
            x = x + _linear(y.transpose(1, 2).reshape(x.shape), out)
            x = x + _linear(F.gelu(_linear(torch.layer_norm(x, shape, *norm2), up)), down)
        if cache is not None and places is None:
            cache.length += ids.shape[1]
        return torch.layer_norm(x, shape, *self.last_norm).view(batch, tokens, width)


class WrittenOutGPT(_WrittenOut, GPT):
    """A GPT whose forward pass is written out."""


class WrittenOutMasked(_WrittenOut, MaskedModel):
    """A masked model whose forward pass is written out."""


def written_out(model: GPT | MaskedModel) -> WrittenOutGPT | WrittenOutMasked:
    """The same network, its forward pass written out; it shares the model's weights.

    It computes what the model computes, to the last bits of float32, and is for drawing alone: made
    anew after the model was trained further or moved.
    """
    kind = WrittenOutMasked if isinstance(model, MaskedModel) else WrittenOutGPT
    weight = model.embedding.weight
    with weight.device:
        result = kind(model.config).to(weight.dtype)
    result.take(model)
    return result
