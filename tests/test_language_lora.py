"""The adapter's algebra, its training batches and loss, and the shipped weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.datasets.captions import Attributes, is_held_out
from fastgen_course.files import data_path
from fastgen_course.language.decode import END
from fastgen_course.language.lora import Adapter, LoRAConfig, LoRALinear
from fastgen_course.training.edit_lora import BATCH, POOL, answer_loss, batch_of, encode
from tests.helpers_language import TINY, require_language_model, tiny_llama

TINY_LORA = LoRAConfig(rank=2, alpha=4.0, layers=TINY.layers, dim=TINY.dim, kv_width=8)


def adapter(*, trained: bool) -> Adapter:
    torch.manual_seed(5)
    made = Adapter(TINY_LORA)
    if trained:
        for B in made.B.values():
            torch.nn.init.normal_(B, std=0.5)
    return made


def logits(model):
    return model(torch.arange(3, 15)[None])[0]


def test_an_untrained_adapter_changes_nothing():
    model = tiny_llama()
    before = logits(model)
    adapter(trained=False).attach(model)
    assert torch.equal(logits(model), before)


def test_attached_and_merged_give_the_same_and_both_come_off_exactly():
    model, made = tiny_llama(), adapter(trained=True)
    before = logits(model)
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    made.attach(model)
    attached = logits(model)
    made.detach(model)
    made.merge(model)
    merged = logits(model)
    torch.testing.assert_close(attached, merged, rtol=1e-4, atol=1e-4)
    assert (attached - before).abs().max() > 0.05
    made.unmerge(model)
    assert torch.equal(logits(model), before)
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())


def test_it_goes_on_once():
    model, made = tiny_llama(), adapter(trained=True)
    made.attach(model)
    with pytest.raises(ValueError, match="has an adapter already"):
        adapter(trained=False).attach(model)
    made.detach(model)
    made.merge(model)
    with pytest.raises(ValueError, match="merged already"):
        made.merge(model)


def test_its_update_has_the_rank_it_says():
    made = adapter(trained=True)
    update = made.B["0_q"] @ made.A["0_q"]
    assert torch.linalg.matrix_rank(update) == TINY_LORA.rank
    linear = torch.nn.Linear(TINY.dim, TINY.dim, bias=False)
    x = torch.randn(3, TINY.dim)
    y = LoRALinear(linear, made.A["0_q"], made.B["0_q"], made.scale)(x)
    torch.testing.assert_close(y, x @ (linear.weight + 2.0 * update).T, rtol=1e-4, atol=1e-4)


def test_only_the_adapter_learns():
    model, made = tiny_llama(), adapter(trained=True)
    made.attach(model)
    tokens = torch.randint(3, 64, (2, 9))
    wanted = torch.zeros_like(tokens, dtype=torch.bool)
    wanted[:, 6:] = True
    answer_loss(model, tokens, wanted).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())
    own = {id(p) for p in made.parameters()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in own)


def test_the_loss_is_of_the_answer_alone():
    model = tiny_llama()
    tokens = torch.randint(3, 64, (1, 9))
    wanted = torch.zeros_like(tokens, dtype=torch.bool)
    wanted[0, 6:8] = True
    shares = model(tokens[:, :-1])[0].log_softmax(-1)[0]
    by_hand = -(shares[5, tokens[0, 6]] + shares[6, tokens[0, 7]]) / 2
    torch.testing.assert_close(answer_loss(model, tokens, wanted), by_hand)
    padded = torch.cat((tokens, torch.full((1, 3), END)), 1)
    also = torch.cat((wanted, torch.zeros(1, 3, dtype=torch.bool)), 1)
    torch.testing.assert_close(answer_loss(model, padded, also), by_hand)


class WordTokenizer:
    """A token a word."""

    def __init__(self):
        self.words = {}

    def encode_batch(self, texts):
        split = [text.split() for text in texts]
        return [
            SimpleNamespace(ids=[self.words.setdefault(w, len(self.words) + 3) for w in words])
            for words in split
        ]


def test_a_batch_is_its_numbers_own_and_each_pool_is_used_once():
    assert [e.prompt() for e in batch_of(3)] == [e.prompt() for e in batch_of(3)]
    pool = [e for step in range(POOL, 2 * POOL) for e in batch_of(step)]
    assert len(pool) == BATCH * POOL
    assert len({(e.prompt(), e.answer_text()) for e in pool}) > 0.97 * len(pool)
    widths = [max(len(e.prompt()) for e in batch_of(step)) for step in range(POOL)]
    assert widths != sorted(widths)  # short and long batches take turns


def test_batches_ask_for_the_answer_and_its_end():
    batch, tokenizer = batch_of(0), WordTokenizer()
    tokens, wanted = encode(batch, tokenizer)
    back = {number: word for word, number in tokenizer.words.items()}
    for row, mask, example in zip(tokens, wanted, batch, strict=True):
        asked = row[mask].tolist()
        assert asked[-1] == END
        assert [back[i] for i in asked[:-1]] == example.answer_text().split()


def test_no_drawn_batch_has_a_held_out_combination():
    for step in range(0, 340, 17):
        for example in batch_of(step):
            for y in (example.source, example.answer):
                assert not isinstance(y, Attributes) or not is_held_out(y)


# --- the shipped adapter -----------------------------------------------------------------------

needs_adapter = pytest.mark.skipif(
    not data_path("weights", "edit_lora.json").is_file(),
    reason="no adapter is shipped yet; make one with `python -m fastgen_course train edit_lora`",
)


@needs_adapter
def test_the_shipped_adapter_is_small_and_its_card_complete():
    card = load_card("edit_lora")
    assert card["bytes"] < 2_000_000
    assert card["command"] == "python -m fastgen_course train edit_lora"
    # An hour on two cores; the card says how many the training had.
    assert card["minutes"] * card["machine"]["cores_usable"] <= 120
    made = load_model("edit_lora")
    assert isinstance(made, Adapter)
    assert all(B.abs().max() > 0 for B in made.B.values())


@needs_adapter
def test_the_shipped_adapter_edits_and_understands():
    """A few live requests; the 400 of the test sets are measured by language/evaluate.py."""
    require_language_model()
    from fastgen_course.language.edits import MODEL, apply_edit, understand

    boot = Attributes("small", "brown", "boot", "grey", "photo")
    cases = [
        (apply_edit, (boot, "make it red"), ("small", "red", "boot", "grey", "photo")),
        (apply_edit, (boot, "a bigger one"), ("large", "brown", "boot", "grey", "photo")),
        (apply_edit, (boot, "turn it into a coat"), ("small", "brown", "coat", "grey", "photo")),
        (apply_edit, (boot, "get rid of it"), (None, None, "nothing", "grey", None)),
        (understand, ("a big yellow bag on black",), ("large", "yellow", "bag", "black", None)),
        (understand, ("crimson trainers",), (None, "red", "sneaker", None, None)),
    ]
    answers = [call(*arguments, road=MODEL) for call, arguments, _ in cases]
    right = [
        a.attributes == Attributes(*gold) for a, (*_, gold) in zip(answers, cases, strict=True)
    ]
    assert sum(right) >= 5, [a.caption for a in answers]


# --- the trainer, end to end on a tiny model ---------------------------------------------------


class ByteTokenizer:
    """A token a letter, modulo the tiny vocabulary."""

    def encode_batch(self, texts):
        return [SimpleNamespace(ids=[3 + ord(c) % 61 for c in text]) for text in texts]


@pytest.fixture
def tiny_trainer(tmp_path, monkeypatch):
    """`train_edit_lora` on the tiny model, its files in a folder of the test's own."""
    from fastgen_course.language.gguf_file import PACKAGE
    from fastgen_course.training import edit_lora

    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    monkeypatch.setattr(edit_lora, "load_llama", tiny_llama)
    monkeypatch.setattr(edit_lora, "load_tokenizer", ByteTokenizer)
    monkeypatch.setattr(edit_lora, "LoRAConfig", lambda: TINY_LORA)
    monkeypatch.setattr(edit_lora, "gguf_path", lambda: tmp_path / f"{PACKAGE}.gguf")
    monkeypatch.setattr(edit_lora, "STEPS", 4)
    monkeypatch.setattr(edit_lora, "examples_sha256", lambda: "0" * 64)
    return edit_lora


