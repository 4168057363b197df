"""Single weights, layers, what pruning is compared with, and what readers touch in notebook 11."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from fastgen_course.compression import pruning_rows, pruning_speed, sensitivity
from fastgen_course.compression.channels import LAYERS, PruningError, folded_groups
from fastgen_course.compression.folding import fold
from fastgen_course.compression.importance import magnitude_importance
from fastgen_course.compression.int8_graphs import example_inputs, float_graph
from fastgen_course.compression.pruning import PruneRecipe, cut, paired_mse
from fastgen_course.compression.sparsity import (
    TICKETS,
    MaskedTrainer,
    apply_masks,
    lottery,
    magnitude_masks,
    maskable,
    masked,
    random_masks,
    smallest_mask,
    sparse_bytes,
    sparsity_of,
    two_of_four,
    two_of_four_masks,
)
from fastgen_course.datasets.captions import CaptionError
from fastgen_course.exercises import pruning as exercises
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.runtimes.onnx_macs import onnx_macs
from fastgen_course.training.matching import MatchRecipe
from fastgen_course.widgets.sparsity_slider import (
    KINDS,
    PrunedSamples,
    SparsitySlider,
    sparsity_figure,
    sparsity_slider,
)

TINY = GeneratorConfig(noise=4, caption=8, channels=(8, 8, 4))


def network(seed: int = 1, config: GeneratorConfig = TINY) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config).eval()


@pytest.fixture
def folded():
    return fold(network())


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def inputs(n: int = 6):
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(1, 30, (n, 9), generator=generator)
    return torch.randn(n, TINY.noise, generator=generator), words


# --- masks ---------------------------------------------------------------------------------------


def test_the_smallest_weights_go():
    weight = torch.tensor([[3.0, -0.1], [0.2, -4.0]])
    assert smallest_mask(weight, 0.5).tolist() == [[1, 0], [0, 1]]
    assert smallest_mask(weight, 0.99).sum() == 1  # one always stays
    assert smallest_mask(weight, 0.0).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_all_weights_cannot_go(folded, share):
    with pytest.raises(PruningError, match="sparsity must be from 0 up to 1"):
        magnitude_masks(folded, share)


def test_masks_leave_shapes_and_captions_alone(folded):
    names = set(maskable(folded))
    assert {"stem.weight", "modulation.weight", "to_rgb.weight"} < names
    assert not any(name.startswith("caption_encoder") for name in names)
    for masks in (
        magnitude_masks(folded, 0.8),
        random_masks(folded, 0.8, torch.Generator().manual_seed(0)),
    ):
        sparse = masked(folded, masks)
        assert sparsity_of(sparse) == pytest.approx(0.8, abs=0.01)
        assert sparsity_of(folded) == 0
        sizes = sparse_bytes(sparse)
        assert sizes["bitmap"] < sizes["dense"] == sparse_bytes(folded)["dense"]
    assert sparse_bytes(folded)["bitmap"] > sizes["dense"]  # nothing zero: the bits come on top


def test_two_of_four_leaves_the_two_largest_of_each_four():
    weight = torch.randn(3, 10, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = two_of_four(weight)
    fours = mask[:, :8].unflatten(1, (2, 4))
    assert (fours.sum(2) == 2).all() and mask[:, 8:].all()  # two inputs are left over
    kept = (weight.abs() * mask)[:, :8].unflatten(1, (2, 4))
    gone = (weight.abs() * (1 - mask))[:, :8].unflatten(1, (2, 4))
    assert (kept.where(kept > 0, torch.tensor(9.0)).amin(2) >= gone.amax(2)).all()
    flat = torch.randn(6, 12)
    assert torch.equal(two_of_four(flat), exercises.two_of_four(flat))
    with pytest.raises(PruningError, match="needs a weight"):
        two_of_four(torch.ones(4))


def test_a_mask_that_does_not_fit_is_refused(folded):
    with pytest.raises(PruningError, match="the mask of conv7"):
        apply_masks(folded, {"conv7.weight": torch.ones(2, 2)})
    with pytest.raises(PruningError, match="missing"):
        apply_masks(folded, {"conv9.weight": torch.ones(2, 2)})


def test_zeros_stay_zero_in_training(folded, judge, folder):
    masks = two_of_four_masks(folded)
    trainer = MaskedTrainer(
        "mask_test", folded, masks, folded, MatchRecipe(steps=3, batch=4), judge
    )
    mended = trainer.run(quiet=True)
    for net in (mended, trainer.model):
        for name, weight in maskable(net).items():
            assert not weight[masks[name] == 0].any()
    assert not torch.equal(mended.conv7.weight, masked(folded, masks).conv7.weight)


def test_the_lottery_trains_every_row_from_where_it_says(folded, judge, folder):
    fresh = [network(seed).train() for seed in (5, 6)]
    recipe = MatchRecipe(steps=2, batch=4, features=0.0)
    rows = lottery(fresh, folded, 0.5, recipe, quiet=True, judge=judge)
    assert list(rows) == list(TICKETS)
    zeros = {name: maskable(net)["conv7.weight"] == 0 for name, net in rows.items()}
    assert not zeros["dense"].any()
    assert torch.equal(zeros["winning"], zeros["redrawn"])
    assert not torch.equal(zeros["winning"], zeros["random"])
    assert zeros["winning"].sum() == zeros["random"].sum() > 0
    assert sparsity_of(fresh[0]) == 0  # the tickets were copies


# --- layers --------------------------------------------------------------------------------------


def test_products_are_those_of_the_exported_graph(tmp_path):
    pytest.importorskip("onnx")
    config = replace(TINY, channels=(7, 6, 5, 4, 3, 2))
    path = float_graph(fold(network(config=config)), tmp_path / "graph.onnx")
    length = example_inputs(fold(network(config=config)), 1)[1].shape[1]
    ngrams = length * 64 * 3 * config.caption
    assert sum(onnx_macs(path).values()) == sum(sensitivity.layer_macs(config).values()) + ngrams


def test_the_more_goes_the_larger_the_error_of_most_layers(folded):
    importance = magnitude_importance(folded.state_dict(), folded_groups(TINY))
    found = sensitivity.sensitivity(folded, importance, *inputs(), shares=(0.0, 0.5))
    assert list(found) == list(LAYERS)
    assert all(errors[0] == 0 and errors[1] > 0 for errors in found.values())
    with pytest.raises(PruningError, match="share must be"):
        sensitivity.layer_error(folded, "conv7", 1.0, importance, *inputs())
    with pytest.raises(PruningError, match="no layer"):
        sensitivity.layer_error(folded, "conv9", 0.5, importance, *inputs())


def test_leaving_one_out_is_cutting_it(folded):
    errors = sensitivity.leave_one_out(folded, "up28", *inputs())
    keep = {"up28": torch.tensor([0, 1, 3])}
    expected = paired_mse(cut(folded, keep), folded, *inputs())
    assert errors[2].item() == pytest.approx(expected, rel=1e-3)
    with pytest.raises(PruningError, match="no channel 4"):
        sensitivity.zero_out(folded, "up28", 4)


# --- what it is compared with --------------------------------------------------------------------

ROW = PruneRecipe(steps=3, batch=4, widths=(6, 6, 6, 6, 3, 3), rounds=2, every=1)


@pytest.mark.parametrize("name", [row for row in pruning_rows.ROWS if not row.startswith("tp_")])
def test_rows_end_in_the_same_shape_after_the_same_updates(name, judge, folder):
    trainer = pruning_rows.row_trainer(name, ROW, base=network(), judge=judge)
    found = pruning_rows.deployed(trainer.run(quiet=True))
    assert found.config.channels == ROW.widths
    assert trainer.training.step == 3


@pytest.mark.parametrize("overall", [False, True])
def test_torch_prunings_network_has_no_fewer_products(overall):
    pytest.importorskip("torch_pruning")
    whole = network(config=replace(TINY, channels=(64, 64, 32)))
    goal = pruning_rows.total_macs(whole.config) // 3
    found = pruning_rows.peer_at(whole, goal, overall, tries=4)
    assert goal <= pruning_rows.total_macs(found.config) < pruning_rows.total_macs(whole.config)
    assert found(*inputs(2)).shape == (2, 3, 28, 28)
    with pytest.raises(PruningError, match="macs must be"):
        pruning_rows.peer_at(whole, 0)
    with pytest.raises(PruningError, match="found no network"):
        pruning_rows.peer_at(whole, pruning_rows.total_macs(whole.config) - 1, overall, tries=1)


def test_an_unknown_row_is_refused():
    with pytest.raises(PruningError, match="no row 'best'"):
        pruning_rows.row_trainer("best", ROW, base=network())


def test_finalists_spend_what_ours_spends():
    base = fold(network(config=GeneratorConfig()))
    shapes = pruning_rows.finalists(base)
    macs = [pruning_rows.total_macs(replace(base.config, channels=w)) for w in shapes.values()]
    assert max(macs) / min(macs) < 1.06


def test_every_timed_row_draws_what_it_should(folded):
    base = network()
    pruned = cut(folded, {"conv7": torch.tensor([0, 2, 3])})
    with torch.no_grad():
        for name in pruning_speed.WHOLE:
            found = pruning_speed.row_network(name, base, pruned)(*inputs())
            assert torch.allclose(found, base(*inputs()), atol=1e-4)
        for name in pruning_speed.PRUNED:
            found = pruning_speed.row_network(name, base, pruned)(*inputs())
            assert torch.allclose(found, pruned(*inputs()), atol=1e-4)
    odd = pruning_speed.row_network("odd", base, pruned)
    assert odd.config.channels == (7, 2, 7, 7, 3, 3)
    assert sparsity_of(pruning_speed.row_network("zeros_90", base, pruned)) > 0.85
    assert set(pruning_speed.ROWS) == {
        *pruning_speed.WHOLE, *pruning_speed.PRUNED, "odd", "two_four", "zeros_90"
    }  # fmt: skip
    with pytest.raises(ValueError, match="no row"):
        pruning_speed.row_network("best", base, pruned)


# --- what readers touch --------------------------------------------------------------------------


def test_exercises_are_what_the_package_computes(folded):
    keep = torch.tensor([1, 2, 5])
    small = cut(folded, {"stem": keep})
    rows = exercises.stem_rows(keep, 8, 49)
    assert torch.equal(small.stem.weight, folded.stem.weight[rows])
    small = cut(folded, {"conv28": torch.tensor([0, 3])})
    made = exercises.remove_channels(
        folded.conv28.weight, folded.conv28.bias, folded.to_rgb.weight, torch.tensor([0, 3])
    )
    assert torch.equal(made[0], small.conv28.weight) and torch.equal(made[1], small.conv28.bias)
    assert torch.equal(made[2], small.to_rgb.weight)


def test_the_slider_redraws_the_same_pictures_with_less(folded):
    samples = PrunedSamples(folded, captions=("a red bag", "a blue dress"), copies=2)
    box = sparsity_slider(samples)
    assert isinstance(box, SparsitySlider)
    before = box.picture.value
    for kind in KINDS:
        box.kind.value = kind
        box.share.value = 0.5
        assert "of the products are left" in box.status.value
    assert box.picture.value != before
    assert samples.draw("weights", 0.5).dense == 1 and samples.draw("weights", 0.5).nonzero == 0.5
    found = samples.draw("gradient", 0.5)
    assert found.dense == found.nonzero < 0.5
    assert samples.draw("two_four", 0.1) is samples.draw("two_four", 0.9)
    assert samples.difference(samples.draw("random", 0.0).images) == 0
    assert samples.difference(found.images) > 0


def test_the_static_figure_and_bad_settings(folded):
    samples = PrunedSamples(folded, captions=("a red bag",), copies=3)
    assert sparsity_figure(samples, "magnitude", (0, 0.5)).axes
    with pytest.raises(ValueError, match="no shares"):
        sparsity_figure(samples, shares=())
    with pytest.raises(PruningError, match="sparsity must be"):
        samples.draw("weights", 1.0)
    with pytest.raises(ValueError, match="kind must be"):
        samples.draw("best", 0.5)
    with pytest.raises(ValueError, match="at least one caption"):
        PrunedSamples(folded, captions=())
    with pytest.raises(CaptionError):
        PrunedSamples(folded, captions=("a red car",))
