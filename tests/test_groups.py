"""Drawing in fixed groups: the order, the exact likelihood, and the training that climbs it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fastgen_course.datasets.captions import CaptionError, encode_words
from fastgen_course.models.judges import JudgeConfig, SlotJudge
from fastgen_course.models.masked import MaskedConfig, MaskedModel
from fastgen_course.models.tokenizer import Tokenizer, TokenizerConfig
from fastgen_course.sampling.groups import (
    draw_groups,
    group_log_likelihoods,
    groups_of,
    halton_order,
    hidden_before,
    step_of_place,
)
from fastgen_course.training import masked_groups
from fastgen_course.training.masked_groups import (
    Drawings,
    GroupsRecipe,
    batches_of,
    one_group_nats,
    train_groups,
)

TOY = MaskedConfig(width=16, layers=1, heads=2, image_tokens=4, codes=3)


def toy(config=TOY, seed=0, std=0.5):
    torch.manual_seed(seed)
    model = MaskedModel(config).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=std)
    return model


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_haltons_first_places_are_the_sequences():
    # In bases 2 and 3: (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), .. on a grid of 7.
    places = [(7 * x).__floor__() * 7 + (7 * y).__floor__() for x, y in
              ((1 / 2, 1 / 3), (1 / 4, 2 / 3), (3 / 4, 1 / 9), (1 / 8, 4 / 9))]  # fmt: skip
    assert list(halton_order(7)[:4]) == places
    for side in (1, 2, 4, 7):
        assert sorted(halton_order(side)) == list(range(side * side))


def test_a_groups_places_lie_apart():
    def nearest(places):
        spots = torch.tensor([(p // 7, p % 7) for p in places], dtype=torch.float)
        return (torch.cdist(spots, spots) + 99 * torch.eye(len(places))).min(1).values.mean()

    first = groups_of(49, 4)[1]
    rows = list(range(len(first)))
    assert nearest(first) > 1.3 * nearest(rows) == 1.3


@pytest.mark.parametrize("steps", range(1, 50))
def test_every_place_is_drawn_once_and_every_step_draws(steps):
    groups = groups_of(49, steps)
    assert len(groups) == steps and all(groups)
    assert sorted(itertools.chain(*groups)) == list(range(49))


@pytest.mark.parametrize(("tokens", "steps"), [(48, 4), (49, 0), (49, 50)])
def test_impossible_groups_are_refused(tokens, steps):
    with pytest.raises(ValueError, match=r"square|1 to 49"):
        groups_of(tokens, steps)


def test_hidden_is_what_this_step_and_later_ones_draw():
    groups = [[2], [0, 3], [1]]
    assert step_of_place(groups, 4).tolist() == [1, 2, 0, 1]
    hidden = hidden_before(groups, torch.tensor([0, 1, 2]), 4)
    assert hidden.tolist() == [[True] * 4, [True, True, False, True], [False, True, False, False]]


def test_likelihoods_sum_to_one_and_are_how_often_each_picture_is_drawn():
    model, caption = toy(seed=2), "a red boot"
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    exact = group_log_likelihoods(model, [caption] * 81, every, steps=2).sum(1).exp()
    assert float(exact.sum()) == pytest.approx(1, abs=1e-5)
    n = 20_000
    tokens = draw_groups(model, [caption] * n, generator=seeded(1), chunk=n, steps=2).tokens
    found = torch.bincount((tokens * 3 ** torch.arange(3, -1, -1)).sum(1), minlength=81) / n
    error = (exact * (1 - exact) / n).sqrt()
    assert ((found - exact).abs() <= 4.5 * error + 1e-6).all()
    # With another number of groups it is another distribution, so the test can tell.
    other = group_log_likelihoods(model, [caption] * 81, every, steps=1).sum(1).exp()
    assert ((found - other).abs() > 4.5 * error).any()


def test_one_forward_a_group_is_counted_and_watched():
    model, seen = toy(), []
    drawn = draw_groups(model, ["a red boot"], generator=seeded(2), steps=3, watch=seen.append)
    assert drawn.forwards == 3 and drawn.token_forwards == 3 * (3 + 4)
    assert [step.settled for step in seen] == [tuple(g) for g in groups_of(4, 3)]
    noise = torch.rand(1, 4, generator=seeded(2))
    again = draw_groups(model, ["a red boot"], noise, steps=3)
    assert torch.equal(again.tokens, drawn.tokens)
    with pytest.raises(CaptionError):
        draw_groups(model, ["a red qwertyuiop"])


def test_one_group_estimates_the_whole_pictures_nats():
    model = toy()
    words = encode_words(["a red boot"]).expand(3000, -1)
    tokens = torch.tensor([[0, 2, 1, 1]]).expand(3000, -1)
    with torch.no_grad():
        found = one_group_nats(model, words, tokens, groups_of(4, 3), seeded(3))
    exact = -group_log_likelihoods(model, ["a red boot"], tokens[:1], steps=3).sum() / 4
    assert found.std() > 0.01  # it is an estimate
    assert float(found.mean()) == pytest.approx(
        float(exact), abs=4 * float(found.std()) / math.sqrt(3000)
    )


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(1)
    tokenizer = Tokenizer(TokenizerConfig(codes=8, dim=4, width=12, deep=12)).eval()
    judge = SlotJudge(JudgeConfig(channels=(8, 8, 8), features=8)).eval()
    words = encode_words(["a red boot", "a blue bag"])
    asked = torch.tensor([[-1, 0, 9, -1, -1], [-1, 4, 8, -1, -1]])
    # One caption is always all zeros, the other all fives: easily learnt.
    tokens = torch.stack([torch.zeros(49, dtype=torch.int64), torch.full((49,), 5)])
    return Drawings(words, asked, tokens), tokenizer, judge


def small():
    return toy(MaskedConfig(width=16, layers=1, heads=2, codes=8), std=0.02)


def test_imitation_learns_what_the_teacher_drew(parts):
    recipe = GroupsRecipe(steps=150, rewarded=0, batch=16, rate=1e-2)
    model, training = train_groups(small(), *parts, recipe, quiet=True, log_every=10)
    assert training.history["nats"][0] > 1.5 > 0.3 > training.history["nats"][-1]
    for caption, token in (("a red boot", 0), ("a blue bag", 5)):
        drawn = draw_groups(model, [caption] * 100, generator=seeded(4)).tokens
        assert (drawn == token).float().mean() > 0.9


def test_the_reward_is_climbed(parts, monkeypatch):
    """The judge's place is taken by the share of threes, which the teacher draws by chance."""
    (words, asked, _), tokenizer, judge = parts
    # Of chance tokens there is nothing to imitate that the reward would have to fight against.
    tokens = torch.randint(8, (64, 49), generator=seeded(2))
    drawings = Drawings(words.repeat(32, 1), asked.repeat(32, 1), tokens)
    painted = []
    monkeypatch.setattr(type(tokenizer), "decode", lambda self, t: painted.append(t) or t)
    monkeypatch.setattr(
        masked_groups, "caption_certainty", lambda judge, t, asked: (t == 3).float().mean(1)
    )
    recipe = GroupsRecipe(
        steps=0, rewarded=120, batch=2, captions=2, drawn=8, rewarded_rate=1e-2, weight=200.0
    )
    _, training = train_groups(small(), drawings, tokenizer, judge, recipe, quiet=True)
    rewards = training.history["reward"]
    assert rewards[0] < 0.3 and rewards[-1] > 0.7
    assert painted[0].shape == (16, 49)


