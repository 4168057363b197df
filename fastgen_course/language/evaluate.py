"""Measure every road on the two test sets: `python -m fastgen_course.language.evaluate [ROAD ...]`.

Exact means all five slots of the description right (`language.drawn` judges pictures). The interval
is a 95 % bootstrap over the requests. The untrained model's roads take a fixed subset of 40
requests, every fifth, since each costs seconds. With `--development` the roads answer the
development requests instead, print what they got wrong and record nothing: that is what the rules
and the training were tuned on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from fastgen_course.datasets.captions import Attributes, CaptionError, render
from fastgen_course.files import data_path, read_json
from fastgen_course.language.decode import greedy
from fastgen_course.language.edits import MODEL, RULES, apply_edit, load_reader, understand
from fastgen_course.language.examples import known_words
from fastgen_course.language.prompting import Prompted, _read
from fastgen_course.language.testsets import edit_requests, free_wording, unseen_words
from fastgen_course.metrics.intervals import bootstrap_interval
from fastgen_course.timing import record

COMMAND = "python -m fastgen_course.language.evaluate"
SUBSET = 5  # the slow roads take every fifth request

Answer = Callable[[Attributes | None, str], Attributes | None]


@dataclass(frozen=True)
class Item:
    """One request of either test set."""

    source: Attributes | None
    text: str
    gold: Attributes


def development_items(wanted: Callable[[], list[Item]]) -> list[Item]:
    """The development requests of the same kind as those of `wanted`."""
    sets = read_json(data_path("language", "development.json"))
    if wanted is wording_items:
        return [Item(None, row["text"], Attributes(**row["gold"])) for row in sets["wording"]]
    return [
        Item(Attributes(**row["source"]), row["request"], Attributes(**row["gold"]))
        for row in sets["edits"]
    ]


def edit_items() -> list[Item]:
    """The 200 edit requests."""
    return [Item(e.source, e.request, e.gold) for e in edit_requests()]


def wording_items() -> list[Item]:
    """The 200 prompts in free wording."""
    return [Item(None, w.text, w.gold) for w in free_wording()]


def _final(road: str | None) -> Answer:
    def answer(source: Attributes | None, text: str) -> Attributes | None:
        try:
            given = (
                understand(text, road=road)
                if source is None
                else apply_edit(source, text, road=road)
            )
        except CaptionError:
            return None
        return given.attributes

    return answer


def junction() -> Answer:
    """What readers get: the rules, and the model for the words that they do not know."""
    load_reader()  # without it the rules would answer alone, under another name
    return _final(None)


def _adapter_unconstrained(source: Attributes | None, text: str) -> Attributes | None:
    """The adapter without the grammar: greedy tokens, read by `parse`."""
    reader = load_reader()
    tokens = greedy(reader.model, reader.tokens_of(text, source))
    return _read(reader.tokenizer.decode(tokens).strip())


def _prompted(way: str) -> Callable[[], Answer]:
    return lambda: getattr(Prompted(), way)


# road: (what answers, name of the figure's first part, test set, every n-th request)
ROADS: dict[str, tuple[Callable[[], Answer], str, Callable[[], list[Item]], int]] = {
    "zero_shot": (_prompted("zero_shot"), "zero_shot_", edit_items, SUBSET),
    "few_shot": (_prompted("few_shot"), "few_shot_", edit_items, SUBSET),
    "constrained": (_prompted("constrained"), "constrained_", edit_items, SUBSET),
    "likelihood": (_prompted("likelihood"), "likelihood_", edit_items, SUBSET),
    "rules": (lambda: _final(RULES), "rules_", edit_items, 1),
    "lora": (lambda: _adapter_unconstrained, "lora_", edit_items, 1),
    "model": (lambda: _final(MODEL), "model_", edit_items, 1),
    "edit": (junction, "", edit_items, 1),
    "understand_rules": (lambda: _final(RULES), "understand_rules_", wording_items, 1),
    "understand_model": (lambda: _final(MODEL), "understand_model_", wording_items, 1),
    "understand": (junction, "understand_", wording_items, 1),
}


@dataclass(frozen=True)
class Score:
    """One road's result, request by request."""

    right: torch.Tensor  # bool (N,)
    answered: torch.Tensor  # bool (N,): the answer was a description, right or wrong
    unseen: torch.Tensor  # bool (N,): the request has a word that the training never used


def score(answer: Answer, items: Sequence[Item], *, quiet: bool = False) -> Score:
    """Answer every item and compare with its gold."""
    known = known_words()
    rows = []
    for item in tqdm(items, leave=False, disable=quiet):
        given = answer(item.source, item.text)
        unseen = bool(unseen_words(item.text, known))
        rows.append((given == item.gold, given is not None, unseen))
    return Score(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def record_road(road: str, result: Score, every: int) -> None:
    """Write a road's figures into the registry, area `language_edit`."""
    _, prefix, items, _ = ROADS[road]
    name = f"language_edit.{prefix}"
    about = {
        "command": f"{COMMAND} {road}",
        "test_set": "data/language/" + ("edit_requests" if items is edit_items else "free_wording"),
        "subset": f"every {every}th request" if every > 1 else "all",
    }
    if road not in ("rules", "understand_rules"):
        about["base"] = "SmolLM2-135M-Instruct Q4_1"
    for suffix, values in (
        ("exact", result.right),
        ("unseen_exact", result.right[result.unseen]),
        ("answered", result.answered),
    ):
        if len(values):
            low, high = bootstrap_interval(values.double())
            share = values.double().mean().item()
            extra = {**about, "requests": len(values)}
            record("language_edit", name + suffix, share, "share", spread=(low, high), **extra)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and record the roads named, or all."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("roads", nargs="*", help=f"of {', '.join(ROADS)}; none: all")
    parser.add_argument("--development", action="store_true", help="tune: print, record nothing")
    options = parser.parse_args(arguments)
    if options.development:
        return develop(options.roads)
    chosen = options.roads or list(ROADS)
    if wrong := [road for road in chosen if road not in ROADS]:
        parser.error(f"there is no road {wrong[0]!r}; choose from {', '.join(ROADS)}.")
    for road in chosen:
        make, _, items, every = ROADS[road]
        result = score(make(), items()[::every])
        record_road(road, result, every)
        right, unseen = result.right.double(), result.right[result.unseen].double()
        print(
            f"{road}: exact {right.mean():.3f} of {len(right)}, "
            f"with unseen words {unseen.mean():.3f} of {len(unseen)}, "
            f"answered {result.answered.double().mean():.3f}"
        )


def develop(roads: Sequence[str]) -> None:
    """Answer the development requests by some roads and print every wrong answer."""
    for road in roads or ("rules", "edit", "understand_rules", "understand"):
        make, _, items, _ = ROADS[road]
        answer, right = make(), 0
        rows = development_items(items)
        for item in rows:
            given = answer(item.source, item.text)
            right += given == item.gold
            if given != item.gold:
                print(f"  {item.text!r}: {render(given) if given else None}")
        print(f"{road}: {right} of {len(rows)}")


if __name__ == "__main__":
    main()
