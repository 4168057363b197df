"""The last step of a training: nothing is lost when it fails, and the card says what was done."""

from dataclasses import dataclass

import pytest
import torch

from fastgen_course import checkpoints
from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.training import loop
from fastgen_course.training.loop import Training, run_path
from fastgen_course.training.shipping import ship


@dataclass(frozen=True)
class Recipe:
    """As little as a recipe can say."""

    steps: int = 2
    seed: int = 5


def test_a_failing_measurement_loses_no_training(tmp_path, monkeypatch):
    for module in (checkpoints, loop):
        monkeypatch.setattr(module, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(checkpoints, "require", lambda name, *_: tmp_path / name)
    torch.manual_seed(0)
    model = Tokenizer()
    training = Training("tokenizer", {"model": model}, torch.Generator(), 2)
    training.run(lambda index: {"loss": 1.0 / (index + 3)}, log_every=1, quiet=True)

    def broken():
        raise RuntimeError("the judge is missing")

    with pytest.raises(RuntimeError, match="the judge is missing"):
        ship("tokenizer", model, training, Recipe(), broken)
    assert run_path("tokenizer").is_file()
    assert not (tmp_path / "weights").exists()

    ship("tokenizer", model, training, Recipe(), lambda: {"mse": 0.25})
    assert not run_path("tokenizer").exists()
    card = load_card("tokenizer")
    assert card["recipe"] == {"steps": 2, "seed": 5} and card["seed"] == 5
    assert card["metrics"] == {"mse": 0.25}
    assert card["history"] == {"step": [1, 2], "loss": [0.33333, 0.25]}
    assert card["command"] == "python -m fastgen_course train tokenizer"
    weight = model.encoder[1].weight
    assert torch.allclose(load_model("tokenizer").encoder[1].weight, weight, atol=1e-3)
