"""How far a student's pictures are from others, and how far its own are from each other.

Regression, E ||G(z, y) - x||^2, is least where G(z, y) = E[x | z, y]. With a z that knows nothing
of x that is E[x | y], the mean of all pictures of the caption: a blur. With a coupling, in which z
decides x, it is the teacher's picture. The same holds in a judge's features, whose mean is blurred
less visibly and just as truly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastgen_course.compression.teacher_sets import DistillationError
from fastgen_course.datasets.captions import FREE
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.models.discriminator import judge_features
from fastgen_course.training.matching import FEATURES, relative_error


def _pixels(fake: Tensor, target: Tensor, seen: Callable[[Tensor], Tensor]) -> Tensor:
    return relative_error(fake, target)


def _features(fake: Tensor, target: Tensor, seen: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.no_grad():
        wanted = seen(target)
    return FEATURES * relative_error(seen(fake), wanted)


# (pictures, the teacher's, what sees them) -> a scalar.
LOSSES: dict[str, Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]] = {
    "pixels": _pixels,
    "features": _features,
}


def check_losses(names: Sequence[str]) -> None:
    """Raise `DistillationError`, naming the choices, for a loss that there is not."""
    for name in names:
        if name not in LOSSES:
            raise DistillationError(
                f"there is no loss {name!r}; choose match from {', '.join(LOSSES)}."
            )


def distance(
    names: Sequence[str],
    fake: Tensor,
    target: Tensor,
    judge: nn.Module,
    features: Tensor | None = None,
) -> Tensor:
    """The sum of the named losses between pictures (B, 3, 28, 28) and a teacher's.

    features: what the judge's penultimate layer says of `fake`, where that is known already.
    """
    check_losses(names)

    def seen(images: Tensor) -> Tensor:
        if images is fake and features is not None:
            return features
        return judge_features(judge, images)[-1]

    return sum((LOSSES[name](fake, target, seen) for name in names), torch.zeros(()))


def drawing_distance(first: Tensor, second: Tensor) -> Tensor:
    """How unlike two drawings of one caption are: root mean square of pixels in [-1, 1], (B,).

    0 for a student that ignores its noise. The value of real pictures is the one to compare with.
    """
    return (first - second).square().mean((1, 2, 3)).sqrt()


@torch.no_grad()
def conditional_mean(label: Tensor, split: str = "train", chunk: int = 1000) -> Tensor:
    """E[x | y] measured: the mean of every photograph of the split composed as labels (5,) ask.

    Returns (3, 28, 28). Raises `DistillationError` for a description with a free slot or without a
    garment: its pictures are not one per photograph.
    """
    photos, garments = load_fashion(split)
    here = photos[garments == label[2]]
    if (label == FREE).any() or len(here) == 0:
        raise DistillationError(
            "label must be a whole description with a garment, so that each photograph of it gives "
            "one picture."
        )
    total = torch.zeros(3, 28, 28, dtype=torch.float64)
    for part in here.split(chunk):
        total += compose(part, label.expand(len(part), -1)).images.double().sum(0)
    return (total / len(here)).float()
