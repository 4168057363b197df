"""Everything a table says about one way of drawing, with the value of real images beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgen_course.datasets.captions import EMPTY, Attributes, labels_of
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.metrics.accuracy import Accuracies, found_slots, summarise
from fastgen_course.metrics.checks import MetricError, check_images
from fastgen_course.metrics.features import judge_features, report_judge
from fastgen_course.metrics.frechet import fid
from fastgen_course.metrics.neighbours import nearest_features, precision_recall
from fastgen_course.metrics.reference import (
    CAPTIONS,
    HELD_OUT_CAPTIONS,
    caption_list,
    caption_texts,
    heldout_list,
    real_images,
    reference_features,
    uniform_noise,
)
from fastgen_course.timing.results import record

Sampler = Callable[[list[str], torch.Generator], Tensor]
COPY_CAPTIONS = 40  # captions whose every possible training image is compared


@dataclass(frozen=True)
class Spread:
    """One value a sampling seed: their mean and standard deviation (0 for a single seed)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        if len(self.values) < 2:
            return 0.0
        squares = sum((value - self.mean) ** 2 for value in self.values)
        return (squares / (len(self.values) - 1)) ** 0.5

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.deviation:.2g}"


@dataclass(frozen=True)
class Scores:
    """The quality of one set of drawings.

    `accuracies` and `held_out` are shares in [0, 1]. `copy_distance` is the median distance to the
    nearest training image of the same caption, the root mean square difference of pixels in
    [-1, 1]; `feature_distance` is the median distance to the nearest of 10,000 training images in
    the judge's features.
    """

    fid: Spread
    accuracies: Accuracies
    held_out: Accuracies
    precision: Spread
    recall: Spread
    copy_distance: Spread
    feature_distance: Spread


