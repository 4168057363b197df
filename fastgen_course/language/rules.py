"""Keyword rules: what a request asks for, found with the lexicon alone. The road without a model.

A rule knows the words of its list and a few turns of speech ("not red but blue", "change X to Y").
It says which words it did not know, and refuses where two values of one slot stand against each
other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from fastgen_course.datasets.captions import SLOTS, Attributes, CaptionError
from fastgen_course.language import lexicon
from fastgen_course.language.guard import Impossible, checked, not_drawable

_PHRASES = lexicon.phrases()
_COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    **{tuple(p.split()): ("size", "large") for p in lexicon.BIGGER},
    **{tuple(p.split()): ("size", "small") for p in lexicon.SMALLER},
    **{tuple(p.split()): ("remove", "") for p in lexicon.REMOVE},
    **{tuple(p.split()): ("background", "white") for p in lexicon.PLAIN},
}
_LONGEST = max(map(len, (*_PHRASES, *_COMMANDS)))
_BASIC = frozenset(SLOTS["colour"])
_PALE = {v.removeprefix("pale "): v for v in SLOTS["background"] if v.startswith("pale ")}
_ARTICLES = frozenset(("a", "an", "the", "some", "this", "that", "its", "any", "more", "so", "to"))
_NOT = frozenset(("not", "no", "never", "without", "from", "than", "less", "isn't", "don't"))
_VERBS = frozenset(
    ("change", "turn", "swap", "replace", "exchange", "switch", "trade", "transform", "convert")
)
_COLOUR_WORDS = frozenset(("colour", "color", "coloured", "colored", "shade", "tone"))
_TO = frozenset(("to", "into", "for", "by", "with"))
_OPPOSITE = {"small": "large", "large": "small"}


@dataclass
class Mention:
    """A value that the request names, at tokens start to end. `old`: it is what must go."""

    slot: str
    value: str
    start: int
    end: int
    words: tuple[str, ...]
    old: bool = False


@dataclass(frozen=True)
class Reading:
    """What the rules made of a request: the slots it asks for, and the words they do not know."""

    wanted: dict[str, str]
    removed: bool
    unknown: tuple[str, ...]


def read_request(text: str, source: Attributes | None = None) -> Reading:
    """Read a request; `source` is the description that it changes, None for a new picture.

    Raises `CaptionError` for two values of one slot, for a thing that cannot be drawn, and for
    what `guard.checked` refuses.
    """
    tokens = _tokens(checked(text))
    mentions, unknown = _mentions(tokens)
    _backdrops(mentions, tokens)
    _old_values(mentions, tokens)
    for word in unknown:
        at = tokens.index(word)
        # "a shirt for a child" shows no child, "the size of a house" no house.
        meant = not {"for", "like", "as", "of"} & set(tokens[max(0, at - 3) : at])
        meant &= _after(tokens, at + 1) not in ("sized", "coloured", "colored", "'s")
        if meant and {word, _singular(word)} & set(lexicon.UNDRAWABLE):
            raise not_drawable(word)
    removed = any(m.slot == "remove" for m in mentions)
    wanted: dict[str, str] = {}
    for slot in SLOTS:
        values = _values(slot, mentions, tokens, source)
        if values:
            wanted[slot] = values[-1]
    if removed and wanted.get("garment") not in (None, source and source.garment):
        removed = False  # "take the coat away and put a boot there"
    if wanted.get("garment") == "nothing":
        removed = True
    if source and "garment" not in wanted:  # "without the coat", "no more boots"
        gone = [m for m in mentions if m.slot == "garment" and m.value == source.garment and m.old]
        removed |= any({"without", "no"} & set(tokens[max(0, m.start - 3) : m.start]) for m in gone)
    return Reading(wanted, removed, tuple(unknown))


def unknown_runs(text: str) -> int:
    """How many runs of words that no list has stand in a request; words between them part runs."""
    tokens = _tokens(text)
    _, unknown = _mentions(tokens)
    new = [word in unknown for word in tokens]
    return sum(here and not before for here, before in zip(new, [False, *new], strict=False))


def contradiction(text: str, source: Attributes | None = None) -> str | None:
    """The sentence about two values side by side ("a red blue shoe"), or None.

    Only what no reading can mend: "red, no, blue" and "change red to blue" are none, nor is "make
    the coat a gown" where `source` has a coat.
    """
    tokens = _tokens(text)
    mentions, _ = _mentions(tokens)
    _backdrops(mentions, tokens)
    _old_values(mentions, tokens)
    for first, second in pairwise(mentions):
        if first.slot != second.slot or first.value == second.value or first.slot == "remove":
            continue
        between = tokens[first.end : second.start]
        if source and first.value == getattr(source, first.slot) and between in (["a"], ["an"]):
            continue
        if not first.old and not second.old and set(between) <= {"and", "a", "an", "both"}:
            return _against(first.slot, first.value, second.value)
    return None


def _against(slot: str, first: str, second: str) -> str:
    return f'the request asks for two values of {slot}, "{first}" and "{second}"; keep one.'


# --- words -------------------------------------------------------------------------------------


def _tokens(text: str) -> list[str]:
    """Words and the stops between them; a hyphen parts two words."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*|[,.;:?!]", text.lower().replace("’", "'"))


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


