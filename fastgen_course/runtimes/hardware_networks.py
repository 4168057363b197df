"""The networks that notebook 09 times, each as a call that any runtime can make.

A *network* has weights and a forward pass; a *call* is what is timed: one forward of the generator
or of the velocity network ("flow"), four Euler steps of it ("flow4"), or the 49 forwards in which
the language model draws a picture's tokens ("gpt"; painting them is left out, it is another
network's forward).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import encode_words
from fastgen_course.files import data_path
from fastgen_course.models.flow import FLOW, FlowConfig, VelocityNet
from fastgen_course.models.generator import GENERATOR_BASE, Generator, GeneratorConfig
from fastgen_course.models.gpt import GPT, GPT_BASE
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.flow import euler, even_times
from fastgen_course.sampling.gpt import GPT_SAMPLING, pick, sample_gpt

# Which calls each network is timed in.
CALLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"generator_base": ("generator_base",), "flow": ("flow", "flow4"), "gpt": ("gpt",)}
)
CALL_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "generator_base": "GENERATOR_BASE",
        "flow": "flow, one forward",
        "flow4": "flow, four steps",
        "gpt": "GPT, cached drawing",
    }
)
CAPTION = "a small red sneaker on a white background, sketch style"
STEPS = 4
# (module, example inputs) -> what computes the same for tensors: a runtime.
Prepare = Callable[[nn.Module, tuple[Tensor, ...]], Callable[..., Any]]
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Network:
    """A network ready to be timed; `weights` is "shipped" or "untrained" (time asks neither)."""

    name: str
    model: nn.Module
    weights: str

    @property
    def calls(self) -> tuple[str, ...]:
        """The names of what is timed of it."""
        return CALLS[self.name]


def shipped_network(name: str) -> Network:
    """The shipped network, or one of its size with fresh weights where none is shipped yet.

    Raises ValueError, naming the choices, for an unknown name.
    """
    _check(name)
    if data_path("weights", f"{name}.json").is_file():
        return Network(name, load_model(name).eval(), "shipped")
    return fresh_network(name)


def fresh_network(name: str, config: Any = None) -> Network:
    """A network with random weights, of the course's size or of `config`."""
    _check(name)
    torch.manual_seed(0)
    if name == "generator_base":
        model: nn.Module = Generator(config or GENERATOR_BASE)
    elif name == "flow":
        model = VelocityNet(config or FLOW)
        for parameter in model.parameters():  # some start at 0, and 0 would equal anything
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    else:
        model = GPT(config or GPT_BASE)
    return Network(name, model.eval(), "untrained")


def tiny_network(name: str) -> Network:
    """A network of the same kind that takes no time, for trials and tests."""
    _check(name)
    return fresh_network(
        name,
        {
            "generator_base": GeneratorConfig(noise=4, caption=4, channels=(4, 4, 4)),
            "flow": FlowConfig(latent=4, width=8, blocks=2, condition=8, caption=4),
            "gpt": TransformerConfig(width=16, layers=2, heads=2, image_tokens=4, codes=8),
        }[name],
    )


def twin(network: Network) -> Network:
    """The same program on the smallest network: as many layers, heads and tokens, widths of one.

    It starts the same operators in the same order and gives them next to nothing to do, so its time
    is what starting them costs.
    """
    config = network.model.config
    small = {
        "generator_base": {"noise": 1, "caption": 1, "channels": (1, 1, 1)},
        "flow": {"latent": 1, "width": 1, "condition": 1, "caption": 1},
        "gpt": {"width": getattr(config, "heads", 1), "codes": 2},
    }[network.name]
    return fresh_network(network.name, replace(config, **small))


def convert(network: Network, device: str, dtype: str = "float32") -> Network:
    """A copy on a device in a precision ("float32" or "bfloat16"), for PyTorch's runtimes."""
    kind = getattr(torch, dtype)
    # `to` changes a module in place, and the original is what results are compared with.
    model = copy.deepcopy(network.model).to(device=device, dtype=kind)
    if network.name == "flow" and dtype != "float32":
        # Sines of the time come in float32, and a layer takes what its weights are made of.
        model.condition.register_forward_pre_hook(lambda _, given: (given[0].to(kind),))
    return replace(network, model=model)


def inputs(network: Network, batch: int) -> tuple[Tensor, ...]:
    """What one forward is asked, from fixed seeds on the CPU: the same for every runtime.

    The generator's noise and words, the velocity network's z, words and t, or the language model's
    words and uniform numbers.
    """
    words = encode_words([CAPTION])
    words = words[:, : int((words != 0).sum())].expand(batch, -1).contiguous()
    generator = torch.Generator().manual_seed(0)
    config = network.model.config
    if network.name == "generator_base":
        return torch.randn(batch, config.noise, generator=generator), words
    if network.name == "flow":
        return torch.randn(batch, config.latent, generator=generator), words, torch.zeros(batch)
    return words, torch.rand(batch, config.image_tokens, generator=generator)


def calls(network: Network, batch: int, prepare: Prepare | None = None) -> dict[str, Call]:
    """What is timed, by name, on the network's device and in its precision.

    prepare: the runtime; None is eager PyTorch (and the course's own sampler).
    """
    weight = next(network.model.parameters())
    given = [
        x.to(weight.device, weight.dtype if x.is_floating_point() else None)
        for x in inputs(network, batch)
    ]
    if network.name == "gpt":
        words, uniform = inputs(network, batch)
        if prepare is None:
            model, settings = network.model, sampling_settings()
            return {"gpt": lambda: sample_gpt(model, words, uniform, **settings)}
        words, uniform = words.to(weight.device), uniform.to(weight.device)
        return {"gpt": cached_drawing(network.model, words, uniform, prepare)}
    module = FlowForward(network.model) if network.name == "flow" else network.model
    forward = module if prepare is None else prepare(module, tuple(given))
    if network.name == "generator_base":
        return {"generator_base": lambda: forward(*given)}
    z, words, t = given
    times = even_times(STEPS).to(z)
    return {
        "flow": lambda: forward(z, words, t),
        "flow4": lambda: euler(lambda now, when: forward(now, words, when), z, times),
    }


