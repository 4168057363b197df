"""A latency table: milliseconds of every layer, measured once; a network's are their sum.

ONNX Runtime, float32, one thread, batch 1. All graphs are timed in turn, round by round, so that a
slow spell of the machine falls on all alike, and each timed call comes right after untimed ones of
the same graph: one that finds the caches full of another's numbers takes up to twice as long.

A layer timed alone pays for a call of its own and for its map's change into the runtime's layout
and back; in a network it has less of the caches. Three constants, fitted on a few whole networks
that were timed in the same rounds, set that right: one for the network (caption encoder, the call),
one for each layer, and a factor of the layers' own milliseconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastgen_course.datasets.captions import encode_words
from fastgen_course.files import data_path, read_json, write_json
from fastgen_course.models.searched import (
    CONVS,
    MODULATED,
    UPS,
    Architecture,
    ArchitectureError,
    Layer,
    SearchedGenerator,
)
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.search.graphs import write_layer, write_modulation, write_network
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.timing import compare

CAPTION = "a small red sneaker on a white background, sketch style"
BEFORE_EACH = 3  # untimed calls before a timed one
REPEATS = 60  # rounds


def key_of(layer: Layer) -> str:
    """A layer's name in the table: "conv3 64>48 @14 modulated"."""
    tail = " modulated" if layer.modulated else ""
    return f"{layer.kind} {layer.inputs}>{layer.outputs} @{layer.side}{tail}"


def space_layers(space: SearchSpace = SPACE) -> dict[str, Layer]:
    """Every layer that some architecture of the space has, by its name in the table."""
    widths = space.widths
    found: list[Layer] = []
    for kind in ("stem",):
        found += [Layer(kind, Architecture().condition, w, 7, True) for w in widths["stem"]]
    inputs = widths["stem"]
    for name, side in (("conv7", 7), ("up14", 14), ("conv14", 14), ("up28", 28), ("conv28", 28)):
        if name in UPS:
            kinds = [f"up{k}" for k in space.kernels[name]]
        else:
            kinds = [b for b in space.blocks[name] if b != "none"]
        modulated = name in MODULATED
        found += [Layer(k, i, o, side, modulated) for k in kinds for i in inputs
                  for o in widths[name]]  # fmt: skip
        passed = inputs if name in CONVS and "none" in space.blocks[name] else ()
        inputs = tuple(sorted({*widths[name], *passed}))
    found += [Layer("rgb", i, 3, 28) for i in inputs]
    return {key_of(layer): layer for layer in found}


@dataclass
class LatencyTable:
    """Milliseconds by layer, and the constants that make a network's of them.

    Attributes:
        entries: by `key_of`.
        modulation: (channels, ms) of the modulation's linear layer, in between by a line.
        constant_ms, layer_ms: added once, and for each layer (a call's own cost, so below 0).
        factor: a layer's milliseconds among its neighbours over those measured alone.
    """

    entries: dict[str, float]
    modulation: list[tuple[int, float]]
    constant_ms: float = 0.0
    layer_ms: float = 0.0
    factor: float = 1.0
    extra: dict[str, Any] = field(default_factory=dict)

    def parts(self, config: Architecture) -> dict[str, float]:
        """Milliseconds of each layer of an architecture: those measured alone, times `factor`.

        Raises ArchitectureError for a layer that was not measured.
        """
        found = {}
        for name, layer in config.layers().items():
            key = key_of(layer)
            if key not in self.entries:
                raise ArchitectureError(
                    f"{name} ({key}) is not in the latency table; measure it with time_layers(...)."
                )
            found[name] = self.factor * self.entries[key]
        channels, ms = zip(*self.modulation, strict=True)
        width = sum(config.modulated.values())
        found["modulation"] = self.factor * float(np.interp(width, channels, ms))
        return found

    def contributions(self, config: Architecture) -> dict[str, float]:
        """What each layer adds to the prediction in milliseconds, and "call" what none does.

        A layer adds less than it takes alone (`parts`) where `layer_ms` is below 0: alone it has a
        call to itself.
        """
        layers = {name: ms + self.layer_ms for name, ms in self.parts(config).items()}
        return {**layers, "call": self.constant_ms}

    def __call__(self, config: Architecture) -> float:
        """Predicted milliseconds of an architecture at batch 1."""
        return sum(self.contributions(config).values())

    def fit(self, configs: Sequence[Architecture], ms: Sequence[float]) -> None:
        """Set the three constants by least squares of the *relative* error on measured networks.

        Raises ArchitectureError for fewer than four.
        """
        if len(configs) < 4:
            raise ArchitectureError(
                f"fitting three constants needs at least 4 networks, got {len(configs)}."
            )
        self.factor = 1.0
        parts = [self.parts(c) for c in configs]
        rows = np.array([[1.0, len(p), sum(p.values())] for p in parts])
        weight = 1 / np.asarray(ms)
        fitted = np.linalg.lstsq(rows * weight[:, None], np.ones(len(parts)), rcond=None)[0]
        self.constant_ms, self.layer_ms, self.factor = map(float, fitted)

    def save(self, path: Path | None = None) -> None:
        """Write data/search/latency.json."""
        rows = {
            "entries_ms": {k: round(v, 6) for k, v in self.entries.items()},
            "modulation_ms": [[c, round(v, 6)] for c, v in self.modulation],
            "constant_ms": self.constant_ms, "layer_ms": self.layer_ms, "factor": self.factor,
            **self.extra,
        }  # fmt: skip
        write_json(path or data_path("search", "latency.json"), rows)

    @classmethod
    def load(cls, path: Path | None = None) -> LatencyTable:
        """The recorded table. Raises `DataFileError` where there is none."""
        rows = read_json(path or data_path("search", "latency.json"))
        modulation = [(int(c), float(v)) for c, v in rows.pop("modulation_ms")]
        constants = [rows.pop(name) for name in ("constant_ms", "layer_ms", "factor")]
        return cls(rows.pop("entries_ms"), modulation, *constants, rows)


