"""Exercises of notebook 01: the best discriminator, losses and penalties, and two predictions."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.show import PALETTE
from fastgen_course.training.gan_losses import (
    gradient_penalty,
    nonsaturating_loss,
    saturating_loss,
    spectral_norm_of,
)


def _beside(yours, ours, x, x_label: str, y_label: str) -> Figure:
    """Two curves over x: `yours(x)` and `ours(x)` return tensors of its shape."""
    fig, axis = plt.subplots(figsize=(5.2, 2.6))
    for fn, name, colour, line in (
        (ours, "ours", PALETTE[0], "-"),
        (yours, "yours", PALETTE[1], "--"),
    ):
        axis.plot(x, fn(x).detach(), line, color=colour, label=name)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.legend()
    return fig


# --- the optimal discriminator ------------------------------------------------------------------


def optimal_discriminator(p_data, p_model):
    """D*(x) for densities given as tensors of one shape."""
    return p_data / (p_data + p_model)


def _density_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.tensor([0.2]), torch.tensor([0.6])
    yield tuple(torch.rand(2, 50, generator=generator) + 0.05)


def _draw_discriminator(yours, ours) -> Figure:
    x = torch.linspace(-4, 4, 200)
    densities = torch.exp(-((x - 1) ** 2) / 2), torch.exp(-((x + 1) ** 2) / 2)
    return _beside(
        lambda _: yours(*densities),
        lambda _: ours(*densities),
        x,
        "x (data right, model left)",
        "D",
    )


register_exercise(
    "gan.optimal_discriminator",
    title="The best discriminator",
    difficulty=2,
    minutes=6,
    reference=optimal_discriminator,
    inputs=_density_inputs,
    wrong={
        "the model's share": (
            lambda p_data, p_model: p_model / (p_data + p_model),
            "That is the probability that x came from the *model*. D says: from the data.",
        ),
        "the odds": (
            lambda p_data, p_model: p_data / p_model,
            "That is the odds D / (1 - D), which leaves [0, 1]. Solve for D.",
        ),
        "the logit": (
            lambda p_data, p_model: (p_data / p_model).log(),
            "That is what the network outputs before its sigmoid. D itself is the sigmoid of it.",
        ),
        "the hard decision": (
            lambda p_data, p_model: (p_data > p_model).to(p_data.dtype),
            "A hard decision maximises E[D(x)] - E[D(G(z))], another objective. With logarithms a "
            "confident mistake costs infinitely much.",
        ),
    },
    hints=(
        "Both expectations are integrals over x, so D can be chosen at each x apart: maximise "
        "p_data log D + p_model log(1 - D) over one number D in (0, 1).",
        "Set the derivative p_data / D - p_model / (1 - D) to zero and solve for D.",
    ),
    draw=_draw_discriminator,
    alt="D over x for two Gaussians: your function beside the reference",
)


# --- the generator's loss -----------------------------------------------------------------------


def _logit_inputs():
    generator = torch.Generator().manual_seed(1)
    yield torch.tensor([0.0])
    yield torch.tensor([-200.0, -1.0])
    yield 3 * torch.randn(16, generator=generator)


def _draw_loss(yours, ours) -> Figure:
    logits = torch.linspace(-6, 6, 61)

    def curve(fn):
        return lambda x: torch.stack([fn(v[None]) for v in x])

    return _beside(curve(yours), curve(ours), logits, "logit of D on a sample", "loss")


register_exercise(
    "gan.generator_loss",
    title="The loss that does not saturate",
    difficulty=2,
    minutes=6,
    reference=nonsaturating_loss,
    inputs=_logit_inputs,
    wrong={
        "the saturating loss": (
            saturating_loss,
            "That is E[log(1 - D(G(z)))], the minimax game as it stands. When D wins, its slope "
            "dies. Here we want -E[log D(G(z))].",
        ),
        "the discriminator's goal": (
            lambda fake: F.softplus(fake).mean(),
            "-E[log(1 - D(G(z)))] is what *D* minimises: it is small when samples are called fake. "
            "The generator wants the opposite.",
        ),
        "the logarithm of a rounded sigmoid": (
            lambda fake: -torch.sigmoid(fake).log().mean(),
            "Right on paper. At a logit of -200 the sigmoid is 0 in float32, and its logarithm "
            "-inf. Write -log sigmoid(a) without computing the sigmoid: softplus(-a).",
        ),
        "the logit taken for D": (
            lambda fake: -fake.mean(),
            "That is a Wasserstein critic's or a hinge loss's generator loss. Here D = sigmoid of "
            "the logit, and the loss is -log D.",
        ),
    },
    alternatives={
        "summed": (
            lambda fake: F.softplus(-fake).sum(),
            "You summed over the batch. Then the learning rate means something else for every "
            "batch size; the mean is usual.",
        ),
    },
    hints=(
        "D = sigmoid(a) = 1 / (1 + exp(-a)). What is -log D?",
        "-log D = log(1 + exp(-a)), which PyTorch has as `F.softplus(-a)`. Average it.",
    ),
    check_gradients=True,
    draw=_draw_loss,
    alt="The generator's loss over the logit: your function beside the reference",
)


# --- the gradient penalty -----------------------------------------------------------------------


def _penalty_inputs():
    generator = torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        straight = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
        bent = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    with torch.no_grad():
        bent[2].weight.mul_(4)
    for critic, count in ((straight, 2), (bent, 6)):
        real, fake = torch.randn(2, count, 2, generator=generator)
        yield critic, real, fake + 2, torch.rand(count, generator=generator)


def _penalty_with(reduce, at=None, graph=True):
    def penalty(critic, real, fake, mix):
        x = mix[:, None] * real + (1 - mix[:, None]) * fake if at is None else at(real, fake)
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=graph)
        return reduce(gradient)

    return penalty


def _to_one(gradient):
    return (gradient.norm(dim=1) - 1).pow(2).mean()


register_exercise(
    "gan.gradient_penalty",
    title="A penalty on the critic's slope",
    difficulty=4,
    minutes=12,
    reference=gradient_penalty,
    inputs=_penalty_inputs,
    wrong={
        "one norm for the whole batch": (
            _penalty_with(lambda g: (g.norm() - 1) ** 2),
            "You took one norm over all samples together. Each sample's gradient wants its own "
            "norm: reduce over the coordinates only.",
        ),
        "towards zero": (
            _penalty_with(lambda g: g.pow(2).sum(dim=1).mean()),
            "That pulls the slope to 0, as R1 does (on data). WGAN-GP pulls it to 1.",
        ),
        "at the samples": (
            _penalty_with(_to_one, at=lambda real, fake: fake),
            "The slope is wanted between data and samples, at mix * real + (1 - mix) * fake.",
        ),
        "at the data": (
            _penalty_with(_to_one, at=lambda real, fake: real),
            "R1 looks at the data alone. WGAN-GP looks at mixtures of a data point and a sample.",
        ),
        "no graph": (
            _penalty_with(_to_one, graph=False),
            "The value is right, but no gradient reaches the critic's weights: the penalty would "
            "change nothing. Ask `torch.autograd.grad` for `create_graph=True`.",
        ),
        "without the square": (
            _penalty_with(lambda g: (g.norm(dim=1) - 1).mean()),
            "Without the square a slope below 1 is rewarded, and 0 is best of all.",
        ),
    },
    alternatives={
        "mixed the other way": (
            lambda critic, real, fake, mix: gradient_penalty(critic, fake, real, mix),
            "You weight the samples with mix and the data with 1 - mix. A uniform mix makes no "
            "difference.",
        ),
    },
    hints=(
        "Make the mixture a leaf (`.detach().requires_grad_()`), call the critic on it, and ask "
        "`torch.autograd.grad` for the gradient of the scores' sum: samples do not mix, so row i "
        "is the gradient of score i.",
        "`create_graph=True` makes the gradient itself differentiable. Then: norm over the "
        "coordinates, minus 1, squared, mean over the batch.",
    ),
    check_gradients=True,
)


# --- the spectral norm --------------------------------------------------------------------------


def _matrix_inputs():
    generator = torch.Generator().manual_seed(3)
    yield torch.tensor([[3.0, 0.0], [4.0, 1.0]]), torch.tensor([1.0, 1.0]), 1
    for steps in (3, 30):
        weight = torch.randn(6, 4, generator=generator)
        yield weight, torch.randn(6, generator=generator), steps


register_exercise(
    "gan.spectral_norm",
    title="The largest singular value, by walking",
    difficulty=3,
    minutes=10,
    reference=spectral_norm_of,
    inputs=_matrix_inputs,
    wrong={
        "the Frobenius norm": (
            lambda weight, start, steps: weight.norm(),
            "The root of the sum of squares counts all singular values. We want the largest alone.",
        ),
        "the largest entry": (
            lambda weight, start, steps: weight.abs().max(),
            "An entry says what one input does to one output. Which *direction* is stretched most?",
        ),
        "its square": (
            lambda weight, start, steps: spectral_norm_of(weight, start, steps) ** 2,
            "That is the largest eigenvalue of W W^T: the square of the singular value.",
        ),
        "the exact value": (
            lambda weight, start, steps: torch.linalg.svdvals(weight)[0],
            "That is where the walk ends. Training takes one step of it per update, from where "
            "the last one stopped: do `steps` steps from `start`.",
        ),
    },
    hints=(
        "Repeat: v = W^T u, scaled to length 1; then u = W v, scaled to length 1. u and v turn "
        "towards the first singular vectors.",
        "At the end the value is u^T W v.",
    ),
)


# --- predictions --------------------------------------------------------------------------------


def _slope_ratio() -> str:
    logit = torch.tensor([math.log(1e-4 / (1 - 1e-4))], dtype=torch.float64, requires_grad=True)
    slopes = [
        torch.autograd.grad(loss(logit), logit)[0].abs().item()
        for loss in (nonsaturating_loss, saturating_loss)
    ]
    exponent = round(math.log10(slopes[0] / slopes[1]))
    return {0: "as strong", 2: "100 times stronger", 4: "10,000 times stronger"}[exponent]


register_prediction(
    "gan.saturated_gradient",
    title="How much gradient is left?",
    difficulty=2,
    minutes=2,
    question="D is nearly perfect: D(G(z)) = 0.0001 on every sample. How much stronger is the "
    "gradient of -log D(G(z)) than that of log(1 - D(G(z)))?",
    choices=("as strong", "100 times stronger", "10,000 times stronger"),
    answer="10,000 times stronger",
    why="With D = sigmoid(a), the slopes in a are -(1 - D) and -D: 0.9999 against 0.0001.",
    wrong={
        "as strong": "Both losses push the logit up, but their slopes in it are 1 - D and D.",
        "100 times stronger": "There is no square root: the slopes in the logit are 1 - D and D.",
    },
    check=_slope_ratio,
)
