"""Channels that depend on each other: what must be removed together, and removing it.

A channel of a layer's output is a slice of many tensors: of the layer that makes it, of the norms
and the modulation that scale it, and of the layer that reads it. Removing it everywhere leaves a
smaller *dense* network, which every runtime runs faster without being told (Li et al. 2017,
"Pruning filters for efficient ConvNets"; dependency groups as in Fang et al. 2023, "DepGraph").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastgen_course.compression.folding import FORMS, in_blocks
from fastgen_course.models.generator import GeneratorConfig, layer_widths

LAYERS = ("stem", "conv7", "up14", "conv14", "up28", "conv28")
READERS = ("conv7", "up14", "conv14", "up28", "conv28", "to_rgb")  # who reads each layer's output
UPSAMPLING = ("up14", "up28")
STEM_SIDE = 7
_NORMS = ("stem_norm", "norm7", "norm14a", "norm14b", "norm28a", "norm28b")  # of `Generator`
_MODULATED = 4  # layers, from the first, that the condition modulates

Keep = Mapping[str, Tensor]  # layer: indices of the channels that stay, ascending


class PruningError(ValueError):
    """What was asked for cannot be pruned; one sentence that names the field and its range."""


@dataclass(frozen=True)
class Member:
    """A tensor's part in a group.

    Attributes:
        tensor: its name in the state dict.
        dim: the dimension that runs over channels.
        places: (channels, k) int64: the k indices along `dim` that belong to each channel.
        role: "makes" the channel, "scales" it, or "reads" it.
    """

    tensor: str
    dim: int
    places: Tensor
    role: str


@dataclass(frozen=True)
class Group:
    """All slices that one layer's output channels consist of; they go together."""

    layer: str
    channels: int
    members: tuple[Member, ...]

    def reading(self) -> tuple[Member, ...]:
        """The members that read the channels: with these at 0, the channels have no effect."""
        return tuple(member for member in self.members if member.role == "reads")


Groups = dict[str, Group]


# --- where a channel lies along a dimension ------------------------------------------------------


def straight(channels: int, offset: int = 0) -> Tensor:
    """One index a channel, in order: a convolution's outputs or inputs, a bias."""
    return torch.arange(offset, offset + channels)[:, None]


def runs(channels: int, length: int) -> Tensor:
    """A run of indices a channel: a linear layer's outputs before `view(-1, channels, h, w)`."""
    return torch.arange(channels * length).view(channels, length)


def spread(channels: int, copies: int, offset: int = 0) -> Tensor:
    """One index in each of several copies: the 4 pixels of `BlockUpsampling`'s convolution (copy,
    channel), and a modulation that gives all scales, then all shifts.

    PyTorch's PixelShuffle orders (channel, pixel) instead: that would be `runs(channels, 4)`.
    """
    return offset + torch.arange(copies * channels).view(copies, channels).T


# --- the generator's groups ----------------------------------------------------------------------


def folded_groups(config: GeneratorConfig, form: str = "transposed") -> Groups:
    """The six groups of a `FoldedGenerator`, by layer. Raises `PruningError` for another form."""
    if form not in FORMS:
        raise PruningError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    widths, groups, offset = layer_widths(config), {}, 0
    for index, (layer, width) in enumerate(zip(LAYERS, widths, strict=True)):
        members = [*_makers(layer, width, form, bias=True)]
        if index < _MODULATED:  # one linear layer gives the scales and shifts of all four
            places = spread(width, 2, offset)
            members += [Member(f"modulation.{x}", 0, places, "scales") for x in ("weight", "bias")]
            offset += 2 * width
        groups[layer] = Group(layer, width, (*members, _reader(index, width, form)))
    return groups


def generator_groups(config: GeneratorConfig) -> Groups:
    """The six groups of a `Generator`: norms and their statistics are sliced with their layer."""
    groups = {}
    for index, (layer, width) in enumerate(zip(LAYERS, layer_widths(config), strict=True)):
        members = [*_makers(layer, width, "transposed", bias=layer == "stem")]
        norm, own = _NORMS[index], straight(width)
        inner = f"{norm}.norm" if index < _MODULATED else norm
        members += [Member(f"{inner}.running_{x}", 0, own, "scales") for x in ("mean", "var")]
        linear, places = f"{norm}.scale_shift", spread(width, 2)
        if index >= _MODULATED:
            linear, places = norm, own
        members += [Member(f"{linear}.{x}", 0, places, "scales") for x in ("weight", "bias")]
        groups[layer] = Group(layer, width, (*members, _reader(index, width, "transposed")))
    return groups


