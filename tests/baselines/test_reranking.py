"""Greedy re-ranking by hand, with a ranker whose scores are known."""

import numpy as np
import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.ranker import MMR, SOG, SetRanker
from serendifflib.baselines.trainer import Budget

from .conftest import seeded
from .hand import make_fold

HALF = 0.5**0.5
# a and b at east, c between east and north, d at south, e at north
PLANE = torch.tensor(
    [[0, 0], [1, 0], [1, 0], [HALF, HALF], [0, -1], [0, 1]]
).float()
A, B, C, D, E = range(1, 6)


SCORES = 1.0, 0.9, 0.5, 0.4, 0.0  # of a, b, c, d, e


def order(model, trade, items=(A, B, C, D, E), history=(A,), scores=SCORES):
    """The items in the order of a re-ranker's scores."""
    rated = torch.tensor([[scores[item - 1] for item in items]])
    found = model.pick(
        rated, torch.tensor([history]), torch.tensor([items]), trade
    )
    return [items[n] for n in found[0].argsort(descending=True)]


@pytest.fixture
def mmr():
    model = MMR()
    model.points = PLANE
    return model


def test_without_a_trade_the_ranker_decides(mmr):
    assert order(mmr, 0.0) == [A, B, C, D, E]


def test_mmr_puts_the_double_last(mmr):
    # after a (1.0): b 0.45 + 0, c 0.25 + 0.15, d 0.2 + 0.5, e 0 + 0.5;
    # after d: e 0 + 0.5, b 0.45, c 0.4; after e: b 0.45, c 0.25 + 0.15
    assert order(mmr, 0.5) == [A, D, E, B, C]


def test_the_order_in_which_candidates_are_listed_does_not_matter(mmr):
    assert order(mmr, 0.5, (E, C, D, B, A)) == [A, D, E, B, C]


def test_only_the_first_are_picked_anew(mmr):
    mmr.length = 2  # a and b
    assert order(mmr, 0.9) == [A, B, C, D, E]


def test_sog_wants_what_is_neither_listed_nor_met():
    model = SOG()
    model.shares = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    ).float()
    # history a: gains of c, d, e are 1 + 1, of a and b 1 + 0.
    # a 0.5 + 0.5, b 0.45 + 0.5, c 0.25 + 1, d 0.2 + 1, e 0 + 1; after c
    # d 1.2, then a 1.0; e's prototype is listed but not met: 0 + 0.5
    assert order(model, 0.5) == [C, D, A, E, B]


def test_the_trade_is_chosen_on_validation(monkeypatch):
    known = torch.tensor([0.0, *SCORES, -1.0])
    monkeypatch.setattr(
        SetRanker, "score_batch", lambda self, h, candidates: known[candidates]
    )
    vectors = torch.cat([PLANE, PLANE[A : A + 1]])

    def build(self, fold, _):
        self.points = vectors  # not centred
        return SetRanker._build(self, fold, vectors)

    monkeypatch.setattr(MMR, "_build", build)
    fold = make_fold(
        ["abE", "cdfB", "aD"], train=[0, 1], valid=[2], vectors=vectors
    )
    # d comes third, after b and c, and second when variety counts
    model = MMR(budget=Budget(0, 0), trades=(0.0, 0.5))
    assert model.fit(fold, generator=seeded()).chosen == {"trade": 0.5}
    assert MMR(budget=Budget(0, 0)).option("trade") == 0.0


@pytest.mark.parametrize("kind", [MMR, SOG])
def test_over_a_real_ranker(kind, tiny_fold):
    budget = Budget(
        pretrain_steps=0, max_steps=5, batch_size=8, eval_every=5,
        valid_candidates=50,
    )  # fmt: skip
    options = dict(budget=budget, prototypes=10)
    model = kind(**options).fit(tiny_fold, generator=seeded())
    assert model.chosen["trade"] in model.trades
    model.chosen = {"trade": 0.2}
    histories = tiny_fold.test.histories[:4]
    items = torch.arange(1, 101).expand(4, -1)
    check_inductive(model, histories, items)
    ranker = SetRanker(**options).fit(tiny_fold, generator=seeded())
    plain = ranker.score(histories, items)
    behind = np.arange(model.length, 100)
    for ours, theirs in zip(model.score(histories, items), plain, strict=True):
        after = ours.argsort(descending=True)
        before = theirs.argsort(descending=True)
        assert after[behind].tolist() == before[behind].tolist()
        assert sorted(after[:50].tolist()) == sorted(before[:50].tolist())
