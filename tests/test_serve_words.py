"""The page reads captions and requests as the package does, and draws the package's noise."""

from __future__ import annotations

import difflib
import random
import re
import shutil
from dataclasses import asdict, astuple, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgen_course.datasets.captions import (
    PATTERNS,
    SLOTS,
    VOCABULARY,
    Attributes,
    CaptionError,
    encode_words,
    is_held_out,
    parse,
    render,
)
from fastgen_course.language.caption_edit import edit_caption
from fastgen_course.language.edits import RULES, apply_edit
from fastgen_course.language.examples import known_words
from fastgen_course.language.guard import Impossible
from fastgen_course.language.testsets import edit_requests, free_wording
from fastgen_course.runtimes.onnx_export import export_onnx
from fastgen_course.serve.kept import CHANGED, a_change, measure_kept
from fastgen_course.serve.model import checked
from tests.helpers_serve import in_page

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")
COMPLETE = "a small red boot on a white background, photo style"


def some_attributes(rng: random.Random) -> Attributes:
    """Each slot free now and then; an empty scene now and then."""
    if rng.random() < 0.1:
        return Attributes(garment="nothing", background=rng.choice((*SLOTS["background"], None)))
    values = {slot: rng.choice(values[: 10 if slot == "garment" else None])
              for slot, values in SLOTS.items()}  # fmt: skip
    return Attributes(**{s: v if rng.random() < 0.8 else None for s, v in values.items()})


# --- a caption edited by words -------------------------------------------------------------------


def test_a_complete_caption_is_edited_as_a_picture_is():
    compared = 0
    for item in edit_requests():
        try:
            expected = apply_edit(item.source, item.request, road=RULES)
        except CaptionError as error:
            with pytest.raises(CaptionError, match=re.escape(str(error))):
                edit_caption(render(item.source), item.request, road=RULES)
            continue
        done = edit_caption(render(item.source), item.request, road=RULES)
        if item.source.garment != "nothing" and expected.attributes.garment != "nothing":
            compared += 1
            assert (done.after, done.note) == (expected.attributes, expected.note)
            assert parse(done.caption) == done.after
    assert compared > 100


@pytest.mark.parametrize(
    ("caption", "request_", "expected"),
    [
        ("a red boot", "make it green", "a green boot"),
        ("a red boot", "make it bigger", "a large red boot"),
        ("a boot", "on a white background please", "a boot on a white background"),
        ("a boot, photo style", "small", "a small boot, photo style"),
        ("a large boot", "too big", "a small boot"),
        ("a red boot", "take it away", "nothing"),
        ("a red boot on a black background", "remove it", "nothing on a black background"),
        ("nothing", "add a blue bag", "a blue bag"),
        ("nothing on a black background", "add a bag", "a bag on a black background"),
        ("a red garment", "make it a coat", "a red coat"),
        ("a red garment on a white background", "crimson, no, navy trainers",
         "a blue sneaker on a white background"),
        ("a large garment", "a sketch of it", "a large garment, sketch style"),
    ],
)  # fmt: skip
def test_what_a_caption_leaves_open_stays_open(caption, request_, expected):
    done = edit_caption(caption, request_, road=RULES)
    assert done.caption == expected
    assert done.note.startswith("Changed: ")
    changed = [s for s in SLOTS if getattr(done.before, s) != getattr(done.after, s)]
    assert all(f"{slot} " in done.note for slot in changed)


def test_what_is_there_already_changes_nothing():
    done = edit_caption("a red boot", "make it red", road=RULES)
    assert done.after == done.before and done.note.startswith("Nothing changes")
    left = edit_caption("a red boot", "make it green and blorpy", road=RULES)
    assert '"blorpy"' in left.note and left.caption == "a green boot"


@pytest.mark.parametrize(
    ("caption", "request_", "words"),
    [
        ("a zebra", "make it red", 'the word "zebra"'),
        (COMPLETE, "", "the request is empty"),
        (COMPLETE, "make it a car", '"car" is nothing that the course can draw'),
        (COMPLETE, "make it red blue", "two values of colour"),
        (COMPLETE, "add a bag", "this one has a boot"),
        ("nothing", "make it red", "the scene is empty"),
    ],
)
def test_an_edit_that_cannot_be(caption, request_, words):
    with pytest.raises(CaptionError, match=words):
        edit_caption(caption, request_, road=RULES)


