"""Draw what free wording asks for, and judge the pictures.

`python -m fastgen_course.language.drawn` takes about two minutes on one core. `language.evaluate`
scores the same 200 requests by the description that was understood; here a picture must come of
it, and the reporting judge must find in the picture every slot that the request asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import EMPTY, Attributes, labels_of, parse, render
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import draw_labels, draw_rows
from fastgen_course.language.evaluate import Item, junction, wording_items
from fastgen_course.metrics.accuracy import found_slots
from fastgen_course.metrics.intervals import estimate
from fastgen_course.models.judges import label_slots
from fastgen_course.sampling.studio import studio
from fastgen_course.timing import record

COMMAND = "python -m fastgen_course.language.drawn"
SEEDS = (0, 1, 2)
DRAWINGS = 4  # of which `best_of` keeps the one that the training judge reads best

Draw = Callable[[Sequence[str], torch.Generator], Tensor]


def found_exactly(images: Tensor, asked: Tensor, *, judge: nn.Module | None = None) -> Tensor:
    """Whether every asked-for slot is found in images (B, 3, 28, 28): bool (B,).

    `asked` (B, 5) int64, -1 where a request leaves the slot free; `judge` replaces the reporting
    judge.
    """
    return (found_slots(images, asked, judge=judge).nan_to_num(1.0) == 1).all(1)


def drawn_shares(
    understood: Sequence[Attributes | None],
    asked: Tensor,
    draw: Draw,
    *,
    judge: nn.Module | None = None,
) -> Tensor:
    """Share of the seeds whose picture shows all that was asked for: float (B,).

    `understood` is what each request was taken to mean, None where it was refused, which counts as
    wrong: nothing was drawn.
    """
    rows = [i for i, read in enumerate(understood) if read is not None]
    captions = [render(understood[i]) for i in rows]
    shares = torch.zeros(len(SEEDS), len(understood))
    for index, seed in enumerate(SEEDS):
        images = draw(captions, torch.Generator().manual_seed(seed))
        shares[index, rows] = found_exactly(images, asked[rows], judge=judge).float()
    return shares.mean(0)


def best_of(draw: Draw, judge: nn.Module, drawings: int = DRAWINGS) -> Draw:
    """Draw each caption `drawings` times and keep the one in which `judge` finds the most slots.

    Of equals the first is kept. It costs `drawings` times the drawing, and the judge's forward.
    """

    def chosen(captions: Sequence[str], generator: torch.Generator) -> Tensor:
        images = torch.stack([draw(captions, generator) for _ in range(drawings)])
        asked = labels_of([parse(caption) for caption in captions])
        read = label_slots(judge, images.flatten(0, 1)).view(drawings, len(captions), -1)
        right = ((read == asked) | (asked == -1)).sum(-1)
        return images[right.argmax(0), torch.arange(len(captions))]

    return chosen


def real_pictures(asked: Tensor, generator: torch.Generator) -> Tensor:
    """Real test scenes of what was asked for, free slots drawn as the data draws them."""
    drawn = draw_labels(2 * len(asked) + 50, generator)
    whole = drawn[drawn[:, 2] != EMPTY][: len(asked)]  # an empty scene has no size to lend
    labels = torch.where(asked == -1, whole, asked)
    photos = load_fashion("test").images[draw_rows(labels, "test", generator)]
    return compose(photos, labels).images


def measure(items: Sequence[Item] | None = None, *, quiet: bool = False) -> dict[str, float]:
    """Understand, draw, judge and record: pictures of the request, of its gold, and real ones."""
    items = wording_items() if items is None else items
    asked = labels_of([item.gold for item in items])
    answer = junction()
    read = [answer(None, item.text) for item in tqdm(items, leave=False, disable=quiet)]
    gold = [item.gold for item in items]
    draw = studio().draw
    rows = {
        "free_wording_accuracy": drawn_shares(read, asked, draw),
        "free_wording_accuracy_best_of_4": drawn_shares(
            read, asked, best_of(draw, load_model("judge_train"))
        ),
        "free_wording_accuracy_gold": drawn_shares(gold, asked, draw),
        "free_wording_accuracy_real": drawn_shares(
            gold, asked, lambda captions, generator: real_pictures(asked, generator)
        ),
    }
    understood = sum(a == b for a, b in zip(read, gold, strict=True)) / len(items)
    found = {"understood": understood}
    for name, shares in rows.items():
        value = estimate(shares)
        found[name] = value.value
        record(
            "text_to_image",
            f"text_to_image.{name}",
            value.value,
            "share",
            spread=(value.low, value.high),
            command=COMMAND,
            test_set="data/language/free_wording",
            requests=len(items),
            seeds=len(SEEDS),
            understood=understood,
        )
    return found


if __name__ == "__main__":
    for name, share in measure().items():
        print(f"{name:34}{share:.3f}")
