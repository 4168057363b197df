"""Exercises of notebook 10: a super-layer's slice, dominance, the controller's gradient."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.search.standalone import successive_halving

# --- a super-layer ------------------------------------------------------------------------------


def shared_slice(weight, outputs, inputs, kernel):
    """The first channels and the kernel's centre of weight (O, I, K, K): (outputs, inputs, kernel,
    kernel)."""
    edge = (weight.shape[-1] - kernel) // 2
    return weight[:outputs, :inputs, edge : edge + kernel, edge : edge + kernel]


def _slice_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.randn(3, 2, 3, 3, generator=generator), 2, 1, 1
    yield torch.randn(6, 4, 3, 3, generator=generator), 3, 4, 3
    yield torch.randn(5, 5, 5, 5, generator=generator), 2, 4, 3


register_exercise(
    "nas.shared_slice",
    title="A layer inside a layer",
    difficulty=1,
    minutes=5,
    reference=shared_slice,
    inputs=_slice_inputs,
    wrong={
        "the corner": (
            lambda weight, outputs, inputs, kernel: weight[:outputs, :inputs, :kernel, :kernel],
            "The corner of a 3x3 kernel looks at the neighbour above and to the left. The small "
            "kernel should look where the large one does: take its centre.",
        ),
        "inputs first": (
            lambda weight, outputs, inputs, kernel: weight[
                :inputs, :outputs,
                (weight.shape[-1] - kernel) // 2 : (weight.shape[-1] + kernel) // 2,
                (weight.shape[-1] - kernel) // 2 : (weight.shape[-1] + kernel) // 2,
            ],
            "A convolution's weight is (outputs, inputs, height, width). (A transposed one's is "
            "the other way round.)",
        ),
        "the last channels": (
            lambda weight, outputs, inputs, kernel: weight[
                -outputs:, -inputs:,
                (weight.shape[-1] - kernel) // 2 : (weight.shape[-1] + kernel) // 2,
                (weight.shape[-1] - kernel) // 2 : (weight.shape[-1] + kernel) // 2,
            ],
            "The channels are sorted, the most important first: a narrow layer wants the first.",
        ),
        "all of the kernel": (
            lambda weight, outputs, inputs, kernel: weight[:outputs, :inputs],
            "The channels are right. The kernel should be kernel x kernel: cut its edge off too.",
        ),
    },
    hints=(
        "Four slices: outputs, inputs, rows, columns. How wide is the edge that a smaller kernel "
        "leaves?",
        "edge = (K - kernel) // 2; rows and columns go from edge to edge + kernel.",
    ),
)  # fmt: skip

# --- dominance ----------------------------------------------------------------------------------


def pareto_mask(points):
    """points (N, 2), smaller is better in both: bool (N,), True where no other point dominates."""
    a, b = points[:, None], points[None]  # does b dominate a?
    dominated = (b <= a).all(2) & (b < a).any(2)
    return ~dominated.any(1)


def _pareto_inputs():
    yield torch.tensor([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]])
    yield torch.tensor([[1.0, 3.0], [1.0, 4.0], [2.0, 3.0], [3.0, 1.0], [3.0, 1.0]])
    generator = torch.Generator().manual_seed(1)
    yield torch.rand(12, 2, generator=generator)
    yield torch.randint(0, 5, (14, 2), generator=generator).float()


def _draw_front(yours, ours) -> Figure:
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(3))
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.6), sharey=True)
    for axis, fn, name in zip(axes, (yours, ours), ("yours", "ours"), strict=True):
        mask = fn(points)
        axis.scatter(*points.T, s=14, color="#bbbbbb")
        axis.scatter(*points[mask].T, s=22)
        axis.set(title=name, xlabel="milliseconds")
    axes[0].set_ylabel("distance")
    return fig


register_exercise(
    "nas.pareto_mask",
    title="Who is dominated?",
    difficulty=2,
    minutes=8,
    reference=pareto_mask,
    inputs=_pareto_inputs,
    wrong={
        "better in both": (
            lambda points: ~(points[None] < points[:, None]).all(2).any(1),
            "A point that is as good in one and better in the other dominates too: nobody would "
            "take the other.",
        ),
        "no worse in both": (
            lambda points: (
                ~((points[None] <= points[:, None]).all(2) & ~torch.eye(len(points)).bool()).any(1)
            ),
            "Of two equal points neither dominates the other; you threw both away. Better in at "
            "least one is part of the definition.",
        ),
        "only the ends": (
            lambda points: (points == points.min(0).values).any(1),
            "Those are the fastest and the best. What lies between is a trade-off too, as long as "
            "nothing is at least as good in both.",
        ),
        "larger is better": (
            lambda points: (
                ~(
                    (points[None] >= points[:, None]).all(2)
                    & (points[None] > points[:, None]).any(2)
                ).any(1)
            ),
            "Milliseconds and distance: smaller is better in both.",
        ),
    },
    hints=(
        "Compare all pairs at once: points[:, None] with points[None] is (N, N, 2).",
        "b dominates a if (b <= a) in both and (b < a) in any.",
    ),
    draw=_draw_front,
    alt="Random points with those that nothing dominates marked, yours and ours",
)

# --- the controller's gradient ------------------------------------------------------------------


def policy_step(logits, chosen, reward, baseline):
    """Gradient, with respect to the logits (N,), of (reward - baseline) log p(chosen)."""
    marked = torch.zeros_like(logits)
    marked[chosen] = 1
    return (reward - baseline) * (marked - logits.softmax(0))


def _policy_inputs():
    yield torch.tensor([0.0, 0.0]), 0, 1.0, 0.4
    yield torch.tensor([0.5, -1.0, 2.0]), 1, -0.7, -1.5
    yield torch.tensor([1.5, 0.2, -0.3, 0.9]), 3, 0.2, 0.8


def _step(weight, shares=True, sign=1.0):
    def step(logits, chosen, reward, baseline):
        marked = torch.zeros_like(logits)
        marked[chosen] = 1
        rest = logits.softmax(0) if shares else 0
        return sign * weight(reward, baseline) * (marked - rest)

    return step


register_exercise(
    "nas.policy_step",
    title="The controller learns",
    difficulty=3,
    minutes=10,
    reference=policy_step,
    inputs=_policy_inputs,
    wrong={
        "no baseline": (
            _step(lambda reward, baseline: reward),
            "Right on average, but every choice is pushed up while rewards are positive. What "
            "counts is whether this one was better than usual: subtract the baseline.",
        ),
        "only what was chosen": (
            _step(lambda reward, baseline: reward - baseline, shares=False),
            "log p(chosen) has the softmax's denominator in it: raising one logit must lower the "
            "others' share.",
        ),
        "downhill": (
            _step(lambda reward, baseline: reward - baseline, sign=-1.0),
            "That is the gradient of a loss. The reward is to grow: mind the sign.",
        ),
    },
    hints=(
        "log p(c) = logit_c - log sum exp(logits). Differentiate with respect to each logit.",
        "The derivative is (1 if i is chosen else 0) - p_i; multiply by reward - baseline.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_LUCK = ("about 2 %", "about 33 %", "about 98 %")


def _luck() -> str:
    share = 1 - 0.99**400
    return min(_LUCK, key=lambda c: abs(float(c.split()[1]) / 100 - share))


register_prediction(
    "nas.luck",
    title="Luck",
    difficulty=1,
    minutes=2,
    question="Random search asks 400 times in a space of 2.4 million networks. How likely is it "
    "that at least one of the 400 is among the best 1 % of what it draws from?",
    choices=_LUCK,
    answer="about 98 %",
    why="1 - 0.99^400 = 0.982. The size of the space is nowhere in it. That is why random search "
    "is the baseline to beat, and why beating it means finding what is far better than the best "
    "1 %.",
    wrong={
        "about 2 %": "That is the chance that all 400 miss.",
        "about 33 %": "400 tries of 1 % each are 4 hits expected. How likely is none at all?",
    },
    check=_luck,
)

_COSTS = ("75 %", "30 %", "5 %")


def _halving_cost() -> str:
    spent: dict[int, int] = {}

    def train(candidate: int, updates: int) -> float:
        spent[candidate] = updates
        return float(candidate)

    rungs = successive_halving(range(20), train, first=20)
    return f"{sum(spent.values()) / (20 * rungs[-1].updates):.0%}".replace("%", " %")


register_prediction(
    "nas.halving",
    title="What halving saves",
    difficulty=2,
    minutes=3,
    question="20 candidates train for 20 updates; the better half goes on until it has had 40, its "
    "better half until 80, and the last two until 160. What share is that of the updates that "
    "training all 20 to the end would take?",
    choices=_COSTS,
    answer="30 %",
    why="20 x 20 updates, then 10 x 20 more, 5 x 40 more and 2 x 80 more: 960 of 20 x 160 = 3,200. "
    "Each round adds twice the updates to half the candidates, so that no round costs more than "
    "the first.",
    wrong={
        "75 %": "Half the candidates leave after an eighth of the training, and half of the rest "
        "after a quarter.",
        "5 %": "The first round alone is 20 of 160 updates for everybody.",
    },
    check=_halving_cost,
)
