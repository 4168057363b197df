"""Score a trained generator on the fixed caption lists and record it.

`python -m fastgen_course.training.evaluate generator_base` takes some minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.metrics.reference import CAPTIONS, HELD_OUT_CAPTIONS
from fastgen_course.metrics.report import COPY_CAPTIONS, Report, evaluate
from fastgen_course.sampling.one_step import sample_generator


def evaluate_generator(
    name: str = "generator_base",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n: int = CAPTIONS,
    n_held_out: int = HELD_OUT_CAPTIONS,
    judge: nn.Module | None = None,
    model: nn.Module | None = None,
    copy_captions: int = COPY_CAPTIONS,
) -> Report:
    """The report of the shipped one-step generator `name`, or of `model` in its place.

    See `metrics.evaluate` for the arguments. Raises `DataFileError` when the weights are missing.
    """
    generator = load_model(name) if model is None else model

    def sample(captions: list[str], randomness: torch.Generator) -> torch.Tensor:
        return sample_generator(generator, captions, generator=randomness)

    return evaluate(sample, seeds, n, n_held_out, judge=judge, copy_captions=copy_captions)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print and record the generator named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="generator_base", help="which weights to score")
    name = parser.parse_args(arguments).name
    report = evaluate_generator(name)
    print(report)
    command = f"python -m fastgen_course.training.evaluate {name}"
    report.record(name, command=command, base=name)


if __name__ == "__main__":
    main()
