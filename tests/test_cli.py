"""The command line does its work, and a mistake is one sentence and exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastgen_course import cli
from fastgen_course.checkpoints import build_model, save_checkpoint
from fastgen_course.timing import record


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    record("fid", "fid.floor", 4.03, "FID", spread=0.1, command="python -m x floor")
    return tmp_path


def mistake(capsys, *arguments):
    """The sentence that a wrong command prints; nothing else may be printed."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_results_print_the_command(registry, capsys):
    assert cli.main(["results"]) == 0
    assert "python -m x floor" in capsys.readouterr().out
    assert cli.main(["results", "fid", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["value"]) == ("fid.floor", 4.03)


def test_mistakes_are_one_sentence(registry, capsys):
    assert "Nothing is recorded in area 'nothing'" in mistake(capsys, "results", "nothing")
    assert "nobody" in mistake(capsys, "train", "nobody")
    assert "no notebook '99'" in mistake(capsys, "notebooks", "99")
    assert "write owner/name" in mistake(capsys, "links", "nowhere")
    (registry / "results" / "fid.json").write_text("{")
    assert "fid.json is not valid JSON" in mistake(capsys, "results")


def test_a_wrong_draw_writes_nothing(registry, capsys, tmp_path):
    out = tmp_path / "picture.png"
    for caption in ("", "a large red zebra on a white background", "a red bag " * 1000):
        mistake(capsys, "draw", caption, "--out", str(out))
    good = "a large red sneaker on a white background"
    assert "not a .png" in mistake(capsys, "draw", good, "--out", "picture.jpg")
    assert "--enlarge must be 1 to 32" in mistake(capsys, "draw", good, "--enlarge", "0")
    sentence = mistake(capsys, "draw", good, "--out", str(out))
    assert "generator_base" in sentence  # the registry's folder holds no weights
    assert not out.exists()


def test_draw_writes_the_same_picture_for_the_same_seed(registry, capsys, tmp_path):
    config = {"noise": 8, "caption": 8, "channels": (8, 8, 8)}
    model = build_model("generator_base", config)
    card = dict.fromkeys(("seed", "command", "data_sha256", "minutes", "machine", "metrics"), "x")
    save_checkpoint("generator_base", model, card)
    caption = "a large red sneaker on a white background"
    pictures = {}
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.png"
        arguments = ["draw", caption, "--out", str(out), "--seed", seed, "--enlarge", "2"]
        assert cli.main(arguments) == 0
        pictures[name] = np.asarray(Image.open(out))
    assert pictures["a"].shape == (56, 56, 3)
    assert (pictures["a"] == pictures["b"]).all()
    assert (pictures["a"] != pictures["c"]).any()
    assert "28x28 pixels" in capsys.readouterr().out


def test_debug_shows_the_traceback(registry):
    with pytest.raises(ValueError, match="Nothing is recorded"):
        cli.main(["--debug", "results", "nothing"])


def test_a_missing_package_is_named_with_its_install_line(monkeypatch, capsys):
    def run(options):
        raise ModuleNotFoundError("No module named 'nbclient'", name="nbclient")

    monkeypatch.setattr(cli, "_notebooks", run)
    assert "nbclient is not installed" in mistake(capsys, "notebooks")


@pytest.mark.parametrize("arguments", [[], ["paint"], ["links"], ["draw"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_module_runs_and_its_help_loads_no_torch():
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('fastgen_course', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "draw" in done.stdout
