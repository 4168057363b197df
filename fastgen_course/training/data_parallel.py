"""Data-parallel training: the same gradients from many processes as from one.

    python -m fastgen_course.training.data_parallel                                    # one process
    torchrun --nproc-per-node 2 -m fastgen_course.training.data_parallel               # two

Every process holds the whole model and its rows of the global batch. The loss is a mean over the
global batch, (1/n) sum_i l_i, so its gradient is a sum over processes of what each can compute
alone: add the gradients up (one `all_reduce`) and every process takes the same step. Two things
break the equality. A mean of the processes' means is another loss when their shares are unequal.
And batch normalisation computes mean and variance over the rows that it sees: they, too, have to
be taken over all processes (`SharedBatchNorm`).

`torchrun` starts the processes and tells each its rank; gloo carries the sums between CPUs, nccl
between GPUs. `--compare` prints how far each way's gradients lie from one process's, `--record`
keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from fastgen_course.files import atomic_write
from fastgen_course.models.vae import VAE_DIGITS
from fastgen_course.timing import measure_once, record, threads_set
from fastgen_course.training.elbo import elbo_terms
from fastgen_course.training.vae import VAE_DIGITS_RECIPE, digit_batches, new_vae


@dataclass(frozen=True)
class Group:
    """The processes that train together: this one's rank, how many there are, its device."""

    rank: int = 0
    world: int = 1
    device: str | torch.device = "cpu"

    def rows(self, n: int) -> slice:
        """This process's rows of a global batch of n; the first ones get one more where needed."""
        whole, rest = divmod(n, self.world)
        start = self.rank * whole + min(self.rank, rest)
        return slice(start, start + whole + (self.rank < rest))


@contextmanager
def process_group() -> Iterator[Group]:
    """The group that `torchrun` started this process in; a group of one without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Group(device="cuda" if torch.cuda.is_available() else "cpu")
        return
    local = int(os.environ["LOCAL_RANK"])
    # nccl refuses two processes on one GPU
    gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()  # nobody closes its connections while another still reads from them
    finally:
        dist.destroy_process_group()


# --- gradients ----------------------------------------------------------------------------------


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add every parameter's gradient over all processes, in place, with one message.

    One long message costs one latency; a message a parameter costs as many as there are.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    parts = flat.split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def backward_together(losses: Tensor, parameters: Sequence[nn.Parameter], group: Group) -> float:
    """Gradients of the mean loss over the rows of all processes; returns that mean.

    losses: (rows of this process,), one each. Their sum is divided by the *global* number of rows,
    so that unequal shares are weighed rightly.
    """
    total = torch.stack([losses.new_tensor(len(losses)), losses.detach().sum()])
    if group.world > 1:
        dist.all_reduce(total)
    (losses.sum() / total[0]).backward()
    if group.world > 1:
        sum_gradients(parameters)
    return float(total[1] / total[0])


def backward_mean_of_means(
    losses: Tensor, parameters: Sequence[nn.Parameter], group: Group
) -> float:
    """Gradients of the mean of the processes' means: what comes out when each calls `mean()`.

    Right only for equal shares; kept to show the slip.
    """
    mean = losses.mean() / group.world
    mean.backward()
    value = mean.detach()
    if group.world > 1:
        sum_gradients(parameters)
        dist.all_reduce(value)
    return float(value)


def backward_library(losses: Tensor, parameters: Sequence[nn.Parameter], group: Group) -> float:
    """As `DistributedDataParallel` has it: it averages gradients behind `backward` by itself.

    A mean of means, too; the library asks for equal shares.
    """
    losses.mean().backward()
    value = losses.detach().mean() / group.world
    if group.world > 1:
        dist.all_reduce(value)
    return float(value)


def difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest |a - b| / |b| of any parameter's gradient a and b, computed in float64.

    The worst parameter counts: taken together, a few large gradients would hide the others.
    """
    worst = 0.0
    for name, b in theirs.items():
        error, size = (ours[name].double() - b.double()).norm(), b.double().norm()
        worst = max(worst, float(error / size) if error > 0 else 0.0)
    return worst


# --- batch normalisation over all processes -----------------------------------------------------


class _SumOverProcesses(torch.autograd.Function):
    """y = sum over processes of x. Each x enters every process's y, so gradients add up as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        slope = slope.clone()
        dist.all_reduce(slope)
        return slope


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the mean and variance of all processes' rows (x: (B, C, H, W)).

    `nn.SyncBatchNorm` does this for GPUs alone. The mean comes first and the variance is taken
    about it: E[x^2] - E[x]^2 would lose the digits that the equality is about.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.BatchNorm2d`; alone, or in eval mode, exactly that."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
        sums = _SumOverProcesses.apply(torch.cat([x.sum((0, 2, 3)), count]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = x - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def share_batch_norms(model: nn.Module) -> nn.Module:
    """Make every `nn.BatchNorm2d` of the model a `SharedBatchNorm`, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm  # the same state; only `forward` differs
    return model


# --- a training that can be compared ------------------------------------------------------------

WAYS: dict[str, Callable[[Tensor, Sequence[nn.Parameter], Group], float]] = {
    "sum": backward_together,
    "mean-of-means": backward_mean_of_means,
    "library": backward_library,
}


class _DigitLosses(nn.Module):
    """A VAE and what it is trained to lower, one loss a digit: the library wraps this `forward`."""

    def __init__(self, model: nn.Module, beta: float) -> None:
        super().__init__()
        self.model, self.beta = model, beta

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """images (B, 1, 28, 28), noise (B, latent) to losses (B,), in nats."""
        terms = elbo_terms(self.model, images, noise)
        return self.beta * terms.rate - terms.log_likelihood


