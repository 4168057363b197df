"""Exercises of notebook 14: seeds of batches, two laws of scaling, gradients put together."""

from __future__ import annotations

from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.models.generator import Generator
from fastgen_course.runtimes.scale_records import amdahl
from fastgen_course.runtimes.shards import Job, draw_shard, plan
from fastgen_course.timing.cost import model_cost

# --- what a worker must know --------------------------------------------------------------------

_WHAT = ("the number of workers", "the pictures in a shard", "the pictures in a batch", "none")


def _what_changes() -> str:
    """Draw one job in four ways with a sampler that is nothing but noise, and compare."""

    def sample(captions, generator):
        return torch.rand(len(captions), 3, 2, 2, generator=generator) * 2 - 1

    def pictures(batch=2, shard=4, workers=1):
        job = Job("noise", None, "0" * 64, 8, batch=batch, shard=shard)
        shards = list(plan(job, iter(map(str, range(8)))))
        turns = [shards[w::workers] for w in range(workers)]  # who draws what, and in which order
        done = {s.index: draw_shard(sample, job, s) for s in chain(*reversed(turns))}
        return np.concatenate([done[index] for index in sorted(done)])

    wanted = pictures()
    others = {
        "the number of workers": pictures(workers=2),
        "the pictures in a shard": pictures(shard=8),
        "the pictures in a batch": pictures(batch=4),
    }
    changed = [name for name, found in others.items() if not np.array_equal(found, wanted)]
    return changed[0] if len(changed) == 1 else "none" if not changed else ", ".join(changed)


register_prediction(
    "scale.what_changes",
    title="Three numbers to choose",
    difficulty=1,
    minutes=2,
    question="Every batch has a seed of its own, made from its number, and is drawn in one call; a "
    "shard is a few whole batches in one file. Which choice changes the pictures, be it one bit?",
    choices=_WHAT,
    answer="the pictures in a batch",
    why="The seed belongs to the batch, and so does the order in which a call adds up its sums. "
    "Who draws a batch, when, and into which file it goes, no picture can tell.",
    wrong={
        "the number of workers": "What would a worker have to know of the others? It is handed a "
        "shard, and the seeds follow from the batches' numbers.",
        "the pictures in a shard": "A larger shard is more batches in one file. Batch 7 is batch "
        "7, wherever it is written.",
        "none": "Batch 0 of 64 pictures uses one seed for all 64 rows of noise. Cut into batches "
        "of 32, the second half gets the seed of batch 1.",
    },
    check=_what_changes,
)


def batch_seeds(run, first, count):
    """Seeds of `count` batches from number `first` on; `run` is the run's own hash: ints < 2^32."""
    return [(run + first + i) % 2**32 for i in range(count)]


register_exercise(
    "scale.batch_seeds",
    title="No two batches alike",
    difficulty=1,
    minutes=5,
    reference=batch_seeds,
    inputs=lambda: [(7, 0, 3), (2**32 - 2, 0, 4), (12345, 8, 4), (6, 3, 3)],
    tolerance=1e-12,  # seeds are whole numbers of ten digits
    wrong={
        "every shard from its own start": (
            lambda run, first, count: [(run + i) % 2**32 for i in range(count)],
            "`first` is not used: every shard begins with the same seeds, and all shards hold the "
            "same noise.",
        ),
        "one seed for all": (
            lambda run, first, count: [run] * count,
            "All batches get one seed, and so the same noise over and over.",
        ),
        "the shard's seed": (
            lambda run, first, count: [(run + first) % 2**32] * count,
            "One seed for a whole shard: its batches repeat each other. The batch is the unit.",
        ),
        "a product": (
            lambda run, first, count: [run * (first + i) % 2**32 for i in range(count)],
            "Multiplied, batch 0 has seed 0 in every run, and an even `run` leaves out half of all "
            "seeds and meets itself again.",
        ),
    },
    alternatives={
        "without the modulus": (
            lambda run, first, count: [run + first + i for i in range(count)],
            "The CPU's generator reads the lowest 32 bits, so yours gives the same noise there. "
            "Not every generator does; the modulus makes the seeds the same everywhere.",
        ),
        "exclusive or": (
            lambda run, first, count: [run ^ (first + i) for i in range(count)],
            "Exclusive or with different numbers gives different seeds as well: right, though "
            "other pictures than with the package's sum.",
        ),
    },
    hints=(
        "Hash once, then count: seeds that follow one another cannot meet before 2^32 of them.",
        "Batch `first + i` gets `run + first + i`, wrapped around at 2^32.",
    ),
)

