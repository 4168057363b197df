"""Why one vector a sentence is not enough: "red shoe on blue" against "blue shoe on red".

The mean of a sentence's states hardly knows which word belongs to which. The states of its tokens
do: that of "shoe" has read the colour before it. `python -m fastgen_course.language.pooled` records
it all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F

from fastgen_course.datasets.captions import SLOTS, SYNONYMS
from fastgen_course.language.gguf_file import load_llama, load_tokenizer
from fastgen_course.language.smollm import Llama

COMMAND = "python -m fastgen_course.language.pooled"
LAYER = 15  # half-way up, where states stand for meaning more than for the next word
NOUN = "shoe"


@torch.inference_mode()
def sentence_states(model: Llama, tokenizer: Any, text: str, layer: int = LAYER) -> torch.Tensor:
    """The states (T, D) of a sentence's tokens after `layer` layers.

    The sentence follows an end of text and a space, so that its first word is spelled as it would
    be anywhere. The first position of any text has a huge state that is the same for all; it is
    left out, or every pooled cosine would be 1.
    """
    ids = [0, *tokenizer.encode(f" {text}").ids]
    x_BTD = model.embedding(torch.tensor([ids]))
    for block in model.blocks[:layer]:
        x_BTD, _ = block(x_BTD)
    return x_BTD[0, 1:]


def noun_state(model: Llama, tokenizer: Any, text: str, layer: int = LAYER) -> torch.Tensor:
    """The state (D,) of the token that ends the word NOUN in `text`."""
    end = f" {text}".index(NOUN) + len(NOUN)
    offsets = tokenizer.encode(f" {text}").offsets
    place = next(i for i, (_, stop) in enumerate(offsets) if stop >= end)
    return sentence_states(model, tokenizer, text, layer)[place]


@dataclass(frozen=True)
class Swap:
    """Cosines between two sentences: of their mean states, and of the states at "shoe"."""

    pooled: float
    token: float


def swap_cosines(
    model: Llama,
    tokenizer: Any,
    first: str = "red shoe on blue",
    second: str = "blue shoe on red",
    layer: int = LAYER,
) -> Swap:
    """How alike two sentences look, pooled and at the noun."""
    means = [sentence_states(model, tokenizer, text, layer).mean(0) for text in (first, second)]
    nouns = [noun_state(model, tokenizer, text, layer) for text in (first, second)]
    return Swap(*(float(F.cosine_similarity(*pair, dim=0)) for pair in (means, nouns)))


@dataclass(frozen=True)
class Study:
    """One kind of state over all ordered pairs of colours.

    Attributes:
        centred_cosine: mean cosine of a sentence and the swapped one, the mean of all sentences
            taken off first (all states share a large common part): 1 means that they are the same.
        swap_nearer: share of the sentences to which the swapped one is nearer than one that says
            the same in other words ("scarlet shoe on navy").
        synonym_read: share of those other wordings from which the shoe's colour is told, by the
            nearest mean over the plain sentences of each colour. Chance is 1 in 8.
    """

    centred_cosine: float
    swap_nearer: float
    synonym_read: float


def study(model: Llama, tokenizer: Any, layer: int = LAYER) -> dict[str, Study]:
    """The study for "pooled" and for "token" states. About 20 s on one core."""
    pairs = list(permutations(SLOTS["colour"], 2))
    plain = [f"{one} {NOUN} on {two}" for one, two in pairs]
    other = [f"{SYNONYMS[one][0]} {NOUN} on {SYNONYMS[two][0]}" for one, two in pairs]
    swapped = [pairs.index((two, one)) for one, two in pairs]
    colours = torch.tensor([SLOTS["colour"].index(one) for one, _ in pairs])
    kinds = {
        "pooled": lambda text: sentence_states(model, tokenizer, text, layer).mean(0),
        "token": lambda text: noun_state(model, tokenizer, text, layer),
    }
    found = {}
    for kind, state in kinds.items():
        here, same = (torch.stack([state(text) for text in texts]) for texts in (plain, other))
        here, same = here - here.mean(0), same - same.mean(0)
        to_swapped = F.cosine_similarity(here, here[swapped])
        to_same = F.cosine_similarity(here, same)
        means = torch.stack([here[colours == c].mean(0) for c in range(len(SLOTS["colour"]))])
        read = F.cosine_similarity(same[:, None], means, dim=-1).argmax(1)
        found[kind] = Study(
            float(to_swapped.mean()),
            float((to_swapped > to_same).double().mean()),
            float((read == colours).double().mean()),
        )
    return found


def main() -> None:
    """Measure and record."""
    from fastgen_course.timing import record

    model, tokenizer = load_llama(), load_tokenizer()
    cosines, studies = swap_cosines(model, tokenizer), study(model, tokenizer)
    for kind in ("pooled", "token"):
        figures = {
            "cosine": (getattr(cosines, kind), "cosine"),
            "centred_cosine": (studies[kind].centred_cosine, "cosine"),
            "swap_nearer_share": (studies[kind].swap_nearer, "share"),
            "synonym_read_share": (studies[kind].synonym_read, "share"),
        }
        for name, (value, unit) in figures.items():
            record(
                "language_edit",
                f"language_edit.{kind}_{name}",
                value,
                unit,
                spread=None,
                command=COMMAND,
                base="SmolLM2-135M-Instruct Q4_1",
                layer=LAYER,
            )
            print(f"{kind}_{name}: {value:.3f} {unit}")


if __name__ == "__main__":
    main()
