"""Record the figures of notebook 04, by name (sweep, sampling, quality, speed) or all of them.

    python -m fastgen_course.training.gpt_records [reward|sweep|sampling|quality|speed]

`reward` compares the two parts of the shipped training (it needs what `train gpt` leaves in the
runs folder) in three minutes; `sweep` trains two smaller language models as `gpt` was (resumable,
about an hour and a half on one core); the others need the shipped `gpt`: `sampling` and `quality`
take about a quarter of an hour each on one core, `speed` two minutes on an otherwise idle machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import FREE, SLOTS, labels_of
from fastgen_course.datasets.scenes import draw_labels, real_scenes
from fastgen_course.metrics import (
    accuracies,
    caption_list,
    evaluate,
    fid,
    found_slots,
    judge_features,
    precision_recall,
    real_images,
    reference_features,
)
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import GPT_SAMPLING, describe_tokens, draw_images
from fastgen_course.timing import record
from fastgen_course.training.gpt import gpt_metrics, load_first_part
from fastgen_course.training.gpt_speed import record_speed
from fastgen_course.training.gpt_sweep import (
    PROMPTS,
    Settings,
    draw_prompts,
    record_sweep,
    recorded,
)
from fastgen_course.training.recorders import run_recorders
from fastgen_course.training.tokenizer import reconstruct

COMMAND = "python -m fastgen_course.training.gpt_records"

# What is tried: one knob at a time, then the pairs that looked best in the first trials.
GRID: tuple[Settings, ...] = (
    *({"temperature": t} for t in (0.0, 0.5, 0.7, 0.85, 1.0, 1.2)),
    *({"temperature": 1.0, "top_p": p} for p in (0.8, 0.9, 0.95)),
    *({"temperature": 1.0, "top_k": k} for k in (10, 50)),
    *({"temperature": 0.85, "top_p": p} for p in (0.9, 0.95)),
    *({"temperature": 1.0, "guidance": g} for g in (1.5, 2.0, 3.0)),
    *({"temperature": 1.0, "top_p": 0.95, "guidance": g} for g in (1.25, 1.5)),
)
WANTED_RECALL = 0.8  # of the reconstructions' recall, the most that any model of tokens can reach
WANTED_FID = 2.0  # times the reconstructions' FID
GUIDANCE_GAIN = 0.01  # guidance costs a second forward a token: it must gain more than a point


@dataclass(frozen=True)
class SamplingPoint:
    """One way of sampling, scored by `judge_train`."""

    exact_accuracy: float
    fid: float
    precision: float
    recall: float


def settings_name(settings: Settings) -> str:
    """ "t0_85_p0_95" for temperature 0.85 and top_p 0.95: a setting in a result's name."""
    letters = {"temperature": "t", "top_p": "p", "top_k": "k", "guidance": "g"}
    return "_".join(f"{letters[k]}{v:g}" for k, v in settings.items()).replace(".", "_")


def _record_means(
    area: str, name: str, points: Sequence[Any], units: Mapping[str, str], **extra: Any
) -> None:
    """Record each field of `points`, one dataclass a seed: its mean, and its extremes as spread."""
    for field in fields(points[0]):
        values = [getattr(point, field.name) for point in points]
        record(
            area,
            f"{area}.{field.name}.{name}",
            sum(values) / len(values),
            units.get(field.name, "share"),
            spread=(min(values), max(values)),
            base="gpt",
            **extra,
        )


