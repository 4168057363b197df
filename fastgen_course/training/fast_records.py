"""Record the figures of notebook 07, by name (costs, quality, speed, race) or all of them.

    python -m fastgen_course.training.fast_records [costs|quality|speed|race]

All need the shipped `gpt`, `gpt_draft`, `masked` and `tokenizer`. `costs` takes a few minutes on
one core, `quality` about half an hour (resumable), `speed` and `race` a few minutes on an otherwise
idle machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.files import atomic_write, data_path, read_json
from fastgen_course.metrics import caption_list, caption_texts
from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling import fast
from fastgen_course.sampling.fast import Drawn, Step
from fastgen_course.sampling.gpt import GPT_SAMPLING, token_log_likelihoods
from fastgen_course.sampling.masked import MASKED_SAMPLING, iterate_masked
from fastgen_course.timing import compare, laps, record, record_timing, result
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


@dataclass(frozen=True)
class Models:
    """The models that notebook 07 draws with."""

    gpt: GPT
    draft: GPT
    masked: MaskedModel
    tokenizer: Tokenizer

    @classmethod
    def shipped(cls) -> Models:
        """The shipped ones. Raises `DataFileError` for one that is missing."""
        return cls(*(load_model(name) for name in ("gpt", "gpt_draft", "masked", "tokenizer")))


@dataclass(frozen=True)
class Method:
    """One way to draw.

    Attributes:
        words: its name in tables.
        lossless: "tokens" (the same tokens for the same noise), "distribution" (the same chances)
            or "" (another distribution).
        draw: (models, captions, generator, watch) -> Drawn.
        settings: its own knobs.
    """

    words: str
    lossless: str
    draw: Callable[..., Drawn]
    settings: dict[str, int] = field(default_factory=dict)

    def __call__(
        self,
        models: Models,
        captions: Sequence[str] | Tensor,
        generator: torch.Generator | None = None,
        watch: fast.Watch | None = None,
    ) -> Drawn:
        """Draw the captions' tokens with the course's settings of temperature and cut."""
        return self.draw(models, captions, generator, watch, **self.settings)


def _sampling() -> dict[str, float]:
    """GPT_SAMPLING without guidance, which the fast samplers do not know."""
    settings = dict(GPT_SAMPLING)
    if settings.pop("guidance", 1.0) != 1.0:
        raise ValueError("the fast samplers draw without guidance; GPT_SAMPLING asks for it.")
    return settings


def _gpt(
    sampler: Callable[..., Drawn],
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: fast.Watch | None,
    **settings: int,
) -> Drawn:
    return sampler(
        models.gpt, captions, generator=generator, watch=watch, **_sampling(), **settings
    )


def _speculative(
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: fast.Watch | None,
    **settings: int,
) -> Drawn:
    sampler = partial(fast.draw_speculative, draft=models.draft)
    return _gpt(sampler, models, captions, generator, watch, **settings)


def _masked(
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: fast.Watch | None,
    **settings: int,
) -> Drawn:
    words = encode_words(list(captions)) if not isinstance(captions, Tensor) else captions
    words = words[:, : int((words != 0).sum(1).max())]  # no padding that nobody needs
    steps: list[Step] = []
    before = torch.ones(models.masked.config.image_tokens, dtype=torch.bool)
    for step in iterate_masked(
        models.masked, words, generator=generator, **{**MASKED_SAMPLING, **settings}
    ):
        now, tokens = step.hidden[0].cpu(), step.tokens
        steps.append(Step(tuple(torch.nonzero(before & ~now)[:, 0].tolist())))
        before = now
        if watch:
            watch(steps[-1])
    forwards = len(steps) * (2 if MASKED_SAMPLING["guidance"] != 1.0 else 1)
    length = words.shape[1] + tokens.shape[1]
    return Drawn(tokens, forwards, forwards * length * len(tokens), steps=tuple(steps))


METHODS: dict[str, Method] = {
    "plain": Method("plain loop", "tokens", partial(_gpt, fast.draw_plain)),
    "cached": Method("KV cache", "tokens", partial(_gpt, fast.draw_cached)),
    **{
        f"speculative{k}": Method(
            f"speculative, {k} guesses", "distribution", _speculative, {"guesses": k}
        )
        for k in (2, 4, 8)
    },
    **{
        f"jacobi{w}": Method(
            f"speculative Jacobi, window {w}",
            "distribution",
            partial(_gpt, fast.draw_jacobi),
            {"window": w},
        )
        for w in (4, 8, 16)
    },
    **{
        f"wavefront{d}": Method(
            f"wavefront, delay {d}", "", partial(_gpt, fast.draw_wavefront), {"delay": d}
        )
        for d in (3, 2, 1)
    },
    **{
        f"masked{s}": Method(f"masked, {s} steps", "", _masked, {"steps": s})
        for s in (16, 8, 4, 2, 1)
    },
}


def _weights() -> str:
    return "-".join(load_card(name)["sha256"][:6] for name in ("gpt", "gpt_draft", "masked"))


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
    weights = weights or _weights()
    captions = caption_texts(caption_list(n))
    for name, method in METHODS.items():
        if method.lossless and name != "cached":
            continue
        same = {"weights": weights, "captions": n, "seeds": list(seeds)}
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
            base="masked" if name.startswith("masked") else "gpt",
            judge="judge_report",
            settings=method.settings,
            **same,
        )
        print(f"{method.words:28}", scored[0], flush=True)


def recorded_quality(name: str) -> MaskedPoint:
    """The recorded quality of a method; a lossless one has the language model's."""
    return recorded_point(f"fast.{{}}.{'cached' if METHODS[name].lossless else name}")


def drawing_calls(models: Models, batch: int) -> dict[str, Callable[[], Tensor]]:
    """A call for each method that draws and paints `batch` pictures of one caption."""
    captions = [RACE_CAPTION] * batch

    def call(method: Method) -> Callable[[], Tensor]:
        def drawn() -> Tensor:
            tokens = method(models, captions, torch.Generator().manual_seed(0)).tokens
            return models.tokenizer.decode(tokens)

        return drawn

    return {name: call(method) for name, method in METHODS.items()}


def record_speed(
    models: Models | None = None, batches: Sequence[int] = (1, 64), seconds: float = 150.0
) -> None:
    """Milliseconds and ratios to the cached loop, all methods interleaved on one thread."""
    models = models or Models.shipped()
    for batch in batches:
        calls = drawing_calls(models, batch)
        rows = compare(
            calls, batch=batch, threads=1, device="cpu", min_repeats=10, max_seconds=seconds
        )
        print(rows.table(), flush=True)
        for name, timing in rows.items():
            base = "masked" if name.startswith("masked") else "gpt"
            extra = {"command": f"{COMMAND} speed", "runtime": "eager", "base": base}
            record_timing("fast", f"fast.batch{batch}_ms.{name}", timing, **extra)
            if name == "cached":
                continue
            ratio = rows.speedup(name, over="cached")
            record(
                "fast",
                f"fast.over_cached_batch{batch}_speedup.{name}",
                ratio.value,
                "x",
                spread=(ratio.low, ratio.high),
                batch=batch,
                threads=1,
                dtype="float32",
                **extra,
            )


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


RACERS = ("plain", "cached", "speculative4", "jacobi8", "wavefront2", "masked8")


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
