"""A generator whose layers compute with quantised numbers, in floating point or in integers.

In floating point ("fake quantisation") every tensor that an integer runtime would store as an
integer is rounded to its grid and goes on as a float: gradients pass, by the straight-through
estimator. In integers the same layers multiply what would be stored. Both give the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen_course.compression.affine import Grid, QuantizationError, Scheme, quantize
from fastgen_course.compression.calibration import Calibrator, check_method, weight_grid
from fastgen_course.compression.folding import FoldedGenerator, fold, set_layer
from fastgen_course.datasets.captions import encode_words
from fastgen_course.datasets.scenes import draw_captions, draw_labels
from fastgen_course.models.generator import Generator, GeneratorConfig

LAYERS = ("modulation", "stem", "conv7", "up14", "conv14", "up28", "conv28", "to_rgb")
# Layers whose output is stored as integers before anything else reads it. The output of up28 and
# conv28 is stored too, behind the ReLU: that is the next layer's input.
OUTPUTS = ("conv7", "up14", "conv14", "to_rgb")
# tanh of this is half a grey level (of 255) from 1.
PIXEL_LIMIT = math.atanh(1 - 1 / 255)


@dataclass(frozen=True)
class QuantizedConfig(GeneratorConfig):
    """A generator's sizes, and the bits of its numbers.

    Attributes:
        weight_bits: 2 to 16, or None to leave the weights in floating point.
        activation_bits: the same for what layers read and write.
        per_channel: one grid for each output channel of a weight, or one for the whole weight.
    """

    weight_bits: int | None = 8
    activation_bits: int | None = 8
    per_channel: bool = True

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            bits = getattr(self, name)
            if bits is not None:
                try:
                    Scheme(bits)
                except QuantizationError as error:
                    raise QuantizationError(f"{name}: {error}") from error


def straight_through(x: Tensor, grid: Grid) -> Tensor:
    """`fake_quantize` with a gradient: rounding counts as the identity, clipping as clipping.

    The true derivative of a staircase is 0 wherever it exists, and nothing would learn (Bengio et
    al. 2013, arXiv:1308.3432). With the rounding error held constant, d/dx is 1 between the grid's
    ends and 0 beyond them; d/dscale is what Esser et al. 2020 (LSQ) derive.
    """
    steps = x / grid.scale
    rounded = steps + (torch.round(steps) - steps).detach()
    q = (rounded + grid.zero_point).clamp(grid.low, grid.high)
    return (q - grid.zero_point) * grid.scale


class ActivationGrid(nn.Module):
    """One grid for a tensor that flows through the network; watches while it is calibrated."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.scheme = Scheme(bits)
        # float64, so that a checkpoint (which halves float32) keeps them whole.
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.float64))
        self.calibrator: Calibrator | None = None

    def grid(self) -> Grid:
        """The grid in force."""
        return Grid(self.scale.float(), self.zero_point.float(), self.scheme.low, self.scheme.high)

    def set_grid(self, grid: Grid) -> None:
        """Take another grid."""
        self.scale.copy_(grid.scale)
        self.zero_point.copy_(grid.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        """x rounded to the grid; x itself while calibrating."""
        if self.calibrator is not None:
            self.calibrator.add(x)
            return x
        return straight_through(x, self.grid())


class QuantizedLayer(nn.Module):
    """A Linear, Conv2d or ConvTranspose2d that computes with quantised numbers.

    The weight's scale is learned as its logarithm, so that a step of the optimiser changes it by a
    share and never its sign.
    """

    def __init__(self, layer: nn.Module, config: QuantizedConfig, output: bool) -> None:
        super().__init__()
        self.layer = layer
        self.integers = False
        outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        self.scheme = None
        if config.weight_bits is not None:
            axis = outputs if config.per_channel else None
            self.scheme = Scheme(config.weight_bits, "symmetric", axis)
            shape = [1] * layer.weight.ndim
            if axis is not None:
                shape[axis] = layer.weight.shape[axis]
            self.log_scale = nn.Parameter(torch.zeros(shape))
        bits = config.activation_bits
        self.input = nn.Identity() if bits is None else ActivationGrid(bits)
        self.output = ActivationGrid(bits) if bits is not None and output else nn.Identity()

    def weight_grid(self) -> Grid:
        """The weight's grid in force."""
        scale = self.log_scale.exp()
        return Grid(scale, torch.zeros_like(scale), self.scheme.low, self.scheme.high)

    def fit_weight(self, method: str) -> None:
        """Choose the weight's grid anew."""
        if self.scheme is not None:
            scale = weight_grid(self.layer.weight.detach(), self.scheme, method).scale
            self.log_scale.data.copy_(scale.log().view_as(self.log_scale))

    def weight(self) -> Tensor:
        """The weight as its grid says it."""
        if self.scheme is None:
            return self.layer.weight
        return straight_through(self.layer.weight, self.weight_grid())

    def weight_integers(self) -> Tensor:
        """The weight's integers, int32."""
        with torch.no_grad():
            return quantize(self.layer.weight, self.weight_grid())

    def accumulator_scale(self) -> Tensor:
        """What 1 in the sum of integer products is worth: (outputs,) or one number."""
        scale = self.log_scale.exp() * self.input.grid().scale
        return scale.flatten() if scale.numel() > 1 else scale.reshape(())

    def bias(self) -> Tensor | None:
        """The bias, a whole number of accumulator steps where the layer adds integers."""
        bias = self.layer.bias
        if bias is None or self.scheme is None or not self._reads_integers():
            return bias
        steps = bias / self.accumulator_scale()
        return (steps + (torch.round(steps) - steps).detach()) * self.accumulator_scale()

    def _reads_integers(self) -> bool:
        grid = self.input
        return isinstance(grid, ActivationGrid) and grid.calibrator is None

    def forward(self, x: Tensor) -> Tensor:
        """As the layer inside."""
        if self.integers:
            return self._integer_forward(x)
        return self.output(_apply(self.layer, self.input(x), self.weight(), self.bias()))

    @torch.no_grad()
    def _integer_forward(self, x: Tensor) -> Tensor:
        """The same in integers: what a runtime stores is multiplied and added, then scaled once.

        sum (q - z) w = sum q w - z sum w, the zero-point expansion with symmetric weights. A padded
        place counts in neither sum, which is what a stored z there would come to. float64 holds
        every integer in question exactly, and PyTorch has no integer convolution.
        """
        grid, layer = self.input.grid(), self.layer
        q = quantize(x, grid).double()
        w = self.weight_integers().double()
        z = grid.zero_point.double()
        ones = torch.ones_like(q)
        total = _apply(layer, q, w, None) - z * _apply(layer, ones, w, None)
        scale = self.accumulator_scale()
        shape = [1, -1] + [1] * (total.ndim - 2)
        if layer.bias is not None:
            total = total + torch.round(layer.bias / scale).double().view(shape)
        y = total.float() * (scale.view(shape) if scale.ndim else scale)
        return self.output(y)


def _apply(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    fn = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
    return fn(x, weight, bias, layer.stride, layer.padding)


class QuantizedGenerator(FoldedGenerator):
    """A folded generator whose layers are `QuantizedLayer`s; the caption encoder (1 % of the work)
    stays in floating point."""

    def __init__(self, config: QuantizedConfig) -> None:
        super().__init__(config)
        for name in LAYERS:
            layer = QuantizedLayer(getattr(self, name), config, name in OUTPUTS)
            setattr(self, name, layer)
        self.stem.input = self.modulation.input  # both read the same tensor

    def layers(self) -> Iterator[tuple[str, QuantizedLayer]]:
        """(name, layer) of every quantised layer, in the order in which they run."""
        return ((name, getattr(self, name)) for name in LAYERS)

    def activation_grids(self) -> list[ActivationGrid]:
        """Every grid of an activation, each once."""
        return [m for m in self.modules() if isinstance(m, ActivationGrid)]

    @torch.no_grad()
    def folded(self, form: str = "transposed") -> FoldedGenerator:
        """A plain folded generator with the quantised weights' values (activations: floats)."""
        plain = FoldedGenerator(self.config, form).eval().requires_grad_(False)
        plain.caption_encoder.load_state_dict(self.caption_encoder.state_dict())
        for name, layer in self.layers():
            set_layer(getattr(plain, name), layer.weight(), layer.bias())
        return plain

    @contextmanager
    def integer_arithmetic(self) -> Iterator[QuantizedGenerator]:
        """Inside the block the layers multiply integers. Needs quantised weights and activations.

        Raises `QuantizationError` where one of the two is still in floating point.
        """
        if None in (self.config.weight_bits, self.config.activation_bits):
            raise QuantizationError(
                "weight_bits and activation_bits must both be set to compute in integers."
            )
        try:
            for _, layer in self.layers():
                layer.integers = True
            yield self
        finally:
            for _, layer in self.layers():
                layer.integers = False

    @torch.no_grad()
    def calibrate(
        self, batches: Sequence[tuple[Tensor, Tensor]], method: str = "mse"
    ) -> QuantizedGenerator:
        """Choose every grid: weights from themselves, activations from (noise, words) batches.

        Activations are watched behind quantised weights, as they will be. Raises
        `QuantizationError` for no batches, NaN, or another method.
        """
        check_method(method)
        for _, layer in self.layers():
            layer.fit_weight("minmax" if method == "minmax" else "mse")
        grids = self.activation_grids()
        if not grids:
            return self
        try:
            for grid in grids:
                grid.calibrator = Calibrator()
            for noise, words in batches:
                self(noise, words)
            # Beyond PIXEL_LIMIT the picture does not change any more, and errors do not count.
            last = self.to_rgb.output
            if isinstance(last, ActivationGrid):
                last.calibrator.clip(-PIXEL_LIMIT, PIXEL_LIMIT)
            found = [grid.calibrator.grid(grid.scheme, method) for grid in grids]
        finally:
            for grid in grids:
                grid.calibrator = None
        for grid, chosen in zip(grids, found, strict=True):
            grid.set_grid(chosen)
        return self


def calibration_batches(
    config: GeneratorConfig, n: int = 512, batch: int = 64, seed: int = 12
) -> list[tuple[Tensor, Tensor]]:
    """Noise and captions to calibrate on: drawn as training captions are, none held out.

    Raises `QuantizationError` for n below 1.
    """
    if n < 1:
        raise QuantizationError(f"n must be at least 1 calibration picture, got {n}.")
    generator = torch.Generator().manual_seed(seed)
    words = encode_words(draw_captions(draw_labels(n, generator), generator))
    noise = torch.randn(n, config.noise, generator=generator)
    return list(zip(noise.split(batch), words.split(batch), strict=True))


def new_quantized(generator: Generator | FoldedGenerator, **bits: Any) -> QuantizedGenerator:
    """A generator's weights in a `QuantizedGenerator`, its grids not chosen yet.

    `bits`: weight_bits, activation_bits, per_channel.
    """
    folded = fold(generator) if isinstance(generator, Generator) else generator
    config = QuantizedConfig(**{**asdict(generator.config), **bits})
    quantized = QuantizedGenerator(config)
    quantized.caption_encoder.load_state_dict(folded.caption_encoder.state_dict())
    for name, layer in quantized.layers():
        layer.layer.load_state_dict(getattr(folded, name).state_dict())
    return quantized.eval().requires_grad_(False)


def quantize_generator(
    generator: Generator | FoldedGenerator,
    *,
    method: str = "mse",
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
    **bits: Any,
) -> QuantizedGenerator:
    """Post-training quantisation: fold the norms, choose the grids, change no weight otherwise.

    Args:
        generator: trained, on the CPU.
        method: of `calibration.METHODS`.
        batches: (noise, words) to calibrate on; None takes `calibration_batches`.
        bits: weight_bits, activation_bits (None: floating point), per_channel.
    """
    quantized = new_quantized(generator, **bits)
    given = calibration_batches(generator.config) if batches is None else batches
    return quantized.calibrate(given, method)
