"""Give the latent of `vae_fashion` a decoder that paints sharply: `vae_refined`.

The encoder, the caption's prior and with them the latent stay as notebook 02 trained them, to the
last bit; only the decoder learns on. Squared error alone makes it paint the mean of all pictures
that share a z, which reads as flat colour. The critics of the tokenizer's second part
(`training.tokenizer.Refinement`) ask it for one of them instead, as the decoders of latent
diffusion are trained (Rombach et al. 2022, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.datasets.scenes import captions_of, draw_labels, real_scenes, scene_batches
from fastgen_course.models.judges import SlotJudge, label_slots
from fastgen_course.models.vae import ConvVAE
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship
from fastgen_course.training.tokenizer import Refinement

SOURCE = "vae_fashion"


@dataclass(frozen=True)
class RefinedRecipe:
    """How the decoder is tuned.

    Attributes:
        steps: updates.
        batch: scenes an update.
        rate: Adam's learning rate at its height, for decoder and discriminator.
        average: decay of the running average that is shipped.
        seed: of batches, noise and the discriminator's weights.
    """

    steps: int = 4000
    batch: int = 64
    rate: float = 7.5e-4
    average: float = 0.999
    seed: int = 12


REFINED_RECIPE = RefinedRecipe()


def refine_decoder(
    vae: ConvVAE,
    judge: SlotJudge,
    recipe: RefinedRecipe = REFINED_RECIPE,
    *,
    name: str | None = None,
    quiet: bool = False,
    log_every: int = 100,
) -> tuple[ConvVAE, Training]:
    """Tune `vae.decoder` on z ~ q(z | x); returns the running average of the whole VAE.

    The history holds `mse` (of pixels in [0, 1]), `features`, `slots` and `d_loss`. With a `name`
    the training is resumable.
    """
    vae.eval().requires_grad_(False)
    vae.decoder.requires_grad_(True)
    judge = judge.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(vae.decoder.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    average = RunningAverage(vae, recipe.average)
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = scene_batches("train", recipe.batch, generator)
    refinement = Refinement(judge, recipe.rate, recipe.seed)
    parts = {
        "vae": vae,
        "average": average,
        "optimiser": optimiser,
        "discriminator": refinement.discriminator,
        "d_optimiser": refinement.optimiser,
    }
    training = Training(name or "vae_refined_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        vae.decoder.train()  # the encoder stays in eval mode: its batch norms must not move
        factor = cosine_with_warmup(index, recipe.steps)
        set_rate(optimiser, recipe.rate * factor)
        batch = next(batches)
        batch = batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))
        with torch.no_grad():
            mu, logvar = vae.encode(batch.images)
            z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
            caption = vae.read(batch.words)
        painted = vae.decoder(torch.cat([z, caption], 1))
        mse = F.mse_loss(painted, batch.images)
        asked, found = refinement.loss(painted, batch, factor)
        optimiser.zero_grad(set_to_none=True)
        (mse + asked).backward()
        optimiser.step()
        average.update(vae)
        return {"mse": mse.item() / 4, **found}  # [-1, 1] is twice [0, 1]

    def report(index: int) -> None:
        if index % 500 == 0 and not quiet:
            recent = {k: round(v[-1], 5) for k, v in training.history.items()}
            print(training.name, f"{training.seconds:.0f} s", recent, flush=True)

    training.run(step, log_every=log_every, quiet=quiet, on_log=report)
    return average.model.eval(), training


@torch.no_grad()
def reconstruct(
    vae: ConvVAE, images: Tensor, words: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Images (B, 3, 28, 28) and words (B, L) through z ~ q(z | x) and back."""
    vae.eval()
    parts = []
    for some, read in zip(images.split(250), words.split(250), strict=True):
        mu, logvar = vae.encode(some)
        noise = torch.randn(mu.shape, generator=generator)
        parts.append(vae.decode(mu + (0.5 * logvar).exp() * noise, read))
    return torch.cat(parts)


def reconstruction_metrics(
    vae: ConvVAE, judge: SlotJudge, n: int = 2000, seed: int = 5
) -> dict[str, float]:
    """On real test scenes: squared error in [0, 1], and what `judge` reads, before and after."""
    generator = torch.Generator().manual_seed(seed)
    labels = draw_labels(n, generator)
    images = real_scenes(labels, "test", generator)
    painted = reconstruct(vae, images, encode_words(captions_of(labels)), generator)
    metrics = {"test_mse": (painted - images).square().mean().item() / 4}
    for ending, pictures in (("", painted), ("_real", images)):
        read = label_slots(judge, pictures)
        exact = ((read == labels) | (labels == -1)).all(1).float().mean().item()
        metrics[f"judge_train_exact{ending}"] = exact
    return metrics


def train_vae_refined(name: str = "vae_refined", quiet: bool = False) -> dict:
    """Tune the decoder of `vae_fashion`, resuming a killed run; ships it."""
    recipe = REFINED_RECIPE
    vae, judge = load_model(SOURCE), load_model("judge_train")
    tuned, training = refine_decoder(vae, judge, recipe, name=name, quiet=quiet)
    return ship(
        name,
        tuned,
        training,
        recipe,
        lambda: reconstruction_metrics(tuned, judge),
        shares=SOURCE,
    )