def _match(words: list[str]) -> tuple[str, str] | None:
    """What these words say, the last one also in its plural, with "-ish" or as a comparative."""
    last = words[-1]
    stems = [last, _singular(last)]
    for ending in ("ish", "er"):  # "greenish", "reddish", "bluish"; "greener", "redder", "bluer"
        if last.endswith(ending):
            stem = last.removesuffix(ending)
            stems += (
                [stem, stem[:-1], f"{stem}e"] if stem[-2:-1] == stem[-1:] else [stem, f"{stem}e"]
            )
    for form in stems:
        key = (*words[:-1], form)
        if found := _COMMANDS.get(key) or _PHRASES.get(key):
            return found
    return None


def _mentions(tokens: list[str]) -> tuple[list[Mention], list[str]]:
    """Every value named, longest phrase first, and the words that no list has."""
    mentions: list[Mention] = []
    unknown: list[str] = []
    at = 0
    while at < len(tokens):
        for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
            words = tokens[at : at + length]
            if found := _match(words):
                mentions.append(Mention(*found, at, at + length, tuple(words)))
                break
        else:
            length = 1
            word = tokens[at]
            if word.isalnum() and word not in lexicon.FUNCTION_WORDS:
                unknown.append(word)
        at += length
    # "nothing else" and "nothing fancy" speak of no empty scene.
    mentions = [m for m in mentions if not (m.words == ("nothing",) and _after(tokens, m.end) in
                                            ("else", "but", "fancy", "special"))]  # fmt: skip
    # "salmon orange": of two colours side by side the plain name counts.
    kept = []
    for i, m in enumerate(mentions):
        after = mentions[i + 1] if i + 1 < len(mentions) else None
        shade = m.slot == "colour" and m.words[-1] not in _BASIC
        adjacent = after and after.start == m.end
        if shade and adjacent and after.words[-1] in _BASIC:
            continue
        if m.words == ("little",) and _graded(tokens, m):
            continue  # "a little bigger" is no small thing
        if m.words == ("dark",) and adjacent and after.slot == "colour":
            continue  # "dark chocolate" is no black background
        kept.append(m)
    return kept, unknown


def _graded(tokens: list[str], m: Mention) -> bool:
    """Whether it only grades the word that follows: "a little bigger", "a little too red"."""
    after = _after(tokens, m.end)
    return tokens[m.start - 1 : m.start] == ["a"] and (
        after in ("bit", "more", "less", "too") or (after.endswith("er") and len(after) > 4)
    )


def _after(tokens: list[str], at: int) -> str:
    return tokens[at] if at < len(tokens) else ""


def _backdrops(mentions: list[Mention], tokens: list[str]) -> None:
    """Which colours are a backdrop's ("a pink wall") and which pale ones a garment's."""
    for i, m in enumerate(mentions):
        after, before = _after(tokens, m.end), m.start - 1
        while before >= 0 and tokens[before] in _ARTICLES:
            before -= 1
        previous = tokens[before] if before >= 0 else ""
        noun = i + 1 < len(mentions) and mentions[i + 1].slot == "garment"
        worn = noun and not set(tokens[m.end : mentions[i + 1].start]) - {"pair", "of"}
        named = after in lexicon.BACKDROPS
        led = previous in lexicon.BEFORE_BACKDROP or _backdrop_before(mentions, tokens, i)
        if m.slot == "colour" and (named or (led and not worn)):
            if m.value in _PALE:
                m.slot, m.value = "background", _PALE[m.value]
            elif named or previous not in lexicon.BEFORE_BACKDROP:
                raise Impossible(
                    f"there is no {m.value} background; choose {', '.join(SLOTS['background'])}."
                )
        elif m.slot == "background" and m.value in _PALE.values() and after in _COLOUR_WORDS:
            if _after(tokens, m.end + 1) not in lexicon.BACKDROPS and not led:
                m.slot, m.value = "colour", m.value.removeprefix("pale ")  # "a candyfloss colour"
        elif m.slot == "background" and worn and not named:
            if m.value in _PALE.values():
                m.slot, m.value = "colour", m.value.removeprefix("pale ")
            elif not led:
                raise Impossible(
                    f"a garment cannot be {m.value}; choose {', '.join(SLOTS['colour'])}."
                )


