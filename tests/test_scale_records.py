"""The figures of scaling out: Amdahl's law and its inverse, and rows that the registry takes."""

from __future__ import annotations

import pytest

from fastgen_course.runtimes import scale_records
from fastgen_course.runtimes.scale_records import Sizes, amdahl, effective_serial_share, main
from fastgen_course.timing import result

SIZES = Sizes(images=100, rounds=2)


@pytest.mark.parametrize("workers", [2, 3, 64])
def test_the_inverse_of_amdahls_law_gives_the_serial_share_back(workers):
    assert amdahl(0.0, workers) == pytest.approx(workers)
    assert amdahl(1.0, workers) == 1.0
    for share in (0.0, 0.01, 0.3, 1.0):
        assert effective_serial_share(amdahl(share, workers), workers) == pytest.approx(share)
    assert effective_serial_share(1.1 * workers, workers) < 0  # more than the law allows


def test_rates_are_paired_by_round_and_recorded(monkeypatch, tmp_path):
    """Two rounds; in the second the machine is half as fast, and no ratio notices."""
    ms = {
        "loop": [1000.0, 2000.0],
        "two_loops": [1000.0, 2000.0],
        "serial": [25.0, 50.0],
        "one_worker": [1250.0, 2500.0],
        "two_workers": [625.0, 1250.0],
    }
    monkeypatch.setattr(scale_records, "measure_rates", lambda model, sizes: (ms, 3000.0))
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    for row in scale_records.rates_rows("generator_base", SIZES):
        row.record()
    wanted = {
        "one_worker_share": 0.8, "serial_share": 0.02, "two_worker_speedup": 2.0,
        "two_loops_speedup": 2.0, "two_worker_predicted_speedup": 1 / 0.51,
        "effective_serial": 0.0, "start_seconds": 3.0, "loop_images_per_s": 75.0,
    }  # fmt: skip
    for name, value in wanted.items():
        assert float(result(f"distributed.{name}")) == pytest.approx(value)
    assert result("distributed.two_worker_speedup").spread == (2.0, 2.0)
    assert "scale_records rates" in result("distributed.serial_share").command


def test_a_worker_faster_than_the_loop_by_noise_is_recorded_as_equal(monkeypatch, tmp_path):
    ms = {key: [100.0] for key in ("loop", "two_loops", "serial", "two_workers")}
    monkeypatch.setattr(
        scale_records, "measure_rates", lambda *_: ({**ms, "one_worker": [99.0]}, 1.0)
    )
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    for row in scale_records.rates_rows("generator_base", SIZES):
        row.record()
    assert float(result("distributed.one_worker_share")) == 1.0


def test_memory_and_shard_sizes_are_recorded(monkeypatch, tmp_path):
    held = {"driver_few": 300.0, "worker_few": 400.0, "driver_many": 299.0, "worker_many": 402.0}
    monkeypatch.setattr(scale_records, "measure_memory", lambda *_: held)
    monkeypatch.setattr(scale_records, "measure_shards", lambda *_: {"64": [50.0, 100.0]})
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    for rows in (scale_records.memory_rows, scale_records.shards_rows):
        for row in rows("generator_base", SIZES):
            row.record()
    assert float(result("distributed.driver_growth_mb")) == 0.0
    assert float(result("distributed.worker_growth_mb")) == 2.0
    assert result("distributed.driver_few_mb").extra["images"] == SIZES.few
    assert result("distributed.shard_64_images_per_s").spread == (1000.0, 2000.0)


def test_an_unknown_part_and_a_busy_machine_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(scale_records, "cores_taken", lambda: 1.5)
    monkeypatch.setattr(scale_records, "core_count", lambda: 2)
    assert main(["speed"]) == 2
    assert "no part 'speed'" in capsys.readouterr().err
    assert main(["rates"]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err
    monkeypatch.setattr(scale_records, "core_count", lambda: 1)
    assert main(["rates"]) == 2
    assert "need two cores" in capsys.readouterr().err
