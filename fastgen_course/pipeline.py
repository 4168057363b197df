"""The whole recipe: search, distil, prune and finetune, quantise, export. One call a stage.

    python -m fastgen_course pipeline              (about an hour on one core; goes on after a kill)
    python -m fastgen_course pipeline --dry        (in a minute, for a network worth nothing)

A stage's result is kept under the hash of what it was made from: the recipe's fields, and the
content of what the stage before it made. Asked again it comes back at once; a changed recipe runs
that stage and those behind it again and no other.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.deploy import write_lean_graph
from fastgen_course.compression.folding import FoldedGenerator, layer_widths
from fastgen_course.compression.packed import pack, stored_bytes
from fastgen_course.compression.pruning import PruneRecipe, PruneTrainer, paired_mse
from fastgen_course.compression.qat import QATRecipe, QATTrainer
from fastgen_course.compression.quantized import (
    QuantizedConfig,
    QuantizedGenerator,
    calibration_batches,
)
from fastgen_course.files import atomic_write, data_path, read_json, sha256_of, write_json
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.searched import CONVS, UPS, Architecture
from fastgen_course.search.inherit import inherited_supernet
from fastgen_course.search.space import SearchSpace
from fastgen_course.search.supernet import Supernet, SupernetRecipe, SupernetTrainer
from fastgen_course.timing import describe_machine
from fastgen_course.training.matching import MatchRecipe, MatchTrainer

BASE = "generator_base"
Say = Callable[[str], None]
_PLACES = {"to_rgb": "rgb"}


class PipelineError(ValueError):
    """A recipe that cannot be run; the message names the field and its range."""


def default_space() -> SearchSpace:
    """Widths alone: plain 3x3 convolutions and transposed ones, which every later stage knows."""
    return SearchSpace(blocks=dict.fromkeys(CONVS, ("conv3",)), kernels=dict.fromkeys(UPS, (4,)))


@dataclass(frozen=True)
class Recipe:
    """All that a run is made of.

    Attributes:
        space: what is searched; blocks "conv3" and kernels 4 alone.
        supernet: the training of the network that candidates take their weights from.
        candidates: how many networks the search looks at, from 1.
        most_macs: of the chosen network as a share of the space's largest, in (0, 1].
        pictures: captions on which candidates and stages are compared with the base, from 1.
        distil: the chosen network learns to draw what the base draws.
        keep: share of each layer's channels that pruning leaves, in (0, 1].
        prune: its training; the widths come from `keep`.
        quantise: the training on the integers' grid; `start` is what pruning left.

    Raises `PipelineError` for a field out of its range.
    """

    space: SearchSpace = field(default_factory=default_space)
    supernet: SupernetRecipe = field(default_factory=SupernetRecipe)
    candidates: int = 300
    most_macs: float = 0.3
    pictures: int = 128
    distil: MatchRecipe = field(default_factory=lambda: MatchRecipe(steps=2500, seed=61))
    keep: float = 0.85
    prune: PruneRecipe = field(default_factory=lambda: PruneRecipe(steps=1500, seed=62))
    quantise: QATRecipe = field(default_factory=lambda: QATRecipe(weight_bits=7, seed=63))

    def __post_init__(self) -> None:
        for name in ("candidates", "pictures"):
            if getattr(self, name) < 1:
                raise PipelineError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("most_macs", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise PipelineError(f"{name} must be above 0 and at most 1, got "
                                    f"{getattr(self, name)}.")  # fmt: skip
        plain = all(set(options) == {"conv3"} for options in self.space.blocks.values())
        if not plain or any(set(options) != {4} for options in self.space.kernels.values()):
            raise PipelineError(
                "space must have blocks of conv3 and kernels of 4 alone: pruning and int8 know no "
                "others."
            )


FULL = Recipe()
DRY = Recipe(
    supernet=SupernetRecipe(steps=2, batch=4, drawn=1),
    candidates=4,
    pictures=8,
    distil=MatchRecipe(steps=3, batch=4),
    prune=PruneRecipe(steps=3, batch=4, rounds=2, every=1, criterion="magnitude"),
    quantise=QATRecipe(steps=3, batch=4, weight_bits=7, pictures=8),
)


@dataclass(frozen=True)
class Searched:
    """The network that the search chose, its weights those of the supernet.

    `distance` is the mean square error to the base's pictures for the same noise; `tried` lists
    (MACs, distance) of every candidate.
    """

    key: str
    seconds: float
    widths: tuple[int, ...]
    macs: int
    distance: float
    tried: tuple[tuple[int, float], ...]
    weights: str


@dataclass(frozen=True)
class Trained:
    """A network after a stage of training: its file, and its distance to the base's pictures."""

    key: str
    seconds: float
    widths: tuple[int, ...]
    distance: float
    parameters: int
    weights: str


@dataclass(frozen=True)
class Delivered:
    """What is shipped: graphs by runtime, the bytes of the weights, the card."""

    key: str
    seconds: float
    graphs: dict[str, str]
    weight_bytes: int
    card: str


Result = Searched | Trained | Delivered


class Pipeline:
    """The stages in order. Each method makes what it needs before, or finds it made."""

    def __init__(
        self,
        recipe: Recipe = FULL,
        folder: Path | None = None,
        *,
        base: Generator | None = None,
        judge: SlotJudge | None = None,
        say: Say = print,
        command: str = "python -m fastgen_course pipeline",
    ) -> None:
        """folder: what stages make is kept there, None for data/runs/pipeline; base and judge:
        None for the shipped GENERATOR_BASE and `judge_train`; say: told of progress."""
        self.recipe, self.say, self.command = recipe, say, command
        self.folder = data_path("runs", "pipeline") if folder is None else folder
        self.base = (load_model(BASE) if base is None else base).eval()
        self.judge = load_model("judge_train") if judge is None else judge
        batches = calibration_batches(self.base.config, recipe.pictures, seed=71)
        self.noise, self.words = (torch.cat(part) for part in zip(*batches, strict=True))
        state = b"".join(v.cpu().numpy().tobytes() for v in self.base.state_dict().values())
        self.base_key = hashlib.sha256(state).hexdigest()

    # --- stages

    def search(self) -> Searched:
        """Train a supernet, look at candidates with its weights, choose under `most_macs`."""
        recipe = self.recipe
        fields = (asdict(recipe.space), asdict(recipe.supernet), recipe.candidates,
                  recipe.most_macs, recipe.pictures)  # fmt: skip

        def work(key: str) -> dict[str, Any]:
            largest = recipe.space.largest()
            trainer = SupernetTrainer(
                f"pipeline_supernet_{key}", inherited_supernet(self.base, largest), self.base,
                recipe.supernet, self.judge, recipe.space,
            )  # fmt: skip
            supernet = trainer.run(quiet=True, keep=True)
            limit = recipe.most_macs * largest.macs()
            found = self._candidates(supernet, limit)
            best = min(found, key=found.__getitem__)
            network = folded_from(supernet, best)
            return {
                "widths": best.widths,
                "macs": best.macs(),
                "distance": found[best],
                "tried": [(config.macs(), distance) for config, distance in found.items()],
                "weights": self._save("search", key, network),
            }

        return self._stage("search", Searched, self.base_key, fields, work)

    def distil(self) -> Trained:
        """The chosen network learns to draw the base's pictures for the same noise and caption."""
        before = self.search()

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = MatchTrainer(
                f"pipeline_distil_{key}", start, self.base, self.recipe.distil, self.judge
            )
            return self._trained("distil", key, trainer.run(quiet=True, keep=True))

        return self._stage("distil", Trained, before.weights, asdict(self.recipe.distil), work)

    def prune(self) -> Trained:
        """Channels go in rounds while what is left learns on, from the base again."""
        before, keep = self.distil(), self.recipe.keep
        widths = tuple(max(1, round(keep * width)) for width in before.widths)
        recipe = replace(self.recipe.prune, widths=widths)

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = PruneTrainer(f"pipeline_prune_{key}", recipe, start, self.judge)
            trainer.original = self.base.requires_grad_(False)  # not the network it began as
            return self._trained("prune", key, trainer.run(quiet=True, keep=True))

        return self._stage("prune", Trained, before.weights, asdict(recipe), work)

    def quantise(self) -> Trained:
        """The pruned network learns to draw its own pictures with its numbers on the grid."""
        before = self.prune()

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = QATTrainer(f"pipeline_int8_{key}", self.recipe.quantise, start, self.judge)
            network = trainer.run(quiet=True)
            trainer.training.save()
            return self._trained("quantise", key, pack(network))

        return self._stage("quantise", Trained, before.weights, asdict(self.recipe.quantise), work)

    def export(self) -> Delivered:
        """Graphs for both runtimes, strings' words in and bytes out, and their card."""
        before = self.quantise()

        def work(key: str) -> dict[str, Any]:
            network = self._load_quantised(before)
            graphs = {}
            for runtime, form in (("onnxruntime", "blocks"), ("openvino", "transposed")):
                path = self.folder / f"export-{key}-{runtime}.onnx"
                graphs[runtime] = write_lean_graph(network, path, form).name
            card = self._card(key, graphs, stored_bytes(network))
            return {"graphs": graphs, "weight_bytes": stored_bytes(network), "card": card}

        return self._stage("export", Delivered, before.weights, (), work)

    run = export

    # --- what stages share

    def _stage(
        self, name: str, kind: type, source: str, fields: Any, work: Callable[[str], dict[str, Any]]
    ) -> Any:
        """The result of a stage: found where it was made of the same, else made."""
        made_of = json.dumps([name, self._content(source), self.base_key, fields], default=str)
        key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
        path = self.folder / f"{name}-{key}.json"
        if path.is_file():
            row = read_json(path)
            self.say(f"{name}: made already, in {row['seconds'] / 60:.1f} minutes")
        else:
            self.say(f"{name}: working")
            start = time.perf_counter()
            row = work(key)
            row |= {"key": key, "seconds": time.perf_counter() - start}
            write_json(path, row)
            self.say(f"{name}: {row['seconds'] / 60:.1f} minutes, {_said(row)}")
        tuples = {k: _tuples(v) for k, v in row.items()}
        return kind(**tuples)

    def _content(self, source: str) -> str:
        """The hash of a file that a stage made; other words as they are."""
        path = self.folder / source
        return sha256_of(path) if path.suffix and path.is_file() else source

    def _candidates(self, supernet: Supernet, limit: float) -> dict[Architecture, float]:
        """The smallest of the space and random candidates within the limit, with distances."""
        space, source = self.recipe.space, random.Random(self.recipe.supernet.seed)
        found = {space.smallest(): 0.0}
        for _ in range(50 * self.recipe.candidates):  # where the limit leaves few there are few
            if len(found) == self.recipe.candidates:
                break
            config = space.decode(space.random(source))
            if config.macs() <= limit:
                found[config] = 0.0
        for config in found:
            found[config] = self._distance(lambda z, y, c=config: supernet(z, y, c))
        return found

    @torch.no_grad()
    def _distance(self, draw: Callable[[Tensor, Tensor], Tensor]) -> float:
        return paired_mse(draw, self.base, self.noise, self.words)

    def _trained(self, stage: str, key: str, network: nn.Module) -> dict[str, Any]:
        return {
            "widths": layer_widths(network.config),
            "distance": self._distance(network),
            "parameters": sum(p.numel() for p in network.parameters()),
            "weights": self._save(stage, key, network),
        }

    def _save(self, stage: str, key: str, network: nn.Module) -> str:
        name = f"{stage}-{key}.safetensors"
        state = {k: v.detach().contiguous() for k, v in network.state_dict().items()}
        with atomic_write(self.folder / name) as temporary:
            save_file(state, temporary)
        return name

    def _config(self, widths: tuple[int, ...]) -> GeneratorConfig:
        config = self.base.config
        return GeneratorConfig(config.noise, config.caption, tuple(widths), config.vocabulary)

    def _load(self, name: str, widths: tuple[int, ...]) -> FoldedGenerator:
        network = FoldedGenerator(self._config(widths))
        network.load_state_dict(load_file(self.folder / name))
        return network.eval()

    def _load_quantised(self, made: Trained) -> QuantizedGenerator:
        recipe = self.recipe.quantise
        config = QuantizedConfig(
            **asdict(self._config(made.widths)),
            weight_bits=recipe.weight_bits, activation_bits=recipe.activation_bits,
        )  # fmt: skip
        network = pack(QuantizedGenerator(config))
        network.load_state_dict(load_file(self.folder / made.weights))
        return network.eval().requires_grad_(False)

    def _card(self, key: str, graphs: dict[str, str], weight_bytes: int) -> str:
        """What was shipped, from what, by which command and in how long."""
        stages = [self.search(), self.distil(), self.prune(), self.quantise()]
        names = ("search", "distil", "prune", "quantise")
        card = {
            "command": self.command,
            "minutes": sum(stage.seconds for stage in stages) / 60,
            "minutes_by_stage": {n: s.seconds / 60 for n, s in zip(names, stages, strict=True)},
            "distance_by_stage": {n: s.distance for n, s in zip(names, stages, strict=True)},
            "widths_by_stage": {n: s.widths for n, s in zip(names, stages, strict=True)},
            "base_sha256": self.base_key,
            "weight_bytes": weight_bytes,
            "graphs": {name: sha256_of(self.folder / path) for name, path in graphs.items()},
            "recipe": json.loads(json.dumps(asdict(self.recipe), default=str)),
            "machine": describe_machine(),
        }
        name = f"export-{key}-card.json"
        write_json(self.folder / name, card)
        return name


def folded_from(supernet: Supernet, config: Architecture) -> FoldedGenerator:
    """A network of the plain space as the `FoldedGenerator` that later stages work on."""
    network = supernet.extract(config)
    widths = tuple(config.widths)
    folded = FoldedGenerator(
        GeneratorConfig(config.noise, config.caption, widths, config.vocabulary)
    )
    state = {}
    for name in folded.state_dict():
        part, _, rest = name.partition(".")
        inside = part in ("caption_encoder", "modulation")
        theirs = name if inside else f"layers.{_PLACES.get(part, part)}.{rest}"
        state[name] = network.state_dict()[theirs]
    folded.load_state_dict(state)
    return folded.eval()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _said(row: dict[str, Any]) -> str:
    if "distance" in row:
        widths = ", ".join(map(str, row["widths"]))
        return f"widths {widths}, mean square error to the base {row['distance']:.4f}"
    return f"{row['weight_bytes']:,} bytes of weights, {row['card']}"
