"""The course's one caption box: a caption and a seed in, a picture and its milliseconds out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import ipywidgets as widgets
import numpy as np

from fastgen_course.timing import measure_once
from fastgen_course.widgets.pictures import error_html, picture_png, status_html

CAPTION = "a small red sneaker on a white background, sketch style"
Draw = Callable[[str, int], np.ndarray]


class CaptionBox(widgets.VBox):
    """A text field, a seed slider, a button, a picture and a line of status.

    Args:
        draw: `draw(caption, seed)` returns a picture, uint8 (H, W, 3). Whatever it raises becomes
            one sentence in the box, never a traceback, and the last picture stays.
        caption: what stands in the field at first; it is drawn at once.
        seed: where the slider starts.
        seeds: the slider runs from 0 to seeds - 1.
        enlarge: screen pixels a pixel.

    One reading of the clock proves little, so the status gives the median of all drawings beside
    the last one. Raises ValueError for a seed off the slider.
    """

    def __init__(
        self,
        draw: Draw,
        caption: str = CAPTION,
        seed: int = 0,
        seeds: int = 100,
        enlarge: int = 8,
    ) -> None:
        if not 0 <= seed < seeds:
            raise ValueError(f"seed must be 0 to {seeds - 1}, got {seed}.")
        self.draw, self.enlarge = draw, enlarge
        self.readings_ms: list[float] = []
        wide = widgets.Layout(width="min(100%, 520px)")
        self.text = widgets.Text(
            value=caption, description="caption", continuous_update=False, layout=wide
        )
        self.seed = widgets.IntSlider(
            value=seed, min=0, max=seeds - 1, description="seed", layout=wide
        )
        self.button = widgets.Button(description="Draw", button_style="primary")
        self.picture = widgets.Image(format="png")
        self.status = widgets.HTML()
        self.text.observe(self.redraw, "value")  # Enter, or leaving the field
        self.seed.observe(self.redraw, "value")
        self.button.on_click(self.redraw)
        super().__init__([self.text, self.seed, self.button, self.picture, self.status])
        self.redraw()

    def redraw(self, _event: object = None) -> None:
        """Draw what the field and the slider say; called by each of them."""
        try:
            elapsed_ms, image = measure_once(partial(self.draw, self.text.value, self.seed.value))
            self.picture.value = picture_png(image, self.enlarge)
        except Exception as error:  # a reader's caption, or a reader's own sampler
            self.status.value = error_html(error)
            return
        self.readings_ms.append(elapsed_ms)
        count = len(self.readings_ms)
        said = f"{elapsed_ms:.1f} ms, one reading"
        if count > 2:
            said += f"; median of {count} drawings {statistics.median(self.readings_ms):.1f} ms"
        self.status.value = status_html(said)


def caption_box(draw: Draw, caption: str = CAPTION, seed: int = 0, **options: int) -> CaptionBox:
    """A `CaptionBox` around any `draw(caption, seed) -> uint8 (H, W, 3)`; display it to use it."""
    return CaptionBox(draw, caption, seed, **options)
