"""What 00 shows with: cold readings, sheets of scenes, FID's bias, two faults with one FID."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from fastgen_course.datasets.captions import Attributes
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.sheets import edit_targets, style_sheet
from fastgen_course.metrics import MetricError, frechet_distance, gaussian_moments
from fastgen_course.metrics.bias import SizeCurve, extrapolate, fid_by_size, gaussian_slope
from fastgen_course.metrics.faults import spoilt_to_fid
from fastgen_course.timing import MeasurementError
from fastgen_course.timing.cold import cold_readings
from fastgen_course.widgets.course_map import COURSE, course_map


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cold_readings_leave_the_setup_out():
    readings = cold_readings("import time; time.sleep(0.2)", "time.sleep(0.02)", repeats=2)
    assert len(readings) == 2
    assert min(readings) >= 19
    assert min(readings) < 200


def test_cold_readings_say_why_they_failed():
    with pytest.raises(MeasurementError, match="NameError"):
        cold_readings("pass", "nowhere()", repeats=1)
    with pytest.raises(MeasurementError, match="at least 1"):
        cold_readings("pass", "pass", repeats=0)
    with pytest.raises(MeasurementError, match="longer than"):
        cold_readings("import time", "time.sleep(9)", repeats=1, timeout_s=0.5)


def test_the_sheet_shows_every_garment_in_every_style_and_size():
    sheet = style_sheet()
    assert len(sheet.images) == 80
    assert len({(y.garment, y.style, y.size) for y in sheet.attributes}) == 80
    assert sheet.images.abs().max() <= 1


def test_edits_change_only_what_they_name():
    photo = load_fashion("test").images[0]
    y = Attributes("large", "red", "boot", "white", "photo")
    images, masks = edit_targets(photo, y, [{}, {"background": "black"}])
    assert torch.equal(images[0], images[1])
    changed = (images[0] != images[2]).any(0)
    assert changed.any()
    assert (images[0] - images[2]).abs().sum(0)[masks[0]].mean() < 0.2  # a soft edge alone
    with pytest.raises(ValueError, match="unknown"):
        edit_targets(photo, y, [{"background": "tartan"}])


def test_the_bias_of_gaussian_samples_is_what_the_formula_says():
    factor = torch.randn(6, 6, generator=_seeded(), dtype=torch.float64)
    x, y = torch.randn(2, 20_000, 6, generator=_seeded(1), dtype=torch.float64) @ factor.T
    curve = fid_by_size(x, y, (100, 200, 400), _seeded(2), repeats=400)
    limit, slope = extrapolate(curve)
    assert slope == pytest.approx(gaussian_slope(factor @ factor.T), rel=0.05)
    assert abs(limit) < 0.02 * curve.mean[0]
    assert curve.mean[0] > curve.mean[1] > curve.mean[2]


def test_the_unit_gaussians_slope_in_closed_form():
    assert gaussian_slope(torch.eye(16)) == pytest.approx(2 * 16 + (16 * 16 + 16) / 2)


def test_a_line_is_found_exactly_and_refused_where_there_is_none():
    n = (100, 300, 900)
    limit, slope = extrapolate(SizeCurve(n, tuple(3 + 50 / k for k in n), (0.0,) * 3))
    assert (limit, slope) == (pytest.approx(3), pytest.approx(50))
    with pytest.raises(MetricError, match="two different"):
        extrapolate(SizeCurve((100,), (3.0,), (0.0,)))
    with pytest.raises(MetricError, match="size 5 "):
        fid_by_size(torch.randn(50, 6), torch.randn(50, 6), (5,), _seeded())


def test_noise_pictures_are_mixed_in_until_the_fid_is_the_wanted_one():
    clean, reference = torch.randn(2, 1000, 5, generator=_seeded())
    broken = 4 + 0.1 * torch.randn(1000, 5, generator=_seeded(1))
    rows = spoilt_to_fid(clean, broken, reference, 1.0)
    moments = [gaussian_moments(x) for x in (torch.where(rows[:, None], broken, clean), reference)]
    assert frechet_distance(*moments[0], *moments[1]) == pytest.approx(1.0, rel=0.02)
    assert 0.02 < rows.float().mean() < 0.1
    assert rows[:500].sum() == pytest.approx(rows[500:].sum(), abs=1)
    with pytest.raises(MetricError, match="not between"):
        spoilt_to_fid(clean, broken, reference, 1e6)
    with pytest.raises(MetricError, match="one broken row"):
        spoilt_to_fid(clean, broken[:10], reference, 1.0)


def test_the_map_has_sixteen_notebooks_and_follows_the_order():
    assert [stop.number for stop in COURSE] == [f"{n:02}" for n in range(16)]
    assert [s.number for s in COURSE if not s.core] == ["05", "06", "07", "08", "14"]
    assert all(before < stop.number for stop in COURSE for before in stop.after)
    plt.close(course_map())
