"""Many pictures in shards: what each holds, how it is seeded, and files that are whole or absent.

A run is cut into *batches*, the unit of randomness and of arithmetic: every batch has a seed of its
own, derived from its number, and is drawn in one call, in which each prompt has its own row of
noise. A *shard* is a whole number of batches in one file. The pictures are therefore the same, to
the last bit, however many workers draw them and however the batches are cut into shards. (Another
batch size is another run: it would change both the seeds and the order of the sums in a product.
So does another kind of processor, which may round some pixels to the neighbouring value.)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from fastgen_course.files import DataFileError, atomic_write, read_json, sha256_of, write_json
from fastgen_course.runtimes.prompts import ScaleError
from fastgen_course.runtimes.samplers import Sampler
from fastgen_course.show import to_uint8

_JOB = "job.json"
_SEEDS = 2**32  # torch's CPU generator reads no more of its seed than this


@dataclass(frozen=True)
class Job:
    """All that decides the pictures of a run and how they lie in files.

    Attributes:
        model: the name of what draws.
        weights_sha256: of its weights; None for a sampler without shipped weights.
        prompts_sha256: of the captions, in order.
        images: how many; the captions are used again from the first when they run out.
        seed: another seed, other pictures.
        batch: pictures a call of the sampler.
        shard: pictures a file, a multiple of `batch`.

    Raises `ScaleError` for sizes below 1, a negative seed, or a shard of broken batches.
    """

    model: str
    weights_sha256: str | None
    prompts_sha256: str
    images: int
    seed: int = 0
    batch: int = 64
    shard: int = 512

    def __post_init__(self) -> None:
        for name in ("images", "batch", "shard"):
            if getattr(self, name) < 1:
                raise ScaleError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ScaleError(f"seed must be 0 or more, got {self.seed}.")
        if self.shard % self.batch:
            raise ScaleError(
                f"a shard holds whole batches: shard={self.shard} is no multiple of "
                f"batch={self.batch}."
            )

    @property
    def shards(self) -> int:
        """How many shards there are; the last may be smaller."""
        return -(-self.images // self.shard)


@dataclass(frozen=True)
class Shard:
    """One file's worth: its number, the number of its first picture, and its captions."""

    index: int
    first: int
    captions: tuple[str, ...]


def plan(job: Job, captions: Iterator[str]) -> Iterator[Shard]:
    """Cut a stream of captions into the job's shards, one at a time."""
    for index in range(job.shards):
        first = index * job.shard
        count = min(job.shard, job.images - first)
        yield Shard(index, first, tuple(islice(captions, count)))


def batch_seed(seed: int, batch: int) -> int:
    """The seed of a batch, below 2^32: no two of a run's first 2^32 batches share one.

    PyTorch's CPU generator (a Mersenne twister) is seeded with 32 bits. Hashing (seed, batch) into
    so few would give two of 100,000 batches the same noise with a probability of two thirds (the
    birthday problem), so the run's seed is hashed and the batch counts on from there.
    """
    return (_start(seed) + batch) % _SEEDS


@lru_cache(maxsize=16)
def _start(seed: int) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def draw_shard(sample: Sampler, job: Job, shard: Shard) -> np.ndarray:
    """The shard's pictures, uint8 (N, H, W, 3), batch by batch."""
    parts = []
    for start in range(0, len(shard.captions), job.batch):
        number = (shard.first + start) // job.batch
        generator = torch.Generator().manual_seed(batch_seed(job.seed, number))
        images = sample(list(shard.captions[start : start + job.batch]), generator)
        parts.append(to_uint8(images))
    return np.concatenate(parts)


def shard_paths(folder: Path, index: int) -> tuple[Path, Path]:
    """A shard's pictures (.npz) and its manifest (.json)."""
    return folder / f"shard_{index:06d}.npz", folder / f"shard_{index:06d}.json"


def write_shard(folder: Path, job: Job, shard: Shard, images: np.ndarray) -> None:
    """Write the pictures, then the manifest that vouches for them: each whole or not at all.

    Raises `DataFileError` for a full or read-only disk.
    """
    pictures, manifest = shard_paths(folder, shard.index)
    with atomic_write(pictures) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, images=images)
    about = {
        "index": shard.index,
        "first": shard.first,
        "model": job.model,
        "weights_sha256": job.weights_sha256,
        "seed": job.seed,
        "batch": job.batch,
        "captions": list(shard.captions),
        "sha256": sha256_of(pictures),
    }
    write_json(manifest, about)


def shard_state(folder: Path, job: Job, shard: Shard) -> str:
    """ "whole", "missing" (never finished) or "damaged": what lies in the folder of this shard."""
    pictures, manifest = shard_paths(folder, shard.index)
    if not manifest.is_file():
        return "missing"
    try:
        about = read_json(manifest)
        wanted = (list(shard.captions), job.seed, job.batch, job.model, job.weights_sha256)
        keys = ("captions", "seed", "batch", "model", "weights_sha256")
        same = tuple(about[key] for key in keys) == wanted
        return "whole" if same and about["sha256"] == sha256_of(pictures) else "damaged"
    except (OSError, KeyError, TypeError):
        return "damaged"


def open_folder(folder: Path, job: Job) -> None:
    """Make the folder and write down the job; the same job may go on, another is refused.

    What a killed worker left half-written is removed. Raises `ScaleError` for a folder of another
    job and `DataFileError` for one that cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ScaleError(f"{folder.name} is a file; give a folder for the pictures.")
    note = folder / _JOB
    if note.is_file():
        before, now = read_json(note), asdict(job)
        other = [
            f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]
        ]
        if other:
            raise ScaleError(
                f"{folder.name} holds another run ({'; '.join(other)}); give the same settings to "
                "go on with it, or choose another folder."
            )
    else:
        write_json(note, asdict(job))
    remove_halves(folder)


def remove_halves(folder: Path) -> None:
    """Remove what killed workers left half-written; no worker may be at work."""
    for half in folder.glob("*.part"):
        half.unlink(missing_ok=True)


def read_job(folder: Path | str) -> Job:
    """The job that a folder holds. Raises `ScaleError` when it holds none."""
    note = Path(folder) / _JOB
    if not note.is_file():
        raise ScaleError(f"{Path(folder).name} holds no pictures drawn across workers.")
    return Job(**read_json(note))


def read_shards(folder: Path | str) -> Iterator[tuple[list[str], np.ndarray]]:
    """(captions, pictures uint8 (N, H, W, 3)) of each shard in order, verified, one at a time.

    Raises `DataFileError` for a shard that is missing or damaged.
    """
    folder = Path(folder)
    for index in range(read_job(folder).shards):
        pictures, manifest = shard_paths(folder, index)
        again = "run the same command again to draw it"
        if not manifest.is_file():
            raise DataFileError(f"{pictures.name} is not finished; {again}.")
        try:
            about = read_json(manifest)
            if sha256_of(pictures) != about["sha256"]:
                raise DataFileError(f"{pictures.name} is damaged; {again}.")
            with np.load(pictures, allow_pickle=False) as arrays:
                yield about["captions"], arrays["images"]
        except (FileNotFoundError, KeyError, zipfile.BadZipFile) as error:
            raise DataFileError(f"{pictures.name} is damaged; {again}.") from error
