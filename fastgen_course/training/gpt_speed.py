"""Time the shipped models that draw: GPT, VAE and GAN on the same threads, in turn.

`python -m fastgen_course.training.gpt_records speed` records what notebook 04 measures live.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.sampling.gpt import draw_images
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.sampling.vae import sample_vae
from fastgen_course.timing import Comparison, compare, record, record_timing
from fastgen_course.training.gpt_sweep import drawing_inputs

COMMAND = "python -m fastgen_course.training.gpt_records speed"


def drawing_calls(batch: int, plain: bool = True) -> dict[str, Callable[[], Tensor]]:
    """A call a shipped model that draws `batch` pictures of one caption, noise included.

    plain: also the language model that reads everything again for every token.
    """
    gpt, tokenizer = load_model("gpt"), load_model("tokenizer")
    gan, vae = load_model("generator_base"), load_model("vae_fashion")
    words, uniform = drawing_inputs(batch, gpt.config.image_tokens)
    calls: dict[str, Callable[[], Tensor]] = {
        "GPT": lambda: draw_images(gpt, tokenizer, words, uniform),
        "GPT, no cache": lambda: draw_images(gpt, tokenizer, words, uniform, cached=False),
        "VAE": lambda: sample_vae(vae, words, generator=torch.Generator().manual_seed(0)),
        "GAN": lambda: sample_generator(gan, words, generator=torch.Generator().manual_seed(0)),
    }
    if not plain:
        del calls["GPT, no cache"]
    return calls


def time_models(
    batch: int, *, plain: bool = True, threads: int = 1, seconds: float = 60.0
) -> Comparison:
    """The calls of `drawing_calls`, interleaved on the same threads; the GPT is the baseline."""
    return compare(
        drawing_calls(batch, plain),
        batch=batch,
        threads=threads,
        device="cpu",
        min_repeats=10,
        max_seconds=seconds,
    )


def record_speed() -> None:
    """Milliseconds a call at batch 1 and 64 on one thread, and ratios to the language model."""
    for batch in (1, 64):
        rows = time_models(batch)
        print(rows.table(), flush=True)
        for label, timing in rows.items():
            name = label.lower().replace(", no cache", "_plain")
            base = {"gan": "generator_base", "vae": "vae_fashion"}.get(name, "gpt")
            record_timing(
                "text_to_image",
                f"text_to_image.{name}_batch{batch}_ms",
                timing,
                command=COMMAND,
                runtime="eager",
                base=base,
            )
            if label == "GPT":
                continue
            ratio = rows.speedup(label, over="GPT")
            record(
                "text_to_image",
                f"text_to_image.{name}_over_gpt_batch{batch}_speedup",
                ratio.value,
                "x",
                spread=(ratio.low, ratio.high),
                command=COMMAND,
                base=base,
                batch=batch,
                runtime="eager",
                threads=timing.threads,
                dtype="float32",
            )
