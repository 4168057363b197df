"""Score one way of drawing with the masked model, and record or recall what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card
from fastgen_course.datasets.captions import labels_of
from fastgen_course.metrics import (
    accuracies,
    caption_list,
    caption_texts,
    fid,
    judge_features,
    precision_recall,
    real_images,
    reference_features,
)
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.masked import draw_masked_images
from fastgen_course.timing import record, result

Settings = Mapping[str, float | int]


@dataclass(frozen=True)
class MaskedPoint:
    """The quality of one way of drawing: shares in [0, 1], and an FID."""

    exact_accuracy: float
    fid: float
    precision: float
    recall: float


def score(
    draw: Callable[[int], Tensor], n: int, seeds: Sequence[int], judge: nn.Module | None
) -> tuple[MaskedPoint, dict[str, float | tuple[float, float]]]:
    """Score `draw(seed)`, pictures of the first n fixed captions; judge None is `judge_report`.

    Returns the means over seeds and the lowest and highest of each figure.
    """
    labels = labels_of(caption_list(n))
    reference = reference_features("test", n, judge=judge)
    points = []
    for seed in seeds:
        features = judge_features(draw(seed), judge)
        exact = accuracies(features, labels, judge=judge).exact.value
        drawn = MaskedPoint(exact, fid(features, reference), *precision_recall(features, reference))
        points.append(drawn)
    columns = {f.name: [getattr(p, f.name) for p in points] for f in fields(MaskedPoint)}
    means = MaskedPoint(**{name: sum(v) / len(v) for name, v in columns.items()})
    return means, {name: (min(v), max(v)) for name, v in columns.items()}


def recorded_point(pattern: str) -> MaskedPoint:
    """A recorded point; the pattern has the figure's name in braces."""
    values = {f.name: float(result(pattern.format(f.name))) for f in fields(MaskedPoint)}
    return MaskedPoint(**values)


def record_point(area: str, pattern: str, scored: Any, **extra: Any) -> None:
    """Record what `score` returned; the pattern has the figure's name in braces."""
    point, spreads = scored
    for name, spread in spreads.items():
        unit = "FID" if name == "fid" else "share"
        record(
            area,
            pattern.format(name),
            getattr(point, name),
            unit,
            spread=(min(spread[0], getattr(point, name)), max(spread[1], getattr(point, name))),
            **extra,
        )


def is_recorded(pattern: str, **extra: Any) -> bool:
    """Whether a point stands in the registry with these extras, as after a killed run."""
    try:
        rows = [result(pattern.format(f.name)) for f in fields(MaskedPoint)]
    except ValueError:
        return False
    return all({k: row.extra.get(k) for k in extra} == extra for row in rows)


def _reconstruct(tokenizer: Tokenizer, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([tokenizer.decode(tokenizer.encode(p)) for p in images.split(500)])


def limits(tokenizer: Tokenizer, n: int) -> dict[str, Callable[[int], Tensor]]:
    """What no model of tokens can pass: real training images, and the same through tokens."""
    asked = labels_of(caption_list(n))

    def real(seed: int) -> Tensor:
        return real_images("train", asked, torch.Generator().manual_seed(1000 + seed))

    return {"real": real, "tokens": lambda seed: _reconstruct(tokenizer, real(seed))}


def drawing(
    model: MaskedModel, tokenizer: Tokenizer, n: int, settings: Settings
) -> Callable[[int], Tensor]:
    """`draw(seed)`: pictures of the first n fixed captions, MASKED_SAMPLING where not set."""
    texts = caption_texts(caption_list(n))

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return draw_masked_images(model, tokenizer, texts, generator=generator, **settings)

    return draw


def weights_id() -> str:
    """Which shipped weights were scored: the beginning of their hash."""
    return load_card("masked")["sha256"][:12]
