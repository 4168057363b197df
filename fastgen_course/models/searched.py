"""The one-step generators that notebook 10 searches: an architecture as data, and its network.

GENERATOR_BASE without norms (they fold away, see `compression.folding`), with each of its decisions
left open: widths, which convolutions there are, their kernels, dense or depthwise-separable, and
how a map is brought to twice its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgen_course.datasets.captions import VOCABULARY
from fastgen_course.models.generator import CaptionEncoder

LAYERS = ("stem", "conv7", "up14", "conv14", "up28", "conv28")
CONVS = ("conv7", "conv14", "conv28")
UPS = ("up14", "up28")
BLOCKS = ("none", "conv1", "conv3", "separable")
KERNELS = (2, 4)  # of an upsampling of stride 2
ACTIVATIONS = ("relu", "leaky_relu", "silu", "gelu")
SIDES = {"stem": 7, "conv7": 7, "up14": 14, "conv14": 14, "up28": 28, "conv28": 28, "rgb": 28}
MODULATED = LAYERS[:4]
WORDS = 20  # of a caption, where MACs are counted
_EMBEDDING = 64


class ArchitectureError(ValueError):
    """An architecture that cannot be built, or a space or a search that makes no sense."""


@dataclass(frozen=True)
class Layer:
    """One layer with its shape, as the MAC count and the latency table know it.

    Attributes:
        kind: "stem", "conv1", "conv3", "separable", "up2", "up4" or "rgb".
        inputs, outputs: channels; a stem's inputs are the condition's length.
        side: of the map that it writes.
        modulated: whether x * a + b follows, before the activation.
    """

    kind: str
    inputs: int
    outputs: int
    side: int
    modulated: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture; taps that fall on padding count too."""
        places = self.side**2
        if self.kind == "separable":
            return places * self.inputs * (9 + self.outputs)
        # A transposed convolution has its kernel's taps at each place that it reads: a quarter.
        taps = {"stem": 1, "conv1": 1, "conv3": 9, "up2": 1, "up4": 4, "rgb": 9}[self.kind]
        return places * self.inputs * self.outputs * taps

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        inputs, outputs = self.inputs, self.outputs
        if self.kind == "stem":
            return (inputs + 1) * outputs * self.side**2
        if self.kind == "separable":
            return 9 * inputs + (inputs + 1) * outputs
        if self.kind == "up2":
            return (inputs + 1) * 4 * outputs
        taps = {"conv1": 1, "conv3": 9, "up4": 16, "rgb": 9}[self.kind]
        return (taps * inputs + 1) * outputs


@dataclass(frozen=True)
class Architecture:
    """One generator of the space. The defaults are GENERATOR_BASE's shape.

    Attributes:
        widths: output channels of `LAYERS`: stem, conv7, up14, conv14, up28, conv28; multiples of
            8, and 0 for a convolution that is absent.
        blocks: of conv7, conv14 and conv28: "none", "conv1", "conv3" or "separable" (a 3x3
            convolution of each channel, then a 1x1 across them; Howard et al. 2017).
        ups: kernel of the upsamplings up14 and up28. 4: a transposed convolution, 4x4 of stride 2.
            2: its 2x2 centre, which is a 1x1 convolution to four times the channels and a pixel
            shuffle (Shi et al. 2016).
        activation: "relu", "leaky_relu" (slope 0.2), "silu" or "gelu".
        noise, caption, vocabulary: as of GENERATOR_BASE.

    Raises ArchitectureError for a field out of its range.
    """

    widths: tuple[int, ...] = (128, 128, 64, 64, 32, 32)
    blocks: tuple[str, ...] = ("conv3", "conv3", "conv3")
    ups: tuple[int, ...] = (4, 4)
    activation: str = "relu"
    noise: int = 64
    caption: int = 96
    vocabulary: int = len(VOCABULARY)

    def __post_init__(self) -> None:
        for name, count in (("widths", 6), ("blocks", 3), ("ups", 2)):
            if len(getattr(self, name)) != count:
                raise ArchitectureError(
                    f"{name} must have {count} entries, got {len(getattr(self, name))}."
                )
        if wrong := [b for b in self.blocks if b not in BLOCKS]:
            raise ArchitectureError(f"blocks must be of {', '.join(BLOCKS)}, got {wrong[0]!r}.")
        if wrong := [k for k in self.ups if k not in KERNELS]:
            raise ArchitectureError(f"ups must be 2 or 4, got {wrong[0]}.")
        if self.activation not in ACTIVATIONS:
            raise ArchitectureError(
                f"activation must be of {', '.join(ACTIVATIONS)}, got {self.activation!r}."
            )
        if min(self.noise, self.caption, self.vocabulary) < 1:
            raise ArchitectureError("noise, caption and vocabulary must be at least 1.")
        for name, width in zip(LAYERS, self.widths, strict=True):
            if name in CONVS and self.block(name) == "none":
                if width != 0:
                    raise ArchitectureError(f"{name} is absent, so its width must be 0: {width}.")
            elif width < 8 or width % 8:
                raise ArchitectureError(
                    f"the width of {name} must be a multiple of 8 from 8, got {width}."
                )

    @property
    def condition(self) -> int:
        """Length of noise and caption vector together."""
        return self.noise + self.caption

    def block(self, name: str) -> str:
        """The block of "conv7", "conv14" or "conv28"."""
        return self.blocks[CONVS.index(name)]

    def kernel(self, name: str) -> int:
        """The kernel of "up14" or "up28"."""
        return self.ups[UPS.index(name)]

    def width(self, name: str) -> int:
        """The output channels of a layer; 0 where it is absent."""
        return self.widths[LAYERS.index(name)]

    @property
    def modulated(self) -> dict[str, int]:
        """Width of each map that noise and caption modulate, by layer."""
        return {name: self.width(name) for name in MODULATED if self.width(name)}

    def layers(self) -> dict[str, Layer]:
        """The layers that are there, by name, in order; "rgb" makes the picture."""
        found = {"stem": Layer("stem", self.condition, self.width("stem"), 7, True)}
        inputs = self.width("stem")
        for name in LAYERS[1:]:
            kind = f"up{self.kernel(name)}" if name in UPS else self.block(name)
            if kind != "none":
                modulated = name in MODULATED
                found[name] = Layer(kind, inputs, self.width(name), SIDES[name], modulated)
                inputs = self.width(name)
        return {**found, "rgb": Layer("rgb", inputs, 3, 28)}

    def macs(self, words: int = WORDS) -> int:
        """Multiply-accumulates of one picture from a caption of so many words."""
        encoder = self.caption * (3 * _EMBEDDING * words + self.caption)
        modulation = self.condition * 2 * sum(self.modulated.values())
        return encoder + modulation + sum(layer.macs for layer in self.layers().values())

    def parameters(self) -> int:
        """Weights and biases of the whole network."""
        caption = self.caption
        encoder = self.vocabulary * _EMBEDDING + (3 * _EMBEDDING + 1 + caption + 1) * caption
        modulation = (self.condition + 1) * 2 * sum(self.modulated.values())
        return encoder + modulation + sum(layer.parameters for layer in self.layers().values())

    def __str__(self) -> str:
        words = [f"stem {self.width('stem')}"]
        for name, layer in list(self.layers().items())[1:-1]:
            words.append(f"{name} {layer.kind.removeprefix('conv')} {layer.outputs}")
        return ", ".join(words)


