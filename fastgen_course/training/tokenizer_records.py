"""Record the figures of notebook 03, by name (compare, quality) or both.

    python -m fastgen_course.training.tokenizer_records [compare|quality]

`compare` trains five tokenizers at one short budget (resumable, one to two minutes each on an idle
core) and scores them; `quality` scores the shipped tokenizer. `train` does only the trainings of
`compare`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import Attributes, parse
from fastgen_course.metrics import evaluate, fid, judge_features
from fastgen_course.metrics.reference import caption_list, real_images, reference_features
from fastgen_course.metrics.report import Report, Spread
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig, perplexity
from fastgen_course.timing import record, result
from fastgen_course.training.loop import run_path
from fastgen_course.training.recorders import run_recorders
from fastgen_course.training.tokenizer import (
    TokenizerRecipe,
    reconstruct,
    train_tokenizer,
)

COMMAND = "python -m fastgen_course.training.tokenizer_records"
# Pixels and the quantiser's loss alone: a perceptual term would favour whoever learns it first.
COMPARE_RECIPE = TokenizerRecipe(steps=600, batch=32, perceptual=0.0, refined=0, seed=11)


@dataclass(frozen=True)
class Variant:
    """One training of the comparison."""

    config: TokenizerConfig
    words: str
    restarts: bool = True


VARIANTS: dict[str, Variant] = {
    "ema": Variant(TokenizerConfig(), "running averages, 49 words"),
    "ema_no_restarts": Variant(
        TokenizerConfig(), "running averages, dead codes stay dead, 49 words", restarts=False
    ),
    "gradient": Variant(TokenizerConfig(quantizer="gradient"), "codebook by gradient, 49 words"),
    "fsq": Variant(TokenizerConfig(quantizer="fsq", dim=3), "FSQ, 8x8x8 levels, 49 words"),
    "ema_16": Variant(TokenizerConfig(side=4), "running averages, 16 words"),
}
_QUANTITIES = ("mse", "perplexity", "unused", "fid")


@dataclass(frozen=True)
class ComparePoint:
    """A variant after its training, on test scenes.

    mse of pixels in [0, 1]; perplexity and number of unused codes over 10,000 scenes' words; fid of
    10,000 reconstructions of test scenes against other test scenes; bits a picture when every word
    costs log2(codes), and when a frequent one costs less (words x log2 perplexity).
    """

    mse: float
    perplexity: float
    unused: float
    fid: float
    bits: float
    entropy_bits: float


def train_variant(name: str, quiet: bool = False) -> Tokenizer:
    """Train a variant of the comparison, or go on where a killed run was; its state is kept."""
    variant = VARIANTS[name]
    model, training = train_tokenizer(
        variant.config,
        COMPARE_RECIPE,
        restarts=variant.restarts,
        name=f"tokens_compare_{name}",
        quiet=quiet,
    )
    training.save()  # scored later, perhaps by another process
    return model


@torch.no_grad()
def score_words(
    model: Tokenizer, split: str, seed: int = 0
) -> tuple[dict[str, tuple[float, str, float | None]], Tensor]:
    """Figures of one coding of 10,000 real scenes of the fixed captions, and what it painted.

    The figures are name -> (value, unit, standard error): squared error of pixels in [0, 1],
    perplexity of the words, codes never used.
    """
    images = real_images(split, caption_list(), torch.Generator().manual_seed(1000 + seed))
    tokens = torch.cat([model.encode(part) for part in images.split(250)])
    painted = torch.cat([model.decode(part) for part in tokens.split(250)])
    errors = (painted - images).square().mean((1, 2, 3)) / 4
    codes = model.config.codes
    figures = {
        "mse": (float(errors.mean()), "pixel MSE", float(errors.std()) / len(errors) ** 0.5),
        "perplexity": (perplexity(tokens, codes), "words", None),
        "unused": (float(codes - len(tokens.unique())), "words", None),
    }
    return figures, painted


def record_compare() -> None:
    """Train and score every variant."""
    reference = reference_features("test")
    for name, variant in VARIANTS.items():
        model = train_variant(name, quiet=True)
        figures, painted = score_words(model, "test")
        figures["fid"] = (fid(judge_features(painted), reference), "FID", None)
        for quantity, (value, unit, error) in figures.items():
            record(
                "tokens",
                compare_name(quantity, name),
                value,
                unit,
                spread=error,
                command=f"{COMMAND} compare",
                base=variant.words,
                steps=COMPARE_RECIPE.steps,
                batch=COMPARE_RECIPE.batch,
                images=10_000,
            )
        print(name, {k: round(v[0], 5) for k, v in figures.items()}, flush=True)
    for name in VARIANTS:
        run_path(f"tokens_compare_{name}").unlink(missing_ok=True)


def compare_name(quantity: str, variant: str) -> str:
    """The registry's name of one figure of the comparison."""
    return f"tokens.compare_{quantity}.{variant}"


