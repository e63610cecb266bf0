import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from serendifflib.errors import ConfigError
from serendifflib.portrait import scores as scores_room
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.scores import (
    CoOccurrence,
    MinMax,
    history_weights,
    relevance_catalogue,
    relevance_prefix,
)

N = 12


# The equations word by word, on dense tables and with loops.


def dense_pair(histories, mu, own=None):
    """p(i | j) for all i, j in 1..N, without the user who has ``own``."""
    histories = [set(h.tolist()) for h in histories]
    if own is not None:
        histories.remove(set(own.tolist()))
    count = np.zeros(N + 1)
    n = np.zeros((N + 1, N + 1))
    for history in histories:
        for i in history:
            count[i] += 1
            for j in history:
                if i != j:
                    n[i, j] += 1
    background = count + 1
    background[0] = 0
    background = background / background.sum()
    p = np.zeros((N + 1, N + 1))
    for i in range(N + 1):
        for j in range(1, N + 1):
            total = sum(n[k, j] for k in range(1, N + 1)) + mu
            p[i, j] = (n[i, j] + mu * background[i]) / total if total else 0
    return p, background


def dense_log(p, item, past, weights):
    """Eq. 14: log sum over h of p(i_h | T) p(i | i_h)."""
    total = sum(w * p[item, j] for w, j in zip(weights, past, strict=True))
    return np.log(total) if total > 0 else -np.inf


def random_histories(seed, users=9):
    random = np.random.default_rng(seed)
    return [
        random.choice(np.arange(1, N), random.integers(1, 7), replace=False)
        for _ in range(users)
    ]  # nobody has item N


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("kind", ["uniform", "recency"])
def test_sparse_counts_equal_the_equations(mu, leave_out, kind):
    for seed in range(4):
        histories = random_histories(seed)
        model = CoOccurrence.fit(histories, N, mu=mu)
        history = histories[seed]
        own = history if leave_out else None
        p, _ = dense_pair(histories, mu, own)
        weights = history_weights(len(history), kind)
        catalogue = model.log_catalogue(history, own=own, weights=weights[-1])
        assert catalogue.dtype == np.float64 and catalogue[0] == -np.inf
        expected = [
            dense_log(p, item, history, weights[-1])
            for item in range(1, N + 1)
        ]
        np.testing.assert_allclose(catalogue[1:], expected, atol=1e-9)
        prefix = model.log_prefix(history, own=own, weights=weights[:-1])
        assert np.isnan(prefix[0])
        expected = [
            dense_log(p, history[m], history[:m], weights[m, :m])
            for m in range(1, len(history))
        ]
        np.testing.assert_allclose(prefix[1:], expected, atol=1e-9)


def test_the_default_weights_are_uniform():
    histories = random_histories(5)
    model = CoOccurrence.fit(histories, N)
    history = histories[0]
    weights = history_weights(len(history), "uniform")
    np.testing.assert_array_equal(
        model.log_catalogue(history),
        model.log_catalogue(history, weights=weights[-1]),
    )
    np.testing.assert_allclose(
        model.log_prefix(history),
        model.log_prefix(history, weights=weights[:-1]),
        rtol=1e-13,
    )


def test_a_case_by_hand():
    """Three users on four items; Eq. 13 and 14 with pencil and paper."""
    model = CoOccurrence.fit(
        [np.array([1, 2]), np.array([1, 2, 3]), np.array([3])], 4, mu=1.0
    )
    # users of 1, 2, 3, 4: 2, 2, 2, 0; plus one each, over 10
    np.testing.assert_allclose(model.popularity, [0, 0.3, 0.3, 0.3, 0.1])
    # n(., 1) = 3: twice with 2, once with 3. T = (1), then T = (1, 3)
    prefix = np.exp(model.log_prefix(np.array([1, 3, 2])))
    p_3_given_1 = (1 + 0.3) / (3 + 1)
    p_2_given_1 = (2 + 0.3) / (3 + 1)
    p_2_given_3 = (1 + 0.3) / (2 + 1)
    assert prefix[1] == pytest.approx(p_3_given_1)
    assert prefix[2] == pytest.approx((p_2_given_1 + p_2_given_3) / 2)
    whole = np.exp(model.log_catalogue(np.array([1, 3])))
    assert whole[2] == pytest.approx(prefix[2])
    # the second user leaves: 1 and 2 co-occur once, 3 with nobody
    left = np.exp(model.log_prefix(np.array([1, 2]), own=np.array([3, 2, 1])))
    assert left[1] == pytest.approx((1 + 2 / 7) / (1 + 1))


