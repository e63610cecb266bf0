"""Diffusion over points: parts by hand, its start, and that it learns."""

import numpy as np
import pytest
import torch

from serendifflib.baselines.points import (
    PointDiffusion,
    PointNetwork,
    typical_means,
)
from serendifflib.baselines.trainer import Budget
from serendifflib.diffusion.unet import typical_mean
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.grid import Grid
from serendifflib.recommender import check_inductive

from .hand import COMPASS, EAST, NORTH, SOUTH, WEST
from .toy import chance, hit_ratio, toy_fold

SMALL = Budget(
    pretrain_steps=0,
    max_steps=60,
    batch_size=32,
    eval_every=20,
    patience=3,
    valid_cases=24,
    valid_candidates=100,
)
NONE = Budget(pretrain_steps=0, max_steps=0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def toy():
    return toy_fold()


@pytest.fixture(scope="module")
def grid(toy):
    return Grid.of(toy)


@pytest.fixture(scope="module")
def model(toy, grid):
    return PointDiffusion(budget=SMALL, grid=grid, hidden=32).fit(
        toy, generator=seeded()
    )


@pytest.fixture(scope="module")
def start(toy, grid):
    return PointDiffusion(budget=NONE, grid=grid, hidden=32).fit(
        toy, generator=seeded()
    )


def test_the_typical_mean_by_hand_and_as_the_portraits():
    # mean of (E, E, N) is (2, 1) / 3: cosines 2 / sqrt 5 and 1 / sqrt 5
    histories = torch.tensor([[0, EAST, EAST, NORTH]])
    found = typical_means(histories, COMPASS, COMPASS)[0]
    gap = float(np.exp((1 - 2) / 5**0.5 / 0.1))
    expected = torch.tensor([2.0, gap]) / (2.0 + gap)
    assert torch.allclose(found, expected, atol=1e-5)
    # each item in a cell of its own: the same weights as the U-Net's
    portrait = torch.zeros(1, 2, 2, 2)
    portrait[0, :, 0, 0] = COMPASS[EAST]
    portrait[0, :, 1, 1] = COMPASS[NORTH]
    counts = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(typical_mean(portrait, counts)[0], found, atol=1e-5)


def test_features_by_hand():
    shares = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    network = PointNetwork(COMPASS, shares, 4, 0.0)
    network.place_middle.copy_(torch.tensor([1.0, 0.0]))
    network.place_spread.copy_(torch.tensor([2.0, 1.0]))
    made = torch.tensor([[3.0, 5.0, 7.0, 11.0, 13.0]])
    items = torch.tensor([[WEST, NORTH]])
    place = torch.tensor([[[5.0, 2.0], [1.0, -1.0]]])
    found = network.features(made, items, place)[0]
    for row, item in enumerate((WEST, NORTH)):
        inner = float((COMPASS[item] * made[0, :2]).sum())
        first = (float(place[0, row, 0]) - 1.0) / 2.0
        second = float(place[0, row, 1])
        expected = [
            inner,
            float(shares[item, 0]) * 7.0,
            first,
            first**2,
            first * 11.0,
            second,
            second**2,
            second * 13.0,
        ]
        assert found[row].tolist() == pytest.approx(expected)


def test_the_start_is_the_ridge_regression(toy, start):
    from sklearn.linear_model import Ridge

    network = start.network
    points = network.points * network.scale
    users = typical_means(toy.train.histories, network.vectors, points)
    strength = 3.0 * float(users.square().sum(1).mean())
    wanted = points[toy.train.targets].numpy()
    expected = Ridge(alpha=strength).fit(users.numpy(), wanted)
    found = network.start_vector
    assert np.allclose(found.weight.detach(), expected.coef_, atol=1e-4)
    assert np.allclose(found.bias.detach(), expected.intercept_, atol=1e-4)
    # an untrained correction is zero, whatever the noise
    user = torch.randn(3, users.shape[1] + 7, generator=seeded())
    x = torch.randn(3, points.shape[1] + 2, generator=seeded(1))
    t = torch.tensor([0, 500, 999])
    assert torch.equal(network(x, t, user), network.start(user))
    assert start.report.steps == 0


def test_the_place_of_candidates_is_that_of_the_portrait_space(toy, grid):
    histories = toy.test.histories[:3]
    items = torch.tensor([[5, 1, 9]]).repeat(3, 1)
    placed = grid.place(histories, items)
    assert grid.place(histories, items) is placed  # asked for once
    for row, history in enumerate(histories.numpy()):
        real = history[history > 0]
        assert np.allclose(placed.past[row], grid.space.positions(real))
        for axis, expected in enumerate(grid.space.catalogue_scores(real)):
            assert np.allclose(
                placed.scores[row, :, axis], expected[items[row]], atol=1e-6
            )


def test_a_training_users_own_rows_do_not_count(toy, grid):
    items = toy.train.targets.numpy()[:, None]
    placed = grid.place_training(toy, toy.train, items)
    own = toy.training_items[int(toy.train.users[0])]
    history = toy.train.histories[0].numpy()
    history = history[history > 0]
    with_own, without = (
        grid.space.catalogue_scores(history, own=rows)[0][items[0, 0]]
        for rows in (None, own)
    )
    assert placed.scores[0, 0, 0] == pytest.approx(without, abs=1e-12)
    assert abs(with_own - without) > 1e-6


def test_learns_the_partner_topic(toy, model, start):
    assert hit_ratio(start, toy) > 3 * chance(toy)
    assert hit_ratio(model, toy) > 3 * chance(toy)


def test_training_never_ends_worse_on_validation_than_its_start(model):
    stage = model.report.stages[0]
    assert stage.best_value >= stage.values[0]


def test_knows_a_user_by_the_history_alone(toy, model):
    candidates = torch.arange(1, 21).expand(4, -1).contiguous()
    check_inductive(model, toy.test.histories[:4], candidates)


def test_the_same_generator_gives_the_same_model(toy, grid, model):
    again = PointDiffusion(budget=SMALL, grid=grid, hidden=32).fit(
        toy, generator=seeded()
    )
    histories = toy.test.histories[:3]
    items = torch.arange(1, 31).expand(3, -1).contiguous()
    assert torch.equal(
        again.score(histories, items), model.score(histories, items)
    )


def test_noise_calls_and_draws_count_once_the_network_has_learned(toy, grid):
    model = PointDiffusion(budget=NONE, grid=grid, hidden=32).fit(
        toy, generator=seeded()
    )
    histories = toy.test.histories[:2]
    items = torch.tensor([[1, 30, 60], [2, 40, 80]])
    model.draws = 2
    untrained = model.score(histories, items)
    model.sampler, model.calls = "ddim", 5
    # the start does not look at x_t: any sampler ends in the same point
    assert torch.allclose(model.score(histories, items), untrained, atol=1e-3)
    weight = model.network.out.weight
    torch.nn.init.normal_(weight, std=0.1, generator=seeded())
    learned = model.score(histories, items)
    assert not torch.allclose(learned, untrained, atol=1e-2)
    assert torch.equal(model.score(histories, items), learned)
    model.calls = 10
    assert not torch.equal(model.score(histories, items), learned)


def test_refuses_what_it_cannot_do(toy, model):
    with pytest.raises(ConfigError, match="unknown sampler"):
        PointDiffusion(sampler="euler")
    with pytest.raises(ConfigError, match="earliest"):
        PointDiffusion(earliest=1.0)
    with pytest.raises(ModelError, match="points.*not fitted"):
        PointDiffusion().score(
            torch.tensor([[1]]), torch.tensor([[SOUTH, WEST]])
        )
    with pytest.raises(ModelError, match="empty history"):
        model.score(torch.tensor([[0]]), torch.tensor([[1, 2]]))
