"""The untrained model asked for an edit: by instruction, by examples, within the grammar, by score.

What notebook 06 compares the adapter with. All four see the same words; the last two can only
answer with captions, and are wrong all the same.
"""

from __future__ import annotations

from dataclasses import astuple, replace
from functools import cached_property

from fastgen_course.datasets.captions import SLOTS, Attributes, CaptionError, parse, render
from fastgen_course.language.decode import (
    Cache,
    all_captions,
    constrained,
    greedy,
    log_likelihoods,
    prefill,
    trie_of,
)
from fastgen_course.language.gguf_file import load_llama, load_tokenizer

INSTRUCTION = (
    "You edit descriptions of pictures. Change what the request asks for, keep everything else, "
    "and answer with the new description alone. Sizes: small, large. Colours: red, orange, yellow, "
    "green, blue, purple, pink, brown. Garments: t-shirt, trousers, pullover, dress, coat, sandal, "
    "shirt, sneaker, bag, boot. Backgrounds: white, grey, black, pale blue, pale green, pale pink. "
    "Styles: photo, sketch, flat, pixel art."
)

# Six solved examples: (description, request, answer).
SHOTS: tuple[tuple[Attributes, str, Attributes], ...] = (
    (
        Attributes("small", "blue", "coat", "grey", "photo"),
        "make it red",
        Attributes("small", "red", "coat", "grey", "photo"),
    ),
    (
        Attributes("large", "green", "bag", "white", "flat"),
        "I want a dress instead",
        Attributes("large", "green", "dress", "white", "flat"),
    ),
    (
        Attributes("large", "yellow", "boot", "black", "photo"),
        "put it on a pale pink wall and draw it by hand",
        Attributes("large", "yellow", "boot", "pale pink", "sketch"),
    ),
    (
        Attributes("large", "purple", "shirt", "pale blue", "sketch"),
        "a smaller one in brown",
        Attributes("small", "brown", "shirt", "pale blue", "sketch"),
    ),
    (
        Attributes("small", "pink", "sandal", "pale green", "pixel art"),
        "take it away",
        Attributes(garment="nothing", background="pale green"),
    ),
    (
        Attributes("small", "orange", "sneaker", "grey", "flat"),
        "like an old video game",
        Attributes("small", "orange", "sneaker", "grey", "pixel art"),
    ),
)


def _turn(y: Attributes, request: str) -> str:
    return f"Description: {render(y)}\nRequest: {request}\nNew description:"


class Prompted:
    """SmolLM2 as it is, asked in four ways. Each takes a description and a request.

    `zero_shot` and `few_shot` return what the answer says, or None where the grammar cannot read
    it; `constrained` and `likelihood` always return a description.
    """

    def __init__(self) -> None:
        self.tokenizer, self.model = load_tokenizer(), load_llama()

    def zero_shot(self, source: Attributes, request: str) -> Attributes | None:
        """The instruction alone, in the model's own chat format, decoded greedily."""
        text = f"\n{_turn(source, request)}<|im_end|>\n<|im_start|>assistant\n"
        return _read(self._decoded(greedy(self.model, self._ids(text), cache=self._instructed)))

    def few_shot(self, source: Attributes, request: str) -> Attributes | None:
        """Six solved examples before the question, decoded greedily."""
        tokens = greedy(self.model, self._ids(_turn(source, request)), cache=self._shown)
        return _read(self._decoded(tokens).split("\n")[0])

    def constrained(self, source: Attributes, request: str) -> Attributes:
        """The same prompt, decoded along the grammar's captions only."""
        prompt = self._ids(_turn(source, request))
        spelled = constrained(self.model, prompt, self._trie, cache=self._shown)
        return all_captions()[self._decoded(spelled.tokens)]

    def likelihood(self, source: Attributes, request: str) -> Attributes:
        """The same prompt; slot after slot, the value whose whole caption is the most likely."""
        prompt, best = self._ids(_turn(source, request)), source
        for candidates in (self._slot(best, slot) for slot in SLOTS):
            if len(candidates) > 1:
                texts = [self._ids(f" {render(y)}") for y in candidates]
                scores = log_likelihoods(self.model, prompt, texts, cache=self._shown)
                best = candidates[int(scores.argmax())]
            if best.garment == "nothing":
                break
        return best

    def _slot(self, y: Attributes, slot: str) -> list[Attributes]:
        """`y` with each value of one slot; an empty scene has a background alone."""
        if y.garment == "nothing":
            garments = [y, *(replace(y, garment=g) for g in SLOTS["garment"][:-1])]
            return garments if slot == "size" else [y]
        values = SLOTS[slot][:-1] if slot == "garment" else SLOTS[slot]
        found = [replace(y, **{slot: value}) for value in values]
        empty = Attributes(garment="nothing", background=y.background)
        return [*found, empty] if slot == "garment" else found

    @cached_property
    def _instructed(self) -> Cache:
        return prefill(self.model, self._ids(f"<|im_start|>user\n{INSTRUCTION}"))

    @cached_property
    def _shown(self) -> Cache:
        shots = [f"{_turn(y, request)} {render(gold)}\n\n" for y, request, gold in SHOTS]
        return prefill(self.model, self._ids("".join(shots)))

    @cached_property
    def _trie(self):
        return trie_of([f" {text}" for text in all_captions()], self.tokenizer)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def _decoded(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens).strip()


def _read(text: str) -> Attributes | None:
    """What a free answer says, if the grammar can read it."""
    try:
        y = parse(text.strip().strip('."').removeprefix("New description:"))
    except CaptionError:
        return None
    return y if any(astuple(y)) else None
