"""The whole recipe: search, distil, prune and finetune, quantise, export. One call a stage.

    python -m fastgen_course pipeline              (half an hour on one core; goes on after a kill)
    python -m fastgen_course pipeline --dry        (in a minute, for a network worth nothing)

A stage's result is kept under the hash of what it was made from: the recipe's fields, and the
content of what the stage before it made. Asked again it comes back at once; a changed recipe runs
that stage and those behind it again and no other.
"""

from fastgen_course.pipeline.recipe import (
    DRY,
    FULL,
    Delivered,
    PipelineError,
    Recipe,
    Searched,
    Trained,
    default_space,
)
from fastgen_course.pipeline.stages import Pipeline, folded_from

__all__ = [
    "DRY",
    "FULL",
    "Delivered",
    "Pipeline",
    "PipelineError",
    "Recipe",
    "Searched",
    "Trained",
    "default_space",
    "folded_from",
]