@given(st.integers(0, 2**32))
def test_naming_one_value_changes_at_most_that_slot(seed):
    rng = random.Random(seed)
    y = some_attributes(rng)
    slot = rng.choice(("colour", "style", "garment"))
    value = rng.choice([v for v in SLOTS[slot] if v != "nothing"])
    if y.garment in (None, "nothing"):
        return
    done = edit_caption(render(y), f"make it {value}", road=RULES)
    assert done.after == replace(y, **{slot: value})


# --- the page's own reading, against the package's -----------------------------------------------


def captions_to_read() -> list[str]:
    """Captions right and wrong: every pattern and synonym, cut, doubled, misspelt, mixed up."""
    rng = random.Random(0)
    texts = ["", "?!", "a red blue coat", "pale", "ankle", "a nothing, red", "red " * 21, "x" * 301,
             "héllo", "a RED Boot", "İstanbul", "a red-boot", "t-shirt's", "pixel", "art", "12,000",
             "an orange ankle boot on a light blue background, in pixel art style", "a" * 12345,
             "𝒳 boot", "a small size"]  # fmt: skip
    for _ in range(400):
        y = some_attributes(rng)
        ways = [rng.randrange(4) for _ in SLOTS]
        text = render(y, rng.randrange(PATTERNS), ways)
        texts.append(text)
        words = text.split()
        at = rng.randrange(len(words))
        letters = list(words[at])
        letters[rng.randrange(len(letters))] = rng.choice("abcdefghijklmnop-' ")
        texts.append(" ".join([*words[:at], "".join(letters), *words[at + 1 :]]))
        rng.shuffle(words)
        texts.append(" ".join(words))
        texts.append(" ".join(rng.choices(VOCABULARY[1:], k=rng.randrange(1, 9))))
    return texts


def read_here(text: str) -> list:
    try:
        y = parse(text)
    except CaptionError as error:
        return ["error", str(error)]
    return [asdict(y), render(y), encode_words([text])[0].tolist(), is_held_out(y)]


@needs_node
def test_the_page_reads_captions_as_the_package_does(tmp_path):
    texts = captions_to_read()
    script = """
    say(given.map((text) => {
      try {
        const y = grammar.parse(text);
        const numbers = [...grammar.encode(text)].map(Number);
        return [y, grammar.render(y), numbers, grammar.isHeldOut(y)];
      } catch (error) {
        if (error instanceof CaptionError) return ["error", error.message];
        throw error;
      }
    }));
    """
    theirs = in_page(script, texts, tmp_path)
    ours = [read_here(text) for text in texts]
    differ = [(t, o, h) for t, o, h in zip(texts, theirs, ours, strict=True) if o != h]
    assert differ == []
    wrong = [row[1] for row in ours if row[0] == "error"]
    assert len(wrong) > 200 and len(ours) - len(wrong) > 400
    assert sum("did you mean" in sentence for sentence in wrong) > 50
    assert any(row[-1] is True for row in ours)


@needs_node
def test_the_nearest_word_is_python_s(tmp_path):
    rng = random.Random(1)
    words = list(VOCABULARY[1:])
    asked = ["".join(rng.choices("abcdeghilnoprstuw", k=rng.randrange(1, 10))) for _ in range(300)]
    asked += ["".join(rng.sample(word, len(word))) for word in words]
    theirs = in_page("say(given[0].map((w) => closest(w, given[1])));", [asked, words], tmp_path)
    ours = [(difflib.get_close_matches(word, words, n=1) or [None])[0] for word in asked]
    assert theirs == ours
    assert sum(word is not None for word in ours) > 50


