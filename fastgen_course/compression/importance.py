"""Which channel matters least? Three answers: its weights, what it does to the picture, a die."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastgen_course.compression.channels import Group, Groups, Member, PruningError

Importance = dict[str, Tensor]  # layer: one number from 0 up for each channel


def by_channel(values: Tensor, member: Member) -> Tensor:
    """The sum of a tensor of the member's shape over each channel's slice: (channels,)."""
    along = values.movedim(member.dim, 0).flatten(1).sum(1)
    return along[member.places].sum(1)


def magnitude_importance(state: Mapping[str, Tensor], groups: Groups) -> Importance:
    """The length of all weights that make or read a channel, each tensor's mean length counted 1.

    Needs no data. It is 0 only where nothing reads the channel, which can then be removed exactly.
    """
    return {layer: _magnitude(state, group) for layer, group in groups.items()}


def _magnitude(state: Mapping[str, Tensor], group: Group) -> Tensor:
    total = torch.zeros(group.channels)
    for member in group.members:
        if member.role != "scales" and member.tensor.endswith("weight"):
            squares = by_channel(state[member.tensor].detach().square(), member)
            total += squares / squares.mean().clamp(min=1e-12)
    return total.sqrt()


def random_importance(groups: Groups, generator: torch.Generator) -> Importance:
    """A number of chance for each channel: the row that every criterion has to beat."""
    return {
        layer: torch.rand(group.channels, generator=generator) for layer, group in groups.items()
    }


def gradient_importance(
    network: nn.Module,
    groups: Groups,
    noise: Tensor,
    words: Tensor,
    *,
    probes: int = 16,
    seed: int = 0,
) -> Importance:
    """How far the pictures move when a channel is dimmed, to first order: a length a channel.

    With a factor g_c = 1 on channel c, dimming it changes the picture x by dx/dg_c. For signs v
    drawn anew for each pixel, E (v . dx/dg_c)^2 = ||dx/dg_c||^2, so that a few backward passes give
    all channels at once. (The gradient of a loss would not do: the network that is to be pruned is
    the one that it will be compared with, and there the loss is at its minimum, the gradient 0. See
    Molchanov et al. 2019, "Importance estimation for neural network pruning".)

    Raises `PruningError` for no captions and for fewer than one probe.
    """
    if len(words) == 0 or len(noise) != len(words) or probes < 1:
        raise PruningError(
            "gradient importance needs at least one caption, as many noises and at least one "
            f"probe, got {len(words)} captions, {len(noise)} noises and {probes} probes."
        )
    generator = torch.Generator().manual_seed(seed)
    weights = dict(network.named_parameters())
    readers = {layer: group.reading() for layer, group in groups.items()}
    names = sorted({m.tensor for members in readers.values() for m in members})
    frozen = {name: weights[name].requires_grad for name in names}
    squares = {layer: torch.zeros(group.channels) for layer, group in groups.items()}
    for name in names:
        weights[name].requires_grad_(True)
    pictures = network(noise, words)
    for _ in range(probes):
        signs = torch.randint(0, 2, pictures.shape, generator=generator) * 2.0 - 1
        found = torch.autograd.grad(
            (pictures * signs).sum(), [weights[name] for name in names], retain_graph=True
        )
        slopes = dict(zip(names, found, strict=True))
        for layer, members in readers.items():
            # d/dg of what reads g x: the weight times its own gradient, summed over the slice.
            dimmed = sum(
                by_channel(weights[m.tensor].detach() * slopes[m.tensor], m) for m in members
            )
            squares[layer] += dimmed.square()
    for name in names:
        weights[name].requires_grad_(frozen[name])
    return {layer: (total / probes / len(words)).sqrt() for layer, total in squares.items()}
