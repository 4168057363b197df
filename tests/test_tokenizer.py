"""Pictures as words: the quantisers' mathematics, the grid of words, what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from fastgen_course.models.tokenizer import (
    FSQ,
    EMACodebook,
    GradientCodebook,
    Pieces,
    Tokenizer,
    TokenizerConfig,
    move_codes,
    nearest_code,
    perplexity,
    straight_through,
)

TINY = TokenizerConfig(codes=20, dim=3, width=8, deep=8)


def _vectors(n=200, dim=3, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_nearest_code_agrees_with_all_distances():
    z, codebook = _vectors(50).view(5, 10, 3), 3 * _vectors(20, seed=1)
    expected = torch.cdist(z.reshape(-1, 3), codebook).argmin(1).view(5, 10)
    assert torch.equal(nearest_code(z, codebook), expected)
    assert len(expected.unique()) > 3  # long codes are not simply always chosen


def test_straight_through_has_the_codes_value_and_hands_the_gradient_on():
    z, z_q = _vectors(6, seed=2).requires_grad_(), _vectors(6, seed=3).requires_grad_()
    out = straight_through(z, z_q)
    assert torch.allclose(out, z_q)
    out.pow(2).sum().backward()
    # The gradient is the loss's gradient at z_q, not at z, and none of it reaches z_q.
    assert torch.allclose(z.grad, 2 * z_q.detach(), atol=1e-6)
    assert not torch.allclose(z.grad, 2 * z.detach(), atol=0.1)
    assert z_q.grad is None


def test_move_codes_without_memory_is_one_step_of_k_means():
    z, codes = _vectors(500), _vectors(8, seed=5)
    tokens = nearest_code(z, codes)
    counts, sums, moved = move_codes(torch.ones(8), codes.clone(), z, tokens, decay=0.0)
    theirs, assigned = kmeans2(z.double().numpy(), codes.double().numpy(), 1, minit="matrix")
    assert np.array_equal(assigned, tokens.numpy())
    assert np.allclose(moved.numpy(), theirs, atol=1e-5)
    assert torch.equal(counts, torch.bincount(tokens, minlength=8).float())
    assert torch.allclose(sums, moved * counts[:, None], atol=1e-4)


def test_move_codes_converges_to_the_mean_of_all_vectors_not_of_batch_means():
    # One vector at 10 in every other batch, nine at 0 in the rest: the mean is 1, not 5.
    counts, sums, step = torch.ones(1), torch.zeros(1, 1), []
    for i in range(6000):
        z = torch.full((1, 1), 10.0) if i % 2 else torch.zeros(9, 1)
        tokens = torch.zeros(len(z), dtype=torch.int64)
        counts, sums, codes = move_codes(counts, sums, z, tokens, 0.999)
        step.append(codes.item())
    assert np.mean(step[-100:]) == pytest.approx(1.0, abs=0.02)


def test_dead_codes_restart_at_vectors_of_the_batch():
    torch.manual_seed(0)
    book = EMACodebook(TINY, decay=0.0).train()
    book.codebook[:5] += 100.0  # nobody will choose these
    z = _vectors(400).view(4, 10, 10, 3)
    book(z)
    flat = z.reshape(-1, 3)
    distances = torch.cdist(book.codebook[:5], flat).min(1).values
    assert torch.equal(distances, torch.zeros(5))
    assert (book.counts > 0).all()
    kept = EMACodebook(TINY, decay=0.0, restart_below=0.0).train()
    kept.codebook[:5] += 100.0
    kept(z)
    assert (kept.counts[:5] == 0).all()


def test_codebooks_move_in_training_mode_only():
    torch.manual_seed(0)
    book = EMACodebook(TINY)
    before, z = book.codebook.clone(), _vectors(100)[None]
    book.eval()(z)
    assert torch.equal(book.codebook, before)
    book.train()(z)
    assert not torch.equal(book.codebook, before)


def test_losses_of_the_two_codebooks():
    torch.manual_seed(0)
    z = _vectors(100).requires_grad_()
    for book in (GradientCodebook(TINY), EMACodebook(TINY).eval()):
        quantized = book(z)
        error = (z - book.codebook[quantized.tokens]).square().mean().item()
        codebook_term = isinstance(book, GradientCodebook)
        assert quantized.loss.item() == pytest.approx((codebook_term + 0.25) * error, rel=1e-5)
    book = GradientCodebook(TINY)
    quantized = book(z)
    quantized.loss.backward()
    # A code is pulled towards the mean of the vectors that chose it.
    word = int(quantized.tokens[0])
    mine = z.detach()[quantized.tokens == word]
    pull = (2 / z.numel()) * (len(mine) * book.codebook[word] - mine.sum(0))
    assert torch.allclose(book.codebook.grad[word], pull, atol=1e-6)


@pytest.mark.parametrize("levels", [(8, 8, 8), (5, 4), (3,), (7, 5, 5, 5)])
def test_fsq_numbers_every_code_once(levels):
    codes = math.prod(levels)
    fsq = FSQ(TokenizerConfig(quantizer="fsq", codes=codes, dim=len(levels), levels=levels))
    tokens = torch.arange(codes)
    vectors = fsq.lookup(tokens)
    assert len(vectors.unique(dim=0)) == codes
    # Levels of one number are evenly spaced, and its inputs reach exactly these.
    wide = torch.linspace(-20, 20, 4001)[:, None].expand(-1, len(levels))
    found = fsq(wide)
    for i, level in enumerate(levels):
        assert torch.allclose(found.vectors[:, i].unique(), vectors[:, i].unique(), atol=1e-6)
        assert len(vectors[:, i].unique()) == level
    assert torch.allclose(fsq.lookup(found.tokens), found.vectors, atol=1e-6)
    assert int(found.tokens.min()) == 0
    assert int(found.tokens.max()) == codes - 1


def test_fsq_gradient_is_the_bounds():
    fsq = FSQ(TokenizerConfig(quantizer="fsq", codes=512, dim=3))
    z = _vectors(20).requires_grad_()
    fsq(z).vectors.sum().backward()
    expected = torch.autograd.functional.jacobian(lambda v: fsq.bound(v).sum(), z.detach()) / 4
    assert torch.allclose(z.grad, expected, atol=1e-6)


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "fsq"])
@pytest.mark.parametrize("side", [7, 4])
def test_words_and_back(quantizer, side):
    torch.manual_seed(0)
    extra = {"codes": 64, "dim": 2, "levels": (8, 8)} if quantizer == "fsq" else {"codes": 64}
    config = TokenizerConfig(quantizer=quantizer, side=side, width=8, deep=8, **extra)
    model = Tokenizer(config).eval()
    images = torch.rand(3, 3, 28, 28) * 2 - 1
    tokens = model.encode(images)
    assert tokens.shape == (3, side**2)
    assert tokens.dtype == torch.int64
    with torch.no_grad():
        painted, quantized = model(images)
        assert torch.equal(quantized.tokens.flatten(1), tokens)
        # decode(encode(x)) is the forward pass, clamped.
        assert torch.allclose(model.decode(tokens), painted.clamp(-1, 1), atol=1e-5)


def test_words_stand_row_by_row():
    torch.manual_seed(0)
    model = Tokenizer(TINY).eval()
    # Two pictures that differ in the top right corner alone differ in words there alone.
    image = torch.rand(1, 3, 28, 28) * 2 - 1
    with torch.no_grad():
        grid = model.latents(image)
        one, last = grid[0, 0, 6], grid[0, 6, 0]
        tokens = model.encode(image)[0]
    assert tokens[6] == nearest_code(one, model.quantizer.codebook)
    assert tokens[42] == nearest_code(last, model.quantizer.codebook)


def test_a_readers_pieces_are_what_runs():
    calls = []

    def noted(name, fn):
        return lambda *args: calls.append(name) or fn(*args)

    pieces = Pieces(
        noted("nearest", nearest_code),
        noted("through", straight_through),
        noted("move", move_codes),
    )
    model = Tokenizer(TINY, pieces).train()
    model(torch.zeros(2, 3, 28, 28))
    assert sorted(calls) == ["move", "nearest", "through"]
    model.eval().encode(torch.zeros(1, 3, 28, 28))
    assert calls[-1] == "nearest"


def test_perplexity():
    assert perplexity(torch.arange(10), 512) == pytest.approx(10)
    assert perplexity(torch.zeros(9, dtype=torch.int64), 512) == pytest.approx(1)
    uneven = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(uneven, 4) == pytest.approx(math.exp(entropy))


def test_bad_input_is_refused_in_words():
    model = Tokenizer(TINY).eval()
    with pytest.raises(ValueError, match="must be \\(B, 49\\)"):
        model.decode(torch.zeros(1, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match="from 0 to 19; got 0 to 20"):
        model.decode(torch.tensor([[20] + [0] * 48]))
    with pytest.raises(ValueError, match="from 0 to 19; got -1 to 0"):
        model.decode(torch.tensor([[-1] + [0] * 48]))
    with pytest.raises(ValueError, match="no quantiser 'vq'"):
        TokenizerConfig(quantizer="vq")
    with pytest.raises(ValueError, match="side is 7 or 4"):
        TokenizerConfig(side=5)
    with pytest.raises(ValueError, match="make 512 codes of dimension 3"):
        TokenizerConfig(quantizer="fsq", dim=8)
