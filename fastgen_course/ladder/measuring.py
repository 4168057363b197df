"""Milliseconds of the rungs, measured here and now, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgen_course.compression.int8_graphs import example_inputs
from fastgen_course.compression.packed import calibrated_bytes, stored_bytes
from fastgen_course.compression.quantized import QuantizedGenerator
from fastgen_course.ladder.rungs import CAPTION, CHANGES, Draw, Rung, _model, folded_of, parameters
from fastgen_course.metrics.delivered import FIGURES
from fastgen_course.runtimes.onnx_export import ExportError
from fastgen_course.timing import Comparison, ResultError, Timing, measure, result
from fastgen_course.timing.cost import model_cost
from fastgen_course.timing.roofline import gemm_peak

BATCH = 64
BURST_S = 0.03  # calls of one rung in a row: caches as warm as they are in use
MOST_S = 2.0  # ends a burst of slow calls
ROUNDS_OF_MANY = 5


@dataclass
class Row:
    """One line of the table; a figure that is not known is None.

    `batch1_ms`, `p90_ms` and `macs` (multiply-accumulates) are of one picture at batch 1,
    `images_per_s` the better of batch 1 and BATCH, `bytes` the weights as the rung uses them,
    `peak_share` the share of one core's best matrix product in float32.
    """

    name: str
    words: str
    change: str
    control: bool
    runtime: str
    dtype: str
    threads: int
    batch1_ms: float
    p90_ms: float
    images_per_s: float | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    fid: float | None = None
    slot_accuracy: float | None = None
    exact_accuracy: float | None = None
    garment_accuracy: float | None = None
    heldout_exact_accuracy: float | None = None
    recall: float | None = None
    peak_share: float | None = None
    speedup_to_first: float | None = None
    speedup_to_previous: float | None = None


@dataclass
class Ladder:
    """What was measured: rows in order, timings at batch 1, and why the others are left out.

    `throughput`: whether BATCH pictures at once were timed too.
    """

    rows: list[Row]
    timings: Comparison
    left_out: list[str]
    throughput: bool = True

    def row(self, name: str) -> Row | None:
        """A row by name, None where it was left out."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def rungs(self) -> list[Row]:
        """The rows that are no controls."""
        return [row for row in self.rows if not row.control]


def call_of(draw: Draw, batch: int) -> Callable[[], Any]:
    """From strings to pictures, once, the noise going on from call to call."""
    captions, generator = [CAPTION] * batch, torch.Generator().manual_seed(0)
    return partial(draw, captions, generator)


def thread_counts(rung: Rung) -> tuple[int, ...]:
    """What a row is timed with; a runtime's pool was made with one thread."""
    return (1, 2) if rung.runtime in ("eager", "yours") else (1,)


def time_in_turn(
    calls: dict[str, Callable[[], Any]],
    threads: dict[str, Sequence[int]],
    dtypes: dict[str, str],
    batch: int,
    rounds: int,
    burst_s: float = BURST_S,
    repeats: int = 3,
) -> Comparison:
    """Rounds in each of which every rung draws in turn for `burst_s` seconds, `repeats` at least.

    A single call in turn, as `timing.compare` makes, would find a tenth of a millisecond's network
    thrown out of the caches by the seconds of the others. `times_ms` holds a round's median, so
    that ratios are paired by round, and a row's `median_ms` is the median of them: each round
    counts once, however many calls fitted into it. A rung gets a turn with each of its numbers of
    threads, and keeps the one with which it was faster: which that is depends on the hour, so that
    a choice made beforehand would slow it by chance.
    """
    turns = [(name, count) for name in calls for count in threads[name]]
    every: dict[tuple[str, int], list[float]] = {turn: [] for turn in turns}
    medians: dict[tuple[str, int], list[float]] = {turn: [] for turn in turns}
    for index in range(rounds):
        shift = index % len(turns)
        for turn in turns[shift:] + turns[:shift]:
            timing = measure(
                calls[turn[0]], warmup=1, min_repeats=repeats, min_seconds=burst_s,
                max_seconds=MOST_S, batch=batch, threads=turn[1],
            )  # fmt: skip
            every[turn] += timing.times_ms
            medians[turn].append(timing.median_ms)
    kept = {
        name: min(((name, count) for count in threads[name]), key=lambda t: np.median(medians[t]))
        for name in calls
    }
    return Comparison(
        {
            name: Timing(
                float(np.median(medians[turn])), float(np.percentile(every[turn], 90)),
                len(every[turn]), batch, "cpu", turn[1], dtypes[name], name,
                times_ms=tuple(medians[turn]),
            )
            for name, turn in kept.items()
        }
    )  # fmt: skip


