"""Distillation on tiny networks: what regression learns, couplings, teachers' sets, bad input."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course import checkpoints
from fastgen_course.checkpoints import MODELS
from fastgen_course.compression import distillation as distil
from fastgen_course.compression import teacher_sets as teachers
from fastgen_course.compression.blur import (
    CAPTIONS,
    Blur,
    caption_pairs,
    compare_students,
    regress,
    unrelated,
)
from fastgen_course.compression.coupling import turn_noise
from fastgen_course.compression.distillation import (
    ABLATION,
    ROW_WORDS,
    SHIPPED,
    STEPS,
    STUDENT,
    DistillRecipe,
    DistillTrainer,
)
from fastgen_course.compression.distillation_losses import (
    LOSSES,
    conditional_mean,
    distance,
    drawing_distance,
)
from fastgen_course.compression.folding import fold
from fastgen_course.compression.teacher_sets import (
    DistillationError,
    TeacherSet,
    as_bytes,
    as_images,
    lessons,
    load_set,
    make_set,
    new_part,
)
from fastgen_course.datasets.captions import held_out_mask
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.models.generator import GENERATOR_BASE, Generator, GeneratorConfig
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.sampling.flow import FLOW_SAMPLING, sample_flow
from fastgen_course.training import TRAINERS, loop, trainer
from fastgen_course.training.gan import GANTrainer
from fastgen_course.training.matching import relative_error

LATENT = 8
TINY = GeneratorConfig(noise=LATENT, caption=8, channels=(8, 6, 4))
SHORT = {"steps": 3, "batch": 8, "average": 0.5}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def paint(words, noise):
    """A teacher that is a function of its noise: a colour for each, the same everywhere."""
    colours = noise[:, :3, None, None].tanh()
    return colours.expand(-1, -1, 28, 28)


@pytest.fixture(scope="module")
def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = JudgeConfig(channels=(4, 8, 8), convolutions=(1, 1, 1), features=16)
        return SlotJudge(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def painted():
    return new_part(paint, 30, 1, latent=LATENT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for module in (loop, teachers):
        monkeypatch.setattr(module, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    return tmp_path


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def make(judge, painted, name="trial", config=TINY, **changes):
    """A trainer on tiny networks; all teachers paint, from a set or asked anew."""
    recipe = DistillRecipe(**{**SHORT, **changes})
    made = DistillTrainer(
        name, config, recipe, sets=dict.fromkeys(recipe.kept, painted), ask=paint, judge=judge
    )
    made.training.save_every_s = float("inf")
    return made


# --- the teachers' sets ---------------------------------------------------------------------------


def test_a_part_has_several_pictures_a_caption_none_held_out(painted):
    assert painted.pictures.shape == (30, 2, 3, 28, 28) and painted.pictures.dtype == torch.uint8
    assert not held_out_mask(painted.labels).any()
    shown = ((painted.asked == painted.labels) | (painted.asked == -1)).all()
    assert shown
    pictures = paint(None, painted.noise.flatten(0, 1))
    assert (as_images(painted.pictures.flatten(0, 1)) - pictures).abs().max() < 1 / 127
    assert torch.equal(as_bytes(as_images(painted.pictures)), painted.pictures)
    again = new_part(paint, 30, 1, latent=LATENT)
    assert all(torch.equal(a, b) for a, b in zip(painted, again, strict=True))


def test_a_lesson_keeps_noise_and_picture_together(painted):
    lesson = next(lessons(painted, 12, seeded(0)))
    assert torch.equal(lesson.words[::2], lesson.words[1::2])
    assert not torch.equal(lesson.noise[::2], lesson.noise[1::2])
    assert (lesson.images - paint(None, lesson.noise)).abs().max() < 1 / 127
    real = lesson.real(seeded(1))
    assert real.shape == lesson.images.shape and real.abs().max() <= 1
    full = compose(torch.zeros(12, 28, 28, dtype=torch.uint8), lesson.labels).images
    background = (full[:, :, 0, 0] - real[:, :, 0, 0]).abs().amax(1)
    assert (background < 1e-5).float().mean() > 0.5  # the same scene around another photograph
    with pytest.raises(DistillationError, match="batch must be a multiple of 2"):
        next(lessons(painted, 5, seeded(0)))


def test_a_killed_set_goes_on_with_the_part_it_was_drawing(folder, monkeypatch):
    monkeypatch.setattr(teachers.Teacher, "key", lambda self: "weights")
    seeds = []

    def draw(seed):
        seeds.append(seed)
        if len(seeds) == 3:
            raise KeyboardInterrupt
        # Channels last in memory, as convolutions may answer.
        return lambda words, noise: paint(words, noise).to(memory_format=torch.channels_last)

    options = {"part": 4, "draw": draw, "quiet": True}
    with pytest.raises(KeyboardInterrupt):
        make_set("flow", 12, **options)
    with pytest.raises(DistillationError, match="8 of 12 captions of the teacher 'flow' are drawn"):
        load_set("flow", 12, part=4)
    make_set("flow", 12, **options)
    assert len(seeds) == 4 and seeds[2] == seeds[3]  # the two whole parts were left alone
    whole = load_set("flow", 12, part=4)
    assert len(whole.words) == 12
    path = teachers.set_folder("flow") / "0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    make_set("flow", 12, **options)
    mended = load_set("flow", 12, part=4)
    assert len(seeds) == 5
    assert all(torch.equal(a, b) for a, b in zip(whole, mended, strict=True))
    # Both teachers have the same captions, so that rows differ by who drew alone.
    make_set("gpt", 4, **options)
    assert torch.equal(load_set("gpt", 4, part=4).words, whole.words[:4])
    with pytest.raises(DistillationError, match="a multiple of 4 from 4 up, got 6"):
        make_set("flow", 6, part=4)
    with pytest.raises(DistillationError, match="no teacher 'vae'; choose from gpt, flow, base"):
        make_set("vae")


def test_other_weights_have_a_set_of_their_own(folder, monkeypatch):
    monkeypatch.setattr(teachers.Teacher, "key", lambda self: "some")
    before = teachers.set_folder("flow")
    monkeypatch.setattr(teachers.Teacher, "key", lambda self: "others")
    assert teachers.set_folder("flow") != before


def test_the_flow_draws_its_pairs_as_the_course_draws(monkeypatch):
    draw = teachers.teacher_draw("flow", 0)
    flow, vae = (checkpoints.load_model(n) for n in teachers.TEACHERS["flow"].networks)
    words = teachers.prompts(2, 3)[0]
    noise = torch.randn(2, flow.config.latent, generator=seeded(1))
    slow = sample_flow(flow, vae, words, noise, steps=50, **FLOW_SAMPLING)
    assert (draw(words, noise) - slow).abs().mean() < 0.05  # 16 of Heun's steps, fifty of Euler's
    assert flow.config.latent == STUDENT.noise  # the flow's noise is the student's


# --- losses ---------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_relative_error_is_one_for_the_mean_and_knows_no_scale(seed, scale):
    x, y = torch.randn(2, 40, 3, generator=seeded(seed))
    mean = y.mean().expand_as(y)
    assert relative_error(mean, y).item() == pytest.approx(1, abs=0.02)
    expected = relative_error(x, y).item()
    assert relative_error(scale * x, scale * y).item() == pytest.approx(expected, rel=1e-3)
    assert relative_error(y, y) == 0


def test_the_loss_is_the_sum_of_its_parts(judge):
    fake, target = torch.rand(2, 4, 3, 28, 28, generator=seeded(4)) * 2 - 1
    parts = {name: distance((name,), fake, target, judge) for name in LOSSES}
    both = distance(tuple(LOSSES), fake, target, judge)
    total = sum(part.item() for part in parts.values())
    assert both.item() == pytest.approx(total, rel=1e-5) and min(parts.values()) > 0
    assert distance(tuple(LOSSES), target, target, judge) == 0
    with pytest.raises(DistillationError, match="no loss 'lpips'; choose match from pixels, feat"):
        distance(("lpips",), fake, target, judge)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_drawing_is_as_far_from_another_as_that_from_it(seed):
    a, b = torch.rand(2, 3, 3, 28, 28, generator=seeded(seed))
    assert torch.allclose(drawing_distance(a, b), drawing_distance(b, a))
    assert (drawing_distance(a, a) == 0).all() and (drawing_distance(a, b) > 0).all()


def test_the_conditional_mean_is_the_mean_of_every_photograph():
    label = torch.tensor([1, 2, 7, 0, 0])
    photos, garments = load_fashion("test")
    here = photos[garments == 7]
    mean = conditional_mean(label, "test", chunk=300)
    expected = compose(here, label.expand(len(here), -1)).images.mean(0)
    assert torch.allclose(mean, expected, atol=1e-5)
    # The nearest constant to all of them: any other is further off.
    scenes = compose(here[:200], label.expand(200, -1)).images
    centre = scenes.mean(0)
    for shift in (0.05, -0.05):
        assert (scenes - centre - shift).square().mean() > (scenes - centre).square().mean()
    with pytest.raises(DistillationError, match="a whole description with a garment"):
        conditional_mean(torch.tensor([-1, -1, 10, 2, -1]))


def test_a_smooth_teacher_follows_its_noise_and_a_stepped_one_jumps():
    words = torch.zeros(200, 3, dtype=torch.int64)
    angles = (0.01, 0.1, torch.pi / 2)
    smooth = turn_noise(paint, LATENT, words, angles)
    assert all(turn.moved == 1 for turn in smooth)
    assert smooth[1].distance / smooth[0].distance == pytest.approx(10, rel=0.1)
    assert smooth[2].distance == pytest.approx(1, abs=1e-3)
    stepped = turn_noise(lambda w, z: paint(w, z.sign()), LATENT, words, angles)
    # One of three signs flips: 3 angle / pi of the pictures, 0.01 and 0.1.
    assert 0 < stepped[0].moved < 0.04 < stepped[1].moved < 0.2
    assert stepped[0].distance > 0.3  # however small the turn
    with pytest.raises(DistillationError, match="angles must be above 0 and at most pi / 2, got"):
        turn_noise(paint, LATENT, words, (0.0,))


# --- training -------------------------------------------------------------------------------------


def test_regression_without_a_coupling_forgets_the_noise_and_with_one_keeps_it(judge, painted):
    """The theorem at work: E[x | y] on unrelated pairs, the teacher's picture on related ones."""
    apart, error = {}, {}
    noise = torch.randn(2, 40, LATENT, generator=seeded(5))
    words = painted.words[:1].expand(40, -1)
    for name in ("coupled", "uncoupled"):
        trained = make(
            judge, painted, shown="", target="flow", match=("pixels",), steps=300, batch=16,
            pairs_rate=4e-3, average=0.9,
        )  # fmt: skip
        if name == "uncoupled":
            shuffle = seeded(6)
            given = trained.batches

            def unrelated(given=given, shuffle=shuffle, trained=trained):
                for lesson in given:
                    fresh = torch.randn(lesson.noise.shape, generator=shuffle)
                    trained.lesson = lesson._replace(noise=fresh)
                    yield trained.lesson

            trained.batches = unrelated()
        network = trained.run(quiet=True)
        first, second = (network(z, words) for z in noise)
        apart[name] = drawing_distance(first, second).mean()
        error[name] = relative_error(first, paint(words, noise[0]))
    real = drawing_distance(paint(words, noise[0]), paint(words, noise[1])).mean()
    assert apart["uncoupled"] < 0.35 * apart["coupled"]
    assert apart["coupled"] > 0.5 * real
    assert error["coupled"] < 0.4 < 0.8 < error["uncoupled"]


