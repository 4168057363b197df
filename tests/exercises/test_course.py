"""The battery on everything the course registers, and on the example that shows how."""

import ast
import json
from pathlib import Path

import pytest

from fastgen_course.exercises import NOTEBOOKS, core, registry, source, testing

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = {key: registry.registered(key) for key in NOTEBOOKS if registry.load(key)}
ITEMS = [item for items in REGISTERED.values() for item in items]


def battery(item):
    if isinstance(item, registry.Exercise):
        testing.check_exercise(item)
    else:
        testing.check_prediction(item)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_item(item, fresh_session):
    battery(item)


@pytest.mark.parametrize("notebook", REGISTERED)
def test_notebook_has_enough(notebook):
    testing.check_notebook(notebook)


def test_example(example):
    for item in registry.registered("example"):
        battery(item)
    testing.check_notebook("example")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebook(path):
    """Every stub is untouched, every registered item is there, and none is unknown."""
    key = {name: key for key, name in NOTEBOOKS.items()}.get(path.stem)
    used = used_in(path)
    for id, stub in used["exercise"]:
        assert isinstance(registry.find(id), registry.Exercise)
        assert source.is_untouched(stub), f"{path.name} holds an answer to {id}."
    for call in ("header", "hints", "predict"):
        for id in used[call]:
            registry.find(id)
    asked = {id for id, _ in used["exercise"]} | set(used["predict"])
    wanted = {item.id for item in registry.registered(key)} if key else set()
    assert wanted <= asked, f"{path.name} never asks {sorted(wanted - asked)}."
    folded = {item.id for item in ITEMS if isinstance(item, registry.Exercise)} & wanted
    assert folded <= set(used["hints"]), f"{path.name} folds no hints for some of {folded}."
    assert wanted <= set(used["header"]), f"{path.name} has no header for some of {wanted}."


def used_in(path):
    found = {"exercise": [], "header": [], "hints": [], "predict": []}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or text.lstrip().startswith("%"):
            continue
        for node in ast.walk(ast.parse(text)):
            for decorator in getattr(node, "decorator_list", []):
                if called(decorator) == "exercise":
                    found["exercise"].append((decorator.args[0].value, node))
            if called(node) in ("header", "hints", "predict") and node.args:
                found[called(node)].append(node.args[0].value)
    return found


def called(node):
    function = getattr(node, "func", None) if isinstance(node, ast.Call) else None
    return function.id if isinstance(function, ast.Name) else None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ({"reference": "odds"}, "the reference is judged 'wrong'"),
        ({"hints": ("one", "one")}, "both hints are the same"),
        ({"wrong": {}}, "0 registered mistakes"),
    ],
)
def test_battery_notices(example, spoil, sentence):
    from dataclasses import replace

    item = registry.find("example.optimal_discriminator")
    if "reference" in spoil:
        spoil = {"reference": item.wrong["the odds"].fn}
    with pytest.raises(AssertionError, match=sentence):
        testing.check_exercise(replace(item, **spoil))


def test_battery_notices_a_drifted_prediction(example):
    from dataclasses import replace

    item = registry.find("example.loss_at_equilibrium")
    with pytest.raises(AssertionError, match="the check gives '2 ln 2'"):
        testing.check_prediction(replace(item, answer="ln 2"))


def test_solution_is_the_source_of_the_reference(example):
    text = core.solution("example.optimal_discriminator")
    assert text in Path(example.__file__).read_text(encoding="utf-8")
    assert text.startswith("def optimal_discriminator(p_data, p_model):")
