"""Diffusion over points: parts by hand, its start, and that it learns."""

import numpy as np
import pytest
import torch
from baselines.hand import COMPASS, EAST, NORTH, WEST
from baselines.toy import chance, hit_ratio, toy_fold
from inductive import check_inductive

from serendifflib.diffusion.base import place, training_placement
from serendifflib.diffusion.linear import reaches, typical_means
from serendifflib.diffusion.points import (
    SPREADS,
    TEMPERATURES,
    PointNetwork,
    log_mean_exp,
)
from serendifflib.diffusion.unet import typical_mean
from serendifflib.errors import ConfigError
from serendifflib.model.serendiff import SerenDiff

SMALL = {
    "steps": 60,
    "batch_size": 32,
    "validate_every": 20,
    "patience": 3,
    "valid_candidates": 100,
    "width": 32,
    "device": "cpu",
    "progress": False,
}
NONE = SMALL | {"steps": 0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def toy():
    return toy_fold()


def fitted(toy, **changes):
    return SerenDiff("points", **changes).fit(toy, generator=seeded())


@pytest.fixture(scope="module")
def model(toy):
    return fitted(toy, **SMALL)


@pytest.fixture(scope="module")
def start(toy):
    return fitted(toy, **NONE)


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


def test_agreement_with_draws_by_hand():
    # the last component makes squared lengths 2
    shares = torch.ones(5, 1)
    network = PointNetwork(COMPASS, shares, 4, 0.0)
    network.place_middle.copy_(torch.tensor([1.0, 0.0]))
    network.place_spread.copy_(torch.tensor([2.0, 1.0]))
    made = torch.zeros(1, 2, 5)
    made[0, 0, :2] = 3.0 * COMPASS[WEST]
    made[0, 1, :3] = torch.tensor([*COMPASS[NORTH].tolist(), 1.0])
    made[0, 1, 3:] = torch.tensor([1.0, 2.0])
    items = torch.tensor([[WEST, NORTH, WEST]])
    place = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [1.0, 1.0]]])
    cosines, distances = network.agreement(made, items, place)
    half = 0.5**0.5
    west, north = [half, 0.0, half], [0.5, 1.0, 0.5]
    assert cosines[0, 0].tolist() == pytest.approx(west, abs=1e-6)
    assert cosines[0, 1].tolist() == pytest.approx(north, abs=1e-6)
    assert distances[0, 0].tolist() == pytest.approx([0.0, 5.0, 1.0])
    assert distances[0, 1].tolist() == pytest.approx([5.0, 0.0, 2.0])
    found = log_mean_exp(cosines, distances, 0.5, 1.0)[0]
    for column in range(3):
        terms = [
            np.exp(float(cosines[0, s, column]) / 0.5)
            * np.exp(-float(distances[0, s, column]) / 2)
            for s in range(2)
        ]
        assert float(found[column]) == pytest.approx(np.log(np.mean(terms)))


def test_several_answers_are_heard_only_by_draws(toy):
    """Two modes at opposite ends: their mean is neither, draws are both."""
    network = PointNetwork(COMPASS, torch.ones(5, 1), 4, 0.0)
    network.place_spread.fill_(1.0)
    made = torch.zeros(1, 2, 5)
    made[0, 0, :2], made[0, 1, :2] = COMPASS[EAST], COMPASS[WEST]
    items, place = torch.tensor([[EAST, NORTH, WEST]]), torch.zeros(1, 3, 2)
    drawn = log_mean_exp(*network.agreement(made, items, place), 0.1, 1.0)[0]
    assert drawn[0] == drawn[2] > drawn[1] + 1.0
    mean = made.mean(1, keepdim=True)
    said = log_mean_exp(*network.agreement(mean, items, place), 0.1, 1.0)[0]
    assert torch.allclose(said, said[:1].expand(3))


def test_draws_are_a_way_to_read_points(toy, tmp_path):
    model = fitted(
        toy,
        **SMALL,
        aggregate="draws",
        earliest=0.0,
        sampler="ddim",
        calls=4,
        samples=8,
    )
    assert model.network.agreeing[0] in torch.tensor(TEMPERATURES)
    assert model.network.agreeing[1] in torch.tensor(SPREADS)
    assert hit_ratio(model, toy) > 2 * chance(toy)
    check_inductive(
        model, toy.test.histories[:6], torch.arange(1, 101).expand(6, -1)
    )
    model.save(tmp_path / "draws")
    again = SerenDiff.load(tmp_path / "draws", device="cpu", progress=False)
    histories, items = (
        toy.test.histories[:6],
        torch.arange(1, 101).expand(6, -1),
    )
    assert torch.equal(
        model.score(histories, items), again.score(histories, items)
    )
    mean = model.with_sampling(aggregate="mean").score(histories, items)
    assert not torch.equal(mean, model.score(histories, items))
    with pytest.raises(ConfigError, match="unknown aggregate 'mode'"):
        SerenDiff("points", aggregate="mode")


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


