"""The epoch scrubber: one fixed noise, drawn again as training went on."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.show import to_uint8
from fastgen_course.widgets.pictures import picture_png


def tile(images: Tensor, columns: int = 10, border: int = 1) -> np.ndarray:
    """Lay images (N, C, H, W) in [-1, 1] out as one uint8 picture, row by row, on black.

    Raises ValueError when there are no images or not even one column.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"a grid needs images and a column, got {len(images)} and {columns}.")
    pixels = to_uint8(images)  # (N, H, W, C)
    count, height, width, channels = pixels.shape
    rows = -(-count // columns)
    picture = np.zeros(
        (rows * (height + border) + border, columns * (width + border) + border, channels),
        np.uint8,
    )
    for index, image in enumerate(pixels):
        top = border + (index // columns) * (height + border)
        left = border + (index % columns) * (width + border)
        picture[top : top + height, left : left + width] = image
    return picture


def _checked(grids: Mapping[int, Tensor]) -> list[int]:
    if not grids:
        raise ValueError("there are no grids to scrub through: train with snapshots, or load some.")
    return sorted(grids)


def scrubber_strip(
    grids: Mapping[int, Tensor],
    steps: Sequence[int] | None = None,
    columns: int = 10,
    rows: int = 4,
) -> Figure:
    """The static figure beside the scrubber: up to four grids side by side, oldest first.

    grids: step -> images (N, C, 28, 28) in [-1, 1]; the first `rows` rows are shown. Raises
    ValueError for no grids, or a step that has none.
    """
    known = _checked(grids)
    if steps is None:
        picks = np.linspace(0, len(known) - 1, min(4, len(known))).round().astype(int)
        steps = [known[i] for i in picks]
    for step in steps:
        if step not in grids:
            raise ValueError(f"no grid was saved at step {step}; there are {known}.")
    fig, axes = plt.subplots(1, len(steps), figsize=(2.5 * len(steps), 1.3), squeeze=False)
    for axis, step in zip(axes.flat, steps, strict=True):
        axis.imshow(tile(grids[step][: rows * columns], columns), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"step {step:,}", fontsize=9)
        axis.set_axis_off()
    return fig


def epoch_scrubber(grids: Mapping[int, Tensor], columns: int = 10, what: str = "samples"):
    """A slider and a play button over saved grids of one fixed noise.

    Args:
        grids: step -> images (N, C, 28, 28) in [-1, 1].
        columns: images in a row.
        what: says in the picture's words what is seen.

    Returns an ipywidgets box. Raises ValueError for no grids.
    """
    import ipywidgets as widgets

    steps = _checked(grids)
    pictures = {}
    for step in steps:
        png = picture_png(tile(grids[step], columns), enlarge=1)
        pictures[step] = base64.b64encode(png).decode()
    play = widgets.Play(min=0, max=len(steps) - 1, interval=400, description="play")
    slider = widgets.SelectionSlider(
        options=[(f"{step:,}", index) for index, step in enumerate(steps)],
        value=0,
        description="step",
        layout={"width": "24em"},
    )
    picture = widgets.HTML()

    def redraw(_change: object = None) -> None:
        step = steps[slider.value]
        alt = html.escape(f"{len(grids[step])} {what} after {step:,} training steps", quote=True)
        picture.value = (
            f'<img alt="{alt}" width="440" style="image-rendering: pixelated" '
            f'src="data:image/png;base64,{pictures[step]}">'
        )

    slider.observe(redraw, "value")
    widgets.link((play, "value"), (slider, "value"))
    redraw()
    return widgets.VBox([widgets.HBox([play, slider]), picture])
