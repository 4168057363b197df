"""Record what notebook 11 shows: sensitivity, masks, the lottery, rows at equal budget, times.

    python -m fastgen_course.compression.pruning_records
        [sensitivity|unstructured|two_four|lottery|compared|shipped|speed] [--rows a,b]

On one idle core `sensitivity` takes about 5 minutes, `unstructured` 7, `two_four` 2, `lottery` 6,
`compared` 18 (3 a row), `shipped` 3 (after `train generator_pruned`), and `speed`, on an otherwise
idle machine, 4. All go on where they were, row by row; `--again` measures anew, `--tiny` tries a
part on few pictures and records nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression import quantization_quality as scores
from fastgen_course.compression.channels import LAYERS, widest
from fastgen_course.compression.folding import FoldedGenerator, fold
from fastgen_course.compression.pruning import (
    PRUNED_WIDTHS,
    START,
    cut,
    network_importance,
    paired_mse,
    prune,
)
from fastgen_course.compression.pruning_rows import (
    RECIPE,
    ROWS,
    deployed,
    finalists,
    fresh_network,
    row_trainer,
    total_macs,
)
from fastgen_course.compression.pruning_speed import graph_macs, record_speed
from fastgen_course.compression.sensitivity import SHARES, sensitivity
from fastgen_course.compression.sparsity import (
    LOTTERY_CHANNELS,
    LOTTERY_RECIPE,
    LOTTERY_SHARE,
    MaskedTrainer,
    Masks,
    lottery,
    magnitude_masks,
    masked,
    random_masks,
    sparse_bytes,
    sparsity_of,
    two_of_four_masks,
)
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.timing import ResultError, record, result
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.training.matching import MatchRecipe, relative_error

AREA = "pruning"
COMMAND = "python -m fastgen_course.compression.pruning_records"
SHIPPED = "generator_pruned"
PAIRED_CAPTIONS = 250
CUT_SHARE = 0.4  # of each layer, one at a time, for the FIDs beside the paired errors
ZEROS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SCORED_ZEROS = (0.5, 0.8, 0.9)
MENDED = MatchRecipe(steps=150, batch=64, rate=5e-4, average=0.98, seed=44)
LOTTERY_SEEDS = (1, 2)
ONE_SEED = (0,)


@dataclass(frozen=True)
class Options:
    """What the command line asked for; a trial (`tiny`) records nothing."""

    again: bool = False
    tiny: bool = False
    rows: tuple[str, ...] = ()  # of `compared`; empty: all
    seconds: float = 40.0

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny

    @property
    def recipe(self) -> dict[str, int]:
        """What a trial changes in every recipe."""
        return {"steps": 2, "batch": 4} if self.tiny else {}

    @property
    def rounds(self) -> dict[str, int]:
        """What a trial changes in a recipe that prunes."""
        return {**self.recipe, "rounds": 2, "every": 1} if self.tiny else {}


def percent(share: float) -> str:
    """A share as it stands in an entry's name."""
    return f"{100 * share:.0f}"


def key(name: str = START) -> str:
    """The first digits of shipped weights' hash: what a row is measured for."""
    return load_card(name)["sha256"][:12]


def note(options: Options, name: str, value: float, unit: str, part: str, **extra: Any) -> None:
    """Print a figure and, unless it is a trial, record it; `spread` may be among `extra`."""
    spread = extra.pop("spread", None)
    print(f"{name:48} {value:12.5g} {unit}", flush=True)
    if options.keep:
        extra = {"base": START, "weights": key(), **extra}
        record(AREA, name, value, unit, spread=spread, command=f"{COMMAND} {part}", **extra)


def noted(options: Options, name: str, **extra: Any) -> bool:
    """Whether a figure stands in the registry for these weights, as after a killed run."""
    if options.again or options.tiny:
        return False
    try:
        row = result(name)
    except ResultError:
        return False
    wanted = {"weights": key(), **extra}
    return all(row.extra.get(k) == v for k, v in wanted.items())


def score(
    options: Options, part: str, name: str, make: Callable[[], nn.Module],
    seeds: Sequence[int] = ONE_SEED, **extra: Any,
) -> None:  # fmt: skip
    """Score the network that `make` gives, unless the row is recorded already."""
    n = 60 if options.tiny else scores.PICTURES
    same = {"captions": n, "seeds": list(seeds), "weights": key(), **extra}
    if options.keep and not options.again and scores.is_recorded(name, area=AREA, **same):
        print(f"{name} is recorded already", flush=True)
        return
    network = make().eval()
    found = scores.quality(
        network, network.config.noise, seeds=seeds, n=n, chunk=20 if options.tiny else scores.CHUNK
    )
    print(f"{name:24} FID {statistics.fmean(found.fid):8.3f}  exact "
          f"{statistics.fmean(found.exact_accuracy):.4f}", flush=True)  # fmt: skip
    if options.keep:
        scores.record_quality(
            name, found, area=AREA, command=f"{COMMAND} {part}", base=START, **same
        )


