"""The decorator: what a reader is told, and what the notebook goes on with."""

import contextlib
import functools
import re
from dataclasses import replace

import matplotlib.pyplot
import pytest
import torch

from fastgen_course.exercises import exercise, hints, registry, render, status, strict
from fastgen_course.exercises.registry import ExerciseError, register_exercise

BEST_D = "example.optimal_discriminator"


@pytest.fixture
def said(example, capsys):
    """Judge a function and return (what goes on, the words)."""

    def judge(fn, id=BEST_D):
        goes_on = exercise(id)(fn)
        return goes_on, capsys.readouterr().out

    return judge


def test_untouched_stub_gives_the_reference(said, example):
    def optimal_discriminator(p_data, p_model):
        """D*(x) for densities given as tensors of one shape."""
        ...  # your turn

    goes_on, words = said(optimal_discriminator)
    assert goes_on is example.optimal_discriminator
    assert "Not attempted; the notebook goes on with ours." in words
    assert status(BEST_D) == "not attempted"


def test_a_stub_without_source_is_seen_by_calling(said, example):
    goes_on, words = said(functools.partial(lambda *_: None))
    assert goes_on is example.optimal_discriminator
    assert "Not attempted" in words


def test_right_code_goes_on(said):
    def mine(p_data, p_model):
        return 1 / (1 + p_model / p_data)
        ...  # a forgotten ellipsis after right code does no harm

    goes_on, words = said(mine)
    assert goes_on is mine
    assert "Right. The rest of the notebook runs your code." in words
    assert status(BEST_D) == "right"


def test_known_mistake_is_named_with_its_hint_and_the_smallest_counter_example(said):
    def mine(p_data, p_model):
        return p_model / (p_model + p_data)

    goes_on, words = said(mine)
    assert goes_on is mine
    assert "Likely mistake: the model's share." in words
    assert "That is the probability that x came from the *model*." in words
    assert re.search(r"p_data +\[0.2\]\n +p_model +\[0.6\]\n +yours +\[0.75\]", words)
    assert "goes on with your code" in words
    assert status(BEST_D) == "wrong"


def test_not_strict_falls_back_to_ours(said, example):
    strict(False)

    def mine(p_data, p_model):
        return p_data / p_model

    goes_on, words = said(mine)
    assert goes_on is example.optimal_discriminator
    assert "The notebook goes on with ours." in words
    strict(True)
    assert said(mine)[0] is mine


def test_yours_is_drawn_beside_ours(said, monkeypatch):
    shown = []
    monkeypatch.setattr(render, "in_ipython", lambda: True)
    monkeypatch.setattr(
        "fastgen_course.exercises.core.show", lambda fig, alt: shown.append((fig, alt))
    )

    def mine(p_data, p_model):
        return p_model / (p_model + p_data)

    said(mine)
    (figure, alt) = shown[0]
    assert [axis.get_title() for axis in figure.axes] == ["yours", "ours"]
    yours, ours = (axis.lines[0].get_ydata() for axis in figure.axes)
    assert yours == pytest.approx(1 - ours)
    assert "The best discriminator" in alt
    matplotlib.pyplot.close(figure)


def test_code_that_cannot_be_drawn_is_still_judged(said, monkeypatch):
    monkeypatch.setattr(render, "in_ipython", lambda: True)

    def mine(p_data, p_model):
        if p_data.numel() == 20:
            raise RuntimeError("no")
        return p_model / (p_model + p_data)

    goes_on, words = said(mine)
    assert goes_on is mine
    assert "could not be drawn beside ours (RuntimeError: no)" in words
    assert not matplotlib.pyplot.get_fignums()  # the inline backend would show what is left


def left_in(p_data, p_model):
    total = ...
    return p_data / total


def forgets_to_return(p_data, p_model):
    p_data / (p_data + p_model)


def returns_ellipsis(p_data, p_model):
    share = ...
    return share


def never_ends(p_data, p_model):
    while True:
        p_data = p_data + 1


def swallows_and_never_ends(p_data, p_model):
    while True:
        with contextlib.suppress(Exception):
            p_data = p_data + 1


def takes_too_little(p_data):
    return p_data


