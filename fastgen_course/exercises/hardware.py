"""Exercises of notebook 09: the roofline, a GPU's time predicted, when launches stop mattering."""

from __future__ import annotations

import math
import threading

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.models.generator import Generator
from fastgen_course.runtimes.queued_device import QueuedDevice
from fastgen_course.timing.cost import model_cost
from fastgen_course.timing.roofline import limit_of

# --- the roofline -------------------------------------------------------------------------------


def attainable(intensity, peak, bandwidth):
    """The most FLOP/s at an intensity in FLOPs a byte, given the peaks of both: tensors."""
    return torch.minimum(peak, intensity * bandwidth)


def _roof_inputs():
    peak, bandwidth = torch.tensor(50.0), torch.tensor(10.0)
    yield torch.tensor([0.5]), peak, bandwidth
    yield torch.tensor([0.1, 1.0, 4.0, 8.0, 100.0]), peak, bandwidth
    yield torch.tensor([2.0, 30.0]), torch.tensor(8000.0), torch.tensor(300.0)


def _draw_roof(yours, ours) -> Figure:
    across = torch.logspace(-1, 2, 60)
    fig, axis = plt.subplots(figsize=(5, 2.6))
    for fn, name, style in ((ours, "ours", "-"), (yours, "yours", "--")):
        axis.plot(across, fn(across, torch.tensor(50.0), torch.tensor(10.0)), style, label=name)
    axis.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="FLOP/s")
    axis.legend(fontsize=8)
    return fig


register_exercise(
    "hardware.attainable",
    title="The roof",
    difficulty=1,
    minutes=4,
    reference=attainable,
    inputs=_roof_inputs,
    wrong={
        "the higher one": (
            lambda intensity, peak, bandwidth: torch.maximum(peak, intensity * bandwidth),
            "You took the higher of the two. Both are limits, and the stricter one holds.",
        ),
        "memory alone": (
            lambda intensity, peak, bandwidth: intensity * bandwidth,
            "That line rises for ever. With enough FLOPs a byte the arithmetic is what limits.",
        ),
        "peak alone": (
            lambda intensity, peak, bandwidth: peak + 0 * intensity,
            "That is the peak for everybody. What reads a byte for each FLOP waits for memory.",
        ),
        "one after the other": (
            lambda intensity, peak, bandwidth: 1 / (1 / peak + 1 / (intensity * bandwidth)),
            "You add the two times, as if nothing were computed while data arrive. The roof lets "
            "them overlap: it is a limit, not an estimate.",
        ),
        "bytes a FLOP": (
            lambda intensity, peak, bandwidth: torch.minimum(peak, bandwidth / intensity),
            "Check the units: FLOPs a byte times bytes a second are FLOPs a second.",
        ),
    },
    hints=(
        "Two limits: the arithmetic's own, and what memory can feed it. FLOPs a byte times bytes a "
        "second has the unit of the first.",
        "The smaller of `peak` and `intensity * bandwidth`, entry by entry.",
    ),
    draw=_draw_roof,
    alt="Attainable FLOP/s against FLOPs a byte on logarithmic axes, yours and ours",
)

# --- a GPU that is not here ---------------------------------------------------------------------


def gpu_ms(launches, flops, bytes_moved, peak, bandwidth, t_launch):
    """Predicted milliseconds of one call; peak in FLOP/s, bandwidth in bytes/s, t_launch in s."""
    return 1000 * (launches * t_launch + max(flops / peak, bytes_moved / bandwidth))


register_exercise(
    "hardware.gpu_ms",
    title="Predict a card",
    difficulty=2,
    minutes=6,
    reference=gpu_ms,
    inputs=lambda: [
        (44, 5e7, 1e7, 8e12, 3e11, 1e-5),
        (44, 3.2e9, 6e8, 8e12, 3e11, 1e-5),
        (10, 8e12, 3e11, 8e12, 6e11, 1e-3),
        (2, 1e9, 3e11, 1e13, 1e12, 5e-6),
    ],
    wrong={
        "arithmetic plus memory": (
            lambda launches, flops, bytes_moved, peak, bandwidth, t_launch: (
                1000 * (launches * t_launch + flops / peak + bytes_moved / bandwidth)
            ),
            "You add arithmetic and memory. A GPU computes while it fetches, so the longer of the "
            "two counts.",
        ),
        "the largest of three": (
            lambda launches, flops, bytes_moved, peak, bandwidth, t_launch: (
                1000 * max(launches * t_launch, flops / peak, bytes_moved / bandwidth)
            ),
            "You let launches hide behind work. They may, when kernels are long; the course's "
            "prediction is the cautious one, launches *plus* work.",
        ),
        "one launch": (
            lambda launches, flops, bytes_moved, peak, bandwidth, t_launch: (
                1000 * (t_launch + max(flops / peak, bytes_moved / bandwidth))
            ),
            "Every kernel has to be started: `launches` times.",
        ),
        "seconds": (
            lambda launches, flops, bytes_moved, peak, bandwidth, t_launch: (
                launches * t_launch + max(flops / peak, bytes_moved / bandwidth)
            ),
            "That is in seconds; asked for are milliseconds.",
        ),
        "no launches": (
            lambda launches, flops, bytes_moved, peak, bandwidth, t_launch: (
                1000 * max(flops / peak, bytes_moved / bandwidth)
            ),
            "That is the roofline alone: right for long kernels, and for a small network it leaves "
            "out nearly everything.",
        ),
    },
    hints=(
        "Three times: all launches, the arithmetic at its peak, the bytes at the bandwidth. Two of "
        "them overlap.",
        "launches times t_launch, plus the larger of the other two; then thousandths of a second.",
    ),
)

