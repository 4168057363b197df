"""The delivered form of a generator draws the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fastgen_course.compression.deploy import Painter, WordTable, lean, write_lean_graph
from fastgen_course.compression.folding import FoldedGenerator
from fastgen_course.compression.packed import calibrated_bytes
from fastgen_course.compression.quantized import calibration_batches, quantize_generator
from fastgen_course.datasets.captions import CaptionError
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.searched import Architecture, SearchedGenerator
from fastgen_course.show import to_uint8

TINY = GeneratorConfig(noise=6, caption=8, channels=(8, 6, 4))
CAPTION = "a small red sneaker on a white background, sketch style"


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    model = Generator(TINY).train()
    noise, words = calibration_batches(TINY, 32)[0]
    with torch.no_grad():
        model(noise, words)
    return model.eval().requires_grad_(False)


def test_a_table_of_words_is_the_encoder(generator):
    _, words = calibration_batches(TINY, 64)[0]
    encoder = generator.caption_encoder
    table = WordTable(encoder)
    torch.testing.assert_close(table(words), encoder(words), rtol=0, atol=1e-5)
    short = words.clone()
    short[:, 3:] = 0
    torch.testing.assert_close(table(short), encoder(short), rtol=0, atol=1e-5)


def test_lean_bytes_are_those_of_to_uint8(generator):
    noise, words = calibration_batches(TINY, 16)[0]
    expected = to_uint8(generator(noise, words)).astype(int)
    drawn = lean(generator)(noise, words).numpy().astype(int)
    assert np.abs(drawn - expected).max() <= 1
    assert (drawn != expected).mean() < 0.01


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("widths", [(8, 6, 4), (7, 6, 5, 4, 4, 2)])
def test_a_painter_draws_what_the_quantised_network_draws(tmp_path, runtime, widths):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(0)
    config = replace(TINY, channels=widths)
    folded = FoldedGenerator(config).eval().requires_grad_(False)
    for parameter in folded.parameters():  # fresh weights draw one grey whatever the noise
        parameter.mul_(2)
    network = quantize_generator(
        folded, batches=calibration_batches(config, 16), weight_bits=7, activation_bits=8
    )
    form = "blocks" if runtime == "onnxruntime" else "transposed"
    path = write_lean_graph(network, tmp_path / "lean.onnx", form)
    noise, words = calibration_batches(config, 4)[0]
    expected = to_uint8(network(noise, words)).astype(int)
    free = Painter(path, runtime, batch=None).paint(noise.numpy(), words.numpy())
    assert free.dtype == np.uint8
    assert free.shape == (4, 28, 28, 3)
    assert (np.abs(free.astype(int) - expected) > 1).mean() < 0.02
    one = Painter(path, runtime)
    first = one([CAPTION], torch.Generator().manual_seed(3))
    other = one([CAPTION], torch.Generator().manual_seed(4))
    again = one([CAPTION], torch.Generator().manual_seed(3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match="draws 1 at a time, got 2"):
        one([CAPTION, CAPTION])
    with pytest.raises(CaptionError):
        one(["a crimson zeppelin"])


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_searched_network_is_delivered_too(tmp_path, runtime, calibrated):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = SearchedGenerator(
        Architecture((16, 16, 8, 8, 8, 8), ("conv3", "conv3", "conv1"), (4, 2))
    )
    network = network.eval().requires_grad_(False)
    for parameter in network.parameters():  # fresh weights draw one grey whatever the noise
        parameter.mul_(2)
    path = tmp_path / "lean.onnx"
    write_lean_graph(network, path, calibrated=calibrated)
    noise, words = calibration_batches(network.config, 64)[0]
    expected = to_uint8(network(noise, words)).astype(int)
    drawn = Painter(path, runtime, batch=None).paint(noise.numpy(), words.numpy()).astype(int)
    off = np.abs(drawn - expected)
    assert expected.std() > 10
    assert off.mean() < (0.1 * expected.std() if calibrated else 0.01)
    if calibrated:  # what is counted is in the graph: a byte a weight, four a channel
        graph = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        kernels = [array for array in graph if array.dtype == np.int8 and array.ndim > 1]
        channels = (
            sum(array.size for array in graph if array.dtype == np.float32 and array.ndim == 1) // 2
        )  # a scale each for the weight and its bias
        weights = sum(array.size for array in kernels)
        rest = sum(p.numel() for p in network.parameters()) - weights
        counted = calibrated_bytes(network) - 4 * rest - weights
        assert counted % 4 == 0
        assert abs(counted // 4 - channels) < 0.1 * channels


def test_bad_settings_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="runtime must be onnxruntime or openvino"):
        Painter(tmp_path / "x.onnx", "tensorrt")
    with pytest.raises(ValueError, match="batch must be from 1 up"):
        Painter(tmp_path / "x.onnx", batch=0)
