"""The parts: reading source, running under a limit, comparing, relating, registering."""

import ast
import math
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from fastgen_course.exercises import Case, registry, source
from fastgen_course.exercises.compare import compare, significant
from fastgen_course.exercises.diagnose import diagnose
from fastgen_course.exercises.run import TimeLimitError, clone, limited, limited_in_thread, observe
from fastgen_course.exercises.values import describe


def node_of(text):
    return ast.parse(text).body[0]


@pytest.mark.parametrize(
    ("text", "untouched"),
    [
        ('def f(x):\n    """Do."""\n    ...  # your turn', True),
        ("def f(x):\n    pass", True),
        ('def f(x):\n    """Do."""', True),
        ("def f(x): ...", True),
        ('def f(x):\n    """Do."""\n    ...\n    return x', False),
        ("def f(x):\n    y = ...\n", False),
        ("def f(x):\n    return ...", False),
        ("def f(x):\n    raise NotImplementedError", False),
        ("class A:\n    def f(self): ...\n    def g(self):\n        pass", True),
        ("class A:\n    def f(self): ...\n    def g(self):\n        return 1", False),
    ],
)
def test_untouched_is_a_docstring_and_placeholders_alone(text, untouched):
    assert source.is_untouched(node_of(text)) is untouched


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("y = ...", 2),
        ("return x[..., 0]", None),
        ("f: Callable[..., int] = x", None),
        ("return g(...)", 2),
        ("if x is ...:\n        return 1", None),
        ("y = x[..., None]\n    z = ...", 3),
    ],
)
def test_an_ellipsis_counts_where_a_value_is_due(body, line):
    assert source.leftover_ellipsis(node_of(f"def f(x):\n    {body}")) == line


def test_returns_and_arguments_are_those_of_the_function_itself():
    inner = node_of("def f(x, y, _z):\n    def g():\n        return x\n    g()")
    assert source.returns_nothing(inner)
    assert source.unused_arguments(inner) == ["y"]
    assert not source.returns_nothing(node_of("def f():\n    yield 1"))


@pytest.mark.parametrize("limit", [limited, limited_in_thread])
def test_time_limit(limit):
    assert limit(lambda: 3, 5.0) == 3
    with pytest.raises(KeyError, match="mine"):
        limit(lambda: {}["mine"], 5.0)

    def forever():
        while True:
            pass

    before = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"after 0\.1 s") as caught:
        limit(forever, 0.1)
    assert time.monotonic() - before < 5
    assert caught.value.stopped
    assert not [t for t in threading.enumerate() if t.name == "fastgen-exercise" and t.is_alive()]


def test_a_thread_that_cannot_be_stopped_is_reported():
    released = threading.Event()
    with pytest.raises(TimeLimitError) as caught:
        limited_in_thread(lambda: released.wait(30), 0.05)
    released.set()
    assert not caught.value.stopped


def test_a_timer_that_somebody_else_set_is_left_alone():
    signal = pytest.importorskip("signal")
    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timers on this platform")
    signal.setitimer(signal.ITIMER_REAL, 100.0)
    try:
        assert limited(lambda: threading.current_thread().name, 5.0) == "fastgen-exercise"
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert limited(lambda: threading.current_thread().name, 5.0) == "MainThread"


def test_threads_keep_the_gradient_setting():
    with torch.no_grad():
        assert limited_in_thread(torch.is_grad_enabled, 5.0) is False


def test_every_call_gets_its_own_copy():
    generator = torch.Generator().manual_seed(3)
    case = Case((torch.zeros(2), generator, nn.Linear(2, 2), {"a": [torch.ones(1)]}))

    def spoil(x, g, net, nested):
        x += torch.rand(2, generator=g)
        net.weight.data.zero_()
        nested["a"][0].zero_()
        return x

    first, second = observe(spoil, case), observe(spoil, case)
    assert torch.equal(first.value, second.value)
    assert first.mutated == ["x"]
    assert case.args[2].weight.abs().sum() > 0
    assert case.args[3]["a"][0] == 1
    assert torch.equal(clone(generator).get_state(), generator.get_state())


