"""Accuracies, fixed caption lists, real images, the report and who may load the judge."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import fastgen_course
from fastgen_course.datasets.captions import (
    EMPTY,
    SLOTS,
    Attributes,
    held_out_mask,
    labels_of,
    parse,
)
from fastgen_course.datasets.compose import compose
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.metrics import (
    MetricError,
    accuracies,
    caption_list,
    caption_texts,
    digit_accuracy,
    evaluate,
    exact_accuracy,
    floor_and_ceiling,
    garment_accuracy,
    heldout_list,
    judge_features,
    read_slots,
    real_images,
    reference_features,
    reference_images,
    slot_accuracy,
)
from fastgen_course.metrics.record import judge_accuracies
from fastgen_course.metrics.report import same_caption_distance
from fastgen_course.models.digit_judge import DIGIT_JUDGE_TINY, DigitJudge
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.timing.results import all_results, result

TINY = JudgeConfig(channels=(4, 6), convolutions=(1, 1), features=8)


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny_judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SlotJudge(TINY).eval()


class PlantedJudge(nn.Module):
    """Reads the labels that `plant` wrote into an image's first row."""

    def features(self, images):
        return images[:, 0, 0, :5] * 16

    def classify(self, features):
        return {
            slot: nn.functional.one_hot(features[:, i].round().long(), 16)[:, : len(values)]
            for i, (slot, values) in enumerate(SLOTS.items())
        }


def plant(read):
    images = torch.zeros(len(read), 3, 28, 28)
    images[:, 0, 0, :5] = torch.tensor(read) / 16
    return images


ASKED = torch.tensor(
    [
        [0, 1, 2, 3, 0],  # all right
        [0, 1, 2, 3, 0],  # colour wrong
        [0, 1, 2, 3, 0],  # garment and style wrong
        [-1, -1, 5, -1, -1],  # garment alone asked for, right
        [-1, -1, 10, 4, -1],  # empty scene, right
        [-1, -1, 10, 4, -1],  # empty scene asked for, a garment drawn
        [-1, 7, -1, -1, -1],  # colour alone asked for, right
        [0, 1, 2, 3, 0],  # a garment asked for, an empty scene drawn
    ]
)
READ = [
    [0, 1, 2, 3, 0],
    [0, 2, 2, 3, 0],
    [0, 1, 4, 3, 1],
    [1, 6, 5, 0, 3],
    [0, 0, 10, 4, 0],
    [0, 0, 3, 4, 0],
    [1, 7, 9, 0, 0],
    [0, 1, 10, 3, 0],
]


def test_accuracies_count_what_was_asked_for_alone():
    images, judge = plant(READ), PlantedJudge()
    slots = [1, 4 / 5, 3 / 5, 1, 1, 1 / 2, 1, 1 / 5]
    assert slot_accuracy(images, ASKED, judge=judge).value == pytest.approx(sum(slots) / 8)
    assert exact_accuracy(images, ASKED, judge=judge).value == pytest.approx(4 / 8)
    garment = garment_accuracy(images, ASKED, judge=judge)
    assert garment.value == pytest.approx(4 / 7)
    assert garment.count == 7
    assert garment.low <= garment.value <= garment.high
    together = accuracies(images, ASKED, judge=judge)
    assert together.exact == exact_accuracy(images, ASKED, judge=judge)
    assert together.garment == garment
    assert together.by_slot["colour"] == pytest.approx(3 / 5)
    assert together.by_slot["background"] == 1
    assert together.by_slot["style"] == pytest.approx(2 / 4)


def test_features_score_as_their_images_do():
    images, judge = plant(READ), PlantedJudge()
    features = judge_features(images, judge)
    assert accuracies(features, ASKED, judge=judge) == accuracies(images, ASKED, judge=judge)


