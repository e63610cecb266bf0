"""The toy world is what the other tests take it for."""

import numpy as np
import torch

from .toy import (
    LABELS,
    MaxCosine,
    chance,
    hit_ratio,
    partner,
    topic_of,
    toy_fold,
    toy_interactions,
)


def test_labels_are_the_partner_topic():
    data = toy_interactions()
    assert (data.n_users, data.n_items) == (40, 200)
    labelled = data.frame["label"].to_numpy() == 1
    topics = topic_of(data.item_index)
    for user in range(data.n_users):
        rows = data.rows(user)
        assert labelled[rows].sum() == LABELS
        own = topics[rows[0]]
        assert set(topics[rows][labelled[rows]]) == {partner(own)}


def test_the_fold_keeps_users_apart_and_targets_out_of_histories():
    fold = toy_fold()
    users = [set(p.users) for p in (fold.train, fold.valid, fold.test)]
    assert not users[0] & users[1] and not users[0] & users[2]
    for part in (fold.train, fold.valid, fold.test):
        assert not (part.histories == part.targets[:, None]).any()


def test_cosine_is_no_answer_here_but_is_for_next_items():
    generator = torch.Generator()
    fold, relevance = toy_fold(), toy_fold("next-item")
    control = MaxCosine().fit(fold, generator=generator)
    assert hit_ratio(control, fold) < 3 * chance(fold)
    assert hit_ratio(control, relevance) > 4 * chance(relevance)
    assert np.isclose(chance(fold), 10 / fold_width(fold))


def fold_width(fold):
    return 1 + fold.interactions.n_items - 18
