"""Record the figures of notebook 05, by name (bound, sampling, steps, quality) or all of them.

    python -m fastgen_course.training.masked_records [bound|sampling|steps|quality]

All need the shipped `masked` and `tokenizer`. In this order: `sampling` chooses what
`sampling.masked.MASKED_SAMPLING` says, `steps` and `quality` draw with it. On one idle core `bound`
takes five minutes, each of the others about half an hour; `sampling` and `steps` go on after a
kill. The times inside `steps` want an otherwise idle machine (and the shipped `gpt`): `times`
measures them alone.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.metrics import evaluate
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.masked import (
    MASKED_SAMPLING,
    draw_masked_images,
    tokens_left_evenly,
)
from fastgen_course.timing import record, result
from fastgen_course.training.gpt import token_batches
from fastgen_course.training.masked_costs import best_counts, cost_curve, haste, hidden_before
from fastgen_course.training.masked_scores import (
    MaskedPoint,
    Settings,
    drawing,
    is_recorded,
    limits,
    record_point,
    recorded_point,
    score,
    weights_id,
)
from fastgen_course.training.masked_steps import COMMAND, STEPS, record_steps, record_times
from fastgen_course.training.recorders import run_recorders

_PLAIN: Settings = {"steps": 8, "temperature": 1.0, "choice_temperature": 4.5, "guidance": 1.0}
# One knob at a time around the published settings, then more forwards in either way.
GRID: tuple[Settings, ...] = (
    *({**_PLAIN, "choice_temperature": c} for c in (0.0, 1.0, 2.0, 4.5, 8.0, 16.0)),
    *({**_PLAIN, "temperature": t} for t in (0.7, 0.85)),
    *({**_PLAIN, "temperature": 0.85, "choice_temperature": c} for c in (8.0, 16.0)),
    *({**_PLAIN, "choice_temperature": 8.0, "guidance": s} for s in (1.5, 2.0, 3.0, 4.0, 6.0)),
    *({**_PLAIN, "steps": 16, "choice_temperature": c} for c in (4.5, 8.0, 16.0)),
)
WANTED_RECALL = 0.8  # of the reconstructions' recall, the most that any model of tokens can reach
WANTED_FID = 2.0  # times the reconstructions' FID
GAIN = 0.01  # more forwards must gain more than a point of accuracy


def settings_name(settings: Settings) -> str:
    """ "s8_t1_c4_5_g1" for 8 steps, temperature 1, choice temperature 4.5 and no guidance."""
    letters = {"steps": "s", "temperature": "t", "choice_temperature": "c", "guidance": "g"}
    return "_".join(f"{letters[k]}{v:g}" for k, v in settings.items()).replace(".", "_")


def forwards(settings: Settings) -> int:
    """Forwards of the model for one picture: guidance doubles the steps."""
    return int(settings["steps"]) * (1 if settings["guidance"] == 1.0 else 2)


# --- the bound ------------------------------------------------------------------------------------


def record_bound(
    model: MaskedModel | None = None, tokenizer: Tokenizer | None = None, *, n: int = 1000
) -> None:
    """The curve m(k) on n real test pictures, the bound it adds up to, and every schedule's haste.

    `masked.bound_nats` holds the curve and its standard errors; `masked.haste_nats.steps8` the
    total correlation of the cosine schedule, with that of even steps and of the best schedule.
    """
    model = load_model("masked") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    generator = torch.Generator().manual_seed(5)
    part = min(n, 200)
    batches = token_batches(tokenizer, part, generator, split="test")
    pairs = [(b.plain, b.tokens) for b in (next(batches) for _ in range(n // part))]
    width = max(words.shape[1] for words, _ in pairs)
    words = torch.cat([nn.functional.pad(w, (0, width - w.shape[1])) for w, _ in pairs])
    tokens = torch.cat([t for _, t in pairs])
    curve, errors = cost_curve(model, words, tokens, generator)
    extra = {"command": f"{COMMAND} bound", "base": "masked", "images": len(tokens)}
    record(
        "masked",
        "masked.bound_nats",
        float(curve.sum()),
        "nats",
        spread=float(errors.square().sum().sqrt()),
        curve=[round(x, 4) for x in curve.tolist()],
        errors=[round(x, 4) for x in errors.tolist()],
        **extra,
    )
    exact = curve.tolist()
    for steps in STEPS:
        if steps > len(exact):
            continue
        counts = hidden_before(steps, len(exact))
        values = {
            "": haste(exact, counts),
            "_even": haste(exact, hidden_before(steps, len(exact), tokens_left_evenly)),
            "_best": haste(exact, best_counts(exact, steps)),
        }
        weights = torch.zeros(len(exact))  # the haste is this combination of the curve's points
        for before, after in itertools.pairwise(counts):
            if before:
                weights[before - 1] += before - after
        error = float(((weights - 1) * errors).square().sum().sqrt())
        for suffix, value in values.items():
            record(
                "masked",
                f"masked.haste_nats{suffix}.steps{steps}",
                value,
                "nats",
                spread=error if not suffix else None,
                steps=steps,
                **extra,
            )
        print(f"{steps:3} steps: total correlation", values, flush=True)


def recorded_curve() -> list[float]:
    """The recorded m(1), ..., m(N) in nats a token."""
    return list(result("masked.bound_nats").extra["curve"])


# --- how to draw ----------------------------------------------------------------------------------


def record_sampling(
    model: MaskedModel | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    grid: Sequence[Settings] = GRID,
    n: int = 1000,
    seeds: Sequence[int] = (0,),
    judge: nn.Module | None = None,
    weights: str | None = None,
) -> None:
    """Score every setting with `judge_train`, which may choose; goes on after a kill."""
    weights = weights_id() if weights is None else weights
    model = load_model("masked") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    judge = load_model("judge_train") if judge is None else judge
    ways: dict[str, tuple[Settings, Callable[[int], Tensor]]] = {
        name: ({}, draw) for name, draw in limits(tokenizer, n).items()
    }
    for settings in grid:
        ways[settings_name(settings)] = (settings, drawing(model, tokenizer, n, settings))
    for name, (settings, draw) in ways.items():
        pattern = f"masked_sampling.{{}}.{name}"
        same = {"weights": weights, "captions": n, "seeds": list(seeds)}
        if is_recorded(pattern, **same):
            print(name, "is recorded already", flush=True)
            continue
        scored = score(draw, n, seeds, judge)
        record_point(
            "masked_sampling",
            pattern,
            scored,
            command=f"{COMMAND} sampling",
            base="masked",
            judge="judge_train",
            settings=dict(settings),
            **same,
        )
        print(f"{name:20}", scored[0], flush=True)


def recorded_sampling(name: str) -> MaskedPoint:
    """A recorded setting by its `settings_name`, or "real" or "tokens"."""
    return recorded_point(f"masked_sampling.{{}}.{name}")


def choose_sampling(
    points: Sequence[MaskedPoint], tokens: MaskedPoint, grid: Sequence[Settings] = GRID
) -> Settings:
    """The setting to ship, by a rule fixed before the grid was measured.

    Settings whose recall and FID are near enough to the tokens' own (WANTED_RECALL, WANTED_FID; if
    none is, the one of smallest FID) compete in the order of their forwards: the most exact of the
    cheapest ones, and a costlier one only if it gains more than GAIN.
    """

    def near(point: MaskedPoint) -> bool:
        return (
            point.recall >= WANTED_RECALL * tokens.recall and point.fid <= WANTED_FID * tokens.fid
        )

    good = [i for i, point in enumerate(points) if near(point)]
    if not good:
        return grid[min(range(len(points)), key=lambda i: points[i].fid)]
    chosen: int | None = None
    for cost in sorted({forwards(grid[i]) for i in good}):
        here = [i for i in good if forwards(grid[i]) == cost]
        best = max(here, key=lambda i: points[i].exact_accuracy)
        gain = (
            0.0 if chosen is None else points[best].exact_accuracy - points[chosen].exact_accuracy
        )
        if chosen is None or gain > GAIN:
            chosen = best
    assert chosen is not None
    return grid[chosen]


def recorded_choice() -> Settings:
    """What `choose_sampling` makes of the recorded grid."""
    points = [recorded_sampling(settings_name(settings)) for settings in GRID]
    return choose_sampling(points, recorded_sampling("tokens"))


# --- quality --------------------------------------------------------------------------------------


def record_quality(
    model: MaskedModel | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    judge: nn.Module | None = None,
    **sizes: Any,
) -> None:
    """The shipped model with MASKED_SAMPLING on the fixed lists, by `judge_report`: area `masked`.

    `sizes` go to `metrics.evaluate` (a test asks for fewer captions). What tokens alone cost is
    recorded by `gpt_records quality`; where it is, the ratio of FIDs is recorded too.
    """
    model = load_model("masked") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    extra = {"command": f"{COMMAND} quality", "base": "masked", "settings": dict(MASKED_SAMPLING)}

    def draw(captions: list[str], generator: torch.Generator) -> Tensor:
        return draw_masked_images(model, tokenizer, captions, generator=generator)

    report = evaluate(draw, **{"batch": 2000, "judge": judge, **sizes})
    report.record("masked", **extra)
    print(report, flush=True)
    try:
        tokens = result("tokens.fid")
    except ValueError:
        print("tokens.fid is not recorded: no ratio to the tokens' own FID.")
        return
    if tokens.extra.get("captions", report.captions) == report.captions and float(tokens):
        ours = report.drawn.fid
        record(
            "masked",
            "masked.fid_over_tokens_ratio",
            ours.mean / float(tokens),
            "x",
            spread=ours.deviation / float(tokens),
            **extra,
        )


RECORDERS: dict[str, Callable[[], Any]] = {
    "bound": record_bound,
    "sampling": record_sampling,
    "steps": record_steps,
    "quality": record_quality,
}


def main(names: list[str]) -> int:
    """Run the named recorders, all without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS, {"times": record_times})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
