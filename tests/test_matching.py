"""Matching: a network comes to draw another's pictures, survives a kill, refuses what cannot be."""

from __future__ import annotations

import pytest
import torch

from fastgen_course.models.generator import Generator, GeneratorConfig
from fastgen_course.training.matching import MatchRecipe, MatchTrainer, relative_error

SMALL = GeneratorConfig(noise=4, caption=8, channels=(8, 8, 4))


def network(seed: int, config: GeneratorConfig = SMALL) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config)


def trainer(judge, steps=120, **fields):
    recipe = MatchRecipe(steps=steps, batch=8, rate=5e-3, average=0.9, **fields)
    return MatchTrainer("match_test", network(1), network(2), recipe, judge)


def apart(one, other) -> float:
    noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(5))
    words = torch.randint(1, 20, (64, 12), generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        return relative_error(one.eval()(noise, words), other(noise, words)).item()


def test_the_matched_network_draws_the_originals_pictures(judge, folder):
    training = trainer(judge, steps=300)
    before = apart(network(1), training.original)
    after = apart(training.run(quiet=True), training.original)
    assert before > 0.9
    assert after < 0.5 * before


def test_a_network_that_is_the_original_is_at_no_distance(judge, folder):
    recipe = MatchRecipe(steps=2, batch=8)
    same = MatchTrainer("match_test", network(2).eval(), network(2), recipe, judge)
    same.model.eval()
    assert same.loss().item() < 1e-9


def test_a_killed_matching_goes_on_to_the_same_weights(judge, folder):
    whole = trainer(judge, steps=20).run(quiet=True).state_dict()
    first = trainer(judge, steps=20)
    first.training.steps = 12
    first.training.run(first.step, quiet=True)
    first.training.save()
    resumed = trainer(judge, steps=20).run(quiet=True).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_the_judge_is_spared_where_its_features_weigh_nothing(judge, folder):
    training = trainer(judge, steps=2, features=0.0)
    assert training.lesson()[3] is None
    assert training.run(quiet=True) is training.average.model


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}, {"features": -1.0}, {"average": 1.0}]
)
def test_a_recipe_names_the_field_that_is_out_of_range(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        MatchRecipe(**fields)


def test_networks_of_different_noise_cannot_be_matched(judge):
    other = network(1, GeneratorConfig(noise=5, caption=8, channels=(8, 8, 4)))
    with pytest.raises(ValueError, match="noise is 5"):
        MatchTrainer("match_test", other, network(2), MatchRecipe(steps=2), judge)
