"""A generator's whole report, from captions to scores, with a tiny model and a tiny judge."""

import torch

from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.training.evaluate import evaluate_generator


def test_a_generator_is_scored_by_the_same_report(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = SlotJudge(JudgeConfig(channels=(4, 6), convolutions=(1, 1), features=8)).eval()
        model = Generator(GeneratorConfig(noise=4, caption=6, channels=(4, 3, 2))).eval()
    report = evaluate_generator(
        model=model, judge=judge, seeds=(0,), n=40, n_held_out=10, copy_captions=1
    )
    assert report.drawn.accuracies.exact.count == 40
    assert report.drawn.fid.mean > report.real.fid.mean
