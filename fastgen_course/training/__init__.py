"""Training: one resumable loop, and a thin file a model family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# name of the weights: (module, function). The function takes the name and `quiet`, trains (resuming
# a killed run), ships the checkpoint and returns its card. The module is one of this room, or names
# its own room, as "compression.qat" does.
TRAINERS: dict[str, tuple[str, str]] = {
    "judge_train": ("judges", "train_judge"),
    "judge_report": ("judges", "train_judge"),
    "judge_plain": ("judges", "train_judge"),
    "generator_base": ("gan", "train_generator"),
    "digit_judge": ("digit_judge", "train_digit_judge"),
    "dcgan_digits": ("dcgan", "train_dcgan_digits"),
    "tokenizer": ("tokenizer", "train_shipped_tokenizer"),
    "tokenizer_16": ("tokenizer", "train_shipped_tokenizer"),
    "gpt": ("gpt", "train_shipped_gpt"),
    "gpt_draft": ("gpt", "train_shipped_gpt"),
    "gpt_16": ("gpt", "train_shipped_gpt"),
    "masked": ("masked", "train_shipped_masked"),
    "masked_groups": ("masked_groups", "train_masked_groups"),
    "edit_lora": ("edit_lora", "train_edit_lora"),
    "editor": ("editor", "train_shipped_editor"),
    "flow": ("flow", "train_shipped_flow"),
    "flow_mean": ("flow", "train_shipped_flow"),
    "flow_guided": ("flow", "train_shipped_flow"),
    "flow_reflow": ("flow", "train_shipped_flow"),
    "flow_student": ("flow_student", "train_flow_student"),
    "vae_digits": ("vae", "train_shipped_vae"),
    "vae_fashion": ("vae", "train_shipped_vae"),
    "vae_refined": ("vae_refined", "train_vae_refined"),
    "generator_int8": ("compression.qat", "train_quantized"),
    "generator_int4": ("compression.qat", "train_quantized"),
    "generator_nas": ("search.finalists", "train_generator_nas"),
    "generator_pruned": ("compression.pruning", "train_pruned"),
    "student": ("compression.distillation", "train_student"),
    "student_pruned": ("compression.pruning", "train_pruned"),
    "student_int8": ("compression.qat", "train_quantized"),
}


def trainer(name: str) -> Callable[..., dict[str, Any]]:
    """The function that trains the weights `name`; ValueError, naming the choices, if unknown."""
    if name not in TRAINERS:
        raise ValueError(f"there is no training {name!r}; choose from {', '.join(TRAINERS)}.")
    module, function = TRAINERS[name]
    place = module if "." in module else f"training.{module}"
    return getattr(importlib.import_module(f"fastgen_course.{place}"), function)


def train(name: str, *, quiet: bool = False) -> dict[str, Any]:
    """Train the weights `name`, ship them and return their card."""
    return trainer(name)(name, quiet=quiet)
