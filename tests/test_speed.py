"""The speed command times what it says, on the same inputs, with the export proven equal."""

import pytest

from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.runtimes import speed
from fastgen_course.timing import result


@pytest.fixture
def tiny(monkeypatch):
    model = Generator(GeneratorConfig(noise=8, caption=16, channels=(8, 8, 8))).eval()
    monkeypatch.setattr(speed, "load_model", lambda name: model)
    return model


def test_both_runtimes_are_recorded_with_their_batch_and_threads(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    monkeypatch.setattr(speed, "BATCHES", (3,))
    speed.main(["tiny"])
    for batch in (3,):
        eager, ort = (result(f"tiny.batch{batch}{k}_ms") for k in ("", "_onnx"))
        assert eager.runtime == "eager" and ort.runtime == "onnxruntime"
        assert eager.batch == ort.batch == batch
        ratio = result(f"tiny.batch{batch}_onnx_speedup")
        assert ratio.value == pytest.approx(eager.value / ort.value, rel=0.5)
