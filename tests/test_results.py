"""The registry keeps what it is given and refuses what proves nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastgen_course.timing import (
    ResultError,
    Timing,
    all_results,
    format_results,
    record,
    record_timing,
    result,
)
from fastgen_course.timing.results import markdown_table, results_json

COMMAND = "python -m fastgen_course train tiny"


@pytest.fixture(autouse=True)
def own_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    return tmp_path


def put(name="vae.elbo_gap_error", value=1e-4, unit="nats", area=None, **options):
    options = {"spread": None, "command": COMMAND, **options}
    return record(area or name.split(".")[0], name, value, unit, **options)


def test_an_entry_comes_back_whole(own_registry):
    put(value=0.25, spread=(0.2, 0.3), base="VAE", seed=7)
    row = result("vae.elbo_gap_error")
    assert float(row) == 0.25
    assert f"{row:.1f}" == "0.2"
    assert f"{row}" == "0.25 nats"
    assert row.spread == (0.2, 0.3)
    assert row.base == "VAE"
    assert row.extra == {"seed": 7}
    assert row.command == COMMAND
    assert row.machine
    assert row.versions["torch"] == torch.__version__
    assert len(row.date) == 10
    stored = json.loads((own_registry / "results" / "vae.json").read_text())
    assert stored["entries"][0]["seed"] == 7
    assert [p.name for p in (own_registry / "results").iterdir()] == ["vae.json"]


def test_name_and_device_are_the_key():
    put(value=1.0)
    put(value=2.0)
    put(value=3.0, device="cuda")
    assert float(result("vae.elbo_gap_error")) == 2.0
    assert float(result("vae.elbo_gap_error", device="cuda")) == 3.0
    assert len(all_results()) == 2


def test_numbers_of_other_libraries_are_plain_numbers_in_the_file(own_registry):
    put("fid.floor", np.float32(4.5), "FID", spread=torch.tensor(0.5))
    put("fid.images", 10_000, "images")
    assert result("fid.floor").value == 4.5
    assert '"value": 10000,' in (own_registry / "results" / "fid.json").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"command": ""}, "has no command"),
        ({"command": None}, "has no command"),
        ({"machine": " "}, "has no machine"),
        ({"unit": ""}, "has no unit"),
        ({"device": ""}, "has no device"),
        ({"command": "python /home/me/train.py"}, "names a path of this machine"),
        ({"value": math.nan}, "value is nan"),
        ({"value": math.inf}, "value is inf"),
        ({"value": "0.3"}, "is not a number"),
        ({"value": True}, "is not a number"),
        ({"value": torch.ones(2)}, "is a Tensor, not a number"),
        ({"spread": -1.0}, "is negative"),
        ({"spread": math.nan}, "spread is nan"),
        ({"spread": (2.0, 3.0)}, "outside its spread"),
        ({"spread": (0.0,)}, r"\(low, high\)"),
        ({"area": "gan"}, "cannot be recorded in area 'gan'"),
        ({"name": "VAE error"}, "a name is AREA.words"),
        ({"seeds": {1, 2}}, "not plain JSON"),
        ({"loss": math.nan}, "not plain JSON"),
    ],
)
def test_an_entry_that_proves_nothing_is_refused(options, sentence, own_registry):
    with pytest.raises(ResultError, match=sentence):
        put(**options)
    assert not list(own_registry.iterdir())  # nothing half-written is left


@pytest.mark.parametrize(
    ("name", "value", "unit", "sentence"),
    [
        ("judge.garment_accuracy", 91.0, "share", r"must be in \[0, 1\]"),
        ("judge.garment_accuracy", 0.91, "%", 'unit must be "share"'),
        ("judge.exact_accuracy_real", 1.01, "share", r"must be in \[0, 1\]"),
        ("nas.recall", -0.1, "share", r"must be in \[0, 1\]"),
        ("course.minutes.00", -1, "minutes", "at least 0"),
        ("course.minutes.00", 90, "s", 'unit must be "minutes"'),
        ("course.peak_mb.00", 900, "bytes", 'unit must be "MB"'),
        ("nas.search_speedup", 0, "x", "above 0"),
        ("prune.fid_ratio", 1.2, "share", 'unit must be "x"'),
        ("prune.exact_drop", 1.2, "share", r"in \[-1, 1\]"),
        ("g.batch1_ms", 3.0, "ms", "needs batch, runtime, threads, dtype"),
    ],
)
def test_suffixes_fix_unit_and_range(name, value, unit, sentence):
    with pytest.raises(ResultError, match=sentence):
        put(name, value, unit)


def test_what_the_suffixes_allow():
    put("judge.garment_accuracy_plain", 0.925, "share")
    put("course.minutes.02", 2.1, "minutes")
    put("course.peak_mb.02", 900.5, "MB")
    put("prune.exact_drop", -0.01, "share")
    put("nas.search_speedup", 3.2, "x", base="GENERATOR_BASE")
    assert len(all_results()) == 5


def test_a_timing_is_recorded_with_all_it_needs():
    timing = Timing(2.0, 2.5, 5, 1, "cpu", 1, "float32", times_ms=(1.8, 1.9, 2.0, 2.2, 2.5))
    record_timing("g", "g.batch1_ms", timing, command=COMMAND, runtime="eager", base="G")
    row = result("g.batch1_ms")
    assert (row.batch, row.threads, row.dtype, row.runtime) == (1, 1, "float32", "eager")
    assert row.spread == (1.8, 2.5)


def test_a_missing_result_is_explained():
    put()
    with pytest.raises(ResultError, match=r"nearest recorded names are vae\.elbo_gap_error"):
        result("vae.elbo_gap_eror")
    with pytest.raises(ResultError, match="it is recorded for cpu"):
        result("vae.elbo_gap_error", device="mps")
    with pytest.raises(ResultError, match="lists what is recorded"):
        result("zzz.qqq")
    with pytest.raises(ResultError, match="not a result's name"):
        result("../secrets")


def test_a_damaged_file_is_explained(own_registry):
    put()
    path = own_registry / "results" / "vae.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(OSError, match=r"vae\.json is not valid JSON"):
        result("vae.elbo_gap_error")
    path.write_text('{"entries": [{"name": "vae.x"}]}')
    with pytest.raises(ResultError, match="not a results file"):
        result("vae.elbo_gap_error")


def test_tables():
    assert format_results([]) == "Nothing is recorded yet."
    put(value=0.123456, spread=0.01)
    put("fid.floor", 4.0, "FID", spread=(3.9, 4.1))
    text = format_results(all_results())
    assert "0.1235" in text
    assert "± 0.01" in text
    assert "[3.9, 4.1]" in text
    assert COMMAND in text
    assert json.loads(results_json(all_results()))[0]["name"] == "fid.floor"
    assert "| Floor | 4 FID | [3.9, 4.1] |" in markdown_table(
        ["fid.floor"], labels={"fid.floor": "Floor"}
    )


def test_two_processes_lose_no_entry(own_registry):
    program = (
        "from fastgen_course.timing.results import record\n"
        "print('ready', flush=True)\n"
        "for i in range(20):\n"
        "    record('race', f'race.other_{i}', i, 'count', spread=None, command='test')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        for i in range(20):
            put(f"race.own_{i}", i, "count")
        assert other.wait(120) == 0
    assert len(all_results("race")) == 40
