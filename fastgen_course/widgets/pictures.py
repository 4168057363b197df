"""Pictures inside widgets: arrays and figures as PNG bytes for `ipywidgets.Image`."""

from __future__ import annotations

import html
import io

import numpy as np
from PIL import Image

from fastgen_course.show import figure_png

__all__ = ["error_html", "figure_png", "picture_png", "status_html"]


def picture_png(picture: np.ndarray, enlarge: int = 8) -> bytes:
    """A picture uint8 (H, W), (H, W, 1) or (H, W, 3) as PNG bytes, each pixel `enlarge` wide.

    Raises ValueError for another shape or type, or an enlargement below 1.
    """
    picture = np.asarray(picture)
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    colour = picture.ndim == 3 and picture.shape[-1] == 3
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or colour) or picture.size == 0:
        raise ValueError(
            f"a picture is uint8 (H, W, 3) or (H, W), got {picture.dtype} {picture.shape}."
        )
    if enlarge < 1:
        raise ValueError(f"enlarge must be at least 1, got {enlarge}.")
    sharp = picture.repeat(enlarge, 0).repeat(enlarge, 1)
    buffer = io.BytesIO()
    Image.fromarray(sharp).save(buffer, format="png")
    return buffer.getvalue()


def status_html(text: str) -> str:
    """A line of status under a widget; the text is escaped."""
    return f'<span style="opacity:0.8">{html.escape(text)}</span>'


def error_html(error: Exception) -> str:
    """An error as one sentence in a widget: a reader's mistake in its own words, no traceback."""
    said = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ValueError | OSError):
        said = f"{type(error).__name__}: {said}"
    said = said if len(said) <= 400 else said[:399] + "…"
    return f'<span style="color:#B00020">{html.escape(said)}</span>'
