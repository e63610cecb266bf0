"""Controls with several answers: densities by hand, and that they learn."""

import dataclasses
import math

import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.modes import (
    ExplicitMixture,
    MixtureDensity,
    log_normal,
)

from .conftest import SMALL, seeded
from .toy import chance, hit_ratio


def test_log_normal_is_that_of_torch():
    values, means = torch.randn(5, 2), torch.randn(5, 2)
    spreads = torch.rand(5, 2) + 0.1
    expected = torch.distributions.Normal(means, spreads).log_prob(values)
    found = log_normal(values, means, spreads)
    assert torch.allclose(found, expected.sum(1), atol=1e-5)


def test_the_explicit_mixture_by_hand():
    rival = ExplicitMixture()
    rival.shares = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
    rival.log_prior = torch.tensor([0.5, 0.5]).log()
    said = (
        torch.tensor([[0.5, 0.5]]).log(),
        torch.tensor([[[0.2, 0.2], [0.8, 0.8]]]),
        torch.full((1, 2, 2), 0.1),
        torch.zeros(1, 2, 0),
    )
    items = torch.tensor([[1, 2, 2]])
    places = torch.tensor([[[0.2, 0.2], [0.8, 0.8], [0.2, 0.8]]])
    found = rival.log_density(said, items, places, ratio=False)[0]
    top = 1 / (2 * math.pi * 0.01)  # density at a component's own place
    assert found[0].exp() == pytest.approx(0.5 * top, rel=1e-3)
    assert found[1].exp() == pytest.approx(0.5 * 0.75 * top, rel=1e-3)
    assert found[2].exp() < 1e-6  # a hybrid of the two places
    ratio = rival.log_density(said, items, places, ratio=True)[0]
    assert torch.allclose(ratio - found, torch.tensor(2.0).log(), atol=1e-4)


def test_the_mixture_density_keeps_content_and_place_together():
    rival = MixtureDensity(components=2)
    rival.points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scale = 2**0.5
    centres = rival.points[1:][None] * scale
    said = (
        torch.tensor([[0.5, 0.5]]).log(),
        torch.tensor([[[0.2, 0.2], [0.8, 0.8]]]),
        torch.full((1, 2, 2), 0.1),
        torch.cat([centres, torch.full((1, 2, 1), -3.0)], dim=2),
    )
    places = torch.tensor([[[0.2, 0.2], [0.8, 0.8], [0.8, 0.8], [0.2, 0.2]]])
    items = torch.tensor([[1, 2, 1, 2]])
    found = rival.log_density(said, items, places, ratio=True)[0]
    assert found[0] == pytest.approx(float(found[1]), abs=1e-4)
    assert found[2] < found[0] - 20 and found[3] < found[0] - 20


@pytest.mark.parametrize("kind", [ExplicitMixture, MixtureDensity])
def test_it_learns_the_partner_topic_and_knows_only_histories(toy, grid, kind):
    rival = kind(budget=SMALL, grid=grid, width=32, prototypes=8, lr=3e-3)
    rival.fit(toy, generator=seeded())
    assert hit_ratio(rival, toy) > 3 * chance(toy)
    candidates = torch.randperm(200, generator=seeded())[:80] + 1
    check_inductive(rival, toy.test.histories[:5], candidates.repeat(5, 1))


def test_same_seed_same_model(toy, grid):
    budget = dataclasses.replace(SMALL, max_steps=2)
    items = torch.arange(1, 201).repeat(2, 1)
    scores = [
        ExplicitMixture(budget=budget, grid=grid, width=8, prototypes=8)
        .fit(toy, generator=seeded(seed))
        .score(toy.test.histories[:2], items)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
