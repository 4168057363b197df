"""Record the figures of notebook 08, by name (quality, choice, speed, ratios) or all of them.

    python -m fastgen_course.training.flow_records [guidance|quality|choice|speed|ratios]

`guidance` (run only when named, five minutes, needs `flow` alone) chooses what
`sampling.flow.FLOW_SAMPLING` says, before the networks that learn from the flow are trained. The
others need all of them. On one idle core `quality` takes about three quarters of an hour and
`choice` ten minutes, both go on after a kill; `speed` takes five minutes on an otherwise idle
machine; `ratios` needs the records of all three.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words, labels_of
from fastgen_course.metrics import caption_list, caption_texts, real_images
from fastgen_course.sampling.flow import sample_flow
from fastgen_course.sampling.vae import sample_vae
from fastgen_course.timing import ResultError, compare, record, record_timing, result
from fastgen_course.training.flow_methods import BASE, METHODS, FlowMethod, FlowModels, candidates
from fastgen_course.training.masked_scores import (
    MaskedPoint,
    is_recorded,
    record_point,
    recorded_point,
    score,
)
from fastgen_course.training.recorders import run_recorders
from fastgen_course.training.vae_refined import reconstruct

COMMAND = "python -m fastgen_course.training.flow_records"
PROMPTS = 2000
SEEDS = (0, 1, 2)
CAPTION = "a small red sneaker on a white background, sketch style"
SCALES = (1.0, 1.25, 1.5, 2.0, 3.0)
WANTED_RECALL = 0.8  # of the reconstructions' recall, the most that any flow can reach
WANTED_FID = 2.0  # times the reconstructions' FID
GAIN = 0.01  # guidance costs a second forward a step: it must gain more than a point
FEW = {"four_step": 4, "one_step": 1}
LOSS = 0.02  # of exact accuracy: what misses more of the words does not replace the slow method


def _score(
    area: str, rows: Mapping[str, tuple[str, Callable[[int], Tensor], dict]], n: int,
    seeds: Sequence[int], scorer: nn.Module | None, **extra: object,
) -> None:  # fmt: skip
    """Score and record each row (weights, draw, its own extras) that is not there yet."""
    for name, (weights, draw, own) in rows.items():
        same = {"weights": weights, "captions": n, "seeds": list(seeds)}
        if is_recorded(f"{area}.{{}}.{name}", **same, **own):
            print(name, "is recorded already", flush=True)
            continue
        scored = score(draw, n, seeds, scorer)
        record_point(area, f"{area}.{{}}.{name}", scored, **same, **own, **extra)
        print(f"{name:14}", scored[0], flush=True)


def _limits(models: FlowModels, n: int) -> dict[str, tuple[str, Callable[[int], Tensor], dict]]:
    """Real training pictures, and the same through the latent and back: no flow can do better."""
    attributes = caption_list(n)
    asked, words = labels_of(attributes), encode_words(caption_texts(attributes))

    def real(seed: int) -> Tensor:
        return real_images("train", asked, torch.Generator().manual_seed(1000 + seed))

    def reconstructed(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return reconstruct(models.vae, real(seed), words, generator)

    return {"real": ("", real, {}), "reconstructed": (models.key(), reconstructed, {})}


def _scale_name(scale: float) -> str:
    return f"s{scale:g}".replace(".", "_")


def record_guidance(
    models: FlowModels | None = None,
    *,
    scales: Sequence[float] = SCALES,
    n: int = 1000,
    seeds: Sequence[int] = (0,),
    judge: nn.Module | None = None,
) -> None:
    """The flow at 50 Euler steps under each guidance scale, by `judge_train`, which may choose."""
    models = models or FlowModels.shipped(("flow",))
    judge = load_model("judge_train") if judge is None else judge
    words = encode_words(caption_texts(caption_list(n)))

    def draw(seed: int, scale: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        network = models.networks["flow"]
        return sample_flow(network, models.vae, words, generator=generator, guidance=scale)

    rows = _limits(models, n)
    for scale in scales:
        rows[_scale_name(scale)] = (models.key("flow"), partial(draw, scale=scale), {})
    _score(
        "flow_guidance", rows, n, seeds, judge,
        command=f"{COMMAND} guidance", base="flow", judge="judge_train",
    )  # fmt: skip


def choose_guidance(
    points: Sequence[MaskedPoint], latent: MaskedPoint, scales: Sequence[float] = SCALES
) -> float:
    """The scale to draw with, by a rule fixed before the scales were measured.

    Of the scales whose recall and FID are near enough to those of reconstructions through the
    latent, the most exact one, if it gains more than GAIN over none; else 1. If none is near, 1.
    """
    near = [
        i for i, p in enumerate(points)
        if p.recall >= WANTED_RECALL * latent.recall and p.fid <= WANTED_FID * latent.fid
    ]  # fmt: skip
    if not near:
        return 1.0
    best = max(near, key=lambda i: points[i].exact_accuracy)
    plain = points[list(scales).index(1.0)]
    return scales[best] if points[best].exact_accuracy > plain.exact_accuracy + GAIN else 1.0


def recorded_guidance() -> float:
    """What `choose_guidance` makes of the recorded scales."""
    points = [recorded_point(f"flow_guidance.{{}}.{_scale_name(s)}") for s in SCALES]
    return choose_guidance(points, recorded_point("flow_guidance.{}.reconstructed"))


def _drawing(models: FlowModels, method: FlowMethod, words: Tensor) -> Callable[[int], Tensor]:
    return lambda seed: method(models, words, torch.Generator().manual_seed(seed))


def record_quality(
    models: FlowModels | None = None,
    *,
    names: Sequence[str] = tuple(METHODS),
    n: int = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    judge: nn.Module | None = None,
) -> None:
    """Every method by `judge_report`, with what no flow can pass and what the Gaussian prior draws.

    `evaluations` of each method are recorded too.
    """
    models = models or FlowModels.shipped()
    words = encode_words(caption_texts(caption_list(n)))

    def prior(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(
            [sample_vae(models.vae, part, generator=generator) for part in words.split(250)]
        )

    rows = {**_limits(models, n), "prior": (models.key(), prior, {})}
    for name in names:
        method = METHODS[name]
        draw = _drawing(models, method, words)
        rows[name] = (models.key(method.network), draw, {"settings": method.settings})
        record(
            "flow", f"flow.evaluations.{name}", method.evaluations, "count", spread=None,
            command=f"{COMMAND} quality", base=method.network, steps=method.steps,
        )  # fmt: skip
    _score(
        "flow", rows, n, seeds, judge,
        command=f"{COMMAND} quality", base="flow", judge="judge_report",
    )  # fmt: skip


def record_choice(
    models: FlowModels | None = None,
    *,
    n: int = PROMPTS,
    seeds: Sequence[int] = (0,),
    judge: nn.Module | None = None,
) -> None:
    """BASE and the methods of four and of one evaluation by `judge_train`, which chooses."""
    models = models or FlowModels.shipped()
    judge = load_model("judge_train") if judge is None else judge
    words = encode_words(caption_texts(caption_list(n)))
    rows = {}
    for name in (BASE, *(name for steps in FEW.values() for name in candidates(steps))):
        method = METHODS[name]
        draw = _drawing(models, method, words)
        rows[name] = (models.key(method.network), draw, {"settings": method.settings})
    _score(
        "flow_choice", rows, n, seeds, judge,
        command=f"{COMMAND} choice", base="flow", judge="judge_train",
    )  # fmt: skip


def choose_few(points: Mapping[str, MaskedPoint], base: MaskedPoint) -> str:
    """The method that may stand for the slow one.

    Of those at most LOSS less exact than `base`, the one whose FID is smallest; where all lose
    more, the most exact one.
    """
    near = [k for k, point in points.items() if point.exact_accuracy >= base.exact_accuracy - LOSS]
    if not near:
        return max(points, key=lambda name: points[name].exact_accuracy)
    return min(near, key=lambda name: points[name].fid)


def recorded_choice(steps: int) -> str:
    """What `choose_few` makes of the methods of so many evaluations, by `judge_train`."""
    names = (BASE, *candidates(steps))
    points = {name: recorded_point(f"flow_choice.{{}}.{name}") for name in names}
    return choose_few(points, points.pop(BASE))


def drawing_calls(
    models: FlowModels, batch: int, names: Sequence[str] = tuple(METHODS)
) -> dict[str, Callable[[], Tensor]]:
    """A call for each method that draws and decodes `batch` pictures of one caption."""
    words = encode_words([CAPTION]).expand(batch, -1).contiguous()
    words = words[:, : int((words != 0).sum(1).max())]  # no padding that nobody needs
    return {
        name: partial(METHODS[name], models, words, torch.Generator().manual_seed(0))
        for name in names
    }


def record_speed(
    models: FlowModels | None = None,
    *,
    names: Sequence[str] = tuple(METHODS),
    batches: Sequence[int] = (1, 64),
    seconds: float = 150.0,
) -> None:
    """Milliseconds from words to pictures and ratios to BASE, interleaved on one thread."""
    models = models or FlowModels.shipped()
    for batch in batches:
        rows = compare(
            drawing_calls(models, batch, names),
            batch=batch, threads=1, device="cpu", min_repeats=10, max_seconds=seconds,
        )  # fmt: skip
        print(rows.table(), flush=True)
        for name, timing in rows.items():
            network = METHODS[name].network
            extra = {
                "command": f"{COMMAND} speed",
                "runtime": "eager",
                "base": network,
                "weights": models.key(network),
            }
            record_timing("flow", f"flow.batch{batch}_ms.{name}", timing, **extra)
            if name == BASE:
                continue
            ratio = rows.speedup(name, over=BASE)
            record(
                "flow", f"flow.over_{BASE}_batch{batch}_speedup.{name}", ratio.value, "x",
                spread=(ratio.low, ratio.high), batch=batch, threads=1, dtype="float32", **extra,
            )  # fmt: skip


def record_ratios() -> None:
    """`flow.four_step_speedup`, `flow.four_step_fid_ratio` and the same for one step.

    From the table: the method that `judge_train` chose against BASE, both scored by `judge_report`.
    Raises ResultError where the rows were recorded with other weights than the choice.
    """
    base = result(f"flow.fid.{BASE}")
    for title, steps in FEW.items():
        name = recorded_choice(steps)
        fid, speedup = (
            result(f"flow.{what}.{name}") for what in ("fid", f"over_{BASE}_batch1_speedup")
        )
        chosen = result(f"flow_choice.fid.{name}")
        if len({row.extra["weights"] for row in (fid, speedup, chosen)}) > 1:
            raise ResultError(
                f"the rows of {name} were recorded with different weights; run {COMMAND} again."
            )
        extra = {"command": f"{COMMAND} ratios", "base": BASE, "method": name}
        extra["weights"] = fid.extra["weights"]
        record(
            "flow", f"flow.{title}_speedup", speedup.value, "x", spread=speedup.spread,
            batch=1, threads=1, dtype="float32", runtime="eager", **extra,
        )  # fmt: skip
        (low, high), (base_low, base_high) = fid.spread, base.spread
        record(
            "flow", f"flow.{title}_fid_ratio", fid.value / base.value, "x",
            spread=(low / base_high, high / base_low), captions=fid.extra["captions"], **extra,
        )  # fmt: skip
        print(f"{title}: {name}, {speedup.value:.1f} times faster, "
              f"FID {fid.value / base.value:.2f} times")  # fmt: skip


def recorded_row(name: str) -> dict[str, float]:
    """A method's row of the table: evaluations, ms at batch 1 and 64, and its quality."""
    point = recorded_point(f"flow.{{}}.{name}")
    costs = ("evaluations", "batch1_ms", "batch64_ms")
    return {**{c: float(result(f"flow.{c}.{name}")) for c in costs}, **vars(point)}


RECORDERS = {
    "quality": record_quality,
    "choice": record_choice,
    "speed": record_speed,
    "ratios": record_ratios,
}


def main(names: list[str]) -> int:
    """Run the named recorders, all but `guidance` without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS, {"guidance": record_guidance})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
