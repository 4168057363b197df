"""The second part of the language model's training: make likelier what a judge can read.

Cross-entropy asks for every token alike, and a picture is 49 of them: the few that tell a coat from
a shirt hardly count. Here the model draws, `judge_train` reads the picture, and the share of
certainty that it gives to the whole caption is the reward r. Its mean is climbed with REINFORCE,

    grad E[r] = E[(r - b) grad log p(tokens | caption)],

b being the mean reward of the *other* drawings of the same caption (REINFORCE leave-one-out: Kool
et al. 2019; Ahmadian et al. 2024, "Back to Basics"; group-relative rewards as in GRPO, Shao et al.
2024; for pictures Black et al. 2024, "DDPO"). b does not depend on the drawing that it is taken
from, so it lowers the variance and leaves the expectation. The cross-entropy on real pictures goes
on beside it: without it the model would draw the one easiest picture of every caption.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.datasets.captions import FREE, SLOTS
from fastgen_course.models.gpt import GPT, IGNORE, draw_sequences
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.sampling.gpt import sample_gpt


@torch.no_grad()
def caption_certainty(judge: SlotJudge, images: Tensor, asked: Tensor) -> Tensor:
    """How certain a judge is that a picture shows all that was asked for: (B,) in [0, 1].

    The product over the asked slots of the judge's probability of the asked value. Images
    (B, 3, 28, 28) in [-1, 1]; asked int64 (B, 5), -1 where the caption leaves the slot free.
    """
    judge.eval()
    logits = judge(images)
    shares = [
        logits[slot].softmax(-1).gather(1, asked[:, [i]].clamp_min(0))[:, 0]
        for i, slot in enumerate(SLOTS)
    ]
    return torch.stack(shares, 1).masked_fill(asked == FREE, 1.0).prod(1)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward less the mean of the others of its row: (C, N) for N >= 2 drawings a caption."""
    n = rewards.shape[1]
    if n < 2:
        raise ValueError("a baseline from the other drawings needs two drawings a caption or more.")
    others = (rewards.sum(1, keepdim=True) - rewards) / (n - 1)
    return rewards - others


def reinforce_loss(model: GPT, words: Tensor, tokens: Tensor, advantages: Tensor) -> Tensor:
    """A scalar whose gradient is -E[advantage x grad log p(tokens | words)], a token.

    words int64 (B, L); tokens int64 (B, image_tokens), drawn by this very model; advantages (B,).
    """
    ids, positions, targets = draw_sequences(model.config, words, tokens)
    first, codes = model.config.first_code, model.config.codes
    logits = model(ids, positions)[..., first : first + codes]  # as drawn: among image tokens
    nats = F.cross_entropy(
        logits.flatten(0, 1),
        targets.where(targets == IGNORE, targets - first).flatten(),
        ignore_index=IGNORE,
        reduction="none",
    )
    nats = nats.view(targets.shape).sum(1) / tokens.shape[1]
    return (advantages * nats).mean()


class RewardTuning:
    """Draws, has it read, and gives the loss that makes the readable likelier.

    Attributes:
        captions, drawn: so many captions an update, each drawn so often.
        weight: of the loss beside the cross-entropies.
        rate: share of the first part's learning rate.
        average: decay of the running average, shorter than the first part's since the steps are
            few.
    """

    captions = 32
    drawn = 8
    weight = 25.0
    rate = 0.3
    average = 0.98

    def __init__(self, tokenizer: Tokenizer, judge: SlotJudge) -> None:
        self.tokenizer = tokenizer.eval()
        self.judge = judge.eval()

    def loss(
        self, model: GPT, words: Tensor, asked: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """The loss and the mean reward, for the first captions of a batch.

        words int64 (B, L) and asked int64 (B, 5) of at least `captions` rows. The drawings are at
        temperature 1, uncut: what is climbed is the reward of the model's own distribution.
        """
        words, asked = (
            part[: self.captions].repeat_interleave(self.drawn, 0) for part in (words, asked)
        )
        tokens = sample_gpt(model, words, generator=generator)
        with torch.no_grad():
            images = self.tokenizer.decode(tokens)
        rewards = caption_certainty(self.judge, images, asked)
        advantages = leave_one_out(rewards.view(-1, self.drawn)).flatten()
        model.train()
        loss = reinforce_loss(model, words, tokens, advantages)
        return self.weight * loss, rewards.mean().item()
