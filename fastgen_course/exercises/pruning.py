"""Exercises of notebook 11: what goes together, where a channel lies, 2:4, what is saved."""

from __future__ import annotations

import torch

from fastgen_course.exercises.registry import register_exercise, register_prediction

# --- what goes together -------------------------------------------------------------------------


def remove_channels(make, bias, read, keep):
    """(make, bias, read) of conv(C, K) then conv(K, D) with the K channels in `keep` left."""
    return make[keep], bias[keep], read[:, keep]


def _pair_inputs():
    generator = torch.Generator().manual_seed(0)
    for inputs, between, outputs, keep in (
        (2, 4, 4, [0, 2]),
        (3, 6, 8, [1, 2, 5]),
        (6, 5, 7, [4]),
        (5, 5, 5, [0, 1, 3]),
    ):
        yield (
            torch.randn(between, inputs, 3, 3, generator=generator),
            torch.randn(between, generator=generator),
            torch.randn(outputs, between, 3, 3, generator=generator),
            torch.tensor(keep),
        )


def _others(count, keep):
    return torch.tensor([c for c in range(count) if c not in keep.tolist()], dtype=torch.int64)


register_exercise(
    "pruning.remove_channels",
    title="Remove channels between two convolutions",
    difficulty=1,
    minutes=6,
    reference=remove_channels,
    inputs=_pair_inputs,
    wrong={
        "the reader left whole": (
            lambda make, bias, read, keep: (make[keep], bias[keep], read),
            "The second convolution still expects all K channels: its *inputs* have to go as well.",
        ),
        "the bias left whole": (
            lambda make, bias, read, keep: (make[keep], bias, read[:, keep]),
            "Every output channel has a bias of its own, and it goes with the channel.",
        ),
        "inputs of the first": (
            lambda make, bias, read, keep: (
                make[:, keep % make.shape[1]],
                bias[keep],
                read[:, keep],
            ),
            "A weight is (out, in, kh, kw). The channels between the two layers are the *outputs* "
            "of the first: its first dimension.",
        ),
        "outputs of the second": (
            lambda make, bias, read, keep: (make[keep], bias[keep], read[keep % read.shape[0]]),
            "The channels between the two layers are the *inputs* of the second: its second "
            "dimension.",
        ),
        "the others": (
            lambda make, bias, read, keep: (
                make[_others(len(make), keep)],
                bias[_others(len(make), keep)],
                read[:, _others(len(make), keep)],
            ),
            "`keep` names the channels that stay, not those that leave.",
        ),
    },
    hints=(
        "The K channels are a dimension of all three tensors. Which one, in each?",
        "A convolution's weight is (out, in, kh, kw). Index with `keep` along `out` of the first "
        "and along `in` of the second.",
    ),
)

# --- where a channel lies -----------------------------------------------------------------------


def stem_rows(keep, channels, pixels):
    """Rows of a linear layer that make the channels `keep` of view(-1, channels, pixels): 1-D."""
    return (keep[:, None] * pixels + torch.arange(pixels)).flatten()


def _pixel_major(keep, channels, pixels):
    """The rows if the outputs were laid out pixel by pixel, its channels side by side."""
    return (keep[:, None] + channels * torch.arange(pixels)).flatten()


register_exercise(
    "pruning.stem_rows",
    title="Where a channel lies before a view",
    difficulty=2,
    minutes=6,
    reference=stem_rows,
    inputs=lambda: [
        (torch.tensor([0, 2]), 3, 4),
        (torch.tensor([1]), 5, 9),
        (torch.tensor([0, 3, 4]), 6, 4),
        (torch.tensor([2, 5]), 8, 49),
    ],
    wrong={
        "one row a channel": (
            lambda keep, channels, pixels: keep.clone(),
            "Each channel is a whole map here: `pixels` rows of the matrix, not one.",
        ),
        "pixel by pixel": (
            _pixel_major,
            "That is right for a layout in which the channels of one pixel stand side by side. "
            "`view` makes the *last* dimension run fastest, and that is the pixels.",
        ),
        "in steps of the channels": (
            lambda keep, channels, pixels: (
                keep[:, None] * channels + torch.arange(pixels)
            ).flatten(),
            "Channel c begins after c whole maps. How many rows is a map?",
        ),
        "as a matrix": (
            lambda keep, channels, pixels: keep[:, None] * pixels + torch.arange(pixels),
            "The numbers are right; an index of rows has one dimension. Flatten it.",
        ),
    },
    hints=(
        "`view(-1, channels, pixels)` puts output number r at channel r // pixels, pixel "
        "r % pixels. Turn that round.",
        "Channel c has the rows c * pixels to c * pixels + pixels - 1. Add a column of starts and "
        "a row of pixels, and flatten.",
    ),
)

