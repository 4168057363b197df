"""Train picture tokenizers: the two that are shipped, and any other to compare with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import draw_labels, real_scenes, scene_batches
from fastgen_course.models.judges import SlotJudge
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
        seed: of weights and batches.
    """

    steps: int = 5000
    batch: int = 64
    rate: float = 1.5e-3
    perceptual: float = 0.02
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
    pairs = zip(judge.stage_outputs(painted), wanted, strict=True)
    return sum((ours - real).abs().mean() / (real.std() + 1e-6) for ours, real in pairs)


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
    """Minimise squared pixel error + the quantiser's loss + perceptual distance.

    The history holds `mse` (of pixels in [0, 1]), `quantizer`, `perplexity` (of one batch's words)
    and `features`. `pieces` are the quantiser's functions; `restarts=False` leaves the dead codes
    of an EMA codebook dead. With a `name` the training is resumable.
    """
    model = new_tokenizer(config, recipe.seed, pieces)
    if not restarts and isinstance(model.quantizer, EMACodebook):
        model.quantizer.restart_below = 0.0
    judge = None
    if recipe.perceptual:
        judge = load_model("judge_train").to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = scene_batches("train", recipe.batch, generator)
    training = Training(
        name or "tokenizer_trial", {"model": model, "optimiser": optimiser}, generator, recipe.steps
    )
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        set_rate(optimiser, recipe.rate * cosine_with_warmup(index, recipe.steps))
        images = next(batches).images.contiguous(memory_format=torch.channels_last)
        painted, quantized = model(images)
        mse = F.mse_loss(painted, images)
        loss = mse + quantized.loss
        features = painted.new_zeros(())
        if judge is not None:
            features = feature_distance(judge, images, painted)
            loss = loss + recipe.perceptual * features
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {
            "mse": mse.item() / 4,  # the models' range [-1, 1] is twice [0, 1]
            "quantizer": quantized.loss.item(),
            "perplexity": perplexity(quantized.tokens, config.codes),
            "features": features.item(),
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
