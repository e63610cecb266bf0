"""Nearest users by hand, and in a world where they should be good."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.controls import NearestUsers
from serendifflib.portrait.grid import Grid
from serendifflib.recommender import Recommender

from .hand import EAST, NORTH, SOUTH, WEST, make_fold


class Places(Grid):
    """Puts every item where the test says, whoever looks."""

    def __init__(self, *places):
        super().__init__(space=None)
        self.known = np.array([(0.0, 0.0), *places])

    def place(self, histories, items):
        return SimpleNamespace(positions=self.known[items.numpy()])

    def place_training(self, fold, examples, items):
        return SimpleNamespace(positions=self.known[items])


@pytest.fixture
def fold():
    """a (east) leads to c (north), b (west) to d (south)."""
    return make_fold(["aC", "bD", "aC", "cA"], train=[0, 1, 2], test=[3])


def fitted(fold, grid, **options):
    options = {
        "users": (2,),
        "temperatures": (0.5,),
        "widths": (np.inf,),
    } | options
    model = NearestUsers(grid=grid, **options)
    return model.fit(fold, generator=torch.Generator().manual_seed(0))


def scores(model, history, *candidates):
    rows = model.score(torch.tensor([history]), torch.tensor([candidates]))
    return rows[0].double().tolist()


CORNERS = (0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9)  # of a, b, c, d


def test_the_labels_of_the_nearest_users_score(fold):
    model = fitted(fold, Places(*CORNERS))
    assert isinstance(model, Recommender)
    # both users with east found north: 2 exp(cos / 0.5)
    found = scores(model, [0, EAST], NORTH, SOUTH, WEST)
    assert found == pytest.approx([math.log(2) + c for c in (2, -2, 0)])
    # whoever likes west hears of south, and of one more user
    found = scores(model, [WEST], SOUTH, NORTH)
    assert found == pytest.approx([math.log(math.e**2 + math.e**-2)] * 2)


def test_the_place_of_the_label_counts(fold):
    model = fitted(fold, Places(*CORNERS), users=(1,), widths=(0.4,))
    # south lies 0.8 from where north was: 0.64 / 0.32 = 2
    found = scores(model, [EAST], NORTH, SOUTH)
    assert found == pytest.approx([2.0, -2.0 - 2.0])


def test_options_are_chosen_on_validation():
    sequences = ["aC", "bD", "aC", "bD", "aC", "cA"]
    fold = make_fold(sequences, train=[0, 1, 2, 3], valid=[4], test=[5])
    model = fitted(fold, Places(*CORNERS), users=(1, 2, 4))
    # with all four users, north and south are alike
    assert model.chosen["users"] < 4
    nobody = make_fold(sequences, train=[0, 1, 2, 3], test=[5])
    assert fitted(nobody, Places(*CORNERS), users=(1, 2, 4)).chosen == {
        "users": 2,
        "temperature": 0.5,
        "width": np.inf,
    }


def test_a_user_is_known_by_the_history_alone(tiny_fold):
    model = NearestUsers().fit(
        tiny_fold, generator=torch.Generator().manual_seed(0)
    )
    histories = tiny_fold.test.histories[:5]
    items = torch.arange(1, 101).expand(5, -1)
    check_inductive(model, histories, items)
