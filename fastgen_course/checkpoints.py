"""Trained weights: safetensors with a JSON card, saved whole or not at all, verified on load."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fastgen_course.files import (
    DataFileError,
    atomic_write,
    data_path,
    read_json,
    require,
    sha256_of,
    write_json,
)

# name: (module, model class, config class). Imported when asked for, so that a notebook that shows
# a VAE does not pay for a judge.
MODELS: dict[str, tuple[str, str, str]] = {
    "judge_train": ("fastgen_course.models.judges", "SlotJudge", "JudgeConfig"),
    "judge_report": ("fastgen_course.models.judges", "SlotJudge", "JudgeConfig"),
    "judge_plain": ("fastgen_course.models.judges", "SlotJudge", "JudgeConfig"),
    "digit_judge": ("fastgen_course.models.digit_judge", "DigitJudge", "DigitJudgeConfig"),
    "dcgan_digits": ("fastgen_course.models.dcgan", "DCGANGenerator", "DCGANConfig"),
    "generator_base": ("fastgen_course.models.generator", "Generator", "GeneratorConfig"),
    "tokenizer": ("fastgen_course.models.tokenizer", "Tokenizer", "TokenizerConfig"),
    "tokenizer_16": ("fastgen_course.models.tokenizer", "Tokenizer", "TokenizerConfig"),
    "gpt": ("fastgen_course.models.gpt", "GPT", "TransformerConfig"),
    "gpt_draft": ("fastgen_course.models.gpt", "GPT", "TransformerConfig"),
    "gpt_16": ("fastgen_course.models.gpt", "GPT", "TransformerConfig"),
    "masked": ("fastgen_course.models.masked", "MaskedModel", "MaskedConfig"),
    "masked_groups": ("fastgen_course.models.masked", "MaskedModel", "MaskedConfig"),
    "edit_lora": ("fastgen_course.language.lora", "Adapter", "LoRAConfig"),
    "editor": ("fastgen_course.models.editor", "Editor", "EditorConfig"),
    "flow": ("fastgen_course.models.flow", "VelocityNet", "FlowConfig"),
    "flow_mean": ("fastgen_course.models.flow", "VelocityNet", "FlowConfig"),
    "flow_guided": ("fastgen_course.models.flow", "VelocityNet", "FlowConfig"),
    "flow_reflow": ("fastgen_course.models.flow", "VelocityNet", "FlowConfig"),
    "flow_student": ("fastgen_course.models.flow", "VelocityNet", "FlowConfig"),
    "generator_int8": ("fastgen_course.compression.packed", "PackedGenerator", "QuantizedConfig"),
    "generator_int4": ("fastgen_course.compression.packed", "PackedGenerator", "QuantizedConfig"),
    "generator_nas": ("fastgen_course.models.searched", "SearchedGenerator", "Architecture"),
    "generator_pruned": (
        "fastgen_course.compression.folding",
        "FoldedGenerator",
        "GeneratorConfig",
    ),
    "student": ("fastgen_course.models.generator", "Generator", "GeneratorConfig"),
    "student_pruned": ("fastgen_course.compression.folding", "FoldedGenerator", "GeneratorConfig"),
    "student_int8": ("fastgen_course.compression.packed", "PackedGenerator", "QuantizedConfig"),
    "vae_digits": ("fastgen_course.models.vae", "ConvVAE", "VAEConfig"),
    "vae_fashion": ("fastgen_course.models.vae", "ConvVAE", "VAEConfig"),
    "vae_refined": ("fastgen_course.models.vae", "ConvVAE", "VAEConfig"),
}


def build_model(name: str, config: dict[str, Any] | None = None) -> nn.Module:
    """A fresh model of the architecture shipped under `name`, from a config as in its card.

    Raises ValueError, naming the choices, for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join(sorted(MODELS))}.")
    module_name, model_class, config_class = MODELS[name]
    module = importlib.import_module(module_name)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in (config or {}).items()}
    return getattr(module, model_class)(getattr(module, config_class)(**values))


# A matrix with more weights than this may be stored with one byte each, and its rows' scales under
# its own name with this ending.
LARGE_MATRIX = 2**18
ROW_SCALE = ":row_scale"


