"""Exercises of notebook 13: what regression learns, a gradient of softened shares, T squared."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction

# --- what regression learns -----------------------------------------------------------------------


def best_table(x, y, classes):
    """The table (classes, D) whose row y_i is nearest to x_i on average: x (N, D), y int64 (N,)."""
    rows = torch.zeros(classes, x.shape[1])
    for label in range(classes):
        rows[label] = x[y == label].mean(0)
    return rows


def _table_inputs():
    generator = torch.Generator().manual_seed(0)
    yield torch.tensor([[0.0], [1.0], [5.0], [8.0]]), torch.tensor([0, 0, 0, 1]), 2
    yield (
        torch.tensor([[0.0, 1.0], [0.0, 2.0], [9.0, 0.0], [4.0, 4.0], [6.0, -2.0]]),
        torch.tensor([0, 0, 0, 1, 1]),
        2,
    )
    x = torch.randn(30, 4, generator=generator).exp()
    yield x, torch.arange(30) % 3, 3


def _draw_table(yours, ours) -> Figure:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 1, generator=generator).exp()
    y = torch.zeros(200, dtype=torch.int64)
    fig, axis = plt.subplots(figsize=(4.6, 2.4))
    axis.hist(x[:, 0].numpy(), bins=40, color="#BBBBBB")
    for fn, name, style in ((ours, "ours", "-"), (yours, "yours", "--")):
        axis.axvline(float(fn(x, y, 1)[0, 0]), ls=style, color="k", label=name)
    axis.set(xlabel="x", ylabel="how often")
    axis.legend(fontsize=8)
    return fig


register_exercise(
    "distillation.best_table",
    title="What regression learns",
    difficulty=2,
    minutes=6,
    reference=best_table,
    inputs=_table_inputs,
    wrong={
        "median": (
            lambda x, y, classes: torch.stack(
                [x[y == label].median(0).values for label in range(classes)]
            ),
            "The median is nearest in *absolute* distance. Here distances are squared: set the "
            "derivative of sum (t - x_i)^2 to 0.",
        ),
        "all captions together": (
            lambda x, y, classes: x.mean(0).expand(classes, -1).clone(),
            "The table may look at y: each caption has a row of its own.",
        ),
        "divided by everybody": (
            lambda x, y, classes: torch.stack(
                [x[y == label].sum(0) / len(x) for label in range(classes)]
            ),
            "Divide by how many pictures *this* caption has, not by how many there are.",
        ),
        "the last one": (
            lambda x, y, classes: torch.stack([x[y == label][-1] for label in range(classes)]),
            "That remembers one picture of each caption. It is right for that one, and far from "
            "the others.",
        ),
    },
    hints=(
        "One caption at a time: which t makes sum over i of |t - x_i|^2 least? Differentiate by t.",
        "2 sum (t - x_i) = 0, so t is the mean of the x_i. `x[y == label].mean(0)`.",
    ),
    draw=_draw_table,
    alt="A histogram of skewed numbers with your answer and ours as vertical lines",
)

# --- the gradient of softened shares --------------------------------------------------------------


def softened_gradient(student, teacher, temperature):
    """d KL(p_T || q_T) / d student for logits (K,): p_T, q_T = softmax(teacher, student / T)."""
    p = (teacher / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)
    return (q - p) / temperature


def _logit_inputs():
    generator = torch.Generator().manual_seed(2)
    yield torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]), 2.0
    yield torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, -1.0]), 0.5
    student, teacher = torch.randn(2, 8, generator=generator)
    yield 2 * student, 2 * teacher, 4.0
    yield student, 3 * teacher, 1.0


register_exercise(
    "distillation.softened_gradient",
    title="The gradient of softened shares",
    difficulty=3,
    minutes=8,
    reference=softened_gradient,
    inputs=_logit_inputs,
    wrong={
        "no chain rule": (
            lambda student, teacher, temperature: (
                (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
            ),
            "q - p is the derivative by student / T. By the student's logits themselves the chain "
            "rule brings another factor.",
        ),
        "the wrong way": (
            lambda student, teacher, temperature: (
                ((teacher / temperature).softmax(-1) - (student / temperature).softmax(-1))
                / temperature
            ),
            "The sign is turned: where the student gives too much, the loss *rises* with its "
            "logit.",
        ),
        "one temperature": (
            lambda student, teacher, temperature: (
                (student.softmax(-1) - (teacher / temperature).softmax(-1)) / temperature
            ),
            "Both shares are softened, the student's too, or it would imitate a distribution that "
            "is not the teacher's.",
        ),
        "already times T squared": (
            lambda student, teacher, temperature: (
                temperature
                * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1))
            ),
            "That is the gradient of T^2 KL. Without the factor it is smaller by T^2.",
        ),
    },
    hints=(
        "For T = 1 cross-entropy has the well-known gradient q - p. What does the division of the "
        "logits by T change?",
        "Twice: p and q become p_T and q_T, and the chain rule gives 1 / T.",
    ),
)

# --- the response loss ----------------------------------------------------------------------------


def response_loss(student, teacher, temperature):
    """T^2 KL(p_T || q_T), the mean over rows of logits (N, K): a scalar."""
    p = (teacher / temperature).log_softmax(-1)
    q = (student / temperature).log_softmax(-1)
    return temperature**2 * (p.exp() * (p - q)).sum(-1).mean()


def _rows_inputs():
    generator = torch.Generator().manual_seed(3)
    yield torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]]), 2.0
    student, teacher = torch.randn(2, 3, 5, generator=generator)
    yield student, teacher, 3.0
    yield 2 * student, 3 * teacher, 0.7


def _kl(p, q):
    return (p.exp() * (p - q)).sum(-1).mean()


def _soft(logits, temperature):
    return (logits / temperature).log_softmax(-1)


register_exercise(
    "distillation.response_loss",
    title="A teacher's shares as a loss",
    difficulty=3,
    minutes=6,
    reference=response_loss,
    inputs=_rows_inputs,
    check_gradients=True,
    wrong={
        "no T squared": (
            lambda student, teacher, temperature: _kl(
                _soft(teacher, temperature), _soft(student, temperature)
            ),
            "Without T^2 the gradient shrinks when T grows, and beside the tokens' own loss "
            "nothing would be left of the teacher's.",
        ),
        "T once": (
            lambda student, teacher, temperature: (
                temperature * _kl(_soft(teacher, temperature), _soft(student, temperature))
            ),
            "One T comes from the chain rule, the other from the shares, which flatten as T grows. "
            "Both must be put back.",
        ),
        "the other direction": (
            lambda student, teacher, temperature: (
                temperature**2 * _kl(_soft(student, temperature), _soft(teacher, temperature))
            ),
            "That is KL(q || p): the mean under the *student's* shares. The teacher says what is "
            "likely, so the mean is under p.",
        ),
        "mean over classes": (
            lambda student, teacher, temperature: (
                temperature**2
                * F.kl_div(
                    _soft(student, temperature),
                    _soft(teacher, temperature),
                    log_target=True,
                    reduction="mean",
                )
            ),
            "`F.kl_div(..., reduction='mean')` divides by the classes too. Sum over classes, mean "
            "over rows: `reduction='batchmean'`.",
        ),
    },
    alternatives={
        "sum over rows": (
            lambda student, teacher, temperature: (
                len(student)
                * temperature**2
                * _kl(_soft(teacher, temperature), _soft(student, temperature))
            ),
            "The sum over rows, where ours is the mean: the same up to the learning rate, which "
            "then depends on the batch.",
        ),
    },
    hints=(
        "Two log_softmax, one sum over classes, one mean over rows, one factor.",
        "KL(p || q) = sum p (log p - log q), p the teacher's; then times T^2.",
    ),
)

# --- predictions ----------------------------------------------------------------------------------

_SHARES = ("as far apart as two real ones", "about half as far", "almost on top of each other")


def _apart() -> str:
    """Regress x = mean(y) + spread on (z, y) with z unrelated to x, then draw twice."""
    generator = torch.Generator().manual_seed(4)
    z, x = torch.randn(2, 20_000, generator=generator, dtype=torch.float64)
    features = torch.stack([z, torch.ones_like(z)], 1)
    slope = torch.linalg.lstsq(features, x[:, None]).solution[0, 0].abs()
    share = float(slope * z.std() / x.std())
    return _SHARES[0] if share > 0.75 else _SHARES[1] if share > 0.25 else _SHARES[2]


register_prediction(
    "distillation.uncoupled",
    title="Two drawings of one caption",
    difficulty=2,
    minutes=2,
    question="A generator is regressed on real pictures: for random noise z and a caption y it is "
    "pulled, by squared distance, towards a photograph of that caption that has nothing to do with "
    "z. Afterwards it draws the same caption from two different z. How far apart are the two "
    "drawings?",
    choices=_SHARES,
    answer=_SHARES[2],
    why="The best answer to (z, y) is E[x | z, y], and with z unrelated to x that is E[x | y]: the "
    "same picture for every z.",
    wrong={
        _SHARES[0]: "Variety would have to come from z. Does z say anything about which photograph "
        "will be the target?",
        _SHARES[1]: "What would half of the variety be worth to the squared distance? Every step "
        "away from the mean costs.",
    },
    check=_apart,
)

_FALLS = ("to a half", "to a quarter", "to an eighth", "not at all")


def _fall() -> str:
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 200, 64, generator=generator, dtype=torch.float64)
    lengths = [
        float(softened_gradient(student, teacher, t).norm(dim=-1).mean()) for t in (16.0, 32.0)
    ]
    ratio = lengths[1] / lengths[0]
    return min(zip((1 / 2, 1 / 4, 1 / 8, 1), _FALLS, strict=True), key=lambda p: abs(p[0] - ratio))[
        1
    ]


register_prediction(
    "distillation.temperature",
    title="Doubling the temperature",
    difficulty=2,
    minutes=2,
    question="T is large, and it is doubled. The gradient of KL(p_T || q_T) by the student's "
    "logits falls:",
    choices=_FALLS,
    answer="to a quarter",
    why="(q_T - p_T) / T: one factor 1/T stands there, the other hides in q_T - p_T, since both "
    "shares are within 1/T of uniform.",
    wrong={
        "to a half": "The chain rule's 1/T is one factor. What happens to q_T - p_T meanwhile?",
        "to an eighth": "Two factors of 1/T are there, not three.",
        "not at all": "That is what the factor T^2 is for.",
    },
    check=_fall,
)
