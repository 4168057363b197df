"""What it is for: the pieces measured, the attacks on cases with known answers, and the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen_course.applications import attacks, inpainting, membership, privacy, records
from fastgen_course.applications.augmentation import ARMS, TINY, arm_accuracy, arm_batches, move
from fastgen_course.applications.classifier import ClassifierRecipe, right, train_classifier
from fastgen_course.applications.photographs import (
    GARMENTS,
    draw_photographs,
    scene_labels,
    scenes_of,
)
from fastgen_course.applications.segmentation import WAYS, true_masks
from fastgen_course.authoring.applications import (
    ANALOGOUS,
    OUT,
    PAGE,
    SHOWN,
    USES,
    Figures,
    render_applications,
)
from fastgen_course.authoring.readme import NOT_RECORDED
from fastgen_course.datasets.captions import held_out_mask
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.timing.results import all_results, record, result

ROOT = Path(__file__).resolve().parents[1]
ASKED_FOR = (
    "design assistant", "games and vr", "100 images a class", "inpainting", "segmentation",
    "privacy", "advertising", "medicine", "driving",
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_not_drifted_from_the_registry():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert render_applications(text) == text, "run `python -m fastgen_course readme`"


def test_the_page_names_every_use_with_a_status_and_a_reason():
    names = [use.name.lower() for use in USES]
    for asked in ASKED_FOR:
        assert sum(asked in name for name in names) == 1, asked
    for use in USES:
        assert use.status in (SHOWN, ANALOGOUS, OUT)
        assert len(use.text) > 40
        assert (use.status == SHOWN) <= bool(use.figures)  # what is shown is measured


def test_no_share_or_ratio_is_typed_between_the_generated_parts():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    prose = re.sub(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"\d\s?%|\d\.\d+ (?:x|AUC|points)", prose)


def test_the_pages_links_lead_somewhere():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http") and target != "13_distillation.ipynb":
            assert (ROOT / PAGE.parent / target).exists(), target
    assert PAGE.as_posix() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_gain_says_what_its_interval_allows(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    text = "\n".join(
        f"<!-- {name}:begin -->\n<!-- {name}:end -->"
        for name in ("uses", "augmentation", "inpainting", "membership", "privacy")
    )
    assert NOT_RECORDED in render_applications(text)
    area = "applications_augmentation"
    for name, low, high in (("synthetic", 0.01, 0.03), ("classical", -0.01, 0.05)):
        record(
            area, f"{area}.gain.{name}_over_plain", 0.02, "share", spread=(low, high), command="x"
        )
    done = render_applications(text)
    assert "+2.0 points [+1.0, +3.0], helps" in done
    assert "+2.0 points [-1.0, +5.0], cannot be told from no effect" in done
    with pytest.raises(ValueError, match=r"APPLICATIONS.md has no part between <!-- privacy:begin"):
        render_applications(text.replace("privacy:begin", "gone"))


def test_figures_keep_their_units():
    figures = Figures(all_results("edit"))
    assert figures.value("edit.changed").endswith(" %")
    assert figures.value("edit.never_measured") == NOT_RECORDED
    assert figures.number("edit.never_measured") is None


# --- photographs ----------------------------------------------------------------------------------


def test_photographs_are_balanced_and_different():
    rows = draw_photographs("train", 7, seeded())
    assert len(rows.unique()) == 70
    assert torch.equal(load_fashion("train").labels[rows], torch.arange(70) % GARMENTS)
    with pytest.raises(ValueError, match="per_class must lie in 1 to 1000, got 1001"):
        draw_photographs("test", 1001, seeded())


def test_scenes_keep_their_garment_and_avoid_held_out_combinations():
    garments = torch.arange(500) % GARMENTS
    labels = scene_labels(garments, seeded())
    assert torch.equal(labels[:, 2], garments)
    assert not held_out_mask(labels).any()
    assert (scene_labels(garments, seeded(1)) != labels).any()


# --- augmentation ---------------------------------------------------------------------------------


def test_moving_is_a_flip_and_a_shift_of_each_picture():
    images = torch.rand(40, 3, 28, 28, generator=seeded())
    moved = move(images, seeded(3), shift=0)
    kept = [torch.equal(a, b) for a, b in zip(moved, images, strict=True)]
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(moved, images, strict=True)]
    assert all(a != b for a, b in zip(kept, flipped, strict=True))
    assert 5 < sum(flipped) < 35
    inner = move(images, seeded(4), shift=3)[0, :, 6:22, 6:22]
    rows = range(7)
    assert any(
        torch.equal(inner, source[:, 3 + r : 19 + r, 3 + c : 19 + c])
        for source in (images[0], images[0].flip(2))
        for r in rows
        for c in rows
    )


def test_every_arm_draws_full_batches_of_the_same_photographs():
    for name, arm in ARMS.items():
        if arm.drawn == "generator_base":
            continue  # needs the shipped weights: the next test
        images, garments = arm_batches(arm, TINY, seed=0)(0)
        assert images.shape == (TINY.classifier.batch, 3, 28, 28), name
        assert garments.min() >= 0
        assert garments.max() < GARMENTS


def test_drawings_make_up_half_of_a_batch():
    images, _ = arm_batches(ARMS["synthetic"], TINY, seed=0)(0)
    half = TINY.classifier.batch // 2
    real = scenes_of(draw_photographs("train", TINY.per_class, seeded(1000)), "train", seeded())
    assert len(images) == 2 * half
    assert real.images.shape[1:] == images.shape[1:]
    with pytest.raises(ValueError, match="there is no arm 'more'"):
        arm_accuracy("more", 0, TINY)


def test_a_classifier_learns_what_it_is_shown():
    scenes = scenes_of(draw_photographs("train", 2, seeded()), "train", seeded(1))
    recipe = ClassifierRecipe(steps=60, batch=20, width=8)
    model = train_classifier(lambda _: (scenes.images, scenes.garments), recipe, seed=0)
    assert right(model, scenes.images, scenes.garments).mean() > 0.8


def test_the_gain_of_pairs_is_students():
    gain, half = records.paired_gain([0.6, 0.7, 0.8], [0.5, 0.5, 0.5])
    assert gain == pytest.approx(0.2)
    assert half == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t at 2 degrees of freedom


# --- inpainting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(inpainting.MASKS))
def test_a_fill_sees_nothing_that_is_lost_and_changes_nothing_else(kind):
    damage = inpainting.damaged(kind, 10)
    spoiled = damage.scenes._replace(
        images=torch.where(damage.masks[:, None], 9.0, damage.scenes.images)
    )
    for name in ("paper", "mean", "smooth"):
        fill = inpainting.FILLS[name]
        ours = fill(damage, seeded())
        assert torch.equal(ours, fill(damage._replace(scenes=spoiled), seeded())), name
        outside = (~damage.masks[:, None]).expand_as(ours)
        assert torch.equal(ours[outside], damage.scenes.images[outside])


def test_a_smooth_fill_continues_a_ramp():
    ramp = torch.linspace(-1, 1, 28).expand(1, 3, 28, 28).clone()
    scenes = inpainting.damaged("middle", 10).scenes._replace(images=ramp)
    damage = inpainting.Damage(scenes, inpainting.middle(seeded(), 1))
    done = inpainting.fill_smooth(damage, seeded())
    error = inpainting.root_mean_square(done, ramp, damage.masks)
    assert (
        error
        < 0.01
        < inpainting.root_mean_square(inpainting.fill_mean(damage, seeded()), ramp, damage.masks)
    )


def test_masks_and_their_mistakes():
    assert inpainting.middle(seeded(), 2).sum() == 2 * 144
    assert inpainting.lower_half(seeded(), 1)[:, 16:].all()
    assert inpainting.scattered(seeded(), 3).sum() == 3 * 24 * 16
    with pytest.raises(ValueError, match="there is no mask 'upper'"):
        inpainting.damaged("upper")
    with pytest.raises(ValueError, match="15 is no multiple of 10"):
        inpainting.damaged("middle", 15)


def test_the_rule_marks_the_garment_and_everything_does_not():
    scenes = true_masks(20)
    overlap = {
        name: inpainting.estimate(
            torch.tensor([
                float((found & true).sum() / (found | true).sum())
                for found, true in zip(WAYS[name](scenes.images), scenes.masks, strict=True)
            ])
        ).value
        for name in ("rule", "everywhere")
    }  # fmt: skip
    assert overlap["rule"] > 0.8 > overlap["everywhere"]


# --- attacks --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=12),
    st.lists(st.integers(-3, 3), min_size=2, max_size=12),
)
def test_the_area_is_the_share_of_pairs_that_are_ordered(members, strangers):
    found = attacks.assess(torch.tensor(members).float(), torch.tensor(strangers).float())
    pairs = [(m > s) + (m == s) / 2 for m in members for s in strangers]
    assert found.auc == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= found.low <= found.auc <= found.high <= 1


def test_the_interval_covers_and_narrows():
    draws = torch.randn(2, 4000, generator=seeded())
    coin = attacks.assess(*draws)
    assert coin.low < 0.5 < coin.high
    assert coin.high - coin.low < 0.03
    few = attacks.assess(*draws[:, :100])
    assert few.high - few.low > 3 * (coin.high - coin.low)
    # Two normals one deviation apart: Phi(1 / sqrt(2)) = 0.760.
    assert attacks.assess(draws[0] + 1, draws[1]).auc == pytest.approx(0.760, abs=0.02)
    assert attacks.assess(draws[0] + 9, draws[1]).caught == 1
    assert coin.caught < 0.05
    with pytest.raises(ValueError, match="at least two members"):
        attacks.assess(torch.ones(1), torch.ones(5))


def test_the_drawing_attacks_find_what_a_generator_draws():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator(GeneratorConfig(noise=4, caption=8, channels=(8, 6, 4))).eval()
    scenes = membership.one_scene(draw_photographs("test", 1, seeded()), "test")
    bank = attacks.draw_bank(model, scenes.words, 6, seeded(1))
    drawn = scenes._replace(images=bank.images[:, 2].view(10, 3, 28, 28))
    near, noise = attacks.nearest_drawing(bank, drawn)
    assert near.abs().max() < 1e-6
    assert torch.equal(noise, bank.noise[:, 2])
    far, noise = attacks.nearest_drawing(bank, scenes)
    bent = attacks.closest_noise(model, scenes, noise, steps=5)
    assert (far < near).all()
    assert (bent >= far - 1e-5).all()
    assert not held_out_mask(scenes.labels).any()


def test_a_control_that_is_never_caught_proves_nothing():
    with pytest.raises(membership.NothingProven, match="nothing is recorded"):
        membership.control("nearest", membership.TINY, wanted=1.01)


def test_a_copying_generator_learns_its_photographs():
    sizes = membership.MembershipSizes(signs=1, batch=16)
    rows = draw_photographs("test", 2, seeded())
    model, loss = membership.drawing_copier(rows, sizes)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert sum(values[-3:]) < 0.5 * sum(values[:3])


def test_one_missed_control_stops_neither_the_other_attacks_nor_the_message(monkeypatch, capsys):
    tried = []

    def control(target, sizes, wanted):
        tried.append(target)
        raise membership.NothingProven(f"{target} was never caught.")

    monkeypatch.setattr(membership, "control", control)
    assert records.main(["membership", "--again"]) == 1
    assert tried == list(membership.TARGETS)
    assert "noise was never caught." in capsys.readouterr().err


# --- privacy and the command line -----------------------------------------------------------------


def test_without_opacus_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opacus", None)
    assert records.main(["--tiny", "privacy"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install -c constraints.txt opacus" in said
    with pytest.raises(privacy.OpacusMissing):
        privacy.measure_privacy("plain", privacy.TINY)
    with pytest.raises(ValueError, match="there is no level 'some'"):
        privacy.measure_privacy("some")


def test_private_training_spends_what_was_allowed():
    pytest.importorskip("opacus")
    found = privacy.measure_privacy("epsilon_8", privacy.TINY)
    assert 0 < found.epsilon <= 8.01
    assert found.noise > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["copying"], "there is no part 'copying'"), (["--rows", "b"], "there is no row 'b'")],
)
def test_a_mistake_on_the_command_line_is_named(words, said, capsys):
    assert records.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_recorded_row_is_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    options = records.Options()
    records.note(options, "inpainting", "error.a.b", 0.5, "x", (0.4, 0.6), pictures=10)
    assert result("applications_inpainting.error.a.b").command.endswith("records inpainting")
    assert records.known(options, "inpainting", "error.a.b", pictures=10).value == 0.5
    assert records.known(options, "inpainting", "error.a.b", pictures=20) is None
    assert records.known(records.Options(again=True), "inpainting", "error.a.b") is None
    records.note(records.Options(tiny=True), "inpainting", "error.c.d", 1.0, "x", None)
    assert records.known(options, "inpainting", "error.c.d") is None