def recorded_compare() -> dict[str, ComparePoint]:
    """The recorded comparison, variant to point."""
    points = {}
    for name, variant in VARIANTS.items():
        values = {q: float(result(compare_name(q, name))) for q in _QUANTITIES}
        words, codes = variant.config.tokens, variant.config.codes
        points[name] = ComparePoint(
            **values,
            bits=words * log2(codes),
            entropy_bits=words * log2(values["perplexity"]),
        )
    return points


def recorded_budget() -> dict[str, int]:
    """Steps and batch of the recorded comparison."""
    row = result(compare_name("mse", "ema"))
    return {"steps": row.extra["steps"], "batch": row.batch}


def scenes_of_captions(
    captions: Sequence[str], split: str, generator: torch.Generator
) -> tuple[list[Attributes], Tensor]:
    """What the captions ask for, and a real scene (3, 28, 28) of the split for each."""
    attributes = [parse(caption) for caption in captions]
    return attributes, real_images(split, attributes, generator)


def evaluate_reconstructions(model: Tokenizer, seeds: Sequence[int] = (0, 1, 2)) -> Report:
    """The report of `metrics.evaluate` for pictures that went through words and back.

    In the place of a drawing stands a real test scene of the caption, reconstructed: what any
    model over these words can reach at best.
    """

    def sample(captions: list[str], generator: torch.Generator) -> Tensor:
        return reconstruct(model, scenes_of_captions(captions, "test", generator)[1])

    return evaluate(sample, seeds)


def record_quality() -> None:
    """Error, words in use, FID, recall and accuracies of the shipped tokenizer's reconstructions.

    `tokens.fid` is of test scenes with other captions than the reference's; `tokens.fid_train` of
    training scenes, whose own FID is `fid.floor`.
    """
    model, card = load_model("tokenizer"), load_card("tokenizer")
    command = f"{COMMAND} quality"
    rows, _ = score_words(model, "test")
    rows["test_mse"] = rows.pop("mse")
    train = []
    for seed in (0, 1, 2):
        _, painted = score_words(model, "train", seed)
        train.append(fid(judge_features(painted), reference_features("test")))
    spread = Spread(tuple(train))
    rows["fid_train"] = (spread.mean, "FID", spread.deviation)
    for name, (value, unit, error) in rows.items():
        record(
            "tokens",
            f"tokens.{name}",
            value,
            unit,
            spread=error,
            command=command,
            base="tokenizer",
            weights=card["sha256"][:12],
            images=10_000,
        )
        print(name, value, flush=True)
    report = evaluate_reconstructions(model)
    report.record("tokens", command=command, base="tokenizer", weights=card["sha256"][:12])
    print(report, flush=True)


def train_all() -> None:
    """The trainings of the comparison alone."""
    for name in VARIANTS:
        train_variant(name)


RECORDERS = {"compare": record_compare, "quality": record_quality}


def main(names: list[str]) -> int:
    """Run the named recorders, all without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS, {"train": train_all})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