def histories_of(max_users=6):
    history = st.lists(st.integers(1, N), min_size=1, max_size=6)
    return st.lists(history, min_size=1, max_size=max_users).map(
        lambda lists: [np.array(h) for h in lists]
    )


@settings(max_examples=60)
@given(histories_of(), st.floats(0.01, 50.0), st.data())
def test_p_given_an_item_sums_to_one(histories, mu, data):
    """For every j, its own (diagonal) share of the background included."""
    model = CoOccurrence.fit(histories, N, mu=mu)
    own = data.draw(st.sampled_from([None, *histories]))
    for j in range(1, N + 1):
        p = np.exp(model.log_catalogue(np.array([j]), own=own))
        assert p.sum() == pytest.approx(1.0, abs=1e-9)
        assert (p >= 0).all()


@settings(max_examples=60)
@given(histories_of(), histories_of(1), st.data())
def test_p_given_a_history_sums_to_one(histories, asked, data):
    """A history with repeated items, under any weights."""
    model = CoOccurrence.fit(histories, N)
    kind = data.draw(st.sampled_from(["uniform", "recency"]))
    weights = history_weights(len(asked[0]), kind)[-1]
    p = np.exp(model.log_catalogue(asked[0], weights=weights))
    assert p.sum() == pytest.approx(1.0, abs=1e-9)


def test_without_co_occurrence_only_the_background_is_left():
    alone = [np.array([1]), np.array([1]), np.array([2])]
    model = CoOccurrence.fit(alone, 3, mu=2.0)
    for history in ([1], [3], [1, 2, 3]):
        p = np.exp(model.log_catalogue(np.array(history)))
        np.testing.assert_allclose(p, model.popularity, atol=1e-12)
    np.testing.assert_allclose(model.popularity, [0, 3 / 6, 2 / 6, 1 / 6])
    # and leaving out the only user of item 2 takes its count away
    p = np.exp(model.log_catalogue(np.array([2]), own=np.array([2])))
    np.testing.assert_allclose(p, [0, 3 / 5, 1 / 5, 1 / 5], atol=1e-12)


def test_without_mass_what_never_co_occurs_has_no_probability():
    """Subtracting the own row may leave 1e-17: that is nothing as well."""
    random = np.random.default_rng(0)
    for _ in range(40):
        histories = [
            random.choice(np.arange(1, N), random.integers(1, 5), False)
            for _ in range(8)
        ]
        history = histories[0]
        model = CoOccurrence.fit(histories, N, mu=0.0)
        weights = history_weights(len(history), "recency")[-1]
        for own in (None, history):
            p, _ = dense_pair(histories, 0.0, own)
            scores = model.log_catalogue(history, own=own, weights=weights)
            np.testing.assert_array_equal(
                np.isfinite(scores[1:]), p[1:, history].any(axis=1)
            )


def test_more_mass_moves_towards_the_background():
    histories = random_histories(2)
    history = histories[3]
    last = np.inf
    for mu in (0.5, 1.0, 2.0, 4.0, 1e6):
        model = CoOccurrence.fit(histories, N, mu=mu)
        p = np.exp(model.log_catalogue(history))
        distance = np.abs(p - model.popularity).sum()
        assert distance < last
        last = distance
    assert last < 1e-4