# --- the batch at which launches stop mattering --------------------------------------------------


def crossover_batch(launches, t_launch, flops_an_image, peak):
    """The smallest batch whose arithmetic takes at least as long as the launches: an int."""
    return max(1, math.ceil(launches * t_launch * peak / flops_an_image))


register_exercise(
    "hardware.crossover_batch",
    title="When launches stop mattering",
    difficulty=2,
    minutes=6,
    reference=crossover_batch,
    inputs=lambda: [
        (44, 1e-5, 5e7, 8e12),
        (100, 2e-5, 3e8, 1.9e13),
        (10, 5e-6, 1e9, 8e12),
        (3, 1e-5, 7e6, 1e12),
    ],
    wrong={
        "rounded down": (
            lambda launches, t_launch, flops_an_image, peak: max(
                1, math.floor(launches * t_launch * peak / flops_an_image)
            ),
            "Rounded down, the arithmetic is still a little shorter than the launches.",
        ),
        "one launch": (
            lambda launches, t_launch, flops_an_image, peak: max(
                1, math.ceil(t_launch * peak / flops_an_image)
            ),
            "You compare with a single launch; every kernel of the call has to be started.",
        ),
        "launches for each image": (
            lambda launches, t_launch, flops_an_image, peak: max(
                1, math.ceil(launches**2 * t_launch * peak / flops_an_image)
            ),
            "The number of launches does not depend on the batch, and counts once: a kernel "
            "works on all images.",
        ),
    },
    hints=(
        "The launches take launches * t_launch whatever the batch is; the arithmetic of B images "
        "takes B * flops_an_image / peak.",
        "Solve for B, round up, and never go below 1.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_CLOCK = ("ten times as long", "about the same", "nothing: the call fails")


def _naive_clock() -> str:
    """A launch comes back while its kernel cannot possibly have ended."""
    for _ in range(2):  # a short kernel and a long one: this one ends when we say so
        may_end = threading.Event()
        with QueuedDevice() as device:
            device.launch(may_end.wait)
            back_before_the_end = device.finished == 0
            may_end.set()
        if not back_before_the_end:
            return "ten times as long"
    return "about the same"


register_prediction(
    "hardware.naive_clock",
    title="A clock beside a queue",
    difficulty=1,
    minutes=1,
    question="A call on a GPU is timed by reading the clock before and after it, nothing else. Now "
    "the same single kernel is given ten times the work. What does the clock show?",
    choices=_CLOCK,
    answer="about the same",
    why="The call puts the kernel into the device's queue and returns; the clock shows how long "
    "queueing took. The work is done later, and is found in whatever first waits for a result.",
    wrong={
        "ten times as long": "It would, if the call waited for the device. What does the call "
        "return, and when is its value needed?",
        "nothing: the call fails": "It succeeds, and the result will be right. Only the time is "
        "not.",
    },
    check=_naive_clock,
)

_LIMITS = {
    "starting kernels": "launches",
    "arithmetic": "arithmetic",
    "memory": "memory",
}


def _launch_bound() -> str:
    with torch.device("meta"):
        model = Generator().eval()
        words = torch.zeros(1, 10, dtype=torch.int64)
        cost = model_cost(model, (torch.zeros(1, model.config.noise), words))
    limit = limit_of(cost, "T4")
    return next(words for words, name in _LIMITS.items() if name == limit)


register_prediction(
    "hardware.launch_bound",
    title="One picture on a T4",
    difficulty=2,
    minutes=2,
    question="GENERATOR_BASE draws one picture on a T4. What will most of the time be spent on?",
    choices=tuple(_LIMITS),
    answer="starting kernels",
    why="One forward is a few dozen kernels, each of which takes microseconds to start and, with "
    "one small picture to work on, a fraction of that to run. A larger batch costs nearly nothing "
    "until its work has caught up with the launches.",
    wrong={
        "arithmetic": "Divide the forward's FLOPs by the card's peak, and compare with the time to "
        "start one kernel.",
        "memory": "The weights are a few megabytes. How long does a card with hundreds of "
        "gigabytes a second need to read them?",
    },
    check=_launch_bound,
)
