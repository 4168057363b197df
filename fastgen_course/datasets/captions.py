"""The caption grammar: five slots, synonyms, sentence patterns, and its exact inverse."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch

from fastgen_course.datasets.fashion import FASHION_CLASSES

SLOTS: dict[str, tuple[str, ...]] = {
    "size": ("small", "large"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    "garment": (*FASHION_CLASSES, "nothing"),
    "background": ("white", "grey", "black", "pale blue", "pale green", "pale pink"),
    "style": ("photo", "sketch", "flat", "pixel art"),
}
SMALL = SLOTS["size"].index("small")
EMPTY = SLOTS["garment"].index("nothing")
FREE = -1  # in a label tensor: the slot is not asked for, or an empty scene has none

# Other ways to say a value; the value itself is always the first way.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "small": ("little", "tiny"),
    "large": ("big", "huge"),
    "red": ("scarlet",),
    "orange": ("tangerine",),
    "yellow": ("lemon",),
    "green": ("emerald",),
    "blue": ("navy",),
    "purple": ("violet",),
    "pink": ("rose",),
    "brown": ("chocolate",),
    "t-shirt": ("tee",),
    "trousers": ("pants",),
    "pullover": ("sweater", "jumper"),
    "dress": ("gown",),
    "coat": ("jacket",),
    "sandal": ("flip-flop",),
    "shirt": ("blouse",),
    "sneaker": ("trainer",),
    "bag": ("handbag",),
    "boot": ("ankle boot",),
    "nothing": ("an empty scene",),
    "white": ("snowy",),
    "grey": ("gray",),
    "black": ("dark",),
    "pale blue": ("light blue",),
    "pale green": ("light green",),
    "pale pink": ("light pink",),
    "photo": ("photograph",),
    "sketch": ("drawing",),
    "flat": ("cartoon",),
    "pixel art": ("pixelated",),
}
_PLURAL = frozenset(("trousers", "pants"))
_FILLER = frozenset(("a", "an", "the", "and", "in", "on", "background", "style", "garment"))
MAX_WORDS = 20
MAX_CHARACTERS = 300


class CaptionError(ValueError):
    """A caption that the grammar does not understand; the message names the part and the mend."""


@dataclass(frozen=True)
class Attributes:
    """What a caption asks for. None: the slot is free (in an empty scene: it does not apply)."""

    size: str | None = None
    colour: str | None = None
    garment: str | None = None
    background: str | None = None
    style: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value not in SLOTS[field.name]:
                raise CaptionError(
                    f"{field.name}={value!r} is unknown; "
                    f"choose from {', '.join(SLOTS[field.name])}."
                )
        if self.garment == "nothing" and (self.size or self.colour or self.style):
            raise CaptionError(
                "an empty scene has no size, colour or style; name a garment, or leave "
                f'"{self.size or self.colour or self.style}" out.'
            )


# Held-out combinations: for each colour and style exactly one garment, 32 of the 320 (10 %).
HELD_OUT: frozenset[tuple[str, str, str]] = frozenset(
    (colour, garment, style)
    for c, colour in enumerate(SLOTS["colour"])
    for g, garment in enumerate(SLOTS["garment"][:EMPTY])
    for s, style in enumerate(SLOTS["style"])
    if (c + 3 * g + 7 * s) % 10 == 0
)


def is_held_out(y: Attributes) -> bool:
    """Whether the (colour, garment, style) of `y` is one that no generator may train on."""
    return (y.colour, y.garment, y.style) in HELD_OUT


def held_out_mask(labels: torch.Tensor) -> torch.Tensor:
    """bool (B,): the rows of labels (B, 5) that are held-out combinations."""
    colour, garment, style = labels[:, 1], labels[:, 2], labels[:, 4]
    complete = (colour >= 0) & (garment >= 0) & (garment < EMPTY) & (style >= 0)
    return complete & ((colour + 3 * garment + 7 * style) % 10 == 0)


# --- words -------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


def _ways(value: str) -> tuple[str, ...]:
    return (value, *SYNONYMS.get(value, ()))


def _split(text: str) -> list[str]:
    return _WORD.findall(text.lower())


# Each way to say a value, as its words, to the (slot, value) that it says; longest first, so that
# "pale blue" is read before "blue". Articles are skipped before matching.
_PHRASES: dict[tuple[str, ...], tuple[str, str]] = dict(
    sorted(
        (
            (tuple(w for w in _split(way) if w not in _FILLER), (slot, value))
            for slot, values in SLOTS.items()
            for value in values
            for way in _ways(value)
        ),
        key=lambda item: -len(item[0]),
    )
)
_LONGEST = max(map(len, _PHRASES))
VOCABULARY: tuple[str, ...] = (
    "<pad>",
    *sorted({word for phrase in _PHRASES for word in phrase} | _FILLER),
)
_WORD_INDEX = {word: index for index, word in enumerate(VOCABULARY)}


def _words(caption: str) -> list[str]:
    if not isinstance(caption, str):
        raise CaptionError(f"a caption is a text, got {type(caption).__name__}.")
    if len(caption) > MAX_CHARACTERS:
        raise CaptionError(
            f"the caption has {len(caption):,} characters; keep it under {MAX_CHARACTERS}."
        )
    words = _split(caption)
    if not words:
        raise CaptionError(
            'the caption is empty; try "a small red sneaker on a white background, sketch style".'
        )
    for word in words:
        if word not in _WORD_INDEX:
            close = difflib.get_close_matches(word, VOCABULARY[1:], n=1)
            hint = f'; did you mean "{close[0]}"?' if close else "."
            raise CaptionError(f'the word "{word}" is not one that the course can draw{hint}')
    if len(words) > MAX_WORDS:
        raise CaptionError(f"the caption has {len(words)} words; keep it to {MAX_WORDS}.")
    return words


def parse(caption: str) -> Attributes:
    """Read a caption: the exact inverse of `render` for every pattern and synonym.

    Raises `CaptionError` for an empty or overlong caption, an unknown word, or two values for one
    slot.
    """
    words = [word for word in _words(caption) if word not in _FILLER]
    found: dict[str, str] = {}
    position = 0
    while position < len(words):
        for length in range(_LONGEST, 0, -1):
            if match := _PHRASES.get(tuple(words[position : position + length])):
                break
        else:
            raise CaptionError(f'"{words[position]}" alone says nothing; write "{_whole(words)}".')
        slot, value = match
        if found.setdefault(slot, value) != value:
            raise CaptionError(_contradiction(slot, found[slot], value))
        position += length
    return Attributes(**found)


def _whole(words: list[str]) -> str:
    for phrase in _PHRASES:
        if len(phrase) > 1 and set(phrase) & set(words):
            return " ".join(phrase)
    return "a garment"


def _contradiction(slot: str, first: str, second: str) -> str:
    message = f'the caption asks for two values of {slot}, "{first}" and "{second}"; keep one.'
    if slot == "colour":
        message += f" (Backgrounds are {', '.join(SLOTS['background'])}.)"
    return message


PATTERNS = 4


def render(y: Attributes, pattern: int = 0, synonyms: Sequence[int] | None = None) -> str:
    """Say `y` in words.

    Args:
        y: what to say; free slots are left out.
        pattern: 0 to PATTERNS - 1, the sentence's shape.
        synonyms: five numbers, one a slot; number k chooses way k (modulo their count) to say the
            slot's value, 0 the value itself.

    Raises `CaptionError` for another pattern.
    """
    if pattern not in range(PATTERNS):
        raise CaptionError(f"pattern {pattern} does not exist; choose 0 to {PATTERNS - 1}.")
    chosen = synonyms if synonyms is not None else (0,) * len(SLOTS)
    said = {}
    for field, number in zip(fields(y), chosen, strict=True):
        value = getattr(y, field.name)
        if value is not None:
            ways = _ways(value)
            said[field.name] = ways[number % len(ways)]
    noun = said.get("garment", "garment")
    size, colour = said.get("size", ""), said.get("colour", "")
    background, style = said.get("background", ""), said.get("style", "")
    article = "" if noun in _PLURAL or y.garment == "nothing" else "a"
    if pattern == 0:
        return _join(
            _phrase(article, size, colour, noun),
            _if(background, f" on a {background} background"),
            _if(style, f", {style} style"),
        )
    if pattern == 1:
        return _join(
            _if(style, f"{style} style: "),
            _phrase("", size, colour, noun),
            _if(background, f", {background} background"),
        )
    if pattern == 2:
        details = " and ".join(filter(None, (size, colour)))
        return _join(
            _phrase(article, noun),
            _if(details, f", {details}"),
            _if(background, f", on {background}"),
            _if(style, f", in {style} style"),
        )
    return _join(
        _if(background, f"on a {background} background "),
        _phrase(article, size, colour, noun),
        _if(style, f" in {style} style"),
    )


def _if(condition: str, text: str) -> str:
    return text if condition else ""


def _phrase(*words: str) -> str:
    return " ".join(filter(None, words))


def _join(*parts: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", "".join(parts)).strip()


# --- tensors -----------------------------------------------------------------------------------


def word_numbers(captions: Sequence[str]) -> list[list[int]]:
    """Captions as MAX_WORDS word numbers each, 0 after the last word.

    Raises `CaptionError` as `parse` does for words, and for no captions at all.
    """
    if len(captions) == 0:
        raise CaptionError("there is no caption; give at least one.")
    rows = [[_WORD_INDEX[word] for word in _words(caption)] for caption in captions]
    return [row + [0] * (MAX_WORDS - len(row)) for row in rows]


def encode_words(captions: Sequence[str]) -> torch.Tensor:
    """`word_numbers` as int64 (B, MAX_WORDS)."""
    # One tensor at the end: making and filling one a row takes longer than a small network.
    return torch.tensor(word_numbers(captions), dtype=torch.int64)


def labels_of(attributes: Sequence[Attributes]) -> torch.Tensor:
    """Attributes as int64 (B, 5): the value's index in its slot, FREE (-1) for None."""
    rows = [
        [FREE if v is None else SLOTS[s].index(v) for s, v in zip(SLOTS, astuple(y), strict=True)]
        for y in attributes
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, len(SLOTS))


def attributes_of(labels: torch.Tensor) -> list[Attributes]:
    """The inverse of `labels_of`. Raises ValueError for a label out of range."""
    result = []
    for row in labels.tolist():
        values = {}
        for (slot, names), index in zip(SLOTS.items(), row, strict=True):
            if not FREE <= index < len(names):
                raise ValueError(
                    f"the {slot} label {index} is out of range: give {FREE} to {len(names) - 1}."
                )
            values[slot] = None if index == FREE else names[index]
        result.append(Attributes(**values))
    return result


def grammar_tables() -> dict[str, Any]:
    """The grammar as plain JSON, for a reader in another language (the page's JavaScript).

    `phrases` keeps the order in which they are looked up, `vocabulary` the words' numbers.
    """
    return {
        "slots": {slot: list(values) for slot, values in SLOTS.items()},
        "ways": {value: _ways(value) for values in SLOTS.values() for value in values},
        "phrases": [[list(words), *meaning] for words, meaning in _PHRASES.items()],
        "plural": sorted(_PLURAL),
        "filler": sorted(_FILLER),
        "vocabulary": list(VOCABULARY),
        "max_words": MAX_WORDS,
        "max_characters": MAX_CHARACTERS,
        "held_out": sorted(HELD_OUT),
    }