@settings(max_examples=80)
@given(histories_of(), st.data())
def test_the_future_changes_no_score_of_the_past(histories, data):
    """Other later items of the user: nothing before them moves."""
    user = data.draw(st.integers(0, len(histories) - 1))
    history = histories[user]
    cut = data.draw(st.integers(1, len(history)))
    future = data.draw(st.lists(st.integers(1, N), max_size=4))
    other = np.array([*history[:cut], *future])
    changed = [*histories[:user], other, *histories[user + 1 :]]
    vectors = torch.from_numpy(random_vectors(0))
    one = CoOccurrence.fit(histories, N)
    two = CoOccurrence.fit(changed, N)
    # as a training user: the own row, future included, is not counted
    np.testing.assert_allclose(
        two.log_prefix(other, own=other)[1:cut],
        one.log_prefix(history, own=history)[1:cut],
        atol=1e-12,
    )
    # as a new user of the same counts
    np.testing.assert_allclose(
        one.log_prefix(other)[1:cut],
        one.log_prefix(history)[1:cut],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        relevance_prefix(other, vectors)[1:cut],
        relevance_prefix(history, vectors)[1:cut],
        atol=1e-6,
    )
    for kind in ("uniform", "recency", "similarity"):
        known = vectors.numpy()
        np.testing.assert_allclose(
            history_weights(len(other), kind, known[other])[: cut + 1, :cut],
            history_weights(len(history), kind, known[history])[
                : cut + 1, :cut
            ],
            atol=1e-9,
        )


def test_leaving_out_is_the_same_as_never_having_counted():
    histories = random_histories(7)
    for user, history in enumerate(histories):
        without = CoOccurrence.fit(histories[:user] + histories[user + 1 :], N)
        whole = CoOccurrence.fit(histories, N)
        np.testing.assert_allclose(
            whole.log_catalogue(history, own=history),
            without.log_catalogue(history),
            atol=1e-9,
        )


@settings(max_examples=40)
@given(histories_of(), st.randoms())
def test_the_order_of_training_users_changes_nothing(histories, random):
    shuffled = list(histories)
    random.shuffle(shuffled)
    one = CoOccurrence.fit(histories, N)
    two = CoOccurrence.fit(shuffled, N)
    np.testing.assert_array_equal(one.popularity, two.popularity)
    for history in histories:
        np.testing.assert_allclose(
            two.log_catalogue(history, own=history),
            one.log_catalogue(history, own=history),
            atol=1e-12,
        )
        np.testing.assert_allclose(
            two.log_prefix(history), one.log_prefix(history), atol=1e-12
        )


@settings(max_examples=40)
@given(histories_of())
def test_scores_are_log_probabilities(histories):
    model = CoOccurrence.fit(histories, N)
    for history in histories:
        for own in (None, history):
            prefix = model.log_prefix(history, own=own)
            catalogue = model.log_catalogue(history, own=own)
            assert np.isnan(prefix[0])
            assert (prefix[1:] <= 1e-12).all()
            assert np.isfinite(prefix[1:]).all()
            assert (catalogue[1:] <= 1e-12).all()
            assert np.isfinite(catalogue[1:]).all()


def test_the_catalogue_continues_the_prefix():
    """The next item's prefix score is its score in the catalogue."""
    histories = random_histories(3)
    model = CoOccurrence.fit(histories, N)
    history = np.array([4, 1, 9, 2])
    for cut in range(1, 4):
        assert model.log_prefix(history)[cut] == pytest.approx(
            model.log_catalogue(history[:cut])[history[cut]], abs=1e-12
        )


def test_a_repeated_row_is_counted_once():
    once = CoOccurrence.fit([np.array([1, 2])], N)
    twice = CoOccurrence.fit([np.array([1, 2, 1, 2, 2])], N)
    np.testing.assert_array_equal(
        once.log_catalogue(np.array([1])), twice.log_catalogue(np.array([1]))
    )


def test_a_negative_mass_is_refused():
    with pytest.raises(ConfigError, match="mu must not be negative"):
        CoOccurrence.fit([np.array([1])], N, mu=-0.1)


# ----------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["uniform", "recency", "similarity"])
def test_weights_of_every_prefix_sum_to_one(kind):
    for n in range(6):
        known = unit_rows(np.random.default_rng(n).normal(size=(n, 4)))
        weights = history_weights(n, kind, known)
        assert weights.shape == (n + 1, n)
        assert not weights[:1].any()
        np.testing.assert_allclose(weights[1:].sum(axis=1), 1.0)
        assert (weights >= 0).all()
        assert not np.triu(weights).any()  # nothing that comes later