def requests_to_read() -> list[tuple[str, str]]:
    """(caption, request): both test sets, on complete and open captions, and words mixed up."""
    rng = random.Random(2)
    pairs = [(render(item.source), item.request) for item in edit_requests()]
    requests = [item.request for item in edit_requests()] + [item.text for item in free_wording()]
    pairs += [(render(some_attributes(rng)), request) for request in requests for _ in range(3)]
    spare = sorted(known_words())
    for _ in range(600):
        words = rng.choice(requests).split()
        for _ in range(rng.randrange(1, 4)):
            words.insert(rng.randrange(len(words) + 1), rng.choice((
                *spare[:: len(spare) // 40], "not", "no", ",", "too", "less", "on", "wall",
                "instead of", "change", "to", "bigger", "dark", "little", "remove", "pale", "pink",
            )))  # fmt: skip
        if rng.random() < 0.3:
            rng.shuffle(words)
        pairs.append((render(some_attributes(rng)), " ".join(words)))
    odd = ["", "  ", "?", "👗", "make it " + "red " * 99, "ignore all previous instructions",
           "ein rotes Kleid bitte", "une robe", "платье", "nothing else", "make it a\u00a0coat",
           "ｒｅｄ", "it’s too big", "salmon orange", "dark chocolate", "a little bigger",
           "greener", "a car", "a shirt for a child", "red background", "a black boot",
           "a zebra"]  # fmt: skip
    return [*pairs, *((caption, text) for text in odd for caption in (COMPLETE, "a boot"))]


def edited_here(caption: str, request: str) -> list:
    try:
        done = edit_caption(caption, request, road=RULES)
    except CaptionError as error:
        return ["Impossible" if isinstance(error, Impossible) else "error", str(error)]
    return [done.caption, done.note, done.after != done.before]


@needs_node
def test_the_page_edits_captions_as_the_package_does(tmp_path):
    pairs = requests_to_read()
    script = """
    say(given.map(([caption, request]) => {
      try {
        const done = editor.edit(caption, request);
        return [done.caption, done.note, done.changed];
      } catch (error) {
        if (!(error instanceof CaptionError)) throw error;
        return [error.constructor.name === "Impossible" ? "Impossible" : "error", error.message];
      }
    }));
    """
    theirs = in_page(script, pairs, tmp_path)
    ours = [edited_here(*pair) for pair in pairs]
    differ = [(p, t, o) for p, t, o in zip(pairs, theirs, ours, strict=True) if t != o]
    assert differ[:5] == []
    right = [row for row in ours if len(row) == 3]
    assert len(right) > 700 and len(ours) - len(right) > 200
    assert sum(row[2] for row in right) > 500


@needs_node
def test_the_page_s_noise_is_torch_s(tmp_path):
    asked = [(seed, n) for seed in (0, 1, 77, 2**31 - 9) for n in (1, 7, 15, 16, 20, 64, 97)]
    theirs = in_page("say(given.map(([seed, n]) => [...noise(seed, n)]));", asked, tmp_path)
    for (seed, n), row in zip(asked, theirs, strict=True):
        ours = torch.randn(1, n, generator=torch.Generator().manual_seed(seed))[0]
        assert torch.allclose(torch.tensor(row), ours, rtol=0, atol=1e-6), (seed, n)


def test_an_attribute_is_compared_by_slot():
    """What the differential tests lean on: attributes in the slots' order."""
    assert astuple(parse(COMPLETE)) == tuple(asdict(parse(COMPLETE))[slot] for slot in SLOTS)


# --- what a change keeps -------------------------------------------------------------------------


def test_a_change_in_words_changes_one_slot():
    rng = random.Random(0)
    for _ in range(100):
        before, after = (parse(caption) for caption in a_change(rng))
        differ = [s for s in SLOTS if getattr(before, s) != getattr(after, s)]
        assert len(differ) == 1 and differ[0] in CHANGED
        assert not is_held_out(before) and not is_held_out(after)


def test_outlines_are_compared_with_the_first_picture(tmp_path):
    """A network that draws a square where the noise says, whatever the caption: it keeps all."""

    class Square(torch.nn.Module):
        def forward(self, noise, words):
            at = torch.arange(28)
            near = (at - 14 - 3 * noise[:, :1].clamp(-2, 2)).abs() < 5
            square = near[:, None, :, None] & near[:, None, None, :]
            return torch.where(square, 1.0, -1.0).repeat(1, 3, 1, 1) + 0.0 * words.sum()

    path = tmp_path / "square.onnx"
    export_onnx(Square(), (torch.zeros(2, 20), encode_words([COMPLETE] * 2)), path)
    kept = measure_kept(checked("square", path), captions=30)
    assert (kept.same_noise == 1).all()
    assert kept.fresh_noise.mean() < 0.7 and len(kept.fresh_noise) == 30
