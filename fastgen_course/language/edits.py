"""Descriptions edited by words, and free wording read into the grammar.

Two roads and their junction. Keyword rules answer where a list has every word. The language model
with its adapter, held to the grammar, answers alone on its own road; at the junction it is asked
only about the words that no list has, and must agree with the rules on the others. Without the
model's package the rules answer alone. Every answer says which road it came from and what changed;
what neither road understands raises `CaptionError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastgen_course.checkpoints import load_model
from fastgen_course.datasets.captions import SLOTS, Attributes, CaptionError, parse, render
from fastgen_course.files import DataFileError
from fastgen_course.language import rules
from fastgen_course.language.decode import Spelled, all_captions, constrained, trie_of_tokens
from fastgen_course.language.examples import CONTRADICTORY, REFUSALS, known_words, prompt_of
from fastgen_course.language.gguf_file import NoLanguageModel, load_llama, load_tokenizer
from fastgen_course.language.guard import Impossible, checked, not_drawable
from fastgen_course.language.memory import release_memory
from fastgen_course.language.testsets import unseen_words

MODEL = "language model"
RULES = "keyword rules"
ADD_WORDS = frozenset(("add", "insert", "also", "another", "additional", "second"))


@dataclass(frozen=True)
class EditAnswer:
    """What a request was understood to ask for.

    Attributes:
        attributes: the description after the request; a free slot is None.
        answered_by: MODEL or RULES.
        note: in words, what changed and which words the answer had to guess or left aside.
    """

    attributes: Attributes
    answered_by: str
    note: str

    @property
    def caption(self) -> str:
        """The description in the grammar's words."""
        return render(self.attributes)


class Reader:
    """SmolLM2 with the adapter merged, and the grammar as a tree of tokens."""

    def __init__(self) -> None:
        self.tokenizer: Any = load_tokenizer()
        adapter = load_model("edit_lora")  # before the half gigabyte: it may be missing
        self.model = load_llama()
        adapter.merge(self.model)
        self.captions = all_captions()
        texts = [*self.captions, *REFUSALS]
        encoded = self.tokenizer.encode_batch([f" {text}" for text in texts])
        self.spelled = {text: one.ids for text, one in zip(texts, encoded, strict=True)}
        self.trie = trie_of_tokens(self.spelled.values())
        del adapter  # and with it the matrices that merging replaced
        release_memory()

    def read(
        self,
        request: str,
        source: Attributes | None = None,
        allowed: Callable[[Attributes], bool] | None = None,
    ) -> tuple[Attributes | str, float]:
        """The answer, attributes or one of REFUSALS, and the least certain choice's share.

        `allowed` narrows the grammar's captions to those that may be an answer (None: all may).
        """
        trie = self.trie
        if allowed:
            fitting = [text for text, y in self.captions.items() if allowed(y)]
            trie = trie_of_tokens([self.spelled[text] for text in (*fitting, *REFUSALS)])
        spelled: Spelled = constrained(self.model, self.tokens_of(request, source), trie)
        text = self.tokenizer.decode(spelled.tokens).strip()
        return (text if text in REFUSALS else self.captions[text]), spelled.confidence

    def tokens_of(self, request: str, source: Attributes | None = None) -> list[int]:
        """The prompt as tokens."""
        return self.tokenizer.encode(prompt_of(request, source)).ids


@lru_cache(maxsize=1)
def load_reader() -> Reader:
    """The one `Reader` of this process (0.7 GB). Raises `NoLanguageModel` or `DataFileError`."""
    return Reader()


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return known_words()


def apply_edit(
    description: Attributes | str, request: str, *, road: str | None = None
) -> EditAnswer:
    """The description after a request in free words.

    Args:
        description: what the picture shows, complete (all five slots, or an empty scene).
        request: "make it green and draw it as a sketch", "take it away", "add a small boot".
        road: MODEL or RULES alone; None asks the rules, and the model (where it is installed) about
            the words that they do not know.

    Raises `CaptionError`, in one sentence, for a description or a request that cannot be read, for
    two values of one slot and for what cannot be drawn; `NoLanguageModel` for road=MODEL where it
    is not installed.
    """
    source = parse(description) if isinstance(description, str) else description
    free = [s for s in SLOTS if getattr(source, s) is None]
    if free and not (source.garment == "nothing" and source.background):
        raise CaptionError(
            f"the description leaves {', '.join(free)} open; an edit starts from a complete one."
        )
    return _answer(request, source, road)


def understand(text: str, *, road: str | None = None) -> EditAnswer:
    """What a request in free wording asks for: "crimson trainers, nothing behind them".

    Slots that it does not name stay free. Arguments and errors as for `apply_edit`.
    """
    return _answer(text, None, road)


