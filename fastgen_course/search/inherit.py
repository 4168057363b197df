"""GENERATOR_BASE's trained weights as the supernet's first ones, important channels first."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.generator import Generator
from fastgen_course.models.searched import LAYERS, MODULATED, Architecture, SearchedGenerator
from fastgen_course.search.space import SPACE
from fastgen_course.search.supernet import READS, SuperBlock, Supernet

_NORMS = ("stem_norm", "norm7", "norm14a", "norm14b", "norm28a", "norm28b")
_PLACES = {"stem": "stem", "rgb": "to_rgb"}  # where GENERATOR_BASE calls a layer something else


@torch.no_grad()
def without_norms(generator: Generator) -> SearchedGenerator:
    """The same network as a `SearchedGenerator`, its norms folded: equal up to rounding.

    In evaluation mode a norm is x * rate + offset for each channel; what it makes of ones and of
    zeros tells both.
    """
    generator = generator.eval()
    config = generator.config
    low, middle, high = config.channels
    shape = Architecture(
        widths=(low, low, middle, middle, high, high),
        noise=config.noise, caption=config.caption, vocabulary=config.vocabulary,
    )  # fmt: skip
    network = SearchedGenerator(shape).eval()
    network.caption_encoder.load_state_dict(generator.caption_encoder.state_dict())
    linears = [getattr(generator, n).scale_shift for n in _NORMS[: len(MODULATED)]]
    network.modulation.weight.copy_(torch.cat([x.weight for x in linears]))
    network.modulation.bias.copy_(torch.cat([x.bias for x in linears]))
    for part in network.modulation.bias.split([2 * w for w in shape.modulated.values()]):
        part[: len(part) // 2] += 1  # it says x * (1 + scale) + shift
    for name, norm in zip((*LAYERS, "rgb"), (*_NORMS, None), strict=True):
        _set_folded(network.layers[name], getattr(generator, _PLACES.get(name, name)),
                    getattr(generator, norm) if norm else None)  # fmt: skip
    return network


def _set_folded(target: nn.Module, layer: nn.Module, norm: nn.Module | None) -> None:
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    channels = layer.weight.shape[outputs]
    rate, offset = torch.ones(channels), torch.zeros(channels)
    if norm is not None:
        plain = getattr(norm, "norm", norm)  # of a modulated norm the batch norm alone
        ones = torch.ones(1, plain.num_features, 1, 1)
        offset = plain(0 * ones).flatten()
        rate = plain(ones).flatten() - offset
        repeat = channels // len(rate)  # the stem's channels have 49 rows each
        rate, offset = rate.repeat_interleave(repeat), offset.repeat_interleave(repeat)
    bias = 0 if layer.bias is None else layer.bias
    shape = [1] * layer.weight.ndim
    shape[outputs] = channels
    target.weight.copy_(layer.weight * rate.view(shape))
    target.bias.copy_(bias * rate + offset)


@torch.no_grad()
def example_maps(network: SearchedGenerator, n: int = 256, seed: int = 0) -> dict[str, Tensor]:
    """What each layer writes for n captions and noise."""
    generator = torch.Generator().manual_seed(seed)
    words = next(scene_batches("train", n, generator)).words
    return network.maps(torch.randn(n, network.config.noise, generator=generator), words)


@torch.no_grad()
def sort_channels(network: SearchedGenerator) -> SearchedGenerator:
    """The same network with the channels of every map ordered, the most important first.

    A channel's importance is its mean square times that of the weights which read it: the power
    that it sends on. For dense networks with every layer present. Works in place.
    """
    maps, config = example_maps(network), network.config
    names = [*LAYERS, "rgb"]
    starts = dict(zip(MODULATED, _starts(config), strict=True))
    for name, after in pairwise(names):
        layer, reader = network.layers[name], network.layers[after]
        reads = reader.weight if isinstance(reader, nn.ConvTranspose2d) else (
            reader.weight.transpose(0, 1)
        )  # fmt: skip
        power = maps[name].square().mean((0, 2, 3)) * reads.square().flatten(1).sum(1)
        order = power.argsort(descending=True)
        rows = order if name != "stem" else (49 * order[:, None] + torch.arange(49)).flatten()
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        layer.weight.copy_(layer.weight.index_select(axis, rows))
        layer.bias.copy_(layer.bias[rows])
        reads.copy_(reads[order])
        if name in MODULATED:
            first, width = starts[name], len(order)
            old = first + torch.cat([order, width + order])
            new = slice(first, first + 2 * width)
            network.modulation.weight[new] = network.modulation.weight[old]
            network.modulation.bias[new] = network.modulation.bias[old]
    return network


def _starts(config: Architecture) -> list[int]:
    widths = [2 * w for w in config.modulated.values()]
    return [sum(widths[:i]) for i in range(len(widths))]


@torch.no_grad()
def rank_one(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The separable convolution nearest to a dense one: (I, 1, 3, 3) and (O, I, 1, 1).

    For each input channel the outputs' kernels, (O, 9), are one kernel times a number each as
    nearly as they can be: the first singular vectors.
    """
    u, s, v = torch.linalg.svd(weight.transpose(0, 1).flatten(2), full_matrices=False)
    root = s[:, :1].sqrt()
    each, across = v[:, 0] * root, u[:, :, 0] * root
    return each.view(-1, 1, 3, 3), across.T[:, :, None, None].contiguous()


