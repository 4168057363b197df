"""GPU against CPU without pretending: this CPU measured, a GPU measured or predicted.

Without a GPU the GPU's times come from its published peaks (`timing.roofline`), are drawn as a
hatched band and are called predicted. With one, the same call measures it and shows both.
"""

from __future__ import annotations

import base64
import copy
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn

from fastgen_course.show import PALETTE, figure_png, show
from fastgen_course.timing.cost import ModelCost, model_cost
from fastgen_course.timing.measure import measure
from fastgen_course.timing.roofline import (
    GPU_CARDS,
    T_LAUNCH_S,
    find_card,
    limit_of,
    predict_gpu_ms,
)
from fastgen_course.timing.rows import Timing

Arguments = tuple[torch.Tensor, ...]
Inputs = Callable[[int], torch.Tensor | Sequence[torch.Tensor]] | torch.Tensor | Sequence
_BOUND = {"launches": "launch-bound", "arithmetic": "compute-bound", "memory": "memory-bound"}


@dataclass(frozen=True)
class DeviceTimes:
    """One model on this machine: per batch its cost and its measured times.

    `cpu` and `gpu` are timings by batch (`gpu` is empty without one); `gpu_name` is None then.
    """

    batches: tuple[int, ...]
    cost: dict[int, ModelCost]
    cpu: dict[int, Timing]
    gpu: dict[int, Timing]
    gpu_name: str | None

    def _ipython_display_(self) -> None:
        """Nothing: `gpu_vs_cpu` has shown it all."""

    def predicted(self, card: str, batch: int) -> tuple[float, float]:
        """Milliseconds (low, high) that `card` should need for one call at `batch`."""
        cost = self.cost[batch]
        return predict_gpu_ms(cost.launches, cost.flops, cost.bytes_moved, card)


def gpu_vs_cpu(
    model: nn.Module,
    inputs: Inputs,
    batches: Sequence[int] = (1, 8, 64),
    *,
    card: str = "T4",
    seconds: float = 4.0,
    threads: int | None = None,
    item: str = "image",
) -> DeviceTimes:
    """Measure `model` on this CPU, predict it on a named GPU, show both, and say what limits it.

    Args:
        model: on the CPU; runs in evaluation mode without gradients, its mode is restored.
        inputs: `inputs(batch)` returns the arguments for that batch; or example arguments, batch
            first, whose rows are repeated.
        batches: the batches to compare.
        card: the GPU of the static figure, one of `GPU_CARDS`; the widget beside it has them all.
        seconds: about how long to measure in all.
        threads: CPU threads; None leaves PyTorch's setting.
        item: what one row of a batch is called.

    Returns the figures behind the picture; as the last line of a cell they add no output.
    Raises ValueError for an unknown card or a batch below 1.
    """
    find_card(card)
    times = device_times(model, inputs, batches, seconds=seconds, threads=threads)
    show(figure(times, card), alt=describe(times, card))
    print(reading(times, card, item))
    if _in_notebook():
        from IPython.display import display

        display(controls(times, card, item))
    return times


def device_times(
    model: nn.Module,
    inputs: Inputs,
    batches: Sequence[int] = (1, 8, 64),
    *,
    seconds: float = 4.0,
    threads: int | None = None,
) -> DeviceTimes:
    """The measured half of `gpu_vs_cpu`, without a picture (arguments as there)."""
    batches = tuple(batches)
    if not batches or min(batches) < 1:
        raise ValueError(f"gpu_vs_cpu needs batches of at least 1, got {batches}.")
    accelerator = _accelerator()
    devices = ["cpu"] if accelerator is None else ["cpu", accelerator]
    each = seconds / len(batches) / len(devices)
    was_training = model.training
    model.eval()
    try:
        arguments = {batch: _arguments(inputs, batch) for batch in batches}
        cost = {batch: model_cost(model, arguments[batch]) for batch in batches}
        timed: dict[str, dict[int, Timing]] = {"cpu": {}}
        for device in devices:
            here = model if device == "cpu" else copy.deepcopy(model).to(device)
            timed[device] = {
                batch: _measure(here, arguments[batch], batch, device, each, threads)
                for batch in batches
            }
    finally:
        model.train(was_training)
    return DeviceTimes(
        batches,
        cost,
        timed["cpu"],
        timed[accelerator] if accelerator else {},
        _accelerator_name(accelerator),
    )