def pairs(options: Options) -> tuple[Tensor, Tensor]:
    """(noise, words) of the fixed captions that every paired error is measured on."""
    generator = torch.Generator().manual_seed(97)
    n = 8 if options.tiny else PAIRED_CAPTIONS
    words = next(scene_batches("test", n, generator)).words
    return torch.randn(n, load_model(START).config.noise, generator=generator), words


# --- channels -----------------------------------------------------------------------------------


def record_sensitivity(options: Options) -> None:
    """Paired errors of every layer and share; FIDs for one share, and for three shapes."""
    base, given = fold(load_model(START)), pairs(options)
    shares = SHARES[:1] if options.tiny else SHARES
    importance = network_importance(base, "gradient")
    last = f"{AREA}.paired_mse.{LAYERS[-1]}_{percent(shares[-1])}"
    if not noted(options, last):
        for layer, errors in sensitivity(base, importance, *given, shares).items():
            for share, error in zip(shares, errors, strict=True):
                name = f"{AREA}.paired_mse.{layer}_{percent(share)}"
                note(options, name, error, "square", "sensitivity", share=share)
    for layer in LAYERS:
        values = importance[layer]
        keep = widest({layer: values}, (round(len(values) * (1 - CUT_SHARE)),))
        score(options, "sensitivity", f"cut_{layer}", lambda k=keep: cut(base, k))
    for name, widths in finalists(base).items():
        network = prune(base, widths)
        error = paired_mse(network, base, *given)
        macs = total_macs(network.config)
        extra = {"widths": list(widths), "macs": macs}
        note(options, f"{AREA}.paired_mse.shape_{name}", error, "square", "sensitivity", **extra)
        score(options, "sensitivity", f"shape_{name}", lambda n=network: n, widths=list(widths))
    for criterion in ("magnitude", "random"):
        error = paired_mse(prune(base, PRUNED_WIDTHS, criterion), base, *given)
        note(options, f"{AREA}.paired_mse.by_{criterion}", error, "square", "sensitivity")
    note(options, f"{AREA}.picture_variance", base(*given).var().item(), "square", "sensitivity")


def record_compared(options: Options) -> None:
    """Every row of ROWS with the same updates in all; our best and torch-pruning's on all seeds."""
    given, base = pairs(options), fold(load_model(START))
    for name in options.rows or tuple(ROWS):
        recipe = replace(
            RECIPE, **options.recipe, **({"every": 1, "rounds": 2} if options.tiny else {})
        )
        seeds = scores.SEEDS if name in ("rounds", "tp_even") and options.keep else ONE_SEED
        same = {"steps": recipe.steps, "rate": recipe.rate,
                "recipe_seed": recipe.seed}  # fmt: skip

        def make(name: str = name, recipe: Any = recipe, same: dict = same) -> nn.Module:
            trainer = row_trainer(name, recipe, label="trial" if options.tiny else "pruning")
            network = deployed(trainer.run(options.tiny, keep=options.keep))
            macs = total_macs(network.config)
            extra = {"widths": list(network.config.channels), **same}
            note(options, f"{AREA}.macs.{name}", macs, "MACs", "compared", **extra)
            error = paired_mse(network, base, *given)
            note(options, f"{AREA}.paired_mse.{name}", error, "square", "compared", **same)
            minutes = trainer.training.seconds / 60
            note(options, f"{AREA}.minutes.{name}", minutes, "minutes", "compared", **same)
            return network

        score(options, "compared", name, make, seeds, **same)


def record_shipped(options: Options) -> None:
    """The shipped network beside GENERATOR_BASE: `pruning.fid_ratio`, `pruning.macs_reduction`."""
    score(options, "shipped", "base", lambda: fold(load_model(START)), scores.SEEDS)
    networks: dict[str, FoldedGenerator] = {"base": fold(load_model(START))}
    networks["pruned"] = load_model(SHIPPED)
    extra = {"pruned_weights": key(SHIPPED), "widths": list(networks["pruned"].config.channels)}
    score(options, "shipped", "pruned", lambda: networks["pruned"], scores.SEEDS, **extra)
    with tempfile.TemporaryDirectory() as folder:
        macs = {name: graph_macs(net, Path(folder)) for name, net in networks.items()}
    for name, kinds in macs.items():
        note(options, f"{AREA}.macs.{name}", sum(kinds.values()), "MACs", "shipped", kinds=kinds)
    reduction = sum(macs["base"].values()) / sum(macs["pruned"].values())
    note(options, f"{AREA}.macs_reduction", reduction, "x", "shipped", **extra)
    error = paired_mse(networks["pruned"], networks["base"], *pairs(options))
    note(options, f"{AREA}.paired_mse.pruned", error, "square", "shipped", **extra)
    if options.keep:
        value, spread, _ = scores.fid_ratio("pruned", ("base",), AREA)
        n = scores.PICTURES
        note(
            options, f"{AREA}.fid_ratio", value, "x", "shipped", spread=spread, captions=n,
            seeds=list(scores.SEEDS), **extra,
        )  # fmt: skip


# --- single weights -----------------------------------------------------------------------------


