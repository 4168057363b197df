"""Find, fetch, verify and write files, with one clear sentence when that fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class DataFileError(OSError):
    """A data or weight file is missing, damaged or cannot be written."""


@dataclass(frozen=True)
class Published:
    """A file that public mirrors carry: its address there and that copy's MD5.

    The mirrors' gzip header differs from ours by a file name, so the compressed bytes have another
    hash than the copy in `data/`. The decoded content is the same and is what readers verify.
    """

    url: str
    md5: str


_FASHION_MIRROR = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
PUBLISHED = {
    "fashion_mnist/train-images-idx3-ubyte.gz": Published(
        _FASHION_MIRROR + "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"
    ),
    "fashion_mnist/train-labels-idx1-ubyte.gz": Published(
        _FASHION_MIRROR + "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"
    ),
    "fashion_mnist/t10k-images-idx3-ubyte.gz": Published(
        _FASHION_MIRROR + "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"
    ),
    "fashion_mnist/t10k-labels-idx1-ubyte.gz": Published(
        _FASHION_MIRROR + "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"
    ),
}


def data_dir() -> Path:
    """The folder that holds data, weights and results.

    `FASTGEN_DATA` if set, else the checkout's `data/` beside the package, else a cache folder of
    the user's (for an installed package without a checkout).
    """
    if chosen := os.environ.get("FASTGEN_DATA"):
        return Path(chosen)
    checkout = Path(__file__).resolve().parent.parent / "data"
    if checkout.is_dir():
        return checkout
    import pooch  # deferred: 0.1 s that a checkout never needs

    return Path(pooch.os_cache("fastgen_course"))


def data_path(*parts: str) -> Path:
    """A path below `data_dir()`; nothing is checked or made."""
    return data_dir().joinpath(*parts)


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def require(name: str, sha256: str | None = None) -> Path:
    """The path of the data file `name` (relative to `data_dir()`, with `/`), verified.

    A missing file that a public mirror carries is fetched and kept. Raises `DataFileError`, in one
    sentence with the mend, for a file that is missing, or whose SHA-256 is not `sha256`.
    """
    path = data_path(*name.split("/"))
    if not path.is_file():
        return _fetch(name, path)
    if sha256 is not None and sha256_of(path) != sha256:
        raise damaged(name)
    return path


def damaged(name: str) -> DataFileError:
    """The error for a file whose content is not what was shipped."""
    return DataFileError(
        f"data/{name} is truncated or altered (its SHA-256 does not match); {_mend(name)}."
    )


def _mend(name: str) -> str:
    if name in PUBLISHED:
        return "delete it and run again to fetch it anew, or restore it with `git checkout -- data`"
    if name.startswith("weights/"):
        stem = Path(name).stem
        return (
            "restore it with `git checkout -- data/weights`, "
            f"or train it again with `python -m fastgen_course train {stem}`"
        )
    return "restore it with `git checkout -- data`"


def _fetch(name: str, path: Path) -> Path:
    published = PUBLISHED.get(name)
    if published is None:
        raise DataFileError(f"data/{name} is missing; {_mend(name)}.")
    import pooch

    try:
        pooch.retrieve(
            published.url,
            known_hash=f"md5:{published.md5}",
            fname=path.name,
            path=path.parent,
            progressbar=False,
        )
    except Exception as error:  # pooch passes on whatever its HTTP library raises
        raise DataFileError(
            f"data/{name} is missing and could not be fetched from {published.url} "
            f"({type(error).__name__}); restore it with `git checkout -- data`, "
            "or point FASTGEN_DATA at a folder that has it."
        ) from error
    return path


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path` at once.

    Nothing half-written is left behind: on any failure the temporary file is removed and the old
    file stays. A full or read-only disk raises `DataFileError` with the mend.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> OSError:
    if isinstance(error, DataFileError):
        return error
    if error.errno == errno.ENOSPC:
        return DataFileError(f"The disk is full: {path.name} was not written; free some space.")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DataFileError(
            f"{path.name} was not written: the folder {path.parent.name}/ is read-only; choose "
            "another with FASTGEN_DATA or --out, or change its permissions."
        )
    return DataFileError(f"{path.name} was not written: {error.strerror or error}.")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> dict:
    """Read a JSON object; `DataFileError` when it is missing or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataFileError(
            f"{path.name} is missing; restore it with `git checkout -- data`."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataFileError(
            f"{path.name} is not valid JSON; restore it with `git checkout -- data`."
        ) from error
