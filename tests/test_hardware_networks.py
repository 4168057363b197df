"""The calls that notebook 09 times: one result in every runtime, the work counted right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastgen_course.files import DataFileError
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.runtimes import hardware_networks as networks
from fastgen_course.runtimes import hardware_runtimes as runtimes
from fastgen_course.runtimes.hardware_networks import (
    CALLS,
    Network,
    calls,
    convert,
    difference,
    inputs,
    shipped_network,
    tiny_network,
    twin,
)
from fastgen_course.runtimes.hardware_peak import kind_of
from fastgen_course.runtimes.hardware_runtimes import Runtime, RuntimeRefusal, reason_of, refusal
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.runtimes.onnx_macs import onnx_macs
from fastgen_course.runtimes.openvino_model import OpenVinoModel
from fastgen_course.timing.cost import model_cost


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small generator, its file with a free batch, and its inputs."""
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(noise=4, caption=6, channels=(5, 4, 3))).eval()
    path = tmp_path_factory.mktemp("onnx") / "generator.onnx"
    given = torch.randn(2, 4), torch.randint(0, 9, (2, 5))
    export_onnx(model, given, path)
    return model, path, given


@pytest.mark.parametrize("name", CALLS)
def test_every_network_makes_its_calls_in_both_precisions(name):
    network = tiny_network(name)
    with torch.no_grad():
        exact = {key: call() for key, call in calls(network, 3).items()}
        rounded = calls(convert(tiny_network(name), "cpu", "bfloat16"), 3)
        assert tuple(exact) == tuple(rounded) == CALLS[name]
        for key, value in exact.items():
            assert len(value) == 3
            gap = difference(key, rounded[key](), value)
            # An untrained GPT tosses nearly even coins; the others round in the third digit.
            assert gap < (0.5 if name == "gpt" else 0.1)
            if name != "gpt":
                assert rounded[key]().dtype == torch.bfloat16 and gap > 0


@pytest.mark.parametrize("batch", [1, 3])
def test_a_cache_given_as_inputs_draws_the_samplers_tokens(batch):
    network = tiny_network("gpt")
    with torch.no_grad():
        ours = calls(network, batch, prepare=lambda module, given: module)["gpt"]
        theirs = calls(network, batch)["gpt"]()
        assert torch.equal(ours(), theirs)
        assert torch.equal(ours(), theirs)  # nothing is left over from the drawing before
    assert len(theirs.unique()) > 1


