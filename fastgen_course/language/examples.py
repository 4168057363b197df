"""Synthetic training examples for the adapter: edit requests and free wording, with answers.

Nothing here reads the test sets. Held-out combinations appear in no description and no answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from fastgen_course.datasets.captions import SLOTS, Attributes, is_held_out, render
from fastgen_course.language import lexicon, phrasing
from fastgen_course.language.testsets import words_of

CONTRADICTORY = "contradictory"  # an answer that is no caption: two values for one slot
UNDRAWABLE = "not drawable"  # likewise: nothing that the grammar can say
REFUSALS = (CONTRADICTORY, UNDRAWABLE)
GARMENTS = SLOTS["garment"][:-1]


_PLURAL_AFTER_A = re.compile(
    r"\b[Aa] (?!pair)(?=(?:(?!pair)[\w-]+ ){0,4}?(?:jeans|slacks|leggings|chinos|joggers|trousers"
    r"|pants|sneakers|shoes|boots|sandals|flip-?flops|flops|trainers|slippers|plimsolls|wellingtons)\b)"
)


@dataclass(frozen=True)
class Example:
    """What the model reads and what it must answer. `source` is None for free wording."""

    source: Attributes | None
    request: str
    answer: Attributes | str  # a str is one of REFUSALS

    def prompt(self) -> str:
        return prompt_of(self.request, self.source)

    def answer_text(self) -> str:
        return " " + (self.answer if isinstance(self.answer, str) else render(self.answer))


def prompt_of(request: str, source: Attributes | None = None) -> str:
    """The text before the answer: few words, since every word costs time on a CPU."""
    request = " ".join(request.split())
    if source is None:
        return f"Wanted: {request}\nPicture:"
    return f"Picture: {render(source)}\nChange: {request}\nPicture:"


def examples(seed: int) -> Iterator[Example]:
    """Endless training examples: 56 % edits, 38 % free wording, 6 % that must be refused."""
    rng = random.Random(seed)
    while True:
        kind = rng.random()
        made = _edit(rng) if kind < 0.56 else _wording(rng) if kind < 0.94 else _refused(rng)
        seen = (made.source, made.answer)
        if not any(isinstance(y, Attributes) and is_held_out(y) for y in seen):
            yield made


def known_words(seed: int = 0, count: int = 20_000) -> frozenset[str]:
    """Every word of the lexicon and of `count` training requests."""
    stream = examples(seed)
    known = {word for _ in range(count) for word in words_of(next(stream).request)}
    for phrase in lexicon.phrases():
        known.update(word for part in phrase for word in words_of(part))
    for phrase in (*lexicon.BIGGER, *lexicon.SMALLER, *lexicon.REMOVE, *lexicon.PLAIN):
        known.update(words_of(phrase))
    return frozenset(known | lexicon.FUNCTION_WORDS | set(lexicon.UNDRAWABLE))


# --- pieces ------------------------------------------------------------------------------------


def _say(slot: str, value: str, rng: random.Random) -> str:
    """One of the ways to say a value."""
    if slot == "colour" and rng.random() < 0.15:
        thing = rng.choice(lexicon.THINGS[value])
        shapes = (f"{thing} {value}", f"as {value} as a {thing}", f"the colour of a {thing}")
        return rng.choice((*shapes, f"{value} like a {thing}", f"{thing}-coloured"))
    if slot == "garment" and value != "nothing" and rng.random() < 0.12:
        return rng.choice(lexicon.DESCRIPTIONS[value])
    known = lexicon.ways(slot, value)
    said = value if rng.random() < 0.25 else rng.choice(known)
    if slot in ("colour", "background") and rng.random() < 0.06:
        said += rng.choice((" coloured", "-coloured", "ish"))
    if slot == "garment":
        said = _numbered(said, rng)
    return said


def _numbered(noun: str, rng: random.Random) -> str:
    """Shoes come in pairs: "sandals", "a pair of sandals"."""
    shoes = ("sneaker", "shoe", "boot", "sandal", "flop", "trainer", "slipper", "plimsoll")
    if noun.endswith((*shoes, "wellington")) and rng.random() < 0.5:
        return rng.choice((f"{noun}s", f"{noun}s", f"pair of {noun}s"))
    return noun


def _tidy(text: str) -> str:
    """ "a orange" to "an orange", "a jeans" to "jeans", single spaces."""
    text = re.sub(r"\s+", " ", text).strip()
    text = _PLURAL_AFTER_A.sub("", text)
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def _noun_phrase(y: Attributes, rng: random.Random, *, bare: bool = False) -> str:
    """ "small red boot", at times with a word that says nothing to the grammar."""
    words = [_say(s, getattr(y, s), rng) for s in ("size", "colour") if getattr(y, s)]
    if len(words) == 2 and rng.random() < 0.15:
        words.reverse()
    if not bare and rng.random() < 0.25:
        words.insert(rng.randint(0, len(words)), rng.choice(phrasing.FILLERS))
    noun = _say("garment", y.garment, rng) if y.garment else rng.choice(("garment", "thing"))
    if y.colour and rng.random() < 0.08:
        size = [_say("size", y.size, rng)] if y.size else []
        return " ".join([*size, noun, rng.choice(("in", "dyed", "coloured")),
                         _say("colour", y.colour, rng)])  # fmt: skip
    return " ".join([*words, noun])


def _parts(y: Attributes, rng: random.Random) -> list[str]:
    """Backdrop and style as parts of a longer request, in any order."""
    parts = []
    if y.background:
        blank = y.background == "white" and rng.random() < 0.3
        shape = rng.choice(phrasing.BLANK_PART if blank else phrasing.BACKDROP_PART)
        said = _say("background", y.background, rng)
        if y.background.startswith("pale ") and rng.random() < 0.15:
            said = y.background.removeprefix("pale ")  # a pink wall is a pale pink background
        parts.append(shape.format(v=said))
    if y.style:
        parts.append(rng.choice(phrasing.STYLE_PART[y.style]))
    rng.shuffle(parts)
    return parts


def _finish(text: str, rng: random.Random, *, edit: bool) -> str:
    if rng.random() < 0.2:
        text = rng.choice(phrasing.OPENERS) + text
    if rng.random() < 0.25:
        text += rng.choice(phrasing.CLOSERS if edit else phrasing.CLOSERS[:7])
    text = _tidy(text)
    if rng.random() < 0.25:
        text = text[:1].upper() + text[1:]
    return text.lower() if rng.random() < 0.15 else text


def _some(rng: random.Random, weights: tuple[float, ...]) -> tuple[str, ...]:
    """Some slots: 1, 2, ... of them with these weights.

    A tuple, since a set of strings has another order in every process and the draws that follow
    would not be the same ones again.
    """
    count = rng.choices(range(1, len(weights) + 1), weights)[0]
    return tuple(rng.sample(list(SLOTS), count))


def _drawn(rng: random.Random, slots: Collection[str] = tuple(SLOTS)) -> Attributes:
    """A random description of a garment, with these slots only."""
    wanted = [s for s in SLOTS if s in slots]
    return Attributes(**{s: rng.choice(GARMENTS if s == "garment" else SLOTS[s]) for s in wanted})


# --- edits -------------------------------------------------------------------------------------


def _edit(rng: random.Random) -> Example:
    kind = rng.random()
    if kind < 0.08:
        return _removal(rng)
    if kind < 0.16:
        return _addition(rng)
    source = _drawn(rng)
    slots = _some(rng, (0.5, 0.3, 0.14, 0.06))
    wanted = {s: getattr(_drawn(rng, (s,)), s) for s in slots}
    if rng.random() < 0.9:  # one in ten may ask for what is there already
        for s in slots:
            others = GARMENTS if s == "garment" else SLOTS[s]
            wanted[s] = rng.choice([v for v in others if v != getattr(source, s)])
    gold = replace(source, **wanted)
    if "garment" in slots and rng.random() < 0.7:
        request = _as_noun(source, wanted, rng)
    else:
        request = _as_clauses(source, wanted, rng)
    return Example(source, _finish(request, rng, edit=True), gold)


def _spot(source: Attributes, rng: random.Random) -> str:
    """What is in the picture, as a request calls it."""
    if rng.random() < 0.2:
        return rng.choice(("garment", "item", "thing"))
    return _say("garment", source.garment, rng)


def _as_noun(source: Attributes, wanted: dict[str, str], rng: random.Random) -> str:
    """ "turn it into a small red boot on white": the garment changes among others."""
    y = Attributes(**wanted)
    request = rng.choice(phrasing.REPLACE).format(np=_noun_phrase(y, rng), g=_spot(source, rng))
    for part in _parts(y, rng):
        request += rng.choice((" ", " ", ", ", " and ")) + part
    return request


def _as_clauses(source: Attributes, wanted: dict[str, str], rng: random.Random) -> str:
    """ "make it red and put black behind it": a clause a slot."""
    order = list(wanted)
    rng.shuffle(order)
    short = len(order) > 1 and rng.random() < 0.25
    clauses = [_clause(source, s, wanted[s], rng, short=short) for s in order]
    joints = (" and ", " and ", ", ", ", and ", "; ", ", then ", ". ", " but ")
    request = clauses[0]
    for clause in clauses[1:]:
        request += rng.choice(joints) + clause
    return request


def _clause(source: Attributes, slot: str, value: str, rng: random.Random, *, short: bool) -> str:
    if short and slot not in ("garment",):  # "navy, on white, pixelated"
        if slot in ("background", "style"):
            return _parts(Attributes(**{slot: value}), rng)[0]
        return _say(slot, value, rng)
    idioms = phrasing.IDIOMS.get((slot, value), ())
    relative = slot == "size"
    if idioms and rng.random() < (0.5 if relative else 0.3):
        return rng.choice(idioms).format(g=_spot(source, rng))
    shape = rng.choice(phrasing.CHANGE[slot])
    old = getattr(source, slot)
    if "{old}" in shape and old == value:
        shape = phrasing.CHANGE[slot][0]
    if slot == "size" and shape.startswith("the {g} is too"):
        shape = "the {g} is too {old}"
    return shape.format(v=_say(slot, value, rng), old=_say(slot, old, rng), g=_spot(source, rng))


def _removal(rng: random.Random) -> Example:
    source, background = _drawn(rng), None
    request = rng.choice(phrasing.REMOVE).format(g=_spot(source, rng))
    if rng.random() < 0.25:
        background = rng.choice(SLOTS["background"])
        request += rng.choice((" and ", ", ", ", then ")) + _clause(
            source, "background", background, rng, short=rng.random() < 0.3
        )
    gold = Attributes(garment="nothing", background=background or source.background)
    return Example(source, _finish(request, rng, edit=True), gold)


def _addition(rng: random.Random) -> Example:
    source = Attributes(garment="nothing", background=rng.choice(SLOTS["background"]))
    y = _drawn(rng, ("garment", *_some(rng, (0.3, 0.4, 0.2, 0.1))))
    request = rng.choice(phrasing.ADD).format(np=_noun_phrase(y, rng))
    for part in _parts(y, rng):
        request += rng.choice((" ", ", ", " and ")) + part
    gold = replace(y, background=y.background or source.background)
    return Example(source, _finish(request, rng, edit=True), gold)


# --- free wording ------------------------------------------------------------------------------


def _wording(rng: random.Random) -> Example:
    if rng.random() < 0.06:
        background = rng.choice(SLOTS["background"])
        y = Attributes(garment="nothing", background=background)
        parts = [rng.choice(phrasing.NOTHING), *_parts(y, rng)]
        if rng.random() < 0.3:
            parts.reverse()
        return Example(None, _finish(rng.choice((" ", ", ")).join(parts), rng, edit=False), y)
    y = _drawn(rng, ("garment", *_some(rng, (0.2, 0.35, 0.3, 0.15))))
    if rng.random() < 0.04:
        y = replace(y, garment=None)
    shape = rng.random()
    if shape < 0.72:
        text = _flowing(y, rng)
    elif shape < 0.9:
        text = _listed(y, rng)
    else:
        text = _corrected(y, rng)
    return Example(None, _finish(text, rng, edit=False), y)


def _flowing(y: Attributes, rng: random.Random) -> str:
    """ "I'd like a small crimson trainer in front of a black wall, drawn by hand"."""
    phrase = "a " + _noun_phrase(y, rng)
    rest = y
    if y.style and rng.random() < 0.4:
        phrase = f"{rng.choice(phrasing.STYLE_FRONT[y.style])} {phrase}".replace("ed a ", "ed ")
        rest = replace(y, style=None)
    if rng.random() < 0.12:
        phrase += " " + rng.choice(phrasing.TAILS)
    parts = _parts(rest, rng)
    front = parts.pop() if parts and rng.random() < 0.15 else ""
    for part in parts:
        phrase += rng.choice((" ", " ", ", ", " and ")) + part
    phrase = (rng.choice(phrasing.WANTS) or "{x}").format(x=phrase)
    return f"{front}{rng.choice((' ', ', ', ': '))}{phrase}" if front else phrase


def _listed(y: Attributes, rng: random.Random) -> str:
    """ "Boots. Red. Tiny. Black background." and "the boot should be red, the wall black"."""
    noun = _say("garment", y.garment, rng) if y.garment else "garment"
    if rng.random() < 0.4:
        said = [_say(s, getattr(y, s), rng) for s in ("size", "colour") if getattr(y, s)]
        shape = rng.choice(
            ("the {n} should be {a}", "{n}, {a}", "I want the {n} {a}", "a {n}, {a}")
        )
        parts = [shape.format(n=noun, a=" and ".join(said)) if said else f"a {noun}"]
        parts += _parts(y, rng)
        return rng.choice((", ", " and ", "; ")).join(parts)
    parts = [_say(s, getattr(y, s), rng) for s in ("size", "colour") if getattr(y, s)]
    parts += [*_parts(y, rng), noun]
    rng.shuffle(parts)
    joint = rng.choice((", ", ". ", "; ", " - "))
    return joint.join(parts)


def _corrected(y: Attributes, rng: random.Random) -> str:
    """ "a red boot, no, a blue boot": the last word counts."""
    slot = rng.choice([s for s in ("size", "colour", "garment") if getattr(y, s)] or ["garment"])
    if not getattr(y, slot):
        return _flowing(y, rng)
    other = rng.choice([v for v in SLOTS[slot] if v not in (getattr(y, slot), "nothing")])
    wrong, right = _say(slot, other, rng), _say(slot, getattr(y, slot), rng)
    shape = rng.choice(
        ("a {w}, no, {r}", "not {w} but {r}", "{r} rather than {w}", "{r} instead of {w}",
         "a {w}? no, {r}", "{w}, I mean {r}", "{r}, not {w}", "{w}, sorry, {r}")
    )  # fmt: skip
    said = shape.format(w=wrong, r=right)
    rest = replace(y, **{slot: None})
    if slot == "garment":
        words = [_say(s, getattr(y, s), rng) for s in ("size", "colour") if getattr(y, s)]
        parts = [said, *words]
    else:
        parts = [said, _noun_phrase(rest, rng)]
    return ", ".join([*parts, *_parts(rest, rng)])


# --- refusals ----------------------------------------------------------------------------------


def _refused(rng: random.Random) -> Example:
    source = _drawn(rng) if rng.random() < 0.5 else None
    kind = rng.random()
    if kind < 0.2:
        return Example(source, rng.choice(phrasing.NOT_A_PICTURE), UNDRAWABLE)
    if kind < 0.7:
        shape = rng.choice([s for s in phrasing.UNDRAWABLE_SHAPES if source or "{g}" not in s])
        text = shape.format(
            x=rng.choice(lexicon.UNDRAWABLE),
            c=_say("colour", rng.choice(SLOTS["colour"]), rng),
            s=_say("size", rng.choice(SLOTS["size"]), rng),
            b=_say("background", rng.choice(SLOTS["background"]), rng),
            g=_spot(source, rng) if source else "",
        )
        return Example(source, _finish(text, rng, edit=source is not None), UNDRAWABLE)
    y = _drawn(rng, ("garment", *_some(rng, (0.5, 0.5))))
    slot = rng.choice(("colour", "colour", "size", "garment", "background"))
    first, second = (
        _say(slot, v, rng) for v in rng.sample(GARMENTS if slot == "garment" else SLOTS[slot], 2)
    )
    noun = _say("garment", y.garment, rng)
    text = {
        "colour": rng.choice((f"a {first} {second} {noun}", f"make it {first} and {second}")),
        "size": rng.choice((f"a {first} {second} {noun}", f"both {first} and {second}")),
        "garment": rng.choice(
            (f"a {first} and a {second}", f"turn it into a {first} and {second}")
        ),
        "background": f"a {noun} on a {first} {second} background",
    }[slot]
    return Example(source, _finish(text, rng, edit=source is not None), CONTRADICTORY)
