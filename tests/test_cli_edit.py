"""`edit`: a picture and words in, a picture out, and what was read, understood and done."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen_course import cli
from fastgen_course.checkpoints import build_model, save_checkpoint
from fastgen_course.datasets.captions import parse
from fastgen_course.sampling.picture_files import read_picture, to_model
from fastgen_course.show import to_uint8
from tests.helpers_editing import ExactStudio, garment

CARD = dict.fromkeys(("seed", "command", "data_sha256", "minutes", "machine", "metrics"), "x")
SNEAKER = "a small red sneaker on a white background, photo style"
REQUEST = "make it green and draw it as a sketch"


@pytest.fixture
def rooms(monkeypatch):
    rooms = ExactStudio()
    monkeypatch.setattr("fastgen_course.language.assistant.studio", lambda: rooms)
    return rooms


@pytest.fixture
def sneaker(rooms, tmp_path):
    image = rooms.draw([SNEAKER], torch.Generator().manual_seed(0))
    path = tmp_path / "sneaker.png"
    Image.fromarray(to_uint8(image)[0].repeat(8, 0).repeat(8, 1)).save(path)
    return path


def edit(*arguments) -> int:
    return cli.main(["edit", *map(str, arguments), "--rules"])


def mistake(capsys, *arguments) -> str:
    """The sentence that a wrong command prints; nothing else may be printed."""
    assert edit(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_the_picture_is_edited_and_everything_said(rooms, sneaker, capsys):
    out = sneaker.with_name("green.png")
    before = sneaker.read_bytes()
    assert edit(sneaker, REQUEST, "--out", out, "--enlarge", "4") == 0
    said = capsys.readouterr().out
    lines = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    green = "a small green sneaker on a white background, sketch style"
    assert lines["read"].strip() == SNEAKER
    assert lines["understood"].strip() == f"{green} (answered by the keyword rules)"
    assert lines["Changed"].startswith("colour red → green, style photo → sketch")
    assert lines["way"].strip() == "edited"
    assert lines["reads now"].strip() == green
    times = re.findall(r"(\w+) \d+\.\d\d \(p90 \d+\.\d\d\)", lines["ms median a stage"])
    assert times == ["describe", "understand", "draw"]
    assert Image.open(out).size == (112, 112)
    old, new = (to_model(read_picture(path)) for path in (sneaker, out))
    assert rooms.describe(new[None]) == [parse(green)]
    assert garment(rooms, new) == garment(rooms, old)
    assert sneaker.read_bytes() == before


def test_another_garment_is_drawn_anew_with_the_seed(rooms, sneaker, capsys):
    drawn = []
    for seed in ("1", "1", "2"):
        out = sneaker.with_name("bag.png")
        assert edit(sneaker, "replace it with a bag", "--out", out, "--seed", seed) == 0
        drawn.append(out.read_bytes())
    assert "drawn anew" in capsys.readouterr().out
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_was_read_wrongly_can_be_said(rooms, sneaker, capsys):
    out = sneaker.with_name("out.png")
    assert "--shows" in mistake(capsys, sneaker, "make it red", "--out", out)
    assert edit(sneaker, "make it red", "--out", out, "--shows", "an orange sneaker") == 0
    assert "colour orange → red" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("", "the request is empty"),
        ("make it red", 'reads as "a small red sneaker'),
        ("make it blue and yellow", "two values of colour"),
        ("turn it into a car", "car"),
        ("🎨", "no words"),
        ("add a bag", "replace it with a bag"),
    ],
)
def test_a_request_that_is_refused_writes_nothing(rooms, sneaker, capsys, request_, words):
    out = sneaker.with_name("out.png")
    assert words in mistake(capsys, sneaker, request_, "--out", out)
    assert sorted(path.name for path in sneaker.parent.iterdir()) == ["sneaker.png"]
    out.write_bytes(b"what was there")
    mistake(capsys, sneaker, request_, "--out", out)
    assert out.read_bytes() == b"what was there"


def test_files_that_cannot_be_are_one_sentence(rooms, sneaker, capsys):
    folder = sneaker.parent
    out = folder / "out.png"
    (folder / "text.png").write_text("a sneaker")
    (folder / "folder.png").mkdir()
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(folder / "odd.png")
    before = sneaker.read_bytes()
    for arguments, words in (
        ((folder / "nowhere.png", REQUEST, "--out", out), "there is no file nowhere.png"),
        ((folder / "text.png", REQUEST, "--out", out), "not a picture"),
        ((folder / "odd.png", REQUEST, "--out", out), "30x30 pixels"),
        ((folder / "folder.png", REQUEST, "--out", out), "is a folder"),
        ((sneaker, REQUEST, "--out", "out.jpg"), "not a .png file"),
        ((sneaker, REQUEST, "--out", folder / "folder.png"), "name a file in it"),
        ((sneaker, REQUEST, "--out", sneaker), "is the picture to edit"),
        ((sneaker, REQUEST, "--out", out, "--enlarge", "0"), "--enlarge must be 1 to 32"),
        ((sneaker, REQUEST, "--out", out, "--shows", "a spaceship"), "spaceship"),
    ):
        assert words in mistake(capsys, *arguments)
    assert not out.exists() and sneaker.read_bytes() == before


@pytest.mark.parametrize("seed", ["-1", "red", str(2**63)])
def test_a_seed_that_is_none_is_a_usage_error(sneaker, capsys, seed):
    with pytest.raises(SystemExit) as stopped:
        edit(sneaker, REQUEST, f"--seed={seed}")
    assert stopped.value.code == 2
    assert "a seed is a whole number" in capsys.readouterr().err


def test_missing_weights_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("fastgen_course.language.assistant.studio", fresh_studio)
    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(picture)
    sentence = mistake(capsys, picture, REQUEST, "--out", tmp_path / "b.png")
    assert "tokenizer" in sentence and "train" in sentence
    assert not (tmp_path / "b.png").exists()


def test_real_models_of_the_shipped_kinds_go_the_whole_way(tmp_path, monkeypatch, capsys):
    """Tiny and untrained, so that what is read is chance; every stage is the shipped one's."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("fastgen_course.language.assistant.studio", fresh_studio)
    torch.manual_seed(0)
    small = {"width": 16, "layers": 1, "heads": 2, "codes": 20}
    configs = {"tokenizer": {"width": 4, "deep": 8, "codes": 20}, "gpt": small, "editor": small}
    for name, config in configs.items():
        save_checkpoint(name, build_model(name, config), CARD)
    picture = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    shows = ["--shows", SNEAKER]
    for request, way in ((REQUEST, "edited"), ("replace it with a bag", "drawn anew")):
        assert edit(picture, request, "--out", tmp_path / "b.png", *shows) == 0
        said = capsys.readouterr().out
        assert f"way:        {way}" in said and "is a guess" in said
        assert read_picture(tmp_path / "b.png").shape == (28, 28, 3)


def fresh_studio():
    from fastgen_course.sampling.studio import Studio

    return Studio()