def test_a_prepared_flow_is_the_flow_and_four_steps_differ_from_one():
    network = tiny_network("flow")
    with torch.no_grad():
        plain = calls(network, 2)
        ours = calls(network, 2, prepare=lambda module, given: module)
        assert torch.equal(ours["flow"](), plain["flow"]())
        assert torch.equal(ours["flow4"](), plain["flow4"]())
        moved = plain["flow4"]() - inputs(network, 2)[0]
    assert not torch.allclose(moved, plain["flow"](), atol=1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_the_twin_starts_the_same_operators_and_has_next_to_nothing_to_do(name):
    network = tiny_network(name) if name == "gpt" else networks.fresh_network(name)

    class Run(torch.nn.Module):
        def __init__(self, network, call):
            super().__init__()
            self.model, self.forward = network.model, call

    costs = [
        {key: model_cost(Run(n, call), ()) for key, call in calls(n, batch).items()}
        for n, batch in ((network, 4), (twin(network), 1))
    ]
    for key in CALLS[name]:
        real, small = costs[0][key], costs[1][key]
        assert small.launches == real.launches > 0
        assert small.macs < real.macs / 10


@pytest.mark.parametrize("name", ["generator_base", "flow"])
def test_the_forwards_run_on_a_device_that_is_not_there(name):
    """Meta tensors compute nothing and refuse to meet a CPU tensor: a stray one would raise."""
    network = convert(tiny_network(name), "meta")
    with torch.no_grad():
        for call in calls(network, 2).values():
            assert call().device.type == "meta"


def test_the_graph_with_a_cache_runs_on_a_device_that_is_not_there():
    network = convert(tiny_network("gpt"), "meta")
    words, uniform = (x.to("meta") for x in inputs(network, 2))
    seen = []

    def prepare(module, given):
        def run(*given):
            out = module(*given)
            seen.append({x.device.type for x in out})
            return out

        return run

    draw = networks.cached_drawing(network.model, words, uniform, prepare)
    with torch.no_grad():
        assert draw().device.type == "meta"
    assert seen == [{"meta"}] * network.model.config.image_tokens


def test_a_network_without_weights_is_built_untrained(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    network = shipped_network("flow")
    assert network.weights == "untrained"
    assert all(parameter.any() for parameter in network.model.parameters())
    with pytest.raises(ValueError, match="no network 'dit'; choose from generator_base"):
        shipped_network("dit")


def test_the_exported_graphs_macs_are_the_models(exported):
    model, path, given = exported
    for batch in (1, 2):
        rows = tuple(x[:batch] for x in given)
        assert sum(onnx_macs(path, batch).values()) == model_cost(model, rows).macs
    kinds = onnx_macs(path, 1)
    assert set(kinds) == {"convolution", "transposed_convolution", "matrix_product"}
    # up14: 7 x 7 places, 5 channels in, 4 out, 4 x 4 taps; up28: 14 x 14, 4 in, 3 out.
    assert kinds["transposed_convolution"] == 49 * 5 * 4 * 16 + 196 * 4 * 3 * 16


def test_a_file_that_is_no_onnx_model_is_named(tmp_path):
    path = tmp_path / "picture.onnx"
    path.write_bytes(b"\xff\xd8 not a model")
    with pytest.raises(DataFileError, match=r"picture\.onnx"):
        onnx_macs(path)
    pytest.importorskip("openvino")
    with pytest.raises(DataFileError, match=r"picture\.onnx"):
        OpenVinoModel(path)
    with pytest.raises(DataFileError, match="missing"):
        OpenVinoModel(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("batch", [None, 2])
def test_openvino_computes_what_onnx_runtime_does(exported, batch):
    pytest.importorskip("openvino")
    _, path, given = exported
    ours = OpenVinoModel(path, batch=batch, profile=True)
    np.testing.assert_allclose(ours(*given), OnnxModel(path)(*given), atol=1e-5)
    kinds = {kind_of(node) for node, _ in ours.node_times()}
    assert {"convolution", "transposed_convolution", "other"} <= kinds


def test_runtimes_agree_and_an_export_is_used_for_every_batch(monkeypatch):
    exports = []
    export = runtimes.export_onnx
    monkeypatch.setattr(
        runtimes, "export_onnx", lambda *a, **k: (exports.append(1), export(*a, **k))[1]
    )
    network = tiny_network("generator_base")
    with torch.no_grad(), Runtime("onnxruntime").ready() as make:
        for batch in (1, 3):
            ours = make(network, batch)["generator_base"]()
            theirs = calls(network, batch)["generator_base"]()
            assert difference("generator_base", ours, theirs) < 1e-5
    assert len(exports) == 1


def test_two_networks_of_one_class_are_two_exports():
    """Their inputs have the same shapes; their weights have not."""
    config = GeneratorConfig(noise=4, caption=4, channels=(4, 4, 4))
    drawn = []
    with torch.no_grad(), Runtime("onnxruntime").ready() as make:
        for channels in ((4, 4, 4), (6, 4, 2)):
            model = Generator(replace(config, channels=channels)).eval()
            network = Network("generator_base", model, "w")
            ours = make(network, 2)["generator_base"]()
            theirs = calls(network, 2)["generator_base"]()
            assert difference("generator_base", ours, theirs) < 1e-5
            drawn.append(ours)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_what_cannot_be_done_is_said_in_one_sentence(monkeypatch):
    assert refusal("eager", "float32", "cpu") is None
    assert "bfloat16" in refusal("onnxruntime", "bfloat16", "cpu")
    monkeypatch.setattr(runtimes, "has_compiler", lambda: False)
    assert "C++ compiler" in refusal("compile", "float32", "cpu")
    monkeypatch.setattr(runtimes, "devices", lambda: ("cpu", "cuda"))
    assert refusal("openvino", "float32", "cuda").startswith("OpenVINO is installed for the CPU")
    assert "no mps device" in refusal("eager", "float32", "mps")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert "pip install openvino" in refusal("openvino", "float32", "cpu")
    for wrong in (("tvm", "float32", "cpu"), ("eager", "int4", "cpu"), ("eager", "float32", "tpu")):
        with pytest.raises(ValueError, match="choose from"):
            refusal(*wrong)
    with pytest.raises(RuntimeRefusal), Runtime("openvino").ready():
        pass


def test_onnx_runtime_really_has_no_bfloat16_convolution(tmp_path):
    """The sentence is a claim about a library: the day it is wrong, this fails."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.BFLOAT16
    values = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("x", [1, 1, 4, 4]), ("w", [1, 1, 3, 3]), ("y", [1, 1, 2, 2]))
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    opset = [helper.make_opsetid("", 22)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "b.onnx")
    with pytest.raises(DataFileError):
        OnnxModel(tmp_path / "b.onnx")


def test_reasons_name_no_path_of_this_machine():
    error = RuntimeError("cannot open /home/somebody/secret/lib.so.\nmore lines")
    assert reason_of(error) == "cannot open lib.so"
    assert reason_of(KeyError()) == "KeyError"


def test_differences_of_nan_are_infinite_and_tokens_are_counted():
    nan = torch.tensor([float("nan")])
    assert difference("flow", nan, torch.zeros(1)) == float("inf")
    assert difference("gpt", torch.tensor([[1, 2]]), torch.tensor([[1, 3]])) == 0.5
