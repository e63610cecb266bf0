"""The cases that everybody stops on, and their score."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serendifflib.diffusion import validation
from serendifflib.diffusion.validation import Validation, mean_ndcg
from serendifflib.errors import ModelError


def test_the_cases_are_the_same_for_everybody_and_clean(tiny_fold):
    first, again = (Validation.of(tiny_fold, n_candidates=50) for _ in "ab")
    assert torch.equal(first.candidates, again.candidates)
    assert first.candidates.shape == (len(tiny_fold.valid), 50)
    assert torch.equal(first.candidates[:, 0], tiny_fold.valid.targets)
    assert torch.equal(first.histories, tiny_fold.valid.histories)
    data = tiny_fold.interactions
    for row, user in zip(first.candidates, tiny_fold.valid.users, strict=True):
        own = set(data.item_index[data.rows(int(user))])
        assert len(own & set(row.tolist())) == 1  # the target alone
        assert len(set(row.tolist())) == 50
        assert not set(row.tolist()) & set(tiny_fold.missing_items)


def test_more_candidates_than_items_are_all_of_them(tiny_fold):
    found = Validation.of(tiny_fold, n_candidates=10_000)
    data = tiny_fold.interactions
    own = [
        len(set(data.item_index[data.rows(int(user))]))
        for user in tiny_fold.valid.users
    ]
    missing = len(tiny_fold.missing_items)
    assert found.candidates.shape[1] >= 200 - missing - max(own)


def test_pre_training_is_validated_on_next_items(tiny_fold):
    found = Validation.of(tiny_fold, kind="next-item", n_cases=4)
    data = tiny_fold.interactions
    labels = data.frame["label"].to_numpy()
    assert len(found) == 4
    users = set(tiny_fold.split.valid_users)
    for history, listed in zip(found.histories, found.candidates, strict=True):
        target = int(listed[0])
        rows = np.flatnonzero(data.item_index == target)
        rows = [r for r in rows if data.user_index[r] in users]
        assert any(labels[r] == 0 for r in rows)
        assert target not in history.tolist()


def test_ndcg_by_hand(monkeypatch):
    """Ranks 1, 3 and, where all are equal, 2.5 of four."""
    scores = torch.tensor([[4.0, 3, 2, 1], [2.0, 3, 4, 1], [7.0, 7, 7, 7]])
    gains = [1.0, 1 / math.log2(4), 1 / math.log2(3.5)]
    expected = (gains[0] + 1e-3 * sum(gains)) / 3
    monkeypatch.setattr(validation, "K", 2)
    assert mean_ndcg(scores) == pytest.approx(expected)
    cases = Validation(torch.ones(3, 1).long(), torch.arange(12).view(3, 4))
    table = dict(zip(cases.candidates[:, 0].tolist(), scores, strict=True))
    monkeypatch.setattr(validation, "BATCH", 2)
    found = cases.ndcg(
        lambda h, c: torch.stack([table[int(row[0])] for row in c])
    )
    assert found == pytest.approx(mean_ndcg(scores))


@given(value=st.floats(-1e6, 1e6), count=st.integers(30, 400))
def test_a_constant_scorer_stands_at_chance(value, count):
    """Before, it validated as perfect."""
    found = mean_ndcg(torch.full((5, count), value))
    assert found < 1e-3


def test_nan_is_an_error_and_no_rank():
    scores = torch.zeros(3, 4)
    scores[1, 2] = float("nan")
    with pytest.raises(ModelError, match="NaN among the scores"):
        mean_ndcg(scores)
    scores[1, 2] = -float("inf")  # cannot be recommended: a rank like others
    assert mean_ndcg(scores) > 0
