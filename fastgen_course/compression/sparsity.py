"""Single weights set to zero: unstructured masks, 2:4, and the lottery ticket.

A mask leaves the network's shape as it was. Ordinary kernels multiply by a zero as by any other
number, so that a mask saves bytes on disk at most, and no millisecond, until a runtime and a
processor are built for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.compression.channels import PruningError
from fastgen_course.models.judges import SlotJudge
from fastgen_course.training.matching import MatchRecipe, MatchTrainer

Masks = dict[str, Tensor]  # a weight's name: 1 where it stays, 0 where it does not; float32


def maskable(network: nn.Module) -> dict[str, Tensor]:
    """The weights that are masked: matrices and kernels, but for the caption encoder's.

    The encoder is a hundredth of the products, and an embedding's rows are looked up, not
    multiplied.
    """
    return {
        name: p
        for name, p in network.named_parameters()
        if p.ndim > 1 and not name.startswith("caption_encoder")
    }


def check_share(share: float) -> None:
    """Raise `PruningError` unless a share of the weights can be removed: from 0 to below 1."""
    if not 0 <= share < 1:
        raise PruningError(
            f"sparsity must be from 0 up to 1 (without it: all weights), got {share}."
        )


def smallest_mask(weight: Tensor, share: float) -> Tensor:
    """The mask of a tensor without `share` of its entries, those of smallest size.

    Of `round(share * n)` entries, but one always stays. Raises `PruningError` for a share outside
    [0, 1).
    """
    check_share(share)
    gone = min(round(share * weight.numel()), weight.numel() - 1)
    mask = torch.ones(weight.numel())
    mask[weight.detach().abs().flatten().argsort()[:gone]] = 0
    return mask.view(weight.shape)


def magnitude_masks(network: nn.Module, share: float) -> Masks:
    """Each layer's own smallest weights masked (Han et al. 2015).

    One threshold for all layers would compare sizes that mean different things: a norm behind a
    layer undoes any factor of its weights.
    """
    return {name: smallest_mask(weight, share) for name, weight in maskable(network).items()}


def random_masks(network: nn.Module, share: float, generator: torch.Generator) -> Masks:
    """As many zeros a layer, in places of chance."""
    return {
        name: smallest_mask(torch.rand(weight.shape, generator=generator), share)
        for name, weight in maskable(network).items()
    }


def two_of_four(weight: Tensor) -> Tensor:
    """The mask that leaves the two largest of each four neighbouring inputs (Mishra et al. 2021).

    weight: (out, in, ...); groups of four run along `in`, what is left over at its end stays whole.
    """
    if weight.ndim < 2:
        raise PruningError(f"2:4 needs a weight (out, in, ...), got shape {tuple(weight.shape)}.")
    sizes = weight.detach().abs().movedim(1, -1)
    whole = sizes.shape[-1] // 4 * 4
    fours = sizes[..., :whole].unflatten(-1, (-1, 4))
    kept = torch.zeros_like(fours).scatter(-1, fours.topk(2, -1).indices, 1.0)
    mask = torch.ones_like(sizes)
    mask[..., :whole] = kept.flatten(-2)
    return mask.movedim(-1, 1)


def two_of_four_masks(network: nn.Module) -> Masks:
    """`two_of_four` of every maskable layer."""
    return {name: two_of_four(weight) for name, weight in maskable(network).items()}


@torch.no_grad()
def apply_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Multiply the masks into the network's weights, in place; returns it.

    Raises `PruningError` for a mask of a weight that is not there or has another shape.
    """
    weights = dict(network.named_parameters())
    for name, mask in masks.items():
        shape = tuple(weights[name].shape) if name in weights else "missing"
        if shape != tuple(mask.shape):
            raise PruningError(f"the mask of {name} has shape {tuple(mask.shape)}, it is {shape}.")
        weights[name].mul_(mask)
    return network


def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network with the masks multiplied in."""
    return apply_masks(deepcopy(network), masks)


def sparsity_of(network: nn.Module) -> float:
    """The share of zeros among the maskable weights."""
    weights = list(maskable(network).values())
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def sparse_bytes(network: nn.Module) -> dict[str, int]:
    """Bytes of the weights: "dense" as float32, "bitmap" with a bit a place and its nonzeros.

    A bitmap is the smallest index for up to about 90 % zeros; with an index of 4 bytes a nonzero
    (`torch.sparse`) half of the weights have to be zero before anything is saved.
    """
    chosen = {id(w) for w in maskable(network).values()}
    dense = packed = 0
    for p in network.parameters():
        dense += 4 * p.numel()
        nonzero = int((p != 0).sum())
        packed += -(-p.numel() // 8) + 4 * nonzero if id(p) in chosen else 4 * p.numel()
    return {"dense": dense, "bitmap": packed}


class MaskedTrainer(MatchTrainer):
    """`MatchTrainer` of a network whose masked weights stay zero."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        masks: Masks,
        original: nn.Module,
        recipe: MatchRecipe | None = None,
        judge: SlotJudge | None = None,
    ) -> None:
        self.masks = masks
        super().__init__(name, masked(model, masks), original, recipe, judge)

    def step(self, index: int) -> dict[str, float]:
        """One update; what moved away from zero is put back."""
        found = super().step(index)
        apply_masks(self.model, self.masks)
        apply_masks(self.average.model, self.masks)
        return found


# --- the lottery ticket --------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """A row of the lottery: which mask, and which weights stand under it at the start.

    Attributes:
        words: the row in a table.
        mask: "" for none, "winning" from the trained network's sizes, "random".
        rewound: whether training begins with the trained network's own initial weights.
    """

    words: str
    mask: str = ""
    rewound: bool = True


TICKETS: dict[str, Ticket] = {
    "dense": Ticket("all weights"),
    "winning": Ticket("the winning ticket, rewound", "winning"),
    "redrawn": Ticket("the same mask over other initial weights", "winning", rewound=False),
    "random": Ticket("a random mask, rewound", "random"),
}
LOTTERY_RECIPE = MatchRecipe(steps=400, batch=64, rate=2e-3, features=0.0, average=0.99, seed=61)
LOTTERY_CHANNELS = (32, 16, 8)
LOTTERY_SHARE = 0.8


def lottery(
    fresh: Sequence[nn.Module],
    original: nn.Module,
    share: float = LOTTERY_SHARE,
    recipe: MatchRecipe = LOTTERY_RECIPE,
    *,
    name: str = "lottery",
    quiet: bool = False,
    **options: Any,
) -> dict[str, nn.Module]:
    """All rows of TICKETS trained alike (Frankle and Carbin 2019): name: the trained network.

    Train a network densely, keep the places of its largest weights, put the survivors back to what
    they were *before* training, and train again. `fresh`: two untrained networks of one
    architecture, the second for the row with other initial weights. Same data order for all rows.
    """
    masks: dict[str, Masks] = {"": {}}
    masks["random"] = random_masks(fresh[0], share, torch.Generator().manual_seed(recipe.seed))
    trained = {}
    for row, ticket in TICKETS.items():
        start = deepcopy(fresh[0] if ticket.rewound else fresh[1])
        trainer = MaskedTrainer(
            f"{name}_{row}", start, masks[ticket.mask], original, recipe, **options
        )
        trained[row] = trainer.run(quiet, keep=not quiet)
        if row == "dense":
            masks["winning"] = magnitude_masks(trained[row], share)
    return trained
