"""Training a tokenizer, what its words mean, and the comparison's records."""

from dataclasses import replace

import pytest
import torch

from fastgen_course.models.tokenizer import PIECES, Tokenizer, TokenizerConfig
from fastgen_course.training import tokenizer_records
from fastgen_course.training.loop import Training
from fastgen_course.training.tokenizer import (
    TOKENIZER_RECIPE,
    feature_distance,
    new_tokenizer,
    reconstruct,
    tokenizer_metrics,
    train_tokenizer,
)
from fastgen_course.training.tokenizer_words import (
    busy_squares,
    change_of_word,
    encode_all,
    explained_by_word,
    word_map,
    word_patches,
    word_places,
    word_shares,
)

SMALL = TokenizerConfig(codes=64, dim=4, width=12, deep=12)
RECIPE = replace(TOKENIZER_RECIPE, steps=25, batch=8, perceptual=0.0, refined=0, rate=3e-3)


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "fsq"])
def test_training_lowers_the_error(quantizer):
    grid = {"dim": 2, "levels": (8, 8)} if quantizer == "fsq" else {}
    config = replace(SMALL, quantizer=quantizer, **grid)
    model, training = train_tokenizer(config, RECIPE, quiet=True, log_every=5)
    mse = training.history["mse"]
    assert mse[-1] < 0.8 * mse[0]
    assert not model.training
    assert tokenizer_metrics(model, n=50)["mse"] < 2 * mse[-1]


def test_training_is_the_same_twice_and_uses_the_given_pieces():
    first, _ = train_tokenizer(SMALL, replace(RECIPE, steps=2), quiet=True)
    again, _ = train_tokenizer(SMALL, replace(RECIPE, steps=2), quiet=True)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    still = replace(PIECES, move=lambda counts, sums, z, tokens, decay: (counts, sums, sums))
    kept, _ = train_tokenizer(SMALL, replace(RECIPE, steps=2), pieces=still, quiet=True)
    fresh = new_tokenizer(SMALL, RECIPE.seed)
    assert torch.equal(kept.quantizer.codebook, fresh.quantizer.codebook)


def test_without_restarts_dead_codes_stay_dead():
    recipe = replace(RECIPE, steps=1, batch=4)
    for restarts, expected in ((True, 0.05), (False, 0.0)):
        model, _ = train_tokenizer(SMALL, recipe, restarts=restarts, quiet=True)
        assert model.quantizer.restart_below == expected


def test_feature_distance_is_zero_for_equal_pictures_alone():
    class Judge:
        def stage_outputs(self, images):
            return [images, images.mean(1)]

    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert feature_distance(Judge(), images, images).item() == 0
    near, far = (feature_distance(Judge(), images, images + d).item() for d in (0.1, 0.4))
    assert far == pytest.approx(4 * near, rel=1e-4)


def test_refinement_goes_on_where_the_first_part_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "fastgen_course.training.loop.data_path", lambda *parts: tmp_path / parts[-1]
    )
    recipe = replace(RECIPE, steps=2, refined=3)
    whole, training = train_tokenizer(SMALL, recipe, name="whole", quiet=True, log_every=1)
    assert training.history["slots"][:2] == [0, 0]
    assert min(training.history["slots"][2:]) > 0.5  # nats: nothing is legible yet
    # Killed in the refined part and resumed: the same weights.
    train = Training.run

    def killed(self, step_fn, **options):
        self.steps, wanted = 4, self.steps
        train(self, step_fn, **options)
        self.steps = wanted
        self.save()
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(SMALL, recipe, name="parts", quiet=True, log_every=1)
    monkeypatch.setattr(Training, "run", train)
    parts, _ = train_tokenizer(SMALL, recipe, name="parts", quiet=True, log_every=1)
    for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_reconstruct_is_encode_then_decode():
    model = new_tokenizer(SMALL, 0).eval()
    images = torch.rand(5, 3, 28, 28) * 2 - 1
    expected = model.decode(model.encode(images))
    assert torch.allclose(reconstruct(model, images, batch=2), expected, atol=1e-5)
    assert torch.equal(encode_all(model, images, batch=3), model.encode(images))


