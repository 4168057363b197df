"""Train the editor on exact pairs: the same photograph before and after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.edits import edit_batches
from fastgen_course.metrics.silhouette import intersection_over_union
from fastgen_course.models.editor import EDITOR_BASE, Editor, EditorConfig
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import parameter_groups
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class EditorRecipe:
    """How the editor is trained.

    Attributes:
        steps: updates.
        batch: edits an update.
        restored: so many of them have no instruction and a picture of a quarter of the pixels, or
            the picture itself, to give back sharp: super-resolution, and segmentation by its mask.
        rate: the optimiser's learning rate at its height.
        decay: weight decay of the matrices.
        mask_weight: weight of the mask's cross-entropy.
        average: decay of the running average that is shipped.
        seed: of weights and batches.
    """

    steps: int = 5000
    batch: int = 64
    restored: int = 12
    rate: float = 2e-3
    decay: float = 0.05
    mask_weight: float = 1.0
    average: float = 0.998
    seed: int = 8


EDITOR_RECIPE = EditorRecipe()


class EditTokens(NamedTuple):
    """What the editor reads and must give back."""

    words: Tensor  # int64 (B, MAX_WORDS)
    source: Tensor  # int64 (B, image_tokens)
    target: Tensor  # int64 (B, image_tokens)
    masks: Tensor  # bool (B, 28, 28)


def low_resolution(images: Tensor) -> Tensor:
    """Images (B, 3, 28, 28) seen through 14x14 pixels, each the mean of four, and enlarged."""
    small = F.avg_pool2d(images, 2)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


@torch.no_grad()
def edit_token_batches(
    tokenizer: Tokenizer,
    batch: int,
    generator: torch.Generator,
    restored: int = 0,
    split: str = "train",
):
    """Endless edits as tokens; the first `restored` rows give back the target itself, sharp."""
    tokenizer = tokenizer.eval().to(memory_format=torch.channels_last)
    for edits in edit_batches(split, batch, generator):
        words, source = edits.words.clone(), edits.source.clone()
        words[:restored] = 0
        source[:restored] = edits.target[:restored]
        half = restored // 2
        source[:half] = low_resolution(source[:half])
        images = torch.cat([source, edits.target]).contiguous(memory_format=torch.channels_last)
        before, after = tokenizer.encode(images).chunk(2)
        yield EditTokens(words, before, after, edits.target_masks)


def train_editor(
    config: EditorConfig = EDITOR_BASE,
    recipe: EditorRecipe = EDITOR_RECIPE,
    *,
    tokenizer: Tokenizer | None = None,
    name: str | None = None,
    quiet: bool = False,
) -> tuple[Editor, Training]:
    """Minimise the cross-entropy of the target's tokens and of its mask.

    Returns the running average of the weights. The history holds `nats` (a token) and `mask` (nats
    a pixel).
    """
    tokenizer = tokenizer or load_model("tokenizer")
    config = replace(config, image_tokens=tokenizer.config.tokens, codes=tokenizer.config.codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Editor(config)
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = edit_token_batches(tokenizer, recipe.batch, generator, recipe.restored)
    parts = {"model": model, "average": average, "optimiser": optimiser}
    training = Training(name or "editor_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        set_rate(optimiser, recipe.rate * cosine_with_warmup(index, recipe.steps))
        batch = next(batches)
        logits, mask_logits = model(batch.words, batch.source)
        nats = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten())
        mask = F.binary_cross_entropy_with_logits(mask_logits, batch.masks.float())
        optimiser.zero_grad(set_to_none=True)
        (nats + recipe.mask_weight * mask).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"nats": nats.item(), "mask": mask.item()}

    def report(index: int) -> None:
        if index % 500 == 0 and not quiet:
            recent = {k: round(v[-1], 4) for k, v in training.history.items()}
            print(training.name, f"{training.seconds:.0f} s", recent, flush=True)

    training.run(step, quiet=quiet, on_log=report)
    return average.model, training


@torch.no_grad()
def editor_metrics(
    model: Editor, tokenizer: Tokenizer, n: int = 2000, seed: int = 5
) -> dict[str, float]:
    """On edits of test scenes: share of tokens right, IoU of the mask, nats a token."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    batches = edit_token_batches(tokenizer, 200, generator, split="test")
    sums = {"tokens": 0.0, "mask_iou": 0.0, "nats": 0.0}
    for _ in range(n // 200):
        batch = next(batches)
        logits, mask = model(batch.words, batch.source)
        sums["tokens"] += float((logits.argmax(-1) == batch.target).float().mean())
        sums["mask_iou"] += float(intersection_over_union(mask > 0, batch.masks).mean())
        sums["nats"] += float(F.cross_entropy(logits.flatten(0, 1), batch.target.flatten()))
    return {f"test_{key}": value / (n // 200) for key, value in sums.items()}


def train_shipped_editor(name: str = "editor", quiet: bool = False) -> dict:
    """Train the shipped editor, resuming a killed run; ships it, returns its card."""
    recipe = EDITOR_RECIPE
    tokenizer = load_model("tokenizer")
    model, training = train_editor(EDITOR_BASE, recipe, tokenizer=tokenizer, name=name, quiet=quiet)
    return ship(name, model, training, recipe, lambda: editor_metrics(model, tokenizer))
