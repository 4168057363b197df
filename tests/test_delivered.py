"""What is scored are the bytes that a reader gets."""

from __future__ import annotations

import torch

from fastgen_course.metrics.delivered import FIGURES, delivered_quality
from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.sampling.one_step import sample_generator
from fastgen_course.show import to_uint8


def test_quality_is_of_the_bytes_that_are_delivered():
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(channels=(4, 4, 4))).eval()

    def draw(captions, generator):
        return to_uint8(sample_generator(model, captions, generator=generator))

    found = delivered_quality(draw, n=60, n_held_out=20, seeds=(0, 1))
    assert set(found) == set(FIGURES)
    assert all(len(values) == 2 for values in found.values())
    assert found["fid"][0] > 50
    assert found == delivered_quality(draw, n=60, n_held_out=20, seeds=(0, 1))
