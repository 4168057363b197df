"""Exercises of notebook 08: a line and its velocity, Heun's step, the mean velocity's target."""

from __future__ import annotations

import torch

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.sampling.flow import euler

# --- a line -------------------------------------------------------------------------------------


def line(noise, z, t):
    """The point at time t (B,) on the line from noise (B, D) to z (B, D), and its velocity."""
    t = t[:, None]
    return (1 - t) * noise + t * z, z - noise


def _line_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.zeros(1, 2), torch.tensor([[2.0, 4.0]]), torch.tensor([0.25])
    for batch, width in ((3, 2), (4, 5), (2, 2)):
        noise, z = torch.randn(2, batch, width, generator=generator)
        yield noise, z, torch.rand(batch, generator=generator)


register_exercise(
    "flow.line",
    title="A straight line and its velocity",
    difficulty=1,
    minutes=5,
    reference=line,
    inputs=_line_inputs,
    wrong={
        "from data to noise": (
            lambda noise, z, t: ((1 - t[:, None]) * z + t[:, None] * noise, noise - z),
            "You run from the data to the noise, as diffusion papers count time. Here t = 0 is "
            "noise and t = 1 the data.",
        ),
        "the velocity turned round": (
            lambda noise, z, t: (line(noise, z, t)[0], noise - z),
            "The point is right. Differentiate it by t: the noise's share falls, so its sign is "
            "minus.",
        ),
        "what is left of the way": (
            lambda noise, z, t: (line(noise, z, t)[0], z - line(noise, z, t)[0]),
            "That is the way still to go, which shrinks. The velocity of a uniform motion is the "
            "same at all times.",
        ),
        "diffusion's circle": (
            lambda noise, z, t: (
                torch.cos(torch.pi / 2 * t)[:, None] * noise
                + torch.sin(torch.pi / 2 * t)[:, None] * z,
                z - noise,
            ),
            "Cosine and sine keep the variance at 1, on a quarter circle. A straight line takes "
            "1 - t and t.",
        ),
    },
    hints=(
        "At t = 0 all noise, at t = 1 all data, in between in proportion. `t[:, None]` lets (B,) "
        "multiply (B, D).",
        "Return two tensors: (1 - t) noise + t z, and its derivative by t.",
    ),
)

# --- Heun ---------------------------------------------------------------------------------------


def heun_step(velocity, z, t, h):
    """One step of Heun's method from time t to t + h: velocity(z (B, D), t) -> (B, D)."""
    first = velocity(z, t)
    second = velocity(z + h * first, t + h)
    return z + h * (first + second) / 2


def _turning(z, t):
    return torch.stack([-z[:, 1], z[:, 0]], 1) * (1 + t)


def _growing(z, t):
    return (0.5 - t) * z


def _heun_inputs():
    generator = torch.Generator().manual_seed(1)
    for velocity in (_turning, _growing):
        for t, h in ((0.0, 0.5), (0.3, 0.2), (0.5, 1.0)):
            yield velocity, torch.randn(3, 2, generator=generator), t, h


register_exercise(
    "flow.heun_step",
    title="Heun's step",
    difficulty=2,
    minutes=6,
    reference=heun_step,
    inputs=_heun_inputs,
    wrong={
        "Euler": (
            lambda velocity, z, t, h: z + h * velocity(z, t),
            "That is Euler's step: the slope at the start for the whole way. Heun averages it with "
            "the slope at the end of that step.",
        ),
        "the midpoint": (
            lambda velocity, z, t, h: z + h * velocity(z + h / 2 * velocity(z, t), t + h / 2),
            "That is the midpoint method, of second order as well. Asked for is the average of the "
            "slopes at both ends.",
        ),
        "the old time twice": (
            lambda velocity, z, t, h: (
                z + h * (velocity(z, t) + velocity(z + h * velocity(z, t), t)) / 2
            ),
            "The second slope belongs to the end of the step in time, too: t + h.",
        ),
        "the old point twice": (
            lambda velocity, z, t, h: z + h * (velocity(z, t) + velocity(z, t + h)) / 2,
            "The second slope is taken where the Euler step arrives, not at z.",
        ),
        "not averaged": (
            lambda velocity, z, t, h: (
                z + h * (velocity(z, t) + velocity(z + h * velocity(z, t), t + h))
            ),
            "You add both slopes and walk twice as far. Halve the sum.",
        ),
    },
    hints=(
        "First an Euler step, to have a point at which to ask for the second slope.",
        "z + h (v(z, t) + v(z + h v(z, t), t + h)) / 2.",
    ),
)

