"""A judge as reward: the baseline, the gradient, that a model learns from it; and imitation."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from fastgen_course.datasets.captions import FREE, SLOTS, encode_words
from fastgen_course.models.gpt import GPT, draw_sequences
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.gpt import sample_gpt, token_log_likelihoods
from fastgen_course.training.gpt import GPTRecipe, imitation_loss, load_first_part, train_gpt
from fastgen_course.training.gpt_reward import (
    RewardTuning,
    caption_certainty,
    leave_one_out,
    reinforce_loss,
)


class FixedJudge(nn.Module):
    """Gives the same logits for every picture."""

    def __init__(self, logits: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.fixed = logits

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {k: v.expand(len(images), -1) for k, v in self.fixed.items()}


def test_certainty_is_the_product_over_what_was_asked():
    shares = {slot: torch.full((1, len(values)), 0.1) for slot, values in SLOTS.items()}
    for slot, share in zip(SLOTS, (0.5, 0.8, 0.9, 0.25, 1.0), strict=True):
        shares[slot][0, 1] = share
    judge = FixedJudge({k: (v / v.sum()).log() for k, v in shares.items()})
    asked = torch.tensor([[1] * 5, [FREE, 1, 1, FREE, FREE], [FREE, FREE, 1, 1, FREE]])
    found = caption_certainty(judge, torch.zeros(3, 3, 28, 28), asked)
    p = [float(shares[s][0, 1] / shares[s].sum()) for s in SLOTS]
    expected = [p[0] * p[1] * p[2] * p[3] * p[4], p[1] * p[2], p[2] * p[3]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_the_baseline_is_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 0.2]])
    assert torch.allclose(
        leave_one_out(rewards), torch.tensor([[0.75, -0.75, 0.0], [0.0, 0.0, 0.0]]), atol=1e-6
    )
    with pytest.raises(ValueError, match="two drawings"):
        leave_one_out(torch.ones(4, 1))


def toy() -> GPT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT(TransformerConfig(width=8, layers=1, heads=1, codes=3, image_tokens=3))


def test_the_gradient_is_that_of_the_expected_reward():
    """27 pictures, enumerated: the estimator's mean is the exact gradient, baseline or not."""
    model, words = toy(), encode_words(["a red bag"])
    pictures = torch.tensor(list(itertools.product(range(3), repeat=3)))
    rewards = torch.rand(27, generator=torch.Generator().manual_seed(1))
    logs = token_log_likelihoods(model, words.expand(27, -1), pictures).sum(1).exp()
    assert logs.sum().item() == pytest.approx(1.0, abs=1e-5)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return torch.cat([p.flatten() for p in parts if p is not None])

    # d/dw sum_t p(t) r(t) = sum_t p(t) (r(t) - b) d log p(t)/dw for every constant b
    exact = [
        gradient(
            27 * 3 * reinforce_loss(model, words.expand(27, -1), pictures, logs * (rewards - b))
        )
        for b in (0.0, 0.7)
    ]
    assert torch.allclose(*exact, atol=1e-5)
    generator = torch.Generator().manual_seed(2)
    drawn = sample_gpt(model, words.expand(8000, -1), generator=generator)
    index = drawn @ torch.tensor([9, 3, 1])
    estimates = []
    for advantages in (rewards[index], leave_one_out(rewards[index].view(-1, 8)).flatten()):
        estimates.append(
            gradient(3 * reinforce_loss(model, words.expand(8000, -1), drawn, advantages))
        )
    errors = [float((e - exact[0]).norm() / exact[0].norm()) for e in estimates]
    assert errors[1] < 0.25  # 8,000 drawings
    assert errors[1] < errors[0]  # the baseline took variance away


class DarkJudge(nn.Module):
    """Is surer of every caption the darker the picture is."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        dark = -4 * images.mean((1, 2, 3))
        return {
            slot: torch.stack([dark] + [torch.zeros_like(dark)] * (len(values) - 1), 1)
            for slot, values in SLOTS.items()
        }


def test_a_model_learns_what_the_judge_likes():
    config = TransformerConfig(width=16, layers=1, heads=2, codes=12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tokenizer = Tokenizer(TokenizerConfig(width=4, deep=8, codes=12)).eval()
        model = GPT(config)
    tuning = RewardTuning(tokenizer, DarkJudge())
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    words = encode_words(["a red bag"]).expand(32, -1)
    asked = torch.zeros(32, 5, dtype=torch.int64)
    generator = torch.Generator().manual_seed(4)
    found = []
    for _ in range(30):
        loss, reward = tuning.loss(model, words, asked, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(reward)
    assert sum(found[-5:]) > 1.05 * sum(found[:5])


def test_the_two_parts_follow_each_other_and_the_first_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fastgen_course.training.loop.data_path", lambda *parts: tmp_path.joinpath(*parts)
    )
    monkeypatch.setattr(RewardTuning, "captions", 2)
    monkeypatch.setattr(RewardTuning, "drawn", 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig(width=4, deep=8, codes=20)).eval()
    with pytest.raises(FileNotFoundError, match="train gpt"):
        load_first_part("gpt")
    recipe = GPTRecipe(steps=3, rewarded=2, batch=4, described=2)
    small = TransformerConfig(width=8, layers=1, heads=1)
    _, training = train_gpt(
        small, recipe, tokenizer=tokenizer, name="trial", quiet=True, log_every=1
    )
    assert training.step == 5
    rewards = training.history["reward"]
    assert rewards[:3] == [0.0] * 3 and all(r > 0 for r in rewards[3:])
    first = torch.load(tmp_path / "runs" / "trial_first_part.pt", weights_only=True)
    assert any(
        not torch.equal(v, training.parts["model"].state_dict()[k]) for k, v in first.items()
    )


def test_a_draft_becomes_its_teacher():
    """Imitation is least, and equal to the teacher's entropy, where the two distributions agree."""
    teacher, student = toy(), toy()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))
    words = encode_words(["a red bag"]).expand(27, -1)
    pictures = torch.tensor(list(itertools.product(range(3), repeat=3)))
    sequences = draw_sequences(toy().config, words, pictures)
    least = imitation_loss(teacher, teacher, sequences).item()
    before = imitation_loss(student, teacher, sequences).item()
    assert before > least + 0.01
    optimiser = torch.optim.Adam(student.parameters(), lr=0.02)
    for _ in range(200):
        loss = imitation_loss(student, teacher, sequences)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() == pytest.approx(least, abs=2e-3)
    assert loss.item() >= least - 1e-6
