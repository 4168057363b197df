"""Score editing on balanced edits of real test scenes and record it.

`python -m fastgen_course.training.edit_records` takes about three minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS, attributes_of, held_out_mask
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.edits import change_labels
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import captions_of, draw_labels, draw_rows, make_empty_
from fastgen_course.metrics.accuracy import found_slots
from fastgen_course.metrics.features import judge_features
from fastgen_course.metrics.intervals import estimate
from fastgen_course.metrics.silhouette import intersection_over_union, silhouettes
from fastgen_course.sampling.masked import sample_masked
from fastgen_course.sampling.studio import Studio, studio
from fastgen_course.timing.results import record

EDITS = 400
COMMAND = "python -m fastgen_course.training.edit_records"


@dataclass(frozen=True)
class EditCases:
    """Edits of real pictures, a fifth of them of each slot, one slot each.

    Attributes:
        images: float32 (B, 3, 28, 28), the pictures to edit.
        targets: float32 (B, 3, 28, 28), the same photograph as it should look; for another garment
            a photograph of that garment, one of many right answers.
        before, after: int64 (B, 5).
        asked: int64 (B, 5), the new value of what changes, FREE elsewhere.
        kept: bool (B,), whether the garment stays, so that the target is exact.
    """

    images: Tensor
    targets: Tensor
    before: Tensor
    after: Tensor
    asked: Tensor
    kept: Tensor


def balanced_edits(n: int = EDITS, seed: int = 11) -> EditCases:
    """`n` edits of test scenes: as many of each slot, none idle, none held out.

    Of those of the garment a third swaps it, a third takes it away and a third adds one to an empty
    scene. Raises ValueError unless five slots divide n.
    """
    if n < 15 or n % len(SLOTS):
        raise ValueError(f"edits are shared out over five slots: {n} is no multiple of 5 from 15.")
    generator = torch.Generator().manual_seed(seed)
    before = _garments(n, generator)
    slot = torch.arange(n) % len(SLOTS)
    changed = torch.nn.functional.one_hot(slot, len(SLOTS)).bool()
    garment = torch.nonzero(slot == 2)[:, 0]
    swap, remove, add = garment[0::3], garment[1::3], garment[2::3]
    changed[garment] = False
    after = change_labels(before, changed, generator)
    after[swap] = _other_garment(before[swap], generator)
    make_empty_(after, _rows(n, remove))
    make_empty_(before, _rows(n, add))
    source = draw_rows(before, "test", generator)
    target = source.clone()
    fresh = torch.cat([swap, add])
    target[fresh] = draw_rows(after[fresh], "test", generator)
    photos = load_fashion("test").images
    return EditCases(
        images=compose(photos[source], before).images,
        targets=compose(photos[target], after).images,
        before=before,
        after=after,
        asked=torch.where(before != after, after, FREE),
        kept=(before[:, 2] == after[:, 2]),
    )


def _garments(n: int, generator: torch.Generator) -> Tensor:
    labels = draw_labels(n, generator)
    while (empty := labels[:, 2] == EMPTY).any():
        labels[empty] = draw_labels(int(empty.sum()), generator)
    return labels


def _other_garment(labels: Tensor, generator: torch.Generator) -> Tensor:
    labels = labels.clone()
    again = torch.ones(len(labels), dtype=torch.bool)
    old = labels[:, 2].clone()
    while again.any():
        shift = torch.randint(1, EMPTY, (int(again.sum()),), generator=generator)
        labels[again, 2] = (old[again] + shift) % EMPTY
        again = held_out_mask(labels)
    return labels


def _rows(n: int, rows: Tensor) -> Tensor:
    return torch.zeros(n, dtype=torch.bool).index_fill(0, rows, True)


Method = Callable[[EditCases, torch.Generator], Tensor]


def methods(rooms: Studio) -> dict[str, Method]:
    """The three ways to edit that are compared, and the exact target through the tokens.

    Every way gets the true descriptions, so that the figures speak of drawing alone: notebook 06
    measures reading and language apart. The target itself, encoded and decoded, is what nothing
    that paints with these tokens can be expected to beat.
    """

    def editor(cases: EditCases, generator: torch.Generator) -> Tensor:
        before, after = attributes_of(cases.before), attributes_of(cases.after)
        return rooms.edit(cases.images, before, after, generator).images

    def redraw(cases: EditCases, generator: torch.Generator) -> Tensor:
        return rooms.draw(captions_of(cases.after), generator)

    def masked_redraw(cases: EditCases, generator: torch.Generator) -> Tensor:
        hidden = changed_places(cases, rooms.segment(cases.images))
        tokens = sample_masked(
            load_model("masked"),
            captions_of(cases.after),
            generator=generator,
            start=rooms.encode(cases.images),
            hidden=hidden,
        )
        return rooms.paint(tokens)

    def tokens(cases: EditCases, generator: torch.Generator) -> Tensor:
        return rooms.paint(rooms.encode(cases.targets))

    return {"editor": editor, "redraw": redraw, "masked_redraw": masked_redraw, "tokens": tokens}


def changed_places(cases: EditCases, masks: Tensor) -> Tensor:
    """Which tokens a masked redraw hides: the garment's, or for its background all others.

    A token is the garment's where its place touches the garment's mask (B, 28, 28).
    """
    touched = torch.nn.functional.max_pool2d(masks[:, None].float(), 4).flatten(1) > 0
    background = cases.before[:, 3] != cases.after[:, 3]
    empty = cases.before[:, 2] == EMPTY
    hidden = torch.where(background[:, None], ~touched, touched)
    grown = (cases.before[:, 0] != cases.after[:, 0]) | (cases.before[:, 4] != cases.after[:, 4])
    return torch.where((empty | grown)[:, None], torch.ones_like(hidden), hidden)


def scores(cases: EditCases, images: Tensor) -> dict[str, Tensor]:
    """One value an edit: `changed`, `exact`, and where the garment is kept `iou`, `distance`."""
    found = found_slots(images, cases.after)
    asked = cases.asked != FREE
    # An empty scene asks for "nothing" and its background; both count as the change.
    right = torch.where(asked, found.nan_to_num(1.0), 1.0)
    kept = cases.kept
    ours, target = silhouettes(images[kept]), silhouettes(cases.targets[kept])
    features = judge_features(images[kept]) - judge_features(cases.targets[kept])
    return {
        "changed": right.min(1).values,
        "exact": (found.nan_to_num(1.0) == 1).all(1).float(),
        "silhouette_iou": intersection_over_union(ours, target),
        "feature_distance": features.norm(dim=1),
    }


def measure(names: tuple[str, ...] = ("editor", "redraw", "masked_redraw", "tokens")) -> None:
    """Score every method on the same edits, three sampling seeds, and record it."""
    cases = balanced_edits()
    ways = methods(studio())
    table: dict[str, dict[str, Tensor]] = {}
    for name in names:
        runs = [
            scores(cases, ways[name](cases, torch.Generator().manual_seed(seed)))
            for seed in range(3)
        ]
        table[name] = {key: torch.stack([run[key] for run in runs]).mean(0) for key in runs[0]}
        suffix = "" if name == "editor" else f"_{name}"
        for key in ("changed", "exact", "silhouette_iou", "feature_distance"):
            value = estimate(table[name][key])
            unit = "feature distance" if key == "feature_distance" else "share"
            _record(f"edit.{key}{suffix}", value.value, unit, (value.low, value.high), name)
            print(f"{name:14} {key:18} {value}")
        for column, slot in enumerate(SLOTS):
            rows = cases.asked[:, column] != FREE
            share = float(table[name]["changed"][rows].mean())
            _record(f"edit.changed_{slot}{suffix}", share, "share", None, name)
            print(f"{name:14} {slot:18} {share:.3f}")
    if {"editor", "redraw"} <= set(names):
        ours, plain = (float(table[n]["feature_distance"].mean()) for n in ("editor", "redraw"))
        _record("edit.feature_distance_ratio", ours / plain, "x", None, "editor / redraw")
        print(f"distance to the target, editor / plain redraw: {ours / plain:.2f}")


def _record(
    name: str, value: float, unit: str, spread: tuple[float, float] | None, method: str
) -> None:
    record("edit", name, value, unit, spread=spread, command=COMMAND, edits=EDITS, method=method)


if __name__ == "__main__":
    measure()
