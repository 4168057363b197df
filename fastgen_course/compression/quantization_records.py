"""Record what notebook 12 shows: quality by bits, codebooks, QAT, and int8 that runs as int8.

    python -m fastgen_course.compression.quantization_records [ptq|codebook|qat|runtimes|speed|gpt]

On one idle core `ptq` takes about 12 minutes, `codebook` 4, `qat` 40 (15 for each
training of COMPARED; it needs `train generator_int8` and `train generator_int4`, 7 minutes each),
`runtimes` 8, `speed` 5 and `gpt` 10, these two on an otherwise idle machine. All go on where they
were, row by row; `--again` measures everything anew. `--tiny` tries it all on few pictures and
records nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression import quantization_quality as scores
from fastgen_course.compression.codebook import codebook_generator, generator_bytes
from fastgen_course.compression.dynamic_gpt import (
    GPT_ROWS,
    gpt_quality,
    operators_started,
    time_gpt,
)
from fastgen_course.compression.folding import fold
from fastgen_course.compression.int8_graphs import write_integer_graph
from fastgen_course.compression.int8_runtimes import (
    EXACT,
    FLOAT,
    ROWS,
    WHY,
    Draw,
    Networks,
    Refused,
    Workshop,
    kind_here,
    time_rows,
    timed_calls,
)
from fastgen_course.compression.packed import stored_bytes
from fastgen_course.compression.qat import (
    COMPARED,
    QAT_RECIPES,
    START,
    compared_network,
)
from fastgen_course.compression.quantized import quantize_generator
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.timing import (
    Comparison,
    describe_machine,
    machine,
    record,
    record_timing,
    result,
)
from fastgen_course.timing.results import ResultError
from fastgen_course.timing.thread_experiment import cores_taken

AREA = scores.AREA
COMMAND = "python -m fastgen_course.compression.quantization_records"
BASE = "generator_base"
BATCHES = (1, 64)
WEIGHT_BITS = (8, 6, 5, 4, 3, 2)
GRANULARITY = {"channel": True, "tensor": False}
ACTIVATION_BITS = (8, 4)
METHODS = ("minmax", "percentile", "mse")
CENTRES = (256, 64, 32, 16, 8, 4)
ONE_SEED = (0,)  # for sweeps; what a headline is made of gets all of SEEDS
# A row that moves more pixel values than this computes another network than the shipped one. Sums
# that lie between two integers fall to either side, so that no two runtimes agree on all of them.
SAME_SHARE = 0.01
# What notebook 12 tells of; other notebooks quantise networks of their own.
OF_BASE = {name: recipe for name, recipe in QAT_RECIPES.items() if recipe.start == START}


@dataclass(frozen=True)
class Options:
    """What the command line asked for; `keep` is False for a trial, which records nothing."""

    again: bool = False
    tiny: bool = False
    seconds: float = 60.0

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny

    @property
    def pictures(self) -> int:
        """How many pictures a row is scored on."""
        return 60 if self.tiny else scores.PICTURES


def _score(
    options: Options, part: str, name: str, draw: Callable[[], Draw], weights: str,
    seeds: Sequence[int], **extra: Any,
) -> None:  # fmt: skip
    """Score a row that is not recorded yet; `draw` makes its drawing function."""
    same = {"weights": weights, "captions": options.pictures, "seeds": list(seeds), **extra}
    if not options.again and options.keep and scores.is_recorded(name, **same):
        print(f"{name} is recorded already", flush=True)
        return
    found = scores.quality(
        draw(), load_model(BASE).config.noise, seeds=seeds, n=options.pictures,
        chunk=20 if options.tiny else scores.CHUNK,
    )  # fmt: skip
    print(f"{name:24} FID {statistics.fmean(found.fid):8.3f}  exact "
          f"{statistics.fmean(found.exact_accuracy):.4f}", flush=True)  # fmt: skip
    if options.keep:
        scores.record_quality(name, found, command=f"{COMMAND} {part}", base=BASE, **same)


def _note(options: Options, name: str, value: float, unit: str, part: str, **extra: Any) -> None:
    spread = extra.pop("spread", None)
    print(f"{name:52} {value:12.5g} {unit}", flush=True)
    if options.keep:
        area = name.partition(".")[0]
        record(area, name, value, unit, spread=spread, command=f"{COMMAND} {part}", **extra)


def _key(name: str = BASE) -> str:
    return load_card(name)["sha256"][:12]


# --- quality ------------------------------------------------------------------------------------


def record_ptq(options: Options) -> None:
    """GENERATOR_BASE without any retraining: weights of 8 to 2 bits, then activations as well."""
    base, key = load_model(BASE), _key()
    score = partial(_score, options, "ptq", weights=key)
    score("base", lambda: base, seeds=scores.SEEDS)
    for granularity, per_channel in GRANULARITY.items():
        for bits in WEIGHT_BITS:
            network = quantize_generator(
                base, weight_bits=bits, activation_bits=None, per_channel=per_channel
            )
            name = f"w{bits}_{granularity}"
            score(name, lambda n=network: n, seeds=ONE_SEED)
            _note(options, f"{AREA}.stored_bytes.{name}", stored_bytes(network), "bytes", "ptq")
    for bits in ACTIVATION_BITS:
        for method in METHODS:
            network = quantize_generator(base, weight_bits=8, activation_bits=bits, method=method)
            score(f"w8a{bits}_{method}", lambda n=network: n, seeds=ONE_SEED)
    for name, recipe in OF_BASE.items():
        network = quantize_generator(
            base, weight_bits=recipe.weight_bits, activation_bits=recipe.activation_bits
        )
        score(f"{name}_ptq", lambda n=network: n, seeds=scores.SEEDS)
    parameters = 4 * sum(p.numel() for p in fold(base).parameters())
    _note(options, f"{AREA}.stored_bytes.base", parameters, "bytes", "ptq", base=BASE)


def record_codebook(options: Options) -> None:
    """Codebooks of 256 to 4 centres a layer: quality, and bytes with and without Huffman."""
    folded, key = fold(load_model(BASE)), _key()
    for k in CENTRES:
        network, sizes = codebook_generator(folded, k)
        _score(options, "codebook", f"k{k}", lambda n=network: n, key, ONE_SEED)
        for how, count in generator_bytes(folded, sizes).items():
            extra = {"base": BASE, "centres": k}
            _note(options, f"{AREA}.{how}_bytes.k{k}", count, "bytes", "codebook", **extra)


def record_qat(options: Options) -> None:
    """What QAT ships, drawn in integers by ONNX Runtime, beside the unquantised control.

    `int8.fid_ratio` and `int4.fid_ratio` are against the better of GENERATOR_BASE and the control,
    which had the same further training.
    """
    key = _key()
    for name, recipe in COMPARED.items() if not options.tiny else ():
        same = {"steps": recipe.steps, "seed": recipe.seed, "hold": recipe.hold}
        make = partial(compared_network, name, quiet=True)
        _score(options, "qat", name, make, key, scores.SEEDS, **same)
    for name in OF_BASE:
        network = load_model(name)
        with tempfile.TemporaryDirectory() as folder:
            graph = write_integer_graph(network, Path(folder) / "graph.onnx")
            runner = OnnxModel(graph.path)
            draw: Draw = lambda z, y, r=runner: torch.from_numpy(r(z, y))  # noqa: E731
            weights = f"{key}-{_key(name)}"
            _score(
                options, "qat", name, lambda d=draw: d, weights, scores.SEEDS,
                runtime="onnxruntime", dtype="int8",
            )  # fmt: skip
            extra = {"base": BASE, "weights": weights}
            _note(options, f"{AREA}.moved_share.{name}", graph.moved, "share", "qat", **extra)
            _note(options, f"{AREA}.graph_bytes.{name}", graph.file_bytes, "bytes", "qat", **extra)
        stored = stored_bytes(network)
        _note(options, f"{AREA}.stored_bytes.{name}", stored, "bytes", "qat", base=BASE)
        if options.keep:
            value, spread, base = scores.fid_ratio(name, ("base", "control"))
            shipped, _, _ = scores.fid_ratio(name, ("base",))
            title = name.removeprefix("generator_")
            bits = network.config.weight_bits
            _note(
                options, f"{title}.fid_ratio", value, "x", "qat", spread=spread, base=base,
                over_generator_base=shipped, weight_bits=bits, runtime="onnxruntime",
                dtype="int8", **{k: v for k, v in extra.items() if k != "base"},
            )  # fmt: skip


def record_runtimes(options: Options) -> None:
    """The quality of every int8 row in a runtime of its own, ONNX Runtime's are `qat`'s."""
    networks = Networks.shipped()
    batch = 20 if options.tiny else scores.CHUNK
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(networks, Path(folder), batch)
        for name in ROWS:
            if name in FLOAT or name.startswith("int8_onnxruntime") or name == "int8_rounded":
                continue
            try:
                draw = shop.draw(name)
            except Refused as error:
                _refuse(options, name, str(error), "runtimes")
                continue
            seeds = scores.SEEDS if name in EXACT else ONE_SEED
            _score(options, "runtimes", name, lambda d=draw: d, networks.weights, seeds)


def _refuse(options: Options, name: str, reason: str, part: str) -> None:
    _note(options, f"{AREA}.refused.{name}", 0, "rows", part, reason=reason)
    print(f"    {reason}", flush=True)


# --- speed --------------------------------------------------------------------------------------


def record_speed(options: Options) -> None:
    """Every row at batch 1 and 64, interleaved, and a headline of each batch.

    The headline is the fastest row that computes the shipped int8 network over the fastest float32
    row, as the median of paired ratios. Rows and headline are kept by the kind of processor
    (`KINDS`); `int8.speedup_batch1` and `int8.speedup_batch64` are those of a processor with VNNI,
    and of another only until there is one.
    """
    networks = Networks.shipped()
    for bits in (8, 7):  # which of them a processor computes rightly
        name = f"{AREA}.{kind_here()}.moved_share.w{bits}"
        if options.again or not _has(name, weights=networks.weights):
            network = quantize_generator(networks.base, weight_bits=bits, activation_bits=8)
            with tempfile.TemporaryDirectory() as folder:
                graph = write_integer_graph(network, Path(folder) / "graph.onnx")
            _note(options, name, graph.moved, "share", "speed", weights=networks.weights)
    for batch in (1, 3) if options.tiny else BATCHES:
        if not options.again and options.keep and _timed(batch, networks.weights):
            print(f"batch {batch} is recorded already", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            calls, refused, moved = timed_calls(networks, batch, Path(folder))
            rows = time_rows(calls, batch, 2.0 if options.tiny else options.seconds)
        print(rows.table(), flush=True)
        for name, reason in refused.items():
            _refuse(options, f"{kind_here()}.{name}.batch{batch}", reason, "speed")
        keep_timings(options, rows, moved, batch, networks.weights)


def keep_timings(
    options: Options, rows: Comparison, moved: Mapping[str, float], batch: int, weights: str
) -> None:
    """Record what `time_rows` measured, and the headline of this batch."""
    best = min((name for name in rows if name in FLOAT), key=lambda n: rows[n].median_ms)
    sound = [name for name in rows if moved.get(name, 1.0) <= SAME_SHARE]
    kind = kind_here()
    stem = f"{AREA}.{kind}"
    same = {"command": f"{COMMAND} speed", "weights": weights}
    for name, timing in rows.items():
        ratio = rows.speedup(name, over=best)
        why = WHY.get(name) if ratio.value < 1 else None
        extra = {
            "base": BASE, "runtime": ROWS[name].runtime, "over": best,
            "moved": moved.get(name), "why": why, **same,
        }  # fmt: skip
        if not options.keep:
            continue
        record_timing(AREA, f"{stem}.{name}.batch{batch}_ms", timing, **extra)
        record(
            AREA, f"{stem}.{name}.batch{batch}_speedup", ratio.value, "x",
            spread=(ratio.low, ratio.high), batch=batch, threads=1, dtype=ROWS[name].dtype, **extra,
        )  # fmt: skip
    if not sound:
        print("no int8 row computed the shipped network: no headline is recorded.", flush=True)
        return
    fastest = min(sound, key=lambda n: rows[n].median_ms)
    ratio = rows.speedup(fastest, over=best)
    names = [f"int8.{kind}.speedup_batch{batch}"]
    if kind == "four_products" or not _has(f"int8.four_products.speedup_batch{batch}"):
        names.append(f"int8.speedup_batch{batch}")
    for name in names:
        _note(
            options, name, ratio.value, "x", "speed",
            spread=(ratio.low, ratio.high), base=BASE, batch=batch, threads=1, dtype="int8",
            runtime=f"{fastest} over {best}", weights=weights, isa=machine()["isa"],
            moved=moved[fastest], kind=kind,
        )  # fmt: skip


def _timed(batch: int, weights: str) -> bool:
    try:
        row = result(f"int8.{kind_here()}.speedup_batch{batch}")
    except ResultError:
        return False
    return row.extra.get("weights") == weights and row.machine == describe_machine()


# --- the language model -------------------------------------------------------------------------


def record_gpt(options: Options) -> None:
    """The language model of 04 with dynamic int8: milliseconds a drawing, and what it draws."""
    key, kind = _key("gpt"), kind_here()
    for batch in (1,) if options.tiny else BATCHES:
        name = f"{AREA}.{kind}.gpt_onnxruntime_int8.batch{batch}_ms"
        if not options.again and options.keep and _has(name, weights=key):
            print(f"gpt at batch {batch} is recorded already", flush=True)
            continue
        rows, refused = time_gpt(batch, 2.0 if options.tiny else 2 * options.seconds)
        print(rows.table(), flush=True)
        for row, reason in refused.items():
            _refuse(options, f"{kind}.gpt_{row}.batch{batch}", reason, "gpt")
        best = min((n for n in rows if GPT_ROWS[n].dtype == "float32"),
                   key=lambda n: rows[n].median_ms)  # fmt: skip
        for row, timing in rows.items():
            ratio = rows.speedup(row, over=best)
            extra = {
                "base": "gpt", "runtime": GPT_ROWS[row].runtime, "over": best, "weights": key,
                "command": f"{COMMAND} gpt",
            }  # fmt: skip
            if options.keep:
                stem = f"{AREA}.{kind}.gpt_{row}.batch{batch}"
                record_timing(AREA, f"{stem}_ms", timing, **extra)
                record(
                    AREA, f"{stem}_speedup", ratio.value, "x", spread=(ratio.low, ratio.high),
                    batch=batch, threads=1, dtype=GPT_ROWS[row].dtype, **extra,
                )  # fmt: skip
    if (
        options.again
        or not options.keep
        or not _has(f"{AREA}.gpt_exact_accuracy.int8", weights=key)
    ):
        for row, (exact, nats, n) in gpt_quality(20 if options.tiny else 1000).items():
            extra = {"base": "gpt", "weights": key, "captions": n}
            _note(options, f"{AREA}.gpt_exact_accuracy.{row}", exact, "share", "gpt", **extra)
            _note(options, f"{AREA}.gpt_nats.{row}", nats, "nats a token", "gpt", **extra)
    with suppress(ImportError):  # torchao is one of the peers
        for row, count in operators_started().items():
            _note(options, f"{AREA}.gpt_operators.{row}", count, "operators", "gpt", base="gpt")


def _has(name: str, **extra: Any) -> bool:
    try:
        row = result(name)
    except ResultError:
        return False
    return all(row.extra.get(key) == value for key, value in extra.items())


RECORDERS: dict[str, Callable[[Options], None]] = {
    "ptq": record_ptq,
    "codebook": record_codebook,
    "qat": record_qat,
    "runtimes": record_runtimes,
    "speed": record_speed,
    "gpt": record_gpt,
}
TIMED = ("speed", "gpt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; the timed parts refuse a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on few pictures")
    given = parser.parse_args(arguments)
    parts = given.parts or list(RECORDERS)
    unknown = [part for part in parts if part not in RECORDERS]
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(RECORDERS)}."
    elif not given.tiny and set(parts) & set(TIMED) and (taken := cores_taken()) > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for part in parts:
        RECORDERS[part](Options(given.again, given.tiny))
    return 0


if __name__ == "__main__":
    sys.exit(main())
