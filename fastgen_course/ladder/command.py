"""`python -m fastgen_course ladder`: measure here and now, print, write, record."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from fastgen_course.files import atomic_write
from fastgen_course.ladder.figures import draw_chart
from fastgen_course.ladder.measuring import (
    Ladder,
    climb,
    half_size_sentence,
    noise_of,
    rival_sentence,
    split_sentence,
    three_ratios,
)
from fastgen_course.ladder.records import record_ladder, record_quality, table
from fastgen_course.ladder.rungs import CONTROLS, RUNGS, mine

QUICK_ROUNDS, ROUNDS = 11, 40
# Their graphs take half a minute to export, and their times are recorded.
SLOW_TO_PREPARE = ("gpt_onnx", "masked_onnx")


def run_ladder(
    *,
    quick: bool = False,
    json_file: Path | None = None,
    mine_file: Path | None = None,
    chart: Path | None = None,
    recording: bool = False,
) -> Ladder:
    """Measure, print and write the ladder.

    Args:
        quick: milliseconds at batch 1 alone, within two minutes.
        json_file: where to write one object a rung.
        mine_file: the reader's own rung, a Python file with `draw(captions, generator)`.
        chart: where to write the chart, a PNG; None writes none.
        recording: score what nobody scored, and write all into the registry.

    Raises ValueError for --quick with --record, and for a file that draws nothing.
    """
    if quick and recording:
        raise ValueError("--quick measures too little to be recorded; leave one of the two out.")
    rungs = [*RUNGS, *CONTROLS]
    if quick:
        rungs = [rung for rung in rungs if rung.name not in SLOW_TO_PREPARE]
    if mine_file is not None:
        rungs.append(mine(mine_file))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if recording:
            record_quality(rungs, folder)
        rounds = QUICK_ROUNDS if quick else ROUNDS
        ladder = climb(rungs, folder, rounds, throughput=not quick)
    print(describe(ladder))
    if json_file is not None:
        rows = json.dumps([asdict(row) for row in ladder.rows], indent=1)
        with atomic_write(json_file) as temporary:
            temporary.write_text(rows + "\n", encoding="utf-8")
    if chart is not None:
        draw_chart(ladder.rows, chart)
    if recording:
        record_ladder(ladder)
    return ladder


def describe(ladder: Ladder) -> str:
    """The table and what it comes to, as text."""
    named = {
        "end_to_end": "end to end",
        "algorithm": "algorithm (same runtime and precision)",
        "system": "system (same network)",
    }
    ratios = three_ratios(ladder)
    lines = [
        table(ladder.rows),
        "",
        "Milliseconds: measured now, from a string to uint8 (28, 28, 3), each row in turn; the "
        f"median row moved by {noise_of(ladder):.0%} between rounds.",
        "FID, accuracies and recall: recorded (10,000 fixed captions); - where they are not.",
        split_sentence(ladder),
    ]
    for key, words in named.items():
        if key in ratios:
            best = ratios.get(f"{key}_best_batch")
            end = f", at the best batch {best:.4g}x" if best else ""
            lines.append(f"{words}: {ratios[key]:.4g}x at batch 1{end}")
    lines += [text for text in (rival_sentence(ladder), half_size_sentence()) if text]
    return "\n".join([*lines, *ladder.left_out])
