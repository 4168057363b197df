"""Record what notebook 10 shows.

    python -m fastgen_course.search.nas_records [PART ...]

Minutes on one idle core: `supernet` 9, `halving` 4, `latency` 2 (on an otherwise idle machine),
`quality` 3, `search` 3, `alone` 7, `ends` 1, `shorts` 12, `exact` 10, `finalists` 40, `pull` 18,
`ratios` 34 (24 of them to train the plain widths; the rest wants an idle machine). `quality` needs
`supernet`; `search` needs `latency` and `quality`; `alone` and `ends` go on from `quality`;
`shorts`, `exact`, `pull` and `finalists` need `search`; `ratios` needs `finalists`. All go on where
they were, row by row; `--again` measures anew. `--tiny` tries the first parts on little and records
nothing. `--workers N` has the trials of `quality` on N workers of Ray. `finalist_0`, `finalist_1`
and `finalist_2` train one finalist each, so that two cores can share what `finalists` does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.files import data_path
from fastgen_course.models.searched import ACTIVATIONS, Architecture, SearchedGenerator, uniform
from fastgen_course.search.finalists import (
    FULL,
    SHARES,
    finalist_trainer,
    load_finalists,
    ratio_of,
    save_finalists,
    score,
    time_side_by_side,
)
from fastgen_course.search.latency import LatencyTable
from fastgen_course.search.nas_checks import (
    TRAINED_WIDTHS,
    record_ends,
    record_exact,
    width_trainer,
)
from fastgen_course.search.nas_searching import record_latency, record_quality, record_search
from fastgen_course.search.noting import (
    AREA,
    BASE,
    COMMAND,
    HALVING_FIRST,
    MIDDLE,
    SCORED,
    SHIPPED,
    WIDTHS,
    Options,
    best_initialisation,
    has,
    note,
    plotted_random,
    progress,
    teacher,
)
from fastgen_course.search.quality import rank_correlation
from fastgen_course.search.standalone import (
    INITIALISATIONS,
    Lessons,
    ShortRecipe,
    ShortTrainer,
    fresh_network,
    successive_halving,
)
from fastgen_course.search.supernet import SupernetRecipe, trained_supernet
from fastgen_course.search.trials import run_trials
from fastgen_course.timing import record_timing, result
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.training.matching import MatchTrainer

PULL_STEPS = 1000  # of the control, GENERATOR_BASE with the transport


def record_supernet(options: Options) -> None:
    """Train the supernet; its state stays in data/runs."""
    if options.tiny:
        trained_supernet(SupernetRecipe(steps=2, batch=4), name="supernet_tiny", keep=False)
    else:
        trained_supernet()


def record_halving(options: Options) -> None:
    """Activation and weight initialisation by successive halving of short trainings."""
    batch, first = (4, 1) if options.tiny else (48, HALVING_FIRST)
    lessons = Lessons(load_model(BASE), ShortRecipe(batch=batch))
    candidates = [(a, i) for a in ACTIVATIONS for i in INITIALISATIONS][:: 4 if options.tiny else 1]
    trainings = {}

    def train(candidate: tuple[str, str], updates: int) -> float:
        config = Architecture(MIDDLE.widths, MIDDLE.blocks, MIDDLE.ups, candidate[0])
        recipe = ShortRecipe(steps=updates, batch=batch)
        name = "halving_" + "_".join(candidate)
        trainer = ShortTrainer(name, fresh_network(config, candidate[1]), lessons, recipe, True)
        trainings[candidate] = trainer.training
        distance = lessons.distance(trainer.run(quiet=True, keep=options.keep))
        print(f"{updates:4} updates  {' '.join(candidate):24} {distance:.4f}", flush=True)
        return distance

    rungs = successive_halving(candidates, train, first)
    for rung in rungs:
        best = min(rung.distances, key=rung.distances.__getitem__)
        note(
            options, f"halving_distance.updates_{rung.updates}", rung.distances[best],
            "relative square error", "halving", best=list(best), batch=batch,
            architecture=str(MIDDLE),
            distances={" ".join(c): round(d, 5) for c, d in rung.distances.items()},
        )  # fmt: skip
    for training in trainings.values():
        training.finish()


# --- trainings ----------------------------------------------------------------------------------


def _short(name: str, network: SearchedGenerator, lessons: Lessons) -> tuple[nn.Module, float]:
    """A network after its short training, and its distance; a killed one goes on."""
    trainer = ShortTrainer(name, network, lessons)
    trained = trainer.run(quiet=True)
    distance = lessons.distance(trained)
    trainer.training.finish()
    return trained, distance


def record_alone(options: Options) -> None:
    """RANDOM networks from fresh weights, each by itself: does the supernet order them alike?"""
    lessons = Lessons(teacher(), ShortRecipe())
    configs = plotted_random()

    def trial(config: Architecture) -> float:
        network = fresh_network(config, best_initialisation())
        return _short(f"nas_alone_{configs.index(config)}", network, lessons)[1]

    alone = run_trials(
        configs, trial, data_path("runs", "nas_alone.jsonl"), 0, progress("trainings")
    )
    supernet = trained_supernet(quiet=True)
    shared = [lessons.distance(supernet.extract(c)) for c in configs]
    rho = rank_correlation(shared, alone)
    note(options, "rank_correlation", rho, "Spearman's rho", "alone", None, networks=len(configs),
          shared=shared, alone=alone, updates=ShortRecipe().steps)  # fmt: skip


def _predict_anew(options: Options, row: str, predicted: float) -> None:
    """Give a recorded network the present table's milliseconds; its training stands."""
    known = result(f"{AREA}.{row}")
    if known.extra["predicted"] != predicted:
        note(options, row, known.value, known.unit, "shorts", None,
             **{**known.extra, "predicted": predicted})  # fmt: skip


