"""Train the language model that draws and describes: the shipped one and the size sweep.

The shipped one is trained in two parts, cross-entropy and then, besides, the reward of a judge that
reads what it drew (gpt_reward.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.datasets.scenes import captions_of, scene_batches
from fastgen_course.files import atomic_write
from fastgen_course.models.gpt import (
    GPT,
    GPT_BASE,
    GPT_SIZES,
    IGNORE,
    Sequences,
    describe_sequences,
    draw_sequences,
)
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import Transformer, TransformerConfig, parameter_groups
from fastgen_course.training.gpt_reward import RewardTuning
from fastgen_course.training.loop import (
    RunningAverage,
    Training,
    cosine_with_warmup,
    run_path,
    set_rate,
)
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class GPTRecipe:
    """How a language model over image tokens is trained.

    Attributes:
        steps: updates of the first part, cross-entropy alone.
        rewarded: further updates with the reward of `judge_train` beside it (see `RewardTuning`).
        batch: pictures drawn an update.
        described: pictures described an update, besides; 0 for a model that only draws.
        teacher: a shipped language model whose distribution over the next token is imitated in
            place of the token that stands there, or "".
        rate: the optimiser's learning rate at its height.
        decay: weight decay of the matrices.
        drop_caption: how often a picture has no caption at all, which guidance needs.
        average: decay of the running average that is shipped.
        seed: of weights and batches.
    """

    steps: int = 7000
    rewarded: int = 0
    batch: int = 48
    described: int = 16
    teacher: str = ""
    rate: float = 2e-3
    decay: float = 0.05
    drop_caption: float = 0.1
    average: float = 0.998
    seed: int = 4


GPT_RECIPE = GPTRecipe()
REWARDED = 240  # updates of the second part, for the models that are shipped to draw


class TokenBatch(NamedTuple):
    """Captioned pictures as tokens."""

    words: Tensor  # int64 (B, MAX_WORDS), a row of zeros where the caption was dropped
    plain: Tensor  # int64 (B, MAX_WORDS), the whole description in the plainest words
    tokens: Tensor  # int64 (B, image_tokens)
    labels: Tensor  # int64 (B, 5), all that the picture shows
    asked: Tensor  # int64 (B, 5), what the caption asks for, FREE where it leaves a slot out
    said: Tensor  # int64 (B, MAX_WORDS), the caption, none dropped


@torch.no_grad()
def token_batches(
    tokenizer: Tokenizer,
    batch: int,
    generator: torch.Generator,
    drop_caption: float = 0.0,
    split: str = "train",
) -> Iterator[TokenBatch]:
    """Endless captioned scenes as tokens, no held-out combination among them."""
    tokenizer = tokenizer.eval().to(memory_format=torch.channels_last)
    for scenes in scene_batches(split, batch, generator):
        images = scenes.images.contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(batch, generator=generator) < drop_caption
        yield TokenBatch(
            scenes.words.masked_fill(dropped[:, None], 0),
            encode_words(captions_of(scenes.labels)),
            tokenizer.encode(images),
            scenes.labels,
            scenes.asked,
            scenes.words,
        )


def next_token_loss(model: Transformer, sequences: Sequences) -> Tensor:
    """Mean cross-entropy of the tokens to predict, in nats a token: a scalar."""
    logits = model(sequences.ids, sequences.positions)
    return F.cross_entropy(logits.flatten(0, 1), sequences.targets.flatten(), ignore_index=IGNORE)


def imitation_loss(model: Transformer, teacher: Transformer, sequences: Sequences) -> Tensor:
    """Mean cross-entropy to the teacher's distribution of each token to predict, in nats: a scalar.

    At its least where the model's distribution is the teacher's, and so are its drawings: what a
    draft for speculative decoding is for (Zhou et al. 2024, "DistillSpec").
    """
    ids, positions, targets = sequences
    asked = targets != IGNORE
    with torch.no_grad():
        shares = teacher(ids, positions)[asked].softmax(-1)
    return -(shares * model(ids, positions)[asked].log_softmax(-1)).sum(-1).mean()


def new_gpt(config: TransformerConfig, seed: int) -> GPT:
    """A GPT with fresh weights drawn from the seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(config)


def save_first_part(name: str, model: GPT) -> None:
    """Keep what cross-entropy alone has taught, for the comparison (never shipped)."""
    with atomic_write(run_path(f"{name}_first_part")) as temporary:
        torch.save(model.state_dict(), temporary)