def test_the_live_comparison_differs_by_the_noise_alone():
    pairs = caption_pairs(CAPTIONS[:2], 20, draw=paint, latent=LATENT)
    assert pairs.pictures.shape == (20, 2, 3, 28, 28)
    given = unrelated(pairs, 8, seeded(1))
    lesson = next(given)
    assert lesson.images.flatten(2).std(-1).max() > 0.01  # photographs, not painted ones
    students = [
        regress(given, 40, TINY),
        regress(lessons(pairs, 8, seeded(1)), 40, TINY),
    ]
    blur = compare_students(pairs, students[1], students[0], copies=6, draw=paint)
    assert {x.shape for x in blur.drawings.values()} == {(2, 6, 3, 28, 28)}
    assert blur.apart("photographs") > blur.apart("unrelated noise")
    assert blur.apart("its pairs") > blur.apart("unrelated noise")
    assert blur.to_mean("photographs") > 0.05 and blur.means.shape == (2, 3, 28, 28)
    assert len(blur.figure(3).axes) == 5 * 6
    same = Blur({"mean": blur.means[:, None].expand(-1, 2, -1, -1, -1)}, blur.means)
    assert same.apart("mean") == same.to_mean("mean") == 0


def test_the_live_comparison_refuses_what_it_cannot_show():
    with pytest.raises(DistillationError, match="count must be an even number of pairs from 2, go"):
        caption_pairs(CAPTIONS, 3, draw=paint)
    with pytest.raises(DistillationError, match="must say size, colour, garment, background and"):
        caption_pairs(("a red bag",), 2, draw=paint)
    with pytest.raises(DistillationError, match="steps must be at least 1, got 0"):
        regress(iter(()), 0, TINY)


