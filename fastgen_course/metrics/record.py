"""Record what the judges are worth and where the FID scale begins and ends.

`python -m fastgen_course.metrics.record` needs the three judges' weights and some minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.metrics.accuracy import GARMENT, SLOT_NAMES, found_slots, read_slots
from fastgen_course.metrics.features import report_judge
from fastgen_course.metrics.intervals import Estimate, estimate
from fastgen_course.metrics.report import floor_and_ceiling
from fastgen_course.models.judges import label_slots
from fastgen_course.timing.results import record

COMMAND = "python -m fastgen_course.metrics.record"
_SIZE, _STYLE = SLOT_NAMES.index("size"), SLOT_NAMES.index("style")


def scene_labels(style: int, n: int | None = None, seed: int = 7) -> Tensor:
    """Labels (N, 5) that put each test photo into one scene of a style, the rest drawn."""
    garments = load_fashion("test").labels[:n]
    generator = torch.Generator().manual_seed(seed + style)
    labels = torch.stack(
        [torch.randint(len(v), (len(garments),), generator=generator) for v in SLOTS.values()], 1
    )
    labels[:, GARMENT], labels[:, _STYLE] = garments, style
    return labels


def judge_accuracies(
    judge: nn.Module, n: int | None = None, seed: int = 7
) -> Iterator[tuple[str, Estimate]]:
    """(name, accuracy) of a judge on real test photos, each composed once in every style.

    Every slot over all styles, garment in each style, size, and pair of both, and the garment in
    photo style under the name "garment_accuracy". `n` takes the first n photos alone.
    """
    photos = load_fashion("test").images[:n]
    labels = torch.cat([scene_labels(style, n, seed) for style in range(len(SLOTS["style"]))])
    parts = zip(
        photos.repeat(len(SLOTS["style"]), 1, 1).split(1000), labels.split(1000), strict=True
    )
    found = torch.cat([found_slots(compose(p, y).images, y, judge=judge) for p, y in parts])
    for index, slot in enumerate(SLOT_NAMES):
        name = "garment_accuracy_all_styles" if index == GARMENT else f"{slot}_accuracy"
        yield name, estimate(found[:, index])
    yield "exact_accuracy", estimate(found.all(1).float())
    garment = found[:, GARMENT]
    for j, size in enumerate(SLOTS["size"]):
        yield f"garment_accuracy_{size}", estimate(garment[labels[:, _SIZE] == j])
    for k, style in enumerate(SLOTS["style"]):
        here, word = labels[:, _STYLE] == k, style.replace(" ", "_")
        if style == "photo":
            yield "garment_accuracy", estimate(garment[here])
        yield f"garment_accuracy_{word}", estimate(garment[here])
        for j, size in enumerate(SLOTS["size"]):
            rows = here & (labels[:, _SIZE] == j)
            yield f"garment_accuracy_{size}_{word}", estimate(garment[rows])
    yield "empty_scene_accuracy", estimate(_empty_scenes_found(judge))


def _empty_scenes_found(judge: nn.Module) -> Tensor:
    """1 or 0 for each empty scene there is: one a background."""
    labels = torch.full((len(SLOTS["background"]), len(SLOTS)), FREE)
    labels[:, GARMENT] = EMPTY
    labels[:, SLOT_NAMES.index("background")] = torch.arange(len(labels))
    blank = torch.zeros(len(labels), 28, 28, dtype=torch.uint8)
    read = read_slots(compose(blank, labels).images, judge=judge)
    return (read == labels).all(1).float()


def plain_accuracy(judge: nn.Module, n: int | None = None) -> Estimate:
    """Garment accuracy of the judge of plain grey photographs (N, 1, 28, 28) on the test split."""
    photos, garments = load_fashion("test")
    read = label_slots(judge, photos[:n, None].float() / 127.5 - 1)[:, GARMENT]
    return estimate((read == garments[:n]).float())


def main() -> None:
    """Measure and record everything of the areas `judge` and `fid`."""
    plain = plain_accuracy(load_model("judge_plain"))
    rows = [("garment_accuracy_plain", "judge_plain", plain)]
    rows += [(name, "judge_report", found) for name, found in judge_accuracies(report_judge())]
    rows += [
        (f"train_{name}", "judge_train", found)
        for name, found in judge_accuracies(load_model("judge_train"))
    ]
    for name, base, found in rows:
        print(f"judge.{name:45} {found}", flush=True)
        record(
            "judge",
            f"judge.{name}",
            found.value,
            "share",
            spread=(found.low, found.high),
            command=COMMAND,
            base=base,
            images=found.count,
        )
    seeds = (0, 1, 2)
    floor, ceiling = floor_and_ceiling(seeds)
    for name, value in (("floor", floor), ("ceiling", ceiling)):
        print(f"fid.{name:8} {value}", flush=True)
        record(
            "fid",
            f"fid.{name}",
            value.mean,
            "FID",
            spread=value.deviation,
            command=COMMAND,
            base="judge_report",
            images=10_000,
            seeds=list(seeds),
        )


if __name__ == "__main__":
    main()
