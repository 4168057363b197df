"""What notebook 10 shows: figures in step with their words, and the architecture builder."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from fastgen_course.models.searched import Architecture, ArchitectureError
from fastgen_course.search import nas_figures as figures
from fastgen_course.search.latency import LatencyTable, space_layers
from fastgen_course.search.noting import AREA, BASE, Options, note
from fastgen_course.search.space import SPACE
from fastgen_course.timing import ResultError, record
from fastgen_course.widgets.architecture_builder import (
    ArchitectureBuilder,
    architecture_builder,
    layers_figure,
    measured_ms,
    some_layers_figure,
)

KEEP = Options()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A data folder of its own, so that nothing recorded is read or written."""
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    yield tmp_path
    plt.close("all")


@pytest.fixture
def table() -> LatencyTable:
    entries = {key: 0.01 + layer.macs / 1e8 for key, layer in space_layers().items()}
    return LatencyTable(entries, [(48, 0.01), (400, 0.05)], 0.05, -0.002)


def test_halving_is_drawn_as_recorded():
    with pytest.raises(ResultError):
        figures.plot_halving()
    for updates, distances in ((20, {"relu he": 1.2, "silu he": 1.0}), (40, {"silu he": 0.7})):
        note(KEEP, f"halving_distance.updates_{updates}", min(distances.values()), "distance",
             "halving", distances=distances)  # fmt: skip
    axis = figures.plot_halving().axes[0]
    assert len(axis.lines) == 2 and axis.lines[1].get_xdata().tolist() == [20, 40]
    assert "after 40 silu he leads with 0.700" in figures.describe_halving()


def test_latency_and_volumes_are_drawn_as_recorded(table):
    table.extra = {"measured_ms": [0.2, 0.3, 0.4], "predicted_ms": [0.21, 0.3, 0.36]}
    table.save()
    note(KEEP, "latency_within_10_percent", 1.0, "share", "latency", networks=3,
         allowed=0.1)  # fmt: skip
    note(KEEP, "latency_error", 0.05, "share of the milliseconds", "latency")
    points = figures.plot_latency().axes[0].collections[-1].get_offsets()
    assert len(points) == 3 and "3 unseen networks: 100.0%" in figures.describe_latency()
    assert "band of 10%" in figures.describe_latency()
    with pytest.raises(ResultError, match="nas_records search"):
        figures.volumes()
    for name, values in {"random": [0.5, 0.6], "evolution": [0.7, 0.8]}.items():
        note(KEEP, f"hypervolume.{name}", 0.5, "of the rectangle", "search", by_seed=values)
    note(KEEP, "evolution_p_value", 0.001, "probability", "search")
    assert len(figures.plot_volumes().axes[0].collections) == 4
    assert figures.p_value_lines() == ["evolution above random search    p = 0.001"]
    assert "evolution 0.7500" in figures.describe_volumes()
    note(KEEP, "exact_hypervolume", 0.83, "of the rectangle", "exact")
    assert [0.83, 0.83] in [list(line.get_xdata()) for line in figures.plot_volumes().axes[0].lines]


def networks_recorded():
    for index, config in enumerate(SPACE.samples(3, seed=7)):
        genes = [list(config.widths), list(config.blocks), list(config.ups)]
        note(KEEP, f"short_fid.random_{index}", 20.0 + index, "FID", "shorts",
             predicted=0.3 + index / 10, genes=genes)  # fmt: skip
    note(KEEP, "short_fid.width_500", 30.0, "FID", "shorts", predicted=0.5)
    note(KEEP, "short_fid.finalist_0", 18.0, "FID", "shorts", predicted=0.2)
    note(KEEP, f"short_fid.{BASE}", 20.5, "FID", "shorts", predicted=0.35)


def test_the_plot_of_networks_tells_who_beats_the_base():
    with pytest.raises(ResultError, match="nas_records shorts"):
        figures.plotted()
    networks_recorded()
    assert figures.plotted_architectures() == list(SPACE.samples(3, seed=7))
    assert figures.plot_networks().axes[0].get_yscale() == "log"
    assert "three finalists: 0.20 to 0.20 ms, FID 18.0" in figures.describe_networks()


def test_the_finalists_table_holds_what_was_measured():
    networks_recorded()
    for name, ms, fid in (
        (BASE, 1.2, 13.0),
        ("finalist_1", 0.3, 14.0),
        ("generator_nas", 0.4, 13.5),
        ("width_250", 0.2, 15.0),
    ):
        note(KEEP, f"fid.{name}", fid, "FID", "ratios", (fid - 0.1, fid + 0.2))
        note(KEEP, f"exact_accuracy.{name}", 0.9, "share", "ratios")
        note(KEEP, f"{name}_speedup", 1.2 / ms, "x", "ratios")
        note(KEEP, f"{name}_fid_ratio", fid / 13, "x", "ratios")
        record(AREA, f"{AREA}.{name}_ms", ms, "ms", spread=None, command="x", batch=1, threads=1,
               runtime="onnxruntime", dtype="float32")  # fmt: skip
    assert figures.fully_trained() == ["generator_nas", "finalist_1", "width_250"]
    lines = figures.finalist_table().splitlines()
    assert lines[2].startswith(f"| `{BASE}` | 1.200 | 1 | 13.00 (12.90 to 13.20) | 1 |")
    shipped = "| `generator_nas` | 0.400 | 3.00 | 13.50 (13.40 to 13.70) | 1.038 |"
    assert lines[3].startswith(shipped)
    axis = figures.plot_networks().axes[0]
    assert len(axis.collections) == 6  # the last: 0.35 ms of the table over the measured ratios
    assert axis.collections[-1].get_offsets().tolist() == [pytest.approx([0.35 / 6, 15.0])]
    trained = sorted(axis.collections[-2].get_offsets().tolist())
    assert trained == [pytest.approx([0.35 / 4, 14.0]), pytest.approx([0.35 / 3, 13.5])]


