"""What holds for every test."""

import os

# The thread policy of a training follows the machine's load, and another count of threads adds up
# in another order: two trainings of one seed would differ in the last bits whenever something else
# starts or ends beside the tests. Set before torch is imported, and inherited by what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture
def judge():
    """A tiny judge with fresh weights, for trainings whose loss looks through one."""
    import torch

    from fastgen_course.models.judges import JudgeConfig, SlotJudge

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SlotJudge(JudgeConfig(channels=(4, 4, 8), features=8)).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a training keeps its state: nobody else's."""
    monkeypatch.setattr("fastgen_course.training.loop.run_path", lambda name: tmp_path / name)