def test_the_trainer_ships_an_adapter_that_learnt(tiny_trainer, tmp_path):
    card = tiny_trainer.train_edit_lora(quiet=True)
    assert card["steps"] == 4 and card["config"]["rank"] == 2
    made = load_model("edit_lora")
    assert all(B.abs().max() > 0 for B in made.B.values())
    assert not (tmp_path / "runs" / "edit_lora.pt").exists()


def test_a_killed_training_goes_on_to_the_same_adapter(tiny_trainer, tmp_path, monkeypatch):
    tiny_trainer.train_edit_lora(quiet=True)
    whole = {k: v.clone() for k, v in load_model("edit_lora").state_dict().items()}
    real, calls = tiny_trainer.batch_of, []

    def dies(step):
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(step)

    monkeypatch.setattr(tiny_trainer, "batch_of", dies)
    tiny = tiny_trainer.Training
    monkeypatch.setattr(
        tiny_trainer, "Training", lambda *a, **k: tiny(*a, **(k | {"save_every_s": 0}))
    )
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer.train_edit_lora(quiet=True)
    assert (tmp_path / "runs" / "edit_lora.pt").exists()
    tiny_trainer.train_edit_lora(quiet=True)
    assert calls == [0, 1, 2, 2, 3]  # not from the start
    for name, tensor in load_model("edit_lora").state_dict().items():
        assert torch.equal(tensor, whole[name]), name