def test_weights_by_hand():
    np.testing.assert_allclose(
        history_weights(2), [[0, 0], [1, 0], [0.5, 0.5]]
    )
    np.testing.assert_allclose(
        history_weights(3, "recency")[3],
        np.array([0.81, 0.9, 1.0]) / 2.71,
    )
    # two like items and a stray one: the stray one weighs least
    known = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    similarity = history_weights(3, "similarity", known)[3]
    cosines = np.array([2.0, 2.0, 1.0]) / 5**0.5
    expected = np.exp(cosines / 0.1) / np.exp(cosines / 0.1).sum()
    np.testing.assert_allclose(similarity, expected, atol=1e-9)


def test_unknown_weights_are_refused():
    with pytest.raises(ConfigError, match="'newest'.*uniform, recency"):
        history_weights(3, "newest")


# --------------------------------------------------------------- relevance


def random_vectors(seed, d=5):
    vectors = np.random.default_rng(seed).normal(size=(N + 1, d))
    vectors[0] = 0.0
    return unit_rows(vectors.astype(np.float32))


def test_relevance_is_the_largest_cosine_to_the_past():
    vectors = random_vectors(1)
    history = np.array([3, 7, 7, 1, 12])
    cosines = cosine_similarity(vectors)
    relevance = relevance_prefix(history, torch.from_numpy(vectors))
    assert relevance.dtype == np.float64 and np.isnan(relevance[0])
    for m in range(1, 5):
        expected = cosines[history[m], history[:m]].max()
        assert relevance[m] == pytest.approx(expected, abs=1e-6)
    assert relevance[2] == pytest.approx(1.0, abs=1e-6)  # seen before
    assert relevance_prefix(history[:1], torch.from_numpy(vectors)).shape == (
        1,
    )


@pytest.mark.parametrize("block", [1, 7, 8192])
def test_relevance_of_the_catalogue(block, monkeypatch):
    monkeypatch.setattr(scores_room, "BLOCK", block)
    vectors = random_vectors(2)
    history = np.array([5, 2, 9])
    relevance = relevance_catalogue(history, torch.from_numpy(vectors))
    expected = cosine_similarity(vectors)[:, history].max(axis=1)
    assert relevance[0] == -np.inf
    np.testing.assert_allclose(relevance[1:], expected[1:], atol=1e-6)


def test_min_max_scales_the_training_range_and_clips():
    scale = MinMax.fit(np.array([np.nan, 0.2, -0.3, 0.7, -np.inf]))
    assert (scale.low, scale.high) == (-0.3, 0.7)
    np.testing.assert_allclose(
        scale.apply(np.array([-0.3, 0.2, 0.7, -5.0, 5.0])),
        [0.0, 0.5, 1.0, 0.0, 1.0],
    )
    assert np.isnan(scale.apply(np.array([np.nan])))[0]


@pytest.mark.parametrize(
    "values", [np.zeros(0), np.array([np.nan]), np.full(3, 0.4)]
)
def test_min_max_of_nothing_or_of_one_value_is_finite(values):
    scaled = MinMax.fit(values).apply(np.array([0.0, 0.4, 1.0]))
    assert np.isfinite(scaled).all()
    assert ((scaled >= 0) & (scaled <= 1)).all()


def test_a_long_history_is_compared_in_blocks(monkeypatch):
    random = np.random.default_rng(0)
    vectors = torch.from_numpy(unit_rows(random.standard_normal((41, 5))))
    vectors[[0, 7]] = 0.0
    history = random.permutation(40) + 1
    whole = relevance_prefix(history, vectors)
    monkeypatch.setattr(scores_room, "ROWS", 8)
    blocks = relevance_prefix(history, vectors)
    np.testing.assert_allclose(blocks, whole, atol=1e-12)
    monkeypatch.setattr(scores_room, "LONG", 39)
    rough = relevance_prefix(history, vectors.float())
    np.testing.assert_allclose(rough, whole, atol=1e-6)
    for m in (1, 9, 39):  # by the definition
        past = [i for i in history[:m] if i != 7]
        best = max(float(vectors[history[m]] @ vectors[i]) for i in past)
        if history[m] != 7:
            assert whole[m] == pytest.approx(best, abs=1e-12)
    assert np.isnan(whole[history == 7]).all()
