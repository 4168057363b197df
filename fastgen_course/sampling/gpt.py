"""Draw and describe with the language model, one token at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from fastgen_course.datasets.captions import (
    VOCABULARY,
    Attributes,
    encode_words,
    parse,
)
from fastgen_course.datasets.scenes import all_labels, captions_of
from fastgen_course.models.gpt import GPT, IGNORE, describe_sequences, draw_sequences
from fastgen_course.models.tokenizer import Tokenizer
from fastgen_course.models.transformer import KVCache, TransformerConfig
from fastgen_course.sampling.checks import checked_noise, checked_words

CHUNK = 256

# How the shipped language model draws, wherever it is scored or shown:
# `sample_gpt(model, captions, **GPT_SAMPLING)`. Chosen with `judge_train` from the grid that
# `python -m fastgen_course.training.gpt_records sampling` records.
GPT_SAMPLING: Mapping[str, float] = MappingProxyType(
    {"temperature": 0.7, "top_p": 1.0, "guidance": 1.0}
)


def pick(
    logits: Tensor,
    uniform: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Tensor:
    """Draw a token from softmax(logits / temperature) by inverting its distribution function.

    Args:
        logits: (..., K).
        uniform: (...) in [0, 1): the randomness. The same numbers give the same tokens, so that two
            samplers can be compared token by token.
        temperature: 0 takes the likeliest token.
        top_k: keep so many of the likeliest tokens; None keeps all.
        top_p: keep the likeliest tokens that together have this share (nucleus sampling, Holtzman
            et al. 2020); 1 keeps all.

    Returns:
        int64 (...).
    """
    if temperature < 0:
        raise ValueError(f"temperature is 0 (the likeliest token) or more, got {temperature}.")
    if temperature == 0:
        return logits.argmax(-1)
    shares, order = cut_shares(logits, temperature, top_k, top_p)
    return order.gather(-1, first_above(shares.cumsum(-1), uniform)[..., None])[..., 0]


def first_above(below: Tensor, uniform: Tensor) -> Tensor:
    """The first place (...) of a growing `below` (..., K) above uniform (...) times its last."""
    wanted = uniform[..., None] * below[..., -1:]
    # Rounded up, a number just under 1 may meet the last: then nothing is above, and 0 is taken.
    return torch.searchsorted(below, wanted, right=True)[..., 0] % below.shape[-1]


def cut_shares(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float
) -> tuple[Tensor, Tensor]:
    """Tempered shares (..., K), the likeliest first, 0 where cut off, and whose they are."""
    shares, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    if top_k is None and top_p >= 1:
        return shares, order
    keep = shares.cumsum(-1) - shares < top_p  # what crosses top_p is kept, so one always is
    if top_k is not None:
        keep[..., top_k:] = False
    return shares * keep, order


@torch.no_grad()
def sample_gpt(
    model: GPT,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    guidance: float = 1.0,
    cached: bool = True,
) -> Tensor:
    """Draw the image tokens of each caption from left to right (Radford et al. 2019).

    Args:
        model: a GPT.
        captions: texts, or their words int64 (B, L) from `encode_words`.
        noise: uniform numbers (B, image_tokens) in [0, 1), one a token; drawn from `generator`
            when not given.
        generator: the source of randomness (CPU); None takes torch's own.
        chunk: pictures drawn at once.
        temperature, top_k, top_p: see `pick`.
        guidance: s in s log p(t | caption) + (1 - s) log p(t): 1 is no guidance and one forward a
            token; any other value costs a second forward (Ho and Salimans 2022).
        cached: keep keys and values of what was read; False reads everything again for every
            token, which gives the same picture more slowly.

    Returns:
        Tokens int64 (B, image_tokens); `Tokenizer.decode` paints them.

    Raises `CaptionError` for a caption that cannot be read and ValueError for bad noise.
    """
    words = checked_words(captions)
    noise = checked_noise(noise, (len(words), model.config.image_tokens), generator)
    model.eval()
    device = next(model.parameters()).device
    tokens = torch.empty(noise.shape, dtype=torch.int64, device=device)
    lengths = (words != 0).sum(1)
    for length in lengths.unique().tolist():  # captions of one length need no padding
        for rows in torch.nonzero(lengths == length)[:, 0].split(chunk):
            prompts = [words[rows, :length].to(device)]
            if guidance != 1.0:
                prompts.append(prompts[0][:, :0])
            readers = [Reader(model, prompt, cached) for prompt in prompts]
            for place in range(model.config.image_tokens):
                logits = readers[0].logits
                if guidance != 1.0:
                    conditional, free = (r.logits.log_softmax(-1) for r in readers)
                    logits = guidance * conditional + (1 - guidance) * free
                uniform = noise[rows, place].to(device)
                chosen = pick(logits, uniform, temperature, top_k, top_p)
                tokens[rows, place] = chosen
                if place + 1 < model.config.image_tokens:
                    for reader in readers:
                        reader.read(chosen)
    return tokens


@torch.no_grad()
def draw_images(
    model: GPT,
    tokenizer: Tokenizer,
    captions: Sequence[str] | Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: float | int | None,
) -> Tensor:
    """`sample_gpt`, painted: images (B, 3, 28, 28) in [-1, 1].

    `settings` are those of `sample_gpt` (temperature, top_k, top_p, guidance, cached); those of
    GPT_SAMPLING hold for what is not given.
    """
    tokens = sample_gpt(model, captions, noise, generator, **{**GPT_SAMPLING, **settings})
    return torch.cat([tokenizer.eval().decode(part) for part in tokens.split(CHUNK)])


@torch.no_grad()
def unlike_any(tokenizer: Tokenizer, images: Tensor, limit: float = 0.03) -> Tensor:
    """Which images look like nothing that the tokens can say: bool (B,).

    A picture of the course's comes back from its tokens with a squared error of a few thousandths
    (pixels in [0, 1]); one that the tokenizer never saw the like of does not. `limit` lies well
    above every real test scene.
    """
    again = tokenizer.eval().decode(tokenizer.encode(images))
    return (again - images).square().mean((1, 2, 3)) / 4 > limit


class Reader:
    """A GPT that has read a caption and the tokens so far; `logits` are the next token's (B, K).

    `forwards` counts its forward passes, `token_forwards` the tokens that went through them.
    """

    def __init__(self, model: GPT, words: Tensor, cached: bool) -> None:
        self.model, self.config = model, model.config
        self.forwards = self.token_forwards = 0
        batch, length = words.shape
        config = self.config
        sign = torch.full((batch, 1), config.draw, dtype=torch.int64, device=words.device)
        self.ids = torch.cat([sign, words], 1)
        steps = torch.arange(length, device=words.device)
        zero = torch.zeros(1, dtype=torch.int64, device=words.device)
        self.positions = torch.cat([zero, config.first_word_position + steps])
        last = config.first_image_position + config.image_tokens
        self.next_positions = torch.arange(config.first_image_position, last, device=words.device)
        first = config.first_code
        self.codes = model.head.weight[first : first + config.codes].T
        self.cache = None
        if cached:
            like = model.embedding.weight
            self.cache = KVCache(config, batch, 1 + length + config.image_tokens, like)
        self._run(self.ids, self.positions)

    def read(self, tokens: Tensor) -> None:
        """Read one more image token (B,) of each row."""
        new = self.config.first_code + tokens[:, None]
        position, self.next_positions = self.next_positions[:1], self.next_positions[1:]
        if self.cache is not None:
            self._run(new, position)
        else:
            self.ids = torch.cat([self.ids, new], 1)
            self.positions = torch.cat([self.positions, position])
            self._run(self.ids, self.positions)

    def _run(self, ids: Tensor, positions: Tensor) -> None:
        state = self.model.states(ids, positions, cache=self.cache)[:, -1]
        self.forwards += 1
        self.token_forwards += ids.numel()
        self.logits = state @ self.codes


@torch.no_grad()
def token_log_likelihoods(model: GPT, captions: Sequence[str] | Tensor, tokens: Tensor) -> Tensor:
    """log p(t_i | caption, t_<i) of given pictures, in nats: (B, image_tokens).

    The shares are among image tokens, as the sampler draws them.
    """
    words = checked_words(captions)
    model.eval()
    config = model.config
    sequences = draw_sequences(config, words.to(tokens.device), tokens)
    logits = model(sequences.ids, sequences.positions)[sequences.targets != IGNORE]
    logs = logits[:, config.first_code : config.first_code + config.codes].log_softmax(-1)
    return logs.gather(1, tokens.reshape(-1, 1)).view(tokens.shape)


@torch.no_grad()
def description_log_likelihoods(
    model: GPT, captions: Sequence[str] | Tensor, tokens: Tensor
) -> Tensor:
    """log p(caption | picture), the sum over its words and END, in nats: (B,)."""
    words = checked_words(captions)
    model.eval()
    sequences = describe_sequences(model.config, words.to(tokens.device), tokens)
    logs = model(sequences.ids, sequences.positions).log_softmax(-1)
    picked = logs.gather(2, sequences.targets.clamp(min=0)[..., None])[..., 0]
    return picked.masked_fill(sequences.targets == IGNORE, 0.0).sum(1)


@cache
def _description_tree() -> dict:
    """Every whole description in the plainest words, as a tree of word numbers; -1 ends one."""
    root: dict = {}
    for row in encode_words(captions_of(all_labels())).tolist():
        node = root
        for word in row:
            if word == 0:
                break
            node = node.setdefault(word, {})
        node[-1] = {}
    return root


@torch.no_grad()
def describe_tokens(model: GPT, tokens: Tensor, chunk: int = CHUNK) -> list[Attributes]:
    """Say what pictures show: the likeliest word at each step, among those the grammar allows.

    Args:
        model: a GPT.
        tokens: int64 (B, image_tokens) from `Tokenizer.encode`.

    The grammar's tree is followed word by word, so that every answer is a whole description and
    `parse` reads it; which words, the model alone decides.
    """
    model.eval()
    config = model.config
    result = []
    for part in tokens.split(chunk):
        nodes = [_description_tree()] * len(part)
        said: list[list[int]] = [[] for _ in nodes]
        sign = torch.full((len(part), 1), config.describe, device=part.device)
        ids = torch.cat([sign, config.first_code + part], 1)
        image_positions = config.first_image_position + torch.arange(part.shape[1])
        positions = torch.cat([torch.zeros(1, dtype=torch.int64), image_positions])
        cache_ = KVCache(config, len(part), config.positions, model.embedding.weight)
        position = config.first_word_position
        while any(nodes):
            logits = model(ids, positions.to(part.device), cache=cache_)[:, -1]
            words = _allowed_words(config, logits, nodes)
            nodes = [node.get(word, {}) for node, word in zip(nodes, words, strict=True)]
            for sentence, word in zip(said, words, strict=True):
                if word > 0:
                    sentence.append(word)
            ids = torch.tensor([[max(word, 0)] for word in words], device=part.device)
            positions = torch.tensor([position])
            position += 1
        result += [parse(" ".join(VOCABULARY[word] for word in s)) for s in said]
    return result


def _allowed_words(config: TransformerConfig, logits: Tensor, nodes: list[dict]) -> list[int]:
    """The likeliest allowed word of each row, -1 for END; rows that have ended give 0."""
    words = []
    for row, node in zip(logits.tolist(), nodes, strict=True):
        choices = {word: row[config.end if word == -1 else word] for word in node}
        words.append(max(choices, key=choices.__getitem__) if choices else 0)
    return words
