"""The shared widget, on a tiny model, without a display and without a GPU."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from fastgen_course.timing.cost import model_cost
from fastgen_course.timing.roofline import GPU_CARDS, predict_gpu_ms
from fastgen_course.widgets import gpu_vs_cpu as widget


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).train()


def inputs(batch: int) -> tuple[torch.Tensor]:
    return (torch.zeros(batch, 1, 8, 8),)


@pytest.fixture(scope="module")
def times(model):
    return widget.device_times(model, inputs, batches=(1, 4), seconds=0.1)


def test_measured_and_predicted_rows(model, times):
    assert set(times.cpu) == {1, 4}
    assert times.cpu[4].batch == 4
    assert all(row.device == "cpu" and row.median_ms > 0 for row in times.cpu.values())
    assert model.training
    cost = model_cost(model, inputs(4))
    assert times.cost[4] == cost
    assert cost.macs == 4 * 4 * 6 * 6 * 9
    assert times.predicted("T4", 4) == predict_gpu_ms(3, 2 * cost.macs, cost.bytes_moved, "T4")


def test_the_figure_marks_the_prediction(times):
    fig = widget.figure(times, "H100")
    bars = fig.axes[0].patches
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert "H100, predicted, not measured" in labels
    hatched = [bar for bar in bars if bar.get_hatch()]
    low, high = times.predicted("H100", 1)
    assert hatched[0].get_y() == pytest.approx(low)
    assert hatched[0].get_height() == pytest.approx(high - low)
    solid = [bar for bar in bars if not bar.get_hatch()]
    assert solid[0].get_height() == pytest.approx(times.cpu[1].median_ms)


def test_the_call_shows_once_with_words_and_reads_itself(model, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: shown.append(alt))
    found = widget.gpu_vs_cpu(model, torch.zeros(2, 1, 8, 8), batches=(1, 3), seconds=0.1)
    assert len(shown) == 1
    assert "predicted and not measured" in shown[0]
    text = capsys.readouterr().out
    assert "launch-bound" in text
    assert "predicted, not measured" in text
    assert 3 <= text.count(". ") + text.count(".\n") <= 5
    assert set(found.cpu) == {1, 3}
    assert found.cpu[3].batch == 3


def test_the_controls_follow_the_reader(times):
    box = widget.controls(times, "T4")
    (menu, slider), picture, words = box.children[0].children, box.children[1], box.children[2]
    assert set(menu.options) == set(GPU_CARDS)
    before = picture.value
    menu.value = "A100"
    assert picture.value != before
    assert re.search(r'<img alt="[^"]*A100, predicted', picture.value)
    assert "A100 is predicted" in words.value
    before = words.value
    slider.value = 4
    assert words.value != before
    assert "at batch 4" in words.value


def test_with_a_gpu_both_are_shown(model, monkeypatch):
    # The meta device stands in for a GPU: a second device with its own copy of the model.
    monkeypatch.setattr(widget, "_accelerator", lambda: "meta")
    monkeypatch.setattr(widget, "_accelerator_name", lambda device: "Toy GPU")
    both = widget.device_times(model, inputs, batches=(1, 2), seconds=0.1)
    assert both.gpu[2].device == "meta"
    assert next(model.parameters()).device.type == "cpu"
    labels = [text.get_text() for text in widget.figure(both, "T4").legends[0].get_texts()]
    assert labels[1] == "Toy GPU, measured"
    assert "predicted" in labels[2]
    assert "Toy GPU, measured here" in widget.reading(both, "T4")
    assert "Toy GPU, measured" in widget.describe(both, "T4")


def test_verdicts_and_digits():
    assert widget._verdict(10, 1, 2) == "the card would be 5 to 10 times faster"
    assert widget._verdict(1, 2, 4) == "this CPU would be 2 to 4 times faster"
    assert "cannot tell" in widget._verdict(3, 2, 4)
    assert [widget._digits(v) for v in (1234, 10, 0.031415, 0.0000123)] == [
        "1200",
        "10",
        "0.031",
        "0.000012",
    ]


def test_refusals(model):
    with pytest.raises(ValueError, match="Unknown GPU 'T800'"):
        widget.gpu_vs_cpu(model, inputs, card="T800")
    for batches in ((), (0, 1)):
        with pytest.raises(ValueError, match="batches of at least 1"):
            widget.gpu_vs_cpu(model, inputs, batches=batches)
