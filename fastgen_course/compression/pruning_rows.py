"""The rows that pruning is compared with, each with the same number of updates in all.

    rounds      the shipped way: the least important channels leave in four cuts
    at_once     the same criterion, one cut, all updates behind it
    magnitude   in rounds, by the size of weights
    random      in rounds, channels of chance
    tp_even     torch-pruning's channels, the same share of every layer, at equal products
    tp_global   torch-pruning's channels, one threshold for all layers, at equal products
    scratch     the pruned shape with fresh weights, norms and all

All learn from GENERATOR_BASE's pictures by the same recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.channels import LAYERS, PruningError
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.pruning import PRUNED_WIDTHS, START, PruneRecipe, PruneTrainer
from fastgen_course.compression.sensitivity import layer_macs
from fastgen_course.models.generator import Generator, GeneratorConfig, layer_widths
from fastgen_course.models.judges import SlotJudge
from fastgen_course.training.matching import MatchTrainer

RECIPE = PruneRecipe(steps=400, every=60, seed=43)
# Fresh weights have further to go: with the rate of the others FID stood at 496 after 400 updates.
FRESH = {"rate": 4e-3, "average": 0.98}
ROWS: dict[str, str] = {
    "rounds": "by gradient, in four rounds (ours)",
    "at_once": "by gradient, at once",
    "magnitude": "by magnitude, in four rounds",
    "random": "channels of chance, in four rounds",
    "tp_even": "torch-pruning, the same share of every layer",
    "tp_global": "torch-pruning, one threshold for all layers",
    "scratch": "the pruned shape, fresh weights",
}


def total_macs(config: GeneratorConfig) -> int:
    """Multiply-accumulates of a picture, but for the caption encoder's convolution."""
    return sum(layer_macs(config).values())


def peer_prune(generator: Generator, ratio: float, overall: bool = False) -> Generator:
    """The generator as torch-pruning leaves it, widths rounded to 8; `overall`: one threshold.

    Its dependency graph is traced from a forward pass, its criterion the size of all weights in a
    group (Fang et al. 2023). The stem needs help: behind a `view` 49 of its rows are one channel,
    and the library would remove rows one by one. It is handed the rows of whole channels, those of
    least mean importance by its own criterion, always the share `ratio`. Raises ImportError where
    torch-pruning is not installed (extra `compare`).
    """
    import torch_pruning as tp

    network = deepcopy(generator).eval().requires_grad_(True)
    example = (torch.zeros(1, network.config.noise), torch.ones(1, 9, dtype=torch.int64))
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        network,
        example,
        importance=importance,
        pruning_ratio=ratio,
        global_pruning=overall,
        ignored_layers=[network.stem, network.to_rgb, *network.caption_encoder.children()],
        round_to=8,
    )
    channels = layer_widths(generator.config)[0]
    gone = channels - max(8, int(channels * (1 - ratio)) // 8 * 8)
    rows = torch.arange(network.stem.out_features).view(channels, -1)
    cut_outputs = tp.prune_linear_out_channels
    group = pruner.DG.get_pruning_group(network.stem, cut_outputs, rows.flatten().tolist())
    least = importance(group).view(channels, -1).mean(1).argsort()[:gone]
    if gone > 0:
        leaving = rows[least].flatten().tolist()
        pruner.DG.get_pruning_group(network.stem, cut_outputs, leaving).prune()
    pruner.step()
    layers = (network.conv7, network.up14, network.conv14, network.up28, network.conv28)
    made = [layer.out_channels for layer in layers]
    config = replace(generator.config, channels=(network.conv7.in_channels, *made))
    smaller = Generator(config).eval()
    smaller.load_state_dict(network.state_dict())
    return smaller.requires_grad_(False)


def peer_at(generator: Generator, macs: int, overall: bool = False, tries: int = 8) -> Generator:
    """torch-pruning's network of at least `macs` products and as few more as bisection finds.

    At least, so that the comparison never favours ours. Raises `PruningError` for more than the
    whole network has, and where it finds none.
    """
    most = total_macs(generator.config)
    if not 0 < macs <= most:
        raise PruningError(f"macs must be from 1 to {most} (the whole network's), got {macs}.")
    low, high, best = 0.0, 0.9, generator
    for _ in range(tries):
        middle = (low + high) / 2
        found = peer_prune(generator, middle, overall)
        if total_macs(found.config) >= macs:
            low, best = middle, found
        else:
            high = middle
    if best is generator and macs < most:  # never compare with a network that is whole
        raise PruningError(
            f"macs: torch-pruning found no network from {macs} to below {most}; its widths are "
            "multiples of 8, and these layers are too narrow for that."
        )
    return best


def fresh_network(config: GeneratorConfig, seed: int) -> Generator:
    """Untrained weights of a shape, with the norms that training from nothing needs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config)


def row_trainer(
    name: str,
    recipe: PruneRecipe = RECIPE,
    *,
    base: Generator | None = None,
    judge: SlotJudge | None = None,
    label: str = "pruning",
) -> MatchTrainer:
    """The trainer of a row of ROWS, not yet run. Raises `PruningError` for an unknown row."""
    if name not in ROWS:
        raise PruningError(f"there is no row {name!r}; choose from {', '.join(ROWS)}.")
    base = load_model(START) if base is None else base
    original, label = fold(base), f"{label}_{name}"
    pruned = replace(base.config, channels=recipe.widths)
    if name == "scratch":
        fresh = fresh_network(pruned, recipe.seed)
        return MatchTrainer(label, fresh, original, replace(recipe, **FRESH), judge)
    if name in ("tp_even", "tp_global"):
        start = fold(peer_at(base, total_macs(pruned), name == "tp_global"))
        return MatchTrainer(label, start, original, recipe, judge)
    changes: dict[str, dict[str, object]] = {
        "rounds": {},
        "at_once": {"rounds": 1},
        "magnitude": {"criterion": "magnitude"},
        "random": {"criterion": "random"},
    }
    return PruneTrainer(label, replace(recipe, **changes[name]), original, judge)


def deployed(network: nn.Module) -> FoldedGenerator:
    """The network as it would be used: norms folded away where it has any."""
    return fold(network) if isinstance(network, Generator) else network


def finalists(base: FoldedGenerator) -> dict[str, tuple[int, ...]]:
    """Three ways to spend the same products: (name: widths), none trained.

    `even`: the same share of every layer. `late`: the large maps alone pay. `ours`: PRUNED_WIDTHS.
    """
    whole = base.config
    goal = total_macs(replace(whole, channels=PRUNED_WIDTHS))

    def nearest(widths: Callable[[float], tuple[int, ...]]) -> tuple[int, ...]:
        choices = [widths(step / 64) for step in range(16, 65)]
        return min(choices, key=lambda w: abs(total_macs(replace(whole, channels=w)) - goal))

    full = [w for w in whole.channels for _ in range(6 // len(whole.channels))]
    return {
        "even": nearest(lambda share: tuple(round(w * share) for w in full)),
        "late": nearest(lambda share: (*full[:2], *(max(1, round(w * share)) for w in full[2:]))),
        "ours": PRUNED_WIDTHS,
    }


def widths_words(widths: tuple[int, ...]) -> str:
    """The widths with their layers' names."""
    return ", ".join(f"{layer} {w}" for layer, w in zip(LAYERS, widths, strict=True))