@pytest.mark.parametrize(
    ("mine", "sentence"),
    [
        (left_in, r"raises TypeError: .* \(line \d+: `return p_data / total`\)\. Line \d+ still"),
        (forgets_to_return, r"Your code has no `return`, so its result is None\."),
        (returns_ellipsis, r"Your code returns `\.\.\.`.* Line \d+ still holds `\.\.\.`\."),
        (takes_too_little, r"raises TypeError: .*takes 1 positional argument but 2 were given"),
        (lambda p_data, p_model: [][0], r"raises IndexError: list index out of range"),
        (lambda p_data, p_model: exit(), r"raises SystemExit"),
    ],
)
def test_half_filled_code_is_said_in_words_and_ours_goes_on(said, example, mine, sentence):
    goes_on, words = said(mine)
    assert goes_on is example.optimal_discriminator
    assert "Not finished." in words
    assert re.search(sentence, words), words
    assert status(BEST_D) == "unfinished"


@pytest.mark.parametrize("mine", [never_ends, swallows_and_never_ends])
def test_code_over_the_time_limit_is_stopped_and_ours_goes_on(said, example, mine):
    registry._REGISTRY[BEST_D] = replace(registry.find(BEST_D), time_limit_s=0.2)
    goes_on, words = said(mine)
    assert goes_on is example.optimal_discriminator
    assert "What happened: over the time limit." in words
    assert "still running after 0.2 s and was stopped" in words


def test_the_line_named_is_the_reader_s(said):
    _, words = said(left_in)
    line = left_in.__code__.co_firstlineno
    assert f"(line {line + 2}: `return p_data / total`). Line {line + 1} still holds" in words


@pytest.mark.parametrize(
    ("mine", "sentences"),
    [
        (lambda p, q: 2 * p / (p + q), ["off by a factor", "twice ours everywhere"]),
        (lambda p, q: -p / (p + q), ["Likely mistake: sign", "the negative of ours"]),
        (lambda p, q: (p + q) / p, ["upside down"]),
        (lambda p, q: (p / (p + q)) ** 2, ["the square of ours"]),
        (lambda p, q: (p / (p + q)).log(), ["the logarithm of ours"]),
        (lambda p, q: p / (p + q) - 0.25, ["ours minus 0.25 everywhere"]),
        (lambda p, q: (p / (p + q)).double(), ["The result is float64; float32 is due."]),
        (lambda p, q: (p / (p + q))[None], ["shape (1, 1); shape (1,) is due", "`squeeze`"]),
        (lambda p, q: (p / (p + q)).tolist(), ["is a list of 1; a float32 tensor of shape (1,)"]),
        (lambda p, q: (p - p) / (q - q), ["is NaN where 0.25 is due", "a division by 0"]),
        (lambda p, q: p / (p + p), ["What differs: another value."]),
        (lambda p, q: p / (p + q) + torch.randn(p.shape), ["comes in as an argument"]),
    ],
)
def test_unknown_mistake_gets_a_counter_example_and_a_relation(said, mine, sentences):
    _, words = said(mine)
    assert "Not right yet." in words
    assert re.search(r"p_data +\[0\.2\]", words), words
    for sentence in sentences:
        assert sentence in words


def test_code_that_breaks_what_follows_does_not_go_on(said, example):
    for mine in (lambda p, q: (p / (p + q))[None], lambda p, q: (p - p) / (q - q)):
        goes_on, words = said(mine)
        assert goes_on is example.optimal_discriminator
        assert "The notebook goes on with ours." in words


def test_an_argument_never_read_is_named(said):
    def mine(p_data, p_model):
        return p_data / (p_data + 1)

    assert "Your code never reads `p_model`." in said(mine)[1]


def test_a_large_counter_example_is_cut_to_the_element_that_fails(said):
    def mine(p_data, p_model):
        return torch.where(p_data > 1, 0.0, p_data / (p_data + p_model))

    _, words = said(mine)
    assert re.search(r"p_data +\[1\.\d+\]\n +p_model +\[[\d.]+\]\n +yours +\[0\]", words), words


