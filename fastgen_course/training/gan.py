"""Train GENERATOR_BASE as a conditional GAN on captioned scenes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.models.discriminator import ProjectedDiscriminator, judge_features
from fastgen_course.models.generator import GENERATOR_BASE, Generator, GeneratorConfig
from fastgen_course.models.judges import SlotJudge, label_slots, slot_loss
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class GANRecipe:
    """How a generator is trained; every competitor of GENERATOR_BASE gets the same.

    Attributes:
        steps: generator updates.
        batch: scenes an update.
        pack: pictures of one caption that the discriminator sees at once.
        generator_rate, discriminator_rate: Adam's learning rates at their height.
        slot_weight: weight of `judge_train`'s cross-entropy on the asked-for slots.
        average: decay of the running average that is shipped.
        seed: of weights, batches and noise.
    """

    steps: int = 6500
    batch: int = 64
    pack: int = 2
    generator_rate: float = 8e-4
    discriminator_rate: float = 8e-4
    slot_weight: float = 0.15
    average: float = 0.999
    seed: int = 7


GAN_RECIPE = GANRecipe()


class GANTrainer:
    """One generator's training: `Training` calls `step`, everything else is state."""

    def __init__(
        self,
        name: str,
        config: GeneratorConfig = GENERATOR_BASE,
        recipe: GANRecipe = GAN_RECIPE,
        judge: SlotJudge | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """`model`: what to train on; None begins with fresh weights of `config`."""
        self.name, self.recipe = name, recipe
        self.judge = (judge or load_model("judge_train")).to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # layer initialisation draws from the global generator
            model = Generator(config) if model is None else model
            self.model = model.to(memory_format=torch.channels_last)
            self.discriminator = ProjectedDiscriminator(
                self.judge.config.channels, self.judge.config.features, pack=recipe.pack
            ).to(memory_format=torch.channels_last)
        self.average = RunningAverage(self.model, recipe.average)
        self.g_optimiser = torch.optim.Adam(
            self.model.parameters(), lr=recipe.generator_rate, betas=(0.0, 0.99)
        )
        self.d_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=recipe.discriminator_rate, betas=(0.0, 0.99)
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.batches = scene_batches("train", recipe.batch, self.generator, repeats=recipe.pack)
        parts = {
            "generator": self.model,
            "discriminator": self.discriminator,
            "average": self.average,
            "g_optimiser": self.g_optimiser,
            "d_optimiser": self.d_optimiser,
        }
        self.training = Training(name, parts, self.generator, recipe.steps)

    def _noise(self) -> torch.Tensor:
        shape = (self.recipe.batch, self.model.config.noise)
        return torch.randn(shape, generator=self.generator)

    def rates(self, index: int) -> tuple[float, float]:
        """Learning rates of generator and discriminator at a step."""
        factor = cosine_with_warmup(index, self.recipe.steps)
        return self.recipe.generator_rate * factor, self.recipe.discriminator_rate * factor

    def held(
        self, noise: torch.Tensor, words: torch.Tensor, fake: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor | float:
        """A further term of the generator's loss, for those that begin with a trained network.

        fake: what it drew; features (B, F, 1, 1): the judge's penultimate layer on that.
        """
        return 0.0

    def step(self, index: int) -> dict[str, float]:
        """One update of the discriminator (hinge loss), one of the generator."""
        for optimiser, rate in zip(
            (self.g_optimiser, self.d_optimiser), self.rates(index), strict=True
        ):
            set_rate(optimiser, rate)
        self.model.train()
        self.discriminator.train()
        real = next(self.batches)
        images = real.images.contiguous(memory_format=torch.channels_last)
        noise = self._noise()
        fake = self.model(noise, real.words)

        # The judge looks at the fakes once: detached features train the discriminator, the same
        # features with their graph train the generator.
        with torch.no_grad():
            real_features = judge_features(self.judge, images)
        features = judge_features(self.judge, fake)
        real_logits = self.discriminator(real_features, real.asked)
        fake_logits = self.discriminator([f.detach() for f in features], real.asked)
        d_loss = sum(
            F.relu(1 - r).mean() + F.relu(1 + f).mean()
            for r, f in zip(real_logits, fake_logits, strict=True)
        )
        self.d_optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.d_optimiser.step()

        self.discriminator.requires_grad_(False)
        adversarial = -sum(x.mean() for x in self.discriminator(features, real.asked))
        slots = slot_loss(self.judge.classify(features[-1].flatten(1)), real.asked)
        self.g_optimiser.zero_grad(set_to_none=True)
        held = self.held(noise, real.words, fake, features[-1])
        (adversarial + self.recipe.slot_weight * slots + held).backward()
        self.g_optimiser.step()
        self.discriminator.requires_grad_(True)
        self.average.update(self.model)
        return {"d_loss": d_loss.item(), "g_loss": adversarial.item(), "slots": slots.item()}

    @torch.no_grad()
    def check(self, n: int = 1000) -> dict[str, float]:
        """`judge_train`'s view of fresh samples of the average: share of slots, exact."""
        generator = torch.Generator().manual_seed(99)
        batch = next(scene_batches("train", n, generator, free_share=0.0))
        noise = torch.randn(n, self.model.config.noise, generator=generator)
        right = label_slots(self.judge, self.average.model(noise, batch.words)) == batch.labels
        return {"slots": right.float().mean().item(), "exact": right.all(1).float().mean().item()}


def train_generator(
    name: str = "generator_base",
    config: GeneratorConfig = GENERATOR_BASE,
    recipe: GANRecipe = GAN_RECIPE,
    quiet: bool = False,
) -> dict:
    """Train a generator, resuming where a killed run stopped; ships its average."""
    trainer = GANTrainer(name, config, recipe)
    training = trainer.training
    training.resume()

    def report(step: int) -> None:
        if step % 500 == 0:
            recent = {k: round(v[-1], 3) for k, v in training.history.items()}
            print(name, f"{training.seconds:.0f} s", recent, trainer.check(), flush=True)

    training.run(trainer.step, quiet=quiet, on_log=report)
    return ship(
        name,
        trainer.average.model,
        training,
        recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check(5000).items()},
    )
