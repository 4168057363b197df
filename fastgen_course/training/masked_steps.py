"""The masked model step by step: what 1 to 49 steps are worth, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import draw_images
from fastgen_course.sampling.masked import MASKED_SAMPLING, draw_masked_images
from fastgen_course.timing import Comparison, compare, record, record_timing
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

COMMAND = "python -m fastgen_course.training.masked_records"
STEPS = (1, 2, 4, 8, 16, 49)
PROMPTS = 2000
GUIDED = 2.0  # the guidance whose cost is measured


def record_steps(
    model: MaskedModel | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    steps: Sequence[int] = STEPS,
    n: int = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    judge: nn.Module | None = None,
    weights: str | None = None,
    times: bool = True,
) -> None:
    """Score every number of steps by `judge_report` with MASKED_SAMPLING's other settings.

    Beside them stand, at the same n, what no model of tokens can pass ("real", "tokens"). Goes on
    after a kill.
    """
    weights = weights_id() if weights is None else weights
    model = load_model("masked") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    ways: dict[str, tuple[Settings, Callable[[int], Tensor]]] = {
        name: ({}, draw) for name, draw in limits(tokenizer, n).items()
    }
    for count in steps:
        settings = {**MASKED_SAMPLING, "steps": count}
        ways[f"steps{count}"] = (settings, drawing(model, tokenizer, n, settings))
    for name, (settings, draw) in ways.items():
        pattern = f"masked_steps.{{}}.{name}"
        same = {
            "weights": weights,
            "captions": n,
            "seeds": list(seeds),
            "settings": dict(settings),
        }
        if is_recorded(pattern, **same):
            print(name, "is recorded already", flush=True)
            continue
        scored = score(draw, n, seeds, judge)
        record_point(
            "masked_steps",
            pattern,
            scored,
            command=f"{COMMAND} steps",
            base="masked",
            judge="judge_report",
            **same,
        )
        print(f"{name:10}", scored[0], flush=True)
    if times:
        record_times(model, tokenizer, steps=steps)


def recorded_steps(name: str) -> MaskedPoint:
    """A recorded row: "steps8" and the like, or "real" or "tokens"."""
    return recorded_point(f"masked_steps.{{}}.{name}")


def drawing_calls(
    model: MaskedModel,
    tokenizer: Tokenizer,
    gpt: GPT,
    batch: int,
    ways: Mapping[str, Settings],
) -> dict[str, Callable[[], Tensor]]:
    """A call for each way to draw `batch` pictures of one caption, decoding included.

    The cached GPT ("GPT") comes first, then the masked model with the settings of each of `ways`.
    """
    caption = "a small red sneaker on a white background, sketch style"
    words = encode_words([caption]).expand(batch, -1)
    words = words[:, : int((words[0] != 0).sum())].contiguous()
    n = model.config.image_tokens
    uniform = torch.rand(batch, n, generator=torch.Generator().manual_seed(0))

    def masked(settings: Settings) -> Callable[[], Tensor]:
        settings = {**MASKED_SAMPLING, **settings}
        shape = (batch, 2, int(settings["steps"]), n)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return lambda: draw_masked_images(model, tokenizer, words, noise, **settings)

    calls = {"GPT": lambda: draw_images(gpt, tokenizer, words, uniform)}
    return calls | {label: masked(settings) for label, settings in ways.items()}


def step_ways(steps: Sequence[int] = STEPS) -> dict[str, Settings]:
    """ "steps8" and the like: that many steps, all else as MASKED_SAMPLING."""
    return {f"steps{count}": {"steps": count} for count in steps}


def guidance_ways() -> dict[str, Settings]:
    """MASKED_SAMPLING's steps with guidance ("guided") and without ("unguided")."""
    return {"guided": {"guidance": GUIDED}, "unguided": {"guidance": 1.0}}


def time_models(batch: int, ways: Mapping[str, Settings], seconds: float = 30.0) -> Comparison:
    """The shipped models' `drawing_calls`, interleaved on one thread; the GPT is the baseline."""
    models = (load_model(name) for name in ("masked", "tokenizer", "gpt"))
    return _compared(drawing_calls(*models, batch, ways), batch, seconds)


def _compared(calls: Mapping[str, Callable[[], Tensor]], batch: int, seconds: float) -> Comparison:
    return compare(calls, batch=batch, threads=1, device="cpu", min_repeats=10, max_seconds=seconds)


def record_times(
    model: MaskedModel | None = None,
    tokenizer: Tokenizer | None = None,
    gpt: GPT | None = None,
    *,
    steps: Sequence[int] = STEPS,
    batches: Sequence[int] = (1, 64),
    seconds: float = 120.0,
) -> None:
    """Milliseconds a call for every number of steps, one thread, interleaved with the GPT.

    And what guidance costs: the ratio of a guided drawing's time to an unguided one's.
    """
    model = load_model("masked") if model is None else model
    tokenizer = load_model("tokenizer") if tokenizer is None else tokenizer
    gpt = load_model("gpt") if gpt is None else gpt
    command = f"{COMMAND} times"
    for batch in batches:
        extra = {"command": command, "runtime": "eager"}
        ratio_extra = {**extra, "batch": batch, "threads": 1, "dtype": "float32"}
        rows = _compared(
            drawing_calls(model, tokenizer, gpt, batch, step_ways(steps)), batch, seconds
        )
        print(rows.table(), flush=True)
        for label, timing in rows.items():
            name, base = ("gpt", "gpt") if label == "GPT" else (label, "masked")
            key = f"masked_steps.batch{batch}_ms.{name}"
            record_timing("masked_steps", key, timing, base=base, **extra)
            if label != "GPT":
                ratio = rows.speedup(label)
                record(
                    "masked_steps",
                    f"masked_steps.over_gpt_batch{batch}_speedup.{name}",
                    ratio.value,
                    "x",
                    spread=(ratio.low, ratio.high),
                    base="masked",
                    **ratio_extra,
                )
        calls = drawing_calls(model, tokenizer, gpt, batch, guidance_ways())
        del calls["GPT"]
        rows = _compared(calls, batch, seconds)
        print(rows.table(), flush=True)
        cost = rows.speedup("unguided", over="guided")
        record(
            "masked_steps",
            f"masked_steps.guidance_cost_batch{batch}_ratio",
            cost.value,
            "x",
            spread=(cost.low, cost.high),
            base="masked",
            steps=int(MASKED_SAMPLING["steps"]),
            **ratio_extra,
        )
