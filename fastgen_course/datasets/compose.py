"""Captioned Fashion: real photographs set into small colour scenes that a program can check.

`compose` is deterministic: a photograph and five labels give one image, one mask, and, with edited
labels, the exact target of that edit. Nothing here is learned and nothing is random.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgen_course.datasets.captions import EMPTY, SLOTS, SMALL

SIDE = 28
SMALL_SIDE = 20  # a small garment's frame; even, so that pixel art's 2x2 blocks stay aligned

# sRGB in [0, 1]. Chosen apart in hue or lightness after shading, and looked at before training.
COLOURS = {
    "red": (0.88, 0.10, 0.12),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.88, 0.12),
    "green": (0.12, 0.62, 0.20),
    "blue": (0.12, 0.30, 0.90),
    "purple": (0.52, 0.16, 0.72),
    "pink": (1.00, 0.45, 0.72),
    "brown": (0.46, 0.28, 0.16),
}
BACKGROUNDS = {
    "white": (0.98, 0.98, 0.98),
    "grey": (0.58, 0.58, 0.58),
    "black": (0.05, 0.05, 0.05),
    "pale blue": (0.72, 0.86, 1.00),
    "pale green": (0.76, 0.95, 0.76),
    "pale pink": (1.00, 0.82, 0.86),
}


class Scenes(NamedTuple):
    """Composed images and where the garment is."""

    images: torch.Tensor  # float32 (B, 3, 28, 28) in [-1, 1]
    masks: torch.Tensor  # bool (B, 28, 28), True on the garment


@cache
def _tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    colours = torch.tensor([COLOURS[c] for c in SLOTS["colour"]], device=device)
    backgrounds = torch.tensor([BACKGROUNDS[b] for b in SLOTS["background"]], device=device)
    # Row i of the area-resize matrix averages the source pixels that target pixel i covers.
    edges = torch.arange(SMALL_SIDE + 1, dtype=torch.float64) * SIDE / SMALL_SIDE
    pixel = torch.arange(SIDE, dtype=torch.float64)
    overlap = (
        torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    ).clamp(min=0)
    resize = (overlap * SMALL_SIDE / SIDE).float().to(device)
    return colours, backgrounds, resize


def _dilate(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x[:, None], 3, 1, 1)[:, 0]


def _erode(x: torch.Tensor) -> torch.Tensor:
    # Outside the frame counts as empty, so that a garment cut by the frame keeps its outline there.
    padded = F.pad(x, (1, 1, 1, 1))
    return -F.max_pool2d(-padded[:, None], 3, 1)[:, 0]


def _paint(shade: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """`shade` (B, H, W) times `colour` (B, 3); what exceeds 1 goes towards white."""
    colour = colour[:, :, None, None]
    shade = shade[:, None]
    return colour * shade.clamp(max=1) + (1 - colour) * (shade - 1).clamp(min=0)


def _over(alpha: torch.Tensor, top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
    return bottom + alpha[:, None] * (top - bottom)


def _photo(grey, alpha, shade, colour, paper):
    return _over(alpha, _paint(shade, colour), paper)


def _sketch(grey, alpha, shade, colour, paper):
    """Pencil: a line at the outline and at every dark-to-bright step, a light wash inside."""
    outline = alpha - _erode(alpha)
    texture = 2.5 * (grey - _erode(grey))
    line = torch.maximum(outline, texture).clamp(0, 1) * alpha.clamp(max=1)
    wash = _over(0.18 * alpha, colour[:, :, None, None].expand_as(paper), paper)
    return _over(line, _paint(torch.full_like(line, 0.9), colour), wash)


def _flat(grey, alpha, shade, colour, paper):
    """Cut paper: a hard edge, three tones, a dark outline."""
    solid = (alpha > 0.5).float()
    tone = 0.62 + 0.2 * (shade > 0.72).float() + 0.2 * (shade > 0.86).float()
    outline = solid - _erode(solid)
    tone = torch.where(outline > 0.5, 0.48, tone)
    return _over(solid, _paint(tone, colour), paper)


def _pixel_art(grey, alpha, shade, colour, paper):
    """2x2 blocks, a hard edge, seven tones."""
    block_alpha = (F.avg_pool2d(alpha[:, None], 2)[:, 0] > 0.5).float()
    block_shade = F.avg_pool2d(shade[:, None], 2)[:, 0]
    block_shade = 0.5 + ((block_shade - 0.5) / 0.1).round().clamp(0, 6) * 0.1
    alpha = block_alpha.repeat_interleave(2, -1).repeat_interleave(2, -2)
    shade = block_shade.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return _over(alpha, _paint(shade, colour), paper)


_STYLES = {"photo": _photo, "sketch": _sketch, "flat": _flat, "pixel art": _pixel_art}


@torch.no_grad()
def compose(photos: torch.Tensor, labels: torch.Tensor) -> Scenes:
    """Set photographs into scenes.

    Args:
        photos: uint8 (B, 28, 28), a garment bright on black.
        labels: int64 (B, 5), an index into each of SLOTS; -1 is allowed for size, colour and style
            of an empty scene alone (garment "nothing"), where the photograph is ignored.

    Returns:
        Scenes: images in [-1, 1] and the garment's mask, each on the device of `photos`.

    Raises:
        ValueError: for a wrong shape or dtype, no photographs, or a label out of range.
    """
    _check(photos, labels)
    colours, backgrounds, resize = _tables(photos.device)
    size, colour, garment, background, style = labels.unbind(1)
    paper = backgrounds[background][:, :, None, None].expand(-1, -1, SIDE, SIDE)

    grey = photos.float() / 255
    margin = (SIDE - SMALL_SIDE) // 2
    shrunk = F.pad(resize @ grey @ resize.T, (margin,) * 4)
    grey = torch.where((size == SMALL)[:, None, None], shrunk, grey)
    # A grey-level closing fills thin dark seams, so that the garment does not show paper inside.
    closed = torch.maximum(_erode(_dilate(grey)), grey)
    alpha = (10 * closed).clamp(0, 1) * (garment != EMPTY)[:, None, None]
    mask = alpha > 0.5
    # Each garment gets the same mean shade: else a dark orange coat and a brown one look alike.
    mean = (grey * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    shade = (0.78 + 0.6 * (grey - mean[:, None, None])).clamp(0.3, 1.15)

    images = paper.clone()
    for index, name in enumerate(SLOTS["style"]):
        rows = torch.nonzero((style == index) & (garment != EMPTY))[:, 0]
        if len(rows):
            images[rows] = _STYLES[name](
                grey[rows], alpha[rows], shade[rows], colours[colour[rows]], paper[rows]
            )
    return Scenes(images.clamp(0, 1) * 2 - 1, mask)


def _check(photos: torch.Tensor, labels: torch.Tensor) -> None:
    if photos.dtype != torch.uint8 or photos.shape[1:] != (SIDE, SIDE) or photos.ndim != 3:
        raise ValueError(
            f"compose needs uint8 photos (B, 28, 28), got {photos.dtype} {tuple(photos.shape)}."
        )
    if len(photos) == 0:
        raise ValueError("compose got a batch of zero photos; give at least one.")
    if labels.shape != (len(photos), len(SLOTS)):
        raise ValueError(
            f"compose needs labels ({len(photos)}, {len(SLOTS)}), got {tuple(labels.shape)}."
        )
    empty = labels[:, 2] == EMPTY
    for index, (slot, values) in enumerate(SLOTS.items()):
        column = labels[:, index]
        free = (column == -1) & empty & (slot in ("size", "colour", "style"))
        wrong = ~free & ((column < 0) | (column >= len(values)))
        if wrong.any():
            found = int(column[wrong][0])
            raise ValueError(
                f"the {slot} label {found} is out of range: give 0 to {len(values) - 1}."
            )
