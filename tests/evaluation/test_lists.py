"""Measures of lists: by hand, by libraries, by a world that knows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import entropy

from serendifflib.data.splits import user_folds
from serendifflib.data.world import World
from serendifflib.errors import DataError
from serendifflib.evaluation.lists import (
    ListMeasures,
    calibration,
    intra_list_distance,
    novelty,
    zone_coverage,
)
from serendifflib.portrait.fold import prepare_fold

N, G = 30, 4


@pytest.fixture
def lists():
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(N)[:10] + 1 for _ in range(6)])


def unit_vectors(seed=1, width=5):
    vectors = np.random.default_rng(seed).normal(size=(N + 1, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0.0
    return vectors


def test_coverage_counts_each_zone_once():
    zones = np.array([[-1, 0, 0, 1, 2, -1], [-1, -1, -1, -1, -1, -1]])
    lists = np.array([[1, 2, 4], [1, 2, 4]])
    assert zone_coverage(lists, zones, 4).tolist() == [0.5, 0.0]


def test_the_oracle_of_a_forked_world_covers_more_than_one_zone():
    world = World("forked", n_users=60, n_items=300, seed=3)
    users = range(20)
    zones = np.stack([world.zone_items(user) for user in users])
    best = np.stack(
        [np.argsort(-world.oracle_scores(user))[:10] for user in users]
    )
    one = np.stack(  # who answers with one bridge has one zone
        [np.flatnonzero(zones[user] == 2)[:1].repeat(10) for user in users]
    )
    bridges = world.law.bridges
    assert zone_coverage(one, zones, bridges) == pytest.approx(1 / bridges)
    assert zone_coverage(best, zones, bridges).mean() > 2 / bridges


def test_calibration_is_the_divergence_of_scipy(lists):
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.ones(G), N + 1)
    shares[0] = 0.0
    histories = np.array([[0, 0, 1, 2, 3]] * 6)
    p = shares[[1, 2, 3]].mean(axis=0)
    expected = [
        entropy(p, 0.99 * shares[row].mean(axis=0) + 0.01 * p) for row in lists
    ]
    found = calibration(histories, lists, shares)
    assert found == pytest.approx(expected)


def test_calibration_of_a_list_without_the_groups_of_the_history():
    shares = np.array([[0, 0], [1, 0], [0, 1]])
    # log(1 / 0.01): finite, for the history is mixed in
    found = calibration(np.array([[1, 1]]), np.array([[2, 2]]), shares)
    assert found == pytest.approx(np.log(100))


def test_distance_is_that_of_scipy(lists):
    vectors = unit_vectors()
    expected = [pdist(vectors[row], "cosine").mean() for row in lists]
    assert intra_list_distance(lists, vectors) == pytest.approx(expected)


@given(st.permutations(range(1, 11)))
def test_the_order_of_a_list_does_not_matter(order):
    vectors, one = unit_vectors(), np.arange(1, 11)[None]
    other = np.array([order])
    assert intra_list_distance(one, vectors) == pytest.approx(
        intra_list_distance(other, vectors)
    )
    counts = np.arange(N + 1)
    assert novelty(one, counts, N) == pytest.approx(novelty(other, counts, N))


def test_novelty_by_hand():
    counts = np.array([0, 8, 2, 0])
    # 0, 2 and, for nobody counts as one, 3 bits
    assert novelty(np.array([[1, 2, 3]]), counts, 8) == pytest.approx(5 / 3)
    with pytest.raises(DataError, match="count each user once"):
        novelty(np.array([[1]]), counts, 4)


def recommended(lists):
    """Lists as the frame that RecTools reads."""
    users, ranks = np.indices(lists.shape)
    return pd.DataFrame(
        {
            "user_id": users.ravel(),
            "item_id": lists.ravel(),
            "rank": ranks.ravel() + 1,
        }
    )


@pytest.mark.slow
def test_rectools_finds_the_same(lists):
    """RecTools 0.19: its intra-list diversity and inverse user frequency."""
    metrics = pytest.importorskip(
        "rectools.metrics", reason="RecTools is not installed"
    )
    vectors = unit_vectors()
    features = pd.DataFrame(vectors[1:], index=np.arange(1, N + 1))

    class Cosines:
        def __getitem__(self, pairs):
            one, other = (
                features.loc[list(side)].to_numpy() for side in pairs
            )
            return 1.0 - (one * other).sum(axis=1)

    theirs = metrics.IntraListDiversity(10, Cosines()).calc_per_user(
        recommended(lists)
    )
    assert intra_list_distance(lists, vectors) == pytest.approx(
        theirs.to_numpy()
    )
    met = np.random.default_rng(3).random((9, N + 1)) < 0.3
    met[:, 0] = False
    users, items = np.nonzero(met)
    frame = pd.DataFrame({"user_id": users, "item_id": items})
    theirs = metrics.MeanInvUserFreq(10).calc_per_user(
        recommended(lists), frame
    )
    ours = novelty(lists, met.sum(axis=0), frame["user_id"].nunique())
    assert ours == pytest.approx(theirs.to_numpy())


@pytest.fixture(scope="module")
def forked_fold(word_encoder):
    world = World("forked", n_users=60, n_items=300, seed=3, bridges=2)
    data = world.interactions()
    split = user_folds(data, 3, seed=0)[0]
    return prepare_fold(data, split, encoder=word_encoder)


def test_all_measures_of_a_fold(forked_fold):
    measures = ListMeasures.of(forked_fold)
    test = forked_fold.test
    world = forked_fold.interactions.world
    best = np.stack(
        [np.argsort(-world.oracle_scores(u))[:10] for u in test.users]
    )
    found = measures.per_case(best, test)
    assert {name: len(values) for name, values in found.items()} == (
        dict.fromkeys(
            ["calibration", "distance", "novelty", "zones"], len(test)
        )
    )
    zones = world.zone_items(int(test.users[0]))
    seen = set(zones[best[0]].tolist()) - {-1}
    assert found["zones"][0] == len(seen) / 2
    # nobody of the test users is counted
    assert measures.n_users == len(forked_fold.split.train_users)
    assert (found["calibration"] > 0).all()


def test_no_case_and_no_bridges(forked_fold, tiny_fold):
    measures = ListMeasures.of(forked_fold)
    nobody = forked_fold.test.subset([])
    none = measures.per_case(np.zeros((0, 10), dtype=int), nobody)
    assert all(len(values) == 0 for values in none.values())
    plain = ListMeasures.of(tiny_fold)
    lists = np.tile(np.arange(1, 11), (len(tiny_fold.test), 1))
    assert "zones" not in plain.per_case(lists, tiny_fold.test)