LESSON_FIELDS = "shown", "target", "match", "hold", "slot_weight", "pairs_first", "head_start"


def test_a_teacher_asked_anew_never_repeats_and_needs_no_set(judge, painted):
    trained = make(judge, painted, shown="", target="base")
    assert not trained.sets and trained.recipe.teachers == ("base",) and not trained.recipe.kept
    seen = []
    for index in range(2):
        trained.step(index)
        lesson = trained.lesson
        assert torch.equal(lesson.images, paint(None, lesson.noise))
        assert not held_out_mask(lesson.labels).any()
        seen.append(lesson)
    assert not torch.equal(seen[0].words, seen[1].words)
    with pytest.raises(DistillationError, match="'base' draws in one step and has no set; choose"):
        make_set("base")
    with pytest.raises(DistillationError, match="'base' draws in one step and has no set; choose"):
        load_set("base")


def test_generator_base_is_its_own_teacher():
    network = checkpoints.load_model("generator_base")
    words = teachers.prompts(2, 3)[0]
    noise = torch.randn(2, STUDENT.noise, generator=seeded(1))
    with torch.no_grad():
        gap = teachers.teacher_draw("base", 0)(words, noise) - network(noise, words)
    assert gap.abs().max() < 1e-4


def test_momentum_belongs_to_the_pairs_alone(judge, painted):
    trained = make(judge, painted, target="base", steps=5, pairs_first=2, head_start=1)
    betas = []
    for index in range(4):
        trained.step(index)
        betas.append(trained.g_optimiser.param_groups[0]["betas"])
    assert betas == [(0.9, 0.99)] * 2 + [(0.0, 0.99)] * 2


