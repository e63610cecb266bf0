import functools

import numpy as np
import pytest
import torch

from serendifflib.baselines.desr import (
    DESR,
    DESRNetwork,
    direction,
    elasticity,
    squash,
)
from serendifflib.baselines.sampling import expected_share
from serendifflib.errors import ConfigError
from serendifflib.portrait.scores import CoOccurrence

from . import rivals
from .rivals import SHORT
from .toy import chance, hit_ratio, toy_fold

fit = functools.partial(rivals.fit, DESR)


def test_squash_keeps_the_direction():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    short = squash(x)
    assert torch.allclose(short[0], torch.tensor([3.0, 4.0]) * 5 / 26)
    assert not short[1].any()
    short.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_direction_drops_the_long_term_component():
    demand = torch.tensor([[1.0, 1.0]])
    long_term = torch.tensor([[2.0, 0.0]])
    r = 0.5**0.5
    for rho, expected in ((0.0, [r, r]), (0.5, [r / 2, r]), (1.0, [0.0, r])):
        found = direction(demand, long_term, torch.tensor([rho]))
        assert torch.allclose(found, torch.tensor([expected]), atol=1e-6)


def test_broad_users_are_elastic():
    weights = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    assert torch.allclose(
        elasticity(weights), torch.tensor([0.0, 1.0, 0.5]), atol=1e-6
    )


def test_one_capsule_is_a_sum():
    # with one capsule all routing weights are 1: v = squash(sum W e)
    items = torch.eye(3)
    network = DESRNetwork(items, torch.ones(3, 1), items[:1], 1, 10)
    with torch.no_grad():
        network.maps.copy_(torch.eye(3).unsqueeze(0))
    made, weights = network.capsules(torch.tensor([[0, 1, 2]]))
    # item 0 is padding and does not vote
    assert torch.allclose(made[0, 0], squash(torch.tensor([0.0, 1.0, 1.0])))
    assert torch.equal(weights, torch.ones(1, 3, 1))


def test_routing_agrees_with_a_plain_loop():
    torch.manual_seed(0)
    items = torch.randn(5, 4)
    network = DESRNetwork(items, torch.ones(5, 1), items[:1], 2, 10)
    history = [1, 3, 4]
    maps = network.maps.detach()
    votes = [[items[i] @ maps[j] for j in range(2)] for i in history]
    b = np.zeros((3, 2))
    for _ in range(3):
        c = np.exp(b) / np.exp(b).sum(1, keepdims=True)
        v = [
            squash(sum(float(c[i, j]) * votes[i][j] for i in range(3)))
            for j in range(2)
        ]
        used = c
        b = b + [
            [float(votes[i][j] @ v[j]) for j in range(2)] for i in range(3)
        ]
    made, weights = network.capsules(torch.tensor([history]))
    assert torch.allclose(made[0], torch.stack(v), atol=1e-5)
    assert np.allclose(weights[0].detach().numpy(), used, atol=1e-5)


def test_expected_share_by_hand():
    counts = CoOccurrence.fit(
        [np.array([1, 2]), np.array([1, 2]), np.array([3, 4])], 4
    )
    pool = np.array([1, 2, 3, 4])
    share = expected_share(counts, np.array([1]), pool, pool)
    # log p: 2 highest; 1 has only its background, larger than 3's and 4's
    assert share.tolist() == [0.5, 0.75, 0.0, 0.0]


def test_one_item_falls_back_to_the_long_term_vector():
    fold = toy_fold()
    model = fit(fold, SHORT)
    model.chosen = {"eta": 0.0, "kappa": 0.0}
    everything = torch.arange(1, 201).unsqueeze(0)
    scores = model.score(torch.tensor([[5]]), everything)
    _, long_term = model.network.long_term(torch.tensor([[5]]))
    expected = torch.cosine_similarity(long_term, model.network.items[1:])
    assert torch.allclose(scores[0], expected, atol=1e-5)


def test_next_items_need_no_labels():
    fold = toy_fold("next-item")
    model = fit(fold)
    assert len(model.report.stages) == 1
    assert hit_ratio(model, fold) > 5 * chance(fold)


def test_ids_are_refused():
    with pytest.raises(ConfigError, match="inputs='text'"):
        DESR(inputs="id")
