"""Which layer can spare channels, and what does it save? Error and products, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastgen_course.compression.channels import (
    LAYERS,
    PruningError,
    folded_groups,
    widest,
)
from fastgen_course.compression.folding import FoldedGenerator
from fastgen_course.compression.pruning import cut, paired_mse
from fastgen_course.models.generator import GeneratorConfig, layer_widths

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MAP_SIDES = (7, 7, 14, 14, 28, 28)  # of each layer's output


def layer_macs(config: GeneratorConfig) -> dict[str, int]:
    """Multiply-accumulates a picture of each layer, the modulation, and what is left at any width.

    Those of a `FoldedGenerator` with transposed convolutions; every tap counts, on padding too. A
    transposed convolution of kernel 4 reads each input 16 times. "rest" is the caption encoder but
    for its convolution over the words, which depends on the sentence's length.
    """
    widths = layer_widths(config)
    condition = config.noise + config.caption
    macs = {"stem": condition * widths[0] * 49}
    for index, layer in enumerate(LAYERS[1:], start=1):
        side = MAP_SIDES[index]
        taps = 9 * side**2 if layer.startswith("conv") else 16 * (side // 2) ** 2
        macs[layer] = widths[index - 1] * widths[index] * taps
    macs["to_rgb"] = widths[-1] * 3 * 9 * 28**2
    macs["modulation"] = condition * 2 * sum(widths[:4])
    macs["rest"] = config.caption**2
    return macs


def layer_error(
    network: FoldedGenerator,
    layer: str,
    share: float,
    importance: Mapping[str, Tensor],
    noise: Tensor,
    words: Tensor,
) -> float:
    """Paired error of the pictures with `share` of one layer's channels removed and no training.

    Raises `PruningError` for an unknown layer, and for a share that removes the whole layer.
    """
    if layer not in importance:
        raise PruningError(f"there is no layer {layer!r}; choose from {', '.join(importance)}.")
    values = importance[layer]
    if not 0 <= share < 1:
        raise PruningError(f"share must be from 0 up to 1 (without it), got {share}.")
    left = max(1, round(len(values) * (1 - share)))
    keep = widest({layer: values}, (left,))
    return paired_mse(cut(network, keep), network, noise, words)


def sensitivity(
    network: FoldedGenerator,
    importance: Mapping[str, Tensor],
    noise: Tensor,
    words: Tensor,
    shares: tuple[float, ...] = SHARES,
) -> dict[str, list[float]]:
    """`layer_error` of every layer at every share, the same noise and captions for all."""
    return {
        layer: [layer_error(network, layer, s, importance, noise, words) for s in shares]
        for layer in LAYERS
    }


def zero_out(network: FoldedGenerator, layer: str, channel: int) -> FoldedGenerator:
    """The network with one channel unread: what removing it must equal.

    Raises `PruningError` for a channel that is not there.
    """
    groups = folded_groups(network.config, network.form)
    if layer not in groups or not 0 <= channel < groups[layer].channels:
        raise PruningError(f"there is no channel {channel} of {layer!r}.")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for member in groups[layer].reading():
        state[member.tensor].index_fill_(member.dim, member.places[channel], 0)
    copy = FoldedGenerator(network.config, network.form)
    copy.load_state_dict(state)
    return copy.eval()


def leave_one_out(
    network: FoldedGenerator, layer: str, noise: Tensor, words: Tensor
) -> torch.Tensor:
    """Paired error of removing each channel of a layer alone: what importance approximates."""
    count = folded_groups(network.config, network.form)[layer].channels
    return torch.tensor(
        [paired_mse(zero_out(network, layer, c), network, noise, words) for c in range(count)]
    )
