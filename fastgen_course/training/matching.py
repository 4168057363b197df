"""Matching: a network learns to draw what another one draws for the same noise and caption.

The teacher is a one-step network, cheap enough to be asked anew at every update, and its picture is
a function of noise and caption. Regression on such pairs does not blur (notebook 13). It is
knowledge distillation (Hinton, Vinyals and Dean 2015) with pictures for answers, and it serves
whatever changes a trained generator: fewer channels, a supernet's slices, a grid of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.discriminator import judge_features
from fastgen_course.models.judges import SlotJudge, label_slots
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.transport import FeatureTransport

# FID of a fresh network of a quarter of GENERATOR_BASE's products after 2,500 updates, by hand, one
# seed: weight 0.25 gave 18.3, 1 gave 19.8, 4 gave 53.5 (it paints for this judge, and the one that
# scores is another); pixels alone stood at 72 after 1,390.
FEATURES = 0.4


@dataclass(frozen=True)
class MatchRecipe:
    """How a network is brought to draw another's pictures.

    Attributes:
        steps: updates, from 1.
        batch: captions an update, from 1.
        rate: Adam's learning rate at its height, above 0.
        features: weight of the distance in `judge_train`'s penultimate layer beside the pixels',
            from 0; 0 spares the judge. Much of it paints for this judge: FEATURES says what was
            tried.
        transport: weight of the pull that moves mean and covariance of the judge's features to
            those of photographs (`training.transport`), from 0.
        average: decay of the running average that is kept, in [0, 1).
        seed: of captions and noise.

    Raises ValueError for a field out of its range.
    """

    steps: int = 1500
    batch: int = 64
    rate: float = 1e-3
    features: float = FEATURES
    transport: float = 0.0
    average: float = 0.995
    seed: int = 41

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(
                f"steps and batch must be at least 1, got {self.steps} and {self.batch}."
            )
        if self.rate <= 0 or min(self.features, self.transport) < 0 or not 0 <= self.average < 1:
            raise ValueError(
                "rate must be above 0, features and transport at least 0 and average from 0 up to "
                f"1 (without it), got {self.rate}, {self.features}, {self.transport} and "
                f"{self.average}."
            )


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """Mean square error as a share of the target's variance: pixels and features then weigh alike.

    1 is what the mean of all targets would get, 0 the targets themselves.
    """
    return (x - target).square().mean() / target.var().clamp(min=1e-8)


class MatchTrainer:
    """One network's training towards another's pictures; a killed run goes on where it was.

    Attributes:
        model: what learns; any network from (noise, words) to pictures with `config.noise`.
        original: what it learns from, unchanged.
        average: the running average of `model`'s weights.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        original: nn.Module,
        recipe: MatchRecipe | None = None,
        judge: SlotJudge | None = None,
    ) -> None:
        """Raises ValueError unless both networks draw from noise of one length."""
        self.name, self.recipe = name, recipe or MatchRecipe()
        if model.config.noise != original.config.noise:
            raise ValueError(
                "both networks must draw from the same noise: config.noise is "
                f"{model.config.noise} for the one that learns, {original.config.noise} for the "
                "other."
            )
        last = torch.channels_last
        self.judge = (judge or load_model("judge_train")).to(memory_format=last)
        self.original = original.eval().requires_grad_(False).to(memory_format=last)
        self.model = model.requires_grad_(True).to(memory_format=last)
        self.average = RunningAverage(self.model, self.recipe.average)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=self.recipe.rate, betas=(0.9, 0.99)
        )
        self.generator = torch.Generator().manual_seed(self.recipe.seed)
        self.batches = scene_batches("train", self.recipe.batch, self.generator)
        parts = {"model": self.model, "average": self.average, "optimiser": self.optimiser}
        self.transport = None
        if self.recipe.transport:
            self.transport = parts["transport"] = FeatureTransport(self.judge)
        self.training = Training(name, parts, self.generator, self.recipe.steps)

    def lesson(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(noise, words, the original's pictures, what the judge sees in them)."""
        words = next(self.batches).words
        noise = torch.randn(len(words), self.model.config.noise, generator=self.generator)
        with torch.no_grad():
            pictures = self.original(noise, words)
            seen = judge_features(self.judge, pictures)[-1] if self.recipe.features else None
        return noise, words, pictures, seen

    def distance(self, drawn: Tensor, pictures: Tensor, seen: Tensor | None) -> Tensor:
        """How far drawn pictures are from the original's, in pixels and in the judge's features.

        With `transport`, also how far those features are from where the photographs' would be.
        """
        loss = relative_error(drawn, pictures)
        if seen is None and self.transport is None:
            return loss
        features = judge_features(self.judge, drawn)[-1]
        if seen is not None:
            loss = loss + self.recipe.features * relative_error(features, seen)
        if self.transport is not None:
            features = features.flatten(1)
            target = self.transport.target(features.detach())
            if target is not None:
                loss = loss + self.recipe.transport * relative_error(features, target)
        return loss

    def loss(self) -> Tensor:
        """The distance on a fresh batch; a trainer of several networks at once replaces it."""
        noise, words, pictures, seen = self.lesson()
        return self.distance(self.model(noise, words), pictures, seen)

    def step(self, index: int) -> dict[str, float]:
        """One update."""
        set_rate(self.optimiser, self.recipe.rate * self.factor(index))
        self.model.train()
        loss = self.loss()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.average.update(self.model)
        return {"distance": loss.item()}

    def factor(self, index: int) -> float:
        """The learning rate's factor: a short warm-up, then half a cosine."""
        return cosine_with_warmup(index, self.recipe.steps, min(100, self.recipe.steps // 10))

    def run(
        self,
        quiet: bool = False,
        *,
        keep: bool = False,
        on_log: Callable[[int], None] | None = None,
    ) -> nn.Module:
        """Train to the end, going on where a killed run stopped; returns the running average.

        keep: save the last state, so that asking again gives the same network at once.
        """
        self.training.resume()

        def report(step: int) -> None:
            if step % 200 == 0 and not quiet:
                recent = {k: round(v[-1], 4) for k, v in self.training.history.items()}
                print(self.name, f"{self.training.seconds:.0f} s", recent, flush=True)
            if on_log:
                on_log(step)

        if self.training.step < self.training.steps:
            self.training.run(self.step, quiet=quiet, on_log=report)
            if keep:
                self.training.save()
        return self.average.model.eval()

    @torch.no_grad()
    def check(self, n: int = 1000) -> dict[str, float]:
        """`judge_train`'s view of fresh samples of the average: share of slots, exact."""
        generator = torch.Generator().manual_seed(99)
        batch = next(scene_batches("train", n, generator, free_share=0.0))
        noise = torch.randn(n, self.model.config.noise, generator=generator)
        drawn = [
            self.average.model(z, y)
            for z, y in zip(noise.split(250), batch.words.split(250), strict=True)
        ]
        right = label_slots(self.judge, torch.cat(drawn)) == batch.labels
        return {"slots": right.float().mean().item(), "exact": right.all(1).float().mean().item()}
