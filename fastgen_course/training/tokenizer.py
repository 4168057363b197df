"""Train picture tokenizers: the two that are shipped, and any other to compare with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import Batch, draw_labels, real_scenes, scene_batches
from fastgen_course.models.discriminator import ProjectedDiscriminator, judge_features
from fastgen_course.models.judges import SlotJudge, slot_loss
from fastgen_course.models.tokenizer import (
    PIECES,
    TOKENIZER,
    TOKENIZER_16,
    EMACodebook,
    Pieces,
    Tokenizer,
    TokenizerConfig,
    perplexity,
)
from fastgen_course.training.loop import Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class TokenizerRecipe:
    """How a tokenizer is trained.

    Attributes:
        steps: updates.
        batch: scenes an update.
        rate: Adam's learning rate at its height.
        perceptual: weight of the distance in `judge_train`'s features, 0 for pixels alone. Squared
            pixel error blurs what is uncertain; features ask that the result look like a garment.
        refined: further steps, at half the rate, in which the picture must also be read like its
            original and pass for a real one (`Refinement`).
        seed: of weights and batches.
    """

    steps: int = 5000
    batch: int = 64
    rate: float = 1.5e-3
    perceptual: float = 0.02
    refined: int = 2000
    seed: int = 3


TOKENIZER_RECIPE = TokenizerRecipe()
SHIPPED: dict[str, TokenizerConfig] = {"tokenizer": TOKENIZER, "tokenizer_16": TOKENIZER_16}


def new_tokenizer(config: TokenizerConfig, seed: int, pieces: Pieces = PIECES) -> Tokenizer:
    """A tokenizer with fresh weights drawn from the seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tokenizer(config, pieces).to(memory_format=torch.channels_last)


def feature_distance(judge: SlotJudge, images: Tensor, painted: Tensor) -> Tensor:
    """How far two batches of pictures lie apart in a judge's eyes: a scalar.

    The mean absolute difference of its feature maps, each in units of the real maps' deviation,
    summed over the stages (Johnson, Alahi and Fei-Fei 2016, "Perceptual Losses").
    """
    with torch.no_grad():
        wanted = judge.stage_outputs(images)
    return map_distance(judge.stage_outputs(painted), wanted)


def map_distance(ours: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """`feature_distance` of feature maps that are there already."""
    pairs = zip(ours, real, strict=True)
    return sum((a - b).abs().mean() / (b.std() + 1e-6) for a, b in pairs)


class Refinement:
    """The second part of a tokenizer's training: what a judge and a discriminator ask for.

    Squared error alone gives each uncertain patch its mean, so that a photograph's faint texture is
    lost and the picture reads as flat colour. Here `judge_train` has to read the five slots off the
    reconstruction, its features are matched closely, and a projected discriminator (the one of
    GENERATOR_BASE) compares reconstructions with originals (Esser et al. 2021, "Taming
    Transformers": VQGAN). Each pulls away from the mean; the weights keep the squared error within
    a quarter of what it is alone.
    """

    perceptual = 0.05
    slots = 0.015
    adversarial = 0.004

    def __init__(self, judge: SlotJudge, rate: float, seed: int) -> None:
        self.judge, self.rate = judge, rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = ProjectedDiscriminator(
                judge.config.channels, judge.config.features
            ).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=rate, betas=(0.0, 0.99)
        )

    def loss(self, painted: Tensor, batch: Batch, factor: float) -> tuple[Tensor, dict]:
        """One update of the discriminator; what the critics add to the loss, and its parts.

        `factor` scales the discriminator's learning rate.
        """
        with torch.no_grad():
            real = judge_features(self.judge, batch.images)
        ours = judge_features(self.judge, painted)
        set_rate(self.optimiser, self.rate * factor)
        logits = zip(
            self.discriminator(real, batch.labels),
            self.discriminator([f.detach() for f in ours], batch.labels),
            strict=True,
        )
        d_loss = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in logits)
        self.optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.optimiser.step()
        self.discriminator.requires_grad_(False)
        adversarial = -sum(x.mean() for x in self.discriminator(ours, batch.labels))
        self.discriminator.requires_grad_(True)
        slots = slot_loss(self.judge.classify(ours[-1].flatten(1)), batch.labels)
        features = map_distance(ours, real)
        loss = self.perceptual * features + self.slots * slots + self.adversarial * adversarial
        found = {"features": features, "slots": slots, "d_loss": d_loss}
        return loss, {name: value.item() for name, value in found.items()}