def load_first_part(name: str = "gpt") -> GPT:
    """The model after the first part of its training, which `train` leaves in the runs folder.

    Raises FileNotFoundError where the training was not run.
    """
    path = run_path(f"{name}_first_part")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing: `python -m fastgen_course train {name}` leaves it behind."
        )
    model = GPT(SHIPPED[name].config)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def train_gpt(
    config: TransformerConfig = GPT_BASE,
    recipe: GPTRecipe = GPT_RECIPE,
    *,
    tokenizer: Tokenizer | None = None,
    name: str | None = None,
    quiet: bool = False,
    log_every: int = 100,
) -> tuple[GPT, Training]:
    """Minimise the cross-entropy of both orders; returns the running average of the weights.

    The history holds `draw` (nats an image token), `describe` (nats a word) and `reward` (the mean
    of the second part, 0 before it). With a `name` the training is resumable.
    """
    tokenizer = tokenizer or load_model("tokenizer")
    config = replace(config, image_tokens=tokenizer.config.tokens, codes=tokenizer.config.codes)
    model = new_gpt(config, recipe.seed)
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = token_batches(tokenizer, recipe.batch, generator, recipe.drop_caption)
    parts = {"model": model, "average": average, "optimiser": optimiser}
    tuning = RewardTuning(tokenizer, load_model("judge_train")) if recipe.rewarded else None
    teacher = load_model(recipe.teacher) if recipe.teacher else None
    training = Training(name or "gpt_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        rewarding = index >= recipe.steps
        if index == recipe.steps and name:
            save_first_part(name, average.model)
        if rewarding:
            factor = tuning.rate * cosine_with_warmup(index - recipe.steps, recipe.rewarded, 20)
            average.decay = tuning.average
        else:
            factor = cosine_with_warmup(index, recipe.steps)
        set_rate(optimiser, recipe.rate * factor)
        batch = next(batches)
        sequences = draw_sequences(config, batch.words, batch.tokens)
        if teacher is None:
            draw = next_token_loss(model, sequences)
        else:
            draw = imitation_loss(model, teacher, sequences)
        describe = torch.zeros(())
        if recipe.described:
            some = slice(recipe.described)
            describe = next_token_loss(
                model, describe_sequences(config, batch.plain[some], batch.tokens[some])
            )
        loss, reward = draw + describe, 0.0
        if rewarding:
            asked, reward = tuning.loss(model, batch.said, batch.asked, generator)
            loss = loss + asked
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"draw": draw.item(), "describe": describe.item(), "reward": reward}

    def report(index: int) -> None:
        if (index % 500 == 0 or index > recipe.steps) and not quiet:
            recent = {k: round(v[-1], 4) for k, v in training.history.items()}
            print(training.name, f"{training.seconds:.0f} s", recent, flush=True)

    training.steps = recipe.steps
    training.run(step, log_every=log_every, quiet=quiet, on_log=report)
    training.steps += recipe.rewarded  # few and slow updates: logged ten times as often
    training.run(step, log_every=max(1, log_every // 10), quiet=quiet, on_log=report)
    return average.model, training


@torch.no_grad()
def gpt_metrics(
    model: Transformer, tokenizer: Tokenizer, n: int = 2000, seed: int = 5
) -> dict[str, float]:
    """On real test scenes with plain captions: nats an image token drawn, nats a word described."""
    generator = torch.Generator().manual_seed(seed)
    sums = {"draw": 0.0, "describe": 0.0}
    model.eval()
    batches = token_batches(tokenizer, 200, generator, split="test")
    for _ in range(n // 200):
        batch = next(batches)
        draw = draw_sequences(model.config, batch.plain, batch.tokens)
        describe = describe_sequences(model.config, batch.plain, batch.tokens)
        sums["draw"] += next_token_loss(model, draw).item()
        sums["describe"] += next_token_loss(model, describe).item()
    return {f"test_{key}_nats": value / (n // 200) for key, value in sums.items()}


class ShippedGPT(NamedTuple):
    """A language model that is shipped: its sizes, its training, and whose tokens it writes."""

    config: TransformerConfig
    recipe: GPTRecipe
    tokenizer: str = "tokenizer"


SHIPPED: dict[str, ShippedGPT] = {
    "gpt": ShippedGPT(GPT_BASE, replace(GPT_RECIPE, rewarded=REWARDED)),
    # The small model that guesses for speculative decoding (notebook 07).
    "gpt_draft": ShippedGPT(
        GPT_SIZES["gpt_xs"], replace(GPT_RECIPE, steps=4000, described=0, teacher="gpt")
    ),
    # The same size over 16 tokens a picture, for notebook 07's comparison.
    "gpt_16": ShippedGPT(GPT_BASE, replace(GPT_RECIPE, rewarded=REWARDED), "tokenizer_16"),
}


def train_shipped_gpt(name: str = "gpt", quiet: bool = False) -> dict:
    """Train a shipped language model, resuming a killed run; ships it, returns its card."""
    if name not in SHIPPED:
        raise ValueError(f"there is no language model {name!r}; choose from {', '.join(SHIPPED)}.")
    config, recipe, tokenizer_name = SHIPPED[name]
    tokenizer = load_model(tokenizer_name)
    model, training = train_gpt(config, recipe, tokenizer=tokenizer, name=name, quiet=quiet)
    return ship(name, model, training, recipe, lambda: gpt_metrics(model, tokenizer))
