"""The ways of drawing that notebook 08 compares: which network, how many steps, what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.models.flow import VelocityNet
from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.flow import FLOW_SAMPLING, sample_flow
from fastgen_course.training.flow import VAE

NETWORKS = ("flow", "flow_reflow", "flow_mean", "flow_guided", "flow_student")


@dataclass(frozen=True)
class FlowModels:
    """The networks that notebook 08 draws with, their decoder, and which weights these are."""

    networks: Mapping[str, VelocityNet]
    vae: ConvVAE
    weights: Mapping[str, str]

    @classmethod
    def shipped(cls, names: Sequence[str] = NETWORKS) -> FlowModels:
        """The shipped ones. Raises `DataFileError` for one that is missing."""
        networks = {name: load_model(name) for name in names}
        weights = {name: load_card(name)["sha256"][:12] for name in (*names, VAE)}
        return cls(networks, load_model(VAE), weights)

    def key(self, name: str | None = None) -> str:
        """The beginnings of the hashes of a network and the decoder, or of the decoder alone."""
        names = (VAE,) if name is None else (name, VAE)
        return "-".join(self.weights[part] for part in names)


@dataclass(frozen=True)
class FlowMethod:
    """One way to draw.

    Attributes:
        words: its name in tables.
        network: one of NETWORKS.
        steps: steps from noise to latent.
        solver: "euler" or "heun".
        guided: drawn with the scale of FLOW_SAMPLING: by two forwards, or by the one of a network
            that has guidance distilled.
        cache_every: the deep features are computed at every so many evaluations.
    """

    words: str
    network: str
    steps: int
    solver: str = "euler"
    guided: bool = False
    cache_every: int = 1

    @property
    def settings(self) -> dict[str, float | int | str]:
        """What `sample_flow` is told."""
        guidance = FLOW_SAMPLING["guidance"] if self.guided else 1.0
        return {
            "steps": self.steps,
            "solver": self.solver,
            "guidance": guidance,
            "cache_every": self.cache_every,
        }

    @property
    def evaluations(self) -> int:
        """Forwards of the network for one picture, cheap ones with kept features included."""
        forwards = 2 if self.settings["guidance"] != 1.0 and self.network == "flow" else 1
        return self.steps * forwards * (2 if self.solver == "heun" else 1)

    def __call__(
        self,
        models: FlowModels,
        captions: Sequence[str] | Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Pictures (B, 3, 28, 28) of captions."""
        network = models.networks[self.network]
        return sample_flow(network, models.vae, captions, noise, generator, **self.settings)


BASE = "euler50"
METHODS: dict[str, FlowMethod] = {
    **{
        f"euler{s}": FlowMethod(f"flow, Euler, {s}", "flow", s, guided=True)
        for s in (50, 8, 4, 2, 1)
    },
    **{
        f"heun{s}": FlowMethod(f"flow, Heun, {s}", "flow", s, "heun", guided=True)
        for s in (50, 8, 4, 2, 1)
    },
    "unguided50": FlowMethod("flow without guidance, Euler, 50", "flow", 50),
    **{
        f"distilled{s}": FlowMethod(f"guidance distilled, {s}", "flow_guided", s, guided=True)
        for s in (50, 8, 4)
    },
    **{
        f"cached{s}_{k}": FlowMethod(
            f"distilled, features kept {k} calls, {s}",
            "flow_guided",
            s,
            guided=True,
            cache_every=k,
        )
        for s, k in ((50, 2), (50, 5), (8, 2))
    },
    **{f"reflow{s}": FlowMethod(f"reflow, {s}", "flow_reflow", s) for s in (4, 2, 1)},
    **{f"mean{s}": FlowMethod(f"mean velocities, {s}", "flow_mean", s) for s in (4, 2, 1)},
    "student1": FlowMethod("adversarial student, 1", "flow_student", 1),
}


def candidates(steps: int) -> tuple[str, ...]:
    """The methods of so many steps with one evaluation each, among which `judge_train` chooses."""
    return tuple(k for k, m in METHODS.items() if m.steps == m.evaluations == steps)
