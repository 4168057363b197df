"""The stages: what each makes of the one before, kept under the hash of what it was made of."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from fastgen_course.checkpoints import load_model
from fastgen_course.compression.deploy import write_lean_graph
from fastgen_course.compression.folding import FoldedGenerator, layer_widths
from fastgen_course.compression.packed import pack, stored_bytes
from fastgen_course.compression.pruning import PruneTrainer, paired_mse
from fastgen_course.compression.qat import QATTrainer
from fastgen_course.compression.quantized import (
    QuantizedConfig,
    QuantizedGenerator,
    calibration_batches,
)
from fastgen_course.files import atomic_write, data_path, read_json, sha256_of, write_json
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.searched import Architecture
from fastgen_course.pipeline.recipe import (
    FULL,
    Delivered,
    PipelineError,
    Recipe,
    Searched,
    Trained,
)
from fastgen_course.search.costs import Cost, cost_in, priced
from fastgen_course.search.front import Point
from fastgen_course.search.inherit import inherited_supernet
from fastgen_course.search.searchers import Evaluator, Predictor, run_search
from fastgen_course.search.space import Genotype
from fastgen_course.search.supernet import Supernet, SupernetTrainer
from fastgen_course.timing import describe_machine
from fastgen_course.training.matching import MatchTrainer

BASE = "generator_base"
STAGES = ("search", "distil", "prune", "quantise")  # that give a network
LANES = 8  # float32 numbers in a register of 256 bits
Say = Callable[[str], None]
_PLACES = {"to_rgb": "rgb"}


class Pipeline:
    """The stages in order. Each method makes what it needs before, or finds it made."""

    def __init__(
        self,
        recipe: Recipe = FULL,
        folder: Path | None = None,
        *,
        base: Generator | None = None,
        judge: SlotJudge | None = None,
        latency: Predictor | None = None,
        say: Say = print,
        progress: bool = False,
        command: str = "python -m fastgen_course pipeline",
    ) -> None:
        """folder: what stages make is kept there, None for data/runs/pipeline; base and judge:
        None for the shipped GENERATOR_BASE and `judge_train`; latency: milliseconds of an
        architecture, None for the recorded table; say: told of what begins and ends; progress:
        bars and losses of what takes minutes."""
        self.recipe, self.say, self.command = recipe, say, command
        self.progress, self._earlier = progress, 0.0
        self.latency = latency
        self._said: set[str] = set()  # keys of stages that were told of
        self.folder = data_path("runs", "pipeline") if folder is None else folder
        self.base = (load_model(BASE) if base is None else base).eval()
        self.judge = load_model("judge_train") if judge is None else judge
        batches = calibration_batches(self.base.config, recipe.pictures, seed=71)
        self.noise, self.words = (torch.cat(part) for part in zip(*batches, strict=True))
        self.base_key, self.judge_key = _content_of(self.base), _content_of(self.judge)

    # --- stages

    def search(self) -> Searched:
        """Train a supernet, let the searcher ask for its slices, choose the best in `most_ms`."""
        recipe, cost = self.recipe, self.cost
        trained = [self.base_key, self.judge_key, recipe.space, recipe.supernet]
        asked = [trained, recipe.searcher, recipe.candidates, recipe.pictures, cost.source]

        def work(key: str) -> dict[str, Any]:
            trainer = SupernetTrainer(
                f"pipeline_supernet_{_key(trained)}",  # another limit or searcher: no new training
                inherited_supernet(self.base, recipe.space.largest()), self.base,
                recipe.supernet, self.judge, recipe.space,
            )  # fmt: skip
            supernet = self._train(trainer, keep=True)
            log = self.folder / f"search-{_key(asked)}-log.jsonl"
            log.parent.mkdir(parents=True, exist_ok=True)
            with tqdm(desc="candidates", leave=False, disable=not self.progress) as bar:

                def quality(config: Architecture) -> float:
                    bar.update()
                    return self._slice_distance(supernet, config)

                evaluate = Evaluator(recipe.space, cost.of, quality, recipe.candidates, log)
                run_search(recipe.searcher, evaluate, recipe.supernet.seed)
            found = dict(zip(evaluate.asked, evaluate.points, strict=True))
            best = recipe.space.decode(self._best(found))
            price, distance = found[recipe.space.encode(best)]
            return {
                "widths": best.widths,
                "macs": best.macs(),
                "cost": price,
                "unit": cost.unit,
                "distance": distance,
                "tried": list(found.values()),
                "weights": self._save("search", key, folded_from(supernet, best)),
            }

        return self._stage("search", Searched, self.base_key, [asked, recipe.most_ms], work)

    def distil(self) -> Trained:
        """The chosen network learns to draw the base's pictures for the same noise and caption."""
        before = self.search()

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = MatchTrainer(
                f"pipeline_distil_{key}", start, self.base, self.recipe.distil, self.judge
            )
            return self._trained("distil", key, self._train(trainer, keep=True))

        return self._stage("distil", Trained, before.weights, self.recipe.distil, work)

    def prune(self) -> Trained:
        """Channels go in rounds while what is left learns on, taught by the base again."""
        before = self.distil()
        widths = kept_widths(before.widths, self.recipe.keep)
        recipe = replace(self.recipe.prune, widths=widths)

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = PruneTrainer(
                f"pipeline_prune_{key}", recipe, start, self.judge, teacher=self.base
            )
            return self._trained("prune", key, self._train(trainer, keep=True))

        return self._stage("prune", Trained, before.weights, recipe, work)

    def quantise(self) -> Trained:
        """The pruned network learns to draw the base's pictures with its numbers on the grid."""
        before = self.prune()

        def work(key: str) -> dict[str, Any]:
            start = self._load(before.weights, before.widths)
            trainer = QATTrainer(
                f"pipeline_int8_{key}", self.recipe.quantise, start, self.judge, teacher=self.base
            )
            network = self._train(trainer)
            trainer.training.save()
            return self._trained("quantise", key, pack(network))

        return self._stage("quantise", Trained, before.weights, self.recipe.quantise, work)

    def export(self) -> Delivered:
        """Graphs for both runtimes, strings' words in and bytes out, and their card."""
        before = self.quantise()

        def work(key: str) -> dict[str, Any]:
            network = self._load_quantised(before)
            graphs = {}
            for runtime, form in (("onnxruntime", "blocks"), ("openvino", "mixed")):
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
        key = _key([name, self._content(source), self.base_key, self.judge_key, fields])
        path = self.folder / f"{name}-{key}.json"
        if path.is_file():
            row = read_json(path)
            if key not in self._said:  # a later stage asks for all before it, each time
                self.say(f"{name}: made already, in {row['seconds'] / 60:.1f} minutes")
        else:
            self.say(f"{name}: working")
            start, self._earlier = time.perf_counter(), 0.0
            row = work(key)
            row |= {"key": key, "seconds": time.perf_counter() - start + self._earlier}
            write_json(path, row)
            self.say(f"{name}: {row['seconds'] / 60:.1f} minutes, {_said(row)}")
        self._said.add(key)
        return kind(**{k: _tuples(v) for k, v in row.items()})

    def _train(self, trainer: Any, **settings: Any) -> nn.Module:
        """Train; what a killed run trained before belongs to the stage's seconds as well."""
        start = time.perf_counter()
        network = trainer.run(quiet=not self.progress, **settings)
        self._earlier += max(0.0, trainer.training.seconds - (time.perf_counter() - start))
        return network

    def network(self, stage: str) -> FoldedGenerator:
        """What "search", "distil", "prune" or "quantise" gave, the last as its integers."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}.")
        made = getattr(self, stage)()
        if stage == "quantise":
            return self._load_quantised(made)
        return self._load(made.weights, made.widths)

    def _content(self, source: str) -> str:
        """The hash of a file that a stage made; other words as they are."""
        path = self.folder / source
        return sha256_of(path) if path.suffix and path.is_file() else source

    @cached_property
    def cost(self) -> Cost:
        """What networks are searched by: milliseconds, or MACs, which is said."""
        cost = cost_in(self.recipe.space, self.latency)
        if cost.instead:
            self.say(f"search: {cost.instead}")
        return cost

    def _best(self, found: dict[Genotype, Point]) -> Genotype:
        """The least distance of those that keep `most_ms`."""
        limit = self.recipe.most_ms * self.cost.base
        kept = {who: distance for who, (price, distance) in found.items() if price <= limit}
        if not kept:
            unit, least = self.cost.unit, min((c for c, _ in found.values()), default=inf)
            raise PipelineError(
                f"most_ms {self.recipe.most_ms} allows {priced(limit, unit)} and the fastest of "
                f"{len(found)} candidates takes {priced(least, unit)}: raise most_ms (up to 1) or "
                "candidates, or give the space narrower widths."
            )
        return min(kept, key=kept.__getitem__)

    def _slice_distance(self, supernet: Supernet, config: Architecture) -> float:
        return self._distance(lambda z, y: supernet(z, y, config))

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
        stages = {name: getattr(self, name)() for name in STAGES}
        card = {
            "command": self.command,
            "minutes": sum(stage.seconds for stage in stages.values()) / 60,
            "minutes_by_stage": {n: s.seconds / 60 for n, s in stages.items()},
            "distance_by_stage": {n: s.distance for n, s in stages.items()},
            "widths_by_stage": {n: s.widths for n, s in stages.items()},
            "base_sha256": self.base_key,
            "weight_bytes": weight_bytes,
            "graphs": {name: sha256_of(self.folder / path) for name, path in graphs.items()},
            "recipe": json.loads(_json(asdict(self.recipe) | {"searcher": self.recipe.searcher})),
            "machine": describe_machine(),
        }
        name = f"export-{key}-card.json"
        write_json(self.folder / name, card)
        return name


def kept_widths(widths: Sequence[int], keep: float) -> tuple[int, ...]:
    """`keep` of each layer's channels, to the nearest multiple of LANES and not below it.

    What is left over beside full registers costs as much as another full one: a network of 54, 27
    and 14 channels was no faster here than one of 64, 32 and 16.
    """
    return tuple(min(w, max(LANES, LANES * round(keep * w / LANES))) for w in widths)


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


def _json(value: Any) -> str:
    """JSON of anything made of fields, the same in every process: objects by name and fields."""

    def plain(x: Any) -> Any:
        if hasattr(x, "__qualname__"):  # a function or class; str() would tell its address
            return f"{x.__module__}.{x.__qualname__}"
        return [type(x).__qualname__, vars(x)]

    return json.dumps(value, default=plain)


def _key(made_of: Any) -> str:
    return hashlib.sha256(_json(made_of).encode()).hexdigest()[:16]


def _content_of(network: nn.Module) -> str:
    state = b"".join(v.cpu().numpy().tobytes() for v in network.state_dict().values())
    return hashlib.sha256(state).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _said(row: dict[str, Any]) -> str:
    if "distance" in row:
        widths = ", ".join(map(str, row["widths"]))
        cost = f"{priced(row['cost'], row['unit'])}, " if "cost" in row else ""
        return f"widths {widths}, {cost}mean square error to the base {row['distance']:.4f}"
    return f"{row['weight_bytes']:,} bytes of weights, {row['card']}"
