"""Pictures that the course wrote as PNG files, read back for a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

SIDE = 28
MAX_ENLARGE = 32


def read_picture(path: Path | str) -> np.ndarray:
    """The picture in a file as `draw` writes it, enlarged or not: uint8 (28, 28, 3).

    Raises ValueError, in one sentence with the mend, for a file that is no picture, of another
    shape, with more than 8 bits a channel, transparent, or enlarged in another way than by
    repeating pixels; OSError for a file that cannot be read.
    """
    path = Path(path)
    draw = 'write one with `python -m fastgen_course draw "..." --out FILE.png`'
    try:
        image = Image.open(path)
        width, height = image.size
        _check_size(path.name, width, height)
        image.load()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path.name}; {draw}.") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path.name} is a folder, not a picture; {draw}.") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ValueError(f"{path.name} is not a picture that can be read; {draw}.") from None
    except (OSError, SyntaxError) as error:  # Pillow's words for a damaged file
        raise ValueError(f"{path.name} is a damaged picture ({error}); {draw}.") from None
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1"):
        raise ValueError(
            f"{path.name} has pixels of kind {image.mode}; save it with 8 bits a channel (RGB)."
        )
    pixels = np.asarray(image.convert("RGBA"))
    if (pixels[..., 3] < 255).any():
        raise ValueError(f"{path.name} is transparent in places; save it without transparency.")
    step = width // SIDE
    picture = pixels[::step, ::step, :3]
    if (picture.repeat(step, 0).repeat(step, 1) != pixels[..., :3]).any():
        raise ValueError(
            f"{path.name} is no {SIDE}x{SIDE} picture enlarged by repeating pixels: its "
            f"{step}x{step} blocks are of several colours; {draw}."
        )
    return np.ascontiguousarray(picture)


def _check_size(name: str, width: int, height: int) -> None:
    if width != height or width % SIDE or not SIDE <= width <= MAX_ENLARGE * SIDE:
        raise ValueError(
            f"{name} is {width}x{height} pixels; the course reads {SIDE}x{SIDE}, or a whole "
            f"multiple of it up to {MAX_ENLARGE * SIDE}x{MAX_ENLARGE * SIDE}."
        )


def to_model(pictures: np.ndarray) -> Tensor:
    """Pictures uint8 (..., H, W, C) as models take them: float32 (..., C, H, W) in [-1, 1].

    The inverse of `show.to_uint8`. Raises ValueError for another type.
    """
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8:
        raise ValueError(f"a picture is uint8, 0 to 255; got {pictures.dtype}.")
    return torch.from_numpy(pictures.astype(np.float32)).movedim(-1, -3) / 127.5 - 1
