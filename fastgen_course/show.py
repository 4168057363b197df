"""Show figures with words, and lay images out in grids."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by colour-blind readers and in greyscale print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#F0E442")

plt.rcParams.update(
    {
        "axes.prop_cycle": plt.cycler(color=PALETTE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "font.size": 10,
    }
)


def figure_png(fig: Figure, scale: float = 2.0) -> bytes:
    """The figure as PNG bytes at `scale` times 72 dots per inch; the figure is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=72 * scale, bbox_inches="tight", facecolor="white")
    plt.close(fig)
    return buffer.getvalue()


def show(fig: Figure, alt: str, scale: float = 2.0) -> None:
    """Display a figure in a notebook with `alt`, the words for a reader who cannot see it.

    The output carries a sharp PNG (shown at 1/scale of its pixels), its words as the plain-text
    form, and the same words in the metadata (`alt`). Raises ValueError when `alt` says nothing.
    """
    if len(alt.split()) < 3:
        raise ValueError(
            f"show(fig, alt={alt!r}): say in at least three words what the figure shows."
        )
    from IPython.display import display

    png = figure_png(fig, scale)
    width = int.from_bytes(png[16:20], "big")
    height = int.from_bytes(png[20:24], "big")
    display(
        {"image/png": png, "text/plain": f"[figure] {alt}"},
        metadata={
            "image/png": {"width": round(width / scale), "height": round(height / scale)},
            "alt": alt,
        },
        raw=True,
    )


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Model images (..., C, H, W) in [-1, 1] as uint8 (..., H, W, C), clipped and rounded.

    Raises ValueError when the tensor is not floating or holds NaN.
    """
    if not images.is_floating_point():
        raise ValueError(f"to_uint8 needs float images in [-1, 1], got {images.dtype}.")
    if torch.isnan(images).any():
        raise ValueError("the images hold NaN; nothing can be shown of them.")
    scaled = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).movedim(-3, -1).numpy()


def image_grid(
    images: torch.Tensor | np.ndarray,
    columns: int,
    titles: Sequence[str] | None = None,
    scale: float = 1.0,
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """A grid of images without axes.

    Args:
        images: (N, C, H, W) float in [-1, 1], or uint8 (N, H, W, C) or (N, H, W).
        columns: images in a row.
        titles: one short text above each image, wrapped at about 16 characters.
        scale: size of one image, in units of 0.8 inch.
        row_labels: one text to the left of each row.
    """
    pixels = to_uint8(images) if isinstance(images, torch.Tensor) else np.asarray(images)
    if len(pixels) == 0:
        raise ValueError("image_grid got no images.")
    if columns < 1:
        raise ValueError(f"image_grid needs at least one column, got {columns}.")
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    rows = -(-len(pixels) // columns)
    cell = 0.8 * scale
    lines = max((_wrap(t).count("\n") + 1 for t in titles), default=0) if titles else 0
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(cell * columns, (cell + 0.13 * lines) * rows),
        squeeze=False,
        layout="constrained",
    )
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for index, axis in enumerate(axes.flat):
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        if index >= len(pixels):
            continue
        axis.imshow(pixels[index], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        if titles:
            axis.set_title(_wrap(titles[index]), fontsize=7, pad=2)
        if row_labels and index % columns == 0:
            axis.set_ylabel(
                row_labels[index // columns], fontsize=8, rotation=0, ha="right", va="center"
            )
    return fig


def _wrap(text: str, width: int = 18) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or " "
