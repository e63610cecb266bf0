"""Zones compared: by hand, by an independent reference, and in a world."""

import numpy as np
import pytest
from scipy.optimize import linprog

from serendifflib.data.world import World
from serendifflib.errors import ConfigError
from serendifflib.evaluation.lists import FLOOR, compare_zones


def carried(said, true):
    """Earth mover's distance as a linear program, written out."""
    side = len(said)
    where = np.argwhere(np.ones((side, side))) / side
    cost = np.linalg.norm(where[:, None] - where[None], axis=2)
    n = side * side
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    found = linprog(
        cost.ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([said.ravel(), true.ravel()]),
    )
    return found.fun


def test_by_hand():
    left = np.array([[1.0, 1.0], [0.0, 0.0]])  # scaled to a half each
    even = np.ones((2, 2))
    found = compare_zones(even, left)
    assert found.overlap == pytest.approx(0.5)
    assert found.divergence == pytest.approx(np.log(2), abs=1e-6)
    assert found.distance == pytest.approx(0.25)  # a half goes half a side
    # what is said to be impossible, and is half of the truth
    turned = compare_zones(left, even)
    lost = np.log(0.25 / ((1 - FLOOR) / 2 + FLOOR / 4)) / 2
    lost += np.log(0.25 / (FLOOR / 4)) / 2
    assert turned.divergence == pytest.approx(lost)


def test_the_distance_is_that_of_the_linear_program():
    random = np.random.default_rng(2)
    said, true = random.dirichlet(np.ones(9), 2).reshape(2, 3, 3)
    found = compare_zones(said, true)
    assert found.distance == pytest.approx(carried(said, true), abs=1e-6)
    assert compare_zones(true, true).divergence < 0.01


def test_the_truth_of_a_world_matches_itself_best():
    world = World("forked", n_users=100, n_items=200, seed=1)
    random = np.random.default_rng(0)
    cells = random.integers(0, 4, (world.n_items + 1, 2))
    true = world.true_zone(3, cells, 4)
    itself, even = (
        compare_zones(zone, true) for zone in (true, np.ones((4, 4)))
    )
    assert itself.overlap == pytest.approx(1.0)
    assert itself.distance == pytest.approx(0.0, abs=1e-9)
    assert itself.overlap > even.overlap
    assert itself.divergence < even.divergence
    assert even.distance > 0.01


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (np.ones((3, 3)), "same side"),
        (np.ones(4), "same side"),
        (np.zeros((2, 2)), "not all 0"),
        (np.array([[1.0, -1.0], [1.0, 1.0]]), "at least 0"),
        (np.full((2, 2), np.nan), "at least 0"),
    ],
)
def test_what_is_no_zone_is_refused(said, words):
    with pytest.raises(ConfigError, match=words):
        compare_zones(said, np.ones((2, 2)))