def train_tokenizer(
    config: TokenizerConfig,
    recipe: TokenizerRecipe = TOKENIZER_RECIPE,
    *,
    pieces: Pieces = PIECES,
    restarts: bool = True,
    name: str | None = None,
    quiet: bool = False,
    log_every: int = 100,
) -> tuple[Tokenizer, Training]:
    """Minimise squared pixel error + the quantiser's loss + perceptual distance, then refine.

    The history holds `mse` (of pixels in [0, 1]), `quantizer`, `perplexity` (of one batch's words)
    and `features`, and of the refined part `slots` and `d_loss`, 0 before. `pieces` are the
    quantiser's functions; `restarts=False` leaves the dead codes of an EMA codebook dead. With a
    `name` the training is resumable.
    """
    model = new_tokenizer(config, recipe.seed, pieces)
    if not restarts and isinstance(model.quantizer, EMACodebook):
        model.quantizer.restart_below = 0.0
    judge = None
    if recipe.perceptual or recipe.refined:
        judge = load_model("judge_train").to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = scene_batches("train", recipe.batch, generator)
    parts = {"model": model, "optimiser": optimiser}
    refinement = None
    if recipe.refined:
        refinement = Refinement(judge, recipe.rate / 2, recipe.seed)
        parts |= {
            "discriminator": refinement.discriminator,
            "d_optimiser": refinement.optimiser,
        }
    training = Training(name or "tokenizer_trial", parts, generator, recipe.steps + recipe.refined)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        refining = index >= recipe.steps
        if refining:
            factor = 0.5 * cosine_with_warmup(index - recipe.steps, recipe.refined)
        else:
            factor = cosine_with_warmup(index, recipe.steps)
        set_rate(optimiser, recipe.rate * factor)
        batch = next(batches)
        batch = batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))
        painted, quantized = model(batch.images)
        mse = F.mse_loss(painted, batch.images)
        loss = mse + quantized.loss
        losses = {"features": 0.0, "slots": 0.0, "d_loss": 0.0}
        if refining:
            asked, found = refinement.loss(painted, batch, 2 * factor)
            losses |= found
            loss = loss + asked
        elif recipe.perceptual:
            features = feature_distance(judge, batch.images, painted)
            losses["features"] = features.item()
            loss = loss + recipe.perceptual * features
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {
            "mse": mse.item() / 4,  # the models' range [-1, 1] is twice [0, 1]
            "quantizer": quantized.loss.item(),
            "perplexity": perplexity(quantized.tokens, config.codes),
            **losses,
        }

    def report(index: int) -> None:
        if index % 500 == 0 and not quiet:
            recent = {k: round(v[-1], 5) for k, v in training.history.items()}
            print(training.name, f"{training.seconds:.0f} s", recent, flush=True)

    training.run(step, log_every=log_every, quiet=quiet, on_log=report)
    return model.eval(), training


@torch.no_grad()
def reconstruct(model: Tokenizer, images: Tensor, batch: int = 250) -> Tensor:
    """Pictures (B, 3, 28, 28) through words and back, clamped to [-1, 1]."""
    return torch.cat([model.decode(model.encode(part)) for part in images.split(batch)])


@torch.no_grad()
def tokenizer_metrics(model: Tokenizer, n: int = 10_000, seed: int = 5) -> dict[str, float]:
    """On real test scenes: squared error in [0, 1], perplexity of the words, words never used."""
    generator = torch.Generator().manual_seed(seed)
    images = real_scenes(draw_labels(n, generator), "test", generator)
    errors, tokens = [], []
    for part in images.split(500):
        found = model.encode(part)
        errors.append((model.decode(found) - part).square().mean((1, 2, 3)) / 4)
        tokens.append(found)
    words = torch.cat(tokens)
    unused = model.config.codes - len(words.unique())
    return {
        "mse": float(torch.cat(errors).mean()),
        "perplexity": perplexity(words, model.config.codes),
        "unused_codes": float(unused),
    }


def train_shipped_tokenizer(name: str, quiet: bool = False) -> dict:
    """Train `tokenizer` or `tokenizer_16`, resuming a killed run; ships it, returns its card."""
    if name not in SHIPPED:
        raise ValueError(f"there is no tokenizer {name!r}; choose from {', '.join(SHIPPED)}.")
    recipe = TOKENIZER_RECIPE
    model, training = train_tokenizer(SHIPPED[name], recipe, name=name, quiet=quiet)
    return ship(name, model, training, recipe, lambda: tokenizer_metrics(model))
