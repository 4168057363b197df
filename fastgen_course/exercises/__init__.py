'''Exercises that answer at once, and predictions that gate a result.

For readers: `exercise`, `predict`, `hints`, `header`, `progress`, `strict`, `remember`.

For authors. A notebook's exercises live in a module here named as in `registry.NOTEBOOKS`
(`start.py`, `gan.py`, `vae.py`); ids are "gan.name". The module is imported when a notebook
first uses one of its ids. It registers three or more items, at least one a prediction:

    import torch

    from fastgen_course.exercises.registry import register_exercise, register_prediction


    def optimal_discriminator(p_data, p_model):
        """D*(x) for densities given as tensors of one shape."""
        return p_data / (p_data + p_model)


    def _inputs():
        generator = torch.Generator().manual_seed(0)
        yield torch.tensor([0.2]), torch.tensor([0.6])
        yield tuple(torch.rand(2, 50, generator=generator) + 0.05)


    def _draw(yours, ours):                       # optional: a matplotlib Figure
        x = torch.linspace(-4, 4, 200)
        p, q = torch.exp(-((x - 1) ** 2) / 2), torch.exp(-((x + 1) ** 2) / 2)
        fig, axes = plt.subplots(1, 2, figsize=(7, 2.5), sharey=True)
        for axis, fn, name in zip(axes, (yours, ours), ("yours", "ours"), strict=True):
            axis.plot(x, fn(p, q))
            axis.set_title(name)
        return fig


    register_exercise(
        "gan.optimal_discriminator",
        title="The best discriminator",
        difficulty=2,                             # 1 to 5
        minutes=5,
        reference=optimal_discriminator,          # its source is the solution readers unfold
        inputs=_inputs,                           # tuples of arguments; sorted, smallest first
        wrong={                                   # name -> (what such a reader wrote, hint)
            "the model's share": (
                lambda p_data, p_model: p_model / (p_data + p_model),
                "That is the probability that x came from the *model*. D says: from the data.",
            ),
            "the odds": (
                lambda p_data, p_model: p_data / p_model,
                "That is the odds D / (1 - D), which leaves [0, 1]. Solve for D.",
            ),
        },
        hints=(
            "Maximise p log D + q log(1 - D) for one x at a time.",
            "Set the derivative p / D - q / (1 - D) to zero.",
        ),
        draw=_draw,
    )

    register_prediction(
        "gan.loss_at_equilibrium",
        title="What D's loss tells",
        difficulty=1,
        minutes=1,
        question="The generator has become perfect. What is D's loss (the sum of its two terms)?",
        choices=("0", "ln 2", "2 ln 2"),
        answer="2 ln 2",
        why="D* is 1/2 everywhere, and each of the two terms is ln 2.",
        wrong={
            "0": "A loss of 0 means that D is always right: the generator is hopeless.",
            "ln 2": "That is one of the two terms, the one for data or the one for samples.",
        },
        check=lambda: "2 ln 2" if abs(2 * bce(0.5) - 2 * math.log(2)) < 1e-6 else "?",
    )

In the notebook, one cell each:

    header("gan.optimal_discriminator")

    @exercise("gan.optimal_discriminator")
    def optimal_discriminator(p_data, p_model):
        """D*(x) for densities given as tensors of one shape."""
        ...  # your turn

    hints("gan.optimal_discriminator")            # two hints and the solution, folded

    predict("gan.loss_at_equilibrium", ["0", "ln 2", "2 ln 2"], result=plot_losses)

    progress("gan")                               # last cell

From the exercise's cell on, `optimal_discriminator` is the reader's function if it runs, else the
reference: use it, by passing it to the package (`train(..., discriminator=...)`). A cross-check
that holds for right code only stands under `if status("gan.optimal_discriminator") != "wrong":`.

What is judged for you, without registering anything: None or `...` returned, exceptions, the time
limit, type, shape, dtype, NaN, sign, a constant factor, sum for mean, swapped arguments, a
transposition, an argument never read, an input changed in place, an answer that is random. What
only you know are the misconceptions of the subject: register those, each with a hint that names
the idea (not the code). Two implementations that no input tells apart are refused on import.

More of `register_exercise`: `alternatives={"mean": (fn, note)}` passes and tells the note;
`check_gradients=True` compares gradients with respect to all float tensors and to the parameters
of modules among the arguments; `call=lambda candidate, *args: ...` judges a class or a property;
`Case(args, label="an empty batch")` names an input, and may make the reference raise; randomness
comes in as an argument (a tensor of noise, or a `torch.Generator`, copied for each call).
`is_live()` tells other widgets whether somebody may press their buttons: a runner leaves dead
views in a committed notebook.

`python -m fastgen_course.exercises.student` writes the notebooks without solutions to `student/`.
`fastgen_course.exercises.testing` holds the battery that the tests run on every registered item.
'''

from .core import (
    exercise,
    forget,
    header,
    hint,
    hints,
    progress,
    remember,
    solution,
    status,
    strict,
)
from .prediction import predict
from .registry import (
    NOTEBOOKS,
    ExerciseError,
    register_exercise,
    register_prediction,
    registered,
)
from .render import is_live
from .run import Case

__all__ = [
    "NOTEBOOKS",
    "Case",
    "ExerciseError",
    "exercise",
    "forget",
    "header",
    "hint",
    "hints",
    "is_live",
    "predict",
    "progress",
    "register_exercise",
    "register_prediction",
    "registered",
    "remember",
    "solution",
    "status",
    "strict",
]