def test_a_judge_in_training_mode_scores_in_eval_mode_and_is_given_back(tiny_judge):
    images = torch.rand(20, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = judge_features(images, tiny_judge)
    tiny_judge.train()
    try:
        assert torch.equal(judge_features(images, tiny_judge), expected)
        read = read_slots(images, judge=tiny_judge)
        assert tiny_judge.training
    finally:
        tiny_judge.eval()
    assert torch.equal(read, read_slots(images, judge=tiny_judge))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (ASKED[:3], "one row an image"),
        (ASKED.float(), "long"),
        (ASKED.clone().index_fill_(1, torch.tensor([1]), 8), r"labels\[0\] gives 8 for colour"),
        (ASKED.clone().index_fill_(1, torch.tensor([4]), -2), "for style.*0 to 3"),
        (torch.full((8, 5), -1), "asks for nothing"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(MetricError, match=message):
        exact_accuracy(plant(READ), labels, judge=PlantedJudge())


def test_no_garment_asked_for_is_said():
    with pytest.raises(MetricError, match="no garment"):
        garment_accuracy(plant(READ[:1]), torch.tensor([[0, 1, -1, 3, 0]]), judge=PlantedJudge())


def test_digit_accuracy_counts_right_digits():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = DigitJudge(DIGIT_JUDGE_TINY).eval()
    images = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        read = judge(images).argmax(1)
    labels = read.clone()
    labels[:6] = (labels[:6] + 1) % 10
    assert digit_accuracy(images, labels, judge=judge).value == pytest.approx(24 / 30)
    for wrong, message in [
        (labels + 5, "0 to 9"),
        (labels - 12, "0 to 9"),
        (labels[:3], "one row"),
        (labels.masked_fill(labels == labels[0], -1), "every image needs"),
    ]:
        with pytest.raises(MetricError, match=message):
            digit_accuracy(images, wrong, judge=judge)
    with pytest.raises(MetricError, match="NaN"):
        digit_accuracy(images / 0 * 0, labels, judge=judge)
    with pytest.raises(MetricError, match=r"\(B, 1, 28, 28\)"):
        digit_accuracy(images.expand(-1, 3, -1, -1), labels, judge=judge)


def test_the_caption_lists_are_fixed_and_keep_held_out_apart():
    captions, held_out = labels_of(caption_list()), labels_of(heldout_list())
    assert captions.shape == (10_000, 5)
    assert not held_out_mask(captions).any()
    assert held_out_mask(held_out).all()
    assert 0.03 < (captions[:, 2] == EMPTY).double().mean() < 0.07
    assert caption_list(7) == caption_list(50)[:7]
    assert not torch.equal(reference_images(n=3), real_images("test", caption_list(3)))
    texts = caption_texts(caption_list(50))
    assert [parse(text) for text in texts] == caption_list(50)
    assert texts == caption_texts(caption_list(50))
    for n in (0, 10_001):
        with pytest.raises(MetricError, match="10,000"):
            caption_list(n)


def test_real_images_are_compositions_of_that_split():
    asked = [
        Attributes("large", "red", "boot", "white", "photo"),
        Attributes(garment="nothing", background="grey"),
        Attributes(garment="bag", background="black"),
    ]
    images, fashion = real_images("test", asked), load_fashion("test")
    boots = fashion.images[fashion.labels == 9]
    scenes = compose(boots, labels_of(asked[:1]).expand(len(boots), -1)).images
    distance = (scenes - images[0]).abs().amax((1, 2, 3))
    assert distance.min() < 1e-6  # summation order may differ between batches
    assert images[1].std((1, 2)).max() == 0
    assert torch.equal(images, real_images("test", asked))
    assert not torch.equal(images[0], real_images("train", asked)[0])
    with pytest.raises(MetricError, match="at least one"):
        real_images("test", [])


def test_real_images_use_no_photo_twice_before_they_must():
    asked = [Attributes("large", "red", "bag", "white", "photo")] * 1000
    images = real_images("test", asked)
    distinct = len(images.flatten(1).unique(dim=0))
    bags = load_fashion("test").images[load_fashion("test").labels == 8]
    assert distinct == len(bags.flatten(1).unique(dim=0))


def test_reference_features_come_from_the_cache_and_survive_damage(tiny_judge, tmp_path):
    first = reference_features("test", 30, judge=tiny_judge)
    assert torch.equal(first, judge_features(reference_images("test", 30), tiny_judge))
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(reference_features("test", 30, judge=tiny_judge), first)
    planted = first + 1
    from safetensors.torch import save_file

    save_file({"features": planted}, path)
    assert torch.equal(reference_features("test", 30, judge=tiny_judge), planted)  # it was read
    other = SlotJudge(TINY)
    assert not torch.equal(reference_features("test", 30, judge=other), planted)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tiny_judge, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "file"))  # a file where a folder must be
    features = reference_features("test", 10, judge=tiny_judge)
    assert features.shape == (10, 8)


def test_a_copy_of_a_training_image_has_no_distance():
    asked = Attributes("small", "blue", "boot", "black", "flat")
    copy, fresh = real_images("train", [asked]), real_images("test", [asked])
    distance = same_caption_distance(torch.cat([copy, fresh]), [asked, asked])
    assert distance[0] < 1e-6
    assert distance[1] > 0.01
    with pytest.raises(MetricError, match="empty scene"):
        same_caption_distance(copy, [Attributes(garment="nothing", background="grey")])


