"""Prompt files read line by line, and shards that are whole or absent; no Ray is needed."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.datasets.scenes import captions_of, draw_labels
from fastgen_course.runtimes.prompts import PromptFile, ScaleError
from fastgen_course.runtimes.shards import (
    Job,
    Shard,
    batch_seed,
    draw_shard,
    open_folder,
    plan,
    shard_paths,
    shard_state,
    write_shard,
)

CAPTIONS = captions_of(draw_labels(50, torch.Generator().manual_seed(0)))


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")
    return path


def noise(captions, generator):
    """A sampler without weights."""
    return torch.rand(len(captions), 3, 28, 28, generator=generator) * 2 - 1


# --- prompts ------------------------------------------------------------------------------------


def test_bad_lines_are_named_by_number_in_one_sentence(tmp_path):
    path = tmp_path / "prompts.txt"
    good = [line.encode() for line in CAPTIONS[:3]]
    lines = [
        b"\xef\xbb\xbf" + good[0], b"", b"a red zebra", good[1] + b"\r", b"\xff\xfe", b"x" * 9000,
        b"a red blue bag", good[2],
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    source = PromptFile(path)
    captions = source.captions()
    assert [next(captions) for _ in range(5)] == [*CAPTIONS[:3], *CAPTIONS[:2]]
    sentence = source.skipped()
    assert "prompts.txt: 4 lines were skipped" in sentence
    for words in ('line 3 (the word "zebra"', "line 5 (it is not UTF-8", "line 6 (it is longer"):
        assert words in sentence
    assert "line 7 (the caption asks for two values of colour" in sentence
    assert sentence.count(". ") == 0 and sentence.endswith(".")


def test_many_bad_lines_stay_one_short_sentence(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(["a zebra"] * 1000 + CAPTIONS[:1]))
    sentence = PromptFile(path).skipped()
    assert "1,000 lines were skipped" in sentence and "995 more (lines 6, 7" in sentence
    assert len(sentence) < 600
    path.write_text("\n".join(CAPTIONS))
    assert PromptFile(path).skipped() is None


def test_a_file_without_a_caption_is_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    with pytest.raises(ScaleError, match=r"prompts\.txt cannot be read"):
        PromptFile(path)
    path.write_text("\n\n")
    with pytest.raises(ScaleError, match="holds no caption"):
        PromptFile(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    with pytest.raises(ScaleError, match=r"line 1: it is not UTF-8"):
        PromptFile(path)


def test_a_file_that_changes_meanwhile_is_noticed(prompts):
    source = PromptFile(prompts)
    prompts.write_text("\n".join(CAPTIONS[:10]))
    with pytest.raises(ScaleError, match="changed while it was being read"):
        list(plan(Job("x", None, source.sha256, 100), source.captions()))


# --- shards -------------------------------------------------------------------------------------


def test_no_two_batches_share_a_seed_or_their_noise():
    assert len({batch_seed(0, n) for n in range(100_000)}) == 100_000
    assert batch_seed(0, 0) != batch_seed(1, 0)
    drawn = torch.stack(
        [
            torch.randn(4096, generator=torch.Generator().manual_seed(batch_seed(0, n)))
            for n in range(128)
        ]
    )
    correlations = torch.corrcoef(drawn).fill_diagonal_(0)
    assert correlations.abs().max() < 6 / 4096**0.5  # 8,128 pairs; six deviations


def test_a_shard_is_whole_only_if_all_of_it_is_what_was_asked_for(tmp_path):
    job = Job("x", None, "0" * 64, 8, batch=4, shard=8)
    shard = Shard(0, 0, tuple(CAPTIONS[:8]))
    assert shard_state(tmp_path, job, shard) == "missing"
    write_shard(tmp_path, job, shard, draw_shard(noise, job, shard))
    assert shard_state(tmp_path, job, shard) == "whole"
    other = Shard(0, 0, tuple(CAPTIONS[1:9]))
    assert shard_state(tmp_path, job, other) == "damaged"
    assert shard_state(tmp_path, Job("x", None, "0" * 64, 8, 1, 4, 8), shard) == "damaged"
    pictures, manifest = shard_paths(tmp_path, 0)
    whole = pictures.read_bytes()
    for harm in (whole[:-1], whole[:200] + b"!" + whole[201:], b""):
        pictures.write_bytes(harm)
        assert shard_state(tmp_path, job, shard) == "damaged"
    pictures.write_bytes(whole)
    manifest.write_text("[")
    assert shard_state(tmp_path, job, shard) == "damaged"
    manifest.unlink()
    assert shard_state(tmp_path, job, shard) == "missing"


def test_the_same_shard_is_the_same_file(tmp_path):
    job, shard = Job("x", None, "0" * 64, 8, batch=4, shard=8), Shard(0, 0, tuple(CAPTIONS[:8]))
    for name in ("a", "b"):
        write_shard(tmp_path / name, job, shard, draw_shard(noise, job, shard))
    paths = [shard_paths(tmp_path / name, 0) for name in ("a", "b")]
    for one, two in zip(*paths, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_a_folder_of_another_run_is_refused(tmp_path):
    job = Job("x", None, "0" * 64, 8, batch=4, shard=8)
    open_folder(tmp_path / "out", job)
    (tmp_path / "out" / "shard_000000.npz.abc.part").write_bytes(b"half")
    open_folder(tmp_path / "out", job)
    assert not [*tmp_path.glob("out/*.part")]
    with pytest.raises(ScaleError, match="out holds another run \\(seed 0, not 1\\)"):
        open_folder(tmp_path / "out", Job("x", None, "0" * 64, 8, 1, 4, 8))
    (tmp_path / "file").write_text("")
    with pytest.raises(ScaleError, match="file is a file"):
        open_folder(tmp_path / "file", job)
