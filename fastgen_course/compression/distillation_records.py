"""Record what notebook 13 shows: teachers, the ablation, the student, responses, orders, times.

    python -m fastgen_course.compression.distillation_records
        [sets|teachers|ablation|more|student|response|order|speed]
        [--with searched,pruned] [--rows a,b]

On one idle core `sets` (the many-step teachers' pictures, kept in data/runs) takes about 12
minutes, `teachers` 8, `student` 2 (after `train student`), `response` 6, `order` 7, and `speed`,
on an otherwise idle machine, 4. `ablation` takes about 25 minutes, `more`,
the rows that vary others, 15. All go on where they were, row by row; `--again` measures anew,
`--tiny` tries a part on few pictures and records nothing. `--with` adds students of other
architectures to `ablation`, each about 4 minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.compression import distillation_quality as scores
from fastgen_course.compression import teacher_sets
from fastgen_course.compression.distillation import (
    ABLATION,
    ARCHITECTURES,
    MORE,
    STUDENT,
    DistillTrainer,
    architecture_trainer,
)
from fastgen_course.compression.distillation_order import ORDERS, STAGES, run_order
from fastgen_course.compression.distillation_speed import record_speed
from fastgen_course.compression.response import (
    RESPONSE_SIZE,
    RESPONSES,
    code_logits,
    gradient_limit,
    gradient_norms,
    response_scores,
    train_response,
)
from fastgen_course.compression.teacher_sets import KEPT, TEACHERS, load_set, make_set
from fastgen_course.models.gpt import GPT_SIZES, draw_sequences
from fastgen_course.timing import ResultError, record, result
from fastgen_course.timing.thread_experiment import cores_taken
from fastgen_course.training.gpt import token_batches

AREA = scores.AREA
COMMAND = "python -m fastgen_course.compression.distillation_records"
SHIPPED = "student"
TEACHER = "gpt"  # whom the headline is measured against
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Options:
    """What the command line asked for; a trial (`tiny`) records nothing."""

    again: bool = False
    tiny: bool = False
    extra: tuple[str, ...] = ()  # architectures
    rows: tuple[str, ...] = ()  # of the ablation or the orders; empty: all
    seconds: float = 60.0

    @property
    def keep(self) -> bool:
        """Whether to record."""
        return not self.tiny

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that `--rows` asks for."""
        return [name for name in names if not self.rows or name in self.rows]


def key(name: str) -> str:
    """The first digits of shipped weights' hash: what a row is measured for."""
    return load_card(name)["sha256"][:12]


def note(options: Options, name: str, value: float, unit: str, part: str, **extra: Any) -> None:
    """Print a figure and, unless it is a trial, record it; `spread` may be among `extra`."""
    spread = extra.pop("spread", None)
    print(f"{name:52} {value:12.5g} {unit}", flush=True)
    if options.keep:
        record(AREA, name, value, unit, spread=spread, command=f"{COMMAND} {part}", **extra)


def score(
    options: Options, part: str, name: str, draw: Callable[[], scores.Draw],
    seeds: Sequence[int] = scores.TWO_SEEDS, **extra: Any,
) -> None:  # fmt: skip
    """Score a row that is not recorded yet, and keep a few of its pictures."""
    n = 60 if options.tiny else scores.PICTURES
    same = {"captions": n, "seeds": list(seeds), **extra}
    recorded = scores.is_recorded(name, **same) and name in scores.sampled_rows()
    if recorded and options.keep and not options.again:
        print(f"{name} is recorded already", flush=True)
        return
    made = draw()
    found = scores.quality(made, seeds=seeds, n=n, means=2 if options.tiny else scores.MEANS)
    print(f"{name:24} FID {statistics.fmean(found.fid):8.3f}  exact "
          f"{statistics.fmean(found.exact_accuracy):.4f}  recall "
          f"{statistics.fmean(found.recall):.3f}", flush=True)  # fmt: skip
    if options.keep:
        scores.keep_samples(name, made)
        scores.record_quality(name, found, command=f"{COMMAND} {part}", **same)


def sets(options: Options) -> dict[str, teacher_sets.TeacherSet] | None:
    """The teachers' pictures: a few made on the spot for a trial, else None, which loads them."""
    if not options.tiny:
        return None
    return {name: teacher_sets.new_part(teacher_sets.teacher_draw(name, 2), 16, 1) for name in KEPT}


# --- teachers and students ------------------------------------------------------------------------


def record_sets(options: Options) -> None:
    """Draw the many-step teachers' pictures; a killed run goes on with the part it was drawing."""
    if options.tiny:
        sets(options)
        return
    for name in KEPT:
        folder = make_set(name)
        print(f"{name}: complete, {sum(p.stat().st_size for p in folder.iterdir()):,} bytes")


