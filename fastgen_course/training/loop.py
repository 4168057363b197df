"""One training loop for every model family: resumable, timed, with a running average."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from fastgen_course.files import atomic_write, data_path
from fastgen_course.timing.threads import ThreadPolicy


def run_path(name: str) -> Path:
    """Where the unfinished training `name` keeps its state (never shipped, ignored by git)."""
    return data_path("runs", f"{name}.pt")


@dataclass
class Training:
    """A training that survives a kill.

    Attributes:
        name: names the state file.
        parts: everything with `state_dict` and `load_state_dict` (models, optimisers).
        generator: the only source of randomness; its state is saved too.
        steps: how many steps in all.
        save_every_s: seconds between saves; at most that much work is lost.
    """

    name: str
    parts: dict[str, Any]
    generator: torch.Generator
    steps: int
    save_every_s: float = 120.0
    step: int = 0
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)

    def save(self) -> None:
        """Write the whole state, atomically."""
        state = {
            "parts": {k: v.state_dict() for k, v in self.parts.items()},
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        with atomic_write(run_path(self.name)) as temporary:
            torch.save(state, temporary)

    def resume(self) -> bool:
        """Load the saved state if there is one; says whether there was."""
        path = run_path(self.name)
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        for key, part in self.parts.items():
            part.load_state_dict(state["parts"][key])
        self.generator.set_state(state["generator"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = state["history"]
        return True

    def run(
        self,
        step_fn: Callable[[int], dict[str, float]],
        *,
        log_every: int = 100,
        quiet: bool = False,
        on_log: Callable[[int], None] | None = None,
    ) -> dict[str, list[float]]:
        """Call `step_fn(step)` until `steps`; it returns named losses, whose means are kept.

        Returns the history: `step` and, for each name, the mean over the `log_every` steps before.
        The state file is removed by `finish`, not here, so that a failing export loses nothing.
        """
        sums: dict[str, float] = {}
        count = 0
        started = saved = time.monotonic()
        before = self.seconds
        # As many threads as there are cores free right now: see timing/threads.py.
        asked = os.environ.get("OMP_NUM_THREADS", "")
        limit = int(asked) if asked.isdigit() and int(asked) else None
        with (
            ThreadPolicy(limit=limit) as policy,
            tqdm(
                total=self.steps, initial=self.step, leave=False, disable=quiet, desc=self.name
            ) as bar,
        ):
            while self.step < self.steps:
                policy.step()
                for key, value in step_fn(self.step).items():
                    sums[key] = sums.get(key, 0.0) + value
                self.step += 1
                count += 1
                bar.update()
                now = time.monotonic()
                self.seconds = before + now - started
                if self.step % log_every == 0 or self.step == self.steps:
                    means = {key: value / count for key, value in sums.items()}
                    self._log(means)
                    bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()})
                    sums, count = {}, 0
                    if on_log:
                        on_log(self.step)
                if now - saved > self.save_every_s:
                    self.save()
                    saved = now
        return self.history

    def _log(self, means: dict[str, float]) -> None:
        self.history.setdefault("step", []).append(self.step)
        for key, value in means.items():
            self.history.setdefault(key, []).append(value)
        if not all(math.isfinite(v) for v in means.values()):
            raise FloatingPointError(
                f"{self.name}: the loss is not finite at step {self.step}; lower the learning rate."
            )

    def finish(self) -> None:
        """Forget the saved state; call it once the checkpoint is written."""
        run_path(self.name).unlink(missing_ok=True)


class RunningAverage(nn.Module):
    """An exponential moving average of a model's weights (buffers are copied).

    The decay warms up as min(decay, (1 + t) / (10 + t)), so that early samples are not the
    initialisation's.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        import copy

        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`."""
        self.updates += 1
        t = float(self.updates)
        decay = min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(
            list(self.model.parameters()), [p.detach() for p in model.parameters()], 1 - decay
        )
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


def cosine_with_warmup(step: int, steps: int, warmup: int = 100) -> float:
    """A learning-rate factor: linear to 1 over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate
