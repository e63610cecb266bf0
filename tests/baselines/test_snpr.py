import functools

import numpy as np
import pytest
import torch

from serendifflib.baselines.sampling import item_vectors
from serendifflib.baselines.snpr import SNPR
from serendifflib.baselines.trainer import Budget
from serendifflib.portrait.scores import CoOccurrence

from . import rivals
from .rivals import SHORT
from .toy import cases, toy_fold

fit = functools.partial(rivals.fit, SNPR)


def test_lambda_is_chosen_on_validation_and_weighs_the_heads():
    fold = toy_fold()
    model = fit(fold, SHORT)
    assert model.option("mix") in (0.3, 0.5, 0.7)
    assert model.chosen["mix"] == model.option("mix")
    assert model.mix == 0.5  # what was set stays for the next fit
    histories, candidates, _ = cases(fold)
    with torch.no_grad():
        heads = model.network(histories[:3], candidates[:3])
    for mix, expected in ((1.0, heads[0]), (0.0, heads[1])):
        model.chosen = {"mix": mix}
        scores = model.score(histories[:3], candidates[:3])
        assert torch.allclose(scores, expected, atol=1e-5)


def test_both_heads_see_the_candidate():
    fold = toy_fold()
    model = fit(fold, SHORT)
    histories, candidates, _ = cases(fold)
    for logits in model.network(histories[:3], candidates[:3]):
        assert (logits.std(dim=1) > 0).all()


def made(counts, vectors):
    """A rival that knows what its heads are taught by, and no network."""
    rival = SNPR()
    rival.counts, rival.vectors = counts, vectors
    rival.pool = np.arange(1, len(vectors))
    return rival


def test_what_the_heads_are_taught_by_hand():
    # users {1,2} {1,2} {3,4}: after 1, item 2 is expected, 3 and 4 are not
    counts = CoOccurrence.fit(
        [np.array([1, 2]), np.array([1, 2]), np.array([3, 4])], 4
    )
    vectors = np.array(
        [[0, 0], [1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32
    )
    teacher = made(counts, vectors)
    relevance, unexpected = teacher.lesson(
        np.array([1]), np.array([], dtype=np.int64), np.array([2, 3, 4])
    )
    assert np.allclose(relevance, [0.5, 0.0, 0.8])
    # 2 beats three of four items; 3 and 4 have equal popularity
    assert unexpected[0] == pytest.approx(0.25)
    assert unexpected[1] == unexpected[2] == pytest.approx(1.0)


def test_own_rows_do_not_make_items_expected():
    fold = toy_fold()
    counts = CoOccurrence.fit(
        fold.training_histories(), fold.interactions.n_items
    )
    teacher = made(counts, item_vectors(fold).numpy())
    none = np.zeros(0, dtype=np.int64)
    moved = []
    for sequence in fold.training_histories():
        history, target = sequence[:-1], sequence[-1:]
        with_own = teacher.lesson(history, none, target)[1]
        without = teacher.lesson(history, sequence, target)[1]
        moved.append(float(without[0] - with_own[0]))
    assert np.mean(moved) > 0


def test_haste_does_not_change_its_learning_rate():
    fold = toy_fold()
    hasty = Budget(pretrain_steps=3, max_steps=3, haste=50.0)
    model = fit(fold, hasty)
    rates = {stage.lr for stage in model.stages(fold, torch.Generator())}
    assert rates == {model.lr}