def record_shorts(options: Options) -> None:
    """Every network of the plot: its slice of the supernet, finetuned briefly and alike; FID."""
    lessons = Lessons(teacher(), ShortRecipe())
    supernet = trained_supernet(quiet=True)
    table = LatencyTable.load()
    plotted = {f"random_{i}": c for i, c in enumerate(plotted_random())}
    plotted |= {f"width_{w}": uniform(w / 1000) for w in WIDTHS}
    plotted |= {f"finalist_{i}": c for i, c in enumerate(load_finalists()[0])}
    for name, config in plotted.items():
        row = f"short_fid.{name}"
        if not options.again and has(row, architecture=str(config)):
            _predict_anew(options, row, table(config))
            continue
        network, distance = _short(f"nas_short_{name}", supernet.extract(config), lessons)
        found = score(network)
        note(
            options, row, found.fid[0], "FID", "shorts", None, architecture=str(config),
            predicted=table(config), distance=distance, macs=config.macs(),
            exact=found.exact[0], updates=lessons.recipe.steps, seeds=[0],
            genes=[list(config.widths), list(config.blocks), list(config.ups)],
        )  # fmt: skip
    if has("short_fid.generator_base"):
        _predict_anew(options, "short_fid.generator_base", table.extra["base_ms"])
    else:
        found = score(teacher())
        note(options, "short_fid.generator_base", found.fid[0], "FID", "shorts", None,
              predicted=table.extra["base_ms"], exact=found.exact[0], seeds=[0])  # fmt: skip


def record_finalists(options: Options) -> None:
    """The finalists' full training; the best by `judge_train` is shipped as generator_nas."""
    configs, _ = load_finalists()
    lessons = Lessons(teacher(), ShortRecipe())
    found = {}
    for index, config in enumerate(configs):
        row = f"finalist_distance.finalist_{index}"
        if not options.again and has(row, architecture=str(config)):
            found[index] = result(f"{AREA}.{row}").value
            continue
        trainer = finalist_trainer(index)
        network = trainer.run(keep=True)
        found[index] = lessons.distance(network)
        note(
            options, row, found[index], "relative square error",
            "finalists", None, architecture=str(config), updates=trainer.recipe.steps,
            minutes=trainer.training.seconds / 60, **trainer.check(2000),
        )  # fmt: skip
    best = min(found, key=found.__getitem__)
    save_finalists(configs, best, distances=[found[i] for i in range(len(configs))])
    print(f"finalist {best} is the best; `python -m fastgen_course train {SHIPPED}` ships it.")