def test_shares_maps_and_places_of_words():
    tokens = torch.zeros(4, 49, dtype=torch.int64)
    tokens[0, 8] = tokens[0, 9] = tokens[1, 8] = tokens[3, 48] = 5
    shares = word_shares(tokens, 64)
    assert shares[5].item() == pytest.approx(4 / 196)
    assert shares.sum().item() == pytest.approx(1)
    where = word_map(tokens, 5)
    assert where[1, 1].item() == 0.5
    assert where[6, 6].item() == where[1, 2].item() == 0.25
    places = word_places(tokens, 5, limit=3)
    # One a picture while there are pictures, whatever the seed.
    assert sorted(places[:, 0].tolist()) == [0, 1, 3]
    assert len(word_places(tokens, 5, limit=9)) == 4
    assert len(word_places(tokens, 6, limit=9)) == 0


def test_patches_are_the_pixels_of_their_place():
    pixels = torch.arange(28.0)
    images = torch.stack([pixels[:, None].expand(28, 28), pixels.expand(28, 28)])[:, None]
    patches = word_patches(images, torch.tensor([[0, 7], [1, 6]]), side=7)  # row 1; column 6
    assert patches[0, 0, :, 0].tolist() == [4, 5, 6, 7]
    assert patches[1, 0, 0].tolist() == [24, 25, 26, 27]
    wide = word_patches(images, torch.tensor([[1, 6]]), side=7, margin=2)
    assert wide[0, 0, 0].tolist() == [22, 23, 24, 25, 26, 27, 27, 27]
    assert word_patches(images, torch.zeros(0, 2, dtype=torch.int64), 7).shape == (0, 1, 4, 4)


def test_change_of_word_is_zero_for_the_same_word_and_local():
    torch.manual_seed(0)
    model = Tokenizer(SMALL).eval()
    tokens = torch.randint(64, (1, 49))
    same = change_of_word(model, tokens, 24, tokens[0, 24:25])
    assert same.abs().max() == 0
    others = torch.tensor([w for w in range(64) if w != int(tokens[0, 24])])
    change = change_of_word(model, tokens, 24, others)
    assert change.shape == (28, 28)
    assert change[12:16, 12:16].mean() > 4 * change[:4].mean()


def test_explained_by_word():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(8, (40, 49), generator=generator)
    colours = torch.rand(8, 3, generator=generator)
    tiles = colours[tokens].view(40, 7, 7, 3).permute(0, 3, 1, 2)
    images = tiles.repeat_interleave(4, 2).repeat_interleave(4, 3)  # every word one flat colour
    assert explained_by_word(images, tokens, 8) == pytest.approx(1, abs=1e-5)
    shuffled = tokens[:, torch.randperm(49, generator=generator)]
    assert explained_by_word(images, shuffled, 8) < 0.05
    noise = images + images.std() * torch.randn(images.shape, generator=generator)
    assert explained_by_word(noise, tokens, 8) == pytest.approx(0.5, abs=0.05)
    # Only the first twenty pictures are noisy: a choice of places tells them apart.
    noise[20:] = images[20:]
    rows = torch.arange(40)[:, None].expand(-1, 49)
    clean = explained_by_word(noise, tokens, 8, rows >= 20)
    assert clean > 0.9 > explained_by_word(noise, tokens, 8, rows < 20)
    assert busy_squares(images, 7).sum() == 0
    images[3, :, 4:6, 8:12] += 0.5  # half of one square
    assert torch.nonzero(busy_squares(images, 7)).tolist() == [[3, 9]]


def test_records_refuse_an_unknown_name(capsys):
    assert tokenizer_records.main(["fid"]) == 2
    assert "choose from compare, quality" in capsys.readouterr().out


def test_variants_differ_in_what_they_say():
    variants = tokenizer_records.VARIANTS
    assert variants["ema_16"].config.tokens == 16
    assert {v.config.codes for v in variants.values()} == {512}
    assert not variants["ema_no_restarts"].restarts
    assert variants["ema_no_restarts"].config == variants["ema"].config


def test_scenes_of_captions_show_what_is_asked():
    captions = [
        "a large red boot on a white background, photo style",
        "nothing on a pale green background",
    ]
    attributes, images = tokenizer_records.scenes_of_captions(
        captions, "test", torch.Generator().manual_seed(0)
    )
    assert [y.garment for y in attributes] == ["boot", "nothing"]
    assert images.shape == (2, 3, 28, 28)
    corner, empty = images[0, :, 0, 0], images[1].flatten(1)
    assert corner.min() > 0.8  # white
    assert (empty.std(1) < 1e-4).all()
    assert empty[1, 0] > empty[0, 0]  # greener than red
