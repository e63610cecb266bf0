"""Prototypes and memberships: by hand, by their properties, no label."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from serendifflib.portrait import items as rooms
from serendifflib.portrait.items import join, memberships, prototypes


def clusters(count, each, spread, width=16, seed=0):
    """Unit vectors around random directions; row 0 is padding."""
    source = torch.Generator().manual_seed(seed)
    middles = F.normalize(torch.randn(count, width, generator=source), dim=1)
    cluster = torch.arange(count).repeat_interleave(each)
    noise = spread * torch.randn(len(cluster), width, generator=source)
    vectors = F.normalize(middles[cluster] + noise, dim=1)
    return torch.cat([torch.zeros(1, width), vectors]), cluster.numpy()


def test_memberships_by_hand():
    # two prototypes, east and north, eight items each: all lie as far from
    # the mean membership, which is one half
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    vectors = torch.stack([torch.zeros(2)] + 8 * [east] + 8 * [north])
    shares = memberships(vectors, 2)
    assert sorted(shares[1].tolist()) == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert torch.equal(shares[1], shares[8])
    assert torch.allclose(shares[16], shares[1].flip(0))
    assert (shares[0] == 0).all()


def test_memberships_are_centred_and_of_mean_square_length_one():
    vectors, cluster = clusters(12, 20, 0.1)
    shares = memberships(vectors, 12)
    assert shares.shape == (241, 12)
    assert torch.allclose(shares[1:].mean(0), torch.zeros(12), atol=1e-6)
    assert shares[1:].square().sum(1).mean() == pytest.approx(1.0, abs=1e-5)
    found = shares[1:].argmax(1).numpy()
    assert adjusted_rand_score(cluster, found) == 1.0


def test_what_is_no_item_has_no_membership_and_moves_no_prototype():
    vectors, _ = clusters(4, 20, 0.1)
    more = torch.cat([vectors, torch.zeros(5, 16)])
    shares = memberships(more, 4)
    assert (shares[81:] == 0).all()
    assert torch.equal(shares[:81], memberships(vectors, 4))


def test_there_are_eight_items_to_a_prototype():
    vectors, _ = clusters(5, 8, 0.5)
    assert memberships(vectors, 100).shape == (41, 5)
    few = memberships(vectors[:4], 100)
    assert few.shape == (4, 1) and torch.isfinite(few).all()
    alone = memberships(vectors[:2], 100)
    assert alone.shape == (2, 1) and torch.isfinite(alone).all()


def test_the_tree_finds_what_a_random_start_misses():
    from sklearn.cluster import KMeans

    vectors, cluster = clusters(60, 16, 0.1, seed=3)
    known = vectors[1:].double().numpy()
    centres = prototypes(known, 60)
    found = (known @ centres.T / np.linalg.norm(centres, axis=1)).argmax(1)
    plain = KMeans(60, n_init=1, random_state=0).fit(known).labels_
    assert adjusted_rand_score(cluster, found) > 0.99
    assert adjusted_rand_score(cluster, plain) < 0.95


def test_a_sample_stands_for_a_large_catalogue(monkeypatch):
    vectors, cluster = clusters(6, 60, 0.1)
    whole = memberships(vectors, 6)
    monkeypatch.setattr(rooms, "TREE_ITEMS", 90)
    sampled = memberships(vectors, 6)
    assert torch.equal(sampled, memberships(vectors, 6))
    for shares in (whole, sampled):
        found = shares[1:].argmax(1).numpy()
        assert adjusted_rand_score(cluster, found) == 1.0


def test_vectors_and_memberships_weigh_the_same():
    vectors, _ = clusters(4, 20, 0.1)
    shares = memberships(vectors, 4)
    both = join(vectors, shares)
    assert both.shape == (81, 20)
    assert both[1:].square().sum(1).mean() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(both[:, :16] * 2**0.5, vectors)
    assert torch.allclose(both[:, 16:] * 2**0.5, shares)


def test_without_prototypes_the_vectors_are_left_alone():
    vectors, _ = clusters(4, 20, 0.1)
    none = memberships(vectors, 0)
    assert none.shape == (81, 0)
    assert join(vectors, none) is vectors
