"""Requests that no road may guess at: each gets one sentence that says what is wrong with it."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from fastgen_course.datasets.captions import MAX_CHARACTERS, SLOTS, CaptionError

_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}"
    r"\b(?:instructions?|rules?|prompts?|above|everything|before)\b"
    r"|\bsystem prompt\b|\byou are (?:now|an?) (?!.*\b(?:picture|garment)\b)|<\|",
    re.IGNORECASE | re.DOTALL,
)

# Little words of other languages that are no English words.
_FOREIGN_WORDS = """
ein eine einen einem einer der das und mit auf dem den nicht ich bitte möchte hintergrund rot rote
roter rotes blau blaue blaues grün grüne kleid schuh schuhe hemd hose tasche stiefel mantel weiß
schwarz mach mache zeichne une le les des du et avec sur dans rouge bleu bleue vert verte robe
chaussure chaussures chemise sac botte bottes manteau blanc blanche noir noire fond petite grande
rendez fais dessine una el los las unos unas y con sobre rojo roja azul verde negro blanca blanco
zapato zapatos vestido bolso camisa pantalones fondo pequeño pequeña haz hazlo dibuja un il gli uno
della con su rosso rossa scarpa vestito borsa sfondo nero bianco een het met op rode blauwe schoen
jurk achtergrond zwarte witte uma sapato vermelho vermelha fundo preto czerwony czerwona buty tle
"""
# "robe", "sac" and "sobre" could be English; a request needs two such words, or these alone.
_FOREIGN = frozenset(_FOREIGN_WORDS.split())
_AMBIGUOUS = frozenset(
    ("robe", "sac", "sobre", "fond", "petite", "grande", "un", "du", "des", "le", "les", "el", "y")
)

THINGS = ", ".join(SLOTS["garment"][:-1])


class Impossible(CaptionError):
    """A wish that is clear and that the course cannot fulfil: no road may make something of it."""


def not_drawable(word: str = "") -> Impossible:
    """The error for something that the grammar cannot say."""
    what = f'"{word}"' if word else "what this asks for"
    return Impossible(f"{what} is nothing that the course can draw; it draws {THINGS}.")


def checked(text: str) -> str:
    """`text` on one line. Raises `CaptionError`, in one sentence, for what is no request.

    That is: no text, nothing but signs or emoji, more than MAX_CHARACTERS, another script or
    language, and orders to the program instead of wishes for the picture.
    """
    if not isinstance(text, str):
        raise CaptionError(f"a request is a text, got {type(text).__name__}.")
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if not text:
        raise CaptionError('the request is empty; try "make it green" or "crimson trainers".')
    if len(text) > MAX_CHARACTERS:
        raise CaptionError(
            f"the request has {len(text):,} characters; keep it under {MAX_CHARACTERS}."
        )
    letters = [c for c in text if c.isalpha()]
    if len(letters) < 2:
        raise CaptionError("the request has no words; say in English what the picture should show.")
    if _ORDERS.search(text):
        raise CaptionError(
            "the request speaks to the program, not about the picture; "
            'say what to draw or to change, such as "make it green".'
        )
    latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
    foreign = [w for w in re.findall(r"[^\W\d_]+", text.lower()) if w in _FOREIGN]
    sure = [w for w in foreign if w not in _AMBIGUOUS]
    foreign_text = bool(sure) and (len(foreign) >= 2 or _alone(text))
    if latin < 0.8 * len(letters) or foreign_text:
        raise CaptionError(
            "the request does not seem to be in English, the only language that the course reads; "
            'try "make it green" or "a small red boot on a white background".'
        )
    return text


def _alone(text: str) -> bool:
    """Whether no word of `text` is a common English one."""
    from fastgen_course.language.lexicon import FUNCTION_WORDS

    words = re.findall(r"[^\W\d_]+", text.lower())
    return not any(word in FUNCTION_WORDS for word in words)


def guard_tables() -> dict[str, Any]:
    """What `checked` looks words up in, as plain JSON, for a reader in another language."""
    return {
        "orders": _ORDERS.pattern,
        "foreign": sorted(_FOREIGN),
        "ambiguous": sorted(_AMBIGUOUS),
        "things": THINGS,
    }
