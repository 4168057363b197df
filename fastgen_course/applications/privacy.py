"""A garment classifier with and without differential privacy (DP-SGD), and what an attack sees.

DP-SGD (Abadi et al. 2016) clips each photograph's gradient and adds noise to their sum. Then
whatever an attacker computes from the network, one photograph more or less changes its probability
by at most a factor e**epsilon, but for a chance delta. Opacus does both and counts epsilon.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastgen_course.applications.attacks import Attack, assess
from fastgen_course.applications.augmentation import scored_scenes
from fastgen_course.applications.classifier import GarmentNet, losses, new_classifier, right
from fastgen_course.applications.photographs import SceneSet, draw_photographs, scenes_of
from fastgen_course.metrics.intervals import Estimate, estimate

INSTALL = (
    "the privacy part needs Opacus, which is not installed; install it with "
    "`python -m pip install -c constraints.txt opacus`."
)


class OpacusMissing(RuntimeError):
    """Opacus is not installed; the message says what to type."""


@dataclass(frozen=True)
class PrivacyRecipe:
    """How the classifier is trained, with and without privacy.

    Attributes:
        per_class: photographs of each garment, one scene each: a photograph is one record.
        epochs: expected passes over them.
        batch: expected records an update (each joins with the same chance: Poisson sampling).
        rate: Adam's.
        clip: largest length of a record's gradient, with privacy.
        delta: the chance left out of the promise; well below one over the number of records.
        width: of GarmentNet.
        test: test photographs a class.
    """

    per_class: int = 300
    epochs: int = 30
    batch: int = 256
    rate: float = 2e-3
    clip: float = 1.0
    delta: float = 1e-5
    width: int = 8
    test: int = 500


RECIPE = PrivacyRecipe()
TINY = PrivacyRecipe(per_class=4, epochs=2, batch=16, width=4, test=3)
# Epsilon of each row; None is without privacy.
LEVELS: dict[str, float | None] = {"plain": None, "epsilon_8": 8.0, "epsilon_2": 2.0}


class Trained(NamedTuple):
    """A classifier and what is known of it.

    Attributes:
        accuracy: share of test pictures whose garment it names.
        accuracy_train: the same of its own training pictures.
        attack: members are the training pictures, strangers test pictures; the attack's number is
            minus the loss (Yeom et al. 2018).
        epsilon: what the accountant says was spent; None without privacy.
        noise: the noise's standard deviation over `clip`; 0 without privacy.
    """

    accuracy: Estimate
    accuracy_train: Estimate
    attack: Attack
    epsilon: float | None
    noise: float


def require_opacus() -> None:
    """Raise OpacusMissing, in one sentence with the mend, where Opacus cannot be imported."""
    try:
        import opacus  # noqa: F401
    except ImportError as error:
        raise OpacusMissing(INSTALL) from error


def train_private(
    scenes: SceneSet, epsilon: float | None, recipe: PrivacyRecipe, seed: int
) -> tuple[nn.Module, float | None, float]:
    """Train a GarmentNet on scenes; returns it, the epsilon spent and the noise multiplier.

    With `epsilon` None the same sampler and steps train without clipping and noise.

    The promise holds for noise that nobody can predict. Here it comes from a seed, so that the
    figure can be measured again: who trains for people keeps no seed (Opacus: `secure_mode=True`).
    """
    require_opacus()
    from opacus import PrivacyEngine
    from opacus.data_loader import DPDataLoader

    model = new_classifier(seed, recipe.width)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    data = TensorDataset(scenes.images, scenes.garments)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(data, batch_size=recipe.batch, generator=generator)
    engine = None
    # Opacus warns of the seed (see above), of hooks, and of an order at the end of its range.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        if epsilon is None:
            loader = DPDataLoader.from_data_loader(loader, generator=generator)
        else:
            engine = PrivacyEngine(accountant="prv")
            model, optimiser, loader = engine.make_private_with_epsilon(
                module=model, optimizer=optimiser, data_loader=loader, epochs=recipe.epochs,
                target_epsilon=epsilon, target_delta=recipe.delta, max_grad_norm=recipe.clip,
                noise_generator=generator,
            )  # fmt: skip
        model.train()
        for _ in range(recipe.epochs):
            for images, garments in loader:
                if len(images) == 0:  # Poisson sampling may choose nobody
                    continue
                optimiser.zero_grad(set_to_none=True)
                F.cross_entropy(model(images), garments).backward()
                optimiser.step()
        spent = None if engine is None else engine.get_epsilon(recipe.delta)
    plain = GarmentNet(recipe.width)
    plain.load_state_dict({k.removeprefix("_module."): v for k, v in model.state_dict().items()})
    return plain.eval(), spent, 0.0 if engine is None else float(optimiser.noise_multiplier)


def measure_privacy(level: str, recipe: PrivacyRecipe = RECIPE, seed: int = 0) -> Trained:
    """Train one of LEVELS and measure it. Raises OpacusMissing, ValueError for another level."""
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r}; choose from {', '.join(LEVELS)}.")
    require_opacus()
    generator = torch.Generator().manual_seed(43)
    rows = draw_photographs("train", recipe.per_class, generator)
    scenes = scenes_of(rows, "train", generator)
    model, epsilon, noise = train_private(scenes, LEVELS[level], recipe, seed)
    test = scored_scenes(recipe.test)
    return Trained(
        accuracy=estimate(right(model, test.images, test.garments)),
        accuracy_train=estimate(right(model, scenes.images, scenes.garments)),
        attack=assess(
            -losses(model, scenes.images, scenes.garments),
            -losses(model, test.images, test.garments),
        ),
        epsilon=epsilon,
        noise=noise,
    )