def test_gradients_of_inputs_and_parameters_are_observed():
    case = Case((nn.Linear(2, 1), torch.ones(3, 2), torch.tensor([1, 2, 3])))
    outcome = observe(lambda net, x, label: net(x).squeeze() * label, case, gradients=True)
    assert set(outcome.gradients) == {"net.weight", "net.bias", "x"}
    assert outcome.gradients["x"].shape == (3, 2)
    blocked = observe(lambda net, x, label: net(x.detach()), case, gradients=True)
    assert blocked.gradients["x"] is None
    assert not case.args[1].requires_grad


NAN = float("nan")


@pytest.mark.parametrize(
    ("yours", "ours", "kind"),
    [
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), None),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, math.inf]), "value"),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0]), "nonfinite"),
        (torch.tensor([1.0, 2.00001]), torch.tensor([1.0, 2.0]), None),
        (torch.tensor([1.0, 2.1]), torch.tensor([1.0, 2.0]), "value"),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), "dtype"),
        (torch.ones(2, 1), torch.ones(2), "shape"),
        (torch.empty(0, 2), torch.empty(0, 2), None),
        (nn.Parameter(torch.ones(2)), torch.ones(2), None),
        (torch.tensor([True]), torch.tensor([False]), "value"),
        (np.ones(2), torch.ones(2), "type"),
        (np.ones(2), np.ones(2), None),
        (np.array(["a"]), np.array(["b"]), "value"),
        (1, 1.0, None),
        (True, 1, "type"),
        (1.5, 1.0, "value"),
        (torch.tensor(1.0), 1.0, "type"),
        ("a", "b", "value"),
        ([1, 2], (1, 2), None),
        ((1,), (1, 2), "length"),
        ((1, None), (1, 2), "nothing"),
        ({"a": 1}, {"b": 1}, "length"),
        ({"a": torch.ones(1)}, {"a": torch.zeros(1)}, "value"),
        (None, None, None),
        (..., 1, "nothing"),
        (torch.float32, torch.float64, "value"),
    ],
)
def test_compare(yours, ours, kind):
    found = compare(yours, ours, 1e-4)
    assert (found.kind if found else None) == kind


def test_compare_says_where():
    ours = {"z": (torch.zeros(2, 3), torch.ones(1))}
    yours = {"z": (torch.zeros(2, 3), torch.ones(1))}
    yours["z"][0][1, 2] = 1
    found = compare(yours, ours, 1e-4)
    assert found.where == "item 0 of item 'z'"
    assert found.index == (1, 2)
    assert found.share == pytest.approx(1 / 6)


def build(reference, inputs, **options):
    given = {
        "wrong": {
            "plus": (lambda *a: reference(*a) + 77, "One."),
            "times": (lambda *a: reference(*a) * 77, "Two."),
        },
        "title": "T",
        "difficulty": 1,
        "minutes": 1,
        "hints": ("a", "b"),
    } | options
    return registry.register_exercise("example.built", reference=reference, inputs=inputs, **given)


SIZES = [tuple(torch.randn(2, n, 3, generator=torch.Generator().manual_seed(n))) for n in (4, 7)]


@pytest.mark.parametrize(
    ("reference", "mine", "mistake", "sentence"),
    [
        (lambda a, b: (a - b).square().mean(), lambda a, b: (a - b).square().sum(),
         "sum for mean", "the number of elements of `a`"),
        (lambda a, b: (a * b).sum(0), lambda a, b: (a * b).mean(0),
         "mean for sum", "the size of dimension 0 of `a`"),
        (lambda a, b: (a * b).sum(1), lambda a, b: a * b,
         "sum not taken", "over dimension 1 of your result"),
        (lambda a, b: a * b, lambda a, b: (a * b).mean(0),
         "mean over too many dimensions", "reduce less"),
        (lambda a, b: a @ b.T, lambda a, b: b @ a.T + 0,
         "arguments in the wrong order", "`a` and `b` exchanged"),
        (lambda a, b: a.T.contiguous(), lambda a, b: a.reshape(3, -1).T,
         "", "has shape (4, 3); shape (3, 4) is due"),
        (lambda a, b: a.T.contiguous(), lambda a, b: a,
         "transposed", "dimensions 0 and 1 exchanged"),
        (lambda a, b: a.abs().log(), lambda a, b: a.abs().log2(),
         "off by a factor", "as between log2 and log"),
        (lambda a, b: a, lambda a, b: a.abs(), "sign lost", "magnitude"),
        (lambda a, b: a.abs() + 1, lambda a, b: (a.abs() + 1).sqrt(), "square root", "root"),
        (lambda a, b: a, lambda a, b: a.exp(), "exponential", "the exponential of ours"),
        (lambda a, b: a, lambda a, b: 1 - a, "one minus the answer", "1 minus ours"),
        (lambda a, b: a.relu(), lambda a, b: a.relu() + 3 * (a > 1.2),
         "", "of its elements and right in the others"),
    ],
)  # fmt: skip
def test_relations(example, reference, mine, mistake, sentence):
    found = diagnose(build(reference, SIZES), mine)
    assert found.status == "wrong"
    assert found.named is bool(mistake)
    assert mistake in found.mistake
    assert sentence in " ".join(found.says), found.says


