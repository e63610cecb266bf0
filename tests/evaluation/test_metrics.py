"""Metrics: by hand, against scikit-learn, and their properties."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import ndcg_score

from serendifflib.errors import ConfigError, DataError, ModelError
from serendifflib.evaluation import metrics


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_ranks_by_hand():
    scores = torch.tensor(
        [[0.1, 0.4, 0.3], [5.0, -1.0, 2.0], [-math.inf, 0.0, math.inf]]
    )
    positive = torch.tensor([1, 1, 0])
    found = metrics.ranks(scores, positive, generator=seeded())
    assert found.tolist() == [1, 3, 3]
    assert found.dtype == torch.int64


def test_metrics_by_hand():
    ranks = torch.tensor([1, 2, 5, 6, 11])
    assert metrics.hit_ratio(ranks, 1).tolist() == [1, 0, 0, 0, 0]
    assert metrics.hit_ratio(ranks, 5).tolist() == [1, 1, 1, 0, 0]
    assert metrics.hit_ratio(ranks, 10).tolist() == [1, 1, 1, 1, 0]
    expected = [1, 1 / math.log2(3), 1 / math.log2(6), 0, 0]
    assert metrics.ndcg(ranks, 5).tolist() == pytest.approx(expected)
    found = metrics.summary(ranks)
    assert list(found) == list(metrics.METRICS)
    assert found["H@10"] == pytest.approx(0.8)
    assert found["N@5"] == pytest.approx(sum(expected) / 5)


def test_constant_scorer_hits_k_over_c():
    cases, width = 20_000, 1_000
    scores = torch.zeros(1, 1).expand(cases, width)
    positive = torch.arange(cases) % width
    found = metrics.ranks(scores, positive, generator=seeded(3))
    assert int(found.min()) == 1 and int(found.max()) == width
    for k in (10, 100, 500):
        share = float(metrics.hit_ratio(found, k).mean())
        error = math.sqrt(k / width * (1 - k / width) / cases)
        assert abs(share - k / width) < 4 * error


def test_ties_move_only_within_the_tied_block():
    scores = torch.tensor([[3.0, 2.0, 2.0, 2.0, 1.0]]).repeat(3_000, 1)
    found = metrics.ranks(scores, torch.full((3_000,), 2), generator=seeded(1))
    counts = torch.bincount(found, minlength=6)[1:]
    assert counts[0] == counts[4] == 0
    assert all(850 < int(c) < 1_150 for c in counts[1:4])


def test_draws_at_both_ends_stay_in_the_block():
    ties = torch.arange(5_000)
    above = torch.full((5_000,), 4)
    for draw, expected in [(0.0, above + 1), (1 - 2.0**-53, 5 + ties)]:
        uniform = torch.full((5_000,), draw, dtype=torch.float64)
        found = metrics.place_among_ties(above, ties, uniform)
        assert torch.equal(found, expected)


def test_same_seed_same_ranks():
    scores = torch.zeros(50, 20)
    positive = torch.zeros(50, dtype=torch.int64)
    one = metrics.ranks(scores, positive, generator=seeded(5))
    two = metrics.ranks(scores, positive, generator=seeded(5))
    other = metrics.ranks(scores, positive, generator=seeded(6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_nan_names_model_and_case():
    scores = torch.zeros(3, 4)
    scores[1, 2] = math.nan
    with pytest.raises(ModelError, match=r"Wobbly: NaN .* case 1"):
        positive = torch.zeros(3, dtype=torch.int64)
        metrics.rank_counts(scores, positive, model_name="Wobbly")


@pytest.mark.parametrize("column", [-1, 4])
def test_column_outside_is_refused(column):
    with pytest.raises(DataError, match="outside"):
        metrics.ranks(
            torch.zeros(1, 4), torch.tensor([column]), generator=seeded()
        )


@pytest.mark.parametrize("k", [0, -3, 1.5, True])
def test_bad_cutoff(k):
    with pytest.raises(ConfigError, match="cut-off"):
        metrics.hit_ratio(torch.tensor([1]), k)


def test_bad_ranks():
    with pytest.raises(DataError, match="start at 1"):
        metrics.ndcg(torch.tensor([0, 2]), 5)
    with pytest.raises(DataError, match="whole numbers"):
        metrics.hit_ratio(torch.tensor([1.0]), 5)
    with pytest.raises(DataError, match="no test case"):
        metrics.summary(torch.tensor([], dtype=torch.int64))


def test_eq12_by_hand_with_two_positives():
    # gains at places 2 and 4; ideal at 1 and 2
    reached = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3)
    found = metrics.ndcg_at_k([0, 1, 0, 1, 0], 5)
    assert float(found) == pytest.approx(reached / ideal)
    # cut at 3: the second positive is lost, the ideal is not
    found = metrics.ndcg_at_k([0, 1, 0, 1, 0], 3)
    assert float(found) == pytest.approx(1 / math.log2(3) / ideal)


def test_eq12_without_gain_is_zero_and_negative_gain_refused():
    assert metrics.ndcg_at_k([[0, 0], [0, 1]], 1).tolist() == [0, 0]
    with pytest.raises(DataError):
        metrics.ndcg_at_k([0, -1], 1)
    with pytest.raises(DataError):
        metrics.ndcg_at_k([0, math.nan], 1)


@settings(max_examples=60, deadline=None)
@given(
    gains=arrays(np.int64, (3, 12), elements=st.integers(0, 4)),
    k=st.integers(1, 15),
)
def test_eq12_equals_scikit_learn(gains, k):
    found = metrics.ndcg_at_k(torch.from_numpy(gains), k)
    order = np.arange(12, 0, -1.0)[None]  # the ranking is the column order
    for row, value in zip(gains, found, strict=True):
        # scikit-learn's gain is linear: hand it 2^g - 1
        reference = ndcg_score(2.0 ** row[None] - 1, order, k=k)
        assert float(value) == pytest.approx(reference, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rank=st.integers(1, 60), k=st.integers(1, 60))
def test_single_positive_form_equals_eq12(rank, k):
    gains = torch.zeros(60)
    gains[rank - 1] = 1
    short = metrics.ndcg(torch.tensor([rank]), k)
    assert float(short) == pytest.approx(float(metrics.ndcg_at_k(gains, k)))


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 1_000), min_size=1, max_size=20),
    k=st.integers(1, 999),
)
def test_bounded_and_monotone_in_k(ranks, k):
    places = torch.tensor(ranks)
    for metric in (metrics.hit_ratio, metrics.ndcg):
        now, next_ = metric(places, k), metric(places, k + 1)
        assert ((now >= 0) & (now <= 1)).all()
        assert (next_ >= now).all()
    assert (metrics.ndcg(places, k) <= metrics.hit_ratio(places, k)).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10))
def test_candidate_order_changes_nothing(data, seed):
    values = data.draw(
        arrays(np.float64, (4, 9), elements=st.integers(0, 5).map(float))
    )
    order = np.array(data.draw(st.permutations(range(9))))
    column = data.draw(st.integers(0, 8))
    positive = torch.full((4,), column)
    moved = torch.full((4,), int(np.flatnonzero(order == column)[0]))
    one = metrics.ranks(
        torch.from_numpy(values), positive, generator=seeded(seed)
    )
    two = metrics.ranks(
        torch.from_numpy(values[:, order]), moved, generator=seeded(seed)
    )
    assert torch.equal(one, two)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_increasing_map_of_scores_changes_nothing(seed):
    scores = torch.randn(5, 30, generator=seeded(seed), dtype=torch.float64)
    positive = torch.arange(5)
    one = metrics.ranks(scores, positive, generator=seeded())
    two = metrics.ranks(3 * scores - 7, positive, generator=seeded())
    assert torch.equal(one, two)


def test_docstring_examples():
    found = doctest.testmod(metrics)
    assert found.attempted >= 5 and found.failed == 0
