"""An export computes what the model computes, at any batch, quietly, or says why it cannot."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fastgen_course.files import DataFileError
from fastgen_course.runtimes.onnx_export import ExportError, OnnxModel, export_onnx


class TinyNet(nn.Module):
    """Words and noise in, picture out: the shapes that a caption-to-image model has."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.first = nn.Linear(4 + 3, 2 * 7 * 7)
        self.norm = nn.BatchNorm2d(2)
        self.grow = nn.ConvTranspose2d(2, 3, 4, 2, 1)

    def forward(self, noise: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        hidden = self.first(torch.cat([noise, self.words(words).mean(1)], dim=1))
        return torch.tanh(self.grow(torch.relu(self.norm(hidden.unflatten(1, (2, 7, 7))))))


@pytest.fixture(scope="module")
def tiny() -> TinyNet:
    torch.manual_seed(0)
    model = TinyNet().train()
    model(torch.randn(8, 3), torch.randint(10, (8, 5)))  # running statistics that matter
    return model


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    example = (torch.randn(1, 3), torch.randint(10, (1, 5)))
    return export_onnx(tiny, example, tmp_path_factory.mktemp("onnx") / "tiny.onnx")


def test_the_export_is_equal_at_every_batch(tiny, exported):
    assert exported.max_difference <= 1e-4
    assert exported.file_bytes == exported.path.stat().st_size
    assert tiny.training  # the mode is restored
    run = OnnxModel(exported.path)
    assert run.inputs == ("noise", "words")
    tiny.eval()
    for batch in (1, 2, 5):
        noise, words = torch.randn(batch, 3), torch.randint(10, (batch, 5))
        with torch.no_grad():
            expected = tiny(noise, words).numpy()
        np.testing.assert_allclose(run(noise, words), expected, atol=1e-4)
        np.testing.assert_allclose(run(noise.numpy(), words.numpy()), expected, atol=1e-4)
    tiny.train()


def test_idle_threads_sleep(exported):
    options = OnnxModel(exported.path, threads=2).session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


def test_a_fixed_batch_is_kept_and_nothing_is_printed(tmp_path, capfd):
    path = tmp_path / "fixed.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5), path, dynamic_batch=False)
    assert capfd.readouterr() == ("", "")
    run = OnnxModel(path)
    assert run(np.zeros((2, 1, 5, 5), np.float32)).shape == (2, 2, 3, 3)
    with pytest.raises(ValueError, match=r"must be \(2, 1, 5, 5\), got \(3, 1, 5, 5\)"):
        run(np.zeros((3, 1, 5, 5), np.float32))


def test_wrong_inputs_are_named(exported):
    run = OnnxModel(exported.path)
    noise, words = np.zeros((1, 3), np.float32), np.zeros((1, 5), np.int64)
    with pytest.raises(ValueError, match=r"takes 2 inputs \(noise, words\), got 1"):
        run(noise)
    with pytest.raises(ValueError, match="'noise' must be float32, got float64"):
        run(noise.astype(np.float64), words)
    with pytest.raises(ValueError, match="'words' must be"):
        run(noise, words[0])
    with pytest.raises(ValueError, match="'noise' is empty"):
        run(noise[:0], words[:0])


def test_a_missing_or_damaged_file_is_named(exported, tmp_path):
    with pytest.raises(DataFileError, match=r"nothing\.onnx is missing"):
        OnnxModel(tmp_path / "nothing.onnx")
    content = exported.path.read_bytes()
    for name, data in {
        "text.onnx": b"not a model",
        "empty.onnx": b"",
        "short.onnx": content[: len(content) // 2],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataFileError, match=f"{name} is not a readable ONNX model"):
            OnnxModel(tmp_path / name)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        OnnxModel(exported.path, threads=0)


def test_what_cannot_be_exported_leaves_nothing_behind(tmp_path):
    class Wild(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(()).to(x) * 1000  # not a function of its input

    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum().item() > 0 else -x

    with pytest.raises(ExportError, match="Wild differs from PyTorch by"):
        export_onnx(Wild(), torch.zeros(2, 3), tmp_path / "wild.onnx")
    with pytest.raises(ExportError, match="could not export Branch"):
        export_onnx(Branch(), torch.zeros(2, 3), tmp_path / "branch.onnx")
    for example, sentence in [
        ((), "needs example inputs"),
        (torch.zeros(0, 3), "batch of zero"),
        ((torch.zeros(2, 3), torch.zeros(3, 3)), r"different batches \(2, 3\)"),
    ]:
        with pytest.raises(ExportError, match=sentence):
            export_onnx(nn.Linear(3, 3), example, tmp_path / "never.onnx")
    assert not list(tmp_path.iterdir())
