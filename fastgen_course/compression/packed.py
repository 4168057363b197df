"""A quantised generator as it is stored: integers of so many bits, and what they mean.

Its checkpoint holds no rounded floats but the integers themselves, several to a byte where they
have fewer than eight bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.compression.affine import QuantizationError, Scheme, dequantize
from fastgen_course.compression.quantized import QuantizedConfig, QuantizedGenerator


def pack_integers(q: Tensor, bits: int) -> Tensor:
    """Symmetric integers of `bits` bits as bytes: uint8 (ceil(n / per byte),), first one lowest.

    2 and 4 bits share a byte by four and two, others up to 8 take one each. Raises
    `QuantizationError` for more than 8 bits, or an integer that does not fit.
    """
    scheme = _scheme(bits)
    if q.numel() and not (scheme.low <= int(q.min()) and int(q.max()) <= scheme.high):
        raise QuantizationError(
            f"integers must be from {scheme.low} to {scheme.high} to fit {bits} bits."
        )
    per_byte = _per_byte(bits)
    codes = (q.flatten() - scheme.low).to(torch.uint8)
    codes = torch.cat([codes, codes.new_zeros(-len(codes) % per_byte)]).view(-1, per_byte)
    shifts = torch.arange(per_byte, dtype=torch.uint8) * (8 // per_byte)
    return (codes << shifts).sum(1).to(torch.uint8)


def unpack_integers(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The integers, int32 of `shape`, that `pack_integers` made bytes of."""
    per_byte = _per_byte(bits)
    shifts = torch.arange(per_byte, dtype=torch.uint8) * (8 // per_byte)
    mask = 2 ** (8 // per_byte) - 1
    codes = ((packed[:, None] >> shifts) & mask).flatten()
    count = torch.Size(shape).numel()
    return codes[:count].to(torch.int32).view(shape) + _scheme(bits).low


def _scheme(bits: int) -> Scheme:
    scheme = Scheme(bits, "symmetric")
    if bits > 8:
        raise QuantizationError(f"bits must be from 2 to 8 to be stored in bytes, got {bits}.")
    return scheme


def _per_byte(bits: int) -> int:
    _scheme(bits)
    return {2: 4, 3: 2, 4: 2}.get(bits, 1)


class PackedGenerator(QuantizedGenerator):
    """A `QuantizedGenerator` whose state dict holds each weight's integers and scale.

    In memory it is the same network; only what is written and read differs. Weights between two
    grid points are lost, so a training keeps its state as a `QuantizedGenerator`.
    """

    def __init__(self, config: QuantizedConfig) -> None:
        if config.weight_bits is None:
            raise QuantizationError("weight_bits must be set to store a generator as integers.")
        super().__init__(config)
        self.register_state_dict_post_hook(_to_integers)
        self.register_load_state_dict_pre_hook(_from_integers)


def pack(network: QuantizedGenerator) -> PackedGenerator:
    """The network as it is stored; draws what `network` draws."""
    packed = PackedGenerator(network.config)
    for mine, theirs in zip(packed.parameters(), network.parameters(), strict=True):
        mine.data.copy_(theirs)
    for mine, theirs in zip(packed.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)
    return packed.eval().requires_grad_(False)


def _to_integers(network: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    for name, layer in network.layers():
        del state[f"{prefix}{name}.layer.weight"]
        scale = state.pop(f"{prefix}{name}.log_scale").exp()
        state[f"{prefix}{name}.integers"] = pack_integers(
            layer.weight_integers(), network.config.weight_bits
        )
        # float64 stays as it is in a checkpoint, where float32 is halved.
        state[f"{prefix}{name}.scale"] = scale.double()
    for part in _shared(network):  # stem and modulation read one tensor on one grid
        del state[f"{prefix}stem.input.{part}"]


def _shared(network: nn.Module) -> tuple[str, ...]:
    return tuple(network.stem.input.state_dict())


def _from_integers(
    network: nn.Module, state: dict[str, Tensor], prefix: str, *_unused: Any
) -> None:
    for part in _shared(network):
        if f"{prefix}modulation.input.{part}" in state:
            state[f"{prefix}stem.input.{part}"] = state[f"{prefix}modulation.input.{part}"]
    for name, layer in network.layers():
        if f"{prefix}{name}.integers" not in state:
            continue  # load_state_dict names what is missing
        stored = state.pop(f"{prefix}{name}.integers")
        scale = state.pop(f"{prefix}{name}.scale").float()
        shape = tuple(layer.layer.weight.shape)
        q = unpack_integers(stored, network.config.weight_bits, shape)
        state[f"{prefix}{name}.log_scale"] = scale.log()
        grid = layer.weight_grid()._replace(scale=scale)
        state[f"{prefix}{name}.layer.weight"] = dequantize(q, grid).detach()


def stored_bytes(network: QuantizedGenerator) -> int:
    """Bytes of the weights as they are stored: packed integers, a float32 for each scale, float32
    for what is not quantised (the caption encoder, biases)."""
    total = 0
    kept = {id(p) for p in network.parameters()}
    if network.config.weight_bits is not None:
        for _, layer in network.layers():
            count = layer.layer.weight.numel()
            total += -(-count // _per_byte(network.config.weight_bits))
            total += 4 * layer.log_scale.numel()
            kept -= {id(layer.layer.weight), id(layer.log_scale)}
    return total + sum(4 * p.numel() for p in network.parameters() if id(p) in kept)


def calibrated_bytes(network: nn.Module) -> int:
    """Bytes of the weights that `library_static_graph` stores: one for each weight of a layer, a
    float32 for each of its channels, float32 for the caption encoder and the biases."""
    total = 4 * sum(p.numel() for p in network.parameters())
    for name, layer in network.named_modules():
        if name.startswith("caption_encoder"):
            continue
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            channels = layer.weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0]
            total += 4 * channels - 3 * layer.weight.numel()
    return total
