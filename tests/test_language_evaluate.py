"""The comparison of the roads: scoring, recording, and the untrained model's four ways."""

from __future__ import annotations

import json

import pytest
import torch

from fastgen_course.datasets.captions import SLOTS, Attributes, CaptionError, render
from fastgen_course.language import evaluate
from fastgen_course.language.evaluate import ROADS, Item, Score, record_road, score
from fastgen_course.language.prompting import INSTRUCTION, SHOTS, Prompted, _read
from fastgen_course.language.testsets import edit_requests
from fastgen_course.timing import result

BOOT = Attributes("small", "brown", "boot", "grey", "photo")
EMPTY = Attributes(garment="nothing", background="grey")


def test_score_tells_right_answered_and_unseen():
    red = Attributes("small", "red", "boot", "grey", "photo")
    items = [
        Item(BOOT, "make it red", red),
        Item(BOOT, "make it heliotrope", red),
        Item(None, "a red garment", Attributes(colour="red")),
    ]
    answers = iter((red, None, Attributes(colour="blue")))
    found = score(lambda source, text: next(answers), items, quiet=True)
    assert found.right.tolist() == [True, False, False]
    assert found.answered.tolist() == [True, False, True]
    assert found.unseen.tolist() == [False, True, False]


def test_a_road_is_recorded_with_unseen_words_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    right = torch.tensor([True, True, False, True])
    unseen = torch.tensor([False, False, True, True])
    record_road("few_shot", Score(right, torch.ones(4, dtype=torch.bool), unseen), every=5)
    rows = json.loads((tmp_path / "results" / "language_edit.json").read_text())["entries"]
    values = {row["name"]: row["value"] for row in rows}
    assert values == {
        "language_edit.few_shot_exact": 0.75,
        "language_edit.few_shot_unseen_exact": 0.5,
        "language_edit.few_shot_answered": 1.0,
    }
    (row,) = [row for row in rows if row["name"].endswith("few_shot_exact")]
    assert row["command"] == "python -m fastgen_course.language.evaluate few_shot"
    assert row["subset"] == "every 5th request"
    assert row["requests"] == 4


def test_the_slow_roads_take_a_fixed_subset():
    slow = [road for road, (*_, every) in ROADS.items() if every > 1]
    assert slow == ["zero_shot", "few_shot", "constrained", "likelihood"]
    assert len(edit_requests()[:: evaluate.SUBSET]) == 40


def test_an_unknown_road_is_named(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["telepathy"])
    assert "there is no road 'telepathy'; choose from zero_shot" in capsys.readouterr().err


def test_the_rules_road_answers_none_where_they_refuse():
    make, *_ = ROADS["rules"]
    answer = make()
    assert answer(BOOT, "make it red").colour == "red"
    assert answer(BOOT, "make it heliotrope") is None


def test_free_answers_are_read_or_are_none():
    assert _read(render(BOOT) + ".") == BOOT
    assert _read('"a red boot"') == Attributes(colour="red", garment="boot")
    assert _read("Sure! Here is your picture of a boot.") is None
    assert _read("the") is None


def test_the_shots_are_right_and_of_every_kind():
    changed = set()
    for source, request, gold in SHOTS:
        assert source != gold and request
        changed |= {s for s in SLOTS if getattr(source, s) != getattr(gold, s)}
    assert changed == set(SLOTS)
    tests = {e.request for e in edit_requests()}
    assert not tests & {request for _, request, _ in SHOTS}
    for slot in ("colour", "garment", "background", "style"):
        assert all(value in INSTRUCTION for value in SLOTS[slot] if value != "nothing")


def test_candidates_of_a_slot_are_whole_descriptions():
    prompted = Prompted.__new__(Prompted)
    for slot, values in SLOTS.items():
        found = prompted._slot(BOOT, slot)
        assert len(found) == len(values) and BOOT in found
    assert EMPTY in prompted._slot(BOOT, "garment")
    assert len(prompted._slot(EMPTY, "size")) == 11
    assert prompted._slot(EMPTY, "style") == [EMPTY]
    with pytest.raises(CaptionError):
        Attributes(garment="nothing", colour="red")


# --- what was recorded -------------------------------------------------------------------------


def test_pooled_states_confuse_what_token_states_tell_apart():
    assert result("language_edit.pooled_cosine").value > 0.95
    assert result("language_edit.pooled_swap_nearer_share").value > 0.8
    assert result("language_edit.token_swap_nearer_share").value < 0.5
    assert (
        result("language_edit.token_centred_cosine").value
        < 0.2
        < result("language_edit.pooled_centred_cosine").value
    )
