"""The parts of `nas_records` that predict and search: latency table, quality, searchers."""

from __future__ import annotations

import math
import statistics
from functools import cache

from fastgen_course.checkpoints import load_model
from fastgen_course.files import data_path
from fastgen_course.models.searched import Architecture, SearchedGenerator
from fastgen_course.search.finalists import (
    SHARES,
    choose_finalists,
    save_finalists,
    time_side_by_side,
)
from fastgen_course.search.front import hypervolume
from fastgen_course.search.latency import (
    REPEATS,
    LatencyTable,
    measure_table,
    time_networks,
    validate,
)
from fastgen_course.search.noting import (
    ASKED,
    BASE,
    BUDGET,
    FITTED,
    SEEDS,
    TINY,
    UNSEEN,
    Options,
    binomial,
    has,
    note,
    progress,
    teacher,
)
from fastgen_course.search.quality import (
    QualityPredictor,
    load_distances,
    paired_p_value,
    rank_correlation,
    save_distances,
)
from fastgen_course.search.searchers import SEARCHERS, Evaluator, run_search
from fastgen_course.search.space import SPACE
from fastgen_course.search.standalone import Lessons, ShortRecipe
from fastgen_course.search.supernet import trained_supernet
from fastgen_course.search.trials import run_trials

# --- predictors ---------------------------------------------------------------------------------


def record_latency(options: Options) -> None:
    """The latency table, its three constants, and its error on unseen networks."""
    if not options.again and options.keep and has("latency_within_10_percent"):
        print("the latency table is recorded already", flush=True)
        return
    repeats, fitted, unseen = (3, 4, 3) if options.tiny else (REPEATS, FITTED, UNSEEN)
    space = TINY if options.tiny else SPACE
    configs = list(space.samples(fitted + unseen, seed=5))
    table, first = measure_table(space, configs, repeats)
    again = time_networks(configs[fitted:], repeats)
    table.fit(configs[:fitted], first[:fitted])
    found = validate(table, configs[fitted:], first[fitted:], again)
    # GENERATOR_BASE in the table's milliseconds. Its graph is exported and the table's are written
    # by hand, and the machine's speed has changed since: both go out by four networks beside it.
    some = {str(i): c for i, c in enumerate(configs[fitted : fitted + 4])}
    networks = {BASE: load_model(BASE), **{k: SearchedGenerator(c) for k, c in some.items()}}
    rows = time_side_by_side(networks, 2.0 if options.tiny else 30.0)
    exported = statistics.median(rows[k].median_ms / first[fitted + int(k)] for k in some)
    extra = {
        "base_ms": rows[BASE].median_ms / exported, "predicted_ms": found.predicted,
        "measured_ms": found.measured, "fitted_on": fitted,
    }  # fmt: skip
    table.extra = extra
    if options.keep:
        table.save()
    timed = {"batch": 1, "threads": 1, "runtime": "onnxruntime", "dtype": "float32"}
    errors, again = (sorted(x) for x in (found.errors, found.repeat_errors))
    note(options, "latency_error", statistics.median(errors), "share of the milliseconds",
          "latency", (errors[0], errors[-1]), **timed)  # fmt: skip
    note(options, "latency_repeat_error", statistics.median(again), "share of the milliseconds",
          "latency", (again[0], again[-1]), **timed)  # fmt: skip
    note(options, "latency_within_10_percent", found.within, "share", "latency",
          binomial(found.within, unseen), networks=unseen, allowed=found.allowed,
          entries=len(table.entries), **timed)  # fmt: skip


def record_quality(options: Options) -> None:
    """What the supernet says of architectures drawn at random, and a regression of it."""
    if not options.again and options.keep and has("quality_left_out_error"):
        print("the supernet's answers are recorded already", flush=True)
        return
    supernet = trained_supernet(quiet=True)
    lessons = Lessons(teacher(), ShortRecipe())
    lessons.distance(supernet.extract(SPACE.smallest()))  # makes what it needs before it is sent
    configs = list(SPACE.samples(ASKED, seed=6))
    log = data_path("runs", "nas_quality.jsonl")

    def trial(config: Architecture) -> float:
        return lessons.distance(supernet.extract(config))

    answers = run_trials(configs, trial, log, options.workers, progress("architectures"))
    save_distances(configs, answers)
    predictor = QualityPredictor.fit(configs, answers)
    names = [math.log(a) - e for a, e in zip(answers, predictor.left_out, strict=True)]
    rank = rank_correlation(names, answers)
    note(options, "quality_left_out_error", predictor.error, "share of the distance", "quality",
          None, networks=ASKED, penalty=predictor.penalty)  # fmt: skip
    note(options, "quality_left_out_rank_correlation", rank, "Spearman's rho", "quality", None,
          networks=ASKED)  # fmt: skip


# --- search -------------------------------------------------------------------------------------


def record_search(options: Options) -> None:
    """Searchers on the cached predictors, over fixed seeds; then the finalists."""
    table, quality = LatencyTable.load(), QualityPredictor.fit(*load_distances())
    latency, quality = cache(table), cache(quality)
    reference = latency(SPACE.largest()), quality(SPACE.smallest())
    volumes: dict[str, list[float]] = {}
    for name, searcher in SEARCHERS.items():
        try:
            volumes[name] = [
                hypervolume(
                    run_search(searcher, Evaluator(SPACE, latency, quality, BUDGET), s).points,
                    reference,
                )
                for s in range(SEEDS)
            ]
        except ImportError:
            print(f"{name} is not installed (see the extra [compare]).", flush=True)
            continue
        found = volumes[name]
        note(options, f"hypervolume.{name}", statistics.median(found), "of the rectangle",
              "search", (min(found), max(found)), by_seed=found, budget=BUDGET,
              reference=list(reference))  # fmt: skip
    for other in [n for n in volumes if n != "evolution"]:
        p = paired_p_value(volumes["evolution"], volumes[other])
        name = "evolution_p_value" + ("" if other == "random" else f"_over_{other}")
        note(options, name, p, "probability", "search", None, seeds=SEEDS,
              test="Wilcoxon's signed ranks, one-sided", over=other)  # fmt: skip
    supernet = trained_supernet(quiet=True)
    lessons = Lessons(teacher(), ShortRecipe())
    limits = [share * table.extra["base_ms"] for share in SHARES]
    configs = choose_finalists(
        latency, quality, lambda c: lessons.distance(supernet.extract(c)), limits
    )
    for config in configs:
        print(f"{latency(config):.3f} ms, {quality(config):.3f}: {config}", flush=True)
    if options.keep:
        save_finalists(configs, limits_ms=limits)