def sampling_settings() -> dict[str, float]:
    """The course's temperature and cut, without guidance, which would be a second forward."""
    return {key: value for key, value in GPT_SAMPLING.items() if key != "guidance"}


class FlowForward(nn.Module):
    """A velocity network of one time, its arguments counted: an export needs to know how many."""

    def __init__(self, model: VelocityNet) -> None:
        super().__init__()
        self.model = model.eval()
        self.eval()

    def forward(self, z: Tensor, words: Tensor, t: Tensor) -> Tensor:
        """The velocity (B, latent)."""
        return self.model(z, words, t)


class CachedForward(nn.Module):
    """A GPT that is *given* what it read before: a graph has no memory of its own.

    The cache stays with the caller, who writes the new keys and values to their places. Scores of
    old and new keys stand side by side, so that the cache is read and never copied.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.gpt = model

    def forward(self, ids: Tensor, positions: Tensor, filled: Tensor, *past: Tensor) -> Any:
        """New tokens (B, T) behind a cache: (logits of the next image token, k, v, k, v, ...).

        ids, positions: int64 (B, T). filled: bool (B, S), which places hold a token. past: keys and
        values (B, H, S, D) of each layer in turn; the new ones come back as (B, H, T, D).
        """
        gpt, config = self.gpt, self.gpt.config
        size, tokens = filled.shape[1], ids.shape[1]
        scale = (config.width // config.heads) ** -0.5
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=ids.device).tril()
        seen = torch.cat(
            [
                filled[:, None, None].expand(-1, 1, tokens, -1),
                causal.expand(filled.shape[0], 1, -1, -1),
            ],
            -1,
        )
        x = gpt.embedding(ids) + gpt.position(positions)
        new = []
        for layer, block in enumerate(gpt.blocks):
            qkv = block.attention.qkv(block.norm1(x)).unflatten(2, (3, config.heads, -1))
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            keys, values = past[2 * layer], past[2 * layer + 1]
            scores = torch.cat([q @ keys.transpose(2, 3), q @ k.transpose(2, 3)], -1) * scale
            shares = scores.masked_fill(~seen, -1e9).softmax(-1)
            y = shares[..., :size] @ values + shares[..., size:] @ v
            x = x + block.attention.out(y.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
            new += [k, v]
        codes = gpt.head.weight[config.first_code : config.first_code + config.codes]
        return gpt.norm(x)[:, -1] @ codes.T, *new


def cached_drawing(model: GPT, words: Tensor, uniform: Tensor, prepare: Prepare) -> Call:
    """`sample_gpt` with a cache, its forwards made by another runtime: tokens (B, image_tokens).

    Two graphs are prepared, one that reads the caption and one that reads a token; choosing a token
    stays in PyTorch, as the same code for all runtimes.
    """
    config, weight = model.config, next(model.parameters())
    batch, length = words.shape
    size, prompt = 1 + length + config.image_tokens, 1 + length
    sign = torch.full((batch, 1), config.draw, dtype=torch.int64, device=words.device)
    ids = torch.cat([sign, words], 1)
    steps = torch.arange(length, device=words.device)
    roles = torch.cat([steps[:1] * 0, config.first_word_position + steps])
    roles = roles.expand(batch, -1).contiguous()
    filled = torch.zeros(batch, size, dtype=torch.bool, device=words.device)
    shape = (batch, config.heads, size, config.width // config.heads)
    past = [
        torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        for _ in range(2 * config.layers)
    ]
    settings = sampling_settings()
    graph = CachedForward(model).eval()
    with torch.no_grad():
        read_caption = prepare(graph, (ids, roles, filled, *past))
        read_token = prepare(graph, (ids[:, :1], roles[:, :1].contiguous(), filled, *past))

    def draw() -> Tensor:
        filled.zero_()
        tokens = torch.empty_like(uniform, dtype=torch.int64)
        logits, *new = read_caption(ids, roles, filled, *past)
        start, width = 0, prompt
        for place in range(config.image_tokens):
            for cache, fresh in zip(past, new, strict=True):
                cache[:, :, start : start + width] = fresh
            filled[:, start : start + width] = True
            start, width = start + width, 1
            chosen = pick(logits.float(), uniform[:, place], **settings)
            tokens[:, place] = chosen
            if place + 1 < config.image_tokens:
                role = torch.full_like(sign, config.first_image_position + place)
                new_ids = config.first_code + chosen[:, None]
                logits, *new = read_token(new_ids, role, filled, *past)
        return tokens

    return draw


def difference(name: str, ours: Tensor, theirs: Tensor) -> float:
    """How far a call's result is from the reference: the share of other tokens, or max |a - b|.

    Infinite where either is not a number.
    """
    ours, theirs = ours.detach().cpu(), theirs.detach().cpu()
    if name == "gpt":
        return float((ours != theirs).double().mean())
    gap = (ours.double() - theirs.double()).abs().max()
    return float(gap) if gap.isfinite() else float("inf")


def _check(name: str, known: Sequence[str] = tuple(CALLS)) -> None:
    if name not in known:
        raise ValueError(f"there is no network {name!r}; choose from {', '.join(known)}.")
