"""Editing by the shipped weights: the asked-for change is made and this garment kept."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import EMPTY, SLOTS, SMALL, attributes_of, render
from fastgen_course.files import data_path
from fastgen_course.language.assistant import edit_picture, repaint_picture
from fastgen_course.language.designer import VARIANTS, Designer
from fastgen_course.language.edits import MODEL, RULES
from fastgen_course.metrics.silhouette import intersection_over_union, silhouettes
from fastgen_course.models.judges import label_slots
from fastgen_course.sampling.studio import KEPT, studio
from fastgen_course.training.edit_records import balanced_edits
from tests.helpers_language import require_language_model


def shipped(*names: str) -> pytest.MarkDecorator:
    missing = [n for n in names if not data_path("weights", f"{n}.json").is_file()]
    trains = " and ".join(f"`python -m fastgen_course train {n}`" for n in missing)
    return pytest.mark.skipif(bool(missing), reason=f"not shipped yet: first {trains}")


@pytest.fixture(scope="module")
def cases():
    return balanced_edits(100, seed=21)


@shipped("tokenizer", "gpt", "editor")
def test_edits_change_the_colour_that_was_asked_for_and_keep_the_garment(cases):
    rows = torch.nonzero(cases.kept & (cases.before[:, 1] != cases.after[:, 1]))[:, 0]
    assert len(rows) == 20
    before, after = attributes_of(cases.before[rows]), attributes_of(cases.after[rows])
    edited = [
        edit_picture(picture, f"make it {new.colour}", shows=render(old), road=RULES)
        for picture, old, new in zip(cases.images[rows], before, after, strict=True)
    ]
    assert {done.way for done in edited} == {KEPT}
    images = torch.stack([done.image for done in edited])
    labels = label_slots(load_model("judge_train"), images)
    assert (labels[:, 1] == cases.after[rows, 1]).float().mean() > 0.8
    overlap = intersection_over_union(silhouettes(images), silhouettes(cases.targets[rows]))
    assert overlap.mean() > 0.7


@shipped("tokenizer", "gpt", "editor")
def test_variants_show_what_was_asked_and_a_refinement_changes_it():
    designer = Designer(studio(), road=RULES)
    turn = designer.ask("a large blue coat on a white background, flat style", seed=1)
    labels = label_slots(load_model("judge_train"), turn.images)
    assert (labels[:, 1] == SLOTS["colour"].index("blue")).sum() >= 3
    assert (labels[:, 3] == SLOTS["background"].index("white")).sum() >= 3
    assert len({x.numpy().tobytes() for x in turn.images}) == VARIANTS
    designer.choose(0)
    after = designer.refine("on a black background")
    assert after.way == KEPT and after.found[0].background == "black"


@shipped("tokenizer", "gpt", "masked")
def test_a_spoiled_corner_gets_its_background_back(cases):
    rows = (cases.before[:, 0] == SMALL) & (cases.before[:, 2] != EMPTY)
    mask = torch.zeros(7, 7, dtype=torch.bool)
    mask[:2, :2] = True
    magenta = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    spoiled_by, left = [], []
    for picture in cases.images[rows][:16]:
        spoiled = picture.clone()
        spoiled[:, :8, :8] = magenta
        done = repaint_picture(spoiled, mask)
        assert torch.equal(done.image[:, 8:], spoiled[:, 8:])
        spoiled_by.append((spoiled - picture)[:, :8, :8].abs().mean())
        left.append((done.image - picture)[:, :8, :8].abs().mean())
    assert torch.stack(left).mean() < 0.3 * torch.stack(spoiled_by).mean()


@shipped("tokenizer", "gpt", "editor", "edit_lora")
def test_the_language_model_reads_a_request(cases):
    require_language_model()
    row = int(torch.nonzero(cases.before[:, 2] == SLOTS["garment"].index("sneaker"))[0])
    y = attributes_of(cases.before[row : row + 1])[0]
    colour = "green" if y.colour != "green" else "blue"
    done = edit_picture(cases.images[row], f"make it {colour}", shows=render(y), road=MODEL, seed=0)
    assert (done.answered_by, done.after.colour) == (MODEL, colour)
