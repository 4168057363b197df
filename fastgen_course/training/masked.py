"""Train the masked model, and the bound on the likelihood that its loss gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.models.masked import MASKED_BASE, MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import TransformerConfig, parameter_groups
from fastgen_course.training.gpt import token_batches
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class MaskedRecipe:
    """How a masked model is trained.

    Attributes:
        steps: updates.
        batch: pictures an update.
        rate: the optimiser's learning rate at its height.
        decay: weight decay of the matrices.
        drop_caption: how often a picture has no caption, which guidance needs.
        average: decay of the running average that is shipped.
        seed: of weights, batches and masks.
    """

    steps: int = 7000
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    drop_caption: float = 0.1
    average: float = 0.998
    seed: int = 6


MASKED_RECIPE = MaskedRecipe()


def draw_hidden(shares: Tensor, tokens: int, generator: torch.Generator) -> Tensor:
    """Hide round(share N) random tokens of each row, at least one: bool (B, tokens)."""
    scores = torch.rand(len(shares), tokens, generator=generator)
    count = (shares * tokens).round().clamp(1, tokens)
    return scores.argsort(1).argsort(1) < count[:, None]


def train_masked(
    config: TransformerConfig = MASKED_BASE,
    recipe: MaskedRecipe = MASKED_RECIPE,
    *,
    tokenizer: Tokenizer | None = None,
    name: str | None = None,
    quiet: bool = False,
) -> tuple[MaskedModel, Training]:
    """Minimise the cross-entropy of hidden tokens; returns the running average of the weights.

    Each picture hides a share cos(pi/2 u), u uniform: the shares that sampling meets. The history
    holds `nats`, the mean over hidden tokens.
    """
    tokenizer = tokenizer or load_model("tokenizer")
    config = replace(config, image_tokens=tokenizer.config.tokens, codes=tokenizer.config.codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MaskedModel(config)
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = token_batches(tokenizer, recipe.batch, generator, recipe.drop_caption)
    parts = {"model": model, "average": average, "optimiser": optimiser}
    training = Training(name or "masked_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        set_rate(optimiser, recipe.rate * cosine_with_warmup(index, recipe.steps))
        batch = next(batches)
        shares = (math.pi / 2 * torch.rand(recipe.batch, generator=generator)).cos()
        hidden = draw_hidden(shares, config.image_tokens, generator)
        logits = model.image_logits(batch.words, batch.tokens, hidden)
        loss = F.cross_entropy(logits[hidden], batch.tokens[hidden])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"nats": loss.item()}

    def report(index: int) -> None:
        if index % 500 == 0 and not quiet:
            print(
                training.name,
                f"{training.seconds:.0f} s",
                {k: round(v[-1], 4) for k, v in training.history.items()},
                flush=True,
            )

    training.run(step, quiet=quiet, on_log=report)
    return average.model, training


@torch.no_grad()
def likelihood_bound(
    model: MaskedModel, words: Tensor, tokens: Tensor, generator: torch.Generator
) -> Tensor:
    """A sample of an upper bound on -log p(picture | caption), in nats: (B,).

    Hide k of N tokens, k uniform from 1 to N, and weigh the sum of their cross-entropies by N / k.
    Its expectation is the chain rule's cost averaged over all orders of the tokens (Uria, Murray
    and Larochelle 2014; Hoogeboom et al. 2021), which by Jensen's inequality lies above -log of the
    likelihood averaged over the orders. Training's mean over hidden tokens leaves the weight out
    and bounds nothing.
    """
    batch, n = tokens.shape
    k = torch.randint(1, n + 1, (batch,), generator=generator)
    hidden = draw_hidden(k / n, n, generator)
    logs = model.image_logits(words, tokens, hidden).log_softmax(-1)
    costs = -logs.gather(2, tokens[..., None])[..., 0] * hidden
    return costs.sum(1) * n / k


@torch.no_grad()
def masked_metrics(
    model: MaskedModel, tokenizer: Tokenizer, n: int = 2000, seed: int = 5
) -> dict[str, float]:
    """On real test scenes with plain captions: the bound in nats an image token."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    batches = token_batches(tokenizer, 200, generator, split="test")
    total = 0.0
    for _ in range(n // 200):
        batch = next(batches)
        bound = likelihood_bound(model, batch.plain, batch.tokens, generator)
        total += float(bound.mean()) / batch.tokens.shape[1]
    return {"test_bound_nats": total / (n // 200)}


def train_shipped_masked(name: str = "masked", quiet: bool = False) -> dict:
    """Train the shipped masked model, resuming a killed run; ships it, returns its card."""
    recipe = MASKED_RECIPE
    tokenizer = load_model("tokenizer")
    model, training = train_masked(MASKED_BASE, recipe, tokenizer=tokenizer, name=name, quiet=quiet)
    return ship(name, model, training, recipe, lambda: masked_metrics(model, tokenizer))
