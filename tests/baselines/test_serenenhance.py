import functools
import math

import numpy as np
import torch

from serendifflib.baselines.serenenhance import (
    TOWERS,
    PairSampler,
    SerenEnhance,
)
from serendifflib.portrait.scores import CoOccurrence

from . import rivals
from .rivals import SHORT
from .toy import cases, toy_fold

fit = functools.partial(rivals.fit, SerenEnhance)


def test_every_pair_is_a_positive_and_a_negative():
    fold = toy_fold()
    generator = torch.Generator().manual_seed(0)
    pairs = PairSampler(fold, generator).draw(
        torch.arange(len(fold.train)), generator
    )
    data = fold.interactions
    labels = data.frame["label"].to_numpy()
    for m, user in enumerate(fold.train.users):
        rows = data.rows(int(user))
        labelled = set(data.item_index[rows][labels[rows] == 1])
        everything = set(data.item_index[rows])
        history = set(fold.train.histories[m].tolist())
        positive, negative = (
            {name: set(pairs[name][k][m].tolist()) for name in TOWERS}
            for k in (0, 1)
        )
        assert positive["serendipity"] <= labelled
        assert not negative["serendipity"] & labelled
        # label-0 items of the same user come first
        assert everything - labelled <= negative["serendipity"]
        assert positive["relevance"] <= history
        assert not negative["relevance"] & everything
        assert not positive["unexpectedness"] & negative["unexpectedness"]


def test_unexpected_items_are_less_expected():
    fold = toy_fold()
    generator = torch.Generator().manual_seed(0)
    tails = PairSampler(fold, generator)
    counts = CoOccurrence.fit(
        fold.training_histories(), fold.interactions.n_items
    )
    data = fold.interactions
    # the last example of some users: its history is the one that counts
    for user in range(0, len(tails.unexpected), 5):
        m = int((tails.owner == user).nonzero().max())
        own = data.item_index[data.rows(int(fold.train.users[m]))]
        history = fold.train.histories[m].numpy()
        scores = counts.log_catalogue(history[history > 0], own=own)
        low, high = np.quantile(scores[1:], [0.3, 0.7])
        assert scores[tails.unexpected[user]].max() <= low + 1e-9
        assert scores[tails.expected[user]].min() >= high - 1e-9


def test_the_released_variant_runs_and_its_loss_stays_in_its_band():
    fold = toy_fold()
    model = fit(fold, SHORT, faithful_sigmoid=True)
    band = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    for loss in model.report.stages[0].losses:
        assert 3 * band[0] < loss < 3 * band[1]


def test_next_items_work_without_labels():
    fold = toy_fold("next-item")
    histories, candidates, _ = cases(fold)
    scores = [
        fit(fold, SHORT, seed).score(histories, candidates)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
