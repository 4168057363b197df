"""Response distillation: a small language model learns from the large one's softened answers.

With p_T = softmax(teacher / T) and q_T = softmax(student / T), the gradient of KL(p_T || q_T) by
the student's logits is (q_T - p_T) / T. For large T both shares come within 1/T of uniform, so it
falls like 1/T^2; the factor T^2 puts that back (Hinton, Vinyals and Dean 2015, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.compression.teacher_sets import DistillationError
from fastgen_course.models.gpt import GPT, GPT_SIZES, IGNORE, Sequences, draw_sequences
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import TransformerConfig, parameter_groups
from fastgen_course.sampling.gpt import GPT_SAMPLING
from fastgen_course.sampling.speculative import acceptance
from fastgen_course.training.gpt import TokenBatch, new_gpt, next_token_loss, token_batches
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate


def check_temperature(temperature: float) -> None:
    """Raise `DistillationError` for a temperature that is not above 0."""
    if not temperature > 0:  # NaN must not pass
        raise DistillationError(f"temperature must be above 0, got {temperature}.")


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(p_T || q_T) of logits (..., K), the mean over rows, in nats: a scalar.

    Raises `DistillationError` for a temperature not above 0, and for logits of different shapes.
    """
    check_temperature(temperature)
    if student.shape != teacher.shape:
        raise DistillationError(
            f"student and teacher must have logits of one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}."
        )
    p = (teacher / temperature).log_softmax(-1)
    q = (student / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def response_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_T || q_T): its gradient keeps its size when T changes (Hinton et al. 2015)."""
    return temperature**2 * softened_kl(student, teacher, temperature)


def gradient_norms(
    student: Tensor, teacher: Tensor, temperatures: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Mean length of the gradient by a row's logits at each T: (without, with) the factor T^2.

    student, teacher: logits (N, K).
    """
    plain = []
    for temperature in temperatures:
        logits = student.detach().clone().requires_grad_(True)
        loss = softened_kl(logits, teacher.detach(), temperature) * len(logits)
        (gradient,) = torch.autograd.grad(loss, logits)
        plain.append(float(gradient.norm(dim=-1).mean()))
    return plain, [t**2 * g for t, g in zip(temperatures, plain, strict=True)]


def gradient_limit(student: Tensor, teacher: Tensor) -> float:
    """What T^2 times the gradient's length tends to: |s - t|, both with mean 0, over K."""
    s, t = (x - x.mean(-1, keepdim=True) for x in (student, teacher))
    return float((s - t).norm(dim=-1).mean() / student.shape[-1])


# --- logits of image tokens -----------------------------------------------------------------------


def code_logits(model: GPT, sequences: Sequences) -> Tensor:
    """Logits of each image token to predict, among image tokens: (N, codes)."""
    config = model.config
    logits = model(sequences.ids, sequences.positions)[sequences.targets != IGNORE]
    return logits[:, config.first_code : config.first_code + config.codes]


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResponseRecipe:
    """How a small language model is trained.

    Attributes:
        steps: updates.
        batch: pictures an update.
        soft: weight of the softened teacher's loss; the tokens themselves have weight 1 - soft.
        temperature: T of that loss.
        rate: AdamW's learning rate at its height.
        decay: weight decay of the matrices.
        average: decay of the running average that is scored.
        seed: of weights and batches.

    Raises `DistillationError` for a share outside 0 to 1 or a temperature not above 0.
    """

    steps: int = 500
    batch: int = 48
    soft: float = 0.0
    temperature: float = 1.0
    rate: float = 2e-3
    decay: float = 0.05
    average: float = 0.995
    seed: int = 61

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not 0 <= self.soft <= 1 or self.steps < 1:
            raise DistillationError(
                f"soft must be from 0 to 1 and steps at least 1, got {self.soft} and {self.steps}."
            )


HARD = ResponseRecipe()
RESPONSES: dict[str, ResponseRecipe] = {
    "hard": HARD,
    "soft1": replace(HARD, soft=0.5, temperature=1.0),
    "soft2": replace(HARD, soft=0.5, temperature=2.0),
}
RESPONSE_WORDS = {
    "hard": "tokens alone",
    "soft1": "tokens and the teacher's shares, T = 1",
    "soft2": "tokens and the teacher's shares, T = 2",
}
RESPONSE_SIZE = "gpt_xs"


