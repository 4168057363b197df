"""The page as files for any static web server; the model draws in the reader's own browser."""

from __future__ import annotations

from pathlib import Path

from fastgen_course.files import atomic_write
from fastgen_course.runtimes import browser_bundle
from fastgen_course.runtimes.browser_bundle import ABSENT, BUILD, bundle_fault
from fastgen_course.serve.model import MODEL, ServeError, load_served
from fastgen_course.serve.page_files import page_files, told_by_files

MODEL_FILE = "model.onnx"
MARK = "page.json"  # written last: a folder that has it is whole, and ours to write anew


def write_static(folder: Path | str, model: str = MODEL) -> dict[str, int]:
    """Write the page, ONNX Runtime Web and the model into `folder`; each file's bytes.

    Args:
        folder: made if missing; it may hold nothing but an older page of ours.
        model: as for `model.load_served`.

    Raises, in one sentence, `ServeError` for a folder that holds other things and where the page
    side is not built, and whatever `load_served` raises.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ServeError(f"--static {folder.name} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ServeError(f"--static {folder.name} holds other files; name an empty folder.")
    if fault := bundle_fault(browser_bundle.FOLDER):
        how = "is not built" if fault == ABSENT else "was built from older sources"
        raise ServeError(
            f"the page's ONNX Runtime {how}: with Node.js 20 or newer, run `make browser` (or "
            f"`{BUILD}`) in the course's folder; `serve` without --static works without it."
        )
    served = load_served(model)
    files = {MODEL_FILE: served.path.read_bytes()}
    dist = browser_bundle.FOLDER / "dist"
    files |= {name: (dist / name).read_bytes() for name in browser_bundle.FILES}
    files |= page_files(told_by_files(served))
    files[MARK] = files.pop(MARK)
    (folder / MARK).unlink(missing_ok=True)
    for name, content in files.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    return {name: len(content) for name, content in files.items()}
