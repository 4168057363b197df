"""Trials with a log: each architecture is measured once, and a killed run goes on after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastgen_course.models.searched import Architecture, ArchitectureError
from fastgen_course.runtimes.ray_trials import trials_on_ray
from fastgen_course.search.quality import from_lists

Trial = Callable[[Architecture], float]


def read_log(path: Path) -> dict[Architecture, float]:
    """What a log holds; a last line that a kill cut off is dropped."""
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                *config, value = json.loads(line)
                found[from_lists(*config)] = value
    return found


def _write(path: Path, found: dict[Architecture, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(_line(c, v) for c, v in found.items()), encoding="utf-8")


def _line(config: Architecture, value: float) -> str:
    row = [config.widths, config.blocks, config.ups, config.activation, value]
    return json.dumps(row) + "\n"


def run_trials(
    configs: Sequence[Architecture],
    trial: Trial,
    log: Path,
    workers: int = 0,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> list[float]:
    """trial(config) of each architecture, in order; what the log holds is not done again.

    Args:
        trial: what is measured.
        log: a file of one line a finished trial; at most the trials in hand are lost by a kill.
        workers: processes on Ray; 0 does one trial after the other in this process.
        report: told (finished, all) after each trial.

    Raises ArchitectureError for no architectures and fewer workers than 0.
    """
    if not configs:
        raise ArchitectureError("configs must hold at least one architecture to try.")
    if workers < 0:
        raise ArchitectureError(f"workers must be at least 0, got {workers}.")
    found = read_log(log)
    _write(log, found)  # without a line that was cut off
    left = [c for c in dict.fromkeys(configs) if c not in found]
    answers: Iterator[tuple[int, float]] = (
        trials_on_ray(trial, left, workers) if workers else ((i, trial(c)) for i, c in
                                                             enumerate(left))
    )  # fmt: skip
    for index, value in answers:
        found[left[index]] = float(value)
        with log.open("a", encoding="utf-8") as file:
            file.write(_line(left[index], float(value)))
        report(len(found), len(configs))
    return [found[c] for c in configs]