def record_sampling(
    model: GPT | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    grid: Sequence[Settings] = GRID,
    n: int = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    judge: nn.Module | None = None,
) -> None:
    """Score every setting with `judge_train`; the tables' judge sees the chosen one alone.

    Beside them stand the most that any setting could reach: real training images ("real") and the
    same images as tokens and back ("tokens").
    """
    model = load_model("gpt") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    judge = load_model("judge_train") if judge is None else judge
    labels = labels_of(caption_list(n))
    reference = reference_features("test", n, judge=judge)

    def real(seed: int) -> Tensor:
        return real_images("train", labels, torch.Generator().manual_seed(1000 + seed))

    ways: dict[str, tuple[Settings, Callable[[int], Tensor]]] = {
        "real": ({}, real),
        "tokens": ({}, lambda seed: reconstruct(tokenizer, real(seed))),
    }
    for settings in grid:
        ways[settings_name(settings)] = (
            settings,
            lambda seed, s=settings: draw_prompts(model, tokenizer, n, seed, {**_OPEN, **s})[0],
        )
    for name, (settings, draw) in ways.items():
        points = []
        for seed in seeds:
            features = judge_features(draw(seed), judge)
            points.append(
                SamplingPoint(
                    accuracies(features, labels, judge=judge).exact.value,
                    fid(features, reference),
                    *precision_recall(features, reference),
                )
            )
        _record_means(
            "gpt_sampling",
            name,
            points,
            {"fid": "FID, judge_train"},
            command=f"{COMMAND} sampling",
            judge="judge_train",
            settings=settings,
            captions=n,
            seeds=list(seeds),
        )
        print(f"{name:20}", points[0], flush=True)


_OPEN: Settings = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}  # nothing cut, no guidance


# --- the two parts of the training --------------------------------------------------------------

PARTS = ("first", "second")


@dataclass(frozen=True)
class PartPoint:
    """The model after one part, drawing at temperature 1 without a cut; nats on test scenes."""

    exact_accuracy: float
    exact_accuracy_judge_train: float
    garment_accuracy: float
    fid: float
    recall: float
    draw_nats: float
    describe_nats: float


def record_reward(
    models: Sequence[GPT] | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    n: int = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    judges: tuple[nn.Module | None, nn.Module] | None = None,
) -> None:
    """What the second part of the training changed, as means over the seeds.

    models: after the first and after the second part (None: the shipped training's). judges: the
    reporting one (None: `judge_report`), whose features FID and recall use, and the rewarding one.
    """
    if models is None:
        models = (load_first_part("gpt"), load_model("gpt"))
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    report, reward = judges or (None, load_model("judge_train"))
    reference = reference_features("test", n, judge=report)
    for part, model in zip(PARTS, models, strict=True):
        nats = gpt_metrics(model, tokenizer, n=n)
        points = []
        for seed in seeds:
            images, labels = draw_prompts(model, tokenizer, n, seed, _OPEN)
            features = judge_features(images, report)
            found = accuracies(features, labels, judge=report)
            points.append(
                PartPoint(
                    found.exact.value,
                    accuracies(images, labels, judge=reward).exact.value,
                    found.garment.value,
                    fid(features, reference),
                    precision_recall(features, reference)[1],
                    nats["test_draw_nats"],
                    nats["test_describe_nats"],
                )
            )
        _record_means(
            "gpt_reward",
            part,
            points,
            {"fid": "FID", "draw_nats": "nats", "describe_nats": "nats"},
            command=f"{COMMAND} reward",
            captions=n,
            seeds=list(seeds),
        )
        print(part, points[0], flush=True)


def recorded_part(part: str) -> PartPoint:
    """The recorded figures after the "first" or the "second" part."""
    return recorded(PartPoint, f"gpt_reward.{{}}.{part}")


# --- the grid of sampling settings --------------------------------------------------------------


def recorded_sampling(name: str) -> SamplingPoint:
    """A recorded setting by its `settings_name`, or "real" or "tokens"."""
    return recorded(SamplingPoint, f"gpt_sampling.{{}}.{name}")


