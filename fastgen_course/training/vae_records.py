"""Record the figures of notebook 02, by name (gap, sweep, fashion) or all of them.

    python -m fastgen_course.training.vae_records [gap|sweep|fashion]

Without a name all three are recorded, in about ten minutes on one core.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.digits import load_digits_subset
from fastgen_course.metrics import evaluate, frechet_distance, gaussian_moments
from fastgen_course.metrics.features import digit_judge
from fastgen_course.models.vae import VAE_DIGITS, ConvVAE, LinearVAE
from fastgen_course.sampling.vae import reconstruct, sample_vae
from fastgen_course.timing import record, result
from fastgen_course.training.elbo import reparameterise, use_mean
from fastgen_course.training.linear_vae import elbo_gap_error, posterior_kl
from fastgen_course.training.recorders import run_recorders
from fastgen_course.training.vae import (
    VAE_DIGITS_RECIPE,
    digit_batches,
    evaluate_vae,
    new_vae,
    train_vae,
)

COMMAND = "python -m fastgen_course.training.vae_records"
SWEEP_BETAS = (1.0, 3.0, 10.0, 40.0)
SWEEP_STEPS = 400
_QUANTITIES = {
    "rate": "nats",
    "mse": "pixel MSE",
    "mse_mean": "pixel MSE",
    "frechet": "FID, digits",
    "code_std": "std",
}


@dataclass(frozen=True)
class SweepPoint:
    """A digit VAE after a short training: on test digits, and of its own samples.

    rate in nats an image, mse a pixel through z ~ q(z|x), mse_mean through z = mu(x), frechet of
    1,000 samples (see `digit_frechet`), code_std the root mean square of mu(x) over test digits and
    latents.
    """

    rate: float
    mse: float
    mse_mean: float
    frechet: float
    code_std: float


def digit_frechet(images: Tensor) -> float:
    """Frechet distance of digits (B, 1, 28, 28) to the 1,000 test digits, in the digit judge's 64
    features: FID for digits. Compare equal numbers of images only."""
    judge = digit_judge()

    @torch.inference_mode()
    def moments(digits: Tensor):
        return gaussian_moments(torch.cat([judge.features(part) for part in digits.split(250)]))

    return frechet_distance(*moments(images), *moments(load_digits_subset("test").images))


@torch.inference_mode()
def sweep_point(model: ConvVAE, seed: int = 0) -> SweepPoint:
    """Measure a trained digit VAE."""
    images = load_digits_subset("test").images
    figures = evaluate_vae(model, images)
    samples = sample_vae(model, n=1000, generator=torch.Generator().manual_seed(seed))
    code_std = model.encode(images)[0].pow(2).mean().sqrt().item()
    return SweepPoint(
        rate=figures["rate"],
        mse=figures["mse"],
        mse_mean=(reconstruct(model, images) - images).pow(2).mean().item(),
        frechet=digit_frechet(samples),
        code_std=code_std,
    )


def sweep_name(quantity: str, beta: float, sampled: bool = True) -> str:
    """The registry's name of one figure of the sweep."""
    variant = f"beta_{beta:g}".replace(".", "_") if sampled else "no_sampling"
    return f"vae.digits_{quantity}.{variant}"


def record_sweep() -> None:
    """Short digit trainings over beta, and one without sampling, each at the same budget."""
    runs = [(beta, True) for beta in SWEEP_BETAS] + [(VAE_DIGITS_RECIPE.beta, False)]
    for beta, sampled in runs:
        recipe = replace(VAE_DIGITS_RECIPE, steps=SWEEP_STEPS, beta=beta)
        generator = torch.Generator().manual_seed(recipe.seed)
        model = new_vae(VAE_DIGITS, recipe.seed)
        train_vae(
            model,
            digit_batches(recipe.batch, generator),
            recipe,
            generator,
            sample=reparameterise if sampled else use_mean,
            quiet=True,
        )
        point = sweep_point(model)
        for quantity, value in asdict(point).items():
            record(
                "vae",
                sweep_name(quantity, beta, sampled),
                value,
                _QUANTITIES[quantity],
                spread=None,
                command=f"{COMMAND} sweep",
                base=f"VAE_DIGITS, {SWEEP_STEPS} steps",
                beta=beta,
            )
        print("beta", beta, "" if sampled else "without sampling", point, flush=True)
    noise = torch.rand(1000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, images, words in (
        ("floor", load_digits_subset("train").images[:1000], "1,000 training digits"),
        ("ceiling", noise, "uniform noise"),
    ):
        record(
            "vae",
            f"vae.digits_frechet.{name}",
            digit_frechet(images),
            "FID, digits",
            spread=None,
            command=f"{COMMAND} sweep",
            base=words,
        )


def recorded_sweep() -> dict[float, SweepPoint]:
    """The recorded sweep, beta to point."""
    return {beta: _recorded_point(beta, True) for beta in SWEEP_BETAS}


def recorded_without_sampling() -> SweepPoint:
    """The recorded training with z = mu(x)."""
    return _recorded_point(VAE_DIGITS_RECIPE.beta, False)


def _recorded_point(beta: float, sampled: bool) -> SweepPoint:
    return SweepPoint(**{q: float(result(sweep_name(q, beta, sampled))) for q in _QUANTITIES})


def record_gap() -> float:
    """The ELBO's gap against the posterior KL, on a linear VAE whose q is far from the posterior.

    Recorded is the worst of 200 test digits (pooled to 7x7, float64): the gap log p(x) - ELBO
    through `elbo_terms` with its expectation by quadrature, minus the closed-form KL.
    """
    pooled = torch.nn.functional.avg_pool2d(load_digits_subset("test").images[:200], 4)
    x = pooled.flatten(1).double()
    model = LinearVAE(x.shape[1], latent=4, sigma2=0.3, mean=x.mean(0))
    model.initialise(torch.Generator().manual_seed(0), scale=0.3).requires_grad_(False)
    errors = elbo_gap_error(model, x)
    record(
        "vae",
        "vae.elbo_gap_error",
        errors.max().item(),
        "nats",
        spread=(errors.min().item(), errors.max().item()),
        command=f"{COMMAND} gap",
        base="LinearVAE, 49 pixels, 4 latents",
        dtype="float64",
        mean_gap_nats=round(posterior_kl(model, x).mean().item(), 3),
    )
    print("elbo gap error", errors.max().item(), flush=True)
    return errors.max().item()


def record_fashion() -> None:
    """FID, accuracies, precision and recall of `vae_fashion`: 10,000 captions, three seeds."""
    model = load_model("vae_fashion")
    report = evaluate(lambda captions, generator: sample_vae(model, captions, generator=generator))
    report.record("vae_fashion", command=f"{COMMAND} fashion", base="vae_fashion")
    print(report, flush=True)


RECORDERS = {"gap": record_gap, "sweep": record_sweep, "fashion": record_fashion}


def main(names: list[str]) -> int:
    """Run the named recorders, all without a name; 2 for an unknown one."""
    return run_recorders(names, RECORDERS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