def record_teachers(options: Options) -> None:
    """All teachers and real pictures; the headline's teacher with as many seeds as the student."""
    for name in KEPT:
        seeds = scores.SEEDS if name == TEACHER else scores.TWO_SEEDS
        score(
            options, "teachers", name, lambda n=name: scores.teacher_row(n), seeds,
            base=name, weights=TEACHERS[name].key(),
        )  # fmt: skip
    base = "generator_base"
    score(
        options, "teachers", base, lambda: scores.network_draw(load_model(base)), scores.SEEDS,
        base=base, weights=key(base),
    )  # fmt: skip
    score(options, "teachers", "real", lambda: scores.real_row, weights="")


SHORT = {"steps": 3, "batch": 4, "pairs_first": 0, "head_start": 0}  # of a trial


def record_ablation(options: Options) -> None:
    """The telling rows of ABLATION, and the architectures of `--with`, trained alike and scored."""
    _record_rows(options, [name for name in ABLATION if name not in MORE], options.extra)


def record_more(options: Options) -> None:
    """The other rows of ABLATION."""
    _record_rows(options, MORE)


def _record_rows(options: Options, names: Sequence[str], architectures: Sequence[str] = ()) -> None:
    given = sets(options)
    for name in options.chosen(names):
        recipe = replace(ABLATION[name], **SHORT) if options.tiny else ABLATION[name]
        label = f"distillation_{'trial_' if options.tiny else ''}{name}_{recipe.steps}"
        trainer = DistillTrainer(label, STUDENT, recipe, sets=given or _loaded(recipe.kept))
        _train_and_score(options, name, trainer)
    for name in architectures:
        recipe = ABLATION["matched"]
        recipe = replace(recipe, **SHORT) if options.tiny else recipe
        trainer = architecture_trainer(name, recipe, sets=given or _loaded(recipe.kept))
        _train_and_score(options, f"student_{name}", trainer, architecture=ARCHITECTURES[name])


_SETS: dict[str, teacher_sets.TeacherSet] = {}


def _loaded(names: Sequence[str]) -> dict[str, teacher_sets.TeacherSet]:
    """The sets of `names`, read once for all rows: 100 MB each."""
    for name in names:
        if name not in _SETS:
            _SETS[name] = load_set(name)
    return {name: _SETS[name] for name in names}


def _train_and_score(options: Options, name: str, trainer: DistillTrainer, **extra: Any) -> None:
    recipe = trainer.recipe
    size = sum(p.numel() for p in trainer.model.parameters())
    score(
        options, "ablation", name,
        lambda: scores.network_draw(trainer.run(options.tiny, keep=options.keep)),
        base="student", steps=recipe.steps, seed=recipe.seed, hold=recipe.hold, parameters=size,
        average=recipe.average,
        teachers=[TEACHERS[n].key() for n in recipe.teachers], **extra,
    )  # fmt: skip
    if options.keep and trainer.training.step:
        minutes = trainer.training.seconds / 60
        note(options, f"{AREA}.minutes.{name}", minutes, "minutes", "ablation", steps=recipe.steps)


def record_student(options: Options) -> None:
    """The shipped student beside its teacher: the headline's figures of quality."""
    weights = key(SHIPPED)
    score(
        options, "student", SHIPPED, lambda: scores.network_draw(load_model(SHIPPED)),
        scores.SEEDS, base=TEACHER, weights=weights,
    )  # fmt: skip
    if options.keep:
        headline(options, weights)


def headline(options: Options, weights: str) -> None:
    """`distillation.exact_accuracy_drop`, `.fid_ratio` and `.recall_ratio`, against TEACHER.

    Raises `ResultError` where teacher and student were scored on different captions or seeds.
    """
    same = [
        {k: result(f"{AREA}.fid.{name}").extra[k] for k in ("captions", "seeds")}
        for name in (SHIPPED, TEACHER)
    ]
    if same[0] != same[1]:
        raise ResultError(
            f"student and teacher were scored on different captions; run {COMMAND} teachers again."
        )
    extra = {
        "base": TEACHER, "weights": f"{weights}-{TEACHERS[TEACHER].key()}", "student": SHIPPED,
        **same[0],
    }  # fmt: skip
    value, spread = scores.drops(SHIPPED, TEACHER, "exact_accuracy")
    note(options, f"{AREA}.exact_accuracy_drop", value, "share", "student", spread=spread, **extra)
    for figure in ("fid", "recall"):
        value, spread = scores.ratios(SHIPPED, TEACHER, figure)
        note(options, f"{AREA}.{figure}_ratio", value, "x", "student", spread=spread, **extra)


# --- the language model ---------------------------------------------------------------------------


