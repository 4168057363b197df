"""Structured pruning: what goes together, that removing changes nothing where nothing was, and the
training that survives a change of shape."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgen_course.compression import pruning
from fastgen_course.compression.channels import (
    LAYERS,
    Group,
    Member,
    PruningError,
    folded_groups,
    generator_groups,
    kept_config,
    remove_channels,
    runs,
    straight,
    widest,
)
from fastgen_course.compression.folding import FORMS, FoldedGenerator, fold
from fastgen_course.compression.importance import gradient_importance, magnitude_importance
from fastgen_course.compression.pruning import PruneRecipe, PruneTrainer, cut, paired_mse, prune
from fastgen_course.models.generator import Generator, GeneratorConfig, layer_widths

WIDTHS = (10, 9, 8, 6, 5, 4)
SMALL = GeneratorConfig(noise=4, caption=8, channels=WIDTHS)
LESS = (6, 7, 4, 5, 3, 2)


def network(seed: int = 1, config: GeneratorConfig = SMALL) -> Generator:
    """A generator whose norms have statistics and weights of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Generator(config)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias)
        return made.eval().requires_grad_(False)


def inputs(n: int = 5, noise: int = 4):
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(1, 30, (n, 9), generator=generator)
    return torch.randn(n, noise, generator=generator), words


