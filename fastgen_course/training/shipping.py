"""The last step of a training: its weights and their card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import nn

from fastgen_course.checkpoints import save_checkpoint
from fastgen_course.timing import machine
from fastgen_course.training.judges import fashion_sha256
from fastgen_course.training.loop import Training


def ship(
    name: str,
    model: nn.Module,
    training: Training,
    recipe: Any,
    metrics: Callable[[], dict[str, float]],
    *,
    bytes_a_weight: int = 2,
    shares: str | None = None,
) -> dict[str, Any]:
    """Write the weights of a finished training on captioned scenes; returns their card.

    `recipe` is a dataclass with a `seed`; `metrics` is called once the training's state is safe, so
    that a failing measurement or export loses nothing. `bytes_a_weight` and `shares` are
    `save_checkpoint`'s.
    """
    training.save()
    card = save_checkpoint(
        name,
        model,
        {
            "seed": recipe.seed,
            "recipe": asdict(recipe),
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": fashion_sha256(),
            "minutes": round(training.seconds / 60, 1),
            "machine": machine(),
            "metrics": metrics(),
            "history": {k: [round(x, 5) for x in v] for k, v in training.history.items()},
        },
        bytes_a_weight=bytes_a_weight,
        shares=shares,
    )
    training.finish()
    return card