def record_unstructured(options: Options) -> None:
    """Masks of the smallest weights, and of chance; three of them mended by a short matching."""
    base, given = fold(load_model(START)), pairs(options)
    for share in ZEROS[:1] if options.tiny else ZEROS:
        chance = random_masks(base, share, torch.Generator().manual_seed(0))
        for kind, masks in (("magnitude", magnitude_masks(base, share)), ("chance", chance)):
            error = paired_mse(masked(base, masks), base, *given)
            name = f"{AREA}.paired_mse.{kind}_zeros_{percent(share)}"
            note(options, name, error, "square", "unstructured", share=share)
    for share in SCORED_ZEROS[:1] if options.tiny else SCORED_ZEROS:
        masks = magnitude_masks(base, share)
        name = f"zeros_{percent(share)}"
        score(options, "unstructured", name, lambda m=masks: masked(base, m), share=share)
        _mend(options, "unstructured", name, base, masks, given)
        for how, count in sparse_bytes(masked(base, masks)).items():
            note(options, f"{AREA}.{how}_bytes.{name}", count, "bytes", "unstructured")


def record_two_four(options: Options) -> None:
    """Two of each four weights: as cut, and mended."""
    base, given = fold(load_model(START)), pairs(options)
    masks = two_of_four_masks(base)
    score(options, "two_four", "two_four", lambda: masked(base, masks))
    error = paired_mse(masked(base, masks), base, *given)
    note(options, f"{AREA}.paired_mse.two_four", error, "square", "two_four")
    share = sparsity_of(masked(base, masks))
    note(options, f"{AREA}.zeros_share.two_four", share, "share", "two_four")
    _mend(options, "two_four", "two_four", base, masks, given)


def _mend(
    options: Options, part: str, name: str, base: FoldedGenerator, masks: Masks,
    given: tuple[Tensor, Tensor],
) -> None:  # fmt: skip
    """Score a masked network after the short matching MENDED."""
    recipe = replace(MENDED, **options.recipe)

    def make() -> nn.Module:
        label = f"pruning_{'trial_' if options.tiny else ''}{name}"
        trainer = MaskedTrainer(label, fold(load_model(START)), masks, base, recipe)
        network = trainer.run(options.tiny, keep=options.keep)
        error = paired_mse(network, base, *given)
        steps = recipe.steps
        note(options, f"{AREA}.paired_mse.{name}_mended", error, "square", part, steps=steps)
        return network

    score(options, part, f"{name}_mended", make, steps=recipe.steps)


def record_lottery(options: Options) -> None:
    """The lottery's rows on a narrow network, several draws: how much is left unexplained."""
    base, (noise, words) = fold(load_model(START)), pairs(options)
    config = replace(base.config, channels=LOTTERY_CHANNELS)
    recipe = replace(LOTTERY_RECIPE, **options.recipe)
    extra = {"steps": recipe.steps, "share": LOTTERY_SHARE, "channels": list(LOTTERY_CHANNELS)}
    if noted(options, f"{AREA}.lottery.random", **extra):
        print("the lottery is recorded already", flush=True)
        return
    with torch.no_grad():
        target = base(noise, words)
        found: dict[str, list[float]] = {}
        for seed in LOTTERY_SEEDS[:1] if options.tiny else LOTTERY_SEEDS:
            fresh = [fresh_network(config, s) for s in (seed, 100 + seed)]
            with torch.enable_grad():
                rows = lottery(
                    fresh, base, LOTTERY_SHARE, replace(recipe, seed=recipe.seed + seed),
                    name=f"lottery{seed}", quiet=options.tiny,
                )  # fmt: skip
            for name, network in rows.items():
                error = relative_error(network.eval()(noise, words), target).item()
                found.setdefault(name, []).append(error)
    for name, errors in found.items():
        middle = statistics.fmean(errors)
        note(
            options, f"{AREA}.lottery.{name}", middle, "of the variance", "lottery",
            spread=(min(*errors, middle), max(*errors, middle)), by_seed=errors, **extra,
        )  # fmt: skip


def record_times(options: Options) -> None:
    """Milliseconds in ONNX Runtime; `pruning.speedup`."""
    record_speed(f"{COMMAND} speed", options.seconds, options.tiny)


RECORDERS: Mapping[str, Callable[[Options], None]] = {
    "sensitivity": record_sensitivity,
    "unstructured": record_unstructured,
    "two_four": record_two_four,
    "lottery": record_lottery,
    "compared": record_compared,
    "shipped": record_shipped,
    "speed": record_times,
}
TIMED = ("speed",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; `speed` refuses a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on few pictures")
    parser.add_argument("--rows", default="", help=f"of `compared`, by comma: {', '.join(ROWS)}")
    given = parser.parse_args(arguments)
    parts = given.parts or list(RECORDERS)
    rows = tuple(filter(None, given.rows.split(",")))
    problem = None
    for what, names, known in (("part", parts, RECORDERS), ("row", rows, ROWS)):
        unknown = [name for name in names if name not in known]
        if unknown and problem is None:
            problem = f"there is no {what} {unknown[0]!r}; choose from {', '.join(known)}."
    timed = not given.tiny and set(parts) & set(TIMED)
    if problem is None and timed and (taken := cores_taken()) > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for part in parts:
        RECORDERS[part](Options(given.again, given.tiny, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
