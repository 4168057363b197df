"""A quantised generator: folding is exact, integers draw what rounded floats draw, QAT goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fastgen_course import checkpoints
from fastgen_course.checkpoints import load_model, save_checkpoint
from fastgen_course.compression.affine import Grid, QuantizationError, Scheme, fake_quantize
from fastgen_course.compression.codebook import codebook_generator, generator_bytes
from fastgen_course.compression.folding import (
    FORMS,
    BlockUpsampling,
    FoldedGenerator,
    blocks_weight,
    fold,
    set_layer,
)
from fastgen_course.compression.int8_graphs import (
    example_inputs,
    float_graph,
    library_static_graph,
    write_integer_graph,
)
from fastgen_course.compression.int8_profile import OTHER, grouped_times, operator_times
from fastgen_course.compression.packed import pack, stored_bytes
from fastgen_course.compression.qat import (
    QAT_RECIPES,
    QATRecipe,
    QATTrainer,
    parameters_moved,
    train_quantized,
)
from fastgen_course.compression.quantized import (
    LAYERS,
    calibration_batches,
    new_quantized,
    quantize_generator,
    straight_through,
)
from fastgen_course.datasets.captions import held_out_mask, labels_of, parse
from fastgen_course.models.discriminator import judge_features
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.runtimes.onnx_export import OnnxModel
from fastgen_course.training import TRAINERS, loop

TINY = GeneratorConfig(noise=6, caption=8, channels=(8, 6, 4))


@pytest.fixture(scope="module")
def generator():
    """A tiny generator whose norms have seen something, so that folding them means something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator(TINY)
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.05, 0.3)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batches(generator):
    return calibration_batches(generator.config, 32, batch=16)


@pytest.fixture(scope="module")
def int8(generator, batches):
    return quantize_generator(generator, batches=batches, weight_bits=7, activation_bits=8)


# --- folding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_folding_changes_no_picture(generator, batches, form):
    noise, words = batches[0]
    folded = fold(generator, form)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(noise, words), generator(noise, words), atol=2e-5)


def test_the_shipped_generator_folds_too():
    model = load_model("generator_base")
    given = example_inputs(model, 2)
    for form in FORMS:
        assert torch.allclose(fold(model, form)(*given), model(*given), atol=1e-4)