def save_checkpoint(
    name: str,
    model: nn.Module,
    card: dict[str, Any],
    *,
    bytes_a_weight: int = 2,
    shares: str | None = None,
) -> dict[str, Any]:
    """Write `data/weights/NAME.safetensors` and its card; returns the card.

    Weights are stored as float16, half the bytes; `load_model` gives float32 again.

    Args:
        name: one of MODELS.
        model: has a dataclass `config`.
        card: at least seed, command, data_sha256, minutes, machine and metrics.
        bytes_a_weight: 2, or 1 to store matrices above LARGE_MATRIX weights as integers from -127
            to 127 with a scale a row (notebook 12); `as_stored` says what that leaves.
        shares: shipped weights that this network was made from: what it has from them unchanged is
            not stored a second time.

    Raises ValueError for a card without one of these, and for another number of bytes.
    """
    needed = {"seed", "command", "data_sha256", "minutes", "machine", "metrics"}
    if missing := needed - card.keys():
        raise ValueError(f"the card of {name} lacks {', '.join(sorted(missing))}.")
    weights = data_path("weights", f"{name}.safetensors")
    tensors = _stored_state(model, bytes_a_weight)
    if tied := _tied(model):
        tensors = {k: v for k, v in tensors.items() if k not in tied}
        card = {"tied": tied, **card}
    if shares is not None:
        given = load_file(_weights_path(shares))
        tensors = {
            k: v for k, v in tensors.items() if k not in given or not torch.equal(v, given[k])
        }
        card = {"shares": shares, **card}
    with atomic_write(weights) as temporary:
        save_file(tensors, temporary)
    card = {
        "name": name,
        "config": dataclasses.asdict(model.config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "torch": torch.__version__.split("+")[0],
        "python": sys.version.split()[0],
        "date": date.today().isoformat(),
        **card,
    }
    write_json(weights.with_suffix(".json"), card)
    return card


def _tied(model: nn.Module) -> dict[str, str]:
    """Parameters that are another one under a second name, such as a head that is the embedding."""
    first: dict[int, str] = {}
    names = model.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in names if first.setdefault(id(p), name) != name}


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.float32:
        return tensor
    limit = torch.finfo(torch.float16).max
    return tensor.clamp(-limit, limit).half()


def _stored_state(model: nn.Module, bytes_a_weight: int) -> dict[str, torch.Tensor]:
    if bytes_a_weight not in (1, 2):
        raise ValueError(f"bytes_a_weight must be 1 or 2, got {bytes_a_weight!r}.")
    tensors = {}
    for key, value in model.state_dict().items():
        if bytes_a_weight == 1 and value.ndim == 2 and value.numel() > LARGE_MATRIX:
            rows = value.detach().cpu().float()
            # At least float16's smallest normal number, so that no row is divided by 0.
            scale = (rows.abs().amax(1) / 127).clamp(min=2.0**-14).half()
            integers = (rows / scale.float()[:, None]).round().clamp(-127, 127)
            tensors |= {key: integers.to(torch.int8), key + ROW_SCALE: scale}
        else:
            tensors[key] = _stored(value)
    return tensors


def _undo(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Stored tensors with their rows' scales multiplied back in."""
    scales = {k: v for k, v in tensors.items() if k.endswith(ROW_SCALE)}
    state = {k: v for k, v in tensors.items() if k not in scales}
    for key, scale in scales.items():
        name = key.removesuffix(ROW_SCALE)
        if name in state:  # else load_state_dict names what is missing
            state[name] = state[name].float() * scale.float()[:, None]
    return state


def as_stored(model: nn.Module, *, bytes_a_weight: int = 2) -> nn.Module:
    """A copy of `model` with the weights that `load_model` would give after `save_checkpoint`."""
    copy = deepcopy(model)
    copy.load_state_dict(_undo(_stored_state(model, bytes_a_weight)))
    return copy


def load_card(name: str) -> dict[str, Any]:
    """The JSON card of the shipped weights `name`."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join(sorted(MODELS))}.")
    if not data_path("weights", f"{name}.json").is_file():
        require(f"weights/{name}.json")
    return read_json(data_path("weights", f"{name}.json"))


def _weights_path(name: str) -> Path:
    """The weights file of a card, verified."""
    return require(f"weights/{name}.safetensors", load_card(name)["sha256"])


def load_checkpoint(name: str, model: nn.Module) -> dict[str, Any]:
    """Fill `model` with the shipped weights `name`; returns the card.

    Raises `DataFileError`, in one sentence with the mend, for a missing, truncated or altered file
    or for weights of another architecture.
    """
    card = load_card(name)
    path = _weights_path(name)
    try:
        tensors = load_file(path)
        if "shares" in card:
            tensors = load_file(_weights_path(card["shares"])) | tensors
        tensors |= {k: tensors[v] for k, v in card.get("tied", {}).items()}
        model.load_state_dict(_undo(tensors))
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise DataFileError(
            f"data/weights/{name}.safetensors does not fit the model {type(model).__name__}; "
            f"build it from the card's config with load_model({name!r})."
        ) from error
    return card


def load_model(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """The shipped model `name`, in eval mode, its parameters frozen, on `device`."""
    model = build_model(name, load_card(name)["config"])
    load_checkpoint(name, model)
    return model.eval().requires_grad_(False).to(device)
