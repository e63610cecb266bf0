"""Convolutions as matrix products: the same numbers in another way."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import network, run
from torch import nn

from serendifflib.diffusion.convolutions import (
    MatrixConv2d,
    MatrixTeam,
    as_matrix_products,
    matrix_training,
)
from serendifflib.diffusion.team import Team, current_team, training_as


def test_a_patch_by_hand():
    """One channel, a 2 x 2 grid: each cell sums itself and its neighbours."""
    layer = MatrixConv2d(1, 1, 3, padding=1, bias=False)
    weights = torch.arange(9.0).reshape(1, 1, 3, 3)
    layer.weight.data = weights
    found = layer(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    # top left: its own weight 4, right of it 5, below 7, below right 8
    assert found[0, 0, 0, 0] == 4 * 1 + 5 * 10 + 7 * 100 + 8 * 1000
    assert found[0, 0, 1, 1] == 0 * 1 + 1 * 10 + 3 * 100 + 4 * 1000


@given(
    kernel=st.sampled_from([1, 2, 3, (3, 1)]),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    bias=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_results_and_gradients_are_those_of_torch(kernel, padding, size, bias):
    plain = nn.Conv2d(3, 5, kernel, padding=padding, bias=bias).double()
    other = as_matrix_products(plain)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    wanted, found = plain(x), other(x)
    torch.testing.assert_close(found, wanted)
    inputs = (x, *plain.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(wanted.square().sum(), inputs),
    )


def test_a_view_shares_weights_and_leaves_the_network_alone():
    net = network()
    view = as_matrix_products(net)
    assert all(
        mine is theirs
        for mine, theirs in zip(
            net.parameters(), view.parameters(), strict=True
        )
    )
    assert not any(type(m) is MatrixConv2d for m in net.modules())
    assert sum(type(m) is MatrixConv2d for m in view.modules()) > 3
    assert view.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
    ],
)
def test_other_convolutions_are_left_alone(options):
    plain = nn.Conv2d(2, 2, 3, **options)
    assert type(as_matrix_products(plain)) is nn.Conv2d


def test_training_takes_the_same_steps():
    first = network(dropout=0.0)
    second = copy.deepcopy(first)
    _, wanted = run(first)
    with matrix_training():
        _, found = run(second)
    assert found.losses == pytest.approx(wanted.losses, rel=1e-3)
    moved = 0.0
    for one, other in zip(
        first.parameters(), second.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
        moved = max(moved, float((one - other).detach().abs().max()))
    assert moved > 0  # rounding: it did take the other way
    assert not any(type(m) is MatrixConv2d for m in second.modules())


def test_the_context_keeps_the_place_in_the_team_and_ends():
    with training_as(Team(1, 2)), matrix_training() as team:
        assert current_team() is team
        assert team == MatrixTeam(1, 2)
    assert current_team() == Team()
