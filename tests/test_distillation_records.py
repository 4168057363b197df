"""Notebook 13's records: response distillation, orders, rows that go on, headlines, the widget."""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.compression import distillation_figures as figures
from fastgen_course.compression import distillation_order as orders
from fastgen_course.compression import distillation_quality as scores
from fastgen_course.compression import distillation_records as records
from fastgen_course.compression import distillation_speed as speed
from fastgen_course.compression.distillation import ABLATION, ROW_WORDS, DistillRecipe
from fastgen_course.compression.distillation_quality import Quality
from fastgen_course.compression.folding import fold
from fastgen_course.compression.quantized import QuantizedGenerator, calibration_batches
from fastgen_course.compression.response import (
    RESPONSE_WORDS,
    RESPONSES,
    ResponseRecipe,
    check_smaller,
    code_logits,
    gradient_limit,
    gradient_norms,
    mixed_loss,
    response_loss,
    response_scores,
    softened_kl,
    train_response,
)
from fastgen_course.compression.teacher_sets import TEACHERS, DistillationError, new_part
from fastgen_course.datasets.captions import CaptionError
from fastgen_course.exercises import distillation as exercises
from fastgen_course.files import data_path
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.gpt import GPT, draw_sequences
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.models.transformer import TransformerConfig
from fastgen_course.runtimes.hardware_networks import tiny_network
from fastgen_course.timing import ResultError, all_results, result
from fastgen_course.timing.rows import Comparison, Timing
from fastgen_course.training import loop
from fastgen_course.training.gpt import imitation_loss, next_token_loss, token_batches
from fastgen_course.widgets.teacher_student import (
    TeacherStudent,
    TeacherStudentBox,
    pairs_figure,
    sets_figure,
    teacher_student,
)

