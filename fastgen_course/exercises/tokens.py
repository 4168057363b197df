"""The exercises of notebook 03: the pieces of a codebook, and two predictions."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.models.tokenizer import (
    PIECES,
    move_codes,
    nearest_code,
    perplexity,
    straight_through,
)
from fastgen_course.show import PALETTE

# --- the nearest code ---------------------------------------------------------------------------


def _vectors_and_codes():
    generator = torch.Generator().manual_seed(0)
    # The far code (6, 8) has by far the largest product with z, and is the wrong answer.
    codes = torch.tensor([[1.0, 0.0], [6.0, 8.0], [-1.0, 0.5]])
    yield torch.tensor([[2.0, 1.0]]), codes
    # Nearest by squares, and not by absolute differences: (3, 3) against (5, 0) from the origin.
    yield torch.tensor([[0.0, 0.0], [4.5, 0.2]]), torch.tensor([[5.0, 0.0], [3.0, 3.0]])
    scale = torch.linspace(0.2, 3.0, 7)[:, None]
    yield (
        torch.randn(5, 4, 3, generator=generator),
        scale * torch.randn(7, 3, generator=generator),
    )


def _draw_cells(yours, ours) -> Figure:
    generator = torch.Generator().manual_seed(4)
    codes = torch.randn(7, 2, generator=generator) * torch.linspace(0.4, 1.6, 7)[:, None]
    axis_values = torch.linspace(-2.5, 2.5, 120)
    plane = torch.cartesian_prod(axis_values, axis_values)
    fig, axes = plt.subplots(1, 2, figsize=(6, 3), sharey=True)
    for axis, fn, name in zip(axes, (yours, ours), ("yours", "ours"), strict=True):
        cells = torch.as_tensor(fn(plane, codes)).reshape(120, 120).T
        axis.imshow(cells, origin="lower", extent=(-2.5, 2.5, -2.5, 2.5), cmap="Pastel2")
        axis.plot(codes[:, 0], codes[:, 1], "o", color=PALETTE[0])
        axis.set_title(name)
    return fig


register_exercise(
    "tokens.nearest_code",
    title="The nearest word",
    difficulty=2,
    minutes=8,
    reference=nearest_code,
    inputs=_vectors_and_codes,
    wrong={
        "the largest product": (
            lambda z, codebook: (z @ codebook.T).argmax(-1),
            "The largest inner product prefers long codes, wherever they point from: the term "
            "||e||^2 is missing.",
        ),
        "the farthest": (
            lambda z, codebook: torch.cdist(z, codebook.expand(*z.shape[:-2], -1, -1)).argmax(-1),
            "This is the farthest code of all: `argmin`, not `argmax`.",
        ),
        "the product's sign": (
            lambda z, codebook: (codebook.square().sum(1) + 2 * z @ codebook.T).argmin(-1),
            "||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2: the product enters with a minus. You find "
            "the code nearest to -z.",
        ),
        "the product once": (
            lambda z, codebook: (codebook.square().sum(1) - z @ codebook.T).argmin(-1),
            "The product counts twice in ||z - e||^2. With half of it, short codes win too often: "
            "you find the code nearest to z / 2.",
        ),
        "absolute differences": (
            lambda z, codebook: (z[..., None, :] - codebook).abs().sum(-1).argmin(-1),
            "That is the nearest by the sum of absolute differences. The loss is squared error, "
            "and squares are what the mean of a cluster minimises.",
        ),
    },
    hints=(
        "You may take all differences z[..., None, :] - codebook; or expand the square, "
        "||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2, and drop what is the same for every code.",
        "`codebook.square().sum(1) - 2 * z @ codebook.T` has shape (..., K); `argmin(-1)` of it.",
    ),
    draw=_draw_cells,
    alt="The plane coloured by the code chosen at each point, your function beside the reference",
)


# --- straight through ---------------------------------------------------------------------------


def _pairs():
    generator = torch.Generator().manual_seed(1)
    yield torch.tensor([0.8, -0.3]), torch.tensor([1.0, 0.0])
    yield tuple(torch.randn(2, 5, 3, generator=generator))


register_exercise(
    "tokens.straight_through",
    title="A gradient for a choice",
    difficulty=3,
    minutes=8,
    reference=straight_through,
    inputs=_pairs,
    wrong={
        "the code alone": (
            lambda z, z_q: z_q.detach() + 0 * z,
            "The value is right, but no gradient reaches z: the encoder would never learn.",
        ),
        "the code's gradient": (
            lambda z, z_q: z_q + 0 * z,
            "The value is right, but the gradient goes to z_q. The encoder's output is z.",
        ),
        "the vector alone": (
            lambda z, z_q: z + 0 * z_q.detach(),
            "The gradient is right, but the value is z: the decoder never sees a code, and all "
            "that it learns is about vectors it will not get.",
        ),
        "the wrong one detached": (
            lambda z, z_q: z_q + (z - z_q).detach(),
            "Turned round: this has the value of z and the gradient of z_q.",
        ),
        "both get it": (
            lambda z, z_q: z_q + z - z.detach(),
            "z gets its gradient, but so does z_q: the decoder's loss would move the codebook "
            "too. That is another model; here the codebook has a rule of its own.",
        ),
    },
    hints=(
        "Write z + (z_q - z): its value is z_q. Which part must not be differentiated?",
        "`.detach()` keeps a value and drops its gradient. Put it on the bracket.",
    ),
    check_gradients=True,
)


# --- the codebook's update ----------------------------------------------------------------------


def _batches():
    generator = torch.Generator().manual_seed(2)
    yield (
        torch.tensor([2.0, 1.0]),
        torch.tensor([[2.0, 4.0], [0.0, 1.0]]),
        torch.tensor([[3.0, 3.0], [5.0, 1.0], [-1.0, 0.0]]),
        torch.tensor([0, 0, 1]),
        0.5,
    )
    counts = torch.rand(6, generator=generator) + 0.5
    yield (
        counts,
        counts[:, None] * torch.randn(6, 3, generator=generator),
        torch.randn(20, 3, generator=generator),
        torch.randint(0, 5, (20,), generator=generator),  # nobody chooses the last code
        0.9,
    )


def _mean_of_means(counts, sums, z, tokens, decay):
    new_counts, new_sums, _ = move_codes(counts, sums, z, tokens, decay)
    n = torch.bincount(tokens, minlength=len(counts)).to(z)[:, None]
    batch_mean = torch.zeros_like(sums).index_add(0, tokens, z) / n.clamp(min=1)
    old = sums / counts[:, None]
    codes = torch.where(n > 0, decay * old + (1 - decay) * batch_mean, old)
    return new_counts, new_sums, codes


def _not_divided(counts, sums, z, tokens, decay):
    counts, sums, _ = move_codes(counts, sums, z, tokens, decay)
    return counts, sums, sums


def _old_counts(counts, sums, z, tokens, decay):
    new_counts, new_sums, _ = move_codes(counts, sums, z, tokens, decay)
    return new_counts, new_sums, new_sums / counts[:, None]


def _added_up(counts, sums, z, tokens, decay):
    n = torch.bincount(tokens, minlength=len(counts)).to(z)
    counts = decay * counts + n
    sums = decay * sums + torch.zeros_like(sums).index_add(0, tokens, z)
    return counts, sums, sums / counts.clamp(min=1e-6)[:, None]


register_exercise(
    "tokens.move_codes",
    title="One update of the codebook",
    difficulty=3,
    minutes=12,
    reference=move_codes,
    inputs=_batches,
    wrong={
        "decay on the wrong side": (
            lambda counts, sums, z, tokens, decay: move_codes(counts, sums, z, tokens, 1 - decay),
            "`decay` is what is kept of the old average, close to 1; the batch enters with "
            "1 - decay.",
        ),
        "an average of averages": (
            _mean_of_means,
            "Counts and sums are right, but the codes average the batches' *means*: one lucky "
            "vector in a poor batch then weighs as much as fifty in a rich one. Divide the "
            "running sum by the running count.",
        ),
        "sums left undivided": (
            _not_divided,
            "A code is the mean of its vectors: divide the running sum by the running count.",
        ),
        "the old counts": (
            _old_counts,
            "The new sums are divided by the old counts; both must be of the same moment.",
        ),
    },
    alternatives={
        "without the factor": (
            _added_up,
            "You add the whole batch where the paper adds (1 - decay) of it. Counts and sums are "
            "1 / (1 - decay) times larger in the long run, and the codes, their quotient, agree.",
        ),
    },
    hints=(
        "`torch.bincount(tokens, minlength=K)` counts who chose what; "
        "`torch.zeros_like(sums).index_add(0, tokens, z)` adds up their vectors.",
        "new = decay * old + (1 - decay) * batch, for counts and for sums; codes = sums / "
        "counts[:, None].",
    ),
)


# --- predictions --------------------------------------------------------------------------------


def _where_it_settles() -> str:
    """Follow the straight-through gradient of (z_q - 0.9)^2 with codes at 0 and 1."""
    codes, z, late = torch.tensor([[0.0], [1.0]]), torch.tensor([0.8]), []
    for step in range(4000):
        z.requires_grad_(True)
        z_q = codes[PIECES.nearest(z[None], codes)][0]
        loss = (straight_through(z, z_q) - 0.9).square().sum()
        (slope,) = torch.autograd.grad(loss, z)
        z = (z - 0.005 * slope).detach()
        late += [z.item()] if step > 2000 else []
    where = sum(late) / len(late)
    ends = {"0.8, it never moves": 0.8, "0.9": 0.9, "1": 1.0, "0.5": 0.5}
    near = [name for name, value in ends.items() if abs(where - value) < 0.02]
    return near[0] if near else f"{where:.3f}"


register_prediction(
    "tokens.where_it_settles",
    title="Down the straight-through slope",
    difficulty=3,
    minutes=3,
    question=(
        "Two codes, 0 and 1. The encoder says z = 0.8, so the decoder gets the code 1; the loss is "
        "(z_q - 0.9)^2. Follow the straight-through gradient with small steps, and nothing else "
        "(no commitment loss). Around which value does z end up?"
    ),
    choices=("0.8, it never moves", "0.9", "1", "0.5"),
    answer="0.5",
    why=(
        "At z_q = 1 the slope is 2 (1 - 0.9) > 0 *wherever z is*: z walks down until it crosses "
        "the border at 0.5. There z_q becomes 0, the slope 2 (0 - 0.9) < 0 throws it back, and so "
        "on: it is stuck at the border, and its word flickers."
    ),
    wrong={
        "0.8, it never moves": (
            "That is the true gradient: 0, since moving z a little changes no code. Straight-"
            "through reports the slope at z_q instead, which is not 0."
        ),
        "0.9": "The loss is taken at z_q, which is 0 or 1 and never 0.9; z feels no pull to 0.9.",
        "1": "z_q = 1 is the better code, but its slope pushes z away from it: 1 > 0.9.",
    },
    check=_where_it_settles,
)


def _one_common_word() -> str:
    """Perplexity of 512 words, one of which fills half of all places, the others alike."""
    others = torch.arange(1, 512)
    tokens = torch.cat([torch.zeros(len(others), dtype=torch.int64), others])
    value = perplexity(tokens, 512)
    assert math.isclose(value, 2 * math.sqrt(511), rel_tol=1e-9)
    return min(("2", "45", "256", "512"), key=lambda choice: abs(float(choice) - value))


register_prediction(
    "tokens.perplexity",
    title="One common word",
    difficulty=2,
    minutes=2,
    question=(
        "All 512 words are in use. One of them (say, plain background) fills half of all places, "
        "the other 511 share the other half evenly. What is the perplexity?"
    ),
    choices=("2", "45", "256", "512"),
    answer="45",
    why=(
        "The entropy is ln 2 / 2 + (ln 2 + ln 511) / 2 = ln(2 sqrt(511)), and its exponential "
        "2 sqrt(511) = 45.2: the geometric, not the arithmetic, mean of 1 / share."
    ),
    wrong={
        "2": "That would be two words, half and half; what the 511 tell apart counts too.",
        "256": "Half of the codebook? Entropy averages *logarithms* of shares.",
        "512": "That is the number of words used at all. Perplexity is 512 for even use alone.",
    },
    check=_one_common_word,
)
