"""The size sweep of notebook 04: the shipped model's whole recipe for smaller models, too.

`python -m fastgen_course.training.gpt_records sweep` runs it, resumably.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import encode_words, labels_of
from fastgen_course.metrics import caption_list, caption_texts, found_slots
from fastgen_course.metrics.accuracy import Accuracies, summarise
from fastgen_course.models.gpt import GPT, GPT_SIZES
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import GPT_SAMPLING, draw_images
from fastgen_course.timing import record, result
from fastgen_course.training.gpt import SHIPPED, GPTRecipe, gpt_metrics, train_gpt

COMMAND = "python -m fastgen_course.training.gpt_records sweep"
PROMPTS = 2000
# gpt_l would be trained longer than an hour on two cores, the course's limit for a checkpoint.
SWEEP = ("gpt_xs", "gpt_s", "gpt_m")
SWEEP_SEEDS = (0, 1, 2)
Settings = dict[str, float | int]
_UNITS = {"parameters": "weights", "draw_nats": "nats", "describe_nats": "nats"}


@dataclass(frozen=True)
class SweepPoint:
    """One size after both parts of the training.

    Nats a token on test scenes (`draw_nats`, `describe_nats`); `exact_accuracy` over PROMPTS
    captions and three seeds by `judge_report`, `exact_accuracy_judge_train` by the judge that may
    choose.
    """

    parameters: float
    draw_nats: float
    describe_nats: float
    exact_accuracy: float
    exact_accuracy_judge_train: float


def draw_prompts(
    model: GPT, tokenizer: Tokenizer, n: int, seed: int, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Pictures of the first `n` captions of the fixed list, and the labels they were asked for."""
    asked = caption_list(n)
    generator = torch.Generator().manual_seed(seed)
    images = draw_images(model, tokenizer, caption_texts(asked), generator=generator, **settings)
    return images, labels_of(asked)


def drawing_inputs(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Words (batch, L) of one caption and the noise (batch, tokens) that a model draws it from."""
    caption = "a small red sneaker on a white background, sketch style"
    words = encode_words([caption]).expand(batch, -1).contiguous()
    return words, torch.rand(batch, tokens, generator=torch.Generator().manual_seed(0))


def accuracies_by(judge: nn.Module | None, drawings: Sequence[tuple[Tensor, Tensor]]) -> Accuracies:
    """Accuracies over several drawings of the same captions; judge None is `judge_report`."""
    return summarise(torch.stack([found_slots(*pair, judge=judge) for pair in drawings]))


def record_sweep(
    recipe: GPTRecipe | None = None,
    sizes: Sequence[str] = SWEEP,
    *,
    n: int = PROMPTS,
    tokenizer: Tokenizer | None = None,
    tokenizer_id: str | None = None,
    judges: tuple[nn.Module | None, nn.Module] | None = None,
) -> None:
    """Train each size with the shipped `gpt`'s recipe and record what it is worth.

    Goes on after a kill; a size already recorded with this recipe and this tokenizer is passed
    over, and the shipped size is not trained again (unless a `recipe` of its own is given).
    `judges`: the reporting one (None: `judge_report`) and the choosing one.
    """
    shipped = SHIPPED["gpt"] if recipe is None else None
    recipe = shipped.recipe if shipped else recipe
    if tokenizer_id is None:
        tokenizer_id = load_card("tokenizer")["sha256"][:12]
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    report, choose = judges or (None, load_model("judge_train"))
    for size in sizes:
        if _swept(size, recipe, tokenizer_id):
            print(size, "is recorded already", flush=True)
            continue
        training = None
        if shipped and GPT_SIZES[size] == shipped.config:
            model, minutes = load_model("gpt"), load_card("gpt")["minutes"]
        else:
            name = f"gpt_sweep_{size}"
            model, training = train_gpt(GPT_SIZES[size], recipe, tokenizer=tokenizer, name=name)
            training.save()  # an evaluation that fails loses nothing
            minutes = round(training.seconds / 60, 1)
        drawings = [
            draw_prompts(model, tokenizer, n, seed, dict(GPT_SAMPLING)) for seed in SWEEP_SEEDS
        ]
        scores, chosen = (accuracies_by(judge, drawings) for judge in (report, choose))
        nats = gpt_metrics(model, tokenizer, n=n)
        point = SweepPoint(
            parameters=sum(p.numel() for p in model.parameters()),
            draw_nats=nats["test_draw_nats"],
            describe_nats=nats["test_describe_nats"],
            exact_accuracy=scores.exact.value,
            exact_accuracy_judge_train=chosen.exact.value,
        )
        spreads = {
            "exact_accuracy": (scores.exact.low, scores.exact.high),
            "exact_accuracy_judge_train": (chosen.exact.low, chosen.exact.high),
        }
        for quantity, value in asdict(point).items():
            record(
                "gpt_sweep",
                f"gpt_sweep.{quantity}.{size}",
                value,
                _UNITS.get(quantity, "share"),
                spread=spreads.get(quantity),
                command=COMMAND,
                base=size,
                steps=recipe.steps,
                rewarded=recipe.rewarded,
                tokenizer=tokenizer_id,
                training_minutes=minutes,
            )
        if training is not None:
            training.finish()
        print(size, point, flush=True)


def _swept(size: str, recipe: GPTRecipe, tokenizer_id: str) -> bool:
    try:
        rows = [result(f"gpt_sweep.{field.name}.{size}") for field in fields(SweepPoint)]
    except ValueError:
        return False
    wanted = {"steps": recipe.steps, "rewarded": recipe.rewarded, "tokenizer": tokenizer_id}
    return all(r.extra.get(key) == value for r in rows for key, value in wanted.items())


def recorded_sweep() -> dict[str, SweepPoint]:
    """The recorded sweep, size to point, from the smallest."""
    return {size: recorded(SweepPoint, f"gpt_sweep.{{}}.{size}") for size in SWEEP}


def smallest_within_noise(points: dict[str, SweepPoint], halfwidth: float) -> str:
    """The smallest size whose accuracy (`judge_train`) is the best one's, less noise at most.

    halfwidth: of the interval of one accuracy; a difference of two has the root of two of it.
    """
    best = max(point.exact_accuracy_judge_train for point in points.values())
    margin = halfwidth * 2**0.5
    within = [k for k, p in points.items() if p.exact_accuracy_judge_train >= best - margin]
    return min(within, key=lambda size: points[size].parameters)


def recorded_choice() -> str:
    """`smallest_within_noise` of the recorded sweep, with the widest of its intervals."""
    rows = [result(f"gpt_sweep.exact_accuracy_judge_train.{size}") for size in SWEEP]
    halfwidth = max((row.spread[1] - row.spread[0]) / 2 for row in rows)
    return smallest_within_noise(recorded_sweep(), halfwidth)


def recorded(kind: type, pattern: str) -> Any:
    """A dataclass of figures from the registry; `pattern` has the field's name in braces."""
    return kind(**{f.name: float(result(pattern.format(f.name))) for f in fields(kind)})