# --- two laws -----------------------------------------------------------------------------------


def speedup(serial_share, workers):
    """How many times faster `workers` are than one, if a share of the work cannot be divided."""
    return 1 / (serial_share + (1 - serial_share) / workers)


def _draw_law(yours, ours) -> Figure:
    workers = np.geomspace(1, 1000, 60)
    fig, axis = plt.subplots(figsize=(5, 2.6))
    for fn, name, style in ((ours, "ours", "-"), (yours, "yours", "--")):
        axis.plot(workers, [fn(0.05, p) for p in workers], style, label=name)
    axis.set(xscale="log", yscale="log", xlabel="workers", ylabel="times one worker")
    axis.legend(fontsize=8)
    return fig


register_exercise(
    "scale.speedup",
    title="What many workers can give",
    difficulty=1,
    minutes=5,
    reference=speedup,
    inputs=lambda: [(0.5, 2), (0.1, 4), (0.01, 100), (0.0, 8), (0.3, 1)],
    wrong={
        "the time": (
            lambda serial_share, workers: serial_share + (1 - serial_share) / workers,
            "That is the time that is left, in units of one worker's. Asked for is how many times "
            "faster.",
        ),
        "all of it divided": (
            lambda serial_share, workers: float(workers),
            "The serial share is not divided by anybody: however many wait, it takes as long.",
        ),
        "a larger job": (
            lambda serial_share, workers: serial_share + (1 - serial_share) * workers,
            "That is Gustafson's law: how much *more* work they do in the same time. Here the work "
            "is given.",
        ),
        "the parallel part alone": (
            lambda serial_share, workers: (1 - serial_share) * workers,
            "You drop the serial part's time. It stays, and with many workers it is all that is "
            "left.",
        ),
        "the limit": (
            lambda serial_share, workers: 1 / max(serial_share, 1e-9),
            "That is the limit for infinitely many workers.",
        ),
    },
    hints=(
        "Take one worker's time as 1. How much of it is left when the divisible part is shared?",
        "The serial share stays, the rest is divided by the workers; turn the sum upside down.",
    ),
    draw=_draw_law,
    alt="Speed-up against workers for a serial share of 5 %, yours and ours",
)


def serial_share(speedup, workers):
    """The serial share that a measured speed-up amounts to, by the law above read backwards."""
    return (1 / speedup - 1 / workers) / (1 - 1 / workers)


register_exercise(
    "scale.serial_share",
    title="The law read backwards",
    difficulty=2,
    minutes=6,
    reference=serial_share,
    inputs=lambda: [(1.8, 2), (1.0, 2), (3.0, 4), (50.0, 100), (2.2, 2), (8.0, 16)],
    wrong={
        "the lost efficiency": (
            lambda speedup, workers: 1 - speedup / workers,
            "That is the share of the workers' time that is lost. It grows with the workers even "
            "if the serial share stays; what is asked for stays.",
        ),
        "not normalised": (
            lambda speedup, workers: 1 / speedup - 1 / workers,
            "For a speed-up of 1 everything was serial: your formula must give 1 then. Collect "
            "*both* terms with the share.",
        ),
        "infinitely many workers": (
            lambda speedup, workers: 1 / speedup,
            "1 / speed-up is the share only where the parallel part takes no time at all.",
        ),
        "the parallel share": (
            lambda speedup, workers: 1 - (1 / speedup - 1 / workers) / (1 - 1 / workers),
            "That is the share that *was* divided.",
        ),
        "the wrong way round": (
            lambda speedup, workers: (1 / workers - 1 / speedup) / (1 - 1 / workers),
            "The sign: fewer times faster than there are workers means a share above 0.",
        ),
    },
    hints=(
        "Start from 1/S = s + (1 - s)/p and collect the terms with s.",
        "1/S - 1/p = s (1 - 1/p). Divide.",
    ),
)

