"""Train the adversarial one-step student of notebook 08: noise and caption to a latent at once.

Regression cannot make a one-step drawer sharp where the teacher's way from noise to latent is hard
to learn: it answers with a mean. A discriminator compares the decoded drawings with real pictures,
as a whole distribution, while a loose hold on the teacher's own pairs keeps the coupling that the
student began with (Sauer et al. 2023, "Adversarial Diffusion Distillation").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.scenes import Batch, scene_batches
from fastgen_course.models.discriminator import ProjectedDiscriminator, judge_features
from fastgen_course.models.flow import VelocityNet
from fastgen_course.models.judges import SlotJudge, label_slots, slot_loss
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.flow import sample_flow
from fastgen_course.training.flow import VAE, LatentBatch, batches_of, teacher_pairs
from fastgen_course.training.loop import RunningAverage, Training, cosine_with_warmup, set_rate
from fastgen_course.training.shipping import ship

PAIRS = 20_000


@dataclass(frozen=True)
class StudentRecipe:
    """How the student is trained; discriminator, pack and slots as GENERATOR_BASE's recipe.

    Attributes:
        steps: updates.
        batch: scenes an update.
        pack: pictures of one caption that the discriminator sees at once.
        pairs: the teacher's pairs an update.
        rate, discriminator_rate: Adam's learning rates at their height.
        slot_weight: weight of `judge_train`'s cross-entropy on the asked-for slots.
        coupling: weight of the squared distance to the teacher's latent for the same noise.
        average: decay of the running average that is shipped.
        seed: of the discriminator's weights, batches and noise.
    """

    steps: int = 2200
    batch: int = 64
    pack: int = 2
    pairs: int = 128
    rate: float = 2e-4
    discriminator_rate: float = 8e-4
    slot_weight: float = 0.15
    coupling: float = 0.5
    average: float = 0.998
    seed: int = 18


STUDENT_RECIPE = StudentRecipe()


def one_step(model: VelocityNet, noise: Tensor, words: Tensor) -> Tensor:
    """Normalised latent vectors (B, latent): noise + v(noise, y, 0), one Euler step of length 1.

    With gradient; `sample_latents(model, ..., steps=1)` draws the same.
    """
    return noise + model(noise, words, torch.zeros(len(noise)))


class StudentTrainer:
    """One student's training: `Training` calls `step`, everything else is state."""

    def __init__(
        self,
        model: VelocityNet,
        vae: ConvVAE,
        judge: SlotJudge,
        pairs: LatentBatch,
        recipe: StudentRecipe = STUDENT_RECIPE,
        name: str | None = None,
    ) -> None:
        self.recipe = recipe
        self.vae = vae.eval().requires_grad_(False)
        self.judge = judge.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.model = model.requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # layer initialisation draws from the global generator
            self.discriminator = ProjectedDiscriminator(
                judge.config.channels, judge.config.features, pack=recipe.pack
            ).to(memory_format=torch.channels_last)
        self.average = RunningAverage(self.model, recipe.average)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate, betas=(0.0, 0.99))
        self.d_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=recipe.discriminator_rate, betas=(0.0, 0.99)
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.scenes: Iterator[Batch] = scene_batches(
            "train", recipe.batch, self.generator, repeats=recipe.pack
        )
        self.pairs = batches_of(pairs, recipe.pairs, self.generator)
        parts = {
            "model": self.model,
            "discriminator": self.discriminator,
            "average": self.average,
            "optimiser": self.optimiser,
            "d_optimiser": self.d_optimiser,
        }
        self.training = Training(name or "flow_student_trial", parts, self.generator, recipe.steps)
        if name is None:
            self.training.save_every_s = float("inf")

    def draw(self, words: Tensor) -> Tensor:
        """Pictures (B, 3, 28, 28) of captions (B, L) in one forward and a decoding."""
        shape = (len(words), self.model.config.latent)
        z = one_step(self.model, torch.randn(shape, generator=self.generator), words)
        return self.vae.decode(self.model.restore(z), words)

    def held(self) -> Tensor:
        """Squared distance to the teacher's latent vectors for the same noise and caption."""
        pairs = next(self.pairs)
        return F.mse_loss(one_step(self.model, pairs.noise, pairs.words), pairs.z)

    def step(self, index: int) -> dict[str, float]:
        """One update of the discriminator (hinge loss), one of the student."""
        factor = cosine_with_warmup(index, self.recipe.steps)
        set_rate(self.optimiser, self.recipe.rate * factor)
        set_rate(self.d_optimiser, self.recipe.discriminator_rate * factor)
        self.model.train()
        real = next(self.scenes)
        fake = self.draw(real.words)
        with torch.no_grad():
            images = real.images.contiguous(memory_format=torch.channels_last)
            real_features = judge_features(self.judge, images)
        features = judge_features(self.judge, fake)
        logits = zip(
            self.discriminator(real_features, real.asked),
            self.discriminator([f.detach() for f in features], real.asked),
            strict=True,
        )
        d_loss = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in logits)
        self.d_optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.d_optimiser.step()

        self.discriminator.requires_grad_(False)
        adversarial = -sum(x.mean() for x in self.discriminator(features, real.asked))
        self.discriminator.requires_grad_(True)
        slots = slot_loss(self.judge.classify(features[-1].flatten(1)), real.asked)
        coupling = self.held()
        loss = adversarial + self.recipe.slot_weight * slots + self.recipe.coupling * coupling
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update(self.model)
        return {
            "d_loss": d_loss.item(),
            "g_loss": adversarial.item(),
            "slots": slots.item(),
            "coupling": coupling.item(),
        }

    def run(self, quiet: bool = False, log_every: int = 100) -> VelocityNet:
        """Train to the end; returns the running average."""

        def report(step: int) -> None:
            if step % 500 == 0 and not quiet:
                recent = {k: round(v[-1], 3) for k, v in self.training.history.items()}
                print(self.training.name, f"{self.training.seconds:.0f} s", recent, flush=True)

        self.training.run(self.step, log_every=log_every, quiet=quiet, on_log=report)
        return self.average.model.eval()

    @torch.no_grad()
    def check(self, n: int = 2000) -> dict[str, float]:
        """`judge_train`'s view of fresh samples of the average: share of slots, exact."""
        generator = torch.Generator().manual_seed(99)
        batch = next(scene_batches("train", n, generator, free_share=0.0))
        images = sample_flow(
            self.average.model, self.vae, batch.words, generator=generator, steps=1
        )
        right = (label_slots(self.judge, images) == batch.labels) | (batch.labels == -1)
        return {"slots": right.float().mean().item(), "exact": right.all(1).float().mean().item()}


def train_flow_student(name: str = "flow_student", quiet: bool = False) -> dict:
    """Train the student from the reflowed network, resuming a killed run; ships its average."""
    recipe, vae = STUDENT_RECIPE, load_model(VAE)
    pairs = teacher_pairs(load_model("flow"), vae, PAIRS, recipe.seed + 1, quiet)
    model, judge = load_model("flow_reflow"), load_model("judge_train")
    trainer = StudentTrainer(model, vae, judge, pairs, recipe, name)
    trainer.training.resume()
    made = trainer.run(quiet)
    return ship(
        name,
        made,
        trainer.training,
        recipe,
        lambda: {f"judge_train_{k}": v for k, v in trainer.check().items()},
    )
