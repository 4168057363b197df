"""The page's files, the same for the server and for a static folder, and what the page is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastgen_course.datasets.captions import grammar_tables
from fastgen_course.language.caption_edit import FILLED_IN
from fastgen_course.language.edits import ADD_WORDS
from fastgen_course.language.guard import guard_tables
from fastgen_course.language.rules import rule_tables
from fastgen_course.serve.model import CAPTION, Served
from fastgen_course.serve.wire import MAX_PICTURES, MAX_SEED

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}
VARIANTS = 4


def page_files(told: dict[str, Any]) -> dict[str, bytes]:
    """Every file of the page by its name: HTML, CSS, scripts, the grammar, and `page.json`."""
    files = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file()}
    files["grammar.json"] = _json(grammar())
    files["page.json"] = _json(told)
    return files


def grammar() -> dict[str, Any]:
    """What the page needs to read captions and requests as the package does."""
    rules = rule_tables() | guard_tables() | {"add_words": sorted(ADD_WORDS)}
    return {"captions": grammar_tables(), "rules": rules, "filled_in": list(FILLED_IN)}


def told_by_server(served: Served, reads_edits: str) -> dict[str, Any]:
    """`page.json` of a page whose pictures the server draws."""
    return {**_told(served), "engine": "server", "reads_edits": reads_edits}


def told_by_files(served: Served) -> dict[str, Any]:
    """`page.json` of a page that draws by itself, with the files beside it."""
    return {
        **_told(served),
        "engine": "page",
        "reads_edits": "keyword rules",
        "noise_width": served.noise_width,
        "key": served.key,
    }


def _told(served: Served) -> dict[str, Any]:
    return {
        "model": served.name,
        "caption": CAPTION,
        "variants": VARIANTS,
        "max_seed": MAX_SEED - MAX_PICTURES,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