def _backdrop_before(mentions: list[Mention], tokens: list[str], index: int) -> bool:
    """ "the background should be pink": a backdrop's name before it, with little between."""
    m = mentions[index]
    start = mentions[index - 1].end if index else 0
    start = max(start, m.start - 6)
    between = tokens[start : m.start]
    names = [k for k, word in enumerate(between) if word in lexicon.BACKDROPS]
    return bool(names) and not {"and", ".", ";", ",", "it", "make"} & set(between[names[-1] + 1 :])


def _old_values(mentions: list[Mention], tokens: list[str]) -> None:
    """Mark what is named only to be left: "not red", "instead of the bag", "change red to blue"."""
    for m in mentions:
        before = [t for t in tokens[max(0, m.start - 3) : m.start] if t not in _ARTICLES]
        if (before and before[-1] == "too") or before[-1:] == ["less"]:
            if m.slot == "size":
                m.value = _OPPOSITE[m.value]
            continue
        if any(t in _NOT for t in before[-1:]) or before[-2:] in (
            ["instead", "of"],
            ["tired", "of"],
        ):
            m.old = True
        if _after(tokens, m.end) == "is" and "wrong" in tokens[m.end : m.end + 3]:
            m.old = True
    for i, m in enumerate(mentions):
        for other in mentions[i + 1 :]:
            if other.slot != m.slot or other.old:  # "a dress, sorry, not trousers" keeps the dress
                continue
            between = tokens[m.end : other.start]
            corrected = {"no", "sorry", "mean", "rather"} & set(between) and {",", "?", ":"} & set(
                between
            )
            verbs = [t for t in tokens[: m.start] if t in _VERBS]
            if corrected or (verbs and set(between) & _TO):
                m.old = True


def _values(
    slot: str, mentions: list[Mention], tokens: list[str], source: Attributes | None
) -> list[str]:
    """The values of one slot that are asked for; at most one. Raises `CaptionError` for two."""
    values = list(dict.fromkeys(m.value for m in mentions if m.slot == slot and not m.old))
    there = getattr(source, slot) if source else None
    if len(values) > 1:  # "make the red one blue" names what is there, too
        values = [v for v in values if v != there]
    if len(values) > 1:
        raise CaptionError(_against(slot, values[0], values[1]))
    return values


# --- applying ----------------------------------------------------------------------------------


def applied(reading: Reading, source: Attributes | None) -> Attributes:
    """What the picture shows after the request. Raises `CaptionError` when it asks for nothing."""
    wanted = dict(reading.wanted)
    if not wanted and not reading.removed:
        words = ", ".join(f'"{w}"' for w in reading.unknown[:3]) or "the request"
        raise CaptionError(
            f"the rules find nothing to draw in {words}; name a size, a colour, a garment, "
            "a background or a style."
        )
    if reading.removed:
        there = source.background if source else None
        return Attributes(garment="nothing", background=wanted.get("background", there))
    if source is None:
        return Attributes(**wanted)
    if source.garment == "nothing":
        if "garment" not in wanted and set(wanted) - {"background"}:
            raise CaptionError("the scene is empty; name the garment to put into it.")
        wanted.setdefault("background", source.background)
        return Attributes(**{"garment": "nothing"} | wanted)
    return replace(source, **wanted)


def rule_tables() -> dict[str, Any]:
    """The rules' word lists as plain JSON, for a reader in another language (the page's own)."""
    return {
        "phrases": [[" ".join(words), *meaning] for words, meaning in _PHRASES.items()],
        "commands": [[" ".join(words), *meaning] for words, meaning in _COMMANDS.items()],
        "pale": _PALE,
        "opposite": _OPPOSITE,
        "articles": sorted(_ARTICLES),
        "not": sorted(_NOT),
        "verbs": sorted(_VERBS),
        "colour_words": sorted(_COLOUR_WORDS),
        "to": sorted(_TO),
        "backdrops": list(lexicon.BACKDROPS),
        "before_backdrop": list(lexicon.BEFORE_BACKDROP),
        "function_words": sorted(lexicon.FUNCTION_WORDS),
        "undrawable": list(lexicon.UNDRAWABLE),
    }
