"""A latency table: milliseconds of every layer, measured once; a network's are their sum.

ONNX Runtime, float32, one thread, batch 1. A layer timed alone pays for a call of its own, and in a
network neighbours share layouts; two constants, fitted on a few whole networks, set that right: one
for the network (caption encoder, the call) and one for each layer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
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
CHUNK = 12  # what is timed in turn
REPEATS = 60


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
    """

    entries: dict[str, float]
    modulation: list[tuple[int, float]]
    constant_ms: float = 0.0
    layer_ms: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def parts(self, config: Architecture) -> dict[str, float]:
        """Milliseconds of each layer of an architecture, as measured alone.

        Raises ArchitectureError for a layer that was not measured.
        """
        found = {}
        for name, layer in config.layers().items():
            key = key_of(layer)
            if key not in self.entries:
                raise ArchitectureError(
                    f"{name} ({key}) is not in the latency table; measure it with time_layers(...)."
                )
            found[name] = self.entries[key]
        channels, ms = zip(*self.modulation, strict=True)
        found["modulation"] = float(np.interp(sum(config.modulated.values()), channels, ms))
        return found

    def __call__(self, config: Architecture) -> float:
        """Predicted milliseconds of an architecture at batch 1."""
        parts = self.parts(config)
        return self.constant_ms + self.layer_ms * len(parts) + sum(parts.values())

    def fit(self, configs: Sequence[Architecture], ms: Sequence[float]) -> None:
        """Set the two constants by least squares of the *relative* error on measured networks.

        Raises ArchitectureError for fewer than three.
        """
        if len(configs) < 3:
            raise ArchitectureError(
                f"fitting two constants needs at least 3 networks, got {len(configs)}."
            )
        parts = [self.parts(c) for c in configs]
        ms = np.asarray(ms)
        a = np.array([[1.0, len(p)] for p in parts]) / ms[:, None]
        b = (ms - np.array([sum(p.values()) for p in parts])) / ms
        self.constant_ms, self.layer_ms = map(float, np.linalg.lstsq(a, b, rcond=None)[0])

    def save(self, path: Path | None = None) -> None:
        """Write data/search/latency.json."""
        rows = {
            "entries_ms": {k: round(v, 6) for k, v in self.entries.items()},
            "modulation_ms": [[c, round(v, 6)] for c, v in self.modulation],
            "constant_ms": self.constant_ms, "layer_ms": self.layer_ms, **self.extra,
        }  # fmt: skip
        write_json(path or data_path("search", "latency.json"), rows)

    @classmethod
    def load(cls, path: Path | None = None) -> LatencyTable:
        """The recorded table. Raises `DataFileError` where there is none."""
        rows = read_json(path or data_path("search", "latency.json"))
        modulation = [(int(c), float(v)) for c, v in rows.pop("modulation_ms")]
        return cls(
            rows.pop("entries_ms"), modulation, rows.pop("constant_ms"), rows.pop("layer_ms"), rows
        )


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _time_graphs(
    graphs: Sequence[tuple[str, Callable[[Path], tuple[Path, list[np.ndarray]]]]],
    repeats: int,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Median milliseconds of each graph; a chunk of them at a time, in turn."""
    found = {}
    for part in _chunks(graphs, chunk):
        with tempfile.TemporaryDirectory() as folder:
            calls = {}
            for index, (key, write) in enumerate(part):
                path, inputs = write(Path(folder) / f"{index}.onnx")
                runner = OnnxModel(path)
                calls[key] = lambda runner=runner, inputs=inputs: runner(*inputs)
            rows = compare(
                calls, warmup=3, min_repeats=repeats, min_seconds=0, max_seconds=60, threads=1,
                device="cpu",
            )  # fmt: skip
            found |= {key: row.median_ms for key, row in rows.items()}
    return found


def _arrays(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    source = np.random.default_rng(0)
    return [source.standard_normal(shape).astype(np.float32) for shape in shapes]


def time_layers(layers: dict[str, Layer], repeats: int = REPEATS) -> dict[str, float]:
    """Milliseconds of each layer by itself."""

    def job(layer: Layer):  # type: ignore[no-untyped-def]
        def write(path: Path) -> tuple[Path, list[np.ndarray]]:
            written, shapes = write_layer(layer, path)
            return written, _arrays(shapes)

        return write

    return _time_graphs([(k, job(layer)) for k, layer in layers.items()], repeats, 4 * CHUNK)


def time_modulation(channels: Sequence[int], repeats: int = REPEATS) -> list[tuple[int, float]]:
    """Milliseconds of the modulation's linear layer for so many channels in all."""

    def job(count: int):  # type: ignore[no-untyped-def]
        def write(path: Path) -> tuple[Path, list[np.ndarray]]:
            written, shapes = write_modulation(Architecture().condition, count, path)
            return written, _arrays(shapes)

        return write

    found = _time_graphs([(str(c), job(c)) for c in channels], repeats)
    return [(c, found[str(c)]) for c in channels]


def time_networks(
    configs: Sequence[Architecture], repeats: int = REPEATS, chunk: int = CHUNK
) -> list[float]:
    """Milliseconds of whole networks at batch 1, their weights fresh (milliseconds do not care)."""
    words = encode_words([CAPTION]).numpy()

    def job(config: Architecture):  # type: ignore[no-untyped-def]
        def write(path: Path) -> tuple[Path, list[np.ndarray]]:
            noise = _arrays([(1, config.noise)])
            return write_network(SearchedGenerator(config).eval(), path), [*noise, words]

        return write

    keys = [str(i) for i in range(len(configs))]
    jobs = [(k, job(c)) for k, c in zip(keys, configs, strict=True)]
    found = _time_graphs(jobs, repeats, chunk)
    return [found[k] for k in keys]


@dataclass(frozen=True)
class Validation:
    """How well unseen networks were predicted; all relative to the measured milliseconds.

    Attributes:
        errors: |predicted - measured| / measured, one a network.
        repeat_errors: |first - second| / mean of two measurements of the same network.
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
    table: LatencyTable, configs: Sequence[Architecture], repeats: int = REPEATS
) -> Validation:
    """Measure networks twice, the second time after all of the first, and predict them."""
    first = np.array(time_networks(configs, repeats))
    second = np.array(time_networks(configs, repeats))
    measured, predicted = (first + second) / 2, np.array([table(c) for c in configs])
    return Validation(
        *(tuple(map(float, x)) for x in (
            predicted, measured, abs(predicted - measured) / measured,
            abs(first - second) / measured,
        ))
    )  # fmt: skip


def measure_table(space: SearchSpace = SPACE, repeats: int = REPEATS) -> LatencyTable:
    """Time every layer of a space; about a minute on an idle core. `fit` it before use."""
    least = sum(min(space.widths[n]) for n in MODULATED if n not in CONVS)
    most = sum(max(space.widths[n]) for n in MODULATED)
    channels = sorted({4 * round(c / 4) for c in np.linspace(least, most, 8)})
    return LatencyTable(time_layers(space_layers(space), repeats),
                        time_modulation(channels, repeats))  # fmt: skip
