"""Pictures drawn across real Ray workers: the same ones whatever happens, none lost or doubled."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from fastgen_course import cli
from fastgen_course.checkpoints import build_model, load_model, save_checkpoint
from fastgen_course.datasets.captions import CaptionError
from fastgen_course.datasets.scenes import captions_of, draw_labels
from fastgen_course.files import DataFileError
from fastgen_course.runtimes.prompts import ScaleError
from fastgen_course.runtimes.samplers import check_device, load_sampler, weights_hash
from fastgen_course.runtimes.scale import draw_many
from fastgen_course.runtimes.scale_bench import Sizes, kill_half_way
from fastgen_course.runtimes.shards import (
    Job,
    batch_seed,
    plan,
    read_shards,
    shard_paths,
)
from fastgen_course.runtimes.workers import STARTS, WorkerPool, _running_ray
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.show import to_uint8
from fastgen_course.timing import threads_set

CAPTIONS = captions_of(draw_labels(50, torch.Generator().manual_seed(0)))
SMALL = {"noise": 8, "caption": 8, "channels": (8, 8, 8)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A data folder with a small generator, which the workers load by name as they would its big
    sister."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGEN_DATA", str(tmp_path_factory.mktemp("data")))
        torch.manual_seed(0)
        model = build_model("generator_base", SMALL)
        for weight in model.parameters():
            weight.data.mul_(2)  # untrained, its pictures would all be one grey
        needed = ("seed", "command", "data_sha256", "minutes", "machine", "metrics")
        save_checkpoint("generator_base", model, dict.fromkeys(needed, "x"))
        yield os.environ["FASTGEN_DATA"]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ray():
    """One Ray for all tests of this file, with room for several pools; stopped at the end."""
    ray = pytest.importorskip("ray", reason="pip install ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        object_store_memory=80 << 20, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(ray, weights):
    with WorkerPool(2) as pool:
        yield pool


def noise(model, device):
    """A load function that gives a sampler without weights."""
    return lambda captions, generator: torch.rand(len(captions), 3, 8, 8, generator=generator)


def pictures_of(folder):
    captions, images = zip(*read_shards(folder), strict=True)
    return [*chain.from_iterable(captions)], np.concatenate(images)


def in_this_process(sample, images, batch=4, seed=0):
    """The same pictures by a plain loop; on one thread, which decides the order of sums."""
    captions = (CAPTIONS * (images // len(CAPTIONS) + 1))[:images]
    parts = []
    for number, start in enumerate(range(0, images, batch)):
        generator = torch.Generator().manual_seed(batch_seed(seed, number))
        with threads_set(1):
            parts.append(to_uint8(sample(captions[start : start + batch], generator)))
    return captions, np.concatenate(parts)


def test_settings_that_cannot_be_are_one_sentence(weights):
    for settings, words in (
        ({"images": 0}, "images must be at least 1"),
        ({"images": 8, "batch": 0}, "batch must be"),
        ({"images": 8, "seed": -1}, "seed must be"),
        ({"images": 8, "batch": 3, "shard": 8}, "no multiple of batch=3"),
    ):
        with pytest.raises(ScaleError, match=words):
            Job("x", None, "0" * 64, **settings)
    with pytest.raises(ScaleError, match="'judge_train' draws nothing"):
        weights_hash("judge_train")
    with pytest.raises(ScaleError, match="draws nothing"):
        weights_hash("nobody")
    with pytest.raises(DataFileError, match="gpt"):
        weights_hash("gpt")  # this folder holds none
    with pytest.raises(ScaleError, match="no device 'gpu'"):
        check_device("gpu")
    with pytest.raises(ScaleError, match="no device 'meta'"):
        check_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ScaleError, match="no cuda device"):
            check_device("cuda:0")
    with pytest.raises(ScaleError, match="got 0 and 1"):
        WorkerPool(0)


def test_a_shipped_sampler_is_the_plain_one(weights):
    sample = load_sampler("generator_base")
    ours, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    wanted = sample_generator(load_model("generator_base"), CAPTIONS[:5], generator=theirs)
    assert torch.equal(sample(CAPTIONS[:5], ours), wanted)


def test_without_ray_the_install_line_is_named(weights, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["scale", str(prompts), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("error: many workers need Ray; install")
    assert "[scale]" in err


def test_a_ray_that_does_not_start_is_one_sentence_and_leaves_nothing(weights, monkeypatch):
    ray = pytest.importorskip("ray", reason="pip install ray")
    started = []

    def late(**settings):
        command = [sys.executable, "-c", "import time; time.sleep(600)", settings["_temp_dir"]]
        started.append(subprocess.Popen(command))
        raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", late)
    words = r"did not start here \(The current node timed out during startup\); try again"
    with pytest.raises(ScaleError, match=words), WorkerPool(1):
        pass
    assert len(started) == STARTS
    assert all(process.wait(timeout=60) != 0 for process in started)


def test_a_ray_that_is_late_once_is_started_again(weights, monkeypatch):
    ray = pytest.importorskip("ray", reason="pip install ray")
    places = []

    def late_once(**settings):
        places.append(Path(settings["_temp_dir"]))
        assert places[-1].is_dir()
        if len(places) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late_once)
    with _running_ray(ray, 1, None):
        assert len(set(places)) == 2
    assert not any(place.exists() for place in places)


# --- Ray ----------------------------------------------------------------------------------------


def test_the_pictures_do_not_depend_on_workers_or_shards(pool, prompts, tmp_path):
    wanted = in_this_process(load_sampler("generator_base"), 70)
    with WorkerPool(1) as alone:
        for name, team, shard in (("a", pool, 4), ("b", pool, 16), ("c", alone, 12)):
            report = draw_many(
                prompts, tmp_path / name, pool=team, images=70, batch=4, shard=shard, progress=False
            )
            assert (report.images, report.drawn, report.workers) == (70, 70, team.workers)
            captions, images = pictures_of(tmp_path / name)
            assert captions == wanted[0]
            assert np.array_equal(images, wanted[1])
    assert len({image.tobytes() for image in images}) == 70  # a repeated caption, another picture


def test_a_killed_worker_is_replaced_and_no_picture_is_lost_or_doubled(ray, prompts, tmp_path):
    marker, out, seen = tmp_path / "killed", tmp_path / "out", []

    def load(model, device):
        whole = np.savez

        def half_then_killed(handle, images):
            """SIGKILL once, in the middle of writing, when some shards are finished."""
            if len([*out.glob("shard_*.json")]) >= 2:
                with suppress(FileExistsError):
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                    handle.write(images.tobytes()[: images.size // 2])
                    handle.flush()
                    psutil.Process().kill()
            whole(handle, images=images)

        np.savez = half_then_killed  # in the worker's process alone
        return lambda captions, generator: torch.rand(len(captions), 3, 8, 8, generator=generator)

    with WorkerPool(2, "noise", load=load) as pool:
        report = draw_many(
            prompts, out, pool=pool, images=150, batch=4, shard=8, progress=False,
            on_shard=seen.append,
        )  # fmt: skip
        first = set(pool.pids)
    assert marker.exists() and report.workers_lost == 1
    assert "1 died" in str(report)
    assert sorted(drawn.index for drawn in seen) == list(range(19))
    assert sum(drawn.images for drawn in seen) == 150
    assert len({drawn.pid for drawn in seen} | first) == 3  # the two, and the new one
    captions, images = pictures_of(out)
    wanted = in_this_process(noise("noise", "cpu"), 150)
    assert captions == wanted[0] and np.array_equal(images, wanted[1])
    assert not [*out.glob("*.part")]


def test_the_recorded_kill_finds_a_whole_run(ray, weights, prompts, tmp_path):
    """The measurement behind `distributed.killed_images_*`, with a small generator."""
    with WorkerPool(2) as pool:
        sizes = Sizes(images=96, batch=4, kill_shard=4)
        killed = kill_half_way(prompts, tmp_path / "out", pool, sizes)
    assert killed.report.workers_lost == 1
    assert (killed.lost, killed.doubled, killed.changed) == (0, 0, 0)
    assert sorted(drawn.index for drawn in killed.shards) == list(range(24))
    before = [drawn for drawn in killed.shards if drawn.ended <= killed.killed_at]
    assert 12 <= len(before) < 24  # half of them were finished, as they came in


def test_a_shard_that_ends_every_worker_stops_the_run_and_the_rest_is_kept(
    ray, prompts, tmp_path, monkeypatch
):
    monkeypatch.setattr("fastgen_course.runtimes.workers.TRIES", 2)

    def load(model, device):
        def sample(captions, generator):
            if captions[0] == CAPTIONS[8]:
                os._exit(1)
            return torch.rand(len(captions), 3, 8, 8, generator=generator)

        return sample

    with (
        WorkerPool(1, "noise", load=load) as pool,
        pytest.raises(ScaleError, match="shard 1 ended 2 workers"),
    ):
        draw_many(prompts, tmp_path, pool=pool, batch=8, shard=8, progress=False)
    assert shard_paths(tmp_path, 0)[1].exists()
    assert not shard_paths(tmp_path, 1)[1].exists()


def test_what_goes_wrong_in_a_worker_is_told_in_its_own_words(ray, prompts, tmp_path):
    def full(model, device):
        import errno

        def sample(captions, generator):
            def half(handle, images):
                handle.write(images.tobytes()[: images.size // 2])
                raise OSError(errno.ENOSPC, "No space left on device")

            np.savez = half  # in the worker's process alone
            return torch.rand(len(captions), 3, 8, 8, generator=generator)

        return sample

    def confused(model, device):
        def sample(captions, generator):
            raise CaptionError("nobody can draw that.")

        return sample

    with WorkerPool(2, "noise", load=full) as pool, pytest.raises(DataFileError) as told:
        draw_many(prompts, tmp_path / "full", pool=pool, batch=4, shard=4, progress=False)
    assert "The disk is full: shard_" in str(told.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["job.json"]
    with (
        WorkerPool(1, "noise", load=confused) as pool,
        pytest.raises(CaptionError, match="nobody can draw"),
    ):
        draw_many(prompts, tmp_path / "confused", pool=pool, progress=False)


def test_weights_that_are_gone_are_named_before_anything_is_drawn(ray, weights, monkeypatch):
    def load(model, device):
        raise DataFileError("data/weights/x.safetensors is missing.")

    with pytest.raises(DataFileError, match="is missing"), WorkerPool(1, "x", load=load):
        pass


def test_more_workers_than_a_running_ray_has_room_for_are_refused(ray):
    with pytest.raises(ScaleError, match="8 CPUs, too few for 9 workers"), WorkerPool(9):
        pass


def test_memory_does_not_grow_and_prompts_are_not_read_ahead(ray, tmp_path):
    """600 shards of 64 pictures, 90 MB in all, and the prompts of a shard only when it is due."""
    process, held, lead = psutil.Process(), [], []
    handed, job = 0, Job("noise", None, "0" * 64, 600 * 64, batch=64, shard=64)

    def captions():
        nonlocal handed
        while True:
            handed += 1
            yield CAPTIONS[handed % len(CAPTIONS)]

    def finished(drawn):
        held.append(process.memory_info().rss)
        lead.append(handed - 64 * len(held))

    def load(model, device):
        pictures = torch.zeros(64, 3, 28, 28)
        return lambda captions, generator: pictures

    with WorkerPool(2, "noise", load=load) as pool:
        assert pool.draw(job, plan(job, captions()), tmp_path, finished) == 0
    assert len(held) == 600
    assert max(lead) == 64  # the other worker's shard, and none ahead
    assert max(held[300:]) - max(held[60:300]) < 8e6  # of the 45 MB drawn meanwhile


DRIVER = """
    import sys, time, torch
    from fastgen_course.runtimes.scale import draw_many

    def load(model, device):
        def sample(captions, generator):
            time.sleep(0.1)
            return torch.rand(len(captions), 3, 8, 8, generator=generator)
        return sample

    draw_many(sys.argv[1], sys.argv[2], model="noise", images=400, batch=4, shard=4, load=load)