@pytest.mark.parametrize("name", ABLATION)
def test_every_row_learns_from_what_it_says(name, judge, painted, monkeypatch):
    trained = make(judge, painted, steps=ABLATION[name].steps, **{
        field: getattr(ABLATION[name], field)
        for field in LESSON_FIELDS
    })  # fmt: skip
    shown = []
    if trained.recipe.shown:
        step = GANTrainer.step

        def watched(self, index):
            batches = self.batches

            def look():
                for batch in batches:
                    shown.append((batch.images, self.lesson))
                    yield batch

            self.batches = look()
            return step(self, index)

        monkeypatch.setattr(GANTrainer, "step", watched)
    losses = trained.step(0)
    assert all(torch.isfinite(torch.tensor(v)) for v in losses.values())
    if trained.recipe.pairs_first:
        assert not shown  # the discriminator is not there yet
        trained.step(trained.recipe.pairs_first)
    if trained.recipe.shown:
        images, lesson = shown[0]
        flat = images.flatten(2).std(-1).amax(1) < 1e-5  # the painted teachers have no garments
        assert bool(flat.all()) == (trained.recipe.shown in teachers.TEACHERS)
        if trained.recipe.target:
            assert torch.equal(trained._noise(), lesson.noise)
            assert (lesson.images - paint(None, lesson.noise)).abs().max() < 1 / 127
        if trained.recipe.target and trained.recipe.shown in teachers.TEACHERS:
            assert (lesson.images - images).abs().mean() > 0.1  # a set's picture, another's target
    else:
        assert set(losses) == {"distance"}


def test_a_hold_draws_the_student_to_its_teachers_pictures(judge, painted):
    def far(hold):
        trained = make(
            judge, painted, target="flow", hold=hold, steps=40, batch=16, slot_weight=0.0,
            generator_rate=4e-3, discriminator_rate=1e-3,
        )  # fmt: skip
        network = trained.run(quiet=True)
        lesson = next(lessons(painted, 60, seeded(7)))
        return float(relative_error(network(lesson.noise, lesson.words), lesson.images))

    assert far(30.0) < 0.8 * far(0.0)


