"""Exercises of notebook 12: a grid, rounding to it, a product of integers, its gradient."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.compression.affine import pair_sum_fits
from fastgen_course.exercises.registry import register_exercise, register_prediction

# --- the affine grid ----------------------------------------------------------------------------


def affine_grid(low, high, bits):
    """(scale, zero point) of the integers 0 to 2^bits - 1 over [low, high], low <= 0 <= high."""
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


register_exercise(
    "quantization.affine_grid",
    title="Scale and zero point",
    difficulty=1,
    minutes=5,
    reference=affine_grid,
    inputs=lambda: [
        (0.0, 6.0, 2),
        (-1.0, 2.0, 3),
        (-0.7, 3.1, 4),
        (-2.6, 0.9, 4),
        (-3.0, 1.4, 8),
    ],
    wrong={
        "levels for steps": (
            lambda low, high, bits: (
                (high - low) / 2**bits,
                round(-low / ((high - low) / 2**bits)),
            ),
            "2^bits integers have 2^bits - 1 steps between them: count the gaps, not the posts.",
        ),
        "zero point at low": (
            lambda low, high, bits: (
                (high - low) / (2**bits - 1),
                round(low / ((high - low) / (2**bits - 1))),
            ),
            "The integer 0 should mean `low`: scale * (0 - zero point) = low. Mind the sign.",
        ),
        "symmetric": (
            lambda low, high, bits: (2 * max(-low, high) / (2**bits - 1), 2 ** (bits - 1)),
            "That is a grid for [-m, m]. Where one side is shorter it leaves integers unused.",
        ),
        "not an integer": (
            lambda low, high, bits: (
                (high - low) / (2**bits - 1),
                -low / ((high - low) / (2**bits - 1)),
            ),
            "The zero point must itself be one of the integers, or 0.0 is not on the grid and "
            "padding and ReLU make an error in every place.",
        ),
    },
    hints=(
        "How many steps lie between the first integer and the last? The range divided by them is "
        "the scale.",
        "Solve scale * (0 - zero_point) = low for the zero point, and round it.",
    ),
)

# --- rounding to the grid -----------------------------------------------------------------------


def round_to_grid(x, scale, zero_point, low, high):
    """x as scale * (q - zero_point) says it, q an integer from low to high: a tensor."""
    q = (torch.round(x / scale) + zero_point).clamp(low, high)
    return scale * (q - zero_point)


def _grid_inputs():
    yield torch.tensor([-0.4, 0.0, 0.26, 0.9]), 0.5, 1, 0, 3
    yield torch.tensor([-9.0, -1.3, -0.2, 0.7, 2.2, 9.0]), 0.5, 3, 0, 7
    yield torch.linspace(-2, 2, 41), 0.25, 0, -7, 7
    yield torch.linspace(-1, 3, 37), 0.3, 5, 0, 15


def _draw_grid(yours, ours) -> Figure:
    x = torch.linspace(-2.2, 2.2, 400)
    fig, axis = plt.subplots(figsize=(4.6, 2.6))
    for fn, name, style in ((ours, "ours", "-"), (yours, "yours", "--")):
        axis.plot(x, fn(x, 0.5, 3, 0, 7), style, label=name)
    axis.set(xlabel="x", ylabel="x on a grid of 3 bits")
    axis.legend(fontsize=8)
    return fig


register_exercise(
    "quantization.round_to_grid",
    title="Round to the grid",
    difficulty=2,
    minutes=6,
    reference=round_to_grid,
    inputs=_grid_inputs,
    wrong={
        "no end": (
            lambda x, scale, zero_point, low, high: scale * torch.round(x / scale),
            "There are only the integers from low to high: what lies outside goes to the nearer "
            "end.",
        ),
        "rounded down": (
            lambda x, scale, zero_point, low, high: (
                scale * ((torch.floor(x / scale) + zero_point).clamp(low, high) - zero_point)
            ),
            "Rounding down is off by up to a whole step and always to the same side. Round to the "
            "nearest.",
        ),
        "zero point forgotten": (
            lambda x, scale, zero_point, low, high: (
                scale * (torch.round(x / scale) + zero_point).clamp(low, high)
            ),
            "On the way back the zero point has to be taken off again: q = zero_point means 0.",
        ),
        "clipped before the shift": (
            lambda x, scale, zero_point, low, high: scale * torch.round(x / scale).clamp(low, high),
            "low and high bound the *stored* integer, and that one has the zero point added.",
        ),
    },
    hints=(
        "Three steps: to steps of the grid (divide, round, add the zero point), into the bounds, "
        "and back.",
        "`torch.round`, then `clamp(low, high)` on the integer that would be stored.",
    ),
    draw=_draw_grid,
    alt="x on a grid of eight values against x, yours and ours",
)

# --- a product of integers ----------------------------------------------------------------------


def integer_product(q_x, z_x, q_w, z_w):
    """sum_k (q_x - z_x)(q_w - z_w) from q_x @ q_w and sums of each: (M, K), (K, N) -> (M, N)."""
    total = q_x @ q_w
    total = total - z_x * q_w.sum(0, keepdim=True)
    total = total - z_w * q_x.sum(1, keepdim=True)
    return total + q_x.shape[1] * z_x * z_w


def _product_inputs():
    generator = torch.Generator().manual_seed(0)

    def integers(low, high, shape):
        return torch.randint(low, high, shape, generator=generator)

    yield torch.tensor([[3, 1]]), 2, torch.tensor([[1], [4]]), 3
    yield integers(0, 256, (3, 5)), 113, integers(-127, 128, (5, 4)), 0
    yield integers(0, 256, (4, 6)), 7, integers(0, 256, (6, 2)), 130
    yield integers(0, 16, (2, 3)), 0, integers(0, 16, (3, 3)), 9


def _without(*terms):
    def product(q_x, z_x, q_w, z_w):
        parts = {
            "w": -z_x * q_w.sum(0, keepdim=True),
            "x": -z_w * q_x.sum(1, keepdim=True),
            "constant": q_x.shape[1] * z_x * z_w,
        }
        return q_x @ q_w + sum(part for name, part in parts.items() if name not in terms)

    return product


register_exercise(
    "quantization.integer_product",
    title="A product of integers",
    difficulty=3,
    minutes=8,
    reference=integer_product,
    inputs=_product_inputs,
    wrong={
        "stored integers alone": (
            _without("w", "x", "constant"),
            "That multiplies the stored integers, in which 0 is not 0. Multiply out "
            "(q_x - z_x)(q_w - z_w): there are four terms.",
        ),
        "no constant": (
            _without("constant"),
            "z_x z_w is taken off twice, once with each sum, and has to be given back: K times.",
        ),
        "constant once": (
            lambda q_x, z_x, q_w, z_w: _without("constant")(q_x, z_x, q_w, z_w) + z_x * z_w,
            "The constant stands in each of the K summands.",
        ),
        "added": (
            lambda q_x, z_x, q_w, z_w: (
                q_x @ q_w
                + z_x * q_w.sum(0, keepdim=True)
                + z_w * q_x.sum(1, keepdim=True)
                + q_x.shape[1] * z_x * z_w
            ),
            "Minus times plus: the two mixed terms are taken off.",
        ),
        "symmetric weights": (
            _without("x", "constant"),
            "Right as long as z_w is 0, which is why weights are quantised symmetrically. The "
            "general case has two terms more.",
        ),
    },
    hints=(
        "Multiply the bracket out under the sum. Which of the four terms need a product of "
        "matrices?",
        "z_x times a sum over each column of q_w, z_w times a sum over each row of q_x, and a "
        "constant that stands in all K summands.",
    ),
)

# --- the straight-through estimator -------------------------------------------------------------


def round_straight_through(x):
    """torch.round(x), whose gradient is that of x."""
    return x + (torch.round(x) - x).detach()


register_exercise(
    "quantization.round_straight_through",
    title="A gradient through a staircase",
    difficulty=3,
    minutes=6,
    reference=round_straight_through,
    inputs=lambda: [
        (torch.tensor([0.2, 1.7]),),
        (torch.tensor([-2.4, -0.6, 0.1, 3.3]),),
        (torch.linspace(-3.3, 3.1, 23),),
    ],
    check_gradients=True,
    wrong={
        "the true derivative": (
            lambda x: torch.round(x) + 0 * x,
            "That is the honest derivative of a staircase: 0 wherever it exists. With it no weight "
            "ever moves.",
        ),
        "no rounding": (
            lambda x: x + (x - x).detach(),
            "The gradient is right, but the numbers are not rounded: nothing is quantised any "
            "more.",
        ),
        "twice the gradient": (
            lambda x: x + torch.round(x).detach() - x.detach() + (x - x.detach()),
            "The gradient passes twice. Only one x may be open to it.",
        ),
        "a soft staircase": (
            lambda x: x - torch.sin(2 * torch.pi * x) / (2 * torch.pi),
            "A smooth curve has a gradient of its own, but its values lie between the integers. "
            "The forward pass must be exactly what the runtime will compute.",
        ),
    },
    hints=(
        "`detach()` makes a constant of a tensor: its value stays, its gradient is gone.",
        "Write round(x) as x plus the rounding error, and make a constant of the error alone.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_WIDTHS = ("8", "7", "6", "4")


def _widest() -> str:
    return str(max(bits for bits in range(2, 9) if pair_sum_fits(bits)))


register_prediction(
    "quantization.pair_sum",
    title="Two products in 16 bits",
    difficulty=2,
    minutes=2,
    question="A processor without VNNI multiplies unsigned 8-bit activations by signed weights and "
    "adds two neighbouring products in 16 bits, cutting off what does not fit. How many bits may a "
    "weight have so that nothing is ever cut off?",
    choices=_WIDTHS,
    answer="7",
    why="2 x 255 x 127 = 64,770 is more than 32,767; 2 x 255 x 63 = 32,130 fits. The eighth bit of "
    "the weights is one too many, and nobody reports that it was cut off.",
    wrong={
        "8": "Multiply the largest activation by the largest weight, twice, and compare with "
        "2^15 - 1.",
        "6": "That fits too, with room to spare: a weight of one bit more still does.",
        "4": "That would fit sixteen products. Two are added before the sum is widened.",
    },
    check=_widest,
)

_PADDING = ("the integer 0", "the zero point", "the middle, 128")


def _padding() -> str:
    """What stored integer a padded place must have for an affine grid whose zero point is 113."""
    scale, zero_point = 0.05, 113
    meanings = {
        "the integer 0": scale * (0 - zero_point),
        "the zero point": scale * (zero_point - zero_point),
        "the middle, 128": scale * (128 - zero_point),
    }
    return next(words for words, value in meanings.items() if value == 0)


register_prediction(
    "quantization.padding",
    title="What to pad with",
    difficulty=1,
    minutes=1,
    question="A convolution pads its input with zeros. The input is stored as unsigned integers "
    "with zero point 113. Which integer stands in the padded places?",
    choices=_PADDING,
    answer="the zero point",
    why="scale * (q - 113) is 0 for q = 113 alone. Padding with the integer 0 puts a frame of the "
    "smallest value around every picture.",
    wrong={
        "the integer 0": "What number does the stored integer 0 mean on this grid?",
        "the middle, 128": "That would be right for a grid that is symmetric about 128. This one "
        "is not.",
    },
    check=_padding,
)
