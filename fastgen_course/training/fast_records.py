"""Record the figures of notebook 07, by name (costs, quality, speed, race) or all of them.

    python -m fastgen_course.training.fast_records [costs|quality|speed|race]

All need the shipped `gpt`, `gpt_draft`, `masked`, `masked_groups` and `tokenizer`. `costs` takes a
few minutes on one core, `quality` about half an hour (resumable), `speed`, which needs the records
of both, and `race` a few minutes on an otherwise idle machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card
from fastgen_course.files import atomic_write, data_path, read_json
from fastgen_course.metrics import caption_list, caption_texts
from fastgen_course.sampling.drawing import Drawn, Step
from fastgen_course.sampling.gpt import token_log_likelihoods
from fastgen_course.timing import Comparison, compare, laps, record, record_timing, result
from fastgen_course.training.fast_methods import METHODS, Method, Models, base_of
from fastgen_course.training.masked_scores import (
    MaskedPoint,
    is_recorded,
    record_point,
    recorded_point,
    score,
)
from fastgen_course.training.recorders import run_recorders

COMMAND = "python -m fastgen_course.training.fast_records"
PROMPTS = 2000
COUNTED = 64  # captions over which forwards are averaged
RACE_CAPTION = "a small red sneaker on a white background, sketch style"


def _weights(name: str) -> str:
    return load_card(base_of(name))["sha256"][:12]


def record_costs(models: Models | None = None, n: int = COUNTED) -> None:
    """Forwards and token-forwards a picture at batch 1, and of a batch of `n`, for every method.

    With them the nats that the language model pays for what was drawn: the same for every method
    that keeps its distribution.
    """
    models = models or Models.shipped()
    captions = caption_texts(caption_list(n))
    for name, method in METHODS.items():
        singles = [
            method(models, [caption], torch.Generator().manual_seed(seed))
            for seed, caption in enumerate(captions)
        ]
        whole = method(models, captions, torch.Generator().manual_seed(0))
        tokens = torch.cat([drawn.tokens for drawn in singles])
        nats = -token_log_likelihoods(models.gpt, captions, tokens).sum(1).double()
        means = {
            key: sum(getattr(drawn, key) for drawn in singles) / n
            for key in ("forwards", "token_forwards", "draft_forwards", "draft_token_forwards")
        }
        guesses = [len(s.accepted) + len(s.rejected) for d in singles for s in d.steps]
        kept = [len(s.accepted) for d in singles for s in d.steps]
        extra = {"command": f"{COMMAND} costs", "base": "gpt", "captions": n}
        for key, value in means.items():
            record("fast", f"fast.{key}.{name}", value, "count", spread=None, batch=1, **extra)
            total = getattr(whole, key) / (n if key.endswith("token_forwards") else 1)
            record(
                "fast", f"fast.{key}_batch.{name}", total, "count", spread=None, batch=n, **extra
            )
        if sum(guesses):
            share = sum(kept) / sum(guesses)
            record("fast", f"fast.accepted.{name}", share, "share", spread=None, batch=1, **extra)
        error = float(nats.std()) / n**0.5
        record(
            "fast", f"fast.nats.{name}", float(nats.mean()), "nats", spread=error, batch=1, **extra
        )
        print(f"{method.words:28} {means} nats {nats.mean():.1f} ± {error:.1f}", flush=True)


def record_quality(
    models: Models | None = None,
    *,
    n: int = PROMPTS,
    seeds: Sequence[int] = (0, 1, 2),
    judge: nn.Module | None = None,
    weights: str | None = None,
) -> None:
    """Quality of the language model and of every method that changes its distribution."""
    models = models or Models.shipped()
    captions = caption_texts(caption_list(n))
    for name, method in METHODS.items():
        if method.lossless and name != "cached":
            continue
        same = {"weights": weights or _weights(name), "captions": n, "seeds": list(seeds)}
        if is_recorded(f"fast.{{}}.{name}", **same):
            print(name, "is recorded already", flush=True)
            continue

        def draw(seed: int, method: Method = method) -> Tensor:
            tokens = method(models, captions, torch.Generator().manual_seed(seed)).tokens
            return torch.cat([models.tokenizer.decode(part) for part in tokens.split(256)])

        scored = score(draw, n, seeds, judge)
        record_point(
            "fast",
            f"fast.{{}}.{name}",
            scored,
            command=f"{COMMAND} quality",
            base=base_of(name),
            judge="judge_report",
            settings=method.settings,
            **same,
        )
        print(f"{method.words:28}", scored[0], flush=True)


def recorded_quality(name: str) -> MaskedPoint:
    """The recorded quality of a method; a lossless one has the language model's."""
    return recorded_point(f"fast.{{}}.{'cached' if METHODS[name].lossless else name}")


def best_parallel(limit: float = 0.01) -> str:
    """Of the methods that change the distribution, the one of fewest forwards that is good enough.

    Good enough: exact accuracy at most `limit` below the language model's, both as recorded.
    Raises ValueError where none is.
    """
    wanted = recorded_quality("cached").exact_accuracy - limit
    good = [
        name
        for name, method in METHODS.items()
        if not method.lossless and recorded_quality(name).exact_accuracy >= wanted
    ]
    if not good:
        raise ValueError(f"no parallel method is within {limit:.0%} of the language model.")
    return min(good, key=lambda name: recorded_costs(name)["forwards"])