def figure(times: DeviceTimes, card: str) -> Figure:
    """Milliseconds a call by batch: measured bars, and the predicted GPU as a hatched band."""
    rows = 3 if times.gpu else 2
    width = 0.8 / rows
    fig, axis = plt.subplots(figsize=(7, 3.4))
    cpu = next(iter(times.cpu.values()))
    threads = f"{cpu.threads} thread{'s' if cpu.threads != 1 else ''}"
    _bars(axis, times.cpu, 0, width, PALETTE[0], f"this CPU, {threads}, measured")
    if times.gpu:
        _bars(axis, times.gpu, 1, width, PALETTE[2], f"{times.gpu_name}, measured")
    bands = [times.predicted(card, batch) for batch in times.batches]
    places = [n + (rows - 1) * width for n in range(len(bands))]
    axis.bar(
        places,
        [high - low for low, high in bands],
        0.92 * width,
        bottom=[low for low, _ in bands],
        facecolor="none",
        edgecolor=PALETTE[1],
        hatch="////",
        label=f"{card}, predicted, not measured",
    )
    for place, (low, high) in zip(places, bands, strict=True):
        axis.annotate(
            _range(low, high),
            (place, high),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axis.set_yscale("log")
    lowest = [row.median_ms for row in (*times.cpu.values(), *times.gpu.values())]
    axis.set_ylim(bottom=0.6 * min(lowest + [low for low, _ in bands]))
    axis.margins(y=0.12)
    axis.set_xticks(
        [n + (rows - 1) * width / 2 for n in range(len(times.batches))],
        [f"batch {batch}" for batch in times.batches],
    )
    axis.grid(axis="x", visible=False)
    axis.set_ylabel("milliseconds a call")
    axis.set_title("whisker: p90; band: range of the time to start a kernel", fontsize=8)
    fig.legend(loc="outside lower center", ncols=rows, fontsize=8)
    return fig


def describe(times: DeviceTimes, card: str) -> str:
    """The figure in words."""
    parts = [
        "Bars on a logarithmic axis, milliseconds a call. "
        + "This CPU, measured: "
        + ", ".join(
            f"{_digits(row.median_ms, 3)} at batch {batch}" for batch, row in times.cpu.items()
        )
        + "."
    ]
    if times.gpu:
        rows = (f"{_digits(row.median_ms, 3)} at batch {batch}" for batch, row in times.gpu.items())
        parts.append(f"{times.gpu_name}, measured: {', '.join(rows)}.")
    bands = []
    for batch in times.batches:
        low, high = times.predicted(card, batch)
        bands.append(f"{_range(low, high)} at batch {batch}")
    parts.append(f"{card}, predicted and not measured (hatched): {', '.join(bands)}.")
    return " ".join(parts)


def reading(times: DeviceTimes, card: str, item: str = "image", batch: int | None = None) -> str:
    """Two or three sentences: what the CPU does, what the card would wait for, who wins.

    `batch` None reads the smallest batch; throughput is compared at the largest.
    """
    first = min(times.batches) if batch is None else batch
    largest = max(times.batches)
    cost, cpu = times.cost[first], times.cpu[first]
    low, high = times.predicted(card, first)
    start_us = [1e6 * cost.launches * t for t in T_LAUNCH_S]
    work_us = 1000 * low - start_us[0]
    lines = [
        f"This CPU takes {_digits(cpu.median_ms, 3)} ms a call at batch {first} "
        f"({_digits(cpu.images_per_s, 3)} {item}s/s), and makes "
        f"{_digits(times.cpu[largest].images_per_s, 3)} {item}s/s at batch {largest}.",
        f"The {card} is predicted, not measured, from its published peaks: {_range(low, high)} ms "
        f"at batch {first}. "
        f"Its {cost.launches} kernels take {_range(*start_us)} µs to start, their arithmetic and "
        f"memory traffic at least {_digits(work_us)} µs, so the call is "
        f"{_BOUND[limit_of(cost, card)]} there and {_verdict(cpu.median_ms, low, high)}.",
    ]
    if largest != first:
        wide = times.predicted(card, largest)
        lines.append(
            f"At batch {largest} the call is {_BOUND[limit_of(times.cost[largest], card)]} and "
            f"{_verdict(times.cpu[largest].median_ms, *wide)}."
        )
    if times.gpu:
        row = times.gpu[first]
        lines.append(
            f"{times.gpu_name}, measured here: {_digits(row.median_ms, 3)} ms a call at batch "
            f"{first}, {_digits(times.gpu[largest].images_per_s, 3)} {item}s/s at batch {largest}."
        )
    return "\n".join(lines)


def controls(times: DeviceTimes, card: str, item: str = "image"):  # type: ignore[no-untyped-def]
    """A card menu and a batch slider above the same figure; nothing is measured again."""
    import ipywidgets as widgets

    menu = widgets.Dropdown(options=list(GPU_CARDS), value=card, description="GPU")
    slider = widgets.SelectionSlider(
        options=list(times.batches), value=min(times.batches), description="batch"
    )
    picture, words = widgets.HTML(), widgets.HTML()

    def redraw(_change: object = None) -> None:
        png = base64.b64encode(figure_png(figure(times, menu.value))).decode()
        alt = html.escape(describe(times, menu.value), quote=True)
        picture.value = f'<img alt="{alt}" width="520" src="data:image/png;base64,{png}">'
        reread()

    def reread(_change: object = None) -> None:
        text = html.escape(reading(times, menu.value, item, slider.value))
        source = html.escape(GPU_CARDS[menu.value].source)
        words.value = "<br>".join([*text.split("\n"), f"<small>Peaks: {source}.</small>"])

    menu.observe(redraw, "value")
    slider.observe(reread, "value")
    redraw()
    return widgets.VBox([widgets.HBox([menu, slider]), picture, words])


def _bars(axis, rows: dict[int, Timing], slot: int, width: float, colour: str, label: str) -> None:  # type: ignore[no-untyped-def]
    places = [n + slot * width for n in range(len(rows))]
    medians = [row.median_ms for row in rows.values()]
    above = [max(0.0, row.p90_ms - row.median_ms) for row in rows.values()]
    axis.bar(
        places,
        medians,
        0.92 * width,
        yerr=[[0.0] * len(above), above],
        capsize=3,
        color=colour,
        ecolor=PALETTE[6],
        label=label,
    )
    for place, row in zip(places, rows.values(), strict=True):
        axis.annotate(
            _digits(row.median_ms, 3),
            (place, max(row.p90_ms, row.median_ms)),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _verdict(cpu_ms: float, low: float, high: float) -> str:
    if cpu_ms < low:
        return f"this CPU would be {_range(low / cpu_ms, high / cpu_ms)} times faster"
    if cpu_ms > high:
        return f"the card would be {_range(cpu_ms / high, cpu_ms / low)} times faster"
    return "which of the two is faster the prediction cannot tell"


def _digits(value: float, count: int = 2) -> str:
    """`value` to `count` significant digits, without an exponent: 310, 4.2, 0.031."""
    rounded = float(f"{value:.{count}g}")
    return f"{rounded:.10f}".rstrip("0").rstrip(".") if rounded < 1 else f"{rounded:.10g}"


def _range(low: float, high: float) -> str:
    return f"{_digits(low)} to {_digits(high)}"


def _arguments(inputs: Inputs, batch: int) -> Arguments:
    given = inputs(batch) if callable(inputs) else inputs
    given = (given,) if isinstance(given, torch.Tensor) else tuple(given)
    if callable(inputs):
        return given
    return tuple(x[torch.arange(batch) % len(x)] for x in given)


def _measure(
    model: nn.Module,
    arguments: Arguments,
    batch: int,
    device: str,
    seconds: float,
    threads: int | None,
) -> Timing:
    there = tuple(x.to(device) for x in arguments)
    with torch.inference_mode():
        return measure(
            lambda: model(*there),
            batch=batch,
            device=device,
            threads=threads,
            min_seconds=seconds / 2,
            max_seconds=seconds,
        )


def _accelerator() -> str | None:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _accelerator_name(accelerator: str | None) -> str | None:
    if accelerator is None:
        return None
    return torch.cuda.get_device_name() if accelerator == "cuda" else "Apple GPU"


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
