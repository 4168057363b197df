"""What a request may say: each field checked, each mistake one sentence that says the mend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastgen_course.datasets.captions import Attributes, CaptionError, parse

MAX_BODY_BYTES = 4096
MAX_PICTURES = 8
MAX_SEED = 2**31 - 1
EXAMPLE = '{"caption": "a red boot", "seed": 0, "count": 1}'


class Refusal(Exception):
    """A request that is not answered: an HTTP status of 4xx or 5xx, and one sentence."""

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after_s = status, sentence, retry_after_s


@dataclass(frozen=True)
class DrawRequest:
    """`count` pictures of a caption; picture k has the noise of `seed + k`."""

    caption: str
    attributes: Attributes
    seed: int
    count: int

    @property
    def seeds(self) -> list[int]:
        """One seed a picture."""
        return [self.seed + k for k in range(self.count)]


@dataclass(frozen=True)
class EditRequest:
    """A caption, and what to change of it."""

    caption: str
    request: str


def read_draw(body: bytes) -> DrawRequest:
    """The body of a request to draw. Raises `Refusal` 400 or 422."""
    fields = _object(body, {"caption", "seed", "count"}, needed=("caption",))
    caption = fields["caption"]
    try:
        attributes = parse(caption)
    except CaptionError as error:
        raise Refusal(422, _sentence(error)) from error
    count = _whole(fields.get("count", 1), "count", 1, MAX_PICTURES)
    seed = _whole(fields.get("seed", 0), "seed", 0, MAX_SEED - MAX_PICTURES + 1)
    return DrawRequest(caption, attributes, seed, count)


def read_edit(body: bytes) -> EditRequest:
    """The body of a request to edit a caption. Raises `Refusal` 400 or 422."""
    fields = _object(body, {"caption", "request"}, needed=("caption", "request"))
    for name in ("caption", "request"):
        if not isinstance(fields[name], str):
            raise Refusal(422, f"{name} must be a text, got {_kind(fields[name])}.")
    return EditRequest(fields["caption"], fields["request"])


def _object(body: bytes, known: set[str], needed: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        fields = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the request is not JSON in UTF-8; send {EXAMPLE}.") from error
    if not isinstance(fields, dict):
        raise Refusal(400, f"the request must be a JSON object, got {_kind(fields)}.")
    if unknown := sorted(set(fields) - known):
        raise Refusal(
            422,
            f"there is no field {json.dumps(unknown[0][:40])}; a request holds "
            f"{', '.join(sorted(known))}.",
        )
    for name in needed:
        if name not in fields:
            raise Refusal(422, f"the request has no {name}; send {EXAMPLE}."
                          if name == "caption" else f"the request has no {name}; say in words "
                          'what to change, such as "make it green".')  # fmt: skip
    return fields


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        said = str(value)[:30] if isinstance(value, int | float) else _kind(value)
        raise Refusal(422, f"{name} must be a whole number from {low} to {high:,}, got {said}.")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return names.get(type(value), json.dumps(value)[:30])


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