def check_smaller(config: TransformerConfig, teacher: GPT) -> None:
    """Raise `DistillationError` unless a model of `config` has fewer parameters than `teacher`."""
    with torch.device("meta"):
        count = sum(p.numel() for p in GPT(config).parameters())
    most = sum(p.numel() for p in teacher.parameters())
    if count >= most:
        raise DistillationError(
            f"the student has {count:,} parameters and its teacher {most:,}: width and layers must "
            "leave it fewer."
        )


def mixed_loss(
    model: GPT, teacher: GPT | None, sequences: Sequences, recipe: ResponseRecipe
) -> Tensor:
    """(1 - soft) cross-entropy of the tokens + soft T^2 KL to the teacher's shares, in nats."""
    if recipe.soft == 0 or teacher is None:
        return next_token_loss(model, sequences)
    asked = sequences.targets != IGNORE
    # Over the whole vocabulary, as the tokens' own loss: the student learns too that a word never
    # stands in a picture.
    logits = model(sequences.ids, sequences.positions)[asked]
    with torch.no_grad():
        wanted = teacher(sequences.ids, sequences.positions)[asked]
    hard = F.cross_entropy(logits, sequences.targets[asked])
    return (1 - recipe.soft) * hard + recipe.soft * response_loss(
        logits, wanted, recipe.temperature
    )


def train_response(
    name: str | None,
    recipe: ResponseRecipe,
    teacher: GPT | None,
    tokenizer: Tokenizer,
    config: TransformerConfig = GPT_SIZES[RESPONSE_SIZE],
    quiet: bool = False,
) -> tuple[GPT, Training]:
    """A small language model after its training; resumable and kept in `data/runs` with a `name`.

    All recipes of one seed see the same batches. Raises `DistillationError` for a student that is
    not smaller than its teacher, and for soft answers without one.
    """
    config = replace(config, image_tokens=tokenizer.config.tokens, codes=tokenizer.config.codes)
    if recipe.soft > 0 and teacher is None:
        raise DistillationError(f"soft = {recipe.soft} needs a teacher; 0 does without one.")
    if teacher is not None:
        check_smaller(config, teacher)
    model = new_gpt(config, recipe.seed)
    average = RunningAverage(model, recipe.average)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches: Iterator[TokenBatch] = token_batches(tokenizer, recipe.batch, generator)
    parts = {"model": model, "average": average, "optimiser": optimiser}
    training = Training(name or "response_trial", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")

    def step(index: int) -> dict[str, float]:
        model.train()
        set_rate(optimiser, recipe.rate * cosine_with_warmup(index, recipe.steps))
        batch = next(batches)
        sequences = draw_sequences(config, batch.words, batch.tokens)
        loss = mixed_loss(model, teacher, sequences, recipe)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        return {"loss": loss.item()}

    if training.step < training.steps:
        training.run(step, quiet=quiet)
        if name:
            training.save()
    return average.model.eval(), training


class ResponseScores(NamedTuple):
    """What a small model is worth on real test pictures."""

    nats: float  # an image token, among image tokens
    teacher_kl: float  # KL(teacher || student) at T = 1, nats a token
    acceptance: float  # sum min(p, q) at the temperature that the course draws with


@torch.no_grad()
def response_scores(
    model: GPT, teacher: GPT, batches: Iterator[TokenBatch], count: int
) -> ResponseScores:
    """Held-out nats, distance to the teacher, and how often its guesses would be accepted.

    The tokens are real pictures', so that all models are asked at the same places.
    """
    temperature = GPT_SAMPLING["temperature"]
    sums, places = torch.zeros(3, dtype=torch.float64), 0
    model.eval()
    for _ in range(count):
        batch = next(batches)
        sequences = draw_sequences(model.config, batch.plain, batch.tokens)
        ours, theirs = code_logits(model, sequences), code_logits(teacher, sequences)
        targets = sequences.targets[sequences.targets != IGNORE] - model.config.first_code
        shares = ((x / temperature).softmax(-1) for x in (theirs, ours))
        sums += torch.stack(
            [
                F.cross_entropy(ours, targets, reduction="sum"),
                softened_kl(ours, theirs, 1.0) * len(targets),
                acceptance(*shares).sum(),
            ]
        ).double()
        places += len(targets)
    return ResponseScores(*(sums / places).tolist())