def test_the_recipe_without_a_teacher_is_the_gan_itself(judge):
    recipe = DistillRecipe(**SHORT)
    ours = DistillTrainer("a", TINY, recipe, judge=judge)
    plain = GANTrainer("b", TINY, recipe, judge)
    for index in range(2):
        assert ours.step(index) == plain.step(index)


def test_a_head_start_leaves_the_student_alone(judge, painted):
    trained = make(judge, painted, target="flow", steps=4, head_start=2)
    before = [p.clone() for p in trained.model.parameters()]
    trained.step(0), trained.step(1)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True))
    trained.step(2)
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True)
    )
    assert trained.rates(3)[0] < SHIPPED["student"].generator_rate


def test_pairs_come_before_the_discriminator(judge, painted):
    trained = make(
        judge, painted, target="flow", steps=50, pairs_first=40, pairs_rate=2e-2, head_start=2,
        batch=16, slot_weight=0.0,
    )  # fmt: skip
    critic = [p.clone() for p in trained.discriminator.parameters()]
    lesson = next(lessons(painted, 60, seeded(7)))

    def far():
        with torch.no_grad():
            return float(relative_error(trained.model(lesson.noise, lesson.words), lesson.images))

    def unmoved(before, network):
        return all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))

    before = far()
    logs = [trained.step(index) for index in range(40)]
    assert far() < 0.8 * before and logs[-1]["g_loss"] < logs[0]["g_loss"]
    assert unmoved(critic, trained.discriminator)
    student = [p.clone() for p in trained.model.parameters()]
    trained.step(40), trained.step(41)
    assert not unmoved(critic, trained.discriminator) and unmoved(student, trained.model)
    assert set(trained.step(42)) == set(logs[0])
    rates = [trained.rates(index) for index in range(50)]
    assert [g > 0 for g, _ in rates] == [True] * 40 + [False] * 2 + [True] * 8
    assert [d > 0 for _, d in rates] == [False] * 40 + [True] * 10


