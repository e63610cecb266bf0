"""The set ranker: arithmetic, sets, negatives, stages, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.ranker import (
    PER_USER,
    POOL,
    SetRanker,
    SetRankerNetwork,
)
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.portrait import cell_number

from .conftest import SMALL, seeded
from .hand import COMPASS, EAST, NORTH, SOUTH, WEST
from .toy import chance, hit_ratio, toy_fold

ENCODER = dict(width=2, side=2, layers=1, heads=1, dropout=0.0)


@pytest.fixture(scope="module")
def model(toy, grid):
    return SetRanker(budget=SMALL, grid=grid, width=32, lr=3e-3).fit(
        toy, generator=seeded()
    )


def test_scores_by_hand():
    network = SetRankerNetwork(COMPASS, **ENCODER)
    with torch.no_grad():
        network.item.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    users = torch.tensor([[[2.0, 1.0]]])
    biases = torch.tensor([[[0.0, 10.0, 20.0, 30.0]]])
    items = torch.tensor([[EAST, WEST, NORTH, SOUTH]])
    cells = torch.tensor([[0, 1, 2, 3]])
    found = network.rate(users, biases, items, cells)[0].tolist()
    root = 2**0.5  # items enter with length sqrt(d), u . k is over width 2
    expected = [root, 10 - root, 20 + 1.5 * root, 30 - 1.5 * root]
    assert found == pytest.approx(expected)


def test_several_answers_are_joined_by_log_sum_exp():
    network = SetRankerNetwork(COMPASS, answers=2, **ENCODER)
    with torch.no_grad():
        network.item.weight.copy_(torch.eye(2))
    root = 2**0.5
    users = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    biases = torch.tensor([[[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0]]])
    # east belongs in cell 1, north in cell 2; the others are hybrids
    items = torch.tensor([[EAST, NORTH, EAST, NORTH]])
    found = network.rate(users, biases, items, torch.tensor([[1, 2, 2, 1]]))
    right = np.logaddexp(2 * root + 9, 0.0)
    hybrid = np.logaddexp(2 * root, 9.0)
    expected = [right, right, hybrid, hybrid]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_ranker_of_several_answers_and_memberships(toy, grid):
    budget = dataclasses.replace(SMALL, max_steps=2)
    ranker = SetRanker(
        budget=budget, grid=grid, width=8, answers=3, prototypes=5
    ).fit(toy, generator=seeded())
    assert ranker.network.vectors.shape[1] == 16 + 5
    candidates = torch.randperm(200, generator=seeded())[:30] + 1
    check_inductive(ranker, toy.test.histories[:3], candidates.repeat(3, 1))


def test_a_portrait_is_a_set_and_padding_is_nothing():
    torch.manual_seed(0)
    options = dict(width=8, side=5, layers=2, heads=2, dropout=0.3)
    network = SetRankerNetwork(COMPASS, **options).eval()
    items = torch.tensor([[EAST, NORTH, SOUTH]])
    places = torch.rand(1, 3, 2)
    user, bias = network(items, places)
    order = [2, 0, 1]
    again = network(items[:, order], places[:, order])
    assert torch.allclose(again[0], user, atol=1e-5)
    padded = network(
        torch.cat([torch.zeros(1, 2).long(), items], 1),
        torch.cat([torch.rand(1, 2, 2), places], 1),
    )
    assert torch.allclose(padded[0], user, atol=1e-5)
    assert torch.equal(bias, torch.zeros(1, 1, 25))  # cells start alike
    moved = network(items, places.flip(1))
    assert not torch.allclose(moved[0], user, atol=1e-3)


def test_positions_are_those_of_the_portrait_space(
    toy, model, grid, monkeypatch
):
    seen, forward = [], model.network.forward

    def noting(items, positions):
        seen.append(positions)
        return forward(items, positions)

    monkeypatch.setattr(model.network, "forward", noting)
    histories = toy.test.histories[:3]
    model.score(histories, torch.tensor([[1, 2]] * 3))
    (found,) = seen
    for row, history in enumerate(histories):
        real = history[history > 0].numpy()
        expected = grid.space.positions(real)
        assert np.allclose(found[row, -len(real) :], expected, atol=1e-6)
        assert (found[row, : -len(real)] == 0).all()


@pytest.mark.parametrize("draw", ["uniform", "cells"])
def test_targets_first_and_negatives_are_not_the_users(toy, grid, draw):
    ranker = SetRanker(grid=grid, draw=draw)
    train, data = toy.train, toy.interactions
    placed = ranker.place_examples(toy, train, seeded())
    assert placed.items.shape == (len(train), 1 + POOL)
    assert torch.equal(placed.items[:, 0], train.targets)
    for m in range(len(train)):
        own = data.item_index[data.rows(int(train.users[m]))]
        assert not np.isin(placed.items[m, 1:], own).any()
        history = train.histories[m].numpy()
        everything = data.item_index[data.rows(int(train.users[m]))]
        cells = grid.look(history, own=everything).cells
        found = cell_number(placed.cells(grid.side)[m], grid.side)
        assert np.array_equal(found, cells[placed.items[m].numpy()])


def test_learns_the_partner_topic(toy, model):
    # cosine cannot: the labelled topic is not the user's own
    assert hit_ratio(model, toy) > 3 * chance(toy)


def test_knows_a_user_by_the_history_alone(toy, model):
    candidates = torch.randperm(200, generator=seeded())[:80] + 1
    check_inductive(model, toy.test.histories[:5], candidates.repeat(5, 1))


def test_keeps_the_best_state_of_validation(toy, model):
    (stage,) = model.report.stages
    assert stage.stage == "serendipity" and stage.examples == len(toy.train)
    best = max(stage.validations, key=lambda look: look[1])
    assert (stage.best_step, stage.best_value) == best
    # what it validated on, measured again from outside
    validation = Validation.of(toy, n_cases=24, n_candidates=100)
    again = validation.ndcg(model.score)
    assert again == pytest.approx(stage.best_value, abs=1e-6)


def test_pretrains_on_next_items_if_asked(toy, grid):
    budget = dataclasses.replace(SMALL, pretrain_steps=2, max_steps=2)
    ranker = SetRanker(budget=budget, grid=grid, width=8)
    ranker.fit(toy, generator=seeded())
    first, second = ranker.report.stages
    assert (first.stage, second.stage) == ("next-item", "serendipity")
    assert first.examples == PER_USER * len(toy.split.train_users)
    relevance = toy_fold("next-item")
    few = relevance.train.subset(np.arange(20))
    relevance = dataclasses.replace(relevance, train=few)
    alone = SetRanker(budget=budget, grid=grid, width=8)
    alone.fit(relevance, generator=seeded())
    assert [s.stage for s in alone.report.stages] == ["next-item"]
    assert alone.report.stages[0].examples == 20


def test_same_seed_same_model(toy, grid):
    budget = dataclasses.replace(SMALL, max_steps=3)
    items = torch.arange(1, 201).repeat(2, 1)

    def scores(seed):
        ranker = SetRanker(budget=budget, grid=grid, width=8)
        ranker.fit(toy, generator=seeded(seed))
        return ranker.score(toy.test.histories[:2], items)

    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))


def test_the_report_counts_what_was_trained(model):
    trained = sum(p.numel() for p in model.network.parameters())
    assert model.report.parameters == trained


def test_bad_requests_and_options(toy):
    with pytest.raises(ConfigError, match="Set ranker: unknown negatives"):
        SetRanker(draw="hard")
    with pytest.raises(ModelError, match="Set ranker: not fitted"):
        SetRanker().score(torch.tensor([[1]]), torch.tensor([[2]]))