def test_a_killed_training_goes_on_where_it_stood(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fastgen_course.training.loop.data_path", lambda *parts: tmp_path.joinpath(*parts)
    )
    (tmp_path / "runs").mkdir()
    recipe = GroupsRecipe(steps=6, rewarded=4, batch=4, captions=1, drawn=2)
    whole, _ = train_groups(small(), *parts, recipe, quiet=True)

    class Killed(Exception):
        pass

    real = masked_groups.cosine_with_warmup

    def kill_at_eight(index, *rest):
        if rest[0] == recipe.rewarded and index == 2:
            raise Killed
        return real(index, *rest)

    monkeypatch.setattr(masked_groups, "cosine_with_warmup", kill_at_eight)
    monkeypatch.setattr(masked_groups.Training, "save_every_s", -1.0, raising=False)
    with pytest.raises(Killed):
        train_groups(small(), *parts, recipe, name="kill", quiet=True)
    monkeypatch.setattr(masked_groups, "cosine_with_warmup", real)
    again, training = train_groups(small(), *parts, recipe, name="kill", quiet=True)
    assert training.step == 10
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_batches_hold_whole_rows(parts):
    batch = next(batches_of(parts[0], 20, seeded(5)))
    for words, tokens in zip(batch.words, batch.tokens, strict=True):
        which = 0 if torch.equal(words, parts[0].words[0]) else 1
        assert torch.equal(tokens, parts[0].tokens[which])
