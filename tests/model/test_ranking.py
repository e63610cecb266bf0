"""Ranking a catalogue at once equals matching its items one by one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serendifflib.errors import ConfigError
from serendifflib.model import ranking
from serendifflib.model.matching import MATCHES, match
from serendifflib.model.ranking import score_catalogue, top_items


def world(seed, users=3, items=40, width=6, side=4):
    generator = torch.Generator().manual_seed(seed)
    generated = torch.randn(users, width, side, side, generator=generator)
    vectors = torch.randn(items, width, generator=generator)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    vectors[0] = 0.0  # an item without reviews
    cells = torch.randint(0, side, (users, items, 2), generator=generator)
    flat = cells[..., 0] * side + cells[..., 1]
    return generated, vectors, cells, flat.to(torch.int16)


@pytest.mark.parametrize("how", MATCHES)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 20),
    items=st.integers(1, 60),
    side=st.integers(1, 6),
)
def test_the_catalogue_is_matched(how, seed, users, items, side):
    generated, vectors, cells, flat = world(seed, users, items, side=side)
    found = score_catalogue(generated, vectors, flat, how)
    everything = vectors.expand(users, -1, -1)
    wanted = match(generated, everything, cells, how)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 2**31))
def test_dense_and_sampled_products_are_one(seed):
    generated, vectors, _, flat = world(seed)
    points = generated.flatten(2).transpose(1, 2).contiguous()
    torch.testing.assert_close(
        ranking._sampled_products(points, vectors, flat),
        ranking._all_products(points, vectors, flat),
        rtol=1e-5,
        atol=1e-5,
    )


def test_another_cell_gives_another_score():
    generated, vectors, _, flat = world(0)
    before = score_catalogue(generated, vectors, flat, "field")
    flat[1, 7] = (flat[1, 7] + 1) % 16
    after = score_catalogue(generated, vectors, flat, "field")
    changed = (before != after).nonzero().tolist()
    assert changed == [[1, 7]]


@pytest.mark.parametrize("how", MATCHES)
def test_the_best_items_come_first(how):
    generated, vectors, _, flat = world(2, users=11)
    scores = score_catalogue(generated, vectors, flat, how)
    best = top_items(generated, vectors, flat, how, 5)
    assert best.shape == (11, 5)
    for row, chosen in zip(scores, best, strict=True):
        assert row[chosen].tolist() == sorted(row.tolist())[:-6:-1]


def test_nobody_asks():
    generated, vectors, _, flat = world(0)
    nobody = generated[:0], vectors, flat[:0], "field"
    assert score_catalogue(*nobody).shape == (0, 40)
    assert top_items(*nobody, 3).shape == (0, 3)


def test_what_cannot_be_asked():
    generated, vectors, _, flat = world(0)
    with pytest.raises(ConfigError, match="unknown matching 'cosine'"):
        score_catalogue(generated, vectors, flat, "cosine")
    for k in (0, 41):
        with pytest.raises(ConfigError, match=r"k must be in 1\.\.40"):
            top_items(generated, vectors, flat, "field", k)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)
@pytest.mark.parametrize("how", MATCHES)
def test_cuda_ranks_like_the_processor(how):
    generated, vectors, _, flat = world(3)
    here = score_catalogue(generated, vectors, flat, how)
    there = score_catalogue(
        generated.cuda(), vectors.cuda(), flat.cuda(), how
    ).cpu()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
