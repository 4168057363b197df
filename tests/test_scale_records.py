"""The figures of scaling out: Amdahl's law and its inverse, and rows that the registry takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastgen_course.runtimes import scale_figures, scale_records
from fastgen_course.runtimes.scale import ScaleReport
from fastgen_course.runtimes.scale_bench import SHARDS, Killed, Sizes, look_at
from fastgen_course.runtimes.scale_records import amdahl, effective_serial_share, main
from fastgen_course.runtimes.shards import Job, Shard, draw_shard, open_folder, plan, write_shard
from fastgen_course.runtimes.workers import Drawn
from fastgen_course.timing import ResultError, result

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
    held = {
        "driver_few": [300.0], "worker_few": [400.0, 390.0, 430.0],
        "driver_many": [299.0], "worker_many": [402.0, 380.0, 460.0],
    }  # fmt: skip
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


def noise(captions, generator):
    """A sampler without weights."""
    return torch.rand(len(captions), 3, 4, 4, generator=generator) * 2 - 1


def test_pictures_that_are_doubled_or_changed_are_found(tmp_path):
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "out"
    captions = ["a red boot", "a blue bag", "a green coat", "a pink dress"]
    prompts.write_text("\n".join(captions))
    job = Job("noise", None, "0" * 64, 8, batch=2, shard=4)
    open_folder(folder, job)
    shards = [*plan(job, iter(captions * 2))]
    for shard in shards:
        write_shard(folder, job, shard, draw_shard(noise, job, shard))
    assert look_at(folder, noise, prompts) == (0, 0, 0)
    first = draw_shard(noise, job, shards[0])
    write_shard(folder, job, shards[1], first)  # the first shard's pictures once more
    assert look_at(folder, noise, prompts) == (0, 4, 4)
    touched = first.copy()
    touched[1, 0, 0, 0] ^= 1
    write_shard(folder, job, shards[0], touched)
    assert look_at(folder, noise, prompts) == (0, 3, 5)
    write_shard(
        folder, job, Shard(1, 4, tuple(captions[:3])), draw_shard(noise, job, shards[1])[:3]
    )
    assert look_at(folder, noise, prompts)[0] == 1


def test_pictures_that_look_alike_of_themselves_are_not_doubled(tmp_path):
    def flat(captions, generator):
        return torch.zeros(len(captions), 3, 4, 4)

    prompts, folder = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a red boot")
    job = Job("flat", None, "0" * 64, 8, batch=2, shard=4)
    open_folder(folder, job)
    for shard in plan(job, iter(["a red boot"] * 8)):
        write_shard(folder, job, shard, draw_shard(flat, job, shard))
    assert look_at(folder, flat, prompts) == (0, 0, 0)


def drawn_shards():
    """Two workers, the second of which ends after its second shard; a third takes over."""
    return (
        Drawn(0, 8, 70, 100.0, 101.0), Drawn(1, 8, 90, 100.1, 101.2), Drawn(2, 8, 70, 101.0, 102.0),
        Drawn(3, 8, 90, 101.2, 102.2), Drawn(4, 8, 70, 102.0, 103.0), Drawn(5, 8, 80, 106.0, 107.0),
    )  # fmt: skip


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """All parts recorded, of made-up measurements."""
    report = ScaleReport(tmp_path, 48, 48, 0, 0, 2, 1, 0.0, 7000.0, None)
    ms = {"loop": 1000.0, "two_loops": 1100.0, "serial": 10.0, "one_worker": 1000.0}
    held = {
        "driver_few": [300.0], "worker_few": [400.0, 390.0, 430.0],
        "driver_many": [303.0], "worker_many": [402.0, 380.0, 460.0],
    }  # fmt: skip
    for name, value in {
        "rates": ({k: [v] for k, v in {**ms, "two_workers": 550.0}.items()}, 3000.0),
        "shards": {str(size): [100.0 + 1000 / size] for size in SHARDS},
        "memory": held,
        "kill": Killed(report, drawn_shards(), 102.2, 0, 0, 0),
    }.items():
        monkeypatch.setattr(scale_records, f"measure_{name}", lambda *_, value=value: value)
    monkeypatch.setattr(scale_records, "cores_taken", lambda: 0.0)
    monkeypatch.setattr(scale_records, "core_count", lambda: 2)
    monkeypatch.setattr(scale_records, "weights_hash", lambda model: "a" * 64)
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    with pytest.raises(ResultError):
        scale_figures.recorded_timeline()
    assert main([]) == 0


def test_a_part_that_is_recorded_is_measured_again_only_by_name(recorded, monkeypatch, capsys):
    def broken(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(scale_records, "measure_memory", broken)
    assert main([]) == 0
    assert "left as it is: rates, shards, memory, kill" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="measured again"):
        main(["memory"])
    monkeypatch.setattr(scale_records, "weights_hash", lambda model: "b" * 64)
    monkeypatch.setitem(scale_records.PARTS, "rates", lambda model, sizes: [])
    monkeypatch.setitem(scale_records.PARTS, "shards", lambda model, sizes: [])
    with pytest.raises(AssertionError, match="measured again"):  # other weights, other figures
        main([])


def test_the_figures_show_what_is_recorded(recorded):
    shards, killed_at = scale_figures.recorded_timeline()
    assert [(d.index, d.pid) for d in shards] == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 2)]
    assert killed_at == pytest.approx(2.2) and shards[5].ended == pytest.approx(7.0)
    figure = scale_figures.plot_timeline(shards, killed_at)
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([1, 1.1, 1, 1, 1, 1])
    assert bars[5].get_y() > bars[1].get_y() > bars[0].get_y()  # the third worker's own row
    words = scale_figures.describe_timeline(shards, killed_at)
    assert "6 shards" in words and "worker 3 1 shard from 6.0 to 7.0 s" in words
    assert words.endswith("killed at 2.2 s.")
    words = scale_figures.describe_scaling()
    assert "1.00%" in words and "measured 1.82 times" in words and "91 times at 1,024" in words
    law = scale_figures.plot_scaling().axes[0].lines[1].get_ydata()
    assert law[0] == pytest.approx(1) and law[-1] == pytest.approx(amdahl(0.01, 1024))
    assert f"64: {8192 / 0.115625:.0f}" in scale_figures.describe_shards()
    rates = scale_figures.plot_shards().axes[0].lines[0].get_ydata()
    assert np.all(np.diff(rates) > 0)
    table = scale_figures.memory_table().splitlines()
    assert table[1].split() == ["driver", "300", "(300)", "303", "(303)", "3"]
    assert table[2].split() == ["worker", "400", "(430)", "402", "(460)", "2"]
    plt.close("all")
