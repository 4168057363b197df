"""What a change in words keeps: the garment's outline with the noise kept, against fresh noise.

    python -m fastgen_course.serve.kept

takes about a minute on one core. 400 complete captions are drawn, one slot of each (colour,
background or style) is changed as the page's edit box changes it, and the new caption is drawn
twice: with the noise of the first picture, and with another. Both outlines are compared with the
first picture's. No combination of the captions is a held-out one.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastgen_course.datasets.captions import SLOTS, Attributes, encode_words, is_held_out, render
from fastgen_course.language.caption_edit import edit_caption
from fastgen_course.language.edits import RULES
from fastgen_course.metrics.silhouette import intersection_over_union, silhouettes
from fastgen_course.serve.model import MODEL, Served, load_served, stored_as
from fastgen_course.timing import record

COMMAND = "python -m fastgen_course.serve.kept"
CAPTIONS = 400
CHANGED = ("colour", "background", "style")
REQUESTS = {"colour": "make it {}", "background": "put it on a {} background", "style": "as {}"}
CHUNK = 50


@dataclass(frozen=True)
class Kept:
    """Intersection over union of outlines before and after a change, a row a caption."""

    same_noise: np.ndarray
    fresh_noise: np.ndarray


def measure_kept(served: Served, captions: int = CAPTIONS, seed: int = 0) -> Kept:
    """Draw, change and draw again; see the module."""
    rng = random.Random(seed)
    before, after = zip(*(a_change(rng) for _ in range(captions)), strict=True)
    seeds = [2 * k for k in range(captions)]
    first = _drawn(served, before, seeds)
    same = _drawn(served, after, seeds)
    fresh = _drawn(served, after, [k + 1 for k in seeds])
    outline = silhouettes(first)
    rows = [intersection_over_union(silhouettes(images), outline) for images in (same, fresh)]
    return Kept(*(row.double().numpy() for row in rows))


def a_change(rng: random.Random) -> tuple[str, str]:
    """A complete caption, and what the edit box makes of it when one slot is to change."""
    while True:
        y = Attributes(**{s: rng.choice([v for v in SLOTS[s] if v != "nothing"]) for s in SLOTS})
        slot = rng.choice(CHANGED)
        value = rng.choice([v for v in SLOTS[slot] if v != getattr(y, slot)])
        if is_held_out(y) or is_held_out(replace(y, **{slot: value})):
            continue
        caption = render(y)
        return caption, edit_caption(caption, REQUESTS[slot].format(value), road=RULES).caption


def _drawn(served: Served, captions: Sequence[str], seeds: list[int]) -> Tensor:
    session, words, noise = served.session(), encode_words(captions).numpy(), served.noise(seeds)
    parts = [session(noise[at : at + CHUNK], words[at : at + CHUNK])
             for at in range(0, len(captions), CHUNK)]  # fmt: skip
    return torch.from_numpy(np.concatenate(parts)).clamp(-1, 1)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Of the mean, 95 %, by the bootstrap."""
    picks = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="shipped weights or a .onnx file")
    parser.add_argument("--captions", type=int, default=CAPTIONS, help="fewer are a try")
    options = parser.parse_args(arguments)
    served = load_served(options.model)
    kept = measure_kept(served, options.captions)
    changed = "" if options.model == MODEL else f" --model {options.model}"
    for name, values in {"same": kept.same_noise, "fresh": kept.fresh_noise}.items():
        low, high = _interval(values)
        print(f"{name} noise: outlines overlap by {values.mean():.3f} [{low:.3f}, {high:.3f}]")
        if options.captions >= CAPTIONS:
            record(
                "serve", f"serve.{name}_noise_iou", float(values.mean()), "IoU",
                spread=(low, high), command=COMMAND + changed, base=served.name,
                captions=len(values), runtime="onnxruntime", dtype=stored_as(served),
                weights=served.key,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
