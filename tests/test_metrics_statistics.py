"""Frechet distance, FID, precision and recall, neighbours and intervals, on known cases."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgen_course.metrics import (
    MetricError,
    bootstrap_interval,
    fid,
    frechet_distance,
    gaussian_moments,
    nearest_training_neighbour,
    precision_recall,
)


class TinyJudge(nn.Module):
    """A random convolution and a pooling: enough for features of images."""

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        weights = torch.Generator().manual_seed(3)
        self.body = nn.Conv2d(3, features, 5, stride=3)
        self.body.weight.data = torch.randn(self.body.weight.shape, generator=weights)
        self.body.bias.data = torch.randn(features, generator=weights)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).relu().mean((2, 3))


def noise(n: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, 28, 28, generator=generator) * 2 - 1) * scale


def random_gaussian(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(size, generator=generator, dtype=torch.float64), root @ root.T


def test_frechet_of_commuting_gaussians_is_the_closed_form():
    mu1, mu2 = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    sd1, sd2 = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 0.5, 0.1])
    expected = ((mu1 - mu2) ** 2).sum() + ((sd1 - sd2) ** 2).sum()
    found = frechet_distance(mu1, torch.diag(sd1**2), mu2, torch.diag(sd2**2))
    assert found == pytest.approx(float(expected), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_frechet_agrees_with_scipy_and_is_symmetric(size, seed):
    (mu1, cov1), (mu2, cov2) = random_gaussian(size, seed), random_gaussian(size, seed + 1)
    root = scipy.linalg.sqrtm((cov1 @ cov2).numpy()).real
    expected = float((mu1 - mu2) @ (mu1 - mu2) + (cov1 + cov2).trace()) - 2 * root.trace()
    assert frechet_distance(mu1, cov1, mu2, cov2) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert frechet_distance(mu2, cov2, mu1, cov1) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert frechet_distance(mu1, cov1, mu1, cov1) == pytest.approx(0, abs=1e-6)


def test_moments_are_the_mean_and_the_unbiased_covariance():
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    mean, covariance = gaussian_moments(features)
    assert torch.allclose(mean, features.double().mean(0))
    assert torch.allclose(covariance, torch.cov(features.double().T))


def test_fid_by_torchmetrics_equals_the_hand_written_distance():
    judge, a, b = TinyJudge(), noise(600, 0), noise(520, 1, scale=0.7)
    with torch.no_grad():
        features_a, features_b = judge.features(a), judge.features(b)
    expected = frechet_distance(*gaussian_moments(features_a), *gaussian_moments(features_b))
    assert expected > 1e-3
    assert fid(a, b, judge=judge) == pytest.approx(expected, rel=1e-4)
    assert fid(features_a, features_b) == pytest.approx(expected, rel=1e-4)
    assert fid(a, features_b, judge=judge) == pytest.approx(expected, rel=1e-4)
    assert fid(a, a, judge=judge) == pytest.approx(0, abs=1e-6)


def test_fid_leaves_the_global_random_state_alone():
    judge, state = TinyJudge(), torch.get_rng_state()
    fid(noise(20), noise(20, 1), judge=judge)
    assert torch.equal(state, torch.get_rng_state())


def test_frechet_is_biased_upwards_for_few_samples():
    generator = torch.Generator().manual_seed(0)
    values = []
    for n in (20, 80, 320):
        draws = [torch.randn(n, 6, generator=generator) for _ in range(10)]
        values.append(
            sum(
                frechet_distance(*gaussian_moments(a), *gaussian_moments(b))
                for a, b in zip(draws[::2], draws[1::2], strict=True)
            )
            / 5
        )
    assert values[0] > 2 * values[1] > 4 * values[2] > 0


def test_precision_and_recall_tell_realism_from_diversity():
    generator = torch.Generator().manual_seed(2)
    modes = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    real = modes.repeat_interleave(200, 0) + torch.randn(400, 2, generator=generator)
    one_mode = torch.randn(400, 2, generator=generator)
    half_garbage = torch.cat([real[::2] + 0.01, torch.full((200, 2), 500.0)])
    half_garbage[200:] += torch.randn(200, 2, generator=generator)

    same = precision_recall(real, real, directions=False)
    assert same == (1.0, 1.0)
    collapsed = precision_recall(one_mode, real, directions=False)
    assert collapsed.precision > 0.9
    assert 0.35 < collapsed.recall <= 0.5
    garbage = precision_recall(half_garbage, real, directions=False)
    assert garbage.precision == pytest.approx(0.5, abs=0.02)
    assert garbage.recall > 0.9


def test_short_features_of_pictures_that_are_nothing_are_not_called_realistic():
    generator = torch.Generator().manual_seed(3)
    real = 10 * nn.functional.normalize(torch.randn(300, 64, generator=generator).relu())
    unsure = 0.3 * nn.functional.normalize(-torch.rand(300, 64, generator=generator))
    assert precision_recall(unsure, real, directions=False).precision > 0.9
    assert precision_recall(unsure, real).precision < 0.1


def test_precision_and_recall_agree_with_the_definition(monkeypatch):
    monkeypatch.setattr("fastgen_course.metrics.neighbours.CHUNK", 7)  # several chunks, ragged
    generator = torch.Generator().manual_seed(4)
    fake, real = torch.randn(40, 3, generator=generator), torch.randn(30, 3, generator=generator)

    def radii(points):  # column 0 of a sorted row is the point itself
        return torch.cdist(points, points).sort(1).values[:, 3]

    distances = torch.cdist(fake, real)
    found = precision_recall(fake, real, k=3, directions=False)
    assert found.precision == pytest.approx(
        float((distances <= radii(real)).any(1).double().mean())
    )
    inside = (distances <= radii(fake)[:, None]).any(0)
    assert found.recall == pytest.approx(float(inside.double().mean()))
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_a_copied_training_image_is_found():
    training = noise(50)
    copies = training[[7, 31]].clone()
    near = nearest_training_neighbour(copies, training, judge=TinyJudge())
    assert near.pixel_index.tolist() == near.feature_index.tolist() == [7, 31]
    assert near.pixel_distance.max() == 0
    assert near.feature_distance.max() == 0
    baseline = nearest_training_neighbour(noise(5, 9), training, judge=TinyJudge())
    expected = (noise(5, 9)[:, None] - training[None]).square().mean((2, 3, 4)).sqrt().min(1)
    assert torch.allclose(baseline.pixel_distance, expected.values, rtol=1e-5)
    assert baseline.medians()["feature"] > 0


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        values = (torch.rand(200, generator=generator) < 0.8).float()
        low, high = bootstrap_interval(values, repeats=300, generator=generator)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99  # 95 % is meant; 200 trials have a deviation of 1.5 %


def test_bootstrap_width_is_the_standard_error():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(values)
    assert (high - low) == pytest.approx(2 * 1.96 * float(values.std()) / 4000**0.5, rel=0.1)
    assert (low, high) == bootstrap_interval(values)  # no generator: the same draw again
    assert bootstrap_interval(torch.ones(10)) == (1.0, 1.0)


BAD_IMAGES = {
    "NaN": (torch.full((4, 3, 28, 28), float("nan")), "NaN"),
    "infinity": (torch.full((4, 3, 28, 28), float("inf")), "infinity"),
    "shape": (torch.zeros(4, 1, 28, 28), "must be"),
    "range": (torch.full((4, 3, 28, 28), 200.0), "scale them"),
    "dtype": (torch.zeros(4, 3, 28, 28, dtype=torch.uint8), "127.5"),
    "empty": (torch.zeros(0, 3, 28, 28), "at least one"),
    "one image": (torch.zeros(1, 3, 28, 28), "at least two|more than"),
    "not a tensor": ([1.0], "not a tensor"),
}


@pytest.mark.parametrize("fault", BAD_IMAGES)
def test_bad_images_are_named_in_one_sentence(fault):
    images, message = BAD_IMAGES[fault]
    for metric in (fid, precision_recall):
        with pytest.raises(MetricError, match=message) as error:
            metric(images, noise(10), judge=TinyJudge())
        assert str(error.value).count(". ") == 0
        assert str(error.value).endswith(".")


def test_a_single_nan_is_located():
    images = noise(9)
    images[5, 0, 3, 3] = float("nan")
    with pytest.raises(MetricError, match="1 of 9 images, first at index 5"):
        nearest_training_neighbour(images, noise(9), judge=TinyJudge())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_moments(torch.zeros(1, 3)), "too few"),
        (lambda: gaussian_moments(torch.zeros(3)), "shape"),
        (lambda: gaussian_moments(torch.zeros(3, 2, dtype=torch.int64)), "float"),
        (lambda: gaussian_moments(torch.full((3, 2), float("nan"))), "NaN"),
        (lambda: fid(torch.zeros(3, 2), torch.zeros(3, 4)), "same judge"),
        (lambda: precision_recall(torch.zeros(3, 2), torch.zeros(3, 4)), "same judge"),
        (lambda: precision_recall(torch.zeros(3, 2), torch.zeros(3, 2), k=3), "more than 3"),
        (lambda: bootstrap_interval(torch.zeros(0)), "at least one"),
        (lambda: bootstrap_interval(torch.tensor([float("nan")])), "NaN"),
        (lambda: bootstrap_interval(torch.ones(3), level=1.5), "level"),
        (
            lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(3), torch.eye(3)),
            "one F",
        ),
        (
            lambda: frechet_distance(
                torch.zeros(2), torch.eye(2) * float("nan"), torch.zeros(2), torch.eye(2)
            ),
            "cov1",
        ),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(MetricError, match=message):
        call()
