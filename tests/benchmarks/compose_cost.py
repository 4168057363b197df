"""What a batch of captioned scenes costs beside a VAE's training step on it.

    python tests/benchmarks/compose_cost.py [--record]

Prints the milliseconds to compose 128 scenes, to draw the whole batch (labels, photographs, scenes,
captions, words), and to train VAE_FASHION one step on it, interleaved on one thread; and the two
shares. The design allows composing 10 % of the step. Nothing is asserted: it is a time.
"""

from __future__ import annotations

import sys

import torch

from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.vae import VAE_FASHION
from fastgen_course.timing import compare, record, record_timing
from fastgen_course.training.elbo import elbo_terms
from fastgen_course.training.vae import new_vae

BATCH = 128
COMMAND = "python tests/benchmarks/compose_cost.py --record"


def main() -> None:
    """Measure, print, and record when asked to."""
    generator = torch.Generator().manual_seed(0)
    batches = scene_batches("train", BATCH, generator)
    scenes = next(batches)
    model = new_vae(VAE_FASHION, 0).train()
    optimiser = torch.optim.Adam(model.parameters())

    def step() -> torch.Tensor:
        noise = torch.randn(BATCH, model.config.latent, generator=generator)
        loss = elbo_terms(model, scenes.images, noise, scenes.words).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss

    times = compare(
        {
            "compose": lambda: compose(scenes.photos, scenes.labels).images,
            "whole batch": lambda: next(batches).images,
            "training step": step,
        },
        batch=BATCH,
        threads=1,
    )
    step_ms = times["training step"].median_ms
    for label in ("compose", "whole batch", "training step"):
        timing = times[label]
        print(
            f"{label:14s} {timing.median_ms:7.1f} ms (p90 {timing.p90_ms:.1f}), "
            f"{timing.median_ms / step_ms:.1%} of the step"
        )
    if "--record" in sys.argv[1:]:
        for label, timing in times.items():
            name = f"compose.{label.replace(' ', '_')}_ms"
            record_timing("compose", name, timing, command=COMMAND, runtime="eager")
        record(
            "compose",
            "compose.share_of_step",
            times["compose"].median_ms / step_ms,
            "share",
            spread=None,
            command=COMMAND,
            base="VAE_FASHION",
            batch=BATCH,
            threads=1,
        )


if __name__ == "__main__":
    main()
