"""Edits have exact targets, and the editor's two outputs stand where the picture stands."""

import pytest
import torch

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import EMPTY, FREE, attributes_of, held_out_mask
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.edits import change_labels, draw_changes, edit_batches
from fastgen_course.datasets.scenes import draw_labels
from fastgen_course.metrics.silhouette import intersection_over_union, silhouettes
from fastgen_course.models.editor import Editor, EditorConfig
from fastgen_course.sampling.edit import edit_tokens, restore_tokens
from fastgen_course.training.editor import edit_token_batches, low_resolution


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def test_edits_change_what_they_name_and_nothing_else():
    edits = next(edit_batches("test", 400, _generator(0)))
    removed = edits.after[:, 2] == EMPTY
    assert 10 < int(removed.sum()) < 70
    kept = ~removed
    assert torch.equal(edits.before[kept, 2], edits.after[kept, 2])
    changed = edits.before != edits.after
    assert changed.any(1).all()  # no idle edit
    asked = edits.asked != FREE
    whole = asked[kept].all(1)
    assert 0.2 < whole.float().mean() < 0.42
    partial = kept.nonzero()[:, 0][~whole]
    assert torch.equal(asked[partial], changed[partial])
    assert torch.equal(edits.asked[asked], edits.after[asked])
    assert not held_out_mask(edits.before).any() and not held_out_mask(edits.after).any()
    # Without words for the rest, an instruction is short.
    assert attributes_of(edits.asked[partial[:1]])[0].garment is None


def test_the_target_is_the_same_photograph_with_the_new_attributes():
    edits = next(edit_batches("test", 60, _generator(1)))
    same = (edits.before[:, [0, 2]] == edits.after[:, [0, 2]]).all(1)
    assert same.any()
    # Size and garment unchanged: the silhouettes of before and after are one.
    generator = _generator(1)
    again = next(edit_batches("test", 60, generator))
    assert torch.equal(edits.target, again.target)
    empty = edits.after[:, 2] == EMPTY
    assert (edits.target_masks[empty].sum((1, 2)) == 0).all()
    assert (edits.target_masks[~empty].sum((1, 2)) > 10).all()


def test_changes_of_an_empty_scene_or_a_garment_are_refused():
    labels = draw_labels(10, _generator(2))
    labels[:, 2] = 3
    labels[:, [0, 1, 4]] = labels[:, [0, 1, 4]].clamp(min=0)
    changed = draw_changes(10, _generator(3))
    assert changed.any(1).all() and not changed[:, 2].any()
    changed[0, 2] = True
    with pytest.raises(ValueError, match="size, colour, background and style"):
        change_labels(labels, changed, _generator(4))


def test_the_mask_is_assembled_in_place():
    editor = Editor(EditorConfig(width=16, layers=1, heads=2))
    picture = torch.arange(784.0).view(1, 28, 28)
    pieces = picture.unfold(1, 4, 4).unfold(2, 4, 4).reshape(1, 49, 16)
    assert torch.equal(editor.assemble(pieces), picture)


def test_the_editor_learns_a_colour_change_it_can_see():
    """A few steps on one batch: the right tokens become likelier than any others."""
    torch.manual_seed(0)
    tokenizer = load_model("tokenizer")
    editor = Editor(EditorConfig(width=48, layers=2, heads=2))
    batch = next(edit_token_batches(tokenizer, 8, _generator(5), restored=4))
    assert (batch.words[:4] == 0).all() and (batch.words[4:] != 0).any(1).all()
    assert torch.equal(batch.source[2:4], batch.target[2:4])
    optimiser = torch.optim.Adam(editor.parameters(), lr=4e-3)
    for _ in range(90):
        logits, mask = editor(batch.words, batch.source)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.target.flatten())
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
            mask, batch.masks.float()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    logits, mask = editor(batch.words, batch.source)
    assert (logits.argmax(-1) == batch.target).float().mean() > 0.9
    assert mask[batch.masks].mean() > mask[~batch.masks].mean() + 0.3


def test_silhouettes_of_real_scenes_are_those_of_compose():
    edits = next(edit_batches("test", 300, _generator(7)))
    found = silhouettes(edits.target)
    agreement = intersection_over_union(found, edits.target_masks)
    assert agreement.mean() > 0.93
    empty = edits.after[:, 2] == EMPTY
    assert (agreement[empty] == 1).all()
    assert intersection_over_union(found[~empty], found[~empty].roll(1, 0)).mean() < 0.7


def test_instructions_and_pictures_come_in_pairs():
    editor = Editor(EditorConfig(width=16, layers=1, heads=2))
    tokens = torch.randint(512, (2, 49), generator=_generator(8))
    edited = edit_tokens(editor, tokens, ["green", "a small red bag"])
    alone = edit_tokens(editor, tokens[:1], ["green"])
    assert torch.equal(edited.tokens[:1], alone.tokens)
    assert restore_tokens(editor, tokens).masks.shape == (2, 28, 28)
    with pytest.raises(ValueError, match="one instruction a picture"):
        edit_tokens(editor, tokens, ["green"])


def test_iou_and_low_resolution_by_hand():
    first = torch.zeros(2, 28, 28, dtype=torch.bool)
    second = first.clone()
    first[0, :4, :4] = True
    second[0, 2:6, :4] = True
    assert intersection_over_union(first, second).tolist() == pytest.approx([8 / 24, 1.0])
    labels = torch.tensor([[1, 0, 0, 0, 0]])
    photo = torch.randint(0, 255, (1, 28, 28), generator=_generator(6)).to(torch.uint8)
    image = compose(photo, labels).images
    low = low_resolution(image)
    assert low.shape == image.shape
    difference = torch.nn.functional.avg_pool2d(low - image, 28)
    assert difference.abs().max() < 0.05