def test_the_statistics_of_a_portrait_by_hand(toy, start):
    histories = toy.test.histories[:4].clone()
    histories[3, :-1] = 0  # a history of one item
    items = toy.test.targets[:4, None]
    seen = place(start.space, histories, items)
    found = start.diffusion._statistics(seen.portraits)
    vectors = start.space.vectors
    for row, history in enumerate(histories):
        real = history[history > 0]
        past = start.space.positions(real.numpy())
        rest = past[1:] if len(past) > 1 else np.full((1, 2), 0.5)
        mean = vectors[real].mean(0)
        expected = [
            *rest.mean(0),
            *rest.std(0),
            np.log(len(real)),
            float(reaches(history[None], vectors)),
            float(mean.norm()),
        ]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_the_place_of_candidates_is_that_of_the_portrait_space(toy, start):
    history = toy.test.histories[:1]
    items = torch.tensor([[3, 50, 199]])
    seen = place(start.space, history, items)
    real = history[history > 0].numpy()
    expected = np.stack(start.space.catalogue_scores(real), axis=1)
    np.testing.assert_allclose(
        seen.scores[0], expected[[3, 50, 199]], atol=1e-6
    )


def test_a_training_users_own_rows_do_not_count(toy, start):
    placed = training_placement(start.space, toy, toy.train.subset([0]))
    history = toy.train.histories[0].numpy()
    history, target = history[history > 0], int(toy.train.targets[0])
    without, counted = (
        start.space.view(history, own=rows).scores[target]
        for rows in (toy.training_items[int(toy.train.users[0])], None)
    )
    np.testing.assert_allclose(placed.scores[0, 0], without, atol=1e-6)
    assert abs(without[0] - counted[0]) > 1e-6


def test_negatives_are_items_that_the_user_lacks(toy, start):
    made = start.diffusion.examples(toy, toy.train, seed=1)
    assert made.items.shape == (len(toy.train), 201)
    assert torch.equal(made.targets, toy.train.targets)
    data = toy.interactions
    for row, user in zip(made.items, toy.train.users, strict=True):
        own = data.item_index[data.rows(int(user))]
        assert not set(row[1:].tolist()) & set(own.tolist())


def test_the_zone_is_the_share_of_draws_in_a_cell(toy, start):
    """The regression does not look at the noise: all draws fall together."""
    user = start.catalogue.users[0]
    zone = start.zone(user)
    assert zone.shape == (10, 10) and np.isclose(zone.max(), 1.0)
    # where the generated place lies among the items of the catalogue
    seen = start.portrait(user).placed
    network = start.network
    made = start.diffusion.generate(network, seen.portraits)[0, 0, -2:]
    made = made * network.place_spread + network.place_middle
    for axis, cell in enumerate(np.unravel_index(zone.argmax(), zone.shape)):
        below = float((seen.scores[0, :, axis] < made[axis]).double().mean())
        assert abs(below - (cell + 0.5) / 10) <= 0.1


def test_learns_the_partner_topic(toy, model, start):
    assert hit_ratio(start, toy) > 3 * chance(toy)
    assert hit_ratio(model, toy) > 3 * chance(toy)


def test_training_never_ends_worse_on_validation_than_its_start(model):
    stage = model.report.stages[0]
    assert stage.validations[0][0] == 0
    assert stage.best_value >= stage.validations[0][1]


def test_knows_a_user_by_the_history_alone(toy, model):
    candidates = torch.arange(1, 21).expand(4, -1).contiguous()
    check_inductive(model, toy.test.histories[:4], candidates)


def test_the_same_generator_gives_the_same_model(toy, model):
    again = fitted(toy, **SMALL)
    histories = toy.test.histories[:3]
    items = torch.arange(1, 31).expand(3, -1).contiguous()
    assert torch.equal(
        again.score(histories, items), model.score(histories, items)
    )


def test_noise_calls_and_draws_count_once_the_network_has_learned(toy):
    model = fitted(toy, **NONE).with_sampling(samples=2)
    five = model.with_sampling(sampler="ddim", calls=5)
    ten = model.with_sampling(sampler="ddim", calls=10)
    histories = toy.test.histories[:2]
    items = torch.tensor([[1, 30, 60], [2, 40, 80]])
    untrained = model.score(histories, items)
    # the start does not look at x_t: any sampler ends in the same point
    assert torch.allclose(five.score(histories, items), untrained, atol=1e-3)
    weight = model.network.out.weight
    torch.nn.init.normal_(weight, std=0.1, generator=seeded())
    learned = five.score(histories, items)
    assert not torch.allclose(learned, untrained, atol=1e-2)
    assert torch.equal(five.score(histories, items), learned)
    assert not torch.equal(ten.score(histories, items), learned)


def test_refuses_what_it_cannot_do(toy):
    with pytest.raises(ConfigError, match="unknown sampler"):
        SerenDiff("points", sampler="euler")
    with pytest.raises(ConfigError, match="earliest"):
        fitted(toy, **SMALL, earliest=1.0)