def test_blocks_are_the_transposed_convolution():
    layer = nn.ConvTranspose2d(3, 5, 4, 2, 1)
    blocks = BlockUpsampling(3, 5)
    set_layer(blocks, layer.weight, layer.bias)
    for height, width in ((1, 1), (3, 5)):
        x = torch.randn(2, 3, height, width)
        assert torch.allclose(blocks(x), layer(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"\(in, out, 4, 4\)"):
        blocks_weight(torch.zeros(3, 5, 3, 3))
    with pytest.raises(ValueError, match="one of transposed, blocks, mixed"):
        FoldedGenerator(TINY, "pixels")


# --- rounded floats and integers ----------------------------------------------------------------


def test_the_gradient_goes_straight_through_and_stops_at_the_ends():
    x = torch.tensor([-3.0, -0.4, 0.3, 0.9, 5.0], requires_grad=True)
    log_scale = torch.tensor(-1.0, requires_grad=True)
    scale = log_scale.exp()
    grid = Grid(scale, torch.zeros(()), -3, 3)
    y = straight_through(x, grid)
    assert torch.equal(y.detach(), fake_quantize(x, grid).detach())
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    # Esser et al. 2020, equation 3: round(x / s) - x / s inside, the end beyond.
    steps = (x / scale).detach()
    inside = (steps.round() - steps).where(steps.abs() <= 3, steps.sign() * 3)
    assert log_scale.grad.item() == pytest.approx(float(inside.sum() * scale.detach()), rel=1e-4)


@pytest.mark.parametrize("bits", [(8, 8), (7, 8), (4, 8), (2, 4)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_draw_what_rounded_floats_draw(generator, batches, bits, per_channel):
    network = quantize_generator(
        generator, batches=batches, weight_bits=bits[0], activation_bits=bits[1],
        per_channel=per_channel,
    )  # fmt: skip
    noise, words = batches[1]
    rounded = network(noise, words)
    with network.integer_arithmetic():
        integers = network(noise, words)
    assert torch.equal(network(noise, words), rounded)  # and back again
    # A sum that lies within float rounding of the middle of two steps may go either way.
    apart = (integers - rounded).abs() > 1e-4
    assert apart.float().mean() < 0.005
    assert (rounded - generator(noise, words)).abs().max() > 1e-3  # something was rounded


def test_every_layer_stores_few_integers(int8):
    for name, layer in int8.layers():
        q = layer.weight_integers()
        assert q.abs().max() <= 63 and len(q.unique()) <= 127, name
        assert torch.allclose(layer.weight(), q * layer.log_scale.exp(), atol=1e-6)
    assert [name for name, _ in int8.layers()] == list(LAYERS)


def test_fewer_bits_are_further_away(generator, batches):
    noise, words = batches[0]
    exact = generator(noise, words)
    errors = [
        float((quantize_generator(generator, weight_bits=b, activation_bits=None)(noise, words)
               - exact).square().mean())
        for b in (8, 6, 4, 2)
    ]  # fmt: skip
    assert errors == sorted(errors)
    same = quantize_generator(generator, weight_bits=None, activation_bits=None)
    assert torch.allclose(same(noise, words), exact, atol=2e-5)


def test_calibration_draws_no_held_out_combination(generator):
    from fastgen_course.datasets import scenes

    labels = scenes.draw_labels(512, torch.Generator().manual_seed(12))
    assert not held_out_mask(labels).any()
    first = calibration_batches(generator.config, 8)
    again = calibration_batches(generator.config, 8)
    assert torch.equal(first[0][0], again[0][0]) and torch.equal(first[0][1], again[0][1])
    assert labels_of([parse("a red bag")]).shape == (1, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: quantize_generator(g, weight_bits=1), "weight_bits: bits must be from 2 to 16"),
        (lambda g: quantize_generator(g, activation_bits=1), "activation_bits: bits must be"),
        (lambda g: quantize_generator(g, batches=[]), "calibration data is empty"),
        (lambda g: quantize_generator(g, method="guess"), "minmax, percentile, mse"),
        (lambda g: calibration_batches(g.config, 0), "n must be at least 1"),
        (
            lambda g: new_quantized(g, weight_bits=None).integer_arithmetic().__enter__(),
            "weight_bits and activation_bits must both be set",
        ),
        (lambda g: pack(new_quantized(g, weight_bits=None)), "weight_bits must be set"),
        (
            lambda g: write_integer_graph(new_quantized(g, weight_bits=12), "never.onnx"),
            "from 2 to 8 for an integer graph, got 12 and 8",
        ),
        (
            lambda g: write_integer_graph(new_quantized(g), "never.onnx", activations="u4"),
            "u8 or s8, got 'u4'",
        ),
        (lambda g: QATRecipe(steps=5, head_start=5), "head_start must be from 0 to 4"),
        (lambda g: QATRecipe(hold=0.0), "hold must be above 0, or at least 0 with adversarial"),
        (lambda g: QATRecipe(hold=-1.0, adversarial=True), "got -1.0"),
        (lambda g: train_quantized("generator_int3"), "generator_int8, generator_int4"),
    ],
)
def test_bad_input_is_one_sentence(generator, call, words):
    with pytest.raises(QuantizationError, match=words) as error:
        call(generator)
    assert "\n" not in str(error.value)


def test_calibrating_on_nan_is_refused_and_leaves_the_grids(generator, batches):
    network = quantize_generator(generator, batches=batches)
    before = [float(g.scale) for g in network.activation_grids()]
    noise, words = batches[0]
    with pytest.raises(QuantizationError, match="NaN"):
        network.calibrate([(noise * float("nan"), words)])
    assert [float(g.scale) for g in network.activation_grids()] == before
    assert network(noise, words).isfinite().all()


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_a_runtime_draws_the_same_pictures_in_integers(int8, tmp_path, form, activations):
    graph = write_integer_graph(int8, tmp_path / "graph.onnx", form, activations)
    assert graph.moved < 0.005 and graph.file_bytes == graph.path.stat().st_size
    rows = operator_times(graph.path, example_inputs(int8, 2), calls=2)
    kinds = {kind for kind, _, _ in rows}
    assert "QLinearConv" in kinds  # it really computes in integers
    assert sum(grouped_times(rows).values()) == pytest.approx(sum(ms for _, _, ms in rows))
    assert set(grouped_times(rows)) >= {"convolutions", OTHER}


def test_four_bits_run_in_the_same_integers(generator, batches, tmp_path):
    network = quantize_generator(generator, batches=batches, weight_bits=4, activation_bits=8)
    graph = write_integer_graph(network, tmp_path / "graph.onnx")
    assert graph.moved < 0.005


def test_the_librarys_own_graph_draws_nearly_the_same(generator, batches, tmp_path):
    source = float_graph(generator, tmp_path / "float.onnx")
    path = library_static_graph(
        source, tmp_path / "library.onnx", generator, batches=batches, reduce_range=True
    )
    given = example_inputs(generator, 3)
    gap = np.abs(OnnxModel(path)(*given) - generator(*given).numpy())
    assert 0 < gap.mean() < 0.1
    with pytest.raises(QuantizationError, match="calibration data is empty"):
        library_static_graph(source, tmp_path / "x.onnx", generator, batches=[])


# --- stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [7, 4, 2])
def test_a_checkpoint_holds_the_integers(generator, batches, tmp_path, monkeypatch, bits):
    monkeypatch.setattr(checkpoints, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(checkpoints, "require", lambda name, *_: tmp_path / name)
    network = quantize_generator(generator, batches=batches, weight_bits=bits, activation_bits=8)
    packed = pack(network)
    noise, words = batches[0]
    assert torch.equal(packed(noise, words), network(noise, words))
    facts = ("seed", "command", "data_sha256", "minutes", "machine", "metrics")
    save_checkpoint("generator_int8", packed, dict.fromkeys(facts, 0))
    loaded = load_model("generator_int8")
    for (name, mine), (_, theirs) in zip(loaded.layers(), network.layers(), strict=True):
        assert torch.equal(mine.weight_integers(), theirs.weight_integers()), name
    # What is not an integer (the caption encoder, biases) is stored as float16.
    assert (loaded(noise, words) - network(noise, words)).abs().mean() < 0.01


def test_a_network_pruned_layer_by_layer_is_quantised_written_and_packed(tmp_path, runs):
    config = replace(TINY, channels=(7, 6, 5, 4, 3, 2))
    torch.manual_seed(1)
    folded = FoldedGenerator(config).eval().requires_grad_(False)
    recipe = replace(MATCHING, weight_bits=7, pictures=16)
    trainer = QATTrainer("six", recipe, folded, load_model("judge_train"))
    network = trainer.run(quiet=True)
    assert network.config.channels == config.channels
    noise, words = calibration_batches(config, 4)[0]
    with torch.no_grad():
        assert torch.equal(pack(network)(noise, words), network(noise, words))
    assert write_integer_graph(network, tmp_path / "six.onnx").moved < 0.02
    assert all(
        map(torch.equal, folded.state_dict().values(), trainer.original.state_dict().values())
    )


def test_each_recipe_starts_from_a_checkpoint_that_can_be_trained():
    assert QAT_RECIPES["student_int8"].start == "student_pruned"
    assert {recipe.start for recipe in QAT_RECIPES.values()} <= set(TRAINERS)
    assert set(QAT_RECIPES) <= set(TRAINERS)


def test_stored_bytes_count_scales_and_what_stays_in_floats(generator, batches):
    def size(**bits):
        return stored_bytes(quantize_generator(generator, batches=batches, **bits))

    full = size(weight_bits=None, activation_bits=None)
    assert full == 4 * sum(p.numel() for p in fold(generator).parameters())
    weights = sum(getattr(fold(generator), name).weight.numel() for name in LAYERS)
    scales = sum(
        getattr(fold(generator), name).weight.shape[1 if name.startswith("up") else 0]
        for name in LAYERS
    )
    assert size(weight_bits=8) == full - 3 * weights + 4 * scales
    assert size(weight_bits=8, per_channel=False) == full - 3 * weights + 4 * len(LAYERS)
    assert size(weight_bits=4) == size(weight_bits=8) - weights // 2


def test_a_codebook_generator_has_few_values(generator):
    folded = fold(generator)
    coded, sizes = codebook_generator(folded, 4)
    for name in LAYERS:
        assert len(getattr(coded, name).weight.unique()) <= 4
        assert len(getattr(folded, name).weight.unique()) > 4  # the original is untouched
    whole = generator_bytes(folded, sizes)
    assert whole["huffman"] < 4 * sum(p.numel() for p in folded.parameters())
    assert set(sizes) == set(LAYERS)


# --- QAT ----------------------------------------------------------------------------------------

MATCHING = QATRecipe(steps=4, batch=8, pictures=16, weight_bits=4, activation_bits=8, seed=3)
SHORT = replace(MATCHING, adversarial=True, head_start=1)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    return tmp_path


def state_of(trainer):
    return [p.detach().clone() for p in trainer.average.model.parameters()]


@pytest.mark.parametrize("recipe", [MATCHING, SHORT], ids=["matching", "adversarial"])
def test_qat_goes_on_where_it_was_killed(generator, runs, recipe):
    judge = load_model("judge_train")
    whole = QATTrainer("whole", recipe, generator, judge)
    whole.run(quiet=True)
    first = QATTrainer("killed", recipe, generator, judge)
    first.training.steps = 2
    first.run(quiet=True)
    first.training.save()
    second = QATTrainer("killed", recipe, generator, judge)
    network = second.run(quiet=True)
    assert second.training.step == 4
    for a, b in zip(state_of(whole), state_of(second), strict=True):
        assert torch.equal(a, b)
    start = quantize_generator(
        generator, batches=calibration_batches(TINY, 16), weight_bits=4, activation_bits=8
    )
    assert 0 < parameters_moved(start, network) < 1
    for _, layer in network.layers():
        assert layer.weight_integers().abs().max() <= 7


def test_matching_brings_the_network_back_and_asks_no_discriminator(generator, runs):
    recipe = replace(MATCHING, steps=120, generator_rate=1e-3, batch=16, weight_bits=2)
    trainer = QATTrainer("match", recipe, generator, load_model("judge_train"))
    critic = [p.detach().clone() for p in trainer.discriminator.parameters()]
    noise, words = calibration_batches(TINY, 64)[0]

    def far():
        with torch.no_grad():
            fake = trainer.model.eval()(noise, words)
            seen = judge_features(trainer.judge, fake)[-1]
            return float(trainer.held(noise, words, fake, seen))

    before = far()
    assert [set(trainer.step(index)) for index in range(120)][-1] == {"distance"}
    assert far() < 0.8 * before
    assert all(map(torch.equal, critic, [p.detach() for p in trainer.discriminator.parameters()]))


def test_the_generator_waits_for_its_discriminator(generator, runs):
    trainer = QATTrainer("wait", SHORT, generator, load_model("judge_train"))
    assert trainer.rates(0)[0] == 0.0 and trainer.rates(0)[1] > 0
    assert trainer.rates(1)[0] > 0
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.step(0)
    assert all(map(torch.equal, before, [p.detach() for p in trainer.model.parameters()]))
    trainer.step(1)
    assert not all(map(torch.equal, before, [p.detach() for p in trainer.model.parameters()]))


def test_the_control_is_an_unquantised_copy(generator, runs):
    recipe = replace(SHORT, weight_bits=None, activation_bits=None)
    trainer = QATTrainer("control", recipe, generator, load_model("judge_train"))
    assert type(trainer.model) is FoldedGenerator
    noise, words = calibration_batches(TINY, 4)[0]
    with torch.no_grad():
        assert torch.allclose(trainer.model(noise, words), generator(noise, words), atol=2e-5)
    trainer.run(quiet=True)
    assert Scheme(4, "symmetric").high == 7


def test_another_network_may_teach(generator, runs):
    torch.manual_seed(5)
    teacher = Generator(generator.config).eval()
    recipe = replace(SHORT, teacher="generator_base")  # a network goes before a name
    taught = QATTrainer("taught", recipe, generator, load_model("judge_train"), teacher=teacher)
    noise, words = calibration_batches(TINY, 8)[0]
    with torch.no_grad():
        torch.testing.assert_close(
            taught.original(noise, words), teacher(noise, words), rtol=0, atol=1e-5
        )


def test_the_hold_is_zero_at_the_unquantised_network_and_pulls_a_quantised_one_back(
    generator, runs
):
    judge = load_model("judge_train")
    noise, words = calibration_batches(TINY, 8)[0]

    def held(trainer):
        fake = trainer.model(noise, words)
        return trainer.held(noise, words, fake, judge_features(trainer.judge, fake)[-1])

    alike = replace(SHORT, weight_bits=None, activation_bits=None)
    assert held(QATTrainer("alike", alike, generator, judge)).item() < 1e-6
    assert held(QATTrainer("free", replace(SHORT, hold=0.0), generator, judge)) == 0.0
    trainer = QATTrainer("held", SHORT, generator, judge)
    trainer.model.eval()
    before = held(trainer)
    assert before > 0
    optimiser = torch.optim.Adam(trainer.model.parameters(), lr=1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        held(trainer).backward()
        optimiser.step()
    assert held(trainer) < 0.8 * before
