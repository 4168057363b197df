"""Counting against closed forms, and the roofline's formula against hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgen_course.timing.cost import model_cost
from fastgen_course.timing.roofline import (
    GPU_CARDS,
    T_LAUNCH_S,
    Card,
    MeasurementError,
    Roofline,
    gemm_peak,
    limit_of,
    memory_bandwidth,
    predict_gpu_ms,
)

CASES = [
    # (layer, input shape, MACs by hand)
    (nn.Linear(24, 12), (7, 24), 7 * 24 * 12),
    (nn.Conv2d(5, 2, 3, padding=1), (7, 5, 8, 8), 7 * 2 * 8 * 8 * 5 * 3 * 3),
    (nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2), (3, 6, 8, 8), 3 * 4 * 4 * 4 * 3 * 9),
    (nn.Conv2d(6, 6, 5, padding=2, groups=6), (1, 6, 4, 4), 6 * 16 * 25),  # depthwise
    # A transposed convolution sends every input value through the whole kernel.
    (nn.ConvTranspose2d(3, 5, 4, 2, 1), (7, 3, 4, 4), 7 * 3 * 4 * 4 * 5 * 4 * 4),
]


@pytest.mark.parametrize(("layer", "shape", "macs"), CASES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_equal_the_closed_form(layer, shape, macs, device):
    cost = model_cost(layer.to_empty(device=device), torch.zeros(shape, device=device))
    assert cost.macs == macs
    assert cost.flops == 2 * macs
    assert cost.launches == 1


def test_attention_is_counted_where_the_cpu_fuses_it():
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return nn.functional.scaled_dot_product_attention(q, k, v)

    q, k = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8)
    assert model_cost(Attention(), (q, k, k)).macs == 2 * 3 * (5 * 7 * 8 + 5 * 7 * 8)


def test_launches_are_kernels_and_not_views():
    model = nn.Sequential(
        nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Unflatten(1, (3, 2, 2)), nn.Dropout(), nn.ConvTranspose2d(3, 5, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    model.train()
    cost = model_cost(model, torch.zeros(7, 4, dtype=torch.int64))
    assert cost.launches == 6  # embedding, linear, batch norm, ReLU, transposed conv, tanh
    assert model.training  # restored
    assert model[3].num_batches_tracked == 0  # counted in evaluation mode


def test_bytes_of_one_linear_layer_by_hand():
    cost = model_cost(nn.Linear(24, 12), torch.zeros(7, 24))
    assert cost.bytes_moved == 4 * (7 * 24 + 24 * 12 + 12 + 7 * 12)
    assert cost.parameter_bytes == 4 * (24 * 12 + 12)
    assert cost.intensity == pytest.approx(2 * 7 * 24 * 12 / cost.bytes_moved)


def test_an_embedding_reads_its_rows_and_not_the_table():
    cost = model_cost(nn.Embedding(1_000_000, 4), torch.zeros(3, dtype=torch.int64))
    assert cost.bytes_moved == 3 * 8 + 2 * (3 * 4 * 4)


def test_prediction_equals_hand_arithmetic():
    card = Card("toy", {"float32": 1e12}, 1e11, 1e9, "made up for this test")
    # 10 launches at 5 to 20 us, 2 GFLOP at 1 TFLOP/s = 2 ms, 1 MB at 100 GB/s = 0.01 ms
    low, high = predict_gpu_ms(10, 2e9, 1e6, card)
    assert low == pytest.approx(1000 * (10 * T_LAUNCH_S[0] + 2e-3))
    assert high == pytest.approx(1000 * (10 * T_LAUNCH_S[1] + 2e-3))
    # memory-bound: 1 GB at 100 GB/s = 10 ms
    assert predict_gpu_ms(0, 2e9, 1e9, card) == pytest.approx((10, 10))
    t4 = GPU_CARDS["T4"]
    assert predict_gpu_ms(1, 8.1e9, 0, "T4", t_launch=(0, 0))[0] == pytest.approx(1.0)
    assert predict_gpu_ms(1, 0, 320e6, t4, t_launch=(0, 0))[1] == pytest.approx(1.0)
    half = predict_gpu_ms(0, 65e9, 0, "T4", dtype="float16", t_launch=(0, 0))
    assert half[0] == pytest.approx(1.0)


def test_what_limits_a_model():
    tiny = model_cost(nn.Linear(4, 4), torch.zeros(1, 4))
    assert limit_of(tiny, "T4") == "launches"
    big = model_cost(nn.Linear(4096, 4096, device="meta"), torch.zeros(8192, 4096, device="meta"))
    assert limit_of(big, "T4") == "arithmetic"
    wide = model_cost(nn.Linear(8192, 8192, device="meta"), torch.zeros(1, 8192, device="meta"))
    assert limit_of(wide, "T4") == "memory"


def test_cards_are_named_sourced_and_in_order():
    assert {"T4", "A100", "H100", "RTX 4090"} <= set(GPU_CARDS)
    for card in GPU_CARDS.values():
        assert card.source
        assert 1e12 < card.peak_flops["float32"] < card.peak_flops["float16"]
        assert 1e11 < card.bandwidth < 1e13
    with pytest.raises(MeasurementError, match="choose one of T4"):
        predict_gpu_ms(1, 1, 1, "T800")
    with pytest.raises(MeasurementError, match="No published int3 peak"):
        predict_gpu_ms(1, 1, 1, "T4", dtype="int3")
    with pytest.raises(MeasurementError, match="must not be negative"):
        predict_gpu_ms(-1, 1, 1, "T4")


def test_roofline_formula():
    roof = Roofline(peak_flops=1e11, bandwidth=1e10, threads=1, dtype="float32")
    assert roof.ridge == 10
    assert roof.bound_ms(1e9, 1) == pytest.approx(10)
    assert roof.bound_ms(1, 1e9) == pytest.approx(100)
    assert roof.share(5e8, 10.0) == pytest.approx(0.5)


def test_measured_peaks_are_numbers_of_a_real_machine():
    # Orders of magnitude only: any machine that runs this course lies inside by far.
    assert 1e8 < gemm_peak(sizes=(64, 128), seconds=0.1) < 1e14
    assert 1e7 < memory_bandwidth(megabytes=8, seconds=0.1) < 1e14