def test_floor_lies_below_ceiling(tiny_judge):
    floor, ceiling = floor_and_ceiling(seeds=(0, 1), n=200, judge=tiny_judge)
    assert len(floor.values) == 2
    assert 0 < floor.mean < ceiling.mean
    assert floor.deviation == pytest.approx(abs(floor.values[0] - floor.values[1]) / 2**0.5)


@pytest.fixture(scope="module")
def report(tiny_judge, tmp_path_factory):
    calls = []

    def sample(captions, generator):
        calls.append(len(captions))
        labels = labels_of([parse(caption) for caption in captions])
        return real_images("train", labels, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        report = evaluate(
            sample, (0, 1), n=60, n_held_out=20, judge=tiny_judge, batch=50, copy_captions=1
        )
    assert calls == [50, 10, 20] * 2
    return report


def test_the_report_of_a_perfect_copier(report):
    assert report.drawn.copy_distance.mean < 1e-6 < report.real.copy_distance.mean
    assert len(report.drawn.fid.values) == 2
    assert report.drawn.accuracies.exact.count == 60
    assert report.drawn.held_out.exact.count == 20
    assert report.drawn.precision.mean > 0.5 < report.real.recall.mean
    table = str(report)
    assert table.splitlines()[0].split() == ["drawn", "real", "images"]
    assert "held-out exact accuracy" in table


def test_the_report_is_recorded_with_real_values_beside(report, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path))
    report.record("mine", command="python -m mine", base="copier")
    assert len(all_results("mine")) == 22
    assert result("mine.exact_accuracy_real").value == report.real.accuracies.exact.value
    assert result("mine.fid").spread == pytest.approx(report.drawn.fid.deviation)
    assert result("mine.heldout_exact_accuracy").unit == "share"
    assert result("mine.fid").base == "copier"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda captions, generator: torch.zeros(3, 3, 28, 28), "3 images for 10 captions"),
        (lambda captions, generator: torch.zeros(10, 3, 28, 28) / 0, "sampler's output holds NaN"),
        (lambda captions, generator: torch.full((10, 3, 28, 28), 2.0), "scale them"),
    ],
)
def test_a_bad_sampler_is_named(sample, message, tiny_judge):
    with pytest.raises(MetricError, match=message):
        evaluate(sample, (0,), n=10, n_held_out=5, judge=tiny_judge)
    with pytest.raises(MetricError, match="seeds"):
        evaluate(sample, (), n=10, judge=tiny_judge)


LOADERS = {"load_model", "load_checkpoint", "load_card", "require", "data_path", "load_file"}


def _loads_report_judge(tree):
    """Calls that load `judge_report` by its name, its preset or its accessor."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = [a.value for a in ast.walk(node) if isinstance(a, ast.Constant)]
            named = any(isinstance(word, str) and "judge_report" in word for word in words)
            if name == "report_judge" or (name in LOADERS and named):
                yield node.lineno
        imported = node.names if isinstance(node, ast.ImportFrom | ast.Import) else []
        if any(alias.name == "report_judge" for alias in imported):
            yield node.lineno


def test_only_metrics_loads_the_reporting_judge():
    package = Path(fastgen_course.__file__).parent
    loaders = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if any(_loads_report_judge(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert loaders == {"metrics"}


@pytest.mark.parametrize(
    "source",
    [
        "load_model('judge_report')",
        "checkpoints.load_model(name='judge_report')",
        "load_file(data_path('weights', 'judge_report.safetensors'))",
        "from fastgen_course.metrics.features import report_judge",
        "features.report_judge()",
    ],
)
def test_the_import_test_sees_every_way_in(source):
    assert any(_loads_report_judge(ast.parse(source)))


def test_judge_accuracies_are_stated_by_slot_style_and_size(tiny_judge):
    rows = dict(judge_accuracies(tiny_judge, n=100))
    assert rows["garment_accuracy"] == rows["garment_accuracy_photo"]
    assert rows["garment_accuracy_all_styles"].count == 400
    halves = [rows[f"garment_accuracy_{size}_sketch"] for size in SLOTS["size"]]
    assert sum(half.count for half in halves) == rows["garment_accuracy_sketch"].count == 100
    found = sum(half.value * half.count for half in halves) / 100
    assert found == pytest.approx(rows["garment_accuracy_sketch"].value)
    assert rows["empty_scene_accuracy"].count == 6
    assert all(0 <= row.value <= 1 for row in rows.values())
