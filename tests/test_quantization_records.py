"""Notebook 12's records: rows that go on after a kill, the headline's rule, figures, the slider."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from fastgen_course.compression import int8_runtimes
from fastgen_course.compression import quantization_figures as figures
from fastgen_course.compression import quantization_quality as scores
from fastgen_course.compression import quantization_records as records
from fastgen_course.compression.codebook import codebook_generator
from fastgen_course.compression.dynamic_gpt import (
    GPT_ROWS,
    dynamic_copy,
    gpt_calls,
    operators_started,
)
from fastgen_course.compression.int8_runtimes import (
    EXACT,
    FLOAT,
    ROWS,
    WHY,
    Networks,
    Refused,
    Workshop,
    time_rows,
    timed_calls,
)
from fastgen_course.compression.quantization_quality import Quality
from fastgen_course.compression.quantized import calibration_batches, quantize_generator
from fastgen_course.datasets.captions import CaptionError
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.runtimes.hardware_networks import tiny_network
from fastgen_course.timing import ResultError, all_results, result
from fastgen_course.timing.rows import Comparison, Timing
from fastgen_course.widgets.bit_slider import (
    BITS,
    BitSlider,
    QuantizedSamples,
    bit_slider,
    bits_figure,
)

TINY = GeneratorConfig(noise=6, caption=8, channels=(8, 6, 4))
KEEP = records.Options()


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator(TINY).train()
        noise, words = calibration_batches(TINY, 64)[0]
        for _ in range(30):  # running means and variances that fit the weights
            model(noise, words)
    return model.eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def timing(name, batch, ms):
    return Timing(ms, ms * 1.1, 3, batch, "cpu", 1, ROWS[name].dtype, name, 1, (ms, ms, ms))


def keep_quality(name, *fids, weights="w"):
    n = len(fids)
    found = Quality(tuple(fids), (0.9,) * n, (0.8,) * n)
    scores.record_quality(
        name, found, command="python -m x", weights=weights, captions=5, seeds=list(range(n))
    )


# --- quality ------------------------------------------------------------------------------------


def test_every_row_draws_from_the_same_noise(generator):
    """Two seeds, two figures each; the same network scores the same, whoever draws it."""
    seen = []

    def draw(noise, words):
        seen.append(noise)
        return generator(noise, words)

    once = scores.quality(draw, TINY.noise, seeds=(0, 1), n=60, chunk=20)
    again = scores.quality(generator, TINY.noise, seeds=(0, 1), n=60, chunk=60)
    assert len(once.fid) == len(once.exact_accuracy) == 2 and once.fid[0] != once.fid[1]
    assert once.fid == pytest.approx(again.fid, rel=1e-3)
    fresh = torch.randn(60, TINY.noise, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(seen[:3]), fresh)
    memory = torch.empty(20, 3, 28, 28)
    reused = scores.quality(
        lambda noise, words: memory.copy_(generator(noise, words)), TINY.noise, seeds=(0,), n=60,
        chunk=20,
    )  # fmt: skip
    assert reused.fid[0] == pytest.approx(once.fid[0], rel=1e-3)


def test_a_row_is_scored_once_and_again_for_other_weights(folder, monkeypatch, generator, capsys):
    asked = []

    def quality(draw, noise, *, seeds, n, chunk):
        asked.append(n)
        return Quality((3.0,) * len(seeds), (0.5,) * len(seeds), (0.4,) * len(seeds))

    monkeypatch.setattr(records.scores, "quality", quality)
    monkeypatch.setattr(records, "load_model", lambda name: generator)
    for weights in ("a", "a", "b"):
        records._score(KEEP, "ptq", "w4_channel", lambda: generator, weights, (0, 1))
    assert asked == [10_000, 10_000]
    assert "is recorded already" in capsys.readouterr().out
    row = result("quantization.fid.w4_channel")
    assert row.value == 3.0 and row.extra["by_seed"] == [3.0, 3.0]
    assert row.command.endswith("quantization_records ptq")
    records._score(records.Options(again=True), "ptq", "w4_channel", lambda: generator, "b", (0, 1))
    assert len(asked) == 3
    before = len(all_results("quantization"))
    records._score(records.Options(tiny=True), "ptq", "w2", lambda: generator, "b", (0,))
    assert asked[-1] == 60 and len(all_results("quantization")) == before  # a trial records nothing


def test_the_codebook_rows_count_bytes(folder, monkeypatch, generator):
    monkeypatch.setattr(records, "load_model", lambda name: generator)
    monkeypatch.setattr(records, "_key", lambda name="": "w")
    monkeypatch.setattr(records, "CENTRES", (8, 4))
    monkeypatch.setattr(
        records.scores, "quality", lambda *a, seeds, **k: Quality((2.0,), (0.5,), (0.5,))
    )
    records.record_codebook(KEEP)
    for how in ("plain", "huffman"):
        sizes = {k: result(f"quantization.{how}_bytes.k{k}").value for k in (8, 4)}
        assert 0 < sizes[4] < sizes[8]
    assert result("quantization.fid.k4").value == 2.0


def test_a_ratio_is_taken_seed_by_seed_against_the_better_base(folder):
    keep_quality("base", 10.0, 20.0)
    keep_quality("control", 8.0, 16.0)
    keep_quality("generator_int8", 8.8, 16.0)
    value, spread, base = scores.fid_ratio("generator_int8", ("base", "control"))
    assert base == "control"
    assert value == pytest.approx(1.05) and spread == pytest.approx((1.0, 1.1))
    assert scores.fid_ratio("generator_int8", ("base",))[0] == pytest.approx(0.84)
    assert scores.is_recorded("base", weights="w") and not scores.is_recorded("base", weights="v")
    assert not scores.is_recorded("nobody")


# --- speed --------------------------------------------------------------------------------------


def test_rows_of_every_runtime_draw_pictures_and_int8_ones_the_network(generator, tmp_path):
    int8 = quantize_generator(generator, weight_bits=7, activation_bits=8)
    networks = Networks(generator, int8, "tiny")
    names = ["eager", "onnxruntime", "onnxruntime_folded", *EXACT, "int8_rounded", "int8_library"]
    names += ["int8_library_unsigned", "openvino"]
    calls, refused, moved = timed_calls(networks, 2, tmp_path, names)
    assert not refused and list(calls) == names
    assert set(moved) == set(EXACT)
    assert max(moved.values()) < 0.01
    with torch.no_grad():
        exact = calls["eager"]()
        for name, call in calls.items():
            drawn = call()
            assert drawn.shape == exact.shape
            gap = (drawn - exact).abs().mean()
            assert gap < (1e-4 if name in FLOAT else 0.1), name
    rows = time_rows({name: calls[name] for name in names[:3]}, 2, 0.05)
    assert list(rows) == names[:3] and rows["eager"].dtype == "float32"


def test_a_row_that_fails_leaves_one_sentence(generator, tmp_path, monkeypatch):
    networks = Networks(generator, generator, "tiny")

    def broken(*_):
        raise RuntimeError("no such kernel\nand pages of text")

    monkeypatch.setattr(Workshop, "_ort", broken)
    calls, refused, _ = timed_calls(
        Networks(generator, quantize_generator(generator, weight_bits=7), "t"), 1, tmp_path,
        ["eager", "onnxruntime"],
    )  # fmt: skip
    assert list(calls) == ["eager"]
    assert refused["onnxruntime"] == "ONNX Runtime cannot run it (no such kernel)."
    monkeypatch.setattr("fastgen_course.compression.int8_runtimes.has_compiler", lambda: False)
    with pytest.raises(Refused, match=r"needs a C\+\+ compiler"):
        Workshop(networks, tmp_path, 1).draw("compile")


@pytest.fixture
def vnni(monkeypatch):
    """Sets whether this processor has VNNI, for whoever asks."""

    def have(yes: bool) -> None:
        monkeypatch.setattr(int8_runtimes, "adds_four_byte_products", lambda: yes)

    have(True)
    return have


def test_the_headline_is_the_fastest_row_that_draws_the_shipped_network(folder, vnni, capsys):
    ms = {"eager": 4.0, "onnxruntime": 2.0, "int8_onnxruntime": 1.0, "int8_openvino": 0.5}
    ms["int8_library"] = 0.4
    rows = Comparison({name: timing(name, 1, value) for name, value in ms.items()})
    moved = {"int8_onnxruntime": 0.0005, "int8_openvino": 0.2}
    records.keep_timings(KEEP, rows, moved, 1, "w")
    row = result("int8.speedup_batch1")
    # OpenVINO drew other pictures and the library another network: neither may be the headline.
    assert row.value == pytest.approx(2.0) and row.runtime == "int8_onnxruntime over onnxruntime"
    assert row.extra["weights"] == "w" and row.batch == 1 and row.threads == 1
    assert result("quantization.four_products.int8_openvino.batch1_speedup").value == pytest.approx(
        4.0
    )
    assert records._timed(1, "w") and not records._timed(1, "v") and not records._timed(64, "w")
    lost = Comparison({name: timing(name, 64, value) for name, value in ms.items()})
    records.keep_timings(KEEP, lost, {"int8_openvino": 0.2}, 64, "w")
    assert "no headline is recorded" in capsys.readouterr().out
    with pytest.raises(ResultError):
        result("int8.speedup_batch64")


def test_a_headline_is_of_a_processor_with_vnni_once_one_was_measured(folder, vnni):
    def keep(ms: float) -> None:
        values = {"onnxruntime": 2.0, "int8_onnxruntime": ms}
        rows = Comparison({name: timing(name, 1, value) for name, value in values.items()})
        records.keep_timings(KEEP, rows, {"int8_onnxruntime": 0.0}, 1, "w")

    vnni(False)
    keep(1.6)
    assert result("int8.speedup_batch1").value == pytest.approx(1.25)  # better than none
    assert records._timed(1, "w")
    vnni(True)
    assert not records._timed(1, "w")
    keep(1.0)
    assert result("int8.speedup_batch1").value == pytest.approx(2.0)
    vnni(False)
    keep(1.25)
    headline = result("int8.speedup_batch1")
    assert headline.value == pytest.approx(2.0) and headline.extra["kind"] == "four_products"
    assert result("int8.two_products.speedup_batch1").value == pytest.approx(1.6)
    # Both are in the table and the figure, each beside its own best float32 row.
    assert figures.recorded_kinds(1) == ["four_products", "two_products"]
    table = figures.speed_table(1)
    assert "ms, with VNNI" in table and "ms, without VNNI" in table
    line = next(text for text in table.splitlines() if "ours: blocks" in text)
    assert "| 1 | 2.00x" in line and "| 1.25 | 1.60x" in line
    assert [row.ms for row in figures.speed_rows(1, "two_products")] == [1.25, 2.0]
    assert "without VNNI: best float32" in figures.describe_speed((1,))


def test_the_table_keeps_rows_that_lost_and_says_why(folder, vnni):
    keep_quality("base", 13.0)
    keep_quality("generator_int8", 13.2)
    keep_quality("int8_library", 13.9)
    ms = {"onnxruntime": 2.0, "int8_onnxruntime": 1.0, "int8_rounded": 8.0, "int8_library": 1.5}
    rows = Comparison({name: timing(name, 1, value) for name, value in ms.items()})
    records.keep_timings(KEEP, rows, {"int8_onnxruntime": 0.0}, 1, "w")
    records._refuse(KEEP, "four_products.int8_torchao.batch1", "It has no compiler.", "speed")
    found = figures.speed_rows(1)
    assert [row.name for row in found] == ["int8_onnxruntime", "int8_library", "onnxruntime",
                                           "int8_rounded"]  # fmt: skip
    assert [row.fid for row in found] == [13.2, 13.9, 13.0, 13.2]
    assert [row.why for row in found] == [None, None, None, WHY["int8_rounded"]]
    table = figures.speed_table(1)
    assert "0.25x" in table and WHY["int8_rounded"] in table and "It has no compiler." in table
    assert len(figures.plot_speed((1,)).axes[0].patches) == 4
    assert "fastest int8 ONNX Runtime, ours" in figures.describe_speed((1,))
    with pytest.raises(ResultError, match="quantization_records speed"):
        figures.speed_rows(64)


def test_unknown_parts_and_a_busy_machine_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(records, "cores_taken", lambda: 1.5)
    assert records.main(["size"]) == 2
    assert "no part 'size'; choose from ptq, codebook, qat" in capsys.readouterr().err
    assert records.main(["speed"]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err


# --- the language model -------------------------------------------------------------------------


def test_the_language_model_draws_in_every_row():
    network = tiny_network("gpt")
    with gpt_calls(2, network) as (found, refused):
        assert set(found) | set(refused) == set(GPT_ROWS)
        assert {"eager", "onnxruntime", "onnxruntime_int8"} <= set(found)
        assert torch.equal(found["eager"](), found["onnxruntime"]())
        assert found["onnxruntime_int8"]().shape == found["eager"]().shape
    copy = dynamic_copy(network.model)
    assert copy.embedding.weight.dtype == torch.float32  # the table is still a table
    started = operators_started(network.model)
    assert started["torchao"] > 5 * started["eager"] > 0


# --- figures and the slider ---------------------------------------------------------------------


def test_the_clipping_curve_has_its_minimum_inside():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    x[0] = 12.0
    figure, best = figures.plot_clipping(x, bits=4)
    assert 1.5 < best < 4
    measured, rounding, clipping = figures.clipping_curve(x, 4, torch.tensor([2.0, 3.0]))
    assert torch.allclose(measured, rounding + clipping, rtol=0.05)
    assert len(figure.axes[0].lines) == 4


def test_the_slider_redraws_the_same_pictures_with_fewer_bits(generator):
    samples = QuantizedSamples(generator, captions=("a red bag", "a blue dress"), copies=2)
    box = bit_slider(samples)
    assert isinstance(box, BitSlider)
    seen = {box.picture.value}
    for control, value in ((box.weights, 2), (box.activations, 4), (box.per_channel, False)):
        control.value = value
        seen.add(box.picture.value)
    assert len(seen) == 4
    assert "MB of weights" in box.status.value and "grey levels" in box.status.value
    box.weights.value = box.activations.value = 0
    assert " 0.0 of 255" in box.status.value
    far = [samples.difference(samples.draw(b)[0]) for b in (8, 4, 2)]
    assert far == sorted(far) and samples.draw(4)[1] < samples.draw(8)[1]
    assert samples.draw(4)[0] is samples.draw(4)[0]  # each setting is drawn once
    assert BITS[0] is None


def test_the_static_figure_has_a_row_for_each_number_of_bits(generator):
    samples = QuantizedSamples(generator, captions=("a red bag",), copies=3)
    figure = bits_figure(samples, (None, 4))
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == ["float32", "", "", "4 bits", "", ""]
    with pytest.raises(ValueError, match="no numbers of bits"):
        bits_figure(samples, ())
    with pytest.raises(ValueError, match="at least one caption"):
        QuantizedSamples(generator, captions=())
    with pytest.raises(CaptionError):
        QuantizedSamples(generator, captions=("a red car",))


def test_every_runtime_row_has_a_name_and_losers_a_reason():
    assert set(WHY) <= set(ROWS) and set(EXACT) <= set(ROWS)
    for name, row in ROWS.items():
        assert hasattr(Workshop, f"_{name}") and row.dtype in ("float32", "int8")
    assert all(name in WHY for name in ROWS if name not in (*FLOAT, *EXACT))
    coded, _ = codebook_generator(quantize_generator(Generator(TINY).eval()).folded(), 4)
    assert coded.config.noise == TINY.noise
