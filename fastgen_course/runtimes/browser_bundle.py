"""ONNX Runtime for a page, as node built it from the lockfile: where it lies, whether it is whole.

The widget of notebook 14 and the static serving page run on the same two files, `widget.js` (with
ONNX Runtime Web in it) and `ort.wasm.gz`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "widgets" / "browser"
BUILD = "npm --prefix fastgen_course/widgets/browser run setup"
FILES = ("widget.js", "ort.wasm.gz")
ABSENT, STALE = "absent", "stale"


def bundle_fault(folder: Path = FOLDER) -> str:
    """What is wrong with the build in `folder`: ABSENT, STALE (of older sources), or ""."""
    dist = folder / "dist"
    try:
        built = json.loads((dist / "build.json").read_text(encoding="utf-8"))["sources"]
    except (OSError, ValueError, KeyError):
        return ABSENT
    if not all((dist / name).is_file() for name in FILES):
        return ABSENT
    try:
        return "" if built == digest_of_sources(folder) else STALE
    except OSError:  # a copy of the package without its sources
        return ABSENT


def digest_of_sources(folder: Path = FOLDER) -> str:
    """The digest that build.mjs wrote into the bundle's build.json."""
    names = [f"src/{path.name}" for path in (folder / "src").iterdir()]
    names += ["build.mjs", "package-lock.json", "package.json"]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode())
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