def record_response(options: Options) -> None:
    """Gradients of the softened loss at each temperature, and small models taught with it."""
    teacher, tokenizer = load_model("gpt"), load_model("tokenizer")
    same = {"weights": key("gpt"), "base": "gpt"}
    for name, recipe in RESPONSES.items():
        stem = f"{AREA}.response_nats.{name}"
        if options.keep and not options.again and _has(stem, steps=recipe.steps, **same):
            print(f"{stem} is recorded already", flush=True)
            continue
        recipe = replace(recipe, steps=2, batch=4) if options.tiny else recipe
        label = None if options.tiny else f"response_{name}"
        model, training = train_response(label, recipe, teacher, tokenizer, quiet=options.tiny)
        batches = token_batches(
            tokenizer, 8 if options.tiny else 200, torch.Generator().manual_seed(5), split="test"
        )
        found = response_scores(model, teacher, batches, 1 if options.tiny else 10)
        extra = {
            **same, "steps": recipe.steps, "size": RESPONSE_SIZE, "soft": recipe.soft,
            "temperature": recipe.temperature, "seed": recipe.seed,
        }  # fmt: skip
        for figure, value, unit in (
            ("response_nats", found.nats, "nats a token"),
            ("response_kl", found.teacher_kl, "nats a token"),
            ("response_acceptance", found.acceptance, "tokens"),
            ("minutes", training.seconds / 60, "minutes"),
        ):
            stem = f"{AREA}.{figure}.{'response_' if figure == 'minutes' else ''}{name}"
            note(options, stem, value, unit, "response", **extra)
    _record_gradients(options, teacher, tokenizer)


def _record_gradients(options: Options, teacher: Any, tokenizer: Any) -> None:
    """The gradient's length against T, on an untaught small model's logits for real pictures."""
    batches = token_batches(
        tokenizer, 4 if options.tiny else 40, torch.Generator().manual_seed(6), split="test"
    )
    recipe = replace(RESPONSES["hard"], steps=2, batch=4) if options.tiny else RESPONSES["hard"]
    label = None if options.tiny else "response_hard"
    student, _ = train_response(label, recipe, teacher, tokenizer, quiet=True)
    batch = next(batches)
    config = replace(
        GPT_SIZES[RESPONSE_SIZE], image_tokens=tokenizer.config.tokens, codes=tokenizer.config.codes
    )
    sequences = draw_sequences(config, batch.words, batch.tokens)
    with torch.no_grad():
        ours, theirs = code_logits(student, sequences), code_logits(teacher, sequences)
    norms = gradient_norms(ours, theirs, TEMPERATURES)
    for name, values in zip(("plain", "scaled"), norms, strict=True):
        for temperature, value in zip(TEMPERATURES, values, strict=True):
            stem = f"{AREA}.gradient_{name}.t{temperature:g}".replace("t0.5", "t0_5")
            note(
                options, stem, value, "nats", "response", base="gpt", temperature=temperature,
                rows=len(ours), limit=gradient_limit(ours, theirs), weights=key("gpt"),
            )  # fmt: skip


def _has(name: str, **extra: Any) -> bool:
    try:
        row = result(name)
    except ResultError:
        return False
    return scores.holds(row, **extra)


# --- orders, times --------------------------------------------------------------------------------


def record_order(options: Options) -> None:
    """Each of ORDERS at equal total updates, scored on its grids."""
    for name in options.chosen(list(ORDERS)):
        stages = ORDERS[name]

        def draw(stages: tuple[str, ...] = stages) -> scores.Draw:
            steps = 2 if options.tiny else None
            network = run_order(
                stages, name="order_trial" if options.tiny else "order", steps=steps,
                quiet=options.tiny,
            )  # fmt: skip
            return scores.network_draw(network)

        score(
            options, "order", f"order_{name}", draw, base=SHIPPED,
            weights=key(SHIPPED), stages=list(stages),
            steps=[STAGES[stage] for stage in stages],
        )  # fmt: skip


def record_times(options: Options) -> None:
    """Milliseconds of teacher and student in each runtime; `distillation.speedup`."""
    record_speed(f"{COMMAND} speed", options.seconds, options.tiny)


RECORDERS: dict[str, Callable[[Options], None]] = {
    "sets": record_sets,
    "teachers": record_teachers,
    "ablation": record_ablation,
    "more": record_more,
    "student": record_student,
    "response": record_response,
    "order": record_order,
    "speed": record_times,
}
TIMED = ("speed",)


def main(arguments: list[str] | None = None) -> int:
    """Measure and record; `speed` refuses a machine that is not idle, but for a trial."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(RECORDERS)}; without one, all")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--tiny", action="store_true", help="a trial on few pictures")
    parser.add_argument("--with", dest="extra", default="", help=", ".join(ARCHITECTURES))
    parser.add_argument("--rows", default="", help="rows of the ablation or orders, by comma")
    given = parser.parse_args(arguments)
    parts = given.parts or list(RECORDERS)
    extra, rows = (tuple(filter(None, text.split(","))) for text in (given.extra, given.rows))
    problem = None
    for what, names, known in (
        ("part", parts, RECORDERS),
        ("architecture", extra, ARCHITECTURES),
        ("row", rows, {**ABLATION, **ORDERS}),
    ):
        unknown = [name for name in names if name not in known]
        if unknown and problem is None:
            problem = f"there is no {what} {unknown[0]!r}; choose from {', '.join(known)}."
    timed = not given.tiny and set(parts) & set(TIMED)
    if problem is None and timed and (taken := cores_taken()) > 0.3:
        problem = f"other processes use {taken:.1f} cores; measure when they have ended."
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for part in parts:
        RECORDERS[part](Options(given.again, given.tiny, extra, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
