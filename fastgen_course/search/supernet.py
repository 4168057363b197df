"""One network that holds every architecture of the space: weights sliced, trained by the sandwich.

A super-layer is the ordinary layer with its weight sliced, `weight[:outputs, :inputs]` and the
kernel's centre (Cai et al. 2020, once for all; Li et al. 2020, GAN compression). Each update trains
the largest network, the smallest and some at random (Yu et al. 2020, BigNAS).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgen_course.models.generator import CaptionEncoder
from fastgen_course.models.judges import SlotJudge
from fastgen_course.models.searched import (
    MODULATED,
    Architecture,
    ArchitectureError,
    Layer,
    SearchedGenerator,
    finish,
)
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.training.matching import MatchRecipe, MatchTrainer


class SuperStem(nn.Linear):
    """condition -> a map of 7 x 7 places; a narrow one is the first channels."""

    def sliced(self, layer: Layer) -> tuple[Tensor, Tensor]:
        rows = layer.outputs * layer.side**2
        return self.weight[:rows], self.bias[:rows]

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        return F.linear(x, *self.sliced(layer)).view(len(x), layer.outputs, layer.side, layer.side)

    def fill(self, module: nn.Linear, layer: Layer) -> None:
        _copy(module, *self.sliced(layer))


class SuperConv(nn.Conv2d):
    """A 3x3 convolution; its centre is the 1x1 one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def sliced(self, layer: Layer) -> tuple[Tensor, Tensor]:
        taps = slice(1, 2) if layer.kind == "conv1" else slice(None)
        return (
            self.weight[: layer.outputs, : layer.inputs, taps, taps],
            self.bias[: layer.outputs],
        )

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        return F.conv2d(x, *self.sliced(layer), padding=0 if layer.kind == "conv1" else 1)

    def fill(self, module: nn.Conv2d, layer: Layer) -> None:
        _copy(module, *self.sliced(layer))