def choose_sampling(
    points: Sequence[SamplingPoint], tokens: SamplingPoint, real: SamplingPoint
) -> int:
    """The place in GRID of the setting to ship.

    Of the settings without guidance whose recall and FID are near enough to the tokens' own
    (WANTED_RECALL, WANTED_FID; if none is, the one of smallest FID) the most exact one. Accuracy
    counts up to that of real images: what is clearer than they are is only sharper. Among those
    that reach it the smallest FID decides. The best guided setting takes the place only if it, too,
    is near enough and gains GUIDANCE_GAIN.
    """

    def near(point: SamplingPoint) -> bool:
        return (
            point.recall >= WANTED_RECALL * tokens.recall and point.fid <= WANTED_FID * tokens.fid
        )

    def worth(index: int) -> tuple[float, float]:
        return min(points[index].exact_accuracy, real.exact_accuracy), -points[index].fid

    free = [i for i, s in enumerate(GRID) if s.get("guidance", 1.0) == 1.0]
    guided = [i for i in range(len(GRID)) if i not in free and near(points[i])]
    good = [i for i in free if near(points[i])]
    best = max(good, key=worth) if good else min(free, key=lambda i: points[i].fid)
    if guided and worth(max(guided, key=worth))[0] > worth(best)[0] + GUIDANCE_GAIN:
        return max(guided, key=worth)
    return best


# --- quality ------------------------------------------------------------------------------------


def record_quality(
    model: GPT | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    judge: nn.Module | None = None,
    **sizes: Any,
) -> None:
    """The shipped model with its chosen settings, by `judge_report`, and how well it describes.

    What the tokens alone cost stands in the area `tokens` (`tokenizer_records quality`). `sizes` go
    to `metrics.evaluate` (a test asks for fewer captions).
    """
    model = load_model("gpt") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer

    def draw(captions: list[str], generator: torch.Generator) -> Tensor:
        return draw_images(model, tokenizer, captions, generator=generator)

    report = evaluate(draw, **{"batch": 2000, "judge": judge, **sizes})
    settings = dict(GPT_SAMPLING)
    report.record("text_to_image", command=f"{COMMAND} quality", base="gpt", settings=settings)
    print(report, flush=True)
    record_descriptions(model, tokenizer, judge=judge)


def record_descriptions(
    model: GPT, tokenizer: Tokenizer, *, n: int = PROMPTS, judge: nn.Module | None = None
) -> float:
    """How often each slot is described rightly, beside the judge on the same pictures.

    `n` real test pictures, none of a held-out combination; returns the worst drop.
    """
    generator = torch.Generator().manual_seed(11)
    labels = draw_labels(n, generator)
    images = real_scenes(labels, "test", generator)
    tokens = torch.cat([tokenizer.encode(part) for part in images.split(500)])
    said = labels_of(describe_tokens(model, tokens))
    described = (said == labels).float().masked_fill(labels == FREE, torch.nan)
    judged = found_slots(images, labels, judge=judge)
    repainted = found_slots(reconstruct(tokenizer, images), labels, judge=judge)
    extra = {"command": f"{COMMAND} quality", "base": "gpt", "images": n}
    drops = {}
    for index, slot in enumerate(SLOTS):
        shares = {}
        for suffix, found in (("", described), ("_judge", judged), ("_judge_tokens", repainted)):
            values = found[:, index][~found[:, index].isnan()]
            shares[suffix] = float(values.mean())
            error = float(values.std() / len(values) ** 0.5)
            name = f"describe.{slot}_accuracy{suffix}"
            record("describe", name, shares[suffix], "share", spread=error, **extra)
        drops[slot] = shares["_judge"] - shares[""]
        both = (judged - described)[:, index]
        both = both[~both.isnan()]
        error = float(both.std() / len(both) ** 0.5)
        record("describe", f"describe.{slot}_drop", drops[slot], "share", spread=error, **extra)
    worst = max(drops, key=drops.__getitem__)
    record(
        "describe",
        "describe.worst_slot_drop",
        drops[worst],
        "share",
        spread=None,
        slot=worst,
        **extra,
    )
    print("describe: worst slot", worst, f"drop {drops[worst]:.4f}", flush=True)
    return drops[worst]


RECORDERS: dict[str, Callable[[], Any]] = {
    "reward": record_reward,
    "sweep": record_sweep,
    "sampling": record_sampling,
    "quality": record_quality,
    "speed": record_speed,
}


def main(names: list[str]) -> int:
    """Run the named recorders, all without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