def train_digits(
    group: Group,
    steps: int = 20,
    batch: int = 64,
    *,
    way: str = "sum",
    shared_norms: bool = True,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Train the VAE of notebook 02 on digits, each process on its rows of the same global batches.

    Args:
        group: who trains together.
        steps: updates.
        batch: digits an update, over all processes.
        way: one of WAYS.
        shared_norms: batch normalisation over all processes.
        dtype: float64 tells a wrong formula from rounding.

    Returns:
        `gradients` of the first step and `weights` after the last, by parameter; `losses` (steps);
        `step_ms` (steps), the first of which warms up.

    Every process draws the whole batch and its noise from one seed and takes its rows, so that the
    global batch does not depend on how many they are. Raises ValueError for an unknown way, and for
    a batch with no row for some process.
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r} to share gradients; choose from {[*WAYS]}.")
    if batch < group.world:
        raise ValueError(f"a batch of {batch} leaves some of {group.world} processes without work.")
    recipe = VAE_DIGITS_RECIPE
    model = new_vae(VAE_DIGITS, recipe.seed).to(group.device, dtype).train()
    if shared_norms:
        share_batch_norms(model)
    losses_of: nn.Module = _DigitLosses(model, recipe.beta)
    if way == "library" and group.world > 1:
        losses_of = nn.parallel.DistributedDataParallel(losses_of)
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(recipe.seed)
    batches, rows = digit_batches(batch, generator), group.rows(batch)
    losses, times, first = [], [], {}

    def step() -> float:
        images, _ = next(batches)
        noise = torch.randn(batch, VAE_DIGITS.latent, generator=generator)
        mine = [x[rows].to(group.device, dtype) for x in (images, noise)]
        optimiser.zero_grad(set_to_none=True)
        return WAYS[way](losses_of(*mine), parameters, group)

    for index in range(steps):
        ms, loss = measure_once(step, device=group.device)
        losses.append(loss)
        times.append(ms)
        if index == 0:
            first = {name: p.grad.cpu().clone() for name, p in model.named_parameters()}
        optimiser.step()
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    return {"gradients": first, "weights": weights, "losses": losses, "step_ms": times}


def compare_ways(group: Group, batch: int = 65) -> dict[str, float]:
    """How far each way's gradients lie from one process's in float64, by name: `difference`.

    "float32" and "one_float32" are the right way and one process in single precision: the rounding
    of many processes beside that of one. The others are computed in float64.

    batch: of unequal shares, or the mean of means would be right; the library gets equal ones.
    """
    runs: dict[str, dict[str, Any]] = {
        "sum": {},
        "library": {"way": "library", "batch": batch - batch % group.world},
        "mean_of_means": {"way": "mean-of-means"},
        "own_norms": {"shared_norms": False},
        "float32": {"dtype": torch.float32},
    }
    exact = {"way": "sum", "shared_norms": False, "dtype": torch.float64}
    single, found = Group(device=group.device), {}
    for name, settings in runs.items():
        settings = {"steps": 1, "batch": batch, "dtype": torch.float64, **settings}
        ours = train_digits(group, **settings)["gradients"]
        # Ordinary norms, so that this process computes alone what all of them did.
        alone = train_digits(single, **{**settings, **exact})["gradients"]
        found[name] = difference(ours, alone)
    rounded = train_digits(single, **{**settings, "shared_norms": False})["gradients"]
    return {**found, "one_float32": difference(rounded, alone)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the options say; rank 0 writes gradients, weights and losses to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="digits an update, all processes")
    parser.add_argument("--way", default="sum", choices=WAYS)
    parser.add_argument("--own-norms", action="store_true", help="batch norms of each process")
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--compare", action="store_true", help="all ways with one process")
    parser.add_argument("--record", action="store_true", help="--compare, and record it")
    parser.add_argument("--out", type=Path, help="a .safetensors file to write")
    options = parser.parse_args(arguments)
    with threads_set(1), process_group() as group:  # one thread a process on shared cores
        if options.compare or options.record:
            found = compare_ways(group)
            if group.rank == 0:
                _tell(found, group, options.record)
            return 0
        done = train_digits(
            group,
            options.steps,
            options.batch,
            way=options.way,
            shared_norms=not options.own_norms,
            dtype=torch.float64 if options.float64 else torch.float32,
        )
        if group.rank == 0:
            if options.out:
                _write(options.out, done)
            loss, ms = done["losses"][-1], sorted(done["step_ms"][1:] or done["step_ms"])
            print(
                f"{group.world} process{'es' * (group.world > 1)}: loss {loss:.4f} after "
                f"{options.steps} steps, {ms[len(ms) // 2]:.1f} ms a step (median)"
            )
    return 0


def _tell(found: Mapping[str, float], group: Group, recorded: bool) -> None:
    for name, value in found.items():
        print(f"{name:15} {value:.2e} from one process's gradients in float64")
        if recorded:
            record(
                "distributed",
                f"distributed.gradient_difference_{name}",
                value,
                "relative",
                spread=None,
                command=f"torchrun --standalone --nproc-per-node {group.world} -m "
                "fastgen_course.training.data_parallel --record",
                device=torch.device(group.device).type,
                base="vae_digits, untrained",
                processes=group.world,
            )


def _write(path: Path, done: dict[str, Any]) -> None:
    tensors = {f"{kind}.{k}": v for kind in ("gradients", "weights") for k, v in done[kind].items()}
    facts = {key: json.dumps(done[key]) for key in ("losses", "step_ms")}
    with atomic_write(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata=facts)


if __name__ == "__main__":
    raise SystemExit(main())
