"""Train VAEs: any batches with `train_vae`, the two shipped ones with `train_shipped_vae`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import save_checkpoint
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.datasets.scenes import scene_batches
from fastgen_course.files import require, sha256_of
from fastgen_course.models.vae import VAE_DIGITS, VAE_FASHION, ConvVAE, VAEConfig
from fastgen_course.timing import machine
from fastgen_course.training.elbo import (
    KLFunction,
    LikelihoodFunction,
    SampleFunction,
    elbo_terms,
    gaussian_log_likelihood,
    kl_divergence,
    reparameterise,
)
from fastgen_course.training.judges import fashion_sha256
from fastgen_course.training.loop import Training, cosine_with_warmup, set_rate

#: A batch: images (B, C, 28, 28), and words (B, W) or None for a model without captions.
ImageBatches = Iterator[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class VAERecipe:
    """How a VAE is trained: steps of `batch` images, KL weight beta, Adam's top rate, seed.

    sigma_rate multiplies the learning rate of the decoder's log sigma, one number that has further
    to go than any weight: a short training needs more than 1.
    """

    steps: int
    batch: int
    beta: float
    learning_rate: float
    seed: int
    sigma_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"a VAE trains on at least one batch of one image, got {self}")
        if self.beta < 0:
            raise ValueError(f"beta weighs the KL and cannot be negative, got {self.beta}")


#: About a minute on one core: the live training of notebook 02, and the shipped `vae_digits`.
VAE_DIGITS_RECIPE = VAERecipe(
    steps=800, batch=64, beta=10.0, learning_rate=4e-3, seed=2, sigma_rate=10.0
)
VAE_FASHION_RECIPE = VAERecipe(steps=4000, batch=64, beta=4.0, learning_rate=2e-3, seed=2)


def new_vae(config: VAEConfig, seed: int) -> ConvVAE:
    """A VAE with fresh weights drawn from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layer initialisation draws from the global generator
        return ConvVAE(config)


def digit_batches(batch: int, generator: torch.Generator) -> ImageBatches:
    """Endless random batches of training digits, (B, 1, 28, 28), without words."""
    images = load_digits_subset("train").images
    while True:
        yield images[torch.randint(len(images), (batch,), generator=generator)], None


def fashion_batches(batch: int, generator: torch.Generator) -> ImageBatches:
    """Endless captioned scenes (B, 3, 28, 28) with words, no held-out combination among them."""
    for scenes in scene_batches("train", batch, generator):
        yield scenes.images, scenes.words


def train_vae(
    model: nn.Module,
    batches: ImageBatches,
    recipe: VAERecipe,
    generator: torch.Generator,
    *,
    kl: KLFunction = kl_divergence,
    sample: SampleFunction = reparameterise,
    log_likelihood: LikelihoodFunction = gaussian_log_likelihood,
    name: str | None = None,
    log_every: int = 20,
    quiet: bool = False,
    on_log: Callable[[Training], None] | None = None,
) -> dict[str, list[float]]:
    """Minimise beta KL - log-likelihood, one noise sample an image; stops after `recipe.steps`.

    Args:
        model: a ConvVAE; trained in place and left in eval mode.
        batches: endless (images, words or None).
        recipe: steps, batch, beta, learning rate.
        generator: draws the noise; `batches` may draw from it too.
        kl, sample, log_likelihood: the pieces of the ELBO, for readers to replace by their own.
        name: makes the training resumable: a killed run of that name goes on where it stopped.

    Returns:
        The history: lists `step`, `loss`, `log_likelihood`, `rate` (nats an image), `mse`
        (a pixel), `sigma`, each the mean over the `log_every` steps before.
    """
    weights = [p for p in model.parameters() if p is not model.log_sigma]
    optimiser = torch.optim.Adam([{"params": weights}, {"params": [model.log_sigma]}])
    parts = {"model": model, "optimiser": optimiser}
    training = Training(name or "vae", parts, generator, recipe.steps)
    if name:
        training.resume()
    else:
        training.save_every_s = float("inf")
    model.train()

    def step(index: int) -> dict[str, float]:
        set_rate(optimiser, recipe.learning_rate * cosine_with_warmup(index, recipe.steps, 50))
        optimiser.param_groups[1]["lr"] *= recipe.sigma_rate
        images, words = next(batches)
        noise = torch.randn(len(images), model.config.latent, generator=generator)
        terms = elbo_terms(
            model,
            images,
            noise.to(images),
            words,
            beta=recipe.beta,
            kl=kl,
            sample=sample,
            log_likelihood=log_likelihood,
        )
        optimiser.zero_grad(set_to_none=True)
        terms.loss.backward()
        optimiser.step()
        return {
            "loss": terms.loss.item(),
            "log_likelihood": terms.log_likelihood.mean().item(),
            "rate": terms.rate.mean().item(),
            "mse": terms.mse.item(),
            "sigma": model.sigma.item(),
        }

    report = (lambda _: on_log(training)) if on_log else None
    history = training.run(step, log_every=log_every, quiet=quiet, on_log=report)
    model.eval()
    if name:
        training.save()  # a failing export loses nothing; `train_shipped_vae` removes it
    history["seconds"] = [training.seconds]
    return history


