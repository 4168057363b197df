"""Pictures drawn from free wording, judged slot by slot."""

from __future__ import annotations

import json

import pytest
import torch

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import Attributes, labels_of, parse
from fastgen_course.language import drawn
from fastgen_course.language.evaluate import Item

RED = Attributes(colour="red", garment="trousers", background="white")
BLUE = Attributes(colour="blue", garment="trousers", background="white")


def real(captions, generator):
    """A perfect drawer: real test scenes."""
    return drawn.real_pictures(labels_of([parse(c) for c in captions]), generator)


@pytest.fixture(scope="module")
def judge():
    return load_model("judge_train")


def test_a_refused_or_misread_request_counts_as_wrong(judge):
    asked = labels_of([RED] * 12)
    shares = drawn.drawn_shares([None] * 4 + [BLUE] * 4 + [RED] * 4, asked, real, judge=judge)
    assert shares[:4].tolist() == [0.0] * 4
    assert shares[4:8].mean() < 0.2
    assert shares[8:].mean() > 0.8


def test_the_best_of_several_drawings_shows_what_was_asked(judge):
    def careless(captions, generator):
        """Right in one drawing of four, on average."""
        wrong = torch.rand(len(captions), generator=generator) < 0.75
        asked = [parse(c) for c in captions]
        drawn_as = [BLUE if w else y for w, y in zip(wrong.tolist(), asked, strict=True)]
        return drawn.real_pictures(labels_of(drawn_as), generator)

    asked = labels_of([RED] * 64)
    plain = drawn.drawn_shares([RED] * 64, asked, careless, judge=judge).mean()
    picked = drawn.drawn_shares(
        [RED] * 64, asked, drawn.best_of(careless, judge), judge=judge
    ).mean()
    assert plain < 0.4 and picked > 0.55


def test_free_slots_are_not_judged(judge):
    asked = labels_of([Attributes(background="black")] * 8)
    images = drawn.real_pictures(asked, torch.Generator().manual_seed(0))
    assert drawn.found_exactly(images, asked, judge=judge).all()


def test_measure_records_words_and_pictures_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "junction", lambda: lambda source, text: RED)
    monkeypatch.setattr(drawn, "studio", lambda: type("Rooms", (), {"draw": staticmethod(real)}))
    written = []
    monkeypatch.setattr(drawn, "record", lambda *a, **k: written.append((a, k)))
    found = drawn.measure([Item(None, "x", RED), Item(None, "y", BLUE)] * 8, quiet=True)
    assert found["understood"] == 0.5
    assert found["free_wording_accuracy"] < 0.6 < found["free_wording_accuracy_gold"]
    names = [a[1] for a, _ in written]
    assert names[0] == "text_to_image.free_wording_accuracy" and len(names) == 4
    assert all(k["understood"] == 0.5 and json.dumps(k["spread"]) for _, k in written)
