"""The roofline of this machine, measured, and of a named GPU, predicted from published peaks.

A kernel can be no faster than its arithmetic at the machine's peak, nor than its memory traffic
at the machine's bandwidth (Williams, Waterman and Patterson, 2009). A GPU adds the time to start
each kernel, which for small models is most of it:

    T = launches x t_launch + max(FLOPs / peak, bytes / bandwidth)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastgen_course.timing.cost import ModelCost
from fastgen_course.timing.measure import measure, threads_set
from fastgen_course.timing.rows import MeasurementError

# Seconds to start one operator of eager PyTorch on CUDA, as a range: the driver's launch takes a
# few microseconds (NVIDIA, "Getting Started with CUDA Graphs"), Python, autograd and the
# dispatcher take the rest. A CUDA graph or a fused kernel would be below this range.
T_LAUNCH_S = (5e-6, 20e-6)


@dataclass(frozen=True)
class Card:
    """A GPU's published peaks: FLOP/s by precision (dense, no sparsity), bytes/s, memory.

    `float32` is the peak of the ordinary FP32 units: PyTorch keeps TF32 off for matrix products.
    """

    name: str
    peak_flops: dict[str, float]
    bandwidth: float
    memory_bytes: float
    source: str


GPU_CARDS = {
    card.name: card
    for card in (
        Card(
            "T4",
            {"float32": 8.1e12, "float16": 65e12},
            320e9,
            16e9,
            "NVIDIA Turing architecture whitepaper, Tesla T4 (2018)",
        ),
        Card(
            "RTX 4090",
            {"float32": 82.6e12, "float16": 165.2e12},
            1008e9,
            24e9,
            "NVIDIA Ada architecture whitepaper, GeForce RTX 4090 (FP16 with FP32 accumulate)",
        ),
        Card(
            "A100",
            {"float32": 19.5e12, "float16": 312e12},
            2039e9,
            80e9,
            "NVIDIA A100 datasheet, 80 GB SXM (2021)",
        ),
        Card(
            "H100",
            {"float32": 67e12, "float16": 989e12},
            3350e9,
            80e9,
            "NVIDIA H100 datasheet, SXM (2023)",
        ),
    )
}


@dataclass(frozen=True)
class Roofline:
    """A machine's measured limits: FLOP/s and bytes/s, for a number of threads and a dtype."""

    peak_flops: float
    bandwidth: float
    threads: int
    dtype: str

    @property
    def ridge(self) -> float:
        """The intensity (FLOPs a byte) from which the arithmetic and not the memory limits."""
        return self.peak_flops / self.bandwidth

    def bound_ms(self, flops: float, bytes_moved: float) -> float:
        """The least milliseconds: max(FLOPs / peak, bytes / bandwidth)."""
        return 1000.0 * max(flops / self.peak_flops, bytes_moved / self.bandwidth)

    def share(self, flops: float, measured_ms: float) -> float:
        """Achieved FLOP/s as a share of the peak (in [0, 1] up to noise)."""
        return flops / (self.peak_flops * measured_ms / 1000.0)


def measure_roofline(threads: int | None = None, seconds: float = 2.0) -> Roofline:
    """Measure this CPU's fp32 peak and memory bandwidth on `threads` threads in about `seconds`."""
    with threads_set(threads) as used:
        return Roofline(
            gemm_peak(seconds=seconds / 2),
            memory_bandwidth(seconds=seconds / 2),
            used,
            "float32",
        )


def gemm_peak(
    sizes: Sequence[int] = (256, 512, 1024), threads: int | None = None, seconds: float = 1.0
) -> float:
    """The best FLOP/s of a square fp32 matrix product over `sizes`: the practical peak.

    An n x n product takes 2 n^3 FLOPs. The fastest repeat of the best size counts: a peak is the
    machine undisturbed.
    """
    best = 0.0
    for size in sizes:
        a, b = torch.rand(size, size), torch.rand(size, size)
        out = torch.empty(size, size)
        timing = measure(
            lambda a=a, b=b, out=out: torch.mm(a, b, out=out),
            threads=threads,
            min_repeats=5,
            min_seconds=seconds / len(sizes) / 2,
            max_seconds=seconds / len(sizes),
        )
        best = max(best, 2 * size**3 / (min(timing.times_ms) / 1000.0))
    return best


def memory_bandwidth(
    megabytes: int = 128, threads: int | None = None, seconds: float = 1.0
) -> float:
    """Bytes a second of copying `megabytes` (more than the caches hold): read plus written.

    The usual counting, as in STREAM's copy: the line that a write first fetches is left out.
    """
    count = megabytes * 2**20 // 4
    source, target = torch.ones(count), torch.zeros(count)
    timing = measure(
        lambda: target.copy_(source),
        threads=threads,
        min_repeats=5,
        min_seconds=seconds / 2,
        max_seconds=seconds,
    )
    return 2 * 4 * count / (min(timing.times_ms) / 1000.0)


def predict_gpu_ms(
    launches: int,
    flops: float,
    bytes_moved: float,
    card: str | Card,
    dtype: str = "float32",
    t_launch: tuple[float, float] = T_LAUNCH_S,
) -> tuple[float, float]:
    """Predicted milliseconds (low, high) of one forward pass on a GPU that is not here.

    T = launches x t_launch + max(FLOPs / peak, bytes / bandwidth), at both ends of `t_launch`
    (seconds). Published peaks are never quite reached, so the truth may lie above the band for
    large batches. A prediction is drawn and labelled as one, never as a measurement.

    Raises `MeasurementError` for an unknown card or precision.
    """
    card = find_card(card)
    if dtype not in card.peak_flops:
        raise MeasurementError(
            f"No published {dtype} peak for {card.name}; choose {' or '.join(card.peak_flops)}."
        )
    if min(launches, flops, bytes_moved) < 0 or not 0 <= t_launch[0] <= t_launch[1]:
        raise MeasurementError(
            "launches, FLOPs and bytes must not be negative, and t_launch is (low, high) in s."
        )
    work = max(flops / card.peak_flops[dtype], bytes_moved / card.bandwidth)
    low, high = (1000.0 * (launches * t + work) for t in t_launch)
    return low, high


def limit_of(cost: ModelCost, card: str | Card, dtype: str = "float32") -> str:
    """What `cost` waits for on `card`: "launches", "arithmetic" or "memory".

    Launches are taken at the middle of the stated range.
    """
    card = find_card(card)
    terms = {
        "launches": cost.launches * sum(T_LAUNCH_S) / 2,
        "arithmetic": cost.flops / card.peak_flops[dtype],
        "memory": cost.bytes_moved / card.bandwidth,
    }
    return max(terms, key=terms.__getitem__)


def find_card(card: str | Card) -> Card:
    """The card of that name; `MeasurementError` names the known ones."""
    if isinstance(card, Card):
        return card
    if card not in GPU_CARDS:
        raise MeasurementError(f"Unknown GPU {card!r}; choose one of {', '.join(GPU_CARDS)}.")
    return GPU_CARDS[card]