class SuperSeparable(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 across them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def sliced(self, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = self.pointwise.weight, self.pointwise.bias
        across = weight[: layer.outputs, : layer.inputs]
        return self.depthwise.weight[: layer.inputs], across, bias[: layer.outputs]

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        each, across, bias = self.sliced(layer)
        return F.conv2d(F.conv2d(x, each, padding=1, groups=layer.inputs), across, bias)

    def fill(self, module: nn.Module, layer: Layer) -> None:
        each, across, bias = self.sliced(layer)
        module.depthwise.weight.copy_(each)
        _copy(module.pointwise, across, bias)


class SuperBlock(nn.Module):
    """A convolution in its forms: 3x3 and, within it, 1x1; and a separable one of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = SuperConv(inputs, outputs)
        self.separable = SuperSeparable(inputs, outputs)

    def form(self, layer: Layer) -> SuperConv | SuperSeparable:
        return self.separable if layer.kind == "separable" else self.dense

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        return self.form(layer)(x, layer)

    def fill(self, module: nn.Module, layer: Layer) -> None:
        self.form(layer).fill(module, layer)


class SuperUp(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2; its 2x2 centre is the pixel shuffle's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1)

    def sliced(self, layer: Layer) -> tuple[Tensor, Tensor]:
        taps = slice(1, 3) if layer.kind == "up2" else slice(None)
        return (
            self.weight[: layer.inputs, : layer.outputs, taps, taps],
            self.bias[: layer.outputs],
        )

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        padding = 0 if layer.kind == "up2" else 1
        return F.conv_transpose2d(x, *self.sliced(layer), stride=2, padding=padding)

    def fill(self, module: nn.Module, layer: Layer) -> None:
        weight, bias = self.sliced(layer)
        if layer.kind == "up2":  # channels ordered (channel, row, column), as pixel_shuffle reads
            weight = weight.permute(1, 2, 3, 0).reshape(4 * layer.outputs, layer.inputs, 1, 1)
            _copy(module.conv, weight, bias.repeat_interleave(4))
        else:
            _copy(module, weight, bias)


class SuperModulation(nn.Linear):
    """condition -> a and b of x * a + b, for the first channels of one map."""

    def sliced(self, width: int) -> tuple[Tensor, Tensor]:
        half = self.out_features // 2
        rows = torch.cat([torch.arange(width), half + torch.arange(width)])
        return self.weight[rows], self.bias[rows]

    def forward(self, x: Tensor, width: int) -> Tensor:
        return F.linear(x, *self.sliced(width))[:, :, None, None]


def _copy(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)


_SUPER = {"stem": SuperStem, "up4": SuperUp, "rgb": SuperConv, "conv3": SuperBlock}
# Where the convolution between is absent, these read another map: they have weights for each case.
READS = {"up14": ("conv7", "stem"), "up28": ("conv14", "up14"), "rgb": ("conv28", "up28")}


class Supernet(nn.Module):
    """All networks that fit into the largest of a space, sharing its weights.

    `supernet(noise, words, config)` draws with the weights' slices of that architecture;
    `supernet.extract(config)` is that network by itself, with copies of them.
    """

    def __init__(self, config: Architecture | None = None) -> None:
        """config: the largest, with all of its convolutions dense 3x3 and upsamplings 4x4."""
        super().__init__()
        self.config = config or SPACE.largest()
        if set(self.config.blocks) != {"conv3"} or set(self.config.ups) != {4}:
            raise ArchitectureError(
                "the supernet's own architecture must have blocks of conv3 and ups of 4, got "
                f"{self.config.blocks} and {self.config.ups}."
            )
        self.caption_encoder = CaptionEncoder(self.config.caption, self.config.vocabulary)
        condition = self.config.condition
        self.modulation = nn.ModuleDict(
            {n: SuperModulation(condition, 2 * self.config.width(n)) for n in MODULATED}
        )
        self.layers = nn.ModuleDict()
        for name, layer in self.config.layers().items():
            kind = _SUPER[layer.kind]
            if name == "stem":
                self.layers[name] = kind(condition, layer.outputs * layer.side**2)
            else:
                self.layers[name] = kind(layer.inputs, layer.outputs)
            if name in READS:
                inputs = self.config.width(READS[name][1])
                self.layers[f"{name}_direct"] = kind(inputs, layer.outputs)

    def layer(self, name: str, config: Architecture) -> nn.Module:
        """The super-layer that an architecture uses under `name`."""
        direct = name in READS and not config.width(READS[name][0])
        return self.layers[f"{name}_direct" if direct else name]

    def forward(self, noise: Tensor, words: Tensor, config: Architecture | None = None) -> Tensor:
        """noise (B, Z), words (B, L) to images (B, 3, 28, 28); config None is the largest."""
        config = self.config if config is None else config
        y = torch.cat([noise, self.caption_encoder(words)], 1)
        x = y
        for name, layer in config.layers().items():
            x = self.layer(name, config)(x, layer)
            scale_shift = self.modulation[name](y, layer.outputs) if layer.modulated else None
            x = finish(x, name, scale_shift, self.config.activation)
        return x

    @torch.no_grad()
    def extract(self, config: Architecture) -> SearchedGenerator:
        """The network of an architecture with this supernet's weights.

        Raises ArchitectureError for one wider than the supernet.
        """
        if any(w > most for w, most in zip(config.widths, self.config.widths, strict=True)):
            raise ArchitectureError(
                f"widths must be at most the supernet's, {self.config.widths}; got {config.widths}."
            )
        network = SearchedGenerator(config)
        network.caption_encoder.load_state_dict(self.caption_encoder.state_dict())
        parts = [self.modulation[name].sliced(w) for name, w in config.modulated.items()]
        weights, biases = zip(*parts, strict=True)
        _copy(network.modulation, torch.cat(weights), torch.cat(biases))
        for name, layer in config.layers().items():
            self.layer(name, config).fill(network.layers[name], layer)
        return network.eval()


@dataclass(frozen=True)
class SupernetRecipe(MatchRecipe):
    """How the supernet is trained; beside MatchRecipe's fields:

    Attributes:
        drawn: networks drawn at random an update, from 0, beside the largest and the smallest.
    """

    steps: int = 1100
    batch: int = 48
    rate: float = 8e-4
    drawn: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drawn < 0:
            raise ValueError(f"drawn must be at least 0, got {self.drawn}.")


class SupernetTrainer(MatchTrainer):
    """Trains a supernet's slices to draw GENERATOR_BASE's pictures, by the sandwich rule."""

    def __init__(
        self,
        name: str,
        model: Supernet,
        original: nn.Module,
        recipe: SupernetRecipe | None = None,
        judge: SlotJudge | None = None,
        space: SearchSpace = SPACE,
    ) -> None:
        super().__init__(name, model, original, recipe or SupernetRecipe(), judge)
        self.space = space
        self.ends = [space.largest(), space.smallest()]

    def drawn(self) -> list[Architecture]:
        """This update's networks. The choice hangs on the step alone, so that a resumed run makes
        the same ones."""
        source = random.Random(f"{self.recipe.seed} {self.training.step}")
        some = (self.space.decode(self.space.random(source)) for _ in range(self.recipe.drawn))
        return [*self.ends, *some]

    def loss(self) -> Tensor:
        """The mean distance of this update's networks to the original on one batch."""
        noise, words, pictures, seen = self.lesson()
        configs = self.drawn()
        losses = (self.distance(self.model(noise, words, c), pictures, seen) for c in configs)
        return sum(losses) / len(configs)


def trained_supernet(
    recipe: SupernetRecipe | None = None,
    *,
    name: str = "supernet",
    quiet: bool = False,
    keep: bool = True,
) -> Supernet:
    """The course's supernet, begun from GENERATOR_BASE: about 9 minutes on one core.

    A killed training goes on, and a finished one gives the same weights again at once: its state is
    kept as data/runs/NAME.pt, which is not shipped.
    """
    from fastgen_course.checkpoints import load_model
    from fastgen_course.search.inherit import inherited_supernet

    base = load_model("generator_base")
    trainer = SupernetTrainer(name, inherited_supernet(base), base, recipe)
    return trainer.run(quiet, keep=keep)
