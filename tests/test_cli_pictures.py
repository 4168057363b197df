"""`draw --model` and `describe`: pictures out, pictures in, one sentence for what is no picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen_course import cli
from fastgen_course.checkpoints import build_model, save_checkpoint
from fastgen_course.datasets.captions import parse
from fastgen_course.sampling.gpt import unlike_any
from fastgen_course.sampling.picture_files import read_picture, to_model
from fastgen_course.show import to_uint8

CAPTION = "a large red sneaker on a white background"
CARD = dict.fromkeys(("seed", "command", "data_sha256", "minutes", "machine", "metrics"), "x")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder that holds a tiny tokenizer and a tiny GPT, never trained."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    torch.manual_seed(0)
    tokenizer = build_model("tokenizer", {"width": 4, "deep": 8, "codes": 20})
    gpt = build_model("gpt", {"width": 16, "layers": 1, "heads": 2, "codes": 20})
    for name, model in (("tokenizer", tokenizer), ("gpt", gpt)):
        save_checkpoint(name, model, CARD)
    return tmp_path


def mistake(capsys, *arguments):
    """The sentence that a wrong command prints; nothing else may be printed."""
    assert cli.main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels, **options).save(path)
    return path


@pytest.mark.parametrize("enlarge", [1, 8])
def test_what_the_language_model_draws_can_be_described(weights, capsys, enlarge):
    out = weights / "sneaker.png"
    arguments = ["draw", CAPTION, "--model", "gpt", "--out", str(out), "--enlarge", str(enlarge)]
    assert cli.main(arguments) == 0
    assert "ms median" in capsys.readouterr().out
    assert Image.open(out).size == (28 * enlarge, 28 * enlarge)
    first = read_picture(out)
    assert cli.main([*arguments, "--seed", "5"]) == 0
    assert (read_picture(out) != first).any()  # untrained or not, another seed is another picture
    capsys.readouterr()
    assert cli.main(["describe", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = parse(lines[0])  # the first line is a caption of the grammar
    assert said.background in next(line for line in lines if "background:" in line)
    assert "ms median" in lines[-1]


def test_both_commands_name_the_weights_that_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    out = tmp_path / "a.png"
    assert "gpt" in mistake(capsys, "draw", CAPTION, "--model", "gpt", "--out", out)
    assert not out.exists()
    assert "gpt" in mistake(capsys, "describe", save(tmp_path / "b.png", picture()))


def test_an_unknown_model_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["draw", CAPTION, "--model", "diffusion"])
    assert stopped.value.code == 2
    assert "generator_base" in capsys.readouterr().err


@pytest.mark.parametrize("enlarge", [1, 2, 32])
def test_a_picture_is_read_back_as_it_was(tmp_path, enlarge):
    pixels = picture()
    path = save(tmp_path / "a.png", pixels.repeat(enlarge, 0).repeat(enlarge, 1))
    assert (read_picture(path) == pixels).all()
    assert (to_uint8(to_model(pixels)) == pixels).all()


def test_grey_and_indexed_pictures_are_read_too(tmp_path):
    grey = picture()[..., 0]
    assert (read_picture(save(tmp_path / "l.png", grey)) == grey[..., None]).all()
    few = (picture() > 127).astype(np.uint8) * 255
    Image.fromarray(few).quantize(8).save(tmp_path / "p.png")
    assert (read_picture(tmp_path / "p.png") == few).all()


def wrong_files(folder):
    whole = picture().repeat(4, 0).repeat(4, 1)
    smooth = Image.fromarray(picture()).resize((280, 280), Image.Resampling.BILINEAR)
    smooth.save(folder / "smooth.png")
    save(folder / "wide.png", np.zeros((28, 56, 3), np.uint8))
    save(folder / "odd.png", np.zeros((30, 30, 3), np.uint8))
    save(folder / "large.png", np.zeros((28 * 40, 28 * 40, 3), np.uint8))
    save(folder / "deep.png", picture()[..., 0].astype(np.uint16) * 256)
    clear = np.dstack([picture(), np.full((28, 28), 255, np.uint8)])
    clear[3, 4, 3] = 10
    save(folder / "clear.png", clear)
    data = save(folder / "whole.png", whole).read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("a red sneaker")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smooth", "blocks are of several colours"),
        ("wide", "56x28 pixels"),
        ("odd", "30x30 pixels"),
        ("large", "up to 896x896"),
        ("deep", "8 bits a channel"),
        ("clear", "transparent"),
        ("cut", "damaged picture"),
        ("text", "not a picture"),
        ("empty", "not a picture"),
        ("folder", "is a folder"),
        ("nowhere", "there is no file"),
    ],
)
def test_what_is_no_picture_of_the_course_is_one_sentence(tmp_path, capsys, name, words):
    wrong_files(tmp_path)
    sentence = mistake(capsys, "describe", tmp_path / f"{name}.png")
    assert words in sentence
    assert str(tmp_path) not in sentence


def test_model_images_are_made_of_bytes_alone():
    with pytest.raises(ValueError, match="uint8"):
        to_model(np.zeros((28, 28, 3)))


def test_unlike_compares_a_picture_with_its_own_tokens():
    class Repainter(torch.nn.Module):
        def encode(self, images):
            return images.mean((1, 2, 3))

        def decode(self, tokens):
            return tokens[:, None, None, None].expand(-1, 3, 28, 28)

    flat = torch.full((1, 3, 28, 28), 0.3)
    noise = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert unlike_any(Repainter(), torch.cat([flat, noise])).tolist() == [False, True]