def test_gradient_relation(example):
    exercise = build(lambda a, b: a * b, SIZES, check_gradients=True)

    def mine(a, b):
        return a * b + (a - a.detach()) * b

    found = diagnose(exercise, mine)
    assert "The values are right, the gradient of a is not." in found.says
    assert "Your gradient is twice ours." in found.says


def test_zero_and_no_gradient_are_alike(example):
    exercise = build(lambda a, b: a + 0 * b, SIZES, check_gradients=True)
    assert diagnose(exercise, lambda a, b: a).status == "right"


def refuse(match, **options):
    with pytest.raises(registry.ExerciseError, match=match):
        build(**{"reference": torch.sin, "inputs": [torch.tensor([1.0, 2.0])], **options})


def test_registration_refuses_what_cannot_work(example):
    same = {"plus": (lambda x: x + 1, "A."), "also plus": (lambda x: 1 + x, "B.")}
    refuse("wrong 'plus' and wrong 'also plus' cannot be told apart", wrong=same)
    right = {"right": (lambda x: x.sin(), "A."), "plus": (lambda x: x + 1, "B.")}
    refuse("the reference and wrong 'right' cannot be told apart", wrong=right)
    # A difference of two tolerances leaves room for a result within tolerance of both.
    close = {"near": (lambda x: x.sin() * 1.0002, "A."), "plus": (lambda x: x + 1, "B.")}
    refuse("cannot be told apart", wrong=close)
    refuse("at least two wrong", wrong={"plus": (lambda x: x + 1, "A.")})
    refuse("no inputs", inputs=[])
    refuse("difficulty is 1 to 5, got 6", difficulty=6)
    refuse("minutes are 1 to 60, got 0", minutes=0)
    refuse("needs two hints", hints=("one",))
    refuse("the reference fails", inputs=["text"])
    assert "example.built" not in registry._REGISTRY


def test_one_id_belongs_to_one_module(example):
    def elsewhere(x):
        return x

    elsewhere.__module__ = "another.module"
    build(torch.sin, [torch.tensor([1.0, 2.0])])
    refuse("'example.built' is already registered", reference=elsewhere)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        ({"answer": "3 ln 2"}, "is not among its choices"),
        ({"wrong": {"0": "A."}}, "missing: \\['ln 2'\\]"),
        ({"choices": ("0", "2 ln 2")}, "three to six different"),
        ({"id": "nowhere.x"}, "must be 'notebook.name'"),
    ],
)
def test_a_prediction_must_be_whole(example, spoil, match):
    fields = {
        "id": "example.other", "title": "T", "difficulty": 1, "minutes": 1, "question": "Q?",
        "choices": ("0", "ln 2", "2 ln 2"), "answer": "2 ln 2", "why": "W.",
        "wrong": {"0": "A.", "ln 2": "B."},
    } | spoil  # fmt: skip
    with pytest.raises(registry.ExerciseError, match=match):
        registry.register_prediction(fields.pop("id"), **fields)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor([[1.0, 0.33333333], [2.0, NAN]]), "[[1, 0.3333], [2, NaN]]"),
        (torch.zeros(4, 5), "float32 tensor of shape (4, 5), starting 0, 0, 0, 0, ..."),
        (np.arange(3), "array [0, 1, 2]"),
        ((1, "a", None), "(1, 'a', None)"),
        ({"beta": 0.5}, "{'beta': 0.5}"),
        (nn.Linear(1, 1), "a Linear"),
        (torch.Generator(), "a seeded generator"),
        (math.sin, "sin"),
        (..., "..."),
    ],
)
def test_describe(value, words):
    assert describe(value) == words


def test_significant():
    assert significant(0.123456) == "0.1235"
    assert significant(-math.inf) == "-inf"