def uniform(share: float, **fields: object) -> Architecture:
    """GENERATOR_BASE's plain width sweep: every layer at a share of its width, multiples of 8."""
    widths = tuple(max(8, 8 * round(share * w / 8)) for w in Architecture().widths)
    return Architecture(widths=widths, **fields)


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return self.pointwise(self.depthwise(x))


class Shuffle(nn.Module):
    """Twice the side by a 1x1 convolution to four times the channels, laid out as 2x2 blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        return F.pixel_shuffle(self.conv(x), 2)


def build_layer(layer: Layer) -> nn.Module:
    """The module of a layer, fresh; a stem writes its map flat."""
    inputs, outputs = layer.inputs, layer.outputs
    if layer.kind == "stem":
        return nn.Linear(inputs, outputs * layer.side**2)
    if layer.kind == "separable":
        return Separable(inputs, outputs)
    if layer.kind == "up2":
        return Shuffle(inputs, outputs)
    if layer.kind == "up4":
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    kernel = 1 if layer.kind == "conv1" else 3
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class SearchedGenerator(nn.Module):
    """The network of an architecture: caption words and noise in, picture out."""

    def __init__(self, config: Architecture | None = None) -> None:
        super().__init__()
        self.config = config or Architecture()
        widths = self.config.modulated
        self.caption_encoder = CaptionEncoder(self.config.caption, self.config.vocabulary)
        self.modulation = nn.Linear(self.config.condition, 2 * sum(widths.values()))
        nn.init.normal_(self.modulation.weight, std=0.02)
        with torch.no_grad():  # x * 1 + 0
            for part in self.modulation.bias.split([2 * w for w in widths.values()]):
                part.zero_()[: len(part) // 2] = 1
        self.layers = nn.ModuleDict(
            {name: build_layer(layer) for name, layer in self.config.layers().items()}
        )

    def forward(self, noise: Tensor, words: Tensor) -> Tensor:
        """noise (B, config.noise) and words int64 (B, L) to images (B, 3, 28, 28) in [-1, 1]."""
        return self.maps(noise, words)["rgb"]

    def maps(self, noise: Tensor, words: Tensor) -> dict[str, Tensor]:
        """What each layer writes, modulated and activated, by name; "rgb" is the picture."""
        y = torch.cat([noise, self.caption_encoder(words)], 1)
        widths = self.config.modulated
        parts = self.modulation(y)[:, :, None, None].split([2 * w for w in widths.values()], 1)
        scale_shift = dict(zip(widths, parts, strict=True))
        maps, x = {}, y
        for name, layer in self.layers.items():
            x = layer(x)
            if name == "stem":
                x = x.view(-1, widths["stem"], 7, 7)
            maps[name] = x = finish(x, name, scale_shift.get(name), self.config.activation)
        return maps


def finish(x: Tensor, name: str, scale_shift: Tensor | None, activation: str) -> Tensor:
    """What stands behind a layer: the modulation, if it has one, and the activation."""
    if name == "rgb":
        return x.tanh()
    if scale_shift is not None:
        a, b = scale_shift.chunk(2, 1)
        x = x * a + b
    return activate(x, activation)


def activate(x: Tensor, name: str) -> Tensor:
    """One of ACTIVATIONS, elementwise."""
    return F.leaky_relu(x, 0.2) if name == "leaky_relu" else getattr(F, name)(x)