register_prediction(
    "scale.limit",
    title="A thousand workers",
    difficulty=1,
    minutes=1,
    question="One hundredth of one worker's time cannot be divided. About how many times faster "
    "are a thousand workers than one?",
    choices=("10", "90", "500", "990"),
    answer="90",
    why="The serial hundredth alone allows at most 1 / 0.01 = 100 times, and a thousand workers "
    "have nearly reached that. Nine hundred of them wait.",
    wrong={
        "10": "Ten times would be the limit for a serial tenth.",
        "500": "Look at the serial part alone: it takes a hundredth of the old time, whatever the "
        "others do.",
        "990": "A hundredth less than a thousand is what is lost on a *larger* job in the same "
        "time. For a given job the serial part stays as long as it was.",
    },
    check=lambda: min(("10", "90", "500", "990"), key=lambda n: abs(int(n) - amdahl(0.01, 1000))),
)

# --- gradients from many processes --------------------------------------------------------------


def together(gradients, rows):
    """The whole batch's mean gradient (D,) from the processes' means (P, D) and rows (P,)."""
    return (rows[:, None] * gradients).sum(0) / rows.sum()


def _together_inputs():
    yield torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    for rows in ([3.0, 3.0], [5.0, 2.0], [7.0, 1.0, 4.0]):
        yield torch.randn(len(rows), 4, generator=generator), torch.tensor(rows)


register_exercise(
    "scale.together",
    title="One gradient from many",
    difficulty=2,
    minutes=6,
    reference=together,
    inputs=_together_inputs,
    wrong={
        "a mean of means": (
            lambda gradients, rows: gradients.mean(0),
            "A plain mean counts a process with one row as much as one with seven. Right for equal "
            "shares only.",
        ),
        "a sum of means": (
            lambda gradients, rows: gradients.sum(0),
            "A sum of *means* grows with the number of processes, and the step with it. What may "
            "be summed is each process's sum over its rows, divided by all rows.",
        ),
        "a sum over rows": (
            lambda gradients, rows: (rows[:, None] * gradients).sum(0),
            "That is the sum over all rows; the loss is their mean.",
        ),
        "divided by the processes": (
            lambda gradients, rows: (rows[:, None] * gradients).sum(0) / len(rows),
            "You divide by the number of processes; the mean is over rows.",
        ),
        "weighed the wrong way": (
            lambda gradients, rows: (gradients / rows[:, None]).sum(0) / (1 / rows).sum(),
            "You weigh a process the more, the fewer rows it has.",
        ),
    },
    hints=(
        "A mean times its number of rows is a sum, and sums over disjoint rows add up.",
        "Multiply each row of `gradients` by its `rows`, add, and divide by all rows together.",
    ),
)

# --- the page -----------------------------------------------------------------------------------

_LAUNCHES = ("about as many", "8 times as many", "64 times as many")


def _page_launches() -> str:
    """Operators of one call at batch 1 and at batch 64."""
    with torch.device("meta"):
        model = Generator().eval()
        started = [
            model_cost(
                model,
                (torch.zeros(n, model.config.noise), torch.zeros(n, 10, dtype=torch.int64)),
            ).launches
            for n in (1, 64)
        ]
    times = started[1] / started[0]
    return _LAUNCHES[0] if 0.9 < times < 1.1 else f"{times:.0f} times as many"


register_prediction(
    "scale.page_launches",
    title="Programs in a page",
    difficulty=1,
    minutes=1,
    question="One picture on WebGPU starts a few dozen GPU programs. How many does a call for 64 "
    "pictures start?",
    choices=_LAUNCHES,
    answer="about as many",
    why="A program is started for each operator of the network, and works on all pictures of the "
    "batch (a runtime may choose another program for a larger batch, so that one or two come or "
    "go). At batch 1 the starts weigh most, at batch 64 the arithmetic.",
    wrong={
        "8 times as many": "What would be eight times there? The network has as many layers as "
        "before.",
        "64 times as many": "That is 64 calls for one picture each. A batch is one call.",
    },
    check=_page_launches,
)
