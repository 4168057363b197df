"""Exercises of notebook 06: silhouettes, instructions, the tokens under a hole."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from fastgen_course.datasets.captions import EMPTY, FREE
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import draw_labels, draw_rows
from fastgen_course.exercises.registry import register_exercise, register_prediction
from fastgen_course.metrics.silhouette import intersection_over_union

# --- two silhouettes ----------------------------------------------------------------------------


def silhouette_iou(ours, target):
    """Intersection over union of masks (B, H, W) bool, a float a row (B,); 1 if both are empty."""
    both = (ours & target).sum((1, 2))
    either = (ours | target).sum((1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def _areas(ours, target):
    return tuple(m.sum((1, 2)) for m in (ours & target, ours | target, ours, target))


def _mask_pairs():
    generator = torch.Generator().manual_seed(0)
    yield (
        torch.tensor([[[True, True], [False, False]]]),
        torch.tensor([[[True, False], [True, False]]]),
    )
    yield torch.zeros(2, 1, 2, dtype=torch.bool), torch.tensor([[[True, False]], [[False, False]]])
    ours, target = torch.rand(2, 4, 5, 6, generator=generator) < 0.45
    yield ours, target


register_exercise(
    "edit.silhouette_iou",
    title="How much of two silhouettes agrees",
    difficulty=1,
    minutes=5,
    reference=silhouette_iou,
    inputs=_mask_pairs,
    wrong={
        "Dice": (
            lambda ours, target: torch.where(
                (ours | target).any(2).any(1),
                2 * _areas(ours, target)[0] / (ours.sum((1, 2)) + target.sum((1, 2))).clamp(min=1),
                1.0,
            ),
            "That is Dice's coefficient, 2|A∩B| / (|A| + |B|), which counts what both share twice. "
            "It is never smaller than the IoU: say which one you quote.",
        ),
        "share of the target": (
            lambda ours, target: torch.where(
                (ours | target).any(2).any(1),
                _areas(ours, target)[0] / target.sum((1, 2)).clamp(min=1),
                1.0,
            ),
            "Divided by the target alone: a mask that covers the whole picture would be perfect. "
            "What either of them covers belongs below the line.",
        ),
        "share of ours": (
            lambda ours, target: torch.where(
                (ours | target).any(2).any(1),
                _areas(ours, target)[0] / ours.sum((1, 2)).clamp(min=1),
                1.0,
            ),
            "Divided by your own mask alone: one right pixel would be perfect. What either of them "
            "covers belongs below the line.",
        ),
        "pixels that agree": (
            lambda ours, target: (ours == target).float().mean((1, 2)),
            "That counts the paper too: two small garments in opposite corners agree in most "
            "pixels. Only what at least one mask covers is asked about.",
        ),
        "nothing for nothing": (
            lambda ours, target: (
                _areas(ours, target)[0] / _areas(ours, target)[1].clamp(min=1).float()
            ),
            "Where both are empty they agree completely, and yours gives 0: an empty scene that "
            "stayed empty would count as a failure.",
        ),
        "0 divided by 0": (
            lambda ours, target: _areas(ours, target)[0] / _areas(ours, target)[1],
            "Where both masks are empty this is 0 / 0, and one NaN spoils the mean of 400 edits.",
        ),
        "all rows together": (
            lambda ours, target: (
                ((ours & target).sum() / (ours | target).sum()).expand(len(ours)).clone()
            ),
            "You divide the sums of the whole batch: large garments then count more than small "
            "ones. Asked for is a value a row.",
        ),
    },
    hints=(
        "For masks, `&` is the intersection and `|` the union; `.sum((1, 2))` counts a row's "
        "pixels.",
        "`torch.where(union > 0, intersection / union.clamp(min=1), 1.0)`.",
    ),
)

# --- what changes -------------------------------------------------------------------------------


def instruction(before, after):
    """Labels (B, 5) of what must change, FREE (-1) elsewhere; "nothing" is said alone.

    FREE in `after` means: as it is.
    """
    asked = torch.where(after != before, after, FREE)
    removed = (after[:, 2] == EMPTY) & (before[:, 2] != EMPTY)
    asked[removed] = torch.tensor([FREE, FREE, EMPTY, FREE, FREE])
    return asked


def _with_backdrop(before, after):
    return torch.where(after != before, after, FREE)


def _label_pairs():
    red = torch.tensor([[0, 0, 8, 0, 0]])
    yield red, torch.tensor([[0, 3, 8, 0, 1]])
    yield red, torch.tensor([[FREE, 4, FREE, FREE, FREE]])
    yield red, torch.tensor([[FREE, FREE, EMPTY, 2, FREE]])
    generator = torch.Generator().manual_seed(1)
    before = draw_labels(24, generator)
    after = torch.where(torch.rand(24, 5, generator=generator) < 0.5, before, before.roll(1, 0))
    yield before, after


register_exercise(
    "edit.instruction",
    title="Say what changes, and no more",
    difficulty=2,
    minutes=6,
    reference=instruction,
    inputs=_label_pairs,
    wrong={
        "the whole description": (
            lambda before, after: torch.where(after == FREE, before, after),
            "That says everything again. If the picture was misread (a coat taken for a shirt), "
            "the misreading now becomes an order.",
        ),
        "all that is asked for": (
            lambda before, after: after.clone(),
            "What is there already need not be said: every slot that you name is one that the "
            "editor may disturb.",
        ),
        "the old values": (
            lambda before, after: torch.where((after != before) & (after != FREE), before, FREE),
            "These are the values that must go. The instruction names what must come.",
        ),
        "what stays": (
            lambda before, after: torch.where(after == before, after, FREE),
            "Turned round: you name what stays and leave free what must change.",
        ),
        "a backdrop beside nothing": (
            _with_backdrop,
            'An empty scene has no size, colour or style, and the editor has learned "nothing" '
            "by itself: the background is not named beside it.",
        ),
    },
    hints=(
        "`torch.where(condition, a, b)` chooses slot by slot: the new value where it differs.",
        "Afterwards find the rows in which the garment becomes EMPTY, and set them to FREE but for "
        "the garment.",
    ),
)

# --- the tokens under a hole --------------------------------------------------------------------


def hidden_tokens(mask):
    """Tokens to draw anew (B, 49) bool: those with a marked pixel; mask (B, 28, 28) bool."""
    places = mask.unflatten(1, (7, 4)).unflatten(3, (7, 4))  # (B, row, y, column, x)
    return places.any(4).any(2).flatten(1)


def _holes():
    one = torch.zeros(1, 28, 28, dtype=torch.bool)
    one[0, 5, 18] = True
    yield one
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    yield torch.stack(
        [
            (rows - 9) ** 2 + (columns - 17) ** 2 < 40,
            (rows > 18) & (columns < 11),
            torch.zeros_like(rows, dtype=torch.bool),
        ]
    )


def _draw_hole(yours, ours) -> Figure:
    mask = list(_holes())[1][:1]
    fig, axes = plt.subplots(1, 2, figsize=(5, 2.6))
    for axis, fn, name in zip(axes, (yours, ours), ("yours", "ours"), strict=True):
        tokens = torch.as_tensor(fn(mask)).reshape(7, 7).float()
        axis.imshow(tokens, extent=(0, 28, 28, 0), cmap="Oranges", vmin=0, vmax=1.5)
        axis.contour(mask[0].float(), levels=[0.5], extent=(0, 28, 0, 28), origin="upper")
        axis.set(title=name, xticks=range(0, 29, 4), yticks=range(0, 29, 4))
        axis.tick_params(labelsize=6)
    return fig


register_exercise(
    "edit.hidden_tokens",
    title="The tokens under a hole",
    difficulty=2,
    minutes=7,
    reference=hidden_tokens,
    inputs=_holes,
    wrong={
        "sixteen pixels of a row": (
            lambda mask: mask.reshape(-1, 49, 16).any(-1),
            "`reshape` cuts the picture into runs of 16 pixels along the rows. A token covers a "
            "square of 4x4: split rows and columns apart first.",
        ),
        "column by column": (
            lambda mask: hidden_tokens(mask.transpose(1, 2)),
            "Your tokens count down the columns. They stand row by row, as words on a page.",
        ),
        "only where all is marked": (
            lambda mask: hidden_tokens(~mask).logical_not(),
            "A token with a single visible pixel stays at yours, and with it the marked pixels: "
            "the rim of the hole would not be redrawn.",
        ),
        "where most is marked": (
            lambda mask: (
                mask.float().unflatten(1, (7, 4)).unflatten(3, (7, 4)).mean((2, 4)) >= 0.5
            ).flatten(1),
            "Where less than half of a place is marked, the old token stays and the marked pixels "
            "with it.",
        ),
        "one pixel asked": (
            lambda mask: mask[:, ::4, ::4].flatten(1),
            "You look at one pixel of each place. A hole can lie beside it.",
        ),
        "what stays": (
            lambda mask: ~hidden_tokens(mask),
            "That is True for the tokens that *stay*. Asked for are those to draw anew.",
        ),
    },
    hints=(
        "Row 5 of the picture is row 5 // 4 of the tokens, and the same holds for columns.",
        "`unflatten(1, (7, 4))` parts the rows into 7 groups of 4; do the same with the columns, "
        "then `any` over both groups' insides.",
    ),
    draw=_draw_hole,
    alt="A round hole over the 7 x 7 tokens: those that you hide beside those of the reference",
)

# --- predictions --------------------------------------------------------------------------------

_OVERLAPS = ("about 0.95", "about 0.7", "about 0.4", "about 0.1")


def _another_garment() -> str:
    """Silhouettes of two test photographs of one garment, set into the same scene."""
    generator = torch.Generator().manual_seed(3)
    labels = draw_labels(1000, generator)
    labels = labels[labels[:, 2] != EMPTY]
    photos = load_fashion("test").images
    one, two = (
        compose(photos[draw_rows(labels, "test", generator)], labels).masks for _ in range(2)
    )
    mean = float(intersection_over_union(one, two).mean())
    return min(_OVERLAPS, key=lambda text: abs(float(text.split()[1]) - mean))


register_prediction(
    "edit.another_garment",
    title="The right description, another garment",
    difficulty=2,
    minutes=2,
    question="Two real photographs of the same kind of garment are set into the same scene: same "
    "size, colour, background and style. What is the mean IoU of their silhouettes?",
    choices=_OVERLAPS,
    answer="about 0.7",
    why="Pullovers are alike, and all of them stand in the middle of the picture: a drawing that "
    "has nothing of *this* garment but its kind already reaches about 0.7. An IoU means nothing "
    "without that floor beside it.",
    wrong={
        "about 0.95": "That is how well the measuring rule agrees with the true mask of one and "
        "the same garment. Two coats differ more: length, collar, how the sleeves lie.",
        "about 0.4": "Look at how the photographs are taken: centred, filling the frame, seen from "
        "one side. (For sandals alone you would be right.)",
        "about 0.1": "Silhouettes at two random places would agree so little. These stand at one "
        "place.",
    },
    check=_another_garment,
)

# The language half registers after this one: `progress` lists in this order.
from fastgen_course.exercises import edit_words  # noqa: E402, F401
