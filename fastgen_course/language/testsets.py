"""The two test sets: free wording and edit requests, fixed by hash before anything was trained.

They are never trained on and nothing is tuned on them; `unseen_words` says which of their words
the lexicon and the training generator never use, so that those requests are reported apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from fastgen_course.datasets.captions import Attributes
from fastgen_course.files import require

# Their hashes, recorded on the day they were written.
SHA256 = {
    "free_wording": "c36d6173bd6879eaa7501b4698031c925a25ff523006f56072289982af362654",
    "edit_requests": "482b6d0b1502931db04530a8a3f2261728737c7faea4a21a89d04be38c9b61fa",
}


@dataclass(frozen=True)
class Wording:
    """A request for a picture in free words, and what it asks for."""

    text: str
    gold: Attributes


@dataclass(frozen=True)
class EditRequest:
    """A description, a request to change it, and the description after the change.

    `kind` is the slot that changes, "several", "remove" (gold is the empty scene) or "add" (the
    source is one).
    """

    kind: str
    source: Attributes
    request: str
    gold: Attributes


def free_wording() -> list[Wording]:
    """The 200 prompts in free wording. Raises `DataFileError` for a missing or altered file."""
    return [Wording(row["text"], Attributes(**row["gold"])) for row in _items("free_wording")]


def edit_requests() -> list[EditRequest]:
    """The 200 edit requests. Raises `DataFileError` for a missing or altered file."""
    return [
        EditRequest(
            row["kind"], Attributes(**row["source"]), row["request"], Attributes(**row["gold"])
        )
        for row in _items("edit_requests")
    ]


def _items(name: str) -> list[dict]:
    path = require(f"language/{name}.json", SHA256[name])
    return json.loads(path.read_text(encoding="utf-8"))["items"]


def words_of(text: str) -> list[str]:
    """The words of `text` in lower case; a hyphen parts two words, so that rare pairs count."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def unseen_words(text: str, known: Collection[str]) -> list[str]:
    """The words of `text` that are not among `known`, in order."""
    return [word for word in words_of(text) if word not in known]
