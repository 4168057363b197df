"""What the language model's tests share: whether it is here, and a tiny stand-in for it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from fastgen_course.language.gguf_file import NoLanguageModel, gguf_path
from fastgen_course.language.smollm import Llama, LlamaConfig

TINY = LlamaConfig(vocabulary=64, dim=24, layers=3, heads=6, kv_heads=2, hidden=40)


def require_language_model() -> None:
    """Skip without the package, unless FASTGEN_REQUIRE_LANGUAGE=1 makes that a failure."""
    try:
        gguf_path()
    except NoLanguageModel as error:
        skip_or_fail(str(error))


def skip_or_fail(reason: str) -> None:
    """Skip with a reason; in CI, where nothing may be skipped, fail with it."""
    if os.environ.get("FASTGEN_REQUIRE_LANGUAGE") == "1":
        pytest.fail(f"{reason} (FASTGEN_REQUIRE_LANGUAGE is set)")
    pytest.skip(reason)


def tiny_llama(seed: int = 0) -> Llama:
    """A LLaMA of a few thousand random weights, frozen."""
    torch.manual_seed(seed)
    return Llama(TINY).eval().requires_grad_(False)


class LetterTokenizer:
    """A token a letter, as far as 64 tokens go: enough for tries and prompts."""

    letters = "\n abcdefghijklmnopqrstuvwxyz,-:"

    def encode(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(ids=[self.letters.index(c) + 3 for c in text.lower()])

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def decode(self, ids) -> str:
        return "".join(self.letters[i - 3] for i in ids)