# --- 2:4 ----------------------------------------------------------------------------------------


def two_of_four(weight):
    """A mask (out, 4 m): ones at the two largest sizes of each four neighbouring inputs."""
    fours = weight.abs().unflatten(1, (-1, 4))
    mask = torch.zeros_like(fours).scatter(-1, fours.topk(2, -1).indices, 1.0)
    return mask.flatten(1)


def _half_of_the_row(weight):
    order = weight.abs().topk(weight.shape[1] // 2, 1).indices
    return torch.zeros_like(weight).scatter(1, order, 1.0)


def _largest(values):
    fours = values.unflatten(1, (-1, 4))
    return torch.zeros_like(fours).scatter(-1, fours.topk(2, -1).indices, 1.0).flatten(1)


register_exercise(
    "pruning.two_of_four",
    title="Two of four",
    difficulty=2,
    minutes=7,
    reference=two_of_four,
    inputs=lambda: [
        (torch.tensor([[0.1, -0.9, 0.4, 0.2, 3.0, -2.0, 1.0, 2.5]]),),
        (torch.randn(4, 8, generator=torch.Generator().manual_seed(1)),),
        (torch.randn(8, 16, generator=torch.Generator().manual_seed(2)),),
    ],
    wrong={
        "half of the row": (
            _half_of_the_row,
            "Half of the weights are zero, but not two in each four: the hardware reads four "
            "places at a time and can skip exactly two of them.",
        ),
        "sign kept": (
            _largest,
            "A weight of -3 matters more than one of 0.1: compare sizes, not values.",
        ),
        "the small ones": (
            lambda weight: 1 - _largest(weight.abs()),
            "Those are the ones that should go.",
        ),
        "every second": (
            lambda weight: torch.tensor([1.0, 0.0]).repeat(weight.shape[0], weight.shape[1] // 2),
            "That has two of each four, but not the two largest.",
        ),
        "the weights": (
            lambda weight: weight * two_of_four(weight),
            "Those are the masked weights. Asked for is the mask itself, of zeros and ones.",
        ),
    },
    hints=(
        "Split the inputs into groups of four: `weight.unflatten(1, (-1, 4))`.",
        "`topk(2, -1).indices` of the sizes says where the ones go; `scatter` puts them there.",
    ),
)

# --- predictions --------------------------------------------------------------------------------

_SAVED = ("1/2", "1/4", "1/8")


def _left() -> str:
    def products(inputs: int, outputs: int) -> int:
        return inputs * outputs * 9 * 14 * 14

    return f"1/{products(64, 64) // products(32, 32)}"


register_prediction(
    "pruning.half_the_channels",
    title="Half the channels",
    difficulty=1,
    minutes=1,
    question="Every layer of a network keeps half its channels. What share of its products does a "
    "3x3 convolution in the middle keep?",
    choices=_SAVED,
    answer="1/4",
    why="Products are inputs times outputs times taps times pixels, and both inputs and outputs "
    "are halved. What is done once for each channel, as ReLU or the modulation, is only halved.",
    wrong={
        "1/2": "That would be so if only its outputs were halved. What has happened to its inputs?",
        "1/8": "Inputs and outputs are halved; taps and pixels stay as they are.",
    },
    check=_left,
)

_ZEROS = ("ten times fewer", "twice as few", "the same")


def _dense() -> str:
    """What an ordinary kernel multiplies: places, whatever stands in them."""
    weight = torch.randn(32, 32, 3, 3)
    zeros = weight * (torch.rand(weight.shape) < 0.1)
    ratio = weight.numel() / zeros.numel()
    return {10.0: "ten times fewer", 2.0: "twice as few", 1.0: "the same"}[ratio]


register_prediction(
    "pruning.zeros",
    title="Nine of ten are zero",
    difficulty=1,
    minutes=1,
    question="Nine of ten weights of each layer are set to zero, in no pattern, and the network is "
    "exported to ONNX. How many milliseconds does it take, compared with before?",
    choices=_ZEROS,
    answer="the same",
    why="The matrix has the shape that it had, and the kernel multiplies every place of it. To "
    "skip a zero it would have to look first, and looking costs more than multiplying.",
    wrong={
        "ten times fewer": "That is how many products *matter*. How many does the kernel do?",
        "twice as few": "That would be a kernel that finds zeros at no cost. Dense kernels do not "
        "look for any.",
    },
    check=_dense,
)
