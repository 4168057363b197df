"""Which way an edit goes, and the balanced edits that score it."""

import pytest
import torch

from fastgen_course.datasets.captions import EMPTY, FREE, Attributes, attributes_of, held_out_mask
from fastgen_course.models.editor import Editor, EditorConfig
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.sampling.studio import (
    KEPT,
    REDRAWN,
    SAME,
    Studio,
    changed_slots,
    whole_description,
)
from fastgen_course.training.edit_records import balanced_edits, changed_places

RED = Attributes("small", "red", "bag", "white", "photo")
NOTHING = Attributes(garment="nothing", background="grey")


@pytest.fixture
def rooms():
    torch.manual_seed(0)
    studio = Studio()
    studio.tokenizer = Tokenizer().eval()
    studio.gpt = GPT(TransformerConfig(width=16, layers=1, heads=2)).eval()
    studio.editor = Editor(EditorConfig(width=16, layers=1, heads=2)).eval()
    return studio


def test_an_instruction_names_what_changes_and_no_more():
    green = Attributes("small", "green", "bag", "white", "sketch")
    assert changed_slots(RED, green) == Attributes(colour="green", style="sketch")
    assert changed_slots(RED, RED) == Attributes()
    assert changed_slots(RED, Attributes(colour="blue")) == Attributes(colour="blue")
    assert changed_slots(RED, NOTHING) == Attributes(garment="nothing")
    assert whole_description(RED, Attributes(colour="blue")) == Attributes(
        "small", "blue", "bag", "white", "photo"
    )
    assert whole_description(RED, NOTHING) == NOTHING
    assert whole_description(NOTHING, Attributes(background="black")) == Attributes(
        garment="nothing", background="black"
    )


def test_the_garment_is_kept_unless_it_is_what_changes(rooms):
    images = torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = [RED, RED, RED, NOTHING, RED]
    after = [
        Attributes(colour="green"),
        Attributes("small", "red", "coat", "white", "photo"),
        NOTHING,
        RED,
        RED,
    ]
    edited = rooms.edit(images, before, after, torch.Generator().manual_seed(2))
    assert edited.ways == [KEPT, REDRAWN, KEPT, REDRAWN, SAME]
    assert torch.equal(edited.images[4], images[4])
    # What the editor draws has no randomness; what is drawn anew has.
    other = rooms.edit(images, before, after, torch.Generator().manual_seed(3))
    same = (edited.images == other.images).flatten(1).all(1)
    assert same.tolist() == [True, False, True, False, True]
    with pytest.raises(ValueError, match="two descriptions a picture"):
        rooms.edit(images, before[:2], after)


def test_what_is_segmented_and_described_has_the_pictures_shape(rooms):
    images = torch.rand(2, 3, 28, 28) * 2 - 1
    assert rooms.segment(images).dtype == torch.bool
    assert rooms.sharpen(images).shape == images.shape
    for y in rooms.describe(images):
        assert y.garment is not None and y.background is not None


def test_scored_edits_are_balanced_and_none_is_idle():
    cases = balanced_edits(150)
    changed = cases.before != cases.after
    by_slot = [
        int((changed[:, column] & (cases.before[:, 2] == cases.after[:, 2])).sum())
        for column in (0, 1, 3, 4)
    ]
    assert by_slot == [30, 30, 30, 30]
    assert int((~cases.kept).sum()) == 30
    assert int((cases.after[:, 2] == EMPTY).sum()) == 10
    assert int((cases.before[:, 2] == EMPTY).sum()) == 10
    assert changed.any(1).all()
    assert not held_out_mask(cases.before).any() and not held_out_mask(cases.after).any()
    assert ((cases.asked == FREE) | (cases.asked == cases.after)).all()
    attributes_of(cases.after)  # complete and consistent, or this raises
    again = balanced_edits(150)
    assert torch.equal(cases.images, again.images)
    with pytest.raises(ValueError, match="multiple of 5"):
        balanced_edits(17)


def test_exact_targets_show_the_same_photograph():
    cases = balanced_edits(150)
    background = cases.kept & (cases.before[:, 3] != cases.after[:, 3])
    colour = cases.kept & (cases.before[:, 1] != cases.after[:, 1])
    corner = cases.images[:, :, 0, 0] == cases.targets[:, :, 0, 0]
    assert corner[colour].all(1).float().mean() > 0.9
    assert not corner[background].all(1).any()
    middle = (cases.images - cases.targets)[background][:, :, 12:16, 12:16].abs().mean()
    assert middle < 0.3


def test_a_masked_redraw_hides_the_garment_or_its_background():
    cases = balanced_edits(50)
    masks = torch.zeros(50, 28, 28, dtype=torch.bool)
    masks[:, 8:20, 8:20] = True
    hidden = changed_places(cases, masks)
    background = (cases.before[:, 3] != cases.after[:, 3]) & (cases.before[:, 2] != EMPTY)
    colour = cases.before[:, 1] != cases.after[:, 1]
    colour &= cases.kept
    assert (hidden[colour].sum(1) == 9).all()
    assert (hidden[background & cases.kept].sum(1) == 40).all()
    assert hidden[cases.before[:, 2] == EMPTY].all()