"""


def test_a_killed_driver_loses_nothing_and_the_run_goes_on(ray, prompts, tmp_path):
    out = tmp_path / "out"
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    driver = subprocess.Popen(
        [sys.executable, str(script), str(prompts), str(out)],
        env=environment | {"PYTHONPATH": "."}, stderr=subprocess.PIPE,
    )  # fmt: skip
    while len([*out.glob("shard_*.json")]) < 3:
        assert driver.poll() is None, driver.stderr.read().decode()
        time.sleep(0.05)
    with pytest.raises(ScaleError, match="another run is drawing into out"):
        draw_many(prompts, out, model="noise", images=400, batch=4, shard=4, load=noise)
    family = psutil.Process(driver.pid).children(recursive=True)
    lines = {process: " ".join(process.cmdline()) for process in family}
    workers = [process for process, line in lines.items() if "_Worker" in line]
    assert workers
    (raylet,) = [line for line in lines.values() if "/raylet --" in line]
    assert "--node_ip_address=127.0.0.1" in raylet  # nobody on the network can reach it
    driver.kill()
    driver.communicate()
    psutil.wait_procs(workers, timeout=60)  # they go with their driver, once their shard is done
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.glob("shard_*.json")}
    assert 3 <= len(before) < 100
    for manifest in before:
        assert manifest.with_suffix(".npz").exists()

    def load(model, device):
        return lambda captions, generator: (
            torch.rand(len(captions), 3, 8, 8, generator=generator) * 2 - 1
        )

    def by_value(model, device):  # the workers need not find this file
        return lambda captions, generator: torch.rand(len(captions), 3, 8, 8, generator=generator)

    damaged = min(before)
    damaged.with_suffix(".npz").write_bytes(b"half")
    (out / "shard_000099.npz.x.part").write_bytes(b"half")
    with WorkerPool(2, "noise", load=by_value) as pool:
        settings = {"pool": pool, "images": 400, "batch": 4, "shard": 4, "progress": False}
        report = draw_many(prompts, out, **settings)
        again = draw_many(prompts, out, **settings)
    assert (report.damaged, report.kept) == (1, 4 * (len(before) - 1))
    assert report.drawn == 400 - report.kept
    assert again.drawn == 0 and "nothing was left to draw" in str(again)
    for manifest, (changed, text) in before.items():
        assert manifest.read_bytes() == text
        assert (manifest.stat().st_mtime_ns == changed) == (manifest != damaged)
    captions, images = pictures_of(out)
    wanted = in_this_process(noise("noise", "cpu"), 400)
    assert captions == wanted[0] and np.array_equal(images, wanted[1])
    assert not [*out.glob("*.part")]


def test_the_command_draws_a_file_and_names_its_bad_lines(ray, weights, prompts, tmp_path, capsys):
    prompts.write_text("\n".join([*CAPTIONS[:9], "a zebra"]))
    command = ["scale", str(prompts), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert cli.main([*command, "--batch", "4", "--shard", "4"]) == 0
    out, err = capsys.readouterr()
    assert "9 images; 9 drawn by 1 worker at" in out
    assert "prompts.txt: 1 line was skipped, the rest is drawn: line 10" in err
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert job["weights_sha256"] == weights_hash("generator_base")
    assert len(pictures_of(tmp_path / "out")[0]) == 9
    assert cli.main(["scale", str(prompts), "--out", str(tmp_path / "out"), "--seed", "1"]) == 2
    assert "holds another run" in capsys.readouterr().err