@dataclass(frozen=True)
class Report:
    """Scores of what was drawn, and of real images in its place.

    For FID, precision and recall the real images are training photos (their FID is the floor); for
    accuracies and distances they are test photos, which no generator saw.
    """

    drawn: Scores
    real: Scores
    captions: int
    seeds: tuple[int, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, drawn, real) as text, for a table."""
        pairs = [(name, getattr(self.drawn, name), getattr(self.real, name)) for name in _SPREADS]
        for prefix, field in (("", "accuracies"), ("held-out ", "held_out")):
            for name in ("slot", "exact", "garment"):
                ours, theirs = (getattr(getattr(s, field), name) for s in (self.drawn, self.real))
                pairs.append((f"{prefix}{name}_accuracy", ours, theirs))
        return [(name.replace("_", " "), str(ours), str(theirs)) for name, ours, theirs in pairs]

    def __str__(self) -> str:
        rows = [("", "drawn", "real images"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def record(self, area: str, *, command: str, **extra: object) -> None:
        """Write every figure into the results registry as AREA.name, real ones as AREA.name_real.

        `extra` goes into each entry (base model, runtime, dtype...).
        """
        extra = {"captions": self.captions, "seeds": list(self.seeds), **extra}
        for suffix, scores in (("", self.drawn), ("_real", self.real)):
            for name in _SPREADS:
                figure = getattr(scores, name)
                unit = _UNITS.get(name, "share")
                record(
                    area,
                    f"{area}.{name}{suffix}",
                    figure.mean,
                    unit,
                    spread=figure.deviation,
                    command=command,
                    **extra,
                )
            for prefix, found in (("", scores.accuracies), ("heldout_", scores.held_out)):
                for name in ("slot", "exact", "garment"):
                    figure = getattr(found, name)
                    record(
                        area,
                        f"{area}.{prefix}{name}_accuracy{suffix}",
                        figure.value,
                        "share",
                        spread=(figure.low, figure.high),
                        command=command,
                        by_slot={slot: round(share, 4) for slot, share in found.by_slot.items()},
                        **extra,
                    )


_SPREADS = ("fid", "precision", "recall", "copy_distance", "feature_distance")
_UNITS = {"fid": "FID", "copy_distance": "pixel RMS", "feature_distance": "feature distance"}


def same_caption_distance(images: Tensor, attributes: Sequence[Attributes]) -> Tensor:
    """Distance (B,) from each image to the nearest training image of its caption.

    Every training photo of the garment is composed as the caption asks, so that a copy has
    distance 0 and cannot hide in another colour. The distance is the root mean square difference
    of pixels in [-1, 1]. Captions need every slot; empty scenes, all alike, are refused. One to
    two seconds a caption; images of one caption share its compositions.
    """
    check_images(images)
    labels = labels_of(attributes)
    if len(labels) != len(images) or (labels < 0).any() or (labels[:, 2] == EMPTY).any():
        raise MetricError("attributes needs one complete caption an image, none an empty scene.")
    train = load_fashion("train")
    queries = images.cpu().flatten(1)
    nearest = torch.full((len(images),), float("inf"))
    for label in labels.unique(dim=0):
        here = (labels == label).all(1)
        for photos in train.images[train.labels == label[2]].split(500):
            scenes = compose(photos, label.expand(len(photos), -1)).images.flatten(1)
            distance = nearest_features(queries[here], scenes)[0]
            nearest[here] = torch.minimum(nearest[here], distance)
    return nearest / queries.shape[1] ** 0.5


class _Tally:
    """Collects what the seeds of one way of drawing give."""

    def __init__(self, captions: list[Attributes], held_out: list[Attributes], judge: nn.Module):
        self.labels, self.held_out_labels = labels_of(captions), labels_of(held_out)
        self.judge = judge
        self.reference = reference_features("test", len(captions), judge=judge)
        self.training = reference_features("train", len(captions), judge=judge)
        self.columns: dict[str, list[float]] = {name: [] for name in _SPREADS}
        self.found: list[Tensor] = []
        self.found_held_out: list[Tensor] = []

    def add(self, images: Tensor, held_out: Tensor, for_fid: Tensor | None = None) -> None:
        """Score the images of one seed; `for_fid` stands in for them where training photos must."""
        features = judge_features(images, self.judge)
        self.found.append(found_slots(features, self.labels, judge=self.judge))
        self.found_held_out.append(found_slots(held_out, self.held_out_labels, judge=self.judge))
        distance, _ = nearest_features(features, self.training)
        self.columns["feature_distance"].append(float(distance.median()))
        if for_fid is not None:
            features = judge_features(for_fid, self.judge)
        self.columns["fid"].append(fid(features, self.reference))
        for name, value in precision_recall(features, self.reference)._asdict().items():
            self.columns[name].append(value)

    def scores(self, copy_distances: list[float]) -> Scores:
        self.columns["copy_distance"] = copy_distances
        return Scores(
            accuracies=summarise(torch.stack(self.found)),
            held_out=summarise(torch.stack(self.found_held_out)),
            **{name: Spread(tuple(values)) for name, values in self.columns.items()},
        )


def evaluate(
    sample: Sampler,
    seeds: Sequence[int] = (0, 1, 2),
    n: int = CAPTIONS,
    n_held_out: int = HELD_OUT_CAPTIONS,
    *,
    judge: nn.Module | None = None,
    batch: int = 500,
    copy_captions: int = COPY_CAPTIONS,
) -> Report:
    """Score a way of drawing on the fixed caption lists, real images beside it.

    `sample(captions, generator)` draws one image (3, 28, 28) in [-1, 1] a caption; it is called
    with up to `batch` captions at a time and one generator a seed. Compare only reports of the
    same n: FID falls with n. A few minutes on one core for 10,000 captions and three seeds of a
    fast sampler. Raises MetricError when the sampler's images cannot be scored.
    """
    if len(seeds) == 0:
        raise MetricError("seeds is empty: give at least one sampling seed.")
    judge = report_judge() if judge is None else judge
    captions, held_out = caption_list(n), heldout_list(n_held_out)
    searched = [i for i, y in enumerate(captions) if y.garment != "nothing"][:copy_captions]
    drawn, real = (_Tally(captions, held_out, judge) for _ in range(2))
    ours, theirs = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        images = _drawn(sample, caption_texts(captions), generator, batch)
        drawn.add(images, _drawn(sample, caption_texts(held_out), generator, batch))
        ours.append(images[searched])
        test, train = _real("test"), _real("train")
        images = test(captions, seed)
        real.add(images, test(held_out, seed), for_fid=train(captions, seed))
        theirs.append(images[searched])
    asked = [captions[i] for i in searched] * (2 * len(seeds))
    copies = same_caption_distance(torch.cat([*ours, *theirs]), asked)
    copies = copies.view(2, len(seeds), -1).median(2).values.tolist()
    return Report(
        drawn=drawn.scores(copies[0]),
        real=real.scores(copies[1]),
        captions=n,
        seeds=tuple(seeds),
    )


@torch.no_grad()
def _drawn(sample: Sampler, texts: list[str], generator: torch.Generator, batch: int) -> Tensor:
    parts = []
    for start in range(0, len(texts), batch):
        captions = texts[start : start + batch]
        images = sample(captions, generator)
        check_images(images, "the sampler's output")
        if len(images) != len(captions):
            raise MetricError(
                f"the sampler drew {len(images)} images for {len(captions)} captions: it must draw "
                "one a caption."
            )
        parts.append(images.float().cpu())
    return torch.cat(parts)


def _real(split: str) -> Callable[[Sequence[Attributes], int], Tensor]:
    def draw(attributes: Sequence[Attributes], seed: int) -> Tensor:
        # Seed 0 is the reference's own choice of photos; these are others.
        return real_images(split, attributes, torch.Generator().manual_seed(1000 + seed))

    return draw


def floor_and_ceiling(
    seeds: Sequence[int] = (0, 1, 2), n: int = CAPTIONS, *, judge: nn.Module | None = None
) -> tuple[Spread, Spread]:
    """FID of real training images, and of uniform noise, against real test images.

    Nothing honest falls below the floor by more than its spread; nothing sensible exceeds the
    ceiling.
    """
    judge = report_judge() if judge is None else judge
    captions = caption_list(n)
    reference = reference_features("test", n, judge=judge)
    floor, ceiling = [], []
    for seed in seeds:
        floor.append(fid(judge_features(_real("train")(captions, seed), judge), reference))
        noise = uniform_noise(n, torch.Generator().manual_seed(seed))
        ceiling.append(fid(judge_features(noise, judge), reference))
    return Spread(tuple(floor)), Spread(tuple(ceiling))
