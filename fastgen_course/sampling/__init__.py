"""Noise and a caption in, images out: every sampler is a plain function of one signature."""

from fastgen_course.sampling.one_step import base_generator, draw, sample_generator

__all__ = ["base_generator", "draw", "sample_generator"]