def without_effect(state, groups, keep):
    """The state with nothing that reads the channels outside `keep`."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    for layer, kept in keep.items():
        gone = torch.ones(groups[layer].channels, dtype=torch.bool)
        gone[kept] = False
        for member in groups[layer].reading():
            tensor = state[member.tensor].movedim(member.dim, 0)
            tensor[member.places[gone].flatten()] = 0
    return state


def parts(kind: str):
    """(network, its groups, its class) for "norms", "transposed" and "blocks"."""
    if kind == "norms":
        return network(), generator_groups(SMALL), Generator
    folded = fold(network(), kind)
    return folded, folded_groups(SMALL, kind), lambda config: FoldedGenerator(config, kind)


# --- equivalence ---------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(data=st.data(), kind=st.sampled_from(("norms", *FORMS)))
def test_channels_of_no_importance_are_removed_and_outputs_stay_equal(data, kind):
    whole, groups, make = parts(kind)
    keep = {}
    for layer, width in zip(LAYERS, WIDTHS, strict=True):
        kept = data.draw(st.sets(st.integers(0, width - 1), min_size=1), label=layer)
        keep[layer] = torch.tensor(sorted(kept))
    state = without_effect(whole.state_dict(), groups, keep)
    whole.load_state_dict(state)
    smaller = make(kept_config(SMALL, keep)).eval()
    smaller.load_state_dict(remove_channels(state, groups, keep))
    assert layer_widths(smaller.config) == tuple(len(keep[layer]) for layer in LAYERS)
    with torch.no_grad():
        assert torch.allclose(smaller(*inputs()), whole(*inputs()), atol=1e-5)


@pytest.mark.parametrize("kind", ["norms", *FORMS])
def test_every_tensor_shrinks_to_what_the_smaller_network_has(kind):
    whole, groups, make = parts(kind)
    keep = widest(magnitude_importance(whole.state_dict(), groups), LESS)
    left = remove_channels(whole.state_dict(), groups, keep)
    expected = make(replace(SMALL, channels=LESS)).state_dict()
    assert {k: v.shape for k, v in left.items()} == {k: v.shape for k, v in expected.items()}
    assert whole.state_dict()["stem.weight"].shape[0] == 490  # the original keeps its own


def test_folding_and_cutting_commute():
    keep = {layer: torch.arange(width) for layer, width in zip(LAYERS, LESS, strict=True)}
    whole = network()
    smaller = Generator(kept_config(SMALL, keep)).eval()
    smaller.load_state_dict(remove_channels(whole.state_dict(), generator_groups(SMALL), keep))
    with torch.no_grad():
        one = fold(smaller)(*inputs())
        for form in FORMS:
            assert torch.allclose(cut(fold(whole, form), keep)(*inputs()), one, atol=1e-5)


def test_pixel_shuffle_keeps_the_pixels_of_a_channel_in_a_run():
    conv, shuffle = nn.Conv2d(3, 4 * 5, 1), nn.PixelShuffle(2)
    groups = {"up": Group("up", 5, (Member("weight", 0, runs(5, 4), "makes"),
                                    Member("bias", 0, runs(5, 4), "makes")))}  # fmt: skip
    kept = torch.tensor([1, 4])
    smaller = nn.Conv2d(3, 4 * 2, 1)
    smaller.load_state_dict(remove_channels(conv.state_dict(), groups, {"up": kept}))
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(shuffle(smaller(x)), shuffle(conv(x))[:, kept])


def test_groups_are_those_that_torch_pruning_finds_by_tracing():
    tp = pytest.importorskip("torch_pruning")
    from fastgen_course.models import generator as place

    config = GeneratorConfig(noise=4, caption=8, channels=(8, 8, 8, 6, 4, 4))
    whole = place.Generator(config).eval()
    graph = tp.DependencyGraph().build_dependency(whole, example_inputs=inputs(1))
    names = {module: name for name, module in whole.named_modules()}
    for layer in ("conv7", "up14", "conv14", "up28", "conv28"):
        module = getattr(whole, layer)
        cut_outputs = graph.get_pruner_of_module(module).prune_out_channels
        traced = graph.get_pruning_group(module, cut_outputs, idxs=[0])
        found = {names[dep.target.module] for dep, _ in traced if dep.target.module in names}
        ours = {m.tensor.rpartition(".")[0] for m in generator_groups(config)[layer].members}
        assert ours == found, layer


# --- importance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_gradient_importance_is_the_distance_that_dimming_moves_the_picture(form):
    folded = fold(network(), form).double()
    groups, (noise, words) = folded_groups(SMALL, form), inputs(4)
    noise = noise.double()
    found = gradient_importance(folded, groups, noise, words, probes=400)
    step, dimmed = 1e-5, deepcopy(folded)
    for layer, channel in (("stem", 2), ("up14", 0), ("conv28", 1)):
        (member,) = groups[layer].reading()
        dimmed.load_state_dict(folded.state_dict())
        weight = dimmed.state_dict()[member.tensor].movedim(member.dim, 0)
        weight[channel] *= 1 - step
        with torch.no_grad():
            moved = (dimmed(noise, words) - folded(noise, words)) / step
        length = moved.square().sum((1, 2, 3)).mean().sqrt()
        assert found[layer][channel] == pytest.approx(length.item(), rel=0.25)


def test_importance_is_0_where_nothing_reads_the_channel():
    whole, groups, _ = parts("transposed")
    keep = {"conv14": torch.tensor([0, 2, 3, 4, 5])}
    whole.load_state_dict(without_effect(whole.state_dict(), groups, keep))
    found = gradient_importance(whole, groups, *inputs(), probes=2)
    assert found["conv14"][1] == 0 and found["conv14"].max() > 0
    assert not any(p.requires_grad for p in whole.parameters())


@pytest.mark.parametrize("criterion", pruning.CRITERIA)
def test_every_criterion_prunes_to_the_widths_asked_for(criterion):
    folded = fold(network())
    smaller = prune(folded, LESS, criterion)
    assert smaller.config.channels == LESS
    assert paired_mse(smaller, folded, *inputs()) > 0
    assert paired_mse(prune(folded, WIDTHS, criterion), folded, *inputs()) == 0


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"conv7": torch.tensor([], dtype=torch.int64)}, "conv7 can keep from 1 to 9"),
        ({"conv7": torch.tensor([0, 9])}, "0 to 8"),
        ({"conv7": torch.tensor([1, 1])}, "at most once"),
        ({"conv9": torch.tensor([0])}, "conv9"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep, message):
    folded = fold(network())
    with pytest.raises(PruningError, match=message):
        cut(folded, keep)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((0, 1, 1, 1, 1, 1), "stem can keep from 1 to 10"),
        ((11, 1, 1, 1, 1, 1), "from 1 to 10"),
        ((1, 1, 1), "one number for each"),
    ],
)
def test_widths_out_of_range_are_refused(widths, message):
    with pytest.raises(PruningError, match=message):
        prune(fold(network()), widths, "magnitude")


def test_importance_that_is_not_a_number_is_refused():
    with pytest.raises(PruningError, match="finite"):
        widest({"stem": torch.tensor([1.0, float("nan")])}, (1,))


def test_a_state_of_another_network_is_refused():
    other = fold(network(config=replace(SMALL, channels=LESS)))
    with pytest.raises(PruningError, match="of one network"):
        remove_channels(other.state_dict(), folded_groups(SMALL), {"stem": torch.tensor([0])})
    with pytest.raises(PruningError, match="form must be"):
        folded_groups(SMALL, "shuffled")


def test_importance_and_error_need_captions():
    folded, groups, _ = parts("transposed")
    noise, words = inputs()
    with pytest.raises(PruningError, match="at least one caption"):
        gradient_importance(folded, groups, noise[:0], words[:0])
    with pytest.raises(PruningError, match="at least one caption"):
        paired_mse(folded, folded, noise[:0], words[:0])
    with pytest.raises(PruningError, match="criterion"):
        prune(folded, LESS, "beauty")


@pytest.mark.parametrize(
    "fields",
    [
        {"widths": (1, 2, 3)},
        {"widths": (0, 1, 1, 1, 1, 1)},
        {"rounds": 0},
        {"every": 0},
        {"steps": 300},
        {"criterion": "beauty"},
    ],
)
def test_a_recipe_names_the_field_that_is_out_of_range(fields):
    with pytest.raises(PruningError, match=next(iter(fields)).replace("steps", "step")):
        PruneRecipe(**fields)


# --- the training --------------------------------------------------------------------------------


def trainer(judge, **fields):
    recipe = PruneRecipe(
        **{"steps": 12, "batch": 8, "rate": 3e-3, "average": 0.9, "widths": LESS, "rounds": 3,
           "every": 3, "criterion": "magnitude", **fields}
    )  # fmt: skip
    return PruneTrainer("prune_test", recipe, fold(network()), judge)


def test_cuts_come_in_equal_parts():
    recipe = PruneRecipe(widths=LESS, rounds=2, every=50)
    assert recipe.cuts(WIDTHS) == {0: (8, 8, 6, 6, 4, 3), 50: LESS}
    assert PruneRecipe(rounds=1).cuts((128, 128, 64, 64, 32, 32)) == {0: pruning.PRUNED_WIDTHS}


def test_the_network_shrinks_in_rounds_and_ends_at_the_widths(judge, folder):
    training, seen = trainer(judge), []
    for index in range(12):
        training.step(index)
        seen.append(layer_widths(training.model.config)[0])
    assert seen == [9] * 3 + [7] * 3 + [6] * 6
    assert training.average.model.config.channels == LESS
    state = training.optimiser.state_dict()["state"]
    shapes = [p.shape for p in training.model.parameters()]
    assert [state[i]["exp_avg"].shape for i in range(len(shapes))] == shapes
    assert state[0]["step"] == 12  # the moments went on


@pytest.mark.parametrize("stop", [2, 3, 5, 10])
def test_a_killed_pruning_goes_on_in_its_shape_to_the_same_weights(judge, folder, stop):
    whole = trainer(judge).run(quiet=True).state_dict()
    first = trainer(judge)
    first.training.steps = stop
    first.training.run(first.step, quiet=True)
    first.training.save()
    again = trainer(judge)
    resumed = again.run(quiet=True).state_dict()
    assert again.model.config.channels == LESS
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_matching_mends_what_the_cut_broke(judge, folder):
    training = trainer(judge, steps=200, rounds=1, rate=5e-3)
    original = training.original
    broken = prune(original, LESS, "magnitude")
    mended = training.run(quiet=True)
    args = inputs(64)
    assert paired_mse(mended, original, *args) < 0.7 * paired_mse(broken, original, *args)


def test_another_network_may_teach(judge, folder):
    recipe = PruneRecipe(steps=2, widths=LESS, rounds=1, criterion="magnitude")
    start, teacher = fold(network()), fold(network())
    taught = PruneTrainer("taught", recipe, start, judge, teacher=teacher)
    assert taught.original is teacher
    assert taught.model is not start
    assert PruneTrainer("own", recipe, start, judge).original is start


def test_widths_above_the_originals_are_refused(judge):
    with pytest.raises(PruningError, match="stem can keep from 1 to 10 channels, got 11"):
        trainer(judge, widths=(11, 7, 4, 5, 3, 2))


def test_an_unknown_shipped_name_is_refused():
    with pytest.raises(PruningError, match="generator_pruned"):
        pruning.train_pruned("generator_grown")


def test_the_straight_places_have_an_offset():
    assert straight(3, 4).tolist() == [[4], [5], [6]]
