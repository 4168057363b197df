"""The ladder: rungs, timing in turn, what it comes to, its records and its command."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastgen_course import cli
from fastgen_course.authoring import readme
from fastgen_course.files import sha256_of
from fastgen_course.ladder import command, measuring, records, rungs
from fastgen_course.ladder.measuring import Ladder, Row, climb, split, three_ratios, time_in_turn
from fastgen_course.ladder.records import record_ladder, recorded_rows, table
from fastgen_course.ladder.rungs import CHANGES, CONTROLS, RUNGS, Rung, eager_draw, mine
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.timing import result
from fastgen_course.training import TRAINERS

TINY = GeneratorConfig(noise=4, caption=4, channels=(4, 4, 4))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(measuring, "gemm_peak", lambda threads: 1e11)
    return tmp_path


def sleeping(name, ms, change="net", **settings):
    """A rung that sleeps and draws grey."""

    def draw(captions, generator):
        time.sleep(ms / 1000)
        return np.full((len(captions), 28, 28, 3), 128, np.uint8)

    return Rung(name, f"sleeps {ms} ms", change, (), lambda _f, _b: draw, "x", **settings)


def test_the_ladder_is_the_designs():
    assert [rung.name for rung in RUNGS[:3]] == ["plain", "cached", "cached_written"]
    assert RUNGS[0].change == ""
    assert {rung.change for rung in RUNGS[1:]} == set(CHANGES)
    assert all(rung.control and not rung.change for rung in CONTROLS)
    assert {"gpt_onnx", "masked_onnx", "vae", "compose"} <= {rung.name for rung in CONTROLS}
    names = [rung.name for rung in (*RUNGS, *CONTROLS)]
    assert len(set(names)) == len(names)
    needed = {name for rung in (*RUNGS, *CONTROLS) for name in rung.needs}
    assert {"student", "student_int8"} <= needed
    assert needed - set(TRAINERS) <= {"generator_nas"}  # trained by the search


def test_the_ablation_names_rows_of_the_ladder_and_leaves_missing_pairs_out():
    names = {rung.name for rung in (*RUNGS, *CONTROLS)}
    assert {name for _, *pair in records.ABLATION for name in pair} <= names

    def row(name: str, ms: float, fid: float | None) -> Row:
        return Row(name, name, "", False, "x", "float32", 1, ms, ms, fid=fid)

    text = records.ablation_table(
        [row("plain", 90, 30), row("cached", 45, None), row("int8", 1, 9)]
    )
    assert text.splitlines()[2:] == ["| the cache | 45 | 90 | 2.00 | - | 30 |"]


def test_a_rung_without_weights_is_left_out_with_the_command(place):
    (rung,) = [replace(r, needs=("untrained",)) for r in RUNGS if r.name == "int8"]
    ladder = climb([sleeping("first", 1, ""), rung], place, 1, throughput=False, say=lambda _: None)
    assert [row.name for row in ladder.rows] == ["first"]
    assert "`python -m fastgen_course train untrained`" in ladder.left_out[0]


def test_rungs_are_timed_in_turn_and_the_factors_multiply_to_the_whole(place):
    made = [
        sleeping("first", 8, ""), sleeping("second", 4, "steps"), sleeping("last", 1, "runtime"),
        sleeping("student_eager", 2, "", control=True),
    ]  # fmt: skip
    ladder = climb(made, place, 2, say=lambda _: None)
    first, second, last, _ = ladder.rows
    assert first.speedup_to_first == pytest.approx(1)
    assert last.speedup_to_first > second.speedup_to_first > 1
    factors = split(ladder)
    assert np.prod(list(factors.values())) == pytest.approx(first.batch1_ms / last.batch1_ms)
    assert factors["family"] == 1
    ratios = three_ratios(ladder)
    assert ratios["algorithm"] * ratios["system"] == pytest.approx(ratios["end_to_end"])
    assert ratios["end_to_end_best_batch"] > 1
    unmeasured = three_ratios(replace(ladder, throughput=False))
    assert unmeasured == {k: v for k, v in ratios.items() if not k.endswith("_best_batch")}
    assert "sleeps 8 ms" in measuring.split_sentence(ladder)
    text = command.describe(ladder)
    assert text.index("control rows") < text.index("sleeps 2 ms")


def test_no_row_is_slowed_by_a_thread_too_few_or_too_many(place):
    """Neither for one picture nor for many at once, where another count may be the better one."""

    def draw(captions, generator):
        one, threads = len(captions) == 1, torch.get_num_threads()
        time.sleep({(True, 1): 0.006, (True, 2): 0.002, (False, 1): 0.02, (False, 2): 0.2}
                   [one, threads])  # fmt: skip
        return np.zeros((len(captions), 28, 28, 3), np.uint8)

    rung = replace(sleeping("mine", 0, ""), make=lambda _f, _b: draw, runtime="yours")
    (row,) = climb([rung], place, 1, say=lambda _: None).rows
    assert row.threads == 2 and 2 <= row.batch1_ms < 6
    assert row.images_per_s > 2 * 64 / 0.2


def test_the_last_rung_is_held_against_the_old_method_with_a_runtime(ladder):
    assert measuring.rival_sentence(ladder) == ""
    rows = [*ladder.rows, row("gpt_onnx", 40.0, control=True, images_per_s=100.0)]
    with_it = replace(ladder, rows=rows)
    many = 1000 / 0.1 / 100
    assert measuring.rival_sentence(with_it) == (
        "Against the cached loop in ONNX Runtime it is 400 times fewer milliseconds, and "
        f"{many:.3g} times more pictures at once."
    )


def test_every_row_gets_its_turn_in_every_round():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    same = dict.fromkeys("ab", (1,)), dict.fromkeys("ab", "float32")
    rows = time_in_turn(calls, *same, 1, 3, 0.0)
    assert len(rows["a"].times_ms) == len(rows["b"].times_ms) == 3
    assert list(dict.fromkeys(order)) == ["a", "b"]


def test_each_row_keeps_the_threads_with_which_it_was_faster_over_all_rounds():
    slow_with = {"a": 1, "b": 2}
    calls = {
        name: lambda name=name: time.sleep(
            0.004 if torch.get_num_threads() == slow_with[name] else 0.001
        )
        for name in "ab"
    }
    threads, kinds = dict.fromkeys("ab", (1, 2)), dict.fromkeys("ab", "float32")
    rows = time_in_turn(calls, threads, kinds, 1, 3, 0.0)
    assert (rows["a"].threads, rows["b"].threads) == (2, 1)
    assert all(1 <= rows[name].median_ms < 4 for name in "ab")
    assert rows["a"].median_ms == np.median(rows["a"].times_ms)


def test_the_interval_is_of_the_ratio_that_the_table_shows(ladder):
    times = {"plain": (100.0, 110.0, 90.0, 200.0), "last": (0.1, 0.1, 0.2, 0.1)}
    timings = {
        name: replace(ladder.timings[name], times_ms=ms, median_ms=float(np.median(ms)))
        for name, ms in times.items()
    }
    value, (low, high) = measuring.spread_of(replace(ladder, timings=timings), "last", "plain")
    assert value == pytest.approx(1050)  # 105 over 0.1, which no round's own ratio is
    assert 450 <= low < value < high <= 2000


def test_weights_macs_and_bytes_of_a_generator(monkeypatch):
    model = Generator(TINY).eval()
    monkeypatch.setattr(rungs, "_model", lambda name: model)
    monkeypatch.setattr(measuring, "_model", lambda name: model)
    (rung,) = [r for r in RUNGS if r.name == "base"]
    assert rungs.parameters(rung) == sum(p.numel() for p in model.parameters())
    assert measuring.bytes_of(rung) == 4 * rungs.parameters(rung)
    assert measuring.macs_of(rung, eager_draw(model)) > 49 * 4 * 4 * 9
    assert measuring.macs_of(sleeping("x", 0), None) is None


def row(name, ms, **settings):
    values = {"fid": 20.0, "exact_accuracy": 0.9, "images_per_s": 1000 / ms, **settings}
    return Row(name, name, values.pop("change", "net"), values.pop("control", False), "eager",
               "float32", 1, ms, ms, **values)  # fmt: skip


@pytest.fixture
def ladder():
    calls = {name: lambda: None for name in ("plain", "cached", "student_eager", "last")}
    same = dict.fromkeys(calls, (1,)), dict.fromkeys(calls, "float32")
    timings = time_in_turn(calls, *same, 1, 4, 0.0)
    rows = [
        row("plain", 100.0, change=""), row("cached", 50.0, change="recomputation"),
        row("last", 0.1, fid=22.0, exact_accuracy=0.88, bytes=5000),
        row("student_eager", 1.0, control=True),
    ]  # fmt: skip
    return Ladder(rows, timings, ["a row is left out."])


def test_what_is_recorded_reaches_the_readme_and_a_changed_chart_is_seen(place, ladder):
    assert "not recorded yet" in readme.ladder_lines()
    record_ladder(ladder)
    assert result("ladder.exact_accuracy_drop").value == pytest.approx(0.02)
    assert result("ladder.fid_ratio").value == pytest.approx(1.1)
    assert result("ladder.last_bytes").value == 5000
    for name in ("speedup_plain", "speedup_cached", "speedup_algorithm", "speedup_system"):
        assert result(f"ladder.{name}").unit == "x"
    assert recorded_rows()["rows"] == ladder.rows
    text = readme.ladder_lines()
    assert "| last | a smaller net | 0.1 |" in text
    chart = place / "data" / "pictures" / "ladder.png"
    assert sha256_of(chart) in (place / "data" / "recordings" / "ladder.json").read_text()
    chart.write_bytes(b"another")
    with pytest.raises(ValueError, match="is not the chart of the recorded ladder"):
        readme.ladder_lines()


def test_every_recording_leaves_its_total_behind(place, ladder):
    record_ladder(ladder)
    assert recorded_rows()["stability"] == ""
    ladder.rungs[0].batch1_ms = 150.0
    record_ladder(ladder)
    assert [run["total"] for run in recorded_rows()["runs"]] == pytest.approx([1000, 1500])
    stability = (
        "Of 2 recordings this is the last; the total lay between 1,000 and 1,500, the first rung "
        "between 100 and 150 ms, the last between 0.100 and 0.100 ms."
    )
    assert stability in readme.ladder_lines()
    ladder.rungs[-1].name = "another"  # of other rungs: nothing to compare with
    records.write_rows(ladder, place / "data" / "recordings" / "ladder.json",
                       place / "data" / "pictures" / "ladder.png")  # fmt: skip
    assert len(recorded_rows()["runs"]) == 1


def test_scored_rows_are_not_scored_again(place, monkeypatch):
    (rung,) = [r for r in CONTROLS if r.name == "vae"]
    rung = replace(rung, needs=(), make=sleeping("x", 0).make, quality=rungs.OWN + "vae")
    monkeypatch.setattr(Rung, "weights", "abc")
    monkeypatch.setattr(Rung, "needs", property(lambda self: ("vae_refined",)), raising=False)
    monkeypatch.setattr(Rung, "missing", ())
    seen = []
    found = {figure: [0.5] for figure in records.FIGURES}
    monkeypatch.setattr(records, "delivered_quality", lambda *_, **__: seen.append(1) or found)
    records.record_quality([rung], place, say=lambda _: None)
    records.record_quality([rung], place, say=lambda _: None)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "has no function draw"),
        ("import numpy as np\ndef draw(c, g):\n    return np.zeros((1, 28, 28))\n", "must return"),
    ],
)
def test_ones_own_rung_is_refused_in_one_sentence(tmp_path, text, words):
    (tmp_path / "my.py").write_text(text)
    with pytest.raises(ValueError, match=words):
        mine(tmp_path / "my.py")
    with pytest.raises(ValueError, match="is not a Python file"):
        mine(tmp_path / "none.py")


def test_the_command_prints_and_writes_ones_own_rung_too(place, monkeypatch, capsys):
    monkeypatch.setattr(command, "RUNGS", (sleeping("first", 2, ""), sleeping("last", 1)))
    monkeypatch.setattr(command, "CONTROLS", ())
    (place / "my.py").write_text(
        "import numpy as np\n"
        "def draw(captions, generator):\n"
        "    return np.zeros((len(captions), 28, 28, 3), np.uint8)\n"
    )
    words = ["ladder", "--quick", "--json", str(place / "rows.json"), "--mine",
             str(place / "my.py"), "--chart", str(place / "chart.png")]  # fmt: skip
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "yours (my.py)" in text
    assert "times fewer milliseconds" in text
    rows = json.loads((place / "rows.json").read_text())
    assert [found["name"] for found in rows] == ["first", "last", "mine"]
    wanted = "name control batch1_ms p90_ms images_per_s params macs bytes fid slot_accuracy"
    wanted += " exact_accuracy garment_accuracy heldout_exact_accuracy recall peak_share"
    wanted += " speedup_to_first speedup_to_previous"
    assert set(wanted.split()) <= set(rows[0])
    assert (place / "chart.png").stat().st_size > 1000
    assert cli.main(["ladder", "--quick", "--record"]) == 2
    assert "leave one of the two out" in capsys.readouterr().err


def test_figures_are_drawn(ladder):
    from fastgen_course.ladder.figures import ladder_figure, quality_figure, split_figure

    for figure in (ladder_figure(ladder.rows), quality_figure(ladder.rows),
                   split_figure(split(ladder))):  # fmt: skip
        assert figure.axes
    assert "last" in table(ladder.rows)