class _Call(nn.Module):
    """A drawing as a module, whose operators can be watched."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, seed: torch.Tensor) -> torch.Tensor:
        self.draw([CAPTION], torch.Generator().manual_seed(0))
        return seed


def macs_of(rung: Rung, draw: Draw) -> int | None:
    """Multiply-accumulates of one picture, as a dense graph would do them."""
    if not rung.needs:
        return None
    if hasattr(_model(rung.needs[0]).config, "noise") and len(rung.needs) == 1:
        network = folded_of(rung.needs[0])
        if isinstance(network, QuantizedGenerator):
            network = network.folded()
        return model_cost(network, example_inputs(network, 1)).macs
    if rung.runtime != "eager":
        return None  # what another runtime computes is not seen from here
    return model_cost(_Call(draw), torch.zeros(1)).macs


def bytes_of(rung: Rung) -> int | None:
    """The weights' bytes as the rung uses them."""
    if not rung.needs:
        return None
    model = _model(rung.needs[0])
    if isinstance(model, QuantizedGenerator):
        return stored_bytes(model)
    if rung.dtype == "int8":
        return calibrated_bytes(model)
    return 4 * parameters(rung)


def recorded_quality(rung: Rung) -> dict[str, float]:
    """The figures that are recorded for a rung's weights; missing ones are left out."""
    found = {}
    for figure in FIGURES:
        with suppress(ResultError):
            entry = result(rung.quality.format(figure))
            known = entry.extra.get("weights")
            if rung.quality.startswith("ladder.") and known not in (None, rung.weights):
                continue  # scored with weights that were trained again since
            found[figure] = entry.value
    return found


def climb(
    rungs: Sequence[Rung],
    folder: Path,
    rounds: int = 5,
    *,
    throughput: bool = True,
    say: Callable[[str], None] = print,
) -> Ladder:
    """Measure the rungs and controls that can be measured here.

    Args:
        rungs: in order, controls behind.
        folder: for the graphs that runtimes read.
        rounds: how often each gets its turn.
        throughput: whether BATCH pictures at once are timed too.
        say: told of progress.
    """
    left_out, draws, chosen = [], {}, []
    for rung in rungs:
        if why := rung.left_out():
            left_out.append(why)
            continue
        say(f"preparing {rung.words}")
        try:
            draws[rung.name] = rung.make(folder, 1)
            call_of(draws[rung.name], 1)()  # what exports a graph does so now
        except (ImportError, ExportError) as error:
            left_out.append(f"{rung.words} is left out: {error}")
            continue
        chosen.append(rung)
    calls = {rung.name: call_of(draws[rung.name], 1) for rung in chosen}
    threads = {rung.name: thread_counts(rung) for rung in chosen}
    dtypes = {rung.name: rung.dtype for rung in chosen}
    say(f"timing {len(calls)} rows in turn, {rounds} rounds")
    timings = time_in_turn(calls, threads, dtypes, 1, rounds)
    peak = gemm_peak(threads=1)
    rows = []
    for rung in chosen:
        timing = timings[rung.name]
        macs = macs_of(rung, draws[rung.name])
        rows.append(
            Row(
                rung.name, rung.words, rung.change, rung.control, rung.runtime, rung.dtype,
                timing.threads, timing.median_ms, timing.p90_ms, timing.images_per_s,
                parameters(rung) if rung.needs else None, macs, bytes_of(rung),
                peak_share=None if macs is None else 2e3 * macs / (timing.median_ms * peak),
                **recorded_quality(rung),
            )
        )  # fmt: skip
    _ratios(rows)
    if throughput:
        _throughput(rows, {rung.name: rung for rung in chosen}, folder, say)
    return Ladder(rows, timings, left_out, throughput)


def _ratios(rows: list[Row]) -> None:
    """Of the medians that stand in the table, so that a reader can divide them too."""
    first = before = next((row for row in rows if not row.control), None)
    for row in rows:
        if first is not None:
            row.speedup_to_first = first.batch1_ms / row.batch1_ms
        if not row.control:
            row.speedup_to_previous = before.batch1_ms / row.batch1_ms
            before = row


def _throughput(
    rows: list[Row], rungs: dict[str, Rung], folder: Path, say: Callable[[str], None]
) -> None:
    say(f"preparing {BATCH} pictures at once, and timing them in turn, {ROUNDS_OF_MANY} rounds")
    calls = {row.name: call_of(rungs[row.name].make(folder, BATCH), BATCH) for row in rows}
    threads = {name: thread_counts(rungs[name]) for name in calls}
    dtypes = {name: rungs[name].dtype for name in calls}
    timings = time_in_turn(calls, threads, dtypes, BATCH, ROUNDS_OF_MANY, repeats=1)
    for row in rows:
        row.images_per_s = max(row.images_per_s, timings[row.name].images_per_s)