def _makers(layer: str, width: int, form: str, *, bias: bool) -> list[Member]:
    name, dim, places = layer, 0, straight(width)
    if layer == "stem":
        places = runs(width, STEM_SIDE * STEM_SIDE)
    elif in_blocks(form, layer):
        name, places = f"{layer}.conv", spread(width, 4)
    elif layer in UPSAMPLING:
        dim = 1  # a transposed convolution's weight is (in, out, kh, kw)
    members = [Member(f"{name}.weight", dim, places, "makes")]
    return members + ([Member(f"{name}.bias", 0, places, "makes")] if bias else [])


def _reader(index: int, width: int, form: str) -> Member:
    name, dim = READERS[index], 1
    if in_blocks(form, name):
        name = f"{name}.conv"
    elif name in UPSAMPLING:
        dim = 0
    return Member(f"{name}.weight", dim, straight(width), "reads")


# --- choosing and removing -----------------------------------------------------------------------


def widest(importance: Mapping[str, Tensor], widths: Sequence[int]) -> dict[str, Tensor]:
    """The indices of each layer's most important channels, ascending; `widths` as in LAYERS.

    Raises `PruningError` for another number of widths, and for one below 1 (that would remove a
    whole layer) or above what the layer has.
    """
    if len(widths) != len(importance):
        raise PruningError(
            f"widths must have one number for each of {', '.join(importance)}, got {len(widths)}."
        )
    keep = {}
    for (layer, values), width in zip(importance.items(), widths, strict=True):
        if not 1 <= width <= len(values):
            raise PruningError(
                f"widths: {layer} can keep from 1 to {len(values)} channels, got {width}."
            )
        if not values.isfinite().all():
            raise PruningError(f"importance of {layer} must be finite, got NaN or infinity.")
        keep[layer] = values.topk(width).indices.sort().values
    return keep


def check_keep(groups: Groups, keep: Keep) -> None:
    """Raise `PruningError` unless `keep` names channels of these groups, at least one of each."""
    if unknown := keep.keys() - groups.keys():
        raise PruningError(
            f"keep: there is no layer {min(unknown)!r}; choose from {', '.join(groups)}."
        )
    for layer, kept in keep.items():
        most = groups[layer].channels
        if not 1 <= len(kept) <= most:
            raise PruningError(
                f"keep: {layer} can keep from 1 to {most} channels, got {len(kept)}."
            )
        if kept.unique().numel() != len(kept) or kept.min() < 0 or kept.max() >= most:
            raise PruningError(
                f"keep: {layer} has the channels 0 to {most - 1}, each at most once."
            )


def remove_channels(state: Mapping[str, Tensor], groups: Groups, keep: Keep) -> dict[str, Tensor]:
    """A state dict without the channels that are not kept; a layer missing in `keep` stays whole.

    Also for anything else that has the parameters' names and shapes, as Adam's moments. Raises
    `PruningError` for a layer that would lose all its channels, and for a state of other shapes.
    """
    check_keep(groups, keep)
    stays: dict[tuple[str, int], Tensor] = {}
    for layer, kept in keep.items():
        gone = torch.ones(groups[layer].channels, dtype=torch.bool)
        gone[kept] = False
        for member in groups[layer].members:
            _check_shape(state, groups[layer], member)
            # Several groups may slice one tensor, as the modulation: gather before cutting.
            key = (member.tensor, member.dim)
            whole = torch.ones(state[member.tensor].shape[member.dim], dtype=torch.bool)
            stays.setdefault(key, whole)[member.places[gone].flatten()] = False
    smaller = dict(state)
    for (name, dim), mask in stays.items():
        smaller[name] = smaller[name].index_select(dim, mask.nonzero().flatten())
    return {name: tensor.clone() for name, tensor in smaller.items()}


def _check_shape(state: Mapping[str, Tensor], group: Group, member: Member) -> None:
    shape = tuple(state[member.tensor].shape) if member.tensor in state else ()
    fits = member.dim < len(shape) and member.places.max() < shape[member.dim]
    if not fits or (member.role != "scales" and member.places.numel() != shape[member.dim]):
        raise PruningError(
            f"state and groups must be of one network: {group.layer} has {group.channels} channels "
            f"in the groups, {member.tensor} is {shape or 'missing'} in the state."
        )


def kept_config(config: GeneratorConfig, keep: Keep) -> GeneratorConfig:
    """The config of the network that `remove_channels` leaves: six widths, one a layer."""
    widths = dict(zip(LAYERS, layer_widths(config), strict=True))
    widths.update({layer: len(kept) for layer, kept in keep.items()})
    return replace(config, channels=tuple(widths[layer] for layer in LAYERS))