def _arrays(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    source = np.random.default_rng(0)
    return [source.standard_normal(shape).astype(np.float32) for shape in shapes]


Job = tuple[str, Callable[[Path], tuple[Path, list[np.ndarray]]]]


def _time_graphs(
    jobs: Sequence[Job], repeats: int, before_each: int = BEFORE_EACH
) -> dict[str, float]:
    """Median milliseconds of each graph, all of them in turn."""
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for index, (key, write) in enumerate(jobs):
            path, inputs = write(Path(folder) / f"{index}.onnx")
            runner = OnnxModel(path)
            calls[key] = lambda runner=runner, inputs=inputs: runner(*inputs)
        rows = compare(
            calls, warmup=3, min_repeats=repeats, min_seconds=0, max_seconds=300, threads=1,
            device="cpu", before_each=before_each,
        )  # fmt: skip
        return {key: row.median_ms for key, row in rows.items()}


def _layer_job(layer: Layer) -> Job:
    def write(path: Path) -> tuple[Path, list[np.ndarray]]:
        written, shapes = write_layer(layer, path)
        return written, _arrays(shapes)

    return key_of(layer), write


def _modulation_job(channels: int) -> Job:
    def write(path: Path) -> tuple[Path, list[np.ndarray]]:
        written, shapes = write_modulation(Architecture().condition, channels, path)
        return written, _arrays(shapes)

    return f"modulation {channels}", write


def _network_job(name: str, config: Architecture) -> Job:
    words = encode_words([CAPTION]).numpy()

    def write(path: Path) -> tuple[Path, list[np.ndarray]]:
        noise = _arrays([(1, config.noise)])
        return write_network(SearchedGenerator(config).eval(), path), [*noise, words]

    return name, write


def time_networks(
    configs: Sequence[Architecture], repeats: int = REPEATS, before_each: int = BEFORE_EACH
) -> list[float]:
    """Milliseconds of whole networks at batch 1, their weights fresh (milliseconds do not care)."""
    jobs = [_network_job(str(i), c) for i, c in enumerate(configs)]
    found = _time_graphs(jobs, repeats, before_each)
    return [found[str(i)] for i in range(len(configs))]


@dataclass(frozen=True)
class Validation:
    """How well unseen networks were predicted; all relative to the measured milliseconds.

    Attributes:
        errors: |predicted - measured| / measured, one a network.
        repeat_errors: how far a network's second measurement is from its first; the median ratio of
            all, by which the machine's own speed has changed meanwhile, is divided out.
        allowed: 0.1, or twice the median repeat error if that is larger.
    """

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    errors: tuple[float, ...]
    repeat_errors: tuple[float, ...]

    @property
    def allowed(self) -> float:
        return max(0.1, 2 * float(np.median(self.repeat_errors)))

    @property
    def within(self) -> float:
        """The share of networks that were predicted as well as `allowed`."""
        return float(np.mean(np.asarray(self.errors) <= self.allowed))


def validate(
    table: LatencyTable,
    configs: Sequence[Architecture],
    measured: Sequence[float],
    again: Sequence[float],
) -> Validation:
    """Hold a table's predictions against measured networks, and these against a second time."""
    predicted, first = np.array([table(c) for c in configs]), np.asarray(measured)
    ratio = np.asarray(again) / first
    return Validation(
        *(tuple(map(float, x)) for x in (
            predicted, first, abs(predicted - first) / first, abs(ratio / np.median(ratio) - 1),
        ))
    )  # fmt: skip


def measure_table(
    space: SearchSpace, configs: Sequence[Architecture], repeats: int = REPEATS
) -> tuple[LatencyTable, list[float]]:
    """Time every layer of a space and, in the same rounds, whole networks: a minute.

    Returns (the table, not yet fitted; milliseconds of `configs`).
    """
    least = sum(min(space.widths[n]) for n in MODULATED if n not in CONVS)
    most = sum(max(space.widths[n]) for n in MODULATED)
    channels = sorted({4 * round(c / 4) for c in np.linspace(least, most, 8)})
    layers = space_layers(space)
    found = _time_graphs(
        [
            *map(_layer_job, layers.values()),
            *map(_modulation_job, channels),
            *(_network_job(str(i), c) for i, c in enumerate(configs)),
        ],
        repeats,
    )
    table = LatencyTable(
        {key: found[key] for key in layers}, [(c, found[f"modulation {c}"]) for c in channels]
    )
    return table, [found[str(i)] for i in range(len(configs))]
