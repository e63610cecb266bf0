import pytest
import torch
from inductive import check_inductive

from serendifflib.errors import ModelError
from serendifflib.recommender import (
    Recommender,
    check_request,
    check_scores,
)

HISTORIES = torch.tensor([[0, 1, 2], [3, 4, 5]])
CANDIDATES = torch.tensor([[6, 7, 1], [8, 9, 2]])


def test_a_good_request_passes():
    check_request("M", HISTORIES, CANDIDATES, 9)


@pytest.mark.parametrize(
    ("histories", "candidates", "message"),
    [
        ([[0, 0]], [[1]], "empty history"),
        ([[1, 0]], [[1]], "pad on the left"),
        ([[0, 10]], [[1]], "unknown item in the history"),
        ([[0, 1]], [[1, 0]], "padding id 0 among the candidates"),
        ([[0, 1]], [[1, 10]], "unknown item in the candidates"),
        ([[0, 1]], [[1, -2]], "unknown item in the candidates"),
        ([[0, 1]], [[1], [2]], "one row each"),
    ],
)
def test_bad_requests_name_the_model(histories, candidates, message):
    with pytest.raises(ModelError, match=f"^Some model: .*{message}"):
        check_request(
            "Some model",
            torch.tensor(histories),
            torch.tensor(candidates),
            9,
        )


def test_the_row_is_named():
    candidates = CANDIDATES.clone()
    candidates[1, 2] = 0
    with pytest.raises(ModelError, match="row 1:"):
        check_request("M", HISTORIES, candidates, 9)


def test_float_and_flat_ids_are_refused():
    with pytest.raises(ModelError, match="whole numbers"):
        check_request("M", HISTORIES.float(), CANDIDATES, 9)
    with pytest.raises(ModelError, match="whole numbers"):
        check_request("M", HISTORIES, CANDIDATES[0], 9)


def test_nan_scores_raise_and_good_scores_come_back():
    scores = torch.tensor([[1.0, -torch.inf], [0.0, 2.0]])
    assert check_scores("M", scores) is scores
    scores[1, 0] = torch.nan
    with pytest.raises(ModelError, match="^M: row 1: NaN"):
        check_scores("M", scores)


class _LastItem:
    """Score = -|candidate - last item|, plus what a test adds."""

    name = "last item"

    def fit(self, fold, *, generator):
        return self

    def score(self, histories, candidates):
        return -(candidates - histories[:, -1:]).abs().float()


class _SeesBatch(_LastItem):
    def score(self, histories, candidates):
        return super().score(histories, candidates) + len(histories)


class _SeesPlace(_LastItem):
    def score(self, histories, candidates):
        place = torch.arange(candidates.shape[1])
        return super().score(histories, candidates) + place


class _SeesPadding(_LastItem):
    def score(self, histories, candidates):
        return super().score(histories, candidates) * histories.shape[1]


def test_the_inductive_rule():
    assert isinstance(_LastItem(), Recommender)
    check_inductive(_LastItem(), HISTORIES, CANDIDATES)
    for model, message in [
        (_SeesBatch(), "other rows"),
        (_SeesPlace(), "order of the candidates"),
        (_SeesPadding(), "padding on the left"),
    ]:
        with pytest.raises(ModelError, match=message):
            check_inductive(model, HISTORIES, CANDIDATES)