def test_what_the_code_prints_is_shown_once(said):
    def mine(p_data, p_model):
        print("total", (p_data + p_model).sum().item())
        return p_data

    _, words = said(mine)
    assert words.count("total") == 1
    assert "Your code printed:\ntotal 0.8" in words


def test_right_code_that_spoils_its_input_is_told_so(said):
    def mine(p_data, p_model):
        p_model += p_data
        return p_data / p_model

    goes_on, words = said(mine)
    assert goes_on is mine
    assert "Right." in words
    assert "It changes `p_model` in place" in words


def test_missing_gradient_is_a_mistake_of_its_own(said):
    def mine(mu, logvar, noise):
        return mu + torch.exp(0.5 * logvar.detach()) * noise

    _, words = said(mine, "example.reparameterise")
    assert "What differs: another gradient." in words
    assert "no gradient reaches logvar" in words
    assert re.search(r"yours \(the gradient of logvar\) +no gradient", words), words

    def registered(mu, logvar, noise):
        return mu.detach() + torch.exp(0.5 * logvar) * noise

    assert "A detached mean learns nothing." in said(registered, "example.reparameterise")[1]


def test_wrong_values_with_a_wrong_gradient_are_still_named(said):
    def mine(mu, logvar, noise):
        return mu + torch.exp(logvar.detach()) * noise

    assert "`logvar` is the logarithm of the *variance*." in said(mine, "example.reparameterise")[1]


def test_an_alternative_passes_with_its_note(said):
    def mine(x, reconstruction):
        if x.shape != reconstruction.shape:
            raise ValueError("no")
        return ((x - reconstruction) ** 2).mean((1, 2, 3))

    goes_on, words = said(mine, "example.squared_error")
    assert goes_on is mine
    assert "Right, with a note." in words
    assert "rescales beta" in words
    assert status("example.squared_error") == "right, with a note"


def test_an_alternative_of_another_form_passes_but_ours_goes_on(example, said):
    def largest(x):
        return x.max(0, keepdim=True).values

    register_exercise(
        "example.largest",
        title="The largest",
        difficulty=1,
        minutes=1,
        reference=largest,
        inputs=[torch.tensor([1.0, 3.0])],
        wrong={"least": (lambda x: x.min(0, keepdim=True).values, "The other end."),
               "mean": (lambda x: x.mean(0, keepdim=True), "Not the middle.")},
        alternatives={"no dimension": (lambda x: x.max(), "One number does as well.")},
        hints=("max", "keepdim"),
    )  # fmt: skip
    goes_on, words = said(lambda x: x.amax(), "example.largest")
    assert goes_on is largest
    assert "Right, with a note." in words
    assert "goes on with ours" in words


def test_an_input_that_must_be_refused(said):
    def mine(x, reconstruction):
        return (x - reconstruction).square().flatten(1).sum(1)

    _, words = said(mine, "example.squared_error")
    assert "must be refused with a ValueError; your code raises RuntimeError" in words
    assert "On this input (two shapes):" in words


def test_a_class_is_judged_through_call(said, example):
    class Scale:
        """Multiply by a learned number that starts at 1."""

        def __call__(self, x):
            return x + 1

    goes_on, words = said(Scale, "example.scale")
    assert goes_on is Scale
    assert "To scale is to multiply." in words

    class Empty:
        """Multiply by a learned number that starts at 1."""

        def __call__(self, x): ...

    assert said(Empty, "example.scale")[0] is example.Scale


def test_the_notebook_s_random_numbers_are_its_own(said, monkeypatch):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.setattr(render, "in_ipython", lambda: True)
    monkeypatch.setattr("fastgen_course.exercises.core.show", lambda fig, alt: None)
    said(lambda p, q: p * torch.rand(p.shape))
    assert torch.equal(torch.rand(3), expected)


def test_unknown_id_names_its_neighbours(example):
    with pytest.raises(ExerciseError, match=r"Did you mean example\.optimal_discriminator"):
        exercise("example.optimal_discriminater")
    with pytest.raises(ExerciseError, match="is a prediction; ask it with predict"):
        exercise("example.loss_at_equilibrium")
    with pytest.raises(ExerciseError, match=r"no exercise 'nowhere\.x'"):
        hints("nowhere.x")
