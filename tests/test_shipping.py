"""The last step of a training: nothing is lost when it fails, and the card says what was done."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from fastgen_course import checkpoints
from fastgen_course.checkpoints import (
    LARGE_MATRIX,
    as_stored,
    load_card,
    load_model,
    save_checkpoint,
)
from fastgen_course.compression.folding import FoldedGenerator
from fastgen_course.models.generator import GeneratorConfig
from fastgen_course.models.gpt import GPT
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import TransformerConfig
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


@pytest.fixture
def own_weights(tmp_path, monkeypatch):
    """Weights are written to and read from a folder of the test's own."""
    monkeypatch.setattr(checkpoints, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(checkpoints, "require", lambda name, *_: tmp_path / name)
    return tmp_path


CARD = {"seed": 0, "command": "", "data_sha256": "", "minutes": 0, "machine": {}, "metrics": {}}


def test_large_matrices_can_be_stored_with_one_byte_a_weight(own_weights):
    torch.manual_seed(0)
    model = FoldedGenerator(GeneratorConfig(channels=(40, 8, 8, 8, 4, 4)))
    model.stem.weight.data[3] = 0  # a row without a scale
    save_checkpoint("generator_pruned", model, CARD)
    halves = load_card("generator_pruned")["bytes"]
    card = save_checkpoint("generator_pruned", model, CARD, bytes_a_weight=1)
    large = model.stem.weight
    assert large.numel() > LARGE_MATRIX > model.modulation.weight.numel()
    assert card["bytes"] == pytest.approx(halves - large.numel() + 2 * len(large), abs=400)

    loaded = load_model("generator_pruned")
    step = large.abs().amax(1, keepdim=True) / 127
    error = (loaded.stem.weight - large).abs()
    assert (error <= 0.5 * step + 1e-3 * large.abs()).all()
    assert loaded.stem.weight.dtype == torch.float32
    assert torch.equal(loaded.modulation.weight, model.modulation.weight.half().float())
    expected = as_stored(model, bytes_a_weight=1).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
    again = as_stored(loaded, bytes_a_weight=1).stem.weight  # writing it anew loses no more
    assert torch.allclose(again, loaded.stem.weight, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("count", [0, 3, "1"])
def test_other_numbers_of_bytes_are_refused(own_weights, count):
    with pytest.raises(ValueError, match="bytes_a_weight must be 1 or 2"):
        save_checkpoint("generator_pruned", FoldedGenerator(), CARD, bytes_a_weight=count)
    assert not list(own_weights.rglob("*.safetensors"))


def test_a_weight_with_two_names_is_stored_once_and_is_one_again(own_weights):
    config = TransformerConfig(width=16, layers=1, heads=2)
    model = GPT(config)
    card = save_checkpoint("gpt", model, CARD)
    assert card["tied"] == {"head.weight": "embedding.weight"}
    stored = load_file(own_weights / "weights" / "gpt.safetensors")
    assert "head.weight" not in stored
    loaded = load_model("gpt")
    assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())
