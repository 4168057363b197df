"""Getting an answer out of a language model: greedily, within the grammar, or by likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import torch

from fastgen_course.datasets.captions import SLOTS, Attributes, render
from fastgen_course.language.smollm import Cache, Llama

END = 2  # <|im_end|>: closes an answer
Node = dict[int, "Node"]  # a token to what may follow it; END leads to an empty node


@torch.inference_mode()
def greedy(
    model: Llama, prompt: Sequence[int], limit: int = 40, cache: Cache | None = None
) -> list[int]:
    """The most likely token, one after another, until END or `limit` tokens.

    `cache` holds what stands before `prompt`, here and in the functions below.
    """
    answer: list[int] = []
    states, cache = model.states(torch.tensor([prompt]), cache)
    logits = model.head(states[:, -1:])
    while len(answer) < limit:
        token = int(logits[0, -1].argmax())
        if token == END:
            break
        answer.append(token)
        logits, cache = model(torch.tensor([[token]]), cache)
    return answer


def trie_of(texts: Iterable[str], tokenizer: Any) -> Node:
    """All `texts` as token sequences, as a tree: which tokens may come next."""
    return trie_of_tokens(encoded.ids for encoded in tokenizer.encode_batch(list(texts)))


def trie_of_tokens(spelled: Iterable[Sequence[int]]) -> Node:
    """Token sequences as a tree: which tokens may come next, END after each."""
    root: Node = {}
    for tokens in spelled:
        node = root
        for token in [*tokens, END]:
            node = node.setdefault(token, {})
    return root


@lru_cache(maxsize=1)
def all_captions() -> dict[str, Attributes]:
    """Every caption of the grammar's first pattern, in its own words, with what it says."""
    ways = [(None, *values) for values in SLOTS.values()]
    found = {}
    for values in product(*ways):
        if values[2] == "nothing" and (values[0] or values[1] or values[4]):
            continue
        y = Attributes(*values)
        found[render(y)] = y
    return found


@dataclass(frozen=True)
class Spelled:
    """A constrained answer: its tokens, and the model's share for it at each open choice."""

    tokens: list[int]
    shares: list[float]

    @property
    def confidence(self) -> float:
        """The least certain choice's share, between the alternatives that the grammar left open."""
        return min(self.shares, default=1.0)


@torch.inference_mode()
def constrained(
    model: Llama, prompt: Sequence[int], trie: Node, cache: Cache | None = None
) -> Spelled:
    """Greedy, but only along `trie`: the answer is always one of its texts, right or wrong.

    Where one token alone is allowed nothing needs to be asked: it waits and goes in with the next
    question, so that a caption of a dozen tokens costs about half as many forwards.
    """
    answer: list[int] = []
    shares: list[float] = []
    pending, node = list(prompt), trie
    while node:
        if len(node) == 1:
            token = next(iter(node))
        else:
            states, cache = model.states(torch.tensor([pending]), cache)
            allowed = list(node)
            # The head's rows of the allowed tokens only.
            logits = model.embedding.weight[allowed] @ states[0, -1]
            best = int(logits.argmax())
            shares.append(float(logits.softmax(0)[best]))
            token, pending = allowed[best], []
        node = node[token]
        if token != END:
            answer.append(token)
            pending.append(token)
    return Spelled(answer, shares)


@torch.inference_mode()
def prefill(model: Llama, prompt: Sequence[int], cache: Cache | None = None) -> Cache:
    """The cache after `prompt`, for many continuations."""
    return model.states(torch.tensor([prompt]), cache)[1]


@torch.inference_mode()
def log_likelihoods(
    model: Llama,
    prompt: Sequence[int],
    candidates: Sequence[Sequence[int]],
    cache: Cache | None = None,
) -> torch.Tensor:
    """log p(candidate, END | prompt) in nats, (N,): the prompt runs once for all of them."""
    if len(prompt) > 1:
        cache = prefill(model, prompt[:-1], cache)
    rows = [[prompt[-1], *candidate, END] for candidate in candidates]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    many = cache and [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1))
                      for k, v in cache]  # fmt: skip
    logits, _ = model(tokens[:, :-1], many)
    shares = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    lengths = torch.tensor([len(row) - 1 for row in rows])
    return (shares * (torch.arange(width - 1) < lengths[:, None])).sum(1)