def record_pull(options: Options) -> None:
    """What the transport brings: a finalist without it, and GENERATOR_BASE with it."""
    base, supernet = teacher(), trained_supernet(quiet=True)
    plain = replace(FULL, transport=0.0)
    short = replace(FULL, steps=PULL_STEPS)
    rows = {
        "finalist_0_without": (supernet.extract(load_finalists()[0][0]), plain),
        "generator_base_with": (load_model(BASE).requires_grad_(True), short),
    }
    for name, (network, recipe) in rows.items():
        row = f"pull_fid.{name}"
        if not options.again and has(row, updates=recipe.steps):
            continue
        trained = MatchTrainer(f"nas_pull_{name}", network, base, recipe).run(keep=True)
        found = score(trained, SCORED)
        middle = statistics.fmean(found.fid)
        spread = min(*found.fid, middle), max(*found.fid, middle)
        note(options, row, middle, "FID", "pull", spread, updates=recipe.steps,
             transport=recipe.transport, **found.extra())  # fmt: skip


def train_finalist(options: Options, index: int) -> None:
    """Train one finalist and keep its state: what `finalists` does, for two cores at once."""
    finalist_trainer(index).run(keep=True)


def record_ratios(options: Options) -> None:
    """Milliseconds and FID of the finalists, and of plain widths with their training, beside
    GENERATOR_BASE's."""
    configs, best = load_finalists()
    networks = {BASE: teacher()}
    for index in range(len(configs)):
        if index == best:
            networks[SHIPPED] = load_model(SHIPPED)
        else:
            networks[f"finalist_{index}"] = finalist_trainer(index).run(quiet=True, keep=True)
    for width in TRAINED_WIDTHS:
        networks[f"width_{width}"] = width_trainer(width).run(quiet=True, keep=True)
    rows = time_side_by_side(networks, 90.0)
    print(rows.table(), flush=True)
    scores = {}
    for name, network in networks.items():
        scores[name] = score(network, SCORED)
        for figure, unit, values in (("fid", "FID", scores[name].fid),
                                     ("exact_accuracy", "share", scores[name].exact)):  # fmt: skip
            middle = statistics.fmean(values)
            note(options, f"{figure}.{name}", middle, unit, "ratios",
                  (min(*values, middle), max(*values, middle)), by_seed=list(values))  # fmt: skip
    timed = {"batch": 1, "threads": 1, "runtime": "onnxruntime", "dtype": "float32"}
    for name in [n for n in networks if n != BASE]:
        speed = rows.speedup(name, over=BASE)
        ratio, spread = ratio_of(scores[name].fid, scores[BASE].fid)
        tails = [f".{name}", ""] if name == SHIPPED else [f".{name}"]
        for tail in tails:
            stem = "speedup" if not tail else f"{name}_speedup"
            note(options, stem, speed.value, "x", "ratios", (speed.low, speed.high), **timed)
            stem = "fid_ratio" if not tail else f"{name}_fid_ratio"
            note(options, stem, ratio, "x", "ratios", spread, seeds=list(SCORED))
    for name, timing in rows.items():
        if options.keep:
            record_timing(AREA, f"{AREA}.{name}_ms", timing, runtime="onnxruntime",
                          command=f"{COMMAND} ratios", base=name)  # fmt: skip


RECORDERS: dict[str, Callable[[Options], None]] = {
    "supernet": record_supernet,
    "halving": record_halving,
    "latency": record_latency,
    "quality": record_quality,
    "search": record_search,
    "alone": record_alone,
    "ends": record_ends,
    "shorts": record_shorts,
    "exact": record_exact,
    "finalists": record_finalists,
    "pull": record_pull,
    "ratios": record_ratios,
}
ON_REQUEST: dict[str, Callable[[Options], None]] = {
    f"finalist_{i}": partial(train_finalist, index=i) for i in range(len(SHARES))
}
TIMED = ("latency", "ratios")
TRIED = ("supernet", "halving", "latency")  # what --tiny runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; the timed parts refuse a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on very little")
    parser.add_argument("--workers", type=int, default=0, help="workers on Ray; 0 does without")
    given = parser.parse_args(arguments)
    parts = given.parts or list(TRIED if given.tiny else RECORDERS)
    known = {**RECORDERS, **ON_REQUEST}
    unknown = [part for part in parts if part not in known]
    problem = None
    if unknown:
        problem = f"there is no part {unknown[0]!r}; choose from {', '.join(known)}."
    elif given.workers < 0:
        problem = f"--workers must be at least 0, got {given.workers}."
    elif given.tiny and not set(parts) <= set(TRIED):
        problem = f"--tiny tries {', '.join(TRIED)} alone."
    elif not given.tiny and set(parts) & set(TIMED) and (taken := cores_taken()) > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for part in parts:
        known[part](Options(given.again, given.tiny, given.workers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
