"""An example of a notebook's exercises, registered as notebook "example" while tests run.

Importing this file registers nothing; `register()` does. The real ones live in
`fastgen_course/exercises/start.py`, `gan.py` and `vae.py` and register when imported.
"""

import math

import matplotlib.pyplot as plt
import torch

from fastgen_course.exercises import Case, register_exercise, register_prediction


def optimal_discriminator(p_data, p_model):
    """D*(x) for densities given as tensors of one shape."""
    return p_data / (p_data + p_model)


def density_pairs():
    generator = torch.Generator().manual_seed(0)
    yield tuple(torch.rand(2, 50, generator=generator) + 0.05)
    yield torch.tensor([0.2]), torch.tensor([0.6])


def draw_discriminators(yours, ours):
    p, q = torch.linspace(0.1, 1, 20), torch.linspace(1, 0.1, 20)
    fig, axes = plt.subplots(1, 2, figsize=(4, 1.5))
    for axis, fn, name in zip(axes, (yours, ours), ("yours", "ours"), strict=True):
        axis.plot(fn(p, q))
        axis.set_title(name)
    return fig


def reparameterise(mu, logvar, noise):
    """z = mu + sigma * noise, all (B, d)."""
    return mu + torch.exp(0.5 * logvar) * noise


def latents():
    generator = torch.Generator().manual_seed(1)
    for batch, width in ((4, 3), (1, 2)):
        yield tuple(torch.randn(3, batch, width, generator=generator))


def squared_error(x, reconstruction):
    """Squared error of each image, summed over its pixels: (B,)."""
    if x.shape != reconstruction.shape:
        raise ValueError("x and its reconstruction must have one shape.")
    return (x - reconstruction).square().flatten(1).sum(1)


def image_pairs():
    generator = torch.Generator().manual_seed(2)
    yield tuple(torch.randn(2, 3, 1, 4, 4, generator=generator))
    yield tuple(torch.randn(2, 2, 1, 2, 3, generator=generator))
    yield Case((torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 3)), label="two shapes")


class Scale:
    """Multiply by a learned number that starts at 1."""

    def __init__(self, start=1.0):
        self.factor = torch.tensor(float(start))

    def __call__(self, x):
        return x * self.factor


class ScaleFromZero(Scale):
    def __init__(self, start=0.0):
        super().__init__(start)


class ScaleAdds(Scale):
    def __call__(self, x):
        return x + self.factor


def register() -> None:
    register_exercise(
        "example.optimal_discriminator",
        title="The best discriminator",
        difficulty=2,
        minutes=5,
        reference=optimal_discriminator,
        inputs=density_pairs,
        wrong={
            "the model's share": (
                lambda p_data, p_model: p_model / (p_data + p_model),
                "That is the probability that x came from the *model*.",
            ),
            "the odds": (
                lambda p_data, p_model: p_data / p_model,
                "That is the odds D / (1 - D), which leaves [0, 1].",
            ),
        },
        hints=("Maximise `p log D + q log(1 - D)` for one x.", "Set its derivative to zero."),
        draw=draw_discriminators,
    )
    register_exercise(
        "example.reparameterise",
        title="A sample that lets gradients through",
        difficulty=3,
        minutes=10,
        reference=reparameterise,
        inputs=latents,
        wrong={
            "logvar taken for log sigma": (
                lambda mu, logvar, noise: mu + torch.exp(logvar) * noise,
                "`logvar` is the logarithm of the *variance*.",
            ),
            "mu detached": (
                lambda mu, logvar, noise: mu.detach() + torch.exp(0.5 * logvar) * noise,
                "A detached mean learns nothing.",
            ),
        },
        hints=("Sigma is the root of the variance.", "The noise comes in as an argument."),
        check_gradients=True,
    )
    register_exercise(
        "example.squared_error",
        title="The reconstruction term",
        difficulty=1,
        minutes=3,
        reference=squared_error,
        inputs=image_pairs,
        wrong={
            "absolute error": (
                lambda x, r: (x - r).abs().flatten(1).sum(1) if x.shape == r.shape else int("?"),
                "The Gaussian likelihood squares.",
            ),
            "summed over the batch": (
                lambda x, r: (x - r).square().sum() if x.shape == r.shape else int("?"),
                "One number for each image is asked for.",
            ),
        },
        alternatives={
            "mean over pixels": (
                lambda x, r: (
                    (x - r).square().flatten(1).mean(1) if x.shape == r.shape else int("?")
                ),
                "The mean divides by the number of pixels, and so rescales beta.",
            ),
        },
        hints=("Flatten all dimensions but the first.", "Then sum over dimension 1."),
    )
    register_exercise(
        "example.scale",
        title="A class",
        difficulty=1,
        minutes=3,
        reference=Scale,
        inputs=[torch.tensor([1.0, 2.0, 3.0])],
        call=lambda candidate, x: candidate()(x),
        wrong={
            "starts at zero": (ScaleFromZero, "Nothing passes a factor of 0."),
            "adds": (ScaleAdds, "To scale is to multiply."),
        },
        hints=("Keep one tensor.", "Multiply by it."),
    )
    register_prediction(
        "example.loss_at_equilibrium",
        title="What D's loss tells",
        difficulty=1,
        minutes=1,
        question="The generator is perfect. What is D's loss, the sum of its two terms?",
        choices=("0", "ln 2", "2 ln 2"),
        answer="2 ln 2",
        why="D* is 1/2 everywhere, and each of the two terms is ln 2.",
        wrong={
            "0": "A loss of 0 means that D is always right.",
            "ln 2": "That is one of the two terms.",
        },
        check=loss_at_equilibrium,
    )


def loss_at_equilibrium() -> str:
    d = optimal_discriminator(torch.tensor(0.3), torch.tensor(0.3))
    loss = float(-d.log() - (1 - d).log())
    values = {"0": 0.0, "ln 2": math.log(2), "2 ln 2": 2 * math.log(2)}
    return min(values, key=lambda choice: abs(values[choice] - loss))
