"""What a worker draws with: shipped weights by name, on a device, under one signature."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from fastgen_course.checkpoints import MODELS, load_card, load_model
from fastgen_course.runtimes.prompts import ScaleError

#: sample(captions, generator) -> images (B, 3, H, W) in [-1, 1]; all randomness is the generator's.
Sampler = Callable[[list[str], torch.Generator], torch.Tensor]
#: load(model, device) -> sampler; called once in each worker.
Load = Callable[[str, str], Sampler]

# Which function draws with a shipped model, by the model's class: (module, function, whether it
# takes the tokenizer as well).
_DRAWING = {
    "Generator": ("one_step", "sample_generator", False),
    "ConvVAE": ("vae", "sample_vae", False),
    "GPT": ("gpt", "draw_images", True),
    "MaskedModel": ("masked", "draw_masked_images", True),
}


def load_sampler(model: str, device: str = "cpu") -> Sampler:
    """The sampler of the shipped weights `model` on `device`: sample(captions, generator).

    Raises `DataFileError` for missing or damaged weights.
    """
    module, function, tokens = _DRAWING[MODELS[model][1]]
    draw = getattr(importlib.import_module(f"fastgen_course.sampling.{module}"), function)
    loaded = [load_model(model, device)]
    if tokens:
        loaded.append(load_model("tokenizer", device))
    return lambda captions, generator: draw(*loaded, captions, generator=generator)


def weights_hash(model: str) -> str:
    """The SHA-256 of shipped weights that draw from captions; no weights are loaded.

    Raises `ScaleError` for a name that draws nothing from a caption, `DataFileError` when its card
    is missing.
    """
    draws = [name for name, (_, kind, _) in MODELS.items() if kind in _DRAWING]
    draws.remove("vae_digits")  # it takes no captions
    if model not in draws:
        raise ScaleError(
            f"{model!r} draws nothing from a caption; choose from {', '.join(sorted(draws))}."
        )
    return load_card(model)["sha256"]


def check_device(name: str) -> str:
    """The device's kind ("cpu", "cuda", "mps"), if it is here; `ScaleError` if not."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps"):
        raise ScaleError(f"there is no device {name!r}; choose cpu, cuda or mps.")
    here = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in here and not here[kind]():
        raise ScaleError(f"this machine has no {kind} device that PyTorch can use; choose cpu.")
    return kind
