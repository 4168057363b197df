"""Our cached loop beside Hugging Face's `generate`, on a GPT-2 of the same size, at batch 1.

    python tests/benchmarks/hf_generate.py [--record]

Both draw 49 tokens behind the same caption with the same settings (temperature, top-p). Weights are
random, as the time does not depend on them. Each runs at 1 and 2 threads, all four interleaved, and
the best of each counts. Nothing is asserted: it is a time. Needs `transformers` (extra [peers]).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, logging

from fastgen_course.datasets.captions import encode_words
from fastgen_course.models.gpt import GPT_BASE
from fastgen_course.models.written_out import written_out
from fastgen_course.sampling.gpt import GPT_SAMPLING, sample_gpt
from fastgen_course.timing import compare, record, record_timing
from fastgen_course.timing.rows import Ratio
from fastgen_course.training.gpt import new_gpt

COMMAND = "python tests/benchmarks/hf_generate.py --record"
CAPTION = "a small red sneaker on a white background, sketch style"


def hugging_face(prompt: int) -> Callable[[], Tensor]:
    """A call of `generate` on a GPT-2 as large as ours."""
    config = GPT2Config(
        vocab_size=GPT_BASE.vocabulary,
        n_positions=prompt + GPT_BASE.image_tokens,
        n_embd=GPT_BASE.width,
        n_layer=GPT_BASE.layers,
        n_head=GPT_BASE.heads,
        bos_token_id=0,
        eos_token_id=None,  # never stops early
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.randint(1, GPT_BASE.words, (1, prompt))
    mask = torch.ones_like(ids)
    n = GPT_BASE.image_tokens
    settings = {k: GPT_SAMPLING[k] for k in ("temperature", "top_p")}

    def call() -> Tensor:
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=n,
            max_new_tokens=n,
            use_cache=True,
            **settings,
        )
        assert out.shape[1] == prompt + n  # 49 tokens were made
        return out

    return call


def ours() -> tuple[Callable[[], Tensor], int]:
    """A call of the cached loop, written out, and the length of its prompt."""
    model = written_out(new_gpt(GPT_BASE, 0))
    words = encode_words([CAPTION])
    generator = torch.Generator().manual_seed(0)
    settings = {k: GPT_SAMPLING[k] for k in ("temperature", "top_p")}

    def call() -> Tensor:
        return sample_gpt(model, words, generator=generator, **settings)

    return call, 1 + int((words != 0).sum())


def at_threads(call: Callable[[], Tensor], threads: int) -> Callable[[], Tensor]:
    """The same call with so many threads."""

    def timed() -> Tensor:
        torch.set_num_threads(threads)
        return call()

    return timed


def main() -> None:
    """Measure, print, and record when asked to."""
    logging.set_verbosity_error()
    mine, prompt = ours()
    theirs = hugging_face(prompt)
    calls = {
        f"{name}, {n} thread{'s' * (n > 1)}": at_threads(call, n)
        for n in (1, 2)
        for name, call in (("ours", mine), ("generate", theirs))
    }
    rows = compare(calls, device="cpu", min_repeats=20, max_seconds=60.0)
    print(rows.table())
    best = {
        name: min((k for k in rows if k.startswith(name)), key=lambda k: rows[k].median_ms)
        for name in ("ours", "generate")
    }
    ratio: Ratio = rows.speedup(best["ours"], over=best["generate"])
    tokens = GPT_BASE.image_tokens
    for key in best.values():
        print(f"{key}: {1000 * tokens / rows[key].median_ms:.0f} tokens/s")
    print(f"ours over generate: {ratio}")
    if "--record" in sys.argv[1:]:
        extra = {"command": COMMAND, "base": "gpt", "runtime": "eager"}
        for name, key in best.items():
            record_timing("sampling", f"sampling.{name}_batch1_ms", rows[key], **extra)
        record(
            "sampling",
            "sampling.hf_generate_speedup",
            ratio.value,
            "x",
            spread=(ratio.low, ratio.high),
            batch=1,
            threads=int(best["ours"].split(", ")[1][0]),
            dtype="float32",
            **extra,
        )


if __name__ == "__main__":
    main()
