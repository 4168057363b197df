"""The solutions that notebook 06 unfolds do what the package does."""

import torch

from fastgen_course.datasets.captions import EMPTY, attributes_of, labels_of
from fastgen_course.datasets.scenes import draw_labels
from fastgen_course.exercises.edit import hidden_tokens, instruction, silhouette_iou
from fastgen_course.exercises.edit_words import lora_linear, token_trie
from fastgen_course.language.decode import END, trie_of
from fastgen_course.language.lora import LoRALinear
from fastgen_course.metrics.silhouette import intersection_over_union
from fastgen_course.sampling.studio import changed_slots
from fastgen_course.training.edit_records import balanced_edits, changed_places
from tests.helpers_language import LetterTokenizer


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def test_the_overlap_is_the_recorded_one():
    ours, target = torch.rand(2, 40, 28, 28, generator=_generator(0)) < 0.3
    ours[0] = target[0] = False
    ours[1] = False
    assert torch.equal(silhouette_iou(ours, target), intersection_over_union(ours, target))
    assert silhouette_iou(ours, target)[:2].tolist() == [1.0, 0.0]


def test_the_instruction_is_the_one_that_the_studio_gives():
    generator = _generator(1)
    before, after = draw_labels(300, generator), draw_labels(300, generator)
    there = (before[:, 2] != EMPTY) & (after[:, 2] != EMPTY)
    after[there, :2] = before[there, :2]  # some slots stay
    assert ((before[:, 2] != EMPTY) & (after[:, 2] == EMPTY)).any()
    asked = labels_of(
        [
            changed_slots(old, new)
            for old, new in zip(attributes_of(before), attributes_of(after), strict=True)
        ]
    )
    assert torch.equal(instruction(before, after), asked)


def test_the_tokens_under_a_mask_are_those_that_a_masked_redraw_hides():
    cases = balanced_edits(50)
    masks = torch.rand(50, 28, 28, generator=_generator(2)) < 0.02
    colour = cases.kept & (cases.before[:, 1] != cases.after[:, 1])
    assert colour.any()
    assert torch.equal(hidden_tokens(masks)[colour], changed_places(cases, masks)[colour])


def test_the_trie_is_the_decoder_s():
    texts, tokenizer = ["a red bag", "a red bag on white", "a boot"], LetterTokenizer()
    sequences = [tokenizer.encode(text).ids for text in texts]
    assert token_trie(sequences, END) == trie_of(texts, tokenizer)


def test_the_adapted_layer_is_the_module_that_is_trained():
    generator = _generator(3)
    x, W = torch.randn(5, 6, generator=generator), torch.randn(4, 6, generator=generator)
    A, B = torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator)
    linear = torch.nn.Linear(6, 4, bias=False)
    linear.weight.data = W
    layer = LoRALinear(linear, torch.nn.Parameter(A), torch.nn.Parameter(B), 16 / 2)
    torch.testing.assert_close(lora_linear(x, W, A, B, 16.0), layer(x).detach())