PAIRS_FIRST = {"target": "flow", "pairs_first": 2, "head_start": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "flow"},
        {"shown": "gpt", "target": "base"},
        {"shown": "", "target": "real"},
        PAIRS_FIRST,
    ],
)
def test_a_killed_student_goes_on_as_if_nothing_had_happened(folder, judge, painted, changes):
    options = {"steps": 4, "batch": 8, **changes}
    whole = make(judge, painted, "whole", **options).run(quiet=True)
    killed = make(judge, painted, "killed", **options)
    killed.training.steps = 2
    killed.run(quiet=True, keep=True)
    again = make(judge, painted, "killed", **options)
    network = again.run(quiet=True, keep=True)
    assert again.training.step == 4
    for ours, theirs in zip(network.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    finished = make(judge, painted, "killed", **options)
    finished.step = lambda index: pytest.fail("a finished run trained again")
    for ours, theirs in zip(finished.run(quiet=True).parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_any_network_can_be_the_student(judge, painted, monkeypatch):
    """Pruned, folded or searched: a model of its own, with trained weights or fresh ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = Generator(TINY).eval()
    folded = fold(network).requires_grad_(True)
    recipe = DistillRecipe(**SHORT, target="flow")
    trained = DistillTrainer(
        "x", recipe=recipe, sets={"flow": painted}, judge=judge, model=folded
    )  # fmt: skip
    trained.step(0)
    assert trained.model is folded
    monkeypatch.setattr(distil, "load_model", lambda name: network)
    made = distil.architecture_trainer("pruned", recipe, sets={"flow": painted}, judge=judge)
    assert type(made.model) is Generator and made.model.config == TINY
    assert not torch.equal(made.model.stem.weight, network.stem.weight)
    monkeypatch.setattr(distil, "load_model", lambda name: folded)
    made = distil.architecture_trainer("pruned", recipe, sets={"flow": painted}, judge=judge)
    assert type(made.model) is Generator  # norms come back with fresh weights
    with pytest.raises(DistillationError, match="no architecture 'wide'; choose from searched, pr"):
        distil.architecture_trainer("wide")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shown": "fake"}, r"shown must be one of '', 'real', 'gpt', 'flow', 'base', got 'fake'"),
        ({"target": "gpt"}, r"target must be one of '', 'real', 'flow', 'base', got 'gpt'"),
        ({"match": ("lpips",)}, r"there is no loss 'lpips'; choose match from pixels, features"),
        ({"shown": ""}, r"nothing to learn from: set shown, or target and at least one match"),
        ({"shown": "", "target": "flow", "match": ()}, "nothing to learn from"),
        ({"shown": "gpt", "target": "flow"}, r"cannot be two kept sets, got 'gpt' and 'flow'"),
        ({"pairs_rate": 0.0}, r"pairs_rate must be above 0, got 0.0"),
        ({"hold": -1.0}, r"hold must be at least 0 .* got -1.0 and 0"),
        (
            {"pairs_first": 9},
            rf"pairs_first must be from 0 to {STEPS - 1} .* needs a target; got 9 and target ''",
        ),
        ({"pairs_first": STEPS, "target": "flow"}, rf"pairs_first must be from 0 to {STEPS - 1}"),
        (
            {"head_start": STEPS},
            rf"head_start from 0 to {STEPS - 1} \(below steps\), got 1.0 and {STEPS}",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_one_sentence(changes, sentence):
    with pytest.raises(DistillationError, match=sentence) as caught:
        DistillRecipe(**changes)
    assert str(caught.value).count("\n") == 0


def test_a_student_larger_than_its_teacher_is_refused(judge, painted):
    wide = replace(GENERATOR_BASE, noise=LATENT, channels=(256, 128, 64))
    with pytest.raises(DistillationError, match=r"the student has [\d,]+ parameters and its teach"):
        make(judge, painted, config=wide, target="flow")
    most = teachers.TEACHERS["gpt"].parameters()
    assert sum(p.numel() for p in Generator(STUDENT).parameters()) < most
    make(judge, painted, config=wide)  # without a teacher there is nothing to be smaller than


def test_noise_of_another_length_is_refused(judge, painted):
    with pytest.raises(DistillationError, match=r"config.noise must be 8, .* got 5"):
        make(judge, painted, config=replace(TINY, noise=5), target="flow")
    make(judge, painted, config=replace(TINY, noise=5), shown="gpt")  # no coupling, no condition
    with pytest.raises(DistillationError, match=r"config.noise must be 64, .* got 8"):
        DistillTrainer("x", TINY, DistillRecipe(**SHORT, target="base"), judge=judge)


def test_unknown_rows_and_students_are_named():
    with pytest.raises(DistillationError, match="no row 'gan'; choose from uncoupled, coupled"):
        distil.ablation_trainer("gan")
    with pytest.raises(DistillationError, match="no student 'small'; choose from student"):
        distil.train_student("small")


# --- what is compared and shipped -----------------------------------------------------------------


def test_rows_of_the_ablation_differ_by_their_lessons_alone():
    assert set(ROW_WORDS) == set(ABLATION)
    lessons_alone = {"shown": "real", "target": "", "match": ("pixels", "features")}
    lessons_alone |= {"hold": 1.0, "slot_weight": 0.15, "pairs_first": 0, "head_start": 0}
    assert len({replace(recipe, **lessons_alone) for recipe in ABLATION.values()}) == 1
    assert "student" in MODELS and "student" in TRAINERS


def test_the_student_trains_and_ships(folder, judge, painted, monkeypatch):
    monkeypatch.setattr(checkpoints, "data_path", lambda *parts: folder.joinpath(*parts))
    monkeypatch.setattr(checkpoints, "require", lambda name, *_: folder / name)
    monkeypatch.setattr(teachers.Teacher, "parameters", lambda self: 10**6)
    monkeypatch.setattr(distil, "STUDENT", TINY)
    monkeypatch.setitem(SHIPPED, "student", DistillRecipe(**SHORT, target="flow"))
    monkeypatch.setattr(distil, "load_set", lambda name: painted)
    monkeypatch.setattr("fastgen_course.training.gan.load_model", lambda name: judge)
    monkeypatch.setattr(DistillTrainer, "check", lambda self, n=0: {"exact": 0.5})
    card = trainer("student")("student", quiet=True)
    assert card["command"] == "python -m fastgen_course train student"
    assert card["recipe"]["target"] == "flow" and card["metrics"] == {"judge_train_exact": 0.5}
    shipped = checkpoints.load_model("student")
    assert shipped.config == TINY and not loop.run_path("student").is_file()
    assert isinstance(painted, TeacherSet)