# --- the mean velocity --------------------------------------------------------------------------


def mean_target(v, slope, r, t):
    """What u(z_r, r, t) must be: v at r and slope = du/dr along the flow (B, D), r and t (B,)."""
    return v + (t - r)[:, None] * slope


def _mean_inputs():
    generator = torch.Generator().manual_seed(2)
    for batch in (2, 4):
        v, slope = torch.randn(2, batch, 3, generator=generator)
        r = 0.5 * torch.rand(batch, generator=generator)
        yield v, slope, r, r + 0.1 + 0.4 * torch.rand(batch, generator=generator)


register_exercise(
    "flow.mean_target",
    title="The mean velocity's target",
    difficulty=3,
    minutes=10,
    reference=mean_target,
    inputs=_mean_inputs,
    wrong={
        "the paper's sign": (
            lambda v, slope, r, t: v - (t - r)[:, None] * slope,
            "That is the identity for a velocity known at the *later* time, as in the paper, where "
            "t is noise. Differentiate (t - r) u by r: the first factor gives -u.",
        ),
        "no derivative": (
            lambda v, slope, r, t: v + 0 * slope,
            "u = v holds only where t = r. Over a curved way the mean differs from the velocity at "
            "the start.",
        ),
        "not times t - r": (
            lambda v, slope, r, t: v + slope,
            "The product rule leaves a factor t - r before du/dr.",
        ),
        "half of it": (
            lambda v, slope, r, t: v + (t - r)[:, None] * slope / 2,
            "With the slope of *v* a half would be right, to first order. The slope here is that "
            "of u itself, and the identity is exact.",
        ),
    },
    hints=(
        "(t - r) u = the way from z_r to z_t. Differentiate both sides by r along the flow, where "
        "dz_r/dr = v.",
        "-u + (t - r) du/dr = -v. Solve for u.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_STEPS = ("1", "2", "8", "infinitely many")


def _steps_needed() -> str:
    noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(3))
    target = torch.tensor([3.0, -1.0]) + 0.5 * noise  # lines that never cross

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = (z - t[:, None] * torch.tensor([3.0, -1.0])) / (1 - 0.5 * t[:, None])
        return torch.tensor([3.0, -1.0]) - 0.5 * x

    errors = {n: (euler(velocity, noise, torch.linspace(0, 1, n + 1)) - target).abs().max()
              for n in (1, 2, 8)}  # fmt: skip
    enough = [str(n) for n, error in errors.items() if error < 1e-4]
    return enough[0] if enough else "infinitely many"


register_prediction(
    "flow.straight_steps",
    title="Steps along straight lines",
    difficulty=1,
    minutes=2,
    question="Suppose that every path of the flow is a straight line, walked at constant speed. "
    "How many Euler steps does an exact sample take?",
    choices=_STEPS,
    answer="1",
    why="Euler's method errs where the velocity changes along the path. On a straight line walked "
    "evenly it does not change at all, so one step of length 1 arrives. Few-step sampling is a "
    "matter of straight paths, which is what reflow makes.",
    wrong={
        "2": "Where would the second step correct the first? The velocity is the same there.",
        "8": "Curved paths take many steps. These are not curved.",
        "infinitely many": "That is the general case: the error falls like 1 / steps.",
    },
    check=_steps_needed,
)

_CROSS = ("never", "only where training was too short", "often: the lines cross, so the paths do")


register_prediction(
    "flow.crossing",
    title="Do paths cross?",
    difficulty=2,
    minutes=3,
    question="Training draws lines between random noise and random data, and many of them cross. "
    "Do the paths of the trained flow cross?",
    choices=_CROSS,
    answer="never",
    why="The flow has one velocity at each point and time. Two paths that met there would go on "
    "as one (an ordinary differential equation with a smooth right side has one solution through "
    "each point). Where lines cross, the network learns the mean of their velocities, and the "
    "paths bend away from each other.",
    wrong={
        "only where training was too short": "However good or bad, the network gives one velocity "
        "at a point: no two paths can leave it in different directions.",
        "often: the lines cross, so the paths do": "The lines are what it is trained on; at a "
        "crossing it can only learn the mean of both directions.",
    },
)