def test_ranks_are_drawn_as_recorded():
    shared, alone, fids = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0], [20.0, 30.0, 40.0, 50.0]
    for index, fid in enumerate(fids):
        note(KEEP, f"short_fid.random_{index}", fid, "FID", "shorts",
             predicted=(0.2, 0.4, 0.3, 0.1)[index], macs=10 - index)  # fmt: skip
    note(KEEP, "rank_correlation", 0.8, "Spearman's rho", "alone", networks=4, shared=shared,
         alone=alone)  # fmt: skip
    left, right = figures.plot_ranks().axes
    assert left.collections[0].get_offsets()[:, 1].tolist() == alone
    assert right.collections[0].get_offsets()[:, 1].tolist() == fids
    assert "rank correlation 0.80; right the FID of their finetuned slice, 1.00" in (
        figures.describe_ranks()
    )
    rho = {words: (value, low, high) for words, value, low, high in figures.rank_rows()}
    value, low, high = rho["slice, training from fresh weights"]
    # Fisher: tanh(atanh(0.8) -+ 1.96 / sqrt(4 - 3)) = tanh(1.0986 -+ 1.96)
    assert (value, low, high) == pytest.approx((0.8, -0.6967, 0.9956), abs=1e-3)
    assert rho["fewer MACs, FID of the finetuned slice"][0] == pytest.approx(1.0)
    assert rho["fewer MACs, FID of the finetuned slice, at equal ms"][0] == pytest.approx(1.0)


def test_a_finalist_is_held_against_the_width_sweep_of_its_fid():
    for width, ms, fid in ((250, 0.1, 40.0), (500, 0.3, 20.0)):
        note(KEEP, f"short_fid.width_{width}", fid, "FID", "shorts", predicted=ms)
    note(KEEP, "short_fid.finalist_0", 800**0.5, "FID", "shorts", predicted=0.1)
    note(KEEP, "short_fid.finalist_1", 50.0, "FID", "shorts", predicted=0.1)  # no such in the sweep
    for index, ms in enumerate((0.25, 0.16, 0.4)):
        note(KEEP, f"short_fid.random_{index}", 800**0.5, "FID", "shorts", predicted=ms)
    # 0.2 ms halfway, on the logarithm of FID; of the random networks the one that gains most
    (finalist, times), (best, gained) = figures.over_width_sweep()
    assert (finalist, best) == ("finalist_0", "random_1")
    assert (times, gained) == pytest.approx((2.0, 1.25))


def test_a_line_through_macs_is_what_the_table_has_to_beat():
    configs = list(SPACE.samples(30, seed=4))
    line = [0.1 + 0.05 * config.macs() / 1e6 for config in configs]
    assert figures.linear_in_macs(configs, line) == pytest.approx((0.0, 1.0), abs=1e-9)
    line[0] *= 2
    error, within = figures.linear_in_macs(configs, line)
    assert error > 0 and within < 1


# --- the builder --------------------------------------------------------------------------------


def test_every_corner_of_the_builder_is_predicted_and_measured(table):
    asked = []

    def measure(config):
        asked.append(config)
        return 2 * table(config)

    box = ArchitectureBuilder(table, lambda config: 0.5, measure=measure)
    for end in (0, -1):
        for name, control in box.controls.items():
            control.value = control.options[end][1]
            assert "predicted" in box.status.value and "measured" in box.status.value, name
    assert box.config == asked[-1] and set(map(type, asked)) == {Architecture}
    assert "(-50%)" in box.status.value and "predicted distance 0.500" in box.status.value
    assert bytes(box.picture.value).startswith(b"\x89PNG")
    before = len(asked)
    box.redraw()
    assert len(asked) == before  # what was measured is kept
    box.again.click()
    assert len(asked) == before + 1


def test_the_builder_says_what_went_wrong_in_one_sentence(table):
    def broken(config):
        raise ArchitectureError("the runtime is missing.")

    assert "the runtime is missing." in ArchitectureBuilder(table, measure=broken).status.value


def test_the_builder_measures_this_machine(table):
    table.save()
    assert isinstance(architecture_builder(), ArchitectureBuilder)
    assert measured_ms(SPACE.smallest()) > 0
    fig, words = some_layers_figure(table)
    assert len(fig.axes[0].get_yticks()) == 5 and "largest" in words
    with pytest.raises(ValueError, match="no networks"):
        layers_figure(table, [])