@torch.no_grad()
def evaluate_vae(
    model: ConvVAE, images: Tensor, words: Tensor | None = None, seed: int = 5
) -> dict[str, float]:
    """ELBO (beta = 1), rate in nats an image and squared error a pixel on given images."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(images), model.config.latent, generator=generator)
    terms = elbo_terms(model.eval(), images, noise.to(images), words)
    return {
        "elbo": terms.elbo.mean().item(),
        "rate": terms.rate.mean().item(),
        "mse": terms.mse.item(),
        "active_latents": int((terms.kl.mean(0) > ACTIVE_NATS).sum()),
    }


#: A latent that carries less than this many nats on average is called dead.
ACTIVE_NATS = 0.1


@torch.no_grad()
def latent_usage(model: nn.Module, images: Tensor, words: Tensor | None = None) -> Tensor:
    """KL(q(z_i|x) || prior) of each latent, averaged over the images: (latent,), in nats."""
    mu, logvar = model.encode(images)
    return kl_divergence(mu, logvar, *model.prior(mu, words)).mean(0)


def train_shipped_vae(name: str, quiet: bool = False) -> dict:
    """Train `vae_digits` or `vae_fashion`, resuming a killed run; ships it, returns its card."""
    if name not in ("vae_digits", "vae_fashion"):
        raise ValueError(f'there is no VAE {name!r}; choose "vae_digits" or "vae_fashion"')
    digits = name == "vae_digits"
    config, recipe = (
        (VAE_DIGITS, VAE_DIGITS_RECIPE) if digits else (VAE_FASHION, VAE_FASHION_RECIPE)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    model = new_vae(config, recipe.seed)
    batches = (digit_batches if digits else fashion_batches)(recipe.batch, generator)

    def report(training: Training) -> None:
        if training.step % 500 == 0 and not quiet:
            recent = {k: round(v[-1], 4) for k, v in training.history.items()}
            print(name, f"{training.seconds:.0f} s", recent, flush=True)

    history = train_vae(
        model,
        batches,
        recipe,
        generator,
        name=name,
        log_every=20 if digits else 100,
        quiet=quiet,
        on_log=report,
    )
    if digits:
        images, words = load_digits_subset("test").images, None
        data_hash = sha256_of(require("digits/mnist_5k.npz"))
    else:
        scenes = next(scene_batches("test", 2000, torch.Generator().manual_seed(5)))
        images, words = scenes.images, scenes.words
        data_hash = fashion_sha256()
    seconds = history.pop("seconds")[0]
    card = save_checkpoint(
        name,
        model,
        {
            "seed": recipe.seed,
            "recipe": asdict(recipe),
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": data_hash,
            "minutes": round(seconds / 60, 1),
            "machine": machine(),
            "metrics": {f"test_{k}": v for k, v in evaluate_vae(model, images, words).items()},
            "history": {k: [round(x, 4) for x in v] for k, v in history.items()},
        },
    )
    Training(name, {}, generator, recipe.steps).finish()
    return card
