import functools
import math

import numpy as np
import pytest
import torch

from serendifflib.baselines.purs import PURS, cluster_centres, distances
from serendifflib.baselines.sampling import Cases
from serendifflib.baselines.trainer import Budget

from . import rivals
from .rivals import SHORT
from .toy import cases, toy_fold

fit = functools.partial(rivals.fit, PURS)


def test_the_first_weights_let_the_user_through():
    """With weights that are too small the sigmoids hide who asks."""
    model = fit(toy_fold(), Budget(pretrain_steps=0, max_steps=0))
    items = torch.arange(1, 201)[None].expand(24, -1)
    network, fold = model.network, toy_fold()
    with torch.no_grad():
        logits = model.score_batch(fold.train.histories[:24], items)
    assert not network.training
    of_users = (logits - logits.mean(dim=0)).std(dim=0).mean()
    assert of_users > 0.3


def test_two_clusters_keep_two_centres():
    points = torch.tensor(
        [[[0.0, 0.0], [9.9, 9.9], [1.0, 0.0], [1.01, 0.0], [0.01, 0.0]]]
    )
    real = torch.tensor([[True, False, True, True, True]])
    centres = cluster_centres(points, real)[0]
    # the middle pair distance is 0.99 or 1.0, the radius half of it
    left, right = centres[0], centres[2]
    assert torch.allclose(centres[4], left, atol=1e-3)
    assert torch.allclose(centres[3], right, atol=1e-3)
    assert right[0] - left[0] > 0.8
    # padding does not pull
    assert centres[[0, 2, 3, 4], 1].abs().max() < 1e-6


def test_one_item_is_its_own_centre():
    points = torch.tensor([[[3.0, 4.0], [1.0, 2.0]]])
    real = torch.tensor([[False, True]])
    centres = cluster_centres(points, real)
    assert torch.allclose(centres[0, 1], points[0, 1])
    away = distances(centres, real, torch.tensor([[[1.0, 3.0]]]))
    assert away.item() == pytest.approx(1.0)


def test_distances_by_hand():
    # two items share the centre 0, one has 3: weights 2/3 and 1/3
    centres = torch.tensor([[[0.0], [0.0], [3.0], [77.0]]])
    real = torch.tensor([[True, True, True, False]])
    wanted = torch.tensor([[[0.0], [6.0]]])
    assert torch.allclose(
        distances(centres, real, wanted), torch.tensor([[1.0, 5.0]])
    )
    wanted = torch.tensor([[[2.0]]])
    assert distances(centres, real, wanted).item() == pytest.approx(5 / 3)


def test_unexpectedness_saturates_and_has_no_gradient():
    fold = toy_fold()
    model = fit(fold, SHORT)
    histories, candidates, _ = cases(fold)
    seen = []
    forward = model.network.forward
    model.network.forward = lambda h, c, f: seen.append(f) or forward(h, c, f)
    model.score_batch(histories[:4], candidates[:4])
    assert not seen[0].requires_grad
    assert seen[0].max() <= math.exp(-1) + 1e-6  # the peak, at distance 1
    assert seen[0].min() >= 0


def test_the_history_ends_before_the_target():
    fold = toy_fold()
    everything = Cases.next_items(fold, 10)
    sequences = fold.training_histories()
    assert len(everything.targets) == sum(len(s) - 1 for s in sequences)
    # the last case of the first user: the ten items before the last
    last = len(sequences[0]) - 2
    assert everything.targets[last] == sequences[0][-1]
    assert np.array_equal(everything.histories[last], sequences[0][-11:-1])
    first = everything.histories[0]
    assert first[-1] == sequences[0][0] and not first[:-1].any()
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(len(everything.targets))
    _, items = everything.draw(index, 4, generator)
    assert torch.equal(items[:, 0], everything.targets)
    own = everything.own[everything.owner]
    assert not (items[:, 1:, None] == own[:, None, :]).any()
