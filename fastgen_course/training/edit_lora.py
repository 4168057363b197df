"""Train the adapter that edits descriptions and reads free wording, on synthetic examples.

One adapter learns both tasks. The loss counts the answer's tokens alone; the base model stays
frozen. Examples come from `language/examples.py` by number, so that a resumed run draws the same
ones. The test sets are read for one purpose: a training request that happens to be worded like one
of theirs is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F

from fastgen_course.checkpoints import save_checkpoint
from fastgen_course.language.decode import END
from fastgen_course.language.examples import Example, examples
from fastgen_course.language.gguf_file import gguf_path, load_llama, load_tokenizer
from fastgen_course.language.lora import Adapter, LoRAConfig
from fastgen_course.language.smollm import Llama
from fastgen_course.language.testsets import edit_requests, free_wording
from fastgen_course.timing import machine
from fastgen_course.training.loop import Training, cosine_with_warmup, set_rate

SEED = 606
STEPS = 700
BATCH = 16
RATE = 1.5e-3
POOL = 8  # batches are cut from this many, sorted by length: less padding, fewer wasted products


@cache
def _reserved() -> frozenset[str]:
    """The wordings of both test sets, bare of case and final marks."""
    texts = [w.text for w in free_wording()] + [e.request for e in edit_requests()]
    return frozenset(_bare(text) for text in texts)


def _bare(text: str) -> str:
    return text.lower().strip(" .!?")


def training_examples(seed: int) -> Iterator[Example]:
    """`examples(seed)` without those that a test set words alike."""
    return (e for e in examples(seed) if _bare(e.request) not in _reserved())


def batch_of(step: int, batch: int = BATCH) -> list[Example]:
    """The examples of one step: the pool of its number, sorted by length, its own slice of it."""
    number, position = divmod(step, POOL)
    pool = list(islice(training_examples(SEED * 100_003 + number), batch * POOL))
    pool.sort(key=lambda e: len(e.prompt()) + len(e.answer_text()))
    # Another order in every pool, so that short and long batches take turns.
    start = (position * 3 + number) % POOL * batch
    return pool[start : start + batch]


def encode(batch: list[Example], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, T), padded on the right, and the mask (B, T) of those that are to be predicted."""
    prompts = tokenizer.encode_batch([e.prompt() for e in batch])
    answers = tokenizer.encode_batch([e.answer_text() for e in batch])
    rows = [p.ids + a.ids + [END] for p, a in zip(prompts, answers, strict=True)]
    tokens = torch.full((len(rows), max(map(len, rows))), END)
    wanted = torch.zeros_like(tokens, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        wanted[i, len(prompts[i].ids) : len(row)] = True
    return tokens, wanted


def answer_loss(model: Llama, tokens: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the wanted tokens, each given all before it.

    The head, 49,152 rows, is applied at the answer's places only.
    """
    states, _ = model.states(tokens[:, :-1])
    places = wanted[:, 1:]
    return F.cross_entropy(model.head(states[places]), tokens[:, 1:][places])


def train_edit_lora(name: str = "edit_lora", *, quiet: bool = False) -> dict[str, Any]:
    """Train and ship the adapter; resumes a killed run. Raises `NoLanguageModel` without it."""
    torch.manual_seed(SEED)
    model, tokenizer = load_llama(), load_tokenizer()
    adapter = Adapter(LoRAConfig())
    adapter.attach(model)
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(SEED)
    training = Training(name, {"adapter": adapter, "optimiser": optimiser}, generator, STEPS)
    training.resume()

    def step_fn(step: int) -> dict[str, float]:
        set_rate(optimiser, RATE * cosine_with_warmup(step, STEPS, warmup=20))
        loss = answer_loss(model, *encode(batch_of(step), tokenizer))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimiser.step()
        return {"loss": loss.item()}

    training.run(step_fn, log_every=20, quiet=quiet)
    card = save_checkpoint(
        name,
        adapter,
        {
            "seed": SEED,
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": examples_sha256(),
            "minutes": round(training.seconds / 60, 1),
            "machine": machine(),
            "metrics": {"loss": training.history["loss"][-1], "loss_unit": "nats a token"},
            "steps": STEPS,
            "batch": BATCH,
            "base": gguf_path().name,
        },
    )
    training.finish()
    return card


def examples_sha256(steps: int = STEPS) -> str:
    """One hash for every example that the training draws."""
    digest = hashlib.sha256()
    for step in range(steps):
        for example in batch_of(step):
            digest.update(f"{example.prompt()}{example.answer_text()}\n".encode())
    return digest.hexdigest()
