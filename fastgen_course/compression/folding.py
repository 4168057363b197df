"""GENERATOR_BASE as it is deployed: norms folded away, transposed convolutions as plain ones.

Both changes are exact. In evaluation mode a batch norm is an affine map of each channel, so it goes
into the layer before it. (It could go into the modulation behind it too. In the layer it gives each
channel of the output variance 1, and one grid for all channels then suits them all.) A transposed
convolution of stride 2 is an ordinary convolution whose output channels are laid out as 2x2 blocks
of pixels; runtimes that have no integer kernel for the former have one for the latter, and which of
the two is faster depends on the size of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgen_course.models.generator import (
    GENERATOR_BASE,
    CaptionEncoder,
    Generator,
    GeneratorConfig,
    layer_widths,
)

FORMS = ("transposed", "blocks", "mixed")  # of both upsamplings; "mixed" is blocks in up28 alone


def in_blocks(form: str, layer: str) -> bool:
    """Whether a form has the upsampling `layer` ("up14", "up28") as blocks of pixels."""
    return layer in {"blocks": ("up14", "up28"), "mixed": ("up28",)}.get(form, ())


def blocks_weight(weight: Tensor) -> Tensor:
    """A 4x4 transposed kernel (in, out, 4, 4) of stride 2 as a 2x2 kernel (4 out, in, 2, 2).

    Output row 2 i of the transposed convolution reads input rows i - 1 (tap 3) and i (tap 1), row
    2 i + 1 reads i (tap 2) and i + 1 (tap 0). A 2x2 convolution with padding 1 has, at its place j,
    input rows j - 1 and j: it can make the transposed rows 2 j - 1 (taps 2 and 0) and 2 j (taps 3
    and 1). Columns alike. Output channels are ordered (row in block, column in block, channel).
    """
    if weight.ndim != 4 or tuple(weight.shape[2:]) != (4, 4):
        raise ValueError(f"a transposed kernel is (in, out, 4, 4), got {tuple(weight.shape)}.")
    taps = torch.tensor([[2, 0], [3, 1]], device=weight.device)  # [row in block][input row]
    inputs, outputs = weight.shape[:2]
    # [in, out, row in block, input row, column in block, input column]
    picked = weight[:, :, taps][..., taps]
    return picked.permute(2, 4, 1, 0, 3, 5).reshape(4 * outputs, inputs, 2, 2)


class BlockUpsampling(nn.Module):
    """ConvTranspose2d(inputs, outputs, 4, 2, 1) as a 2x2 convolution, blocks of pixels and a crop.

    The last two only move numbers, and with channels last they move whole runs of them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, outputs, 2 H, 2 W)."""
        return lay_out_blocks(self.conv(x))


def lay_out_blocks(x: Tensor) -> Tensor:
    """(B, 4 C, H + 1, W + 1), channels ordered (row, column, channel), to (B, C, 2 H, 2 W)."""
    height, width, channels = x.shape[2], x.shape[3], x.shape[1] // 4
    x = x.permute(0, 2, 3, 1).reshape(-1, height, width, 2, 2, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 2 * height, 2 * width, channels)
    return x[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


class FoldedGenerator(nn.Module):
    """The generator without norms: what remains of them is a bias, and the modulation x * a + b."""

    def __init__(self, config: GeneratorConfig = GENERATOR_BASE, form: str = "transposed") -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        self.config, self.form = config, form
        stem, seven, up14, fourteen, up28, last = layer_widths(config)
        condition = config.noise + config.caption
        self.low = stem
        self.widths = (stem, seven, up14, fourteen)  # of the modulated maps
        self.caption_encoder = CaptionEncoder(config.caption, config.vocabulary)
        self.modulation = nn.Linear(condition, 2 * sum(self.widths))
        self.stem = nn.Linear(condition, stem * 7 * 7)
        self.conv7 = nn.Conv2d(stem, seven, 3, padding=1)
        self.up14 = _upsampling(in_blocks(form, "up14"), seven, up14)
        self.conv14 = nn.Conv2d(up14, fourteen, 3, padding=1)
        self.up28 = _upsampling(in_blocks(form, "up28"), fourteen, up28)
        self.conv28 = nn.Conv2d(up28, last, 3, padding=1)
        self.to_rgb = nn.Conv2d(last, 3, 3, padding=1)

    def forward(self, noise: Tensor, words: Tensor) -> Tensor:
        """noise (B, config.noise) and words int64 (B, L) to images (B, 3, 28, 28) in [-1, 1]."""
        y = torch.cat([noise, self.caption_encoder(words)], 1)
        parts = self.modulation(y)[:, :, None, None].split([2 * w for w in self.widths], 1)
        (a0, b0), (a1, b1), (a2, b2), (a3, b3) = (part.chunk(2, 1) for part in parts)
        x = self.stem(y).view(-1, self.low, 7, 7)
        x = (x * a0 + b0).relu()
        x = (self.conv7(x) * a1 + b1).relu()
        x = (self.up14(x) * a2 + b2).relu()
        x = (self.conv14(x) * a3 + b3).relu()
        x = self.raise_to_28(x)
        x = self.conv28(x).relu()
        return self.to_rgb(x).tanh()

    def raise_to_28(self, x: Tensor) -> Tensor:
        """The last upsampling with its ReLU, which stands right behind the convolution in all
        forms: the layout moves numbers only, and runtimes fuse what is adjacent."""
        if in_blocks(self.form, "up28"):
            return lay_out_blocks(self.up28.conv(x).relu())
        return self.up28(x).relu()


def _upsampling(blocks: bool, inputs: int, outputs: int) -> nn.Module:
    if blocks:
        return BlockUpsampling(inputs, outputs)
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)


@torch.no_grad()
def fold(generator: Generator, form: str = "transposed") -> FoldedGenerator:
    """The deployed form of a trained generator; draws the same pictures up to rounding."""
    folded = FoldedGenerator(generator.config, form).eval()
    folded.caption_encoder.load_state_dict(generator.caption_encoder.state_dict())
    modulated = (generator.stem_norm, generator.norm7, generator.norm14a, generator.norm14b)
    linears = [norm.scale_shift for norm in modulated]
    folded.modulation.weight.copy_(torch.cat([x.weight for x in linears]))
    folded.modulation.bias.copy_(torch.cat([x.bias for x in linears]))
    # The modulation says scale and shift as norm(x) * (1 + scale) + shift.
    for part in folded.modulation.bias.split([2 * w for w in folded.widths]):
        part[: len(part) // 2] += 1
    places = ("conv7", "up14", "conv14", "up28", "conv28", "to_rgb")
    norms = [norm.norm for norm in modulated[1:]] + [generator.norm28a, generator.norm28b, None]
    for name, norm in zip(places, norms, strict=True):
        set_layer(getattr(folded, name), *_normed(getattr(generator, name), norm))
    # The stem's norm has one mean and scale for the 7 x 7 places of a channel.
    norm = generator.stem_norm.norm
    rate = (norm.running_var + norm.eps).rsqrt().repeat_interleave(49)
    stem = generator.stem
    folded.stem.weight.copy_(stem.weight * rate[:, None])
    folded.stem.bias.copy_((stem.bias - norm.running_mean.repeat_interleave(49)) * rate)
    return folded.requires_grad_(False)


def _normed(layer: nn.Module, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it folded in."""
    if norm is None:
        return layer.weight, layer.bias
    rate = (norm.running_var + norm.eps).rsqrt()
    shift = 0 if layer.bias is None else layer.bias
    scale, offset = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(rate), 0)
    outputs = (1, -1, 1, 1) if isinstance(layer, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = layer.weight * (rate * scale).view(outputs)
    return weight, offset + (shift - norm.running_mean) * rate * scale


def set_layer(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a layer of a folded generator its weight and bias, laid out as its form wants them."""
    if isinstance(layer, BlockUpsampling):
        layer, weight, bias = layer.conv, blocks_weight(weight), bias.repeat(4)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
