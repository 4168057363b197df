"""From predictions to a shipped network: choose finalists, train them fully, score them.

python -m fastgen_course train generator_nas
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words, labels_of
from fastgen_course.files import data_path, read_json, write_json
from fastgen_course.metrics import (
    accuracies,
    caption_list,
    caption_texts,
    fid,
    judge_features,
    reference_features,
)
from fastgen_course.models.searched import Architecture, ArchitectureError
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.search.latency import BEFORE_EACH, CAPTION
from fastgen_course.search.quality import from_lists
from fastgen_course.search.searchers import Evaluator, Evolution, run_search
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.search.supernet import Supernet, trained_supernet
from fastgen_course.timing import Comparison, compare
from fastgen_course.training.matching import MatchRecipe, MatchTrainer
from fastgen_course.training.shipping import ship

BASE = "generator_base"
SHARES = (0.31, 0.27, 0.23)  # of GENERATOR_BASE's milliseconds, at most, one a finalist
MOST_BYTES = 840_000  # of a finalist's weights in float16: the course ships 40 MB in all
# What the transport does is recorded by `nas_records pull`.
FULL = MatchRecipe(steps=3000, rate=1e-3, transport=0.4, seed=47)
Draw = Callable[[Tensor, Tensor], Tensor]


def weight_bytes(config: Architecture) -> int:
    """Bytes of an architecture's weights in float16."""
    return 2 * config.parameters()


def choose_finalists(
    latency: Callable[[Architecture], float],
    quality: Callable[[Architecture], float],
    measured: Callable[[Architecture], float],
    limits_ms: Sequence[float],
    *,
    budget: int = 1500,
    asked: int = 6,
    most_bytes: int = MOST_BYTES,
    space: SearchSpace = SPACE,
    seed: int = 0,
) -> list[Architecture]:
    """One architecture for each limit of milliseconds: predictors propose, the supernet disposes.

    Of all that evolution looked at, the `asked` best predicted ones under a limit (and under
    `most_bytes`) are measured by `measured`, and the best of them is the finalist.

    Raises ArchitectureError where no network that evolution met keeps a limit.
    """
    evaluator = run_search(Evolution(), Evaluator(space, latency, quality, budget), seed)
    seen = {space.decode(g): p for g, p in zip(evaluator.asked, evaluator.points, strict=True)}
    seen = {c: p for c, p in seen.items() if weight_bytes(c) <= most_bytes}
    chosen: list[Architecture] = []
    for limit in limits_ms:
        fits = [c for c, (ms, _) in seen.items() if ms <= limit and c not in chosen]
        if not fits:
            raise ArchitectureError(
                f"no network of {most_bytes} bytes at most was met that takes {limit:.3g} ms at "
                "most; raise the limit or the budget."
            )
        best = sorted(fits, key=lambda c: seen[c][1])[:asked]
        chosen.append(min(best, key=measured))
    return chosen


def save_finalists(configs: Sequence[Architecture], best: int | None = None, **extra: Any) -> None:
    """Write data/search/finalists.json."""
    rows = [[list(c.widths), list(c.blocks), list(c.ups), c.activation] for c in configs]
    write_json(data_path("search", "finalists.json"), {"rows": rows, "best": best, **extra})


def load_finalists() -> tuple[list[Architecture], int | None]:
    """The recorded finalists and which is the best. `DataFileError` where there are none."""
    found = read_json(data_path("search", "finalists.json"))
    return [from_lists(*row) for row in found["rows"]], found["best"]


def finalist_trainer(
    index: int, supernet: Supernet | None = None, recipe: MatchRecipe = FULL
) -> MatchTrainer:
    """The full training of a finalist, begun from its slice of the supernet."""
    config = load_finalists()[0][index]
    network = (supernet or trained_supernet(quiet=True)).extract(config)
    return MatchTrainer(f"finalist_{index}", network, load_model(BASE), recipe)


def train_generator_nas(name: str, quiet: bool = False) -> dict[str, Any]:
    """Train the best finalist and ship it as `generator_nas`; returns its card.

    About 12 minutes on one core, and 9 for the supernet where `data/runs` does not hold it. The
    finalist that `nas_records finalists` trained is shipped at once.
    """
    best = load_finalists()[1]
    if best is None:
        raise ArchitectureError(
            "no finalist is chosen yet; run `python -m fastgen_course.search.nas_records finalists`"
        )
    trainer = finalist_trainer(best)
    network = trainer.run(quiet, keep=True)
    return ship(
        name, network, trainer.training, trainer.recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check(5000).items()},
    )  # fmt: skip


# --- scores -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """FID and exact accuracy by `judge_report`, one value a sampling seed."""

    fid: tuple[float, ...]
    exact: tuple[float, ...]

    def extra(self) -> dict[str, list[float]]:
        return {f"{k}_by_seed": list(v) for k, v in asdict(self).items()}


@torch.no_grad()
def score(
    draw: Draw, seeds: Sequence[int] = (0,), n: int = 10_000, judge: nn.Module | None = None
) -> Scores:
    """Score pictures of the first n fixed captions; equal seeds give equal noise to all."""
    attributes = caption_list(n)
    labels, words = labels_of(attributes), encode_words(caption_texts(attributes))
    reference = reference_features("test", n, judge=judge)
    found = []
    for seed in seeds:
        noise = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
        parts = zip(noise.split(250), words.split(250), strict=True)
        features = torch.cat([judge_features(draw(z, y), judge) for z, y in parts])
        exact = accuracies(features, labels, judge=judge).exact.value
        found.append((fid(features, reference), exact))
    return Scores(*zip(*found, strict=True))


def ratio_of(ours: Sequence[float], base: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """(mean, (lowest, highest)) of the ratios seed by seed."""
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    middle = statistics.fmean(ratios)
    return middle, (min(*ratios, middle), max(*ratios, middle))


def time_side_by_side(networks: dict[str, nn.Module], seconds: float = 30.0) -> Comparison:
    """Milliseconds at batch 1 in ONNX Runtime, one thread, each network exported the same way."""
    words = encode_words([CAPTION])
    noise = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for name, network in networks.items():
            path = Path(folder) / f"{name}.onnx"
            export_onnx(network, (noise, words), path, tolerance=1e-3)
            runner = OnnxModel(path)
            arrays = noise.numpy(), words.numpy()
            calls[name] = lambda runner=runner, arrays=arrays: runner(*arrays)
        return compare(calls, min_repeats=2000, max_seconds=seconds, threads=1, device="cpu",
                       before_each=BEFORE_EACH)  # fmt: skip