LATENT = 8
TINY = GeneratorConfig(noise=LATENT, caption=8, channels=(8, 6, 4))
KEEP = records.Options()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def paint(words, noise):
    return noise[:, :3, None, None].tanh().expand(-1, -1, 28, 28)


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator(TINY).train()
        noise, words = calibration_batches(TINY, 64)[0]
        for _ in range(30):
            model(noise, words)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        return SlotJudge(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Tokenizer(TokenizerConfig(codes=16)).eval().requires_grad_(False)


def gpt(seed=0, width=32, layers=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(TransformerConfig(width=width, layers=layers, heads=2, codes=16)).eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results and runs go to an empty folder; photographs and weights are the checkout's."""
    for name in ("fashion_mnist", "weights"):
        (tmp_path / name).symlink_to(data_path(name), target_is_directory=True)
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- response distillation ------------------------------------------------------------------------

LOGITS = st.integers(0, 10_000).map(lambda s: 3 * torch.randn(2, 6, 9, generator=seeded(s)))


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.floats(0.2, 20))
def test_the_softened_gradient_is_what_autograd_says(logits, temperature):
    student, teacher = logits.double()
    student.requires_grad_(True)
    loss = softened_kl(student, teacher, temperature) * len(student)
    (gradient,) = torch.autograd.grad(loss, student)
    expected = exercises.softened_gradient(student.detach(), teacher, temperature)
    assert torch.allclose(gradient, expected, atol=1e-9)
    assert loss >= -1e-9 and softened_kl(teacher, teacher, temperature).abs() < 1e-9
    ours = response_loss(student, teacher, temperature)
    theirs = exercises.response_loss(student, teacher, temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_gradient_falls_with_the_square_of_the_temperature():
    student, teacher = torch.randn(2, 50, 40, generator=seeded(1))
    hot = (64.0, 128.0)
    plain, scaled = gradient_norms(student, teacher, (1.0, *hot))
    assert plain[1] / plain[2] == pytest.approx(4, rel=0.02)
    assert scaled[1] / scaled[2] == pytest.approx(1, rel=0.02)
    assert scaled[2] == pytest.approx(gradient_limit(student, teacher), rel=0.02)
    assert scaled[0] == plain[0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_above_zero(temperature):
    with pytest.raises(DistillationError, match="temperature must be above 0, got"):
        response_loss(torch.zeros(1, 3), torch.zeros(1, 3), temperature)
    with pytest.raises(DistillationError, match="temperature must be above 0, got"):
        ResponseRecipe(temperature=temperature)


def test_bad_responses_are_one_sentence(tokenizer):
    with pytest.raises(DistillationError, match=r"one shape, got \(1, 3\) and \(1, 4\)"):
        softened_kl(torch.zeros(1, 3), torch.zeros(1, 4), 1.0)
    with pytest.raises(DistillationError, match=r"soft must be from 0 to 1 .* got 1.5 and 500"):
        ResponseRecipe(soft=1.5)
    with pytest.raises(DistillationError, match=r"soft = 0.5 needs a teacher"):
        train_response(None, RESPONSES["soft1"], None, tokenizer)
    with pytest.raises(DistillationError, match=r"the student has [\d,]+ parameters and its teach"):
        check_smaller(TransformerConfig(width=64, layers=3, heads=2, codes=16), gpt())


def test_half_hard_half_soft(tokenizer):
    student, teacher = gpt(1, width=16), gpt(2)
    batch = next(token_batches(tokenizer, 4, seeded(3)))
    sequences = draw_sequences(student.config, batch.words, batch.tokens)
    hard = next_token_loss(student, sequences)
    recipe = ResponseRecipe(soft=0.0)
    assert mixed_loss(student, teacher, sequences, recipe).item() == pytest.approx(hard.item())
    soft = mixed_loss(student, teacher, sequences, replace(recipe, soft=1.0))
    # Cross-entropy to the teacher's shares is this plus the teacher's own entropy.
    shares = mixed_loss(teacher, teacher, sequences, replace(recipe, soft=1.0))
    own = imitation_loss(teacher, teacher, sequences)
    expected = imitation_loss(student, teacher, sequences) - own
    assert soft.item() == pytest.approx(expected.item(), abs=1e-4) and abs(shares.item()) < 1e-5
    both = mixed_loss(student, teacher, sequences, replace(recipe, soft=0.25))
    assert both.item() == pytest.approx(0.75 * hard.item() + 0.25 * soft.item(), rel=1e-4)


def test_a_small_model_comes_nearer_to_its_teacher(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    teacher = gpt(4)
    teacher.head.weight.data.mul_(8)  # a teacher with an opinion
    small = TransformerConfig(width=16, layers=1, heads=2)
    recipe = ResponseRecipe(steps=40, batch=8, soft=1.0, temperature=2.0, rate=1e-2, average=0.5)

    def batches():
        return token_batches(tokenizer, 8, seeded(5), split="test")

    model, training = train_response("r", recipe, teacher, tokenizer, small, quiet=True)
    untaught, _ = train_response(
        None, replace(recipe, steps=1, rate=0.0), teacher, tokenizer, small, quiet=True
    )
    taught, before = (response_scores(m, teacher, batches(), 1) for m in (model, untaught))
    assert taught.teacher_kl < 0.8 * before.teacher_kl
    assert taught.acceptance > before.acceptance and 0 < taught.acceptance <= 1
    assert response_scores(teacher, teacher, batches(), 1).acceptance == pytest.approx(1, abs=1e-5)
    again, resumed = train_response("r", recipe, teacher, tokenizer, small, quiet=True)
    assert resumed.step == 40 and training.step == 40
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    batch = next(batches())
    logits = code_logits(model, draw_sequences(model.config, batch.words, batch.tokens))
    assert logits.shape == (8 * 49, 16)
    assert set(RESPONSE_WORDS) == set(RESPONSES)


# --- orders ---------------------------------------------------------------------------------------


def test_an_order_has_each_stage_once():
    for stages in orders.ORDERS.values():
        orders.check_order(stages)
    with pytest.raises(DistillationError, match="each of distil, prune, quantise once, got distil"):
        orders.check_order(("distil", "prune", "prune"))
    with pytest.raises(DistillationError, match="got nothing"):
        orders.run_order(())


def test_all_orders_have_the_same_updates_and_the_same_loss():
    for stages in orders.ORDERS.values():
        recipes = [orders.stage_recipe(stage) for stage in stages]
        assert sum(recipe.steps for recipe in recipes) == sum(orders.STAGES.values())
        same = {"steps": 1, "pairs_rate": 1.0}
        assert {replace(r, **same) for r in recipes} == {replace(orders.RECIPE, **same)}
    assert not orders.RECIPE.shown and orders.RECIPE.target == "base"


def test_an_order_ends_on_the_grid_and_shares_its_beginning(
    generator, judge, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(orders, "WIDTHS", (4, 4, 4, 4, 2, 2))
    monkeypatch.setattr(orders, "RECIPE", replace(orders.RECIPE, batch=4))
    trained = []
    step = orders.DistillTrainer.step

    def counted(self, index):
        trained.append(self.name)
        return step(self, index)

    monkeypatch.setattr(orders.DistillTrainer, "step", counted)
    options = {"start": fold(generator), "steps": 2, "quiet": True, "ask": paint, "judge": judge}
    first = orders.run_order(("distil", "prune", "quantise"), **options)
    assert isinstance(first, QuantizedGenerator) and first.config.weight_bits == 4
    assert first.config.channels == (4, 4, 4, 4, 2, 2) and len(trained) == 6
    last = orders.run_order(("distil", "quantise", "prune"), **options)
    assert isinstance(last, QuantizedGenerator) and last.config.channels == (4, 4, 4, 4, 2, 2)
    assert len(trained) == 6 + 4 and trained.count("order_distil2") == 2
    again = orders.run_order(("distil", "prune", "quantise"), **options)
    assert len(trained) == 10
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_floats_after_the_grid_begin_with_its_values(generator):
    on_grid = orders.stage_start("quantise", fold(generator))
    assert all(p.requires_grad for p in on_grid.parameters())
    floats = orders.in_floats(on_grid)
    assert not isinstance(floats, QuantizedGenerator)
    noise, words = calibration_batches(TINY, 8)[0]
    with torch.no_grad():
        plain, rounded = floats(noise, words), on_grid(noise, words)
        gap = (plain - generator(noise, words)).abs().mean()
    assert (plain - rounded).abs().mean() < gap  # activations alone are still rounded
    assert orders.rounded(on_grid) is on_grid


# --- quality --------------------------------------------------------------------------------------


def keep_quality(name, fid, exact=0.9, recall=0.8, **extra):
    n = len(fid)
    found = Quality(fid, (exact,) * n, (0.9,) * n, (recall,) * n, (0.3,) * (n - 1), (0.4,) * n)
    extra = {"captions": 5, "seeds": list(range(n)), **extra}
    scores.record_quality(name, found, command="python -m x", **extra)


def test_a_row_is_scored_from_equal_noise(generator, judge, monkeypatch):
    rows = torch.tensor([0, 3])
    monkeypatch.setattr(scores, "_means", lambda count, n: (rows, torch.zeros(2, 3, 28, 28)))
    draw = scores.network_draw(generator, chunk=13)
    found = scores.quality(draw, seeds=(0, 1), n=60, means=2, judge=judge)
    again = scores.quality(scores.network_draw(generator), seeds=(0, 1), n=60, means=2, judge=judge)
    assert found.fid == pytest.approx(again.fid, rel=1e-3)
    assert len(found.fid) == 2 and len(found.drawing_distance) == 1
    one = lambda words, seed: torch.zeros(len(words), 3, 28, 28)  # noqa: E731
    blurred = scores.quality(one, seeds=(0, 1), n=60, means=2, judge=judge)
    assert blurred.drawing_distance == (0.0,) and blurred.mean_distance == (0.0, 0.0)
    assert found.drawing_distance[0] > 0 and found.mean_distance[0] > 0
    with pytest.raises(ValueError, match="at least two seeds, got 1"):
        scores.quality(draw, seeds=(0,), n=60)


def test_the_means_are_those_of_the_fixed_captions():
    rows, means = scores._means(1, 60)
    assert means.shape == (1, 3, 28, 28) and means.abs().max() <= 1 and len(rows) == 1
    texts, words = scores.sample_words(2)
    assert len(texts) == len(words) == 2


def test_ratios_are_taken_seed_by_seed(folder):
    keep_quality("gpt", (30.0, 40.0), exact=0.9, recall=0.8)
    keep_quality("student", (15.0, 10.0), exact=0.88, recall=0.84)
    assert scores.ratios("student", "gpt", "fid")[0] == pytest.approx(0.375)
    assert scores.ratios("student", "gpt", "fid")[1] == pytest.approx((0.25, 0.5))
    assert scores.drops("student", "gpt", "exact_accuracy")[0] == pytest.approx(0.02)


def test_the_headline_compares_equal_captions(folder, monkeypatch):
    monkeypatch.setattr(type(TEACHERS["gpt"]), "key", lambda self: "t")
    keep_quality("gpt", (30.0, 40.0), exact=0.9, recall=0.8)
    keep_quality("student", (15.0, 10.0), exact=0.88, recall=0.84)
    records.headline(KEEP, "w")
    drop, ratio, recall = (
        result(f"distillation.{n}") for n in ("exact_accuracy_drop", "fid_ratio", "recall_ratio")
    )
    assert drop.value == pytest.approx(0.02) and drop.unit == "share"
    assert ratio.value == pytest.approx(0.375) and ratio.base == "gpt"
    assert recall.value == pytest.approx(1.05) and recall.extra["weights"] == "w-t"
    keep_quality("student", (15.0, 10.0), captions=6)
    with pytest.raises(ResultError, match="scored on different captions"):
        records.headline(KEEP, "w")


def test_a_row_is_scored_once_and_keeps_its_pictures(folder, generator, monkeypatch, capsys):
    asked = []

    def quality(draw, *, seeds, n, means):
        asked.append(n)
        k = len(seeds)
        return Quality((3.0,) * k, (0.5,) * k, (0.5,) * k, (0.4,) * k, (0.2,) * (k - 1), (0.1,) * k)

    monkeypatch.setattr(records.scores, "quality", quality)
    draw = scores.network_draw(generator)
    for weights in ("a", "a", "b"):
        records.score(KEEP, "student", "student", lambda: draw, base="gpt", weights=weights)
    assert asked == [10_000, 10_000] and "student is recorded already" in capsys.readouterr().out
    pictures = scores.load_samples("student")
    assert pictures.shape == (6, 2, 3, 28, 28)
    _, words = scores.sample_words()
    with torch.no_grad():
        assert (pictures[:, 1] - draw(words, 1)).abs().max() < 1 / 127
    with pytest.raises(ResultError, match="No pictures of 'gan_real' are kept; run"):
        scores.load_samples("gan_real")
    before = len(all_results("distillation"))
    records.score(records.Options(tiny=True), "student", "other", lambda: draw)
    assert asked[-1] == 60 and len(all_results("distillation")) == before


def test_the_ablation_goes_on_row_by_row(folder, judge, monkeypatch, capsys):
    painted = new_part(paint, 8, 1, latent=LATENT)
    monkeypatch.setattr(records, "STUDENT", TINY)
    monkeypatch.setattr(records, "load_set", lambda name: painted)
    monkeypatch.setattr(records, "_SETS", {})
    monkeypatch.setattr(type(TEACHERS["gpt"]), "key", lambda self: "t")
    monkeypatch.setattr("fastgen_course.training.gan.load_model", lambda name: judge)
    rows = ("uncoupled", "gan_gpt")
    for name in rows:
        short = replace(ABLATION[name], steps=2, batch=4)
        monkeypatch.setitem(records.ABLATION, name, short)
    one = (2.0, 2.0)
    monkeypatch.setattr(
        records.scores, "quality", lambda *a, **k: Quality(one, *[(0.5, 0.5)] * 3, (0.2,), one)
    )
    records.record_ablation(records.Options(rows=rows))
    assert result("distillation.fid.uncoupled").extra["steps"] == 2
    assert result("distillation.minutes.gan_gpt").unit == "minutes"
    assert result("distillation.fid.gan_gpt").extra["teachers"] == ["t"]
    records.record_ablation(records.Options(rows=rows))
    assert capsys.readouterr().out.count("is recorded already") == 2


def test_unknown_names_and_a_busy_machine_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(records, "cores_taken", lambda: 1.5)
    assert records.main(["speeds"]) == 2
    assert "no part 'speeds'; choose from sets, teachers" in capsys.readouterr().err
    assert records.main(["ablation", "--with", "wide"]) == 2
    assert "no architecture 'wide'; choose from searched, pruned" in capsys.readouterr().err
    assert records.main(["ablation", "--rows", "gan"]) == 2
    assert "no row 'gan'; choose from uncoupled" in capsys.readouterr().err
    assert records.main(["speed"]) == 2
    assert "other processes use 1.5 cores" in capsys.readouterr().err


# --- milliseconds ---------------------------------------------------------------------------------


def timing(name, batch, ms):
    return Timing(ms, ms * 1.1, 3, batch, "cpu", 1, "float32", name, 1, (ms, ms, ms))


def test_every_row_draws_in_its_runtime(generator):
    networks = speed.Networks(tiny_network("gpt").model, generator, generator, "tiny")
    with speed.timed_calls(networks, 2) as (found, refused):
        assert set(found) | set(refused) == set(speed.ROWS)
        needed = {n for n, row in speed.ROWS.items() if row.family != "openvino"}
        assert needed <= set(found)
        for name, call in found.items():
            shape = (2, 4) if name.startswith("gpt") else (2, 3, 28, 28)
            assert call().shape == shape, name
        tokens = found["gpt_eager"]()
        assert torch.equal(tokens, found["gpt_written_out"]())
        assert torch.equal(tokens, found["gpt_onnxruntime"]())
        gap = (found["student_eager"]() - found["student_onnxruntime"]()).abs().max()
        assert gap < 1e-4


def test_the_headline_stays_within_one_runtime(folder):
    ms = {"gpt_eager": 90.0, "gpt_written_out": 50.0, "gpt_onnxruntime": 60.0}
    ms |= {"student_eager": 2.0, "student_folded": 1.6, "student_onnxruntime": 0.75}
    for batch in (1, 64):
        rows = Comparison({name: timing(name, batch, value) for name, value in ms.items()})
        speed.record_rows(rows, batch, "w", "python -m x")
    head = result("distillation.speedup")
    assert head.value == pytest.approx(80) and head.batch == 1
    assert head.runtime == "student_onnxruntime over gpt_onnxruntime"
    folded = result("distillation.student_folded.batch1_speedup")
    assert folded.value == pytest.approx(50 / 1.6) and folded.extra["over"] == "gpt_written_out"
    best = result("distillation.best_batch1_speedup")
    assert best.value == pytest.approx(50 / 0.75) and "gpt_written_out" in best.runtime
    table = figures.speed_table()
    assert "31x" in table and "80x" in table and "the same, forward written out" in table
    assert len(figures.plot_speed().axes[0].patches) == len(ms)
    assert "0.75 ms" in figures.describe_speed()
    with pytest.raises(ResultError, match="no times at batch 8"):
        figures.speed_rows(8)


# --- figures --------------------------------------------------------------------------------------


def test_tables_and_figures_show_what_is_recorded(folder, generator):
    with pytest.raises(ResultError, match="none of real, gpt"):
        figures.ablation_table()
    for index, name in enumerate(("real", "gpt", "flow", "uncoupled", "gan_real_hold")):
        keep_quality(name, (5.0 + 10 * index, 6.0 + 10 * index))
    table = figures.ablation_table()
    assert table.count("\n") == 6 and "5.5" in table and figures.WORDS["uncoupled"] in table
    assert len(figures.plot_ablation().axes[0].collections) == 5
    kinds = {words.replace(",", " ").split()[0] for words in ROW_WORDS.values()}
    assert kinds == {"regression", "adversarial"}
    assert "exact 0.900" in figures.describe_ablation()
    scores.keep_samples("gan_real_hold", scores.network_draw(generator))
    scores.keep_samples("real", scores.real_row)
    names = ("real", "gan_real", "gan_real_hold")
    assert len(figures.plot_samples(names).axes) == 2 * 12
    assert figures.WORDS["gan_real_hold"] in figures.describe_samples(names)
    keep_quality("order_distil_prune_quantise", (9.0, 9.0))
    assert "distil, prune, quantise" in figures.order_table()
    assert set(figures.COLUMNS) == set(scores.UNITS)


def test_the_response_figures(folder):
    for which, power in (("plain", 2), ("scaled", 0)):
        for t in records.TEMPERATURES:
            records.note(
                KEEP, f"distillation.gradient_{which}.t{t:g}".replace("t0.5", "t0_5"),
                0.1 / t**power, "nats", "response", limit=0.1,
            )  # fmt: skip
    assert len(figures.plot_gradients().axes[0].lines) == 4
    assert "with T squared 0.1 and 0.1" in figures.describe_gradients()
    for name in RESPONSES:
        for figure, unit in (("nats", "nats a token"), ("kl", "nats a token"), ("acceptance", "x")):
            records.note(KEEP, f"distillation.response_{figure}.{name}", 0.7, unit, "response")
        records.note(KEEP, f"distillation.minutes.response_{name}", 3.0, "minutes", "response")
    assert figures.response_table().count("0.700") == 3 * 3


# --- the widget -----------------------------------------------------------------------------------


def test_sets_stand_side_by_side_and_pairs_where_there_is_a_coupling(generator):
    seeds = []

    def draw(seed):
        seeds.append(seed)
        return paint

    drawer = TeacherStudent(generator, ("flow",), draws={"gpt": draw, "flow": draw})
    box = teacher_student(drawer, teacher="flow")
    assert isinstance(box, TeacherStudentBox)
    assert not box.pairs.disabled and "one noise, two pictures" in box.said.value
    before = box.box.picture.value
    box.pairs.value = True
    pairs = box.box.picture.value
    assert pairs != before
    box.teacher.value = "gpt"
    assert box.pairs.disabled and "no coupling" in box.said.value
    box.box.seed.value = 3
    assert seeds == [0, 0, 3]
    sets = drawer.draw("a red bag", "flow", 1)
    assert sets.teacher.shape == sets.student.shape == (16, 3, 28, 28)
    assert drawer.draw("a red bag", "flow", 1) is sets  # each is drawn once
    noise = torch.randn(16, LATENT, generator=seeded(1))
    assert torch.equal(sets.teacher, paint(None, noise))
    assert len(sets_figure(sets, "flow").axes) == 2
    assert len(pairs_figure(sets, 4).axes) == 8
    with pytest.raises(DistillationError, match="no pairs without a coupling"):
        pairs_figure(drawer.draw("a red bag", "gpt", 1))
    with pytest.raises(DistillationError, match="'gpt' has no coupling"):
        TeacherStudent(generator, held=("gpt",))
    with pytest.raises(CaptionError):
        drawer.draw("a red car")
    assert DistillRecipe().target == ""