# --- what it comes to -----------------------------------------------------------------------------


def split(ladder: Ladder) -> dict[str, float]:
    """The factor that each kind of change brought; their product is the whole, by medians."""
    factors = dict.fromkeys(CHANGES, 1.0)
    for before, row in zip(ladder.rungs, ladder.rungs[1:], strict=False):
        factors[row.change] *= before.batch1_ms / row.batch1_ms
    return factors


def split_sentence(ladder: Ladder) -> str:
    """The total, and how it comes about, in one sentence."""
    rungs = ladder.rungs
    total = rungs[0].batch1_ms / rungs[-1].batch1_ms
    parts = [f"{CHANGES[kind]} {factor:.3g}" for kind, factor in split(ladder).items()]
    return (
        f"From {rungs[0].words} ({rungs[0].batch1_ms:.3g} ms) to {rungs[-1].words} "
        f"({rungs[-1].batch1_ms:.3g} ms) one picture takes {total:.4g} times fewer milliseconds: "
        f"{', '.join(parts[:-1])} and {parts[-1]}, multiplied."
    )


def three_ratios(ladder: Ladder) -> dict[str, float]:
    """Algorithm, system and end to end at batch 1 and, where it was timed, at the best batch.

    Between the first rung and the last stands the last network in the first one's runtime and
    precision (eager, float32): from the first to it only the algorithm changes, from it to the last
    only the system. Without it (the student is not trained) only the end-to-end ratios are known.
    """
    first, last = ladder.rungs[0], ladder.rungs[-1]
    found = {"end_to_end": first.batch1_ms / last.batch1_ms}
    best_batch = ladder.throughput and first.images_per_s and last.images_per_s
    if best_batch:
        found["end_to_end_best_batch"] = last.images_per_s / first.images_per_s
    middle = ladder.row("student_eager")
    if middle is not None:
        found["algorithm"] = first.batch1_ms / middle.batch1_ms
        found["system"] = middle.batch1_ms / last.batch1_ms
        if best_batch and middle.images_per_s:
            found["algorithm_best_batch"] = middle.images_per_s / first.images_per_s
            found["system_best_batch"] = last.images_per_s / middle.images_per_s
    return found


def half_size_sentence() -> str:
    """That rung 0 is no straw man: what a teacher of half the size is worth, as recorded."""
    try:
        whole = result("gpt_sweep.exact_accuracy.gpt_m")
        half = result("gpt_sweep.exact_accuracy.gpt_s")
    except ResultError:
        return "The size sweep of the teacher is not recorded."
    drop = 100 * (whole.value - half.value)
    return (
        f"A smaller teacher would be worse: the next size down of the recorded sweep loses "
        f"{drop:.1f} points of exact accuracy."
    )


def rival_sentence(ladder: Ladder) -> str:
    """The last rung against the old method with as much care: its cached loop in a runtime.

    Empty where that was not measured.
    """
    rival, last = ladder.row("gpt_onnx"), ladder.rungs[-1]
    if rival is None:
        return ""
    many = ""
    if ladder.throughput and rival.images_per_s and last.images_per_s:
        many = f", and {last.images_per_s / rival.images_per_s:.3g} times more pictures at once"
    return (
        f"Against the cached loop in ONNX Runtime it is {rival.batch1_ms / last.batch1_ms:.3g} "
        f"times fewer milliseconds{many}."
    )


def spread_of(ladder: Ladder, name: str, over: str) -> tuple[float, tuple[float, float]]:
    """A ratio of two rows' medians, as the table's readers divide them, and its 95 % interval.

    The interval is of that very ratio: 1,000 bootstraps, in each of which both medians are taken
    over the same rounds, drawn with replacement.
    """
    slow, fast = (np.asarray(ladder.timings[row].times_ms) for row in (over, name))
    picks = np.random.default_rng(0).integers(len(slow), size=(1000, len(slow)))
    ratios = np.median(slow[picks], axis=1) / np.median(fast[picks], axis=1)
    low, high = (float(end) for end in np.percentile(ratios, [2.5, 97.5]))
    ratio = float(np.median(slow) / np.median(fast))
    return ratio, (min(low, ratio), max(high, ratio))


def noise_of(ladder: Ladder) -> float:
    """The median over rows of (highest - lowest) / median between rounds: how noisy it was here."""
    spans = [
        (max(t.times_ms) - min(t.times_ms)) / statistics.median(t.times_ms)
        for t in ladder.timings.values()
    ]
    return statistics.median(spans)