@torch.no_grad()
def inherited_supernet(generator: Generator, config: Architecture | None = None) -> Supernet:
    """A supernet begun from a trained generator, whose widths it may not exceed.

    Weights are the first slices of the sorted network. A separable convolution begins as the one
    nearest to the dense one. A layer that reads past an absent convolution begins as if the map
    before it, through the best linear map of channels, were what the convolution writes.
    """
    network = sort_channels(without_norms(generator))
    supernet = Supernet(config or SPACE.largest())
    supernet.caption_encoder.load_state_dict(network.caption_encoder.state_dict())
    for name, start in zip(MODULATED, _starts(network.config), strict=True):
        width, mine = network.config.width(name), supernet.config.width(name)
        rows = start + torch.cat([torch.arange(mine), width + torch.arange(mine)])
        supernet.modulation[name].weight.copy_(network.modulation.weight[rows])
        supernet.modulation[name].bias.copy_(network.modulation.bias[rows])
    for name in (*LAYERS, "rgb"):
        mine, theirs = supernet.layers[name], network.layers[name]
        if isinstance(mine, SuperBlock):
            _first(mine.dense, theirs)
            each, across = rank_one(mine.dense.weight)
            mine.separable.depthwise.weight.copy_(each)
            mine.separable.pointwise.weight.copy_(across)
            mine.separable.pointwise.bias.copy_(mine.dense.bias)
        else:
            _first(mine, theirs)
    maps = example_maps(network)
    for name, (usual, direct) in READS.items():
        reader, other = supernet.layers[name], supernet.layers[f"{name}_direct"]
        x, y = (
            maps[n][:, : supernet.config.width(n)].transpose(0, 1).flatten(1).T
            for n in (direct, usual)
        )
        through = torch.linalg.lstsq(x, y).solution  # (from, to)
        if isinstance(reader, nn.ConvTranspose2d):  # (inputs, outputs, 4, 4)
            other.weight.copy_(torch.einsum("ab,bohw->aohw", through, reader.weight))
        else:
            other.weight.copy_(torch.einsum("ab,obhw->oahw", through, reader.weight))
        other.bias.copy_(reader.bias)
    return supernet


def _first(mine: nn.Module, theirs: nn.Module) -> None:
    """The first slices of a wider layer's weight and bias."""
    mine.weight.copy_(theirs.weight[tuple(slice(n) for n in mine.weight.shape)])
    mine.bias.copy_(theirs.bias[: len(mine.bias)])
