"""Record what notebooks/APPLICATIONS.md says of uses: measured, with intervals and controls.

    python -m fastgen_course.applications.records PART ...

The parts are inpainting, segmentation, augmentation, membership and privacy; without one, all.
`privacy` needs Opacus (`python -m pip install -c constraints.txt opacus`) and runs only when named
or where it is installed. Each part takes a few minutes on one idle core and goes on where it was,
row by row; `--again` measures anew, `--tiny` tries it all and records nothing, `--rows` names some
of a part's rows.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student_t

from fastgen_course.applications import (
    augmentation,
    inpainting,
    membership,
    privacy,
    segmentation,
)
from fastgen_course.applications.attacks import Attack
from fastgen_course.applications.photographs import GARMENTS
from fastgen_course.checkpoints import load_card
from fastgen_course.timing.results import Result, ResultError, record, result

COMMAND = "python -m fastgen_course.applications.records"
SEEDS = (0, 1, 2, 3)
PIXELS = "pixel value in [-1, 1]"


@dataclass(frozen=True)
class Options:
    """What the command line asked for; a tiny run records nothing."""

    again: bool = False
    tiny: bool = False
    rows: tuple[str, ...] = ()

    def chosen(self, names: list[str]) -> list[str]:
        """The rows of a part that were asked for."""
        return [name for name in names if not self.rows or name in self.rows]


def note(
    options: Options, part: str, name: str, value: float, unit: str, spread: Any, **extra: Any
) -> None:
    """Print a figure and, unless this is a trial, record it as applications_PART.NAME."""
    shown = "" if spread is None else f"  {spread}"
    print(f"{part}.{name:32} {value:10.4f} {unit}{shown}", flush=True)
    if not options.tiny:
        area = f"applications_{part}"
        command = f"{COMMAND} {part}"
        record(area, f"{area}.{name}", value, unit, spread=spread, command=command, **extra)


def known(options: Options, part: str, name: str, **extra: Any) -> Result | None:
    """The figure if it is recorded with these extras; None where it must be measured."""
    if options.again or options.tiny:
        return None
    try:
        row = result(f"applications_{part}.{name}")
    except ResultError:
        return None
    if any(row.extra.get(key) != value for key, value in extra.items()):
        return None
    print(f"{part}.{name} is recorded already", flush=True)
    return row


def key(name: str) -> str:
    """Which weights a figure was measured on: the first digits of their hash."""
    return load_card(name)["sha256"][:12]


# --- inpainting -----------------------------------------------------------------------------------


def record_inpainting(options: Options) -> None:
    """Each way to fill on each kind of mask: exact accuracy, error, features, what changed."""
    count = 10 if options.tiny else inpainting.PICTURES
    draws = 2 if options.tiny else inpainting.DRAWS
    same = {"pictures": count, "draws": draws, "weights": key("masked")}
    for kind in inpainting.MASKS:
        damage = None
        for fill in options.chosen(list(inpainting.FILLS)):
            name = f"{kind}.{fill}"
            if known(options, "inpainting", f"changed.{name}", **same):
                continue
            damage = damage or inpainting.damaged(kind, count)
            found = inpainting.score(fill, damage, draws)
            for figure, value, unit in (
                ("exact_accuracy", found.exact, "share"),
                ("error", found.error, PIXELS),
                ("feature", found.feature, "judge feature distance"),
                ("mean_error", found.mean_error, PIXELS),
            ):
                note(
                    options, "inpainting", f"{figure}.{name}", value.value, unit, value.spread,
                    base="masked", **same,
                )  # fmt: skip
            # Last: it says that the row is whole.
            note(
                options, "inpainting", f"changed.{name}", found.changed, "pixel values", None,
                base="masked", **same,
            )  # fmt: skip
    truth = inpainting.damaged("middle", count).scenes
    exact = inpainting.summarise(inpainting.found_slots(truth.images, truth.labels)).exact
    note(
        options, "inpainting", "exact_accuracy.real", exact.value, "share", exact.spread,
        base="masked", **same,
    )  # fmt: skip


def record_segmentation(options: Options) -> None:
    """Overlap with the true mask: the head, a rule made for these scenes, all pixels."""
    count = 10 if options.tiny else segmentation.PICTURES
    same = {"pictures": count, "weights": key("editor")}
    for way in options.chosen(list(segmentation.WAYS)):
        if known(options, "segmentation", f"overlap_share.{way}", **same):
            continue
        found = segmentation.segmentation_overlap(way, count)
        note(
            options, "segmentation", f"overlap_share.{way}", found.value, "share", found.spread,
            base="editor", **same,
        )  # fmt: skip


# --- augmentation ---------------------------------------------------------------------------------


def record_augmentation(options: Options) -> None:
    """Each arm's accuracy on real test pictures, and what it gains on the arm it is compared with.

    The seeds are paired: one seed draws the same photographs and first weights for every arm.
    """
    recipe = augmentation.TINY if options.tiny else augmentation.RECIPE
    seeds = SEEDS[:2] if options.tiny else SEEDS
    same = {
        "seeds": list(seeds),
        "per_class": recipe.per_class,
        "steps": recipe.classifier.steps,
        "weights": key("generator_base"),
        "test_pictures": GARMENTS * recipe.test,
    }
    values: dict[str, list[float]] = {}
    for name in options.chosen(list(augmentation.ARMS)):
        row = known(options, "augmentation", f"accuracy.{name}", **same)
        if row is not None:
            values[name] = row.extra["by_seed"]
            continue
        values[name] = [augmentation.arm_accuracy(name, seed, recipe) for seed in seeds]
        note(
            options, "augmentation", f"accuracy.{name}", statistics.fmean(values[name]), "share",
            (min(values[name]), max(values[name])), base="generator_base", by_seed=values[name],
            **same,
        )  # fmt: skip
    for name, against in GAINS:
        if name in values and against in values:
            gain, half = paired_gain(values[name], values[against])
            note(
                options, "augmentation", f"gain.{name}_over_{against}", gain, "share",
                (gain - half, gain + half), base="generator_base", **same,
            )  # fmt: skip


GAINS = (
    ("classical", "plain"),
    ("synthetic", "plain"),
    ("both", "plain"),
    ("both", "classical"),
    ("own", "classical"),
    ("recomposed", "classical"),
    ("all", "classical"),
)


def paired_gain(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Mean difference of paired values, and half of its 95 % interval (Student's t)."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    count = len(differences)
    half = student_t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return statistics.fmean(differences), float(half)


# --- membership -----------------------------------------------------------------------------------


def _note_attack(options: Options, part: str, name: str, found: Attack, **extra: Any) -> None:
    sizes = {"members": found.members, "strangers": found.strangers}
    note(
        options, part, f"caught_share.{name}", found.caught, "share", None, **sizes, **extra
    )  # fmt: skip
    note(
        options, part, f"auc.{name}", found.auc, "AUC", (found.low, found.high), **sizes, **extra
    )  # fmt: skip


def record_membership(options: Options) -> None:
    """Each attack: first on its control, which it must catch, then on the shipped network."""
    sizes = membership.TINY if options.tiny else membership.SIZES
    missed: list[str] = []
    for target in options.chosen(list(membership.TARGETS)):
        network = membership.NETWORKS[target]
        same = {"weights": key(network)}
        if known(options, "membership", f"auc.{target}", **same):
            continue
        try:
            wanted = 0.0 if options.tiny else membership.CONTROL_AUC
            control = membership.control(target, sizes, wanted)
        except membership.NothingProven as error:  # the other attacks have controls of their own
            missed.append(str(error))
            continue
        extra = {"base": network, **same}
        _note_attack(options, "membership", f"{target}_control", control.attack, **extra)
        if control.before is not None:
            _note_attack(options, "membership", f"{target}_before", control.before, **extra)
        for name, views in (
            (f"{target}_control", control.views),
            (target, membership.views_trained(target)),
        ):
            note(
                options, "membership", f"views.{name}", views, "times a photograph", None, **extra
            )  # fmt: skip
        _note_attack(
            options, "membership", target, membership.attack_shipped(target, sizes), **extra
        )  # fmt: skip
    if missed:
        raise membership.NothingProven(" ".join(missed))


# --- privacy --------------------------------------------------------------------------------------


def record_privacy(options: Options) -> None:
    """The classifier without privacy and at each epsilon: accuracy, and what the attack finds."""
    recipe = privacy.TINY if options.tiny else privacy.RECIPE
    privacy.require_opacus()
    same = {
        "photographs": GARMENTS * recipe.per_class, "epochs": recipe.epochs, "delta": recipe.delta,
        "clip": recipe.clip,
    }  # fmt: skip
    for level in options.chosen(list(privacy.LEVELS)):
        if known(options, "privacy", f"auc.{level}", **same):
            continue
        found = privacy.measure_privacy(level, recipe)
        extra = {"base": "garment_net", "noise_multiplier": found.noise, **same}
        for figure, value in (
            ("accuracy", found.accuracy),
            ("accuracy_train", found.accuracy_train),
        ):
            note(
                options, "privacy", f"{figure}.{level}", value.value, "share", value.spread, **extra
            )  # fmt: skip
        if found.epsilon is not None:
            note(
                options, "privacy", f"spent.{level}", found.epsilon, "epsilon", None, **extra
            )  # fmt: skip
        _note_attack(options, "privacy", level, found.attack, **extra)


RECORDERS: dict[str, Callable[[Options], None]] = {
    "inpainting": record_inpainting,
    "segmentation": record_segmentation,
    "augmentation": record_augmentation,
    "membership": record_membership,
    "privacy": record_privacy,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and record; 2 for a mistake on the command line, 1 where nothing is proven."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial that records nothing")
    parser.add_argument("--rows", default="", help="some rows of the part, by comma")
    given = parser.parse_args(arguments)
    rows = tuple(filter(None, given.rows.split(",")))
    choices = {
        *inpainting.FILLS, *segmentation.WAYS, *augmentation.ARMS, *membership.TARGETS,
        *privacy.LEVELS,
    }  # fmt: skip
    for what, names, allowed in (
        ("part", given.parts, list(RECORDERS)),
        ("row", rows, sorted(choices)),
    ):
        for name in names:
            if name not in allowed:
                print(
                    f"error: there is no {what} {name!r}; choose from {', '.join(allowed)}.",
                    file=sys.stderr,
                )
                return 2
    for part in given.parts or list(RECORDERS):
        begun = time.perf_counter()
        try:
            RECORDERS[part](Options(given.again, given.tiny, rows))
        except privacy.OpacusMissing as error:
            print(f"error: {error}", file=sys.stderr)
            if given.parts:
                return 2
        except membership.NothingProven as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{part}: {(time.perf_counter() - begun) / 60:.1f} minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