def drawing_calls(
    models: Models, batch: int, names: Sequence[str] = tuple(METHODS)
) -> dict[str, Callable[[], Tensor]]:
    """A call for each method that draws and paints `batch` pictures of one caption."""
    captions = [RACE_CAPTION] * batch

    def call(method: Method) -> Callable[[], Tensor]:
        def drawn() -> Tensor:
            tokens = method(models, captions, torch.Generator().manual_seed(0)).tokens
            return models.tokenizer.decode(tokens)

        return drawn

    return {name: call(METHODS[name]) for name in names}


def record_speed(models: Models | None = None, seconds: float = 200.0) -> None:
    """Milliseconds of every method, interleaved on one thread, at batch 1 and 64.

    At batch 1 each runs twice, with its forward passes as modules and written out
    (models/written_out.py), for there the calls between the operators weigh.
    """
    models = models or Models.shipped()
    written = {
        f"{name}_written": call for name, call in drawing_calls(models.written_out(), 1).items()
    }
    for batch, calls in (
        (1, {**drawing_calls(models, 1), **written}),
        (64, drawing_calls(models, 64)),
    ):
        rows = compare(
            calls, batch=batch, threads=1, device="cpu", min_repeats=10, max_seconds=seconds
        )
        print(rows.table(), flush=True)
        for label, timing in rows.items():
            name = label.removesuffix("_written")
            extra = {"command": f"{COMMAND} speed", "runtime": "eager", "base": base_of(name)}
            record_timing("fast", f"fast.batch{batch}_ms.{label}", timing, **extra)
        if batch == 1:
            _record_ratios(rows)


def _record_ratios(rows: Comparison) -> None:
    """What the issue of speed comes to, at batch 1 and against the plain loop."""
    best = best_parallel()
    ratios = {
        "sampling.kv_cache_speedup": ("cached_written", "plain"),
        "sampling.kv_cache_modules_speedup": ("cached", "plain"),
        "sampling.kv_cache_written_speedup": ("cached_written", "plain_written"),
        "sampling.parallel_speedup": (f"{best}_written", "plain"),
        "sampling.parallel_modules_speedup": (best, "plain"),
        "sampling.parallel_written_speedup": (f"{best}_written", "plain_written"),
    }
    for name, (fast_one, slow) in ratios.items():
        ratio = rows.speedup(fast_one, over=slow)
        record(
            "sampling", name, ratio.value, "x", spread=(ratio.low, ratio.high), batch=1, threads=1,
            dtype="float32", runtime="eager", base="gpt", command=f"{COMMAND} speed",
            fast=fast_one, slow=slow,
        )  # fmt: skip
    drop = recorded_quality("cached").exact_accuracy - recorded_quality(best).exact_accuracy
    record(
        "sampling", "sampling.parallel_exact_accuracy_drop", drop, "share", spread=None,
        base=base_of(best), command=f"{COMMAND} speed", method=best,
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One method's drawing in the race: what stood when."""

    name: str
    words: str
    tokens: list[int]
    ms: list[float]  # after each step, since the start
    steps: list[Step]


def run_race(models: Models, names: Sequence[str], seed: int = 0, warmups: int = 3) -> list[Run]:
    """Draw one caption by each method on one thread and note when each step ended.

    The last of `warmups` + 1 drawings counts; all draw with the same seed.
    """
    runs = []
    for name in names:
        drawn: list[Drawn] = []

        def draw(lap: Callable[[], None], name: str = name, drawn: list[Drawn] = drawn) -> None:
            generator = torch.Generator().manual_seed(seed)
            method = METHODS[name]
            drawn.append(method(models, [RACE_CAPTION], generator, lambda step: lap()))

        ms = laps(draw, warmup=warmups, threads=1)
        last = drawn[-1]
        runs.append(Run(name, METHODS[name].words, last.tokens[0].tolist(), ms, list(last.steps)))
    return runs


RACERS = ("plain", "cached", "speculative4", "jacobi8", "wavefront2", "masked8", "groups4")


def record_race(models: Models | None = None) -> None:
    """Write the race of RACERS to data/recordings/decode_race.json."""
    runs = run_race(models or Models.shipped(), RACERS)
    rows: list[dict[str, Any]] = [
        {**run.__dict__, "ms": [round(t, 3) for t in run.ms], "steps": [list(s) for s in run.steps]}
        for run in runs
    ]
    text = {"command": f"{COMMAND} race", "caption": RACE_CAPTION, "runs": rows}
    with atomic_write(data_path("recordings", "decode_race.json")) as temporary:
        temporary.write_text(json.dumps(text) + "\n", encoding="utf-8")
    for run in runs:
        print(f"{run.words:28} {len(run.steps):3} steps {run.ms[-1]:8.1f} ms", flush=True)


def recorded_race() -> list[Run]:
    """The recorded race. Raises `DataFileError` where it is missing."""
    rows = read_json(data_path("recordings", "decode_race.json"))["runs"]
    return [
        Run(**{**row, "steps": [Step(*map(tuple, step)) for step in row["steps"]]}) for row in rows
    ]


def recorded_costs(name: str, batch: bool = False) -> dict[str, float]:
    """Forwards and token-forwards of a method as recorded, a picture (or of the batch)."""
    end = "_batch" if batch else ""
    keys = ("forwards", "token_forwards", "draft_forwards", "draft_token_forwards")
    return {key: float(result(f"fast.{key}{end}.{name}")) for key in keys}


RECORDERS = {
    "costs": record_costs,
    "quality": record_quality,
    "speed": record_speed,
    "race": record_race,
}


def main(names: list[str]) -> int:
    """Run the named recorders, all without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
