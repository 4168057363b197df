"""Does a generator help a classifier that has 100 photographs a class? Arms at equal training.

The generators know something that the classifier does not: GENERATOR_BASE was trained on all 60,000
photographs. So three arms say what its pictures are worth: `own` draws with a VAE that saw the same
1,000 photographs and no others, `recomposed` sets those into new scenes by program, and `all` is
given the 60,000 themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from fastgen_course.applications.classifier import (
    Batches,
    ClassifierRecipe,
    right,
    train_classifier,
)
from fastgen_course.applications.photographs import (
    SceneSet,
    draw_photographs,
    in_scenes,
    scene_labels,
    scenes_of,
)
from fastgen_course.datasets.captions import VOCABULARY, encode_words
from fastgen_course.datasets.scenes import captions_of
from fastgen_course.models.vae import VAEConfig
from fastgen_course.sampling.one_step import base_generator, sample_generator
from fastgen_course.sampling.vae import sample_vae
from fastgen_course.training.vae import VAERecipe, new_vae, train_vae

PER_CLASS = 100
SHIFT = 3  # pixels, to each side
TEST_SEED = 1


@dataclass(frozen=True)
class Arm:
    """What a classifier is trained on.

    Attributes:
        drawn: whose drawings make up the other half of each batch: "generator_base", "own" or "".
        moved: flips and shifts on every picture.
        recomposed: the photographs in fresh scenes at every step, in place of one scene each.
        everything: all 60,000 photographs in place of 100 a class.
    """

    drawn: str = ""
    moved: bool = False
    recomposed: bool = False
    everything: bool = False


ARMS = {
    "plain": Arm(),
    "classical": Arm(moved=True),
    "synthetic": Arm(drawn="generator_base"),
    "both": Arm(drawn="generator_base", moved=True),
    "own": Arm(drawn="own", moved=True),
    "recomposed": Arm(moved=True, recomposed=True),
    "all": Arm(moved=True, everything=True),
}


CLASSIFIER = ClassifierRecipe()
OWN_RECIPE = VAERecipe(steps=400, batch=64, beta=2.0, learning_rate=3e-3, seed=1)


@dataclass(frozen=True)
class AugmentationRecipe:
    """Sizes of the experiment.

    Attributes:
        classifier: the same for every arm.
        per_class: real photographs a class.
        drawings: how many pictures a generator adds.
        test: test photographs a class, each in one scene.
        vae: how the VAE of the arm `own` is trained.
    """

    classifier: ClassifierRecipe = CLASSIFIER
    per_class: int = PER_CLASS
    drawings: int = 10_000
    test: int = 500
    vae: VAERecipe = OWN_RECIPE


RECIPE = AugmentationRecipe()
TINY = AugmentationRecipe(
    ClassifierRecipe(steps=3, batch=20, width=4),
    per_class=2,
    drawings=40,
    test=3,
    vae=replace(RECIPE.vae, steps=2, batch=10),
)
OWN_VAE = VAEConfig(
    channels=3, latent=32, widths=(24, 48, 48), vocabulary=len(VOCABULARY), caption=48
)


def move(images: Tensor, generator: torch.Generator, shift: int = SHIFT) -> Tensor:
    """Flip half of the images (B, C, H, W) left to right, and shift each by up to `shift` pixels.

    What a shift uncovers repeats the border. Written for batches: one gather, no loop over rows.
    """
    batch, _, height, width = images.shape
    flipped = torch.rand(batch, generator=generator) < 0.5
    offsets = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    batch_index = torch.arange(batch)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[batch_index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@lru_cache(maxsize=2)
def scored_scenes(per_class: int) -> SceneSet:
    """The real test pictures that score every arm: test photographs, one scene each."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    return scenes_of(draw_photographs("test", per_class, generator), "test", generator)


def drawn_pictures(
    sample: Callable[[Tensor, torch.Generator], Tensor], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` drawings of `sample(words, generator)` with balanced garments, and the garments.

    The caption is the label: nobody looked whether the picture shows it.
    """
    labels = scene_labels(torch.arange(count) % 10, generator)
    words = encode_words(captions_of(labels))
    return sample(words, generator), labels[:, 2]


def train_own(real: SceneSet, recipe: VAERecipe, generator: torch.Generator) -> torch.nn.Module:
    """A VAE that sees the given scenes and nothing else."""
    model = new_vae(OWN_VAE, recipe.seed)

    def batches():
        while True:
            rows = torch.randint(len(real.images), (recipe.batch,), generator=generator)
            yield real.images[rows], real.words[rows]

    train_vae(model, batches(), recipe, generator, quiet=True)
    return model


def arm_batches(arm: Arm, recipe: AugmentationRecipe, seed: int) -> Batches:
    """The batches of an arm. One seed draws the same photographs for every arm but `all`."""
    generator = torch.Generator().manual_seed(1000 + seed)
    per_class = 6000 if arm.everything else recipe.per_class
    rows = draw_photographs("train", per_class, generator)
    real = None if arm.everything else scenes_of(rows, "train", generator)
    drawn = None
    if arm.drawn == "generator_base":

        def sample(words: Tensor, generator: torch.Generator) -> Tensor:
            return sample_generator(base_generator(), words, generator=generator)

        drawn = drawn_pictures(sample, recipe.drawings, generator)
    elif arm.drawn == "own":
        model = train_own(real, recipe.vae, generator)

        def sample(words: Tensor, generator: torch.Generator) -> Tensor:
            return sample_vae(model, words, generator=generator)

        drawn = drawn_pictures(sample, recipe.drawings, generator)
    count = recipe.classifier.batch // (1 if drawn is None else 2)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(rows), (count,), generator=generator)
        if arm.everything:
            part = scenes_of(rows[index], "train", generator)
            images, garments = part.images, part.garments
        elif arm.recomposed:
            labels = scene_labels(real.garments[index], generator)
            images, garments = in_scenes(rows[index], "train", labels).images, labels[:, 2]
        else:
            images, garments = real.images[index], real.garments[index]
        if drawn is not None:
            index = torch.randint(len(drawn[1]), (count,), generator=generator)
            images = torch.cat([images, drawn[0][index]])
            garments = torch.cat([garments, drawn[1][index]])
        return (move(images, generator) if arm.moved else images), garments

    return batch


def arm_accuracy(name: str, seed: int, recipe: AugmentationRecipe = RECIPE) -> float:
    """Share of real test pictures whose garment the arm's classifier names, in [0, 1].

    Raises ValueError for an unknown arm.
    """
    if name not in ARMS:
        raise ValueError(f"there is no arm {name!r}; choose from {', '.join(ARMS)}.")
    model = train_classifier(arm_batches(ARMS[name], recipe, seed), recipe.classifier, seed)
    test = scored_scenes(recipe.test)
    return float(right(model, test.images, test.garments).mean())
