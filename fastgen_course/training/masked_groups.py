"""Teach the masked model to draw in four groups of tokens, without guidance: `masked_groups`.

Two parts after `masked` was trained:

1. *Imitation.* Cross-entropy on pictures that the language model drew for the caption
   (sequence-level distillation, Kim and Rush 2016, which made parallel translation work: Gu et al.
   2018). Its pictures vary less than photographs do, so that tokens drawn side by side depend less
   on each other.
2. *Reward.* REINFORCE on what `judge_train` reads, as in gpt_reward.py. The order of the groups is
   fixed, so the likelihood of a drawing is exact (sampling/groups.py).

In both, each picture of a batch asks for one group, chosen by chance: G times its sum of
cross-entropies is in expectation that of the whole picture, at a quarter of the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.gpt import GPT
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import parameter_groups
from fastgen_course.sampling.gpt import GPT_SAMPLING, sample_gpt
from fastgen_course.sampling.groups import draw_groups, groups_of, hidden_before, step_of_place
from fastgen_course.training.gpt_reward import caption_certainty, leave_one_out
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class GroupsRecipe:
    """How a masked model is taught to draw in groups.

    Attributes:
        groups: forwards a picture.
        pictures: drawn by the language model, to be imitated.
        steps: updates of imitation alone.
        rewarded: further updates with the reward beside it.
        batch: pictures imitated an update.
        captions, drawn: so many captions an update of the second part, each drawn so often.
        weight: of the reward's loss beside the cross-entropy.
        rate, rewarded_rate: the optimiser's learning rate at its height, in either part.
        decay: weight decay of the matrices.
        average: decay of the running average that is shipped.
        seed: of captions, groups and drawings.
    """

    groups: int = 4
    pictures: int = 40_000
    steps: int = 1500
    rewarded: int = 250
    batch: int = 64
    captions: int = 32
    drawn: int = 8
    weight: float = 25.0
    rate: float = 1e-3
    rewarded_rate: float = 6e-4
    decay: float = 0.05
    average: float = 0.98
    seed: int = 21


GROUPS_RECIPE = GroupsRecipe()


class Drawings(NamedTuple):
    """Captioned pictures as tokens."""

    words: Tensor  # int64 (N, L)
    asked: Tensor  # int64 (N, 5), what the caption asks for
    tokens: Tensor  # int64 (N, image_tokens)


@torch.no_grad()
def teacher_drawings(
    teacher: GPT, count: int, seed: int, chunk: int = 500, quiet: bool = True
) -> Drawings:
    """`count` captions of training scenes, each drawn once as the course draws (GPT_SAMPLING)."""
    generator = torch.Generator().manual_seed(seed)
    batches = scene_batches("train", chunk, generator)
    parts: list[Drawings] = []
    for done in range(0, count, chunk):
        scenes = next(batches)
        tokens = sample_gpt(teacher, scenes.words, generator=generator, chunk=chunk, **GPT_SAMPLING)
        parts.append(Drawings(scenes.words, scenes.asked, tokens))
        if not quiet and done % 5000 == 0:
            print(f"drawn {done:,} of {count:,} pictures", flush=True)
    return Drawings(*(torch.cat(column)[:count] for column in zip(*parts, strict=True)))


def batches_of(drawings: Drawings, batch: int, generator: torch.Generator) -> Iterator[Drawings]:
    """Endless random batches of the drawings."""
    while True:
        rows = torch.randint(len(drawings.tokens), (batch,), generator=generator)
        yield Drawings(*(column[rows] for column in drawings))


def one_group_nats(
    model: MaskedModel,
    words: Tensor,
    tokens: Tensor,
    groups: Sequence[Sequence[int]],
    generator: torch.Generator,
) -> Tensor:
    """An unbiased estimate of -log p(tokens | words) over the groups, in nats a token: (B,).

    One group of each row, chosen by chance, times how many groups there are.
    """
    n = tokens.shape[1]
    step = torch.randint(len(groups), (len(tokens),), generator=generator)
    hidden = hidden_before(groups, step, n)
    now = step_of_place(groups, n) == step[:, None]
    logits = model.image_logits(words, tokens, hidden)
    nats = torch.zeros(tokens.shape)
    nats[now] = F.cross_entropy(logits[now], tokens[now], reduction="none")
    return nats.sum(1) * len(groups) / n


def train_groups(
    model: MaskedModel,
    drawings: Drawings,
    tokenizer: Tokenizer,
    judge: SlotJudge,
    recipe: GroupsRecipe = GROUPS_RECIPE,
    *,
    name: str | None = None,
    quiet: bool = False,
    log_every: int = 100,
) -> tuple[MaskedModel, Training]:
    """Both parts; returns the running average of the weights. With a `name` it is resumable.

    The history holds `nats` (a token of the imitated pictures) and `reward` (0 in the first part).
    """
    groups = groups_of(model.config.image_tokens, recipe.groups)
    model.requires_grad_(True)
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = batches_of(drawings, recipe.batch, generator)
    parts = {"model": model, "average": average, "optimiser": optimiser}
    training = Training(name or "masked_groups_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def reward_loss(words: Tensor, asked: Tensor) -> tuple[Tensor, float]:
        words, asked = (x.repeat_interleave(recipe.drawn, 0) for x in (words, asked))
        # At temperature 1, uncut: what is climbed is the reward of the model's own distribution.
        tokens = draw_groups(model, words, generator=generator, steps=recipe.groups).tokens
        with torch.no_grad():
            rewards = caption_certainty(judge, tokenizer.decode(tokens), asked)
        advantages = leave_one_out(rewards.view(-1, recipe.drawn)).flatten()
        model.train()
        nats = one_group_nats(model, words, tokens, groups, generator)
        return recipe.weight * (advantages * nats).mean(), rewards.mean().item()

    def step(index: int) -> dict[str, float]:
        model.train()
        later = index - recipe.steps
        if later < 0:
            rate = recipe.rate * cosine_with_warmup(index, recipe.steps)
        else:
            rate = recipe.rewarded_rate * cosine_with_warmup(later, recipe.rewarded, 20)
        set_rate(optimiser, rate)
        batch = next(batches)
        nats = one_group_nats(model, batch.words, batch.tokens, groups, generator).mean()
        loss, reward = nats, 0.0
        if later >= 0:
            some = slice(recipe.captions)
            asked, reward = reward_loss(batch.words[some], batch.asked[some])
            loss = loss + asked
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"nats": nats.item(), "reward": reward}

    def report(index: int) -> None:
        if not quiet:
            recent = {k: round(v[-1], 4) for k, v in training.history.items()}
            print(training.name, f"{training.seconds:.0f} s", recent, flush=True)

    training.run(step, log_every=log_every, quiet=quiet, on_log=report)
    training.steps += recipe.rewarded  # few and slow updates: logged ten times as often
    training.run(step, log_every=max(1, log_every // 10), quiet=quiet, on_log=report)
    return average.model, training


@torch.no_grad()
def groups_metrics(
    model: MaskedModel, tokenizer: Tokenizer, judge: SlotJudge, steps: int, n: int = 2000
) -> dict[str, float]:
    """How certain `judge_train` is of `n` drawings for captions of training scenes."""
    generator = torch.Generator().manual_seed(5)
    scenes = next(scene_batches("train", n, generator))
    tokens = draw_groups(model, scenes.words, generator=generator, steps=steps).tokens
    images = torch.cat([tokenizer.decode(part) for part in tokens.split(250)])
    return {"judge_train_certainty": float(caption_certainty(judge, images, scenes.asked).mean())}


def train_masked_groups(name: str = "masked_groups", quiet: bool = False) -> dict:
    """Teach the shipped masked model, resuming a killed run; ships it, returns its card."""
    recipe = GROUPS_RECIPE
    tokenizer, judge = load_model("tokenizer"), load_model("judge_train")
    # Drawn again on resume: the same seed, the same pictures.
    drawings = teacher_drawings(load_model("gpt"), recipe.pictures, recipe.seed + 1, quiet=quiet)
    model, training = train_groups(
        load_model("masked"), drawings, tokenizer, judge, recipe, name=name, quiet=quiet
    )
    return ship(
        name,
        model,
        training,
        recipe,
        lambda: groups_metrics(model, tokenizer, judge, recipe.groups),
    )
