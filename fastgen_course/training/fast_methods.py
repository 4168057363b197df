"""The ways to draw that notebook 07 compares: their names, models and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.gpt import GPT
from fastgen_course.models.masked import MaskedModel
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.written_out import written_out
from fastgen_course.sampling import fast, speculative
from fastgen_course.sampling.drawing import Drawn, Step, Watch
from fastgen_course.sampling.gpt import GPT_SAMPLING
from fastgen_course.sampling.groups import draw_groups
from fastgen_course.sampling.masked import MASKED_SAMPLING, iterate_masked

NETWORKS = ("gpt", "gpt_draft", "masked", "masked_groups")


@dataclass(frozen=True)
class Models:
    """The models that notebook 07 draws with."""

    gpt: GPT
    draft: GPT
    masked: MaskedModel
    groups: MaskedModel
    tokenizer: Tokenizer

    @classmethod
    def shipped(cls) -> Models:
        """The shipped ones. Raises `DataFileError` for one that is missing."""
        return cls(*(load_model(name) for name in (*NETWORKS, "tokenizer")))

    def written_out(self) -> Models:
        """The same networks with their forward passes written out (models/written_out.py)."""
        networks = (self.gpt, self.draft, self.masked, self.groups)
        return Models(*(written_out(network) for network in networks), self.tokenizer)


@dataclass(frozen=True)
class Method:
    """One way to draw.

    Attributes:
        words: its name in tables.
        lossless: "tokens" (the same tokens for the same noise), "distribution" (the same chances)
            or "" (another distribution).
        draw: (models, captions, generator, watch) -> Drawn.
        settings: its own knobs.
    """

    words: str
    lossless: str
    draw: Callable[..., Drawn]
    settings: dict[str, int] = field(default_factory=dict)

    def __call__(
        self,
        models: Models,
        captions: Sequence[str] | Tensor,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Drawn:
        """Draw the captions' tokens with the course's settings of temperature and cut."""
        return self.draw(models, captions, generator, watch, **self.settings)


def _sampling() -> dict[str, float]:
    """GPT_SAMPLING without guidance, which the fast samplers do not know."""
    settings = dict(GPT_SAMPLING)
    if settings.pop("guidance", 1.0) != 1.0:
        raise ValueError("the fast samplers draw without guidance; GPT_SAMPLING asks for it.")
    return settings


def _gpt(
    sampler: Callable[..., Drawn],
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: Watch | None,
    **settings: int,
) -> Drawn:
    return sampler(
        models.gpt, captions, generator=generator, watch=watch, **_sampling(), **settings
    )


def _speculative(
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: Watch | None,
    **settings: int,
) -> Drawn:
    sampler = partial(speculative.draw_speculative, draft=models.draft)
    return _gpt(sampler, models, captions, generator, watch, **settings)


def _masked(
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: Watch | None,
    **settings: int,
) -> Drawn:
    words = encode_words(list(captions)) if not isinstance(captions, Tensor) else captions
    words = words[:, : int((words != 0).sum(1).max())]  # no padding that nobody needs
    steps: list[Step] = []
    before = torch.ones(models.masked.config.image_tokens, dtype=torch.bool)
    for step in iterate_masked(
        models.masked, words, generator=generator, **{**MASKED_SAMPLING, **settings}
    ):
        now, tokens = step.hidden[0].cpu(), step.tokens
        steps.append(Step(tuple(torch.nonzero(before & ~now)[:, 0].tolist())))
        before = now
        if watch:
            watch(steps[-1])
    forwards = len(steps) * (2 if MASKED_SAMPLING["guidance"] != 1.0 else 1)
    length = words.shape[1] + tokens.shape[1]
    return Drawn(tokens, forwards, forwards * length * len(tokens), steps=tuple(steps))


def _groups(
    models: Models,
    captions: Sequence[str] | Tensor,
    generator: torch.Generator | None,
    watch: Watch | None,
    **settings: int,
) -> Drawn:
    # At temperature 1 and uncut, the distribution whose reward was climbed; colder, `judge_train`
    # sees pictures that are no better and vary less.
    return draw_groups(models.groups, captions, generator=generator, watch=watch, **settings)


METHODS: dict[str, Method] = {
    "plain": Method("plain loop", "tokens", partial(_gpt, fast.draw_plain)),
    "cached": Method("KV cache", "tokens", partial(_gpt, fast.draw_cached)),
    **{
        f"speculative{k}": Method(
            f"speculative, {k} guesses", "distribution", _speculative, {"guesses": k}
        )
        for k in (2, 4, 8)
    },
    **{
        f"jacobi{w}": Method(
            f"speculative Jacobi, window {w}",
            "distribution",
            partial(_gpt, speculative.draw_jacobi),
            {"window": w},
        )
        for w in (4, 8, 16)
    },
    **{
        f"wavefront{d}": Method(
            f"wavefront, delay {d}", "", partial(_gpt, fast.draw_wavefront), {"delay": d}
        )
        for d in (3, 2, 1)
    },
    **{
        f"masked{s}": Method(f"masked, {s} step{'s' * (s > 1)}", "", _masked, {"steps": s})
        for s in (16, 8, 4, 2, 1)
    },
    "groups4": Method("masked, 4 groups, taught", "", _groups, {"steps": 4}),
}


def base_of(name: str) -> str:
    """The checkpoint that a method draws with."""
    return {"masked": "masked", "groups": "masked_groups"}.get(name.rstrip("0123456789"), "gpt")