def _answer(request: str, source: Attributes | None, road: str | None) -> EditAnswer:
    if road not in (None, MODEL, RULES):
        raise ValueError(f'there is no road "{road}"; choose "{MODEL}", "{RULES}" or None.')
    request = checked(request)
    if sentence := rules.contradiction(request, source):
        raise CaptionError(sentence)
    if road == MODEL:
        return _by_model(request, source, load_reader())
    reading = _reading(request, source)
    if road == RULES or (reading and not reading.unknown):
        return _by_rules(request, source)
    try:
        reader = load_reader()
    except (NoLanguageModel, DataFileError) as error:
        return _by_rules(request, source, str(error))
    return _by_model(request, source, reader, reading)


def _by_rules(request: str, source: Attributes | None, why: str = "") -> EditAnswer:
    reading = rules.read_request(request, source)
    y = rules.applied(reading, source)
    _one_garment(request, source, y)
    note = changes(source, y)
    if reading.unknown:
        note += f" The rules do not know {_quoted(reading.unknown)}; they left it aside."
    return EditAnswer(y, RULES, f"{note} {why}".strip())


def _reading(request: str, source: Attributes | None) -> rules.Reading | None:
    """What the rules make of a request; None where they find two values for one slot.

    Raises `Impossible` for "a car" and "a red background": refused by name, whoever answers.
    """
    try:
        return rules.read_request(request, source)
    except Impossible:
        raise
    except CaptionError:
        return None


def _by_model(
    request: str,
    source: Attributes | None,
    reader: Reader,
    known: rules.Reading | None = None,
) -> EditAnswer:
    """The model's answer; with `known`, one that agrees with what the rules read."""
    reading = known or _reading(request, source)
    y, confidence = reader.read(request, source, known and _agrees(known, request, source))
    if isinstance(y, str):
        if reading and not reading.unknown:  # every word is known, so the rules may be asked
            return _by_rules(request, source)
        if y == CONTRADICTORY:
            raise CaptionError("the request asks for two things at once; keep one value a slot.")
        raise not_drawable()
    _one_garment(request, source, y)
    note = changes(source, y)
    if guessed := unseen_words(request, _known()):
        note += (
            f" The model never met {_quoted(guessed)} in training; look whether it guessed right."
        )
    elif confidence < 0.5:
        note += " The model was not sure; look whether this is what you meant."
    return EditAnswer(y, MODEL, note)


def _agrees(
    known: rules.Reading, request: str, source: Attributes | None
) -> Callable[[Attributes], bool]:
    """Which descriptions agree with the rules: what they read stands, and little more changes.

    Words that no list has ask for at most one slot a run of them ("jogging shoes" is one run);
    without a garment in the request, a removal that the rules saw stands as well.
    """
    before = source or Attributes()
    if before.garment == "nothing" and not known.removed:
        # What is put into an empty scene: its background may stay, the other slots were free.
        before = Attributes(background=before.background)
    runs = rules.unknown_runs(request)

    def allowed(y: Attributes) -> bool:
        if known.removed:
            return y.garment == "nothing" and y.background in (
                known.wanted.get("background") or before.background,
                *([] if runs else [None]),
            )
        if any(getattr(y, slot) != value for slot, value in known.wanted.items()):
            return False
        others = [s for s in SLOTS if s not in known.wanted]
        return sum(getattr(y, s) != getattr(before, s) for s in others) <= runs

    return allowed


def _one_garment(request: str, source: Attributes | None, y: Attributes) -> None:
    """Refuse "add a bag" to a scene that has a coat: a scene holds one garment."""
    if source is None or source.garment in (None, "nothing"):
        return
    if y.garment in (source.garment, "nothing"):
        return
    if set(request.lower().replace(",", " ").split()) & ADD_WORDS:
        raise CaptionError(
            f"a scene holds one garment and this one has a {source.garment}; "
            f'write "replace it with a {y.garment}".'
        )


def changes(source: Attributes | None, y: Attributes) -> str:
    """What a description became, in one sentence."""
    if source is None:
        return f"Understood: {render(y)}."
    changed = [
        f"{slot} {getattr(source, slot) or 'free'} → {getattr(y, slot) or 'free'}"
        for slot in SLOTS
        if getattr(source, slot) != getattr(y, slot)
    ]
    return (
        f"Changed: {', '.join(changed)}." if changed else "Nothing changes: that is there already."
    )


def _quoted(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f'"{word}"' for word in dict.fromkeys(words))
