"""Data-parallel training gives one process's gradients, and the two ways to get it wrong do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fastgen_course.models.vae import VAE_DIGITS
from fastgen_course.training import data_parallel_run
from fastgen_course.training.data_parallel import (
    Group,
    SharedBatchNorm,
    difference,
    main,
    train_digits,
)
from fastgen_course.training.data_parallel_run import NAMES, run_comparison
from fastgen_course.training.elbo import elbo_terms
from fastgen_course.training.vae import VAE_DIGITS_RECIPE, digit_batches, new_vae

# Two processes run these in turn; every batch but the library's leaves them unequal shares.
RUNS = {
    "sum": {"batch": 33, "way": "sum", "steps": 3},
    "exact": {"batch": 33, "way": "sum", "steps": 3, "dtype": torch.float64},
    "means": {"batch": 33, "way": "mean-of-means", "steps": 1, "dtype": torch.float64},
    "own norms": {
        "batch": 33, "way": "sum", "steps": 1, "dtype": torch.float64, "shared_norms": False,
    },
    "library": {"batch": 32, "way": "library", "steps": 1, "dtype": torch.float64},
}  # fmt: skip
SCRIPT = """
    import sys
    import torch
    from safetensors.torch import save_file
    from fastgen_course.training.data_parallel import process_group, train_digits
    from tests.test_data_parallel import RUNS

    torch.set_num_threads(1)
    with process_group() as group:
        assert group.world == 2
        found = {}
        for name, settings in RUNS.items():
            done = train_digits(group, **settings)
            found |= {f"{name}/gradients/{k}": v.contiguous() for k, v in done["gradients"].items()}
            found |= {f"{name}/weights/{k}": v.contiguous() for k, v in done["weights"].items()}
        save_file(found, f"{sys.argv[1]}/rank{group.rank}.safetensors")
"""


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # gloo was once seen to abort as a process left ("terminate called without an active
    # exception") on a crowded machine. torchrun has the remedy: it starts the processes again.
    command += ["--standalone", "--local-addr", "127.0.0.1", "--max-restarts", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "both.py"
    script.write_text(textwrap.dedent(SCRIPT))
    torchrun(str(script), str(folder))
    return [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]


def part(found, run, kind):
    prefix = f"{run}/{kind}/"
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def one_process(batch, steps=1, dtype=torch.float32):
    """Gradients of the first step and weights after the last, by plain PyTorch."""
    recipe = VAE_DIGITS_RECIPE
    model = new_vae(VAE_DIGITS, recipe.seed).to(dtype).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(recipe.seed)
    batches, first = digit_batches(batch, generator), None
    for _ in range(steps):
        images, _ = next(batches)
        noise = torch.randn(batch, VAE_DIGITS.latent, generator=generator)
        optimiser.zero_grad()
        elbo_terms(model, images.to(dtype), noise.to(dtype), beta=recipe.beta).loss.backward()
        first = first or {k: p.grad.clone() for k, p in model.named_parameters()}
        optimiser.step()
    return first, {k: p.detach() for k, p in model.named_parameters()}


def test_two_processes_give_the_gradients_of_one(ranks):
    exact, weights = one_process(33, steps=3, dtype=torch.float64)
    for found in ranks:
        assert difference(part(found, "exact", "gradients"), exact) < 1e-9
        assert difference(part(found, "exact", "weights"), weights) < 1e-6
    # In single precision the processes round as one does, no worse.
    rounded, _ = one_process(33)
    theirs = difference(part(ranks[0], "sum", "gradients"), exact)
    assert 0 < theirs < 4 * difference(rounded, exact) < 1e-3


def test_every_process_holds_the_same_weights(ranks):
    first, second = (part(found, "sum", "weights") for found in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_mean_of_means_is_another_loss_when_the_shares_are_unequal(ranks):
    exact, _ = one_process(33, dtype=torch.float64)
    assert difference(part(ranks[0], "means", "gradients"), exact) > 1e-3


def test_batch_norms_of_its_own_give_each_process_another_model(ranks):
    exact, _ = one_process(33, dtype=torch.float64)
    assert difference(part(ranks[0], "own norms", "gradients"), exact) > 1e-3


def test_the_library_agrees_for_equal_shares(ranks):
    exact, _ = one_process(32, dtype=torch.float64)
    assert difference(part(ranks[0], "library", "gradients"), exact) < 1e-9


def test_torchrun_runs_the_module_and_it_writes_what_it_did(tmp_path):
    out = tmp_path / "two.safetensors"
    options = ["--steps", "2", "--batch", "16", "--float64", "--out", str(out)]
    text = torchrun("-m", "fastgen_course.training.data_parallel", *options)
    assert "2 processes: loss" in text
    single, _ = one_process(16, dtype=torch.float64)
    found = {k: v for k, v in load_file(out).items() if k.startswith("gradients.")}
    assert difference({k.removeprefix("gradients."): v for k, v in found.items()}, single) < 1e-9
    with safe_open(out, "pt") as handle:
        assert len(json.loads(handle.metadata()["losses"])) == 2


def test_alone_every_way_is_the_plain_one_and_the_table_says_so(capsys):
    assert main(["--compare"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "sum", "library", "mean_of_means", "own_norms", "float32", "one_float32",
    ]  # fmt: skip
    assert all(float(line.split()[1]) < 1e-9 for line in lines[:4])
    assert lines[4].split()[1] == lines[5].split()[1] != "0.00e+00"


def test_rows_cut_a_batch_without_a_gap():
    for n in (1, 7, 64):
        for world in (1, 2, 3, 5):
            cuts = [range(n)[Group(rank, world).rows(n)] for rank in range(world)]
            assert [i for cut in cuts for i in cut] == list(range(n))
            assert max(map(len, cuts)) - min(map(len, cuts)) <= 1


def test_alone_a_shared_norm_is_the_ordinary_one():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = SharedBatchNorm(3), torch.nn.BatchNorm2d(3)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no way 'median'"):
        train_digits(Group(), way="median")
    with pytest.raises(ValueError, match="without work"):
        train_digits(Group(0, 3), batch=2)


def test_a_notebook_starts_torchrun_and_reads_its_table():
    found = run_comparison(processes=2)
    assert list(found) == [*NAMES]
    assert max(found["sum"], found["library"]) < 1e-9
    assert min(found["mean_of_means"], found["own_norms"]) > 1e-3


def test_a_torchrun_that_fails_is_one_sentence(monkeypatch):
    monkeypatch.setattr(data_parallel_run, "_MODULE", "fastgen_course.no_such_module")
    with pytest.raises(RuntimeError, match="torchrun ended with code 1") as told:
        run_comparison(processes=1)
    assert "\n" not in str(told.value)
    with pytest.raises(RuntimeError, match="stopped after 0 seconds"):
        run_comparison(timeout_s=0.01)
