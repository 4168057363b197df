"""Where a reader stands: kept for the kernel's life, and in a file when asked to."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastgen_course.files import write_json


class ProgressFileError(ValueError):
    """The file of remembered progress cannot be read or written."""


@dataclass
class Record:
    """One exercise's standing: its latest status, a detail (mistake or answer), tries so far."""

    status: str
    detail: str = ""
    tries: int = 0


@dataclass
class Session:
    """The reader's standing and settings in this kernel."""

    records: dict[str, Record] = field(default_factory=dict)
    strict: bool = True
    store: Path | None = None

    def note(self, id: str, status: str, detail: str = "") -> None:
        """Take down an attempt; a first look at an untouched stub is not a try."""
        before = self.records.get(id)
        tries = before.tries if before else 0
        if status != "not attempted":
            tries += 1
        elif before is not None and before.tries:
            return  # running the committed stub again does not undo what was achieved
        self.records[id] = Record(status, detail, tries)
        if self.store is not None:
            self._save()

    def remember(self, path: Path) -> None:
        """Join with the records in `path` (the newer of this kernel wins) and keep them there."""
        earlier = read_records(path)
        self.records = {**earlier, **self.records}
        self.store = path
        self._save()

    def forget(self) -> None:
        """Drop all records, and the file if there is one."""
        self.records.clear()
        if self.store is not None:
            self.store.unlink(missing_ok=True)
            self.store = None

    def _save(self) -> None:
        assert self.store is not None
        try:
            # Another notebook's kernel may have written to the same file since.
            merged = {**read_records(self.store), **self.records}
            write_json(self.store, {id: asdict(record) for id, record in merged.items()})
        except OSError as error:
            path, self.store = self.store, None
            raise ProgressFileError(
                f"your progress could not be written to {path} ({error}); "
                "give remember() a path that is writable."
            ) from error


def read_records(path: Path) -> dict[str, Record]:
    """Records from a progress file, empty when there is none.

    Raises ProgressFileError when the file is not what `remember` writes.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {str(id): Record(**fields) for id, fields in raw.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ProgressFileError(
            f"the progress file {path} cannot be read ({error}); delete it to start afresh."
        ) from error


def default_store() -> Path:
    """`FASTGEN_PROGRESS` if set, else `fastgen/progress.json` in the platform's state folder."""
    if chosen := os.environ.get("FASTGEN_PROGRESS"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "fastgen" / "progress.json"


SESSION = Session()
