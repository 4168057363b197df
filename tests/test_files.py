"""Files: found, verified, written whole or not at all; a failure is one sentence with a mend."""

import errno
import gzip
import os
import shutil

import numpy as np
import pytest
import torch

from fastgen_course import checkpoints, files
from fastgen_course.checkpoints import build_model, load_checkpoint, load_model, save_checkpoint
from fastgen_course.datasets import digits, fashion
from fastgen_course.files import DataFileError, atomic_write, data_path, require

CARD = {
    "seed": 0,
    "command": "pytest",
    "data_sha256": "0" * 64,
    "minutes": 0.0,
    "machine": {},
    "metrics": {},
}


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    fashion.load_fashion.cache_clear()
    digits.load_digits_subset.cache_clear()
    yield tmp_path
    fashion.load_fashion.cache_clear()
    digits.load_digits_subset.cache_clear()


def _sentence(error):
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 350, text
    return text


def test_an_altered_digit_file_is_named_with_the_mend(own_data, monkeypatch):
    target = own_data / "digits"
    target.mkdir()
    monkeypatch.delenv("FASTGEN_DATA")
    source = data_path("digits", "mnist_5k.npz")
    monkeypatch.setenv("FASTGEN_DATA", str(own_data))
    content = bytearray(source.read_bytes())
    content[5000] ^= 1
    (target / "mnist_5k.npz").write_bytes(content)
    with pytest.raises(DataFileError) as caught:
        digits.load_digits_subset("train")
    text = _sentence(caught)
    assert "data/digits/mnist_5k.npz" in text and "git checkout -- data" in text


@pytest.mark.parametrize("damage", ["cut", "swap", "empty"])
def test_damaged_photographs_are_named(own_data, damage, monkeypatch):
    monkeypatch.delenv("FASTGEN_DATA")
    sources = [data_path("fashion_mnist", n) for n, _ in fashion._FILES.values() if "t10k" in n]
    monkeypatch.setenv("FASTGEN_DATA", str(own_data))
    (own_data / "fashion_mnist").mkdir()
    for source in sources:
        shutil.copy(source, own_data / "fashion_mnist")
    path = own_data / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    if damage == "swap":  # valid gzip, other labels
        raw = bytearray(gzip.decompress(content))
        raw[100] = (raw[100] + 1) % 10
        path.write_bytes(gzip.compress(bytes(raw)))
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(DataFileError) as caught:
        fashion.load_fashion("test")
    assert "t10k-labels-idx1-ubyte.gz is truncated or altered" in _sentence(caught)


def test_a_missing_file_that_cannot_be_fetched_says_where_it_was_sought(own_data, monkeypatch):
    import pooch

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(DataFileError, match=r"github\.com/zalandoresearch") as caught:
        fashion.load_fashion("train")
    _sentence(caught)
    with pytest.raises(DataFileError, match=r"digits/mnist_5k\.npz is missing"):
        require("digits/mnist_5k.npz")


def test_a_fetched_file_is_verified_by_its_published_hash(own_data, monkeypatch):
    import pooch

    def fetch(url, known_hash, fname, path, progressbar):
        assert url.startswith("https://") and known_hash == "md5:bb300cfdad3c16e7a12a480ee83cd310"
        path.mkdir(parents=True)
        (path / fname).write_bytes(b"fetched")

    monkeypatch.setattr(pooch, "retrieve", fetch)
    path = require("fashion_mnist/t10k-labels-idx1-ubyte.gz")
    assert path.read_bytes() == b"fetched" and path.parent.parent == own_data


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")]
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, number, said):
    path = tmp_path / "card.json"
    path.write_text("old")

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataFileError, match=said) as caught, atomic_write(path) as temporary:
        temporary.write_text("half")
    _sentence(caught)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write_half():
        with atomic_write(tmp_path / "a" / "w.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list((tmp_path / "a").iterdir()) == []


def test_weights_come_back_bit_for_bit_with_their_card(own_data):
    model = build_model("judge_plain", {"channels": [8, 8, 8], "in_channels": 1, "features": 16})
    model.half().float()  # what half precision can hold
    card = save_checkpoint("judge_plain", model, CARD)
    again = load_model("judge_plain")
    assert again.config == model.config and not again.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    x = torch.from_numpy(np.linspace(-1, 1, 784, dtype=np.float32)).view(1, 1, 28, 28)
    assert torch.equal(model.eval()(x)["garment"], again(x)["garment"])


def test_what_a_network_has_from_another_unchanged_is_stored_once(own_data):
    config = {"channels": [8, 8, 8], "in_channels": 1, "features": 16}
    first = build_model("judge_plain", config)
    alone = save_checkpoint("judge_plain", first, CARD)
    with torch.no_grad():
        first.heads["garment"].weight += 0.5
    card = save_checkpoint("judge_train", first, CARD, shares="judge_plain")
    assert card["shares"] == "judge_plain" and card["bytes"] < 0.5 * alone["bytes"]
    again = build_model("judge_train", config)
    load_checkpoint("judge_train", again)
    for key, value in first.half().float().state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    (own_data / "weights" / "judge_plain.safetensors").write_bytes(b"short")
    with pytest.raises(DataFileError, match="judge_plain"):
        load_checkpoint("judge_train", again)


def test_weights_are_stored_in_half_the_bytes_and_large_ones_stay_finite(own_data):
    model = build_model("judge_plain", {"channels": [8, 8, 8], "in_channels": 1, "features": 16})
    with torch.no_grad():
        model.heads["garment"].weight[0, 0] = 1e6
    card = save_checkpoint("judge_plain", model, CARD)
    assert card["bytes"] < 2.5 * card["parameters"] + 20_000
    again = load_model("judge_plain")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert again.heads["garment"].weight[0, 0] == torch.finfo(torch.float16).max
    for key, value in model.named_parameters():
        stored = again.get_parameter(key)
        assert torch.allclose(stored, value.clamp(max=65504), rtol=1e-3, atol=1e-6)


def test_damaged_missing_and_unknown_weights_are_named(own_data):
    with pytest.raises(DataFileError, match=r"weights/judge_plain\.json is missing"):
        load_model("judge_plain")
    model = build_model("judge_plain", {"channels": [8, 8, 8], "in_channels": 1, "features": 16})
    save_checkpoint("judge_plain", model, CARD)
    path = own_data / "weights" / "judge_plain.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataFileError, match="fastgen_course train judge_plain") as caught:
        load_model("judge_plain")
    _sentence(caught)
    with pytest.raises(ValueError, match="there is no model 'gpt9'; choose from"):
        load_model("gpt9")
    with pytest.raises(ValueError, match="lacks command"):
        save_checkpoint("judge_plain", model, {k: v for k, v in CARD.items() if k != "command"})


def test_every_registered_model_exists():
    for name in checkpoints.MODELS:
        assert sum(p.numel() for p in build_model(name).parameters()) > 1000


def test_the_shipped_weights_fit_the_budget():
    sizes = {p.name: p.stat().st_size for p in files.data_path("weights").glob("*.safetensors")}
    assert sizes and sum(sizes.values()) < 40e6, sizes
