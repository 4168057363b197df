"""A file of captions, one a line: checked once, then read in order and never held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fastgen_course.datasets.captions import MAX_CHARACTERS, CaptionError, parse

_LINE_BYTES = 4 * MAX_CHARACTERS + 2  # four bytes a character at most, and the line's end
_EXPLAINED = 5  # so many skipped lines are given with their reasons,
_NAMED = 20  # so many more by number alone


class ScaleError(ValueError):
    """Drawing across workers that cannot begin or go on; the message says why, and the mend."""


class PromptFile:
    """A text file of captions, one a line; blank lines are no prompts, bad lines are skipped.

    Attributes:
        path: the file.
        count: how many of its lines are captions.
        bad: the numbers (from 1) of the lines that are not.
        sha256: of the captions, in order; what a resumed run compares.

    Raises `ScaleError` for a file that cannot be read or holds no caption at all.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.count = 0
        self.bad: set[int] = set()
        self._reasons: dict[int, str] = {}
        digest = hashlib.sha256()
        for number, line in self._lines():
            try:
                caption = _text(line)
                parse(caption)
            except CaptionError as error:
                self.bad.add(number)
                if len(self._reasons) < _EXPLAINED:
                    self._reasons[number] = _first_sentence(error)
                continue
            self.count += 1
            digest.update(caption.encode() + b"\n")
        self.sha256 = digest.hexdigest()
        if self.count == 0:
            first = "".join(f" (line {n}: {why})" for n, why in [*self._reasons.items()][:1])
            raise ScaleError(
                f"{self.path.name} holds no caption that can be drawn{first}; write one a line."
            )

    def captions(self) -> Iterator[str]:
        """The captions in order, and again from the first, without end.

        Raises `ScaleError` when the file is no longer the one that was checked.
        """
        while True:
            seen = 0
            for number, line in self._lines():
                if number not in self.bad:
                    seen += 1
                    if seen <= self.count:
                        yield _text(line)
            if seen != self.count:
                raise ScaleError(
                    f"{self.path.name} changed while it was being read; run the command again."
                )

    def skipped(self) -> str | None:
        """The lines that are no captions, by number, in one sentence; None when all are."""
        if not self.bad:
            return None
        rest = sorted(self.bad - self._reasons.keys())
        parts = [f"line {n} ({why})" for n, why in self._reasons.items()]
        if rest:
            named = ", ".join(map(str, rest[:_NAMED])) + (", ..." if len(rest) > _NAMED else "")
            parts.append(f"{len(rest):,} more (lines {named})")
        lines = f"{len(self.bad):,} line{'s were' if len(self.bad) > 1 else ' was'}"
        return f"{self.path.name}: {lines} skipped, the rest is drawn: {', '.join(parts)}."

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """(number, bytes) of every line that is not blank; None for one of any greater length."""
        try:
            with open(self.path, "rb") as handle:
                number = 0
                while line := handle.readline(_LINE_BYTES):
                    number += 1
                    whole = len(line) < _LINE_BYTES or line.endswith(b"\n")
                    piece = line
                    while not piece.endswith(b"\n") and (piece := handle.readline(_LINE_BYTES)):
                        whole = False
                    if not whole:
                        yield number, None
                        continue
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")  # some editors begin UTF-8 so
                    if line.strip():
                        yield number, line.strip()
        except OSError as error:
            raise ScaleError(
                f"{self.path.name} cannot be read ({error.strerror or error}); "
                "give a text file with one caption a line."
            ) from error


def _text(line: bytes | None) -> str:
    if line is None:
        raise CaptionError(f"it is longer than {MAX_CHARACTERS} characters.")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise CaptionError("it is not UTF-8 text.") from error


def _first_sentence(error: CaptionError) -> str:
    return str(error).split(". ")[0].rstrip(".?")
