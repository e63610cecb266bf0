"""Folds over users, examples without a future, vectors without a leak."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib.data.splits import (
    TARGETS,
    Examples,
    Split,
    make_examples,
    temporal_split,
    user_folds,
)
from serendifflib.errors import ConfigError, DataError
from serendifflib.portrait.fold import allowed_reviews, prepare_fold
from serendifflib.portrait.portrait import PortraitSpace

WORLD = st.lists(
    st.tuples(
        st.sampled_from("abcdefg"),
        st.sampled_from("ijklmnop"),
        st.integers(0, 8),
        st.integers(0, 1),
        st.sampled_from([1.0, 4.0, 5.0]),
    ),
    min_size=1,
    max_size=40,
)


def small_split(train, valid, test, cutoff=None):
    parts = [np.array(part, dtype=np.int64) for part in (train, valid, test)]
    return Split("by hand", *parts, cutoff=cutoff)


# --- user_folds ----------------------------------------------------------


@pytest.mark.parametrize("n_users", [5, 23, 40])
def test_every_user_is_tested_exactly_once(make_data, n_users):
    data = make_data([(f"u{k:02}", "i", 1, 0) for k in range(n_users)])
    splits = user_folds(data, seed=3)
    assert [split.name for split in splits][0] == "fold 1 of 5"
    tested = np.concatenate([split.test_users for split in splits])
    assert sorted(tested) == list(range(n_users))
    for split in splits:
        parts = (split.train_users, split.valid_users, split.test_users)
        assert sorted(np.concatenate(parts)) == list(range(n_users))
        for part in parts:
            assert part.dtype == np.int64
            assert len(part)
            assert (np.diff(part) > 0).all()
        rest = n_users - len(split.test_users)
        assert len(split.valid_users) == max(1, round(0.125 * rest))
        assert split.cutoff is None


def test_same_seed_same_folds_other_seed_others(make_data):
    data = make_data([(f"u{k:02}", "i", 1, 0) for k in range(30)])

    def flat(seed):
        return [
            (split.train_users.tolist(), split.test_users.tolist())
            for split in user_folds(data, seed=seed)
        ]

    assert flat(1) == flat(1)
    assert flat(1) != flat(2)


def test_bad_folds_are_refused(make_data):
    data = make_data([(f"u{k}", "i", 1, 0) for k in range(3)])
    with pytest.raises(DataError, match="3 users, too few for 5 folds"):
        user_folds(data)
    with pytest.raises(ConfigError, match="n_folds is 1"):
        user_folds(data, 1)


# --- temporal_split ------------------------------------------------------


def test_latest_targets_are_tested(make_data):
    rows = [(f"u{k}", "i", 1, 0) for k in range(10)]
    # Targets at 10, 20, ..., user 9 first; a late plain row is no target.
    rows += [(f"u{k}", "j", 10 * (10 - k), 1) for k in range(10)]
    rows += [("u9", "k", 1000, 0)]
    split = temporal_split(make_data(rows))
    assert split.test_users.tolist() == [0, 1]
    assert split.valid_users.tolist() == [2]
    assert split.train_users.tolist() == list(range(3, 10))
    assert split.cutoff == 80


def test_without_labels_the_last_row_counts(make_data):
    rows = [(f"u{k}", "i", 10 * k, 0) for k in range(10)]
    split = temporal_split(make_data(rows))
    assert split.test_users.tolist() == [8, 9]
    assert split.cutoff == 70


def test_training_ends_at_the_cutoff(make_data, encoder):
    rows = []
    for k in range(10):
        rows += [(f"u{k}", "a", 1, 0), (f"u{k}", "b", 10 * (k + 1), 1)]
        rows += [(f"u{k}", "c", 10 * (k + 1) + 55, 0)]
    rows += [("v", "b", 3, 0)]
    data = make_data(rows)
    split = temporal_split(data)
    fold = prepare_fold(data, split, encoder=encoder, reviews="all")
    assert split.cutoff == 80
    seconds = data.frame["timestamp"].to_numpy()
    assert (seconds[fold.training_rows] < 80).all()
    # "c" comes after the cutoff for users with targets from 30 on.
    number = data.item_number("c")
    told = sum(number in items for items in fold.training_histories())
    assert told == 2
    assert (seconds[fold.train.rows] < 80).all()
    assert len(fold.train)


def test_too_few_users_are_refused(make_data):
    with pytest.raises(DataError, match="too few"):
        temporal_split(make_data([("u", "i", 1, 0)]))


# --- make_examples -------------------------------------------------------


def test_six_rows_by_hand(make_data):
    data = make_data(
        [
            ("u", "a", 1, 0, 5.0),
            ("u", "b", 2, 1, 5.0),
            ("u", "c", 3, 0, 4.0),
            ("u", "d", 3, 1, 5.0),
            ("u", "e", 4, 0, 3.5),
            ("w", "a", 9, 1, 5.0),
        ]
    )
    a, b, c, d, e = range(1, 6)
    users = np.array([0, 1])
    labelled = make_examples(data, users, "serendipity")
    # w's only row has no history; c and d tie, so c is no history of d.
    assert labelled.targets.tolist() == [b, d]
    assert labelled.histories.tolist() == [[0, a], [a, b]]
    assert labelled.rows.tolist() == [1, 3]
    assert labelled.users.tolist() == [0, 0]
    # e is rated below 4, d and b carry the label: c is the last liked one.
    liked = make_examples(data, users, "next-item")
    assert liked.targets.tolist() == [c]
    assert liked.histories.tolist() == [[a, b]]
    every = make_examples(data, users, "all-next")
    assert every.targets.tolist() == [b, c, d, e]
    assert every.histories.tolist() == [
        [0, 0, 0, a],
        [0, 0, a, b],
        [0, 0, a, b],
        [a, b, c, d],
    ]
    assert make_examples(data, [1], "all-next").histories.shape == (0, 1)


def test_history_is_cut_at_its_start(make_data):
    data = make_data([("u", f"i{k}", k, 0) for k in range(6)])
    short = make_examples(data, [0], "all-next", max_history=2)
    assert short.histories.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]


def test_min_history(make_data):
    data = make_data([("u", f"i{k}", k, 0) for k in range(6)])
    late = make_examples(data, [0], "all-next", min_history=4)
    assert late.targets.tolist() == [5, 6]


def test_unrated_rows_are_nobodys_liked_target(make_data):
    rows = [("u", "a", 1, 0, 5.0), ("u", "b", 2, 0, 5.0)]
    rows += [("u", "c", 3, 0, float("nan"))]
    data = make_data(rows)
    assert make_examples(data, [0], "next-item").targets.tolist() == [2]


def test_per_user_depends_on_the_user_alone(make_data):
    rows = [("u", f"i{k}", k, 0) for k in range(30)]
    other = [("a", f"i{k}", k, 0) for k in range(30)]
    alone = make_data(rows)
    both = make_data(rows + other)
    first = make_examples(alone, [0], "all-next", per_user=5, seed=1)
    second = make_examples(both, [0, 1], "all-next", per_user=5, seed=1)
    assert len(first) == 5
    assert len(second) == 10
    assert first.targets.tolist() == second.targets[5:].tolist()
    assert first.targets.tolist() != second.targets[:5].tolist()
    again = make_examples(alone, [0], "all-next", per_user=5, seed=2)
    assert first.targets.tolist() != again.targets.tolist()


@settings(max_examples=60, deadline=None)
@given(rows=WORLD, kind=st.sampled_from(TARGETS), longest=st.integers(1, 5))
def test_no_future_in_any_history(make_data, rows, kind, longest):
    data = make_data(rows)
    frame = data.frame
    found = make_examples(
        data, np.arange(data.n_users), kind, max_history=longest
    )
    for row in range(len(found)):
        target = frame.iloc[found.rows[row]]
        own = frame[frame["user_id"] == target["user_id"]]
        before = own[own["timestamp"] < target["timestamp"]]
        expected = [data.item_number(item) for item in before["item_id"]]
        history = found.histories[row].tolist()
        padded = [item for item in history if item]
        assert padded == expected[-longest:]
        assert history == [0] * (len(history) - len(padded)) + padded
        assert int(found.targets[row]) not in padded
        assert data.items[found.targets[row] - 1] == target["item_id"]
        assert data.users[found.users[row]] == target["user_id"]
    if kind == "serendipity":
        assert (frame["label"].to_numpy()[found.rows] == 1).all()
    if kind == "next-item":
        assert len(set(found.users)) == len(found)


def test_unknown_kind_and_numbers(make_data):
    data = make_data([("u", "i", 1, 0)])
    with pytest.raises(ConfigError, match="unknown kind 'next'"):
        make_examples(data, [0], "next")
    with pytest.raises(ConfigError, match="per_user is 0"):
        make_examples(data, [0], "all-next", per_user=0)


def test_subset_by_numbers_mask_and_slice(make_data):
    data = make_data([("u", f"i{k}", k, 0) for k in range(5)])
    full = make_examples(data, [0], "all-next")
    for index in ([2, 0], np.array([True, False, True, False]), slice(0, 2)):
        part = full.subset(index)
        assert isinstance(part, Examples)
        place = np.arange(4)[index]
        assert part.targets.tolist() == full.targets[place].tolist()
        assert part.rows.tolist() == full.rows[place].tolist()
        assert torch.equal(part.histories, full.histories[place])
    assert len(full.subset([])) == 0


# --- prepare_fold --------------------------------------------------------


@pytest.fixture
def labelled(make_data):
    """Users t (train), v (valid), w (test): one labelled item each."""
    return make_data(
        [
            ("t", "a", 1, 0, 5.0, "aaaa"),
            ("t", "b", 2, 1, 5.0, "bbbb"),
            ("t", "c", 3, 0, 5.0, "cccc"),
            ("t", "e", 4, 1, 5.0, "gggg"),
            ("v", "a", 1, 0, 5.0, "aaab"),
            ("v", "c", 2, 1, 5.0, "dddd"),
            ("v", "b", 3, 0, 5.0, "hhhh"),
            ("w", "c", 1, 0, 5.0, ""),
            ("w", "a", 2, 1, 5.0, "eeee"),
            ("w", "d", 3, 1, 5.0, "ffff"),
        ]
    )


def test_labelled_reviews_enter_no_vector(labelled, encoder):
    fold = prepare_fold(labelled, small_split([0], [1], [2]), encoder=encoder)
    a, b, c, d, e = range(1, 6)
    assert fold.kind == "serendipity"
    # d and e have nothing but a label-1 review.
    assert fold.missing_items.tolist() == [d, e]
    assert fold.train.targets.tolist() == [b]
    assert fold.dropped == {"train": 1, "valid": 0, "test": 1}
    assert fold.test.targets.tolist() == [a]
    vectors = fold.raw_vectors.numpy()
    assert vectors.shape == (6, 8)
    # a: mean of "aaaa" and "aaab", not "eeee"; c: "cccc" alone.
    expected = np.array([7.0, 1.0]) / np.hypot(7, 1)
    assert vectors[a, :2] == pytest.approx(expected, abs=1e-6)
    assert vectors[a, 2:].tolist() == [0] * 6
    assert vectors[b].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert vectors[c].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert not vectors[[0, d, e]].any()


def test_labelled_rows_need_not_count(labelled, encoder):
    fold = prepare_fold(labelled, small_split([0], [1], [2]), encoder=encoder)
    a, b, c, _, e = range(1, 6)
    assert fold.training_items[0].tolist() == [a, b, c, e]
    other = replace(fold, counted="unlabelled")
    assert other.training_rows.tolist() == [0, 2]
    assert other.training_items[0].tolist() == [a, c]
    counts = PortraitSpace.fit(other).co_occurrence
    assert counts.users_of.tolist() == [0, 1, 0, 1, 0, 0]
    # targets and vectors are as before
    assert other.train is fold.train
    wrong = replace(fold, counted="labelled")
    with pytest.raises(ConfigError, match="unknown counted 'labelled'"):
        _ = wrong.training_rows


def test_the_three_rules_for_reviews(labelled):
    held_out = np.array([5, 8, 9])  # what v and w are tested on
    expected = {
        "unlabelled": [1, 0, 1, 0, 1, 0, 1, 0, 0, 0],
        "train": [1, 1, 1, 1, 1, 0, 1, 0, 0, 0],
        "all": [1, 1, 1, 1, 1, 1, 1, 0, 1, 1],
    }
    for rule, allowed in expected.items():
        found = allowed_reviews(labelled, held_out, rule)
        assert found.astype(int).tolist() == allowed


def test_held_out_reviews_are_left_out_for_next_items(make_data, encoder):
    data = make_data(
        [
            ("t", "a", 1, 0, 5.0, "aaaa"),
            ("t", "b", 2, 0, 5.0, "bbbb"),
            ("w", "a", 1, 0, 5.0, "aaaa"),
            ("w", "b", 2, 0, 5.0, "hhhh"),
        ]
    )
    split = small_split([0], [], [1])
    fold = prepare_fold(data, split, encoder=encoder)
    assert fold.kind == "next-item"
    assert fold.raw_vectors[2].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    leaky = prepare_fold(data, split, encoder=encoder, reviews="all")
    assert leaky.raw_vectors[2, 7] > 0.5


def test_descriptions_are_never_held_out(make_data, encoder):
    rows = [
        ("t", "a", 1, 0, 5.0, "aaaa"),
        ("t", "c", 2, 0, 5.0, "cccc"),
        ("w", "a", 1, 0, 5.0, "aaaa"),
        ("w", "b", 2, 0, 5.0, "bbbb"),
    ]
    split = small_split([0], [], [1])
    with pytest.raises(DataError, match="1 left out because"):
        prepare_fold(make_data(rows), split, encoder=encoder)
    data = make_data(rows, texts_describe_items=True)
    fold = prepare_fold(data, split, encoder=encoder)
    assert len(fold.missing_items) == 0
    assert fold.test.targets.tolist() == [2]


def test_training_sees_nothing_of_other_users(labelled, encoder):
    split = small_split([0], [1], [2])
    fold = prepare_fold(labelled, split, encoder=encoder)
    assert [part.tolist() for part in fold.training_histories()] == [
        [1, 2, 3, 5]
    ]
    assert fold.train_items.tolist() == [1, 2, 3, 5]


def test_several_training_histories_in_time_order(make_data, encoder):
    rows = [("t", f"i{k}", 9 - k, k % 2) for k in range(4)]
    rows += [("s", "i1", 1, 0), ("s", "i2", 2, 0), ("s", "i0", 3, 1)]
    rows += [("w", "i3", 1, 0), ("w", "i1", 2, 1), ("v", "i2", 1, 0)]
    data = make_data(rows)
    numbers = {user: data.user_number(user) for user in "tsw"}
    fold = prepare_fold(
        data,
        small_split(sorted([numbers["t"], numbers["s"]]), [], [numbers["w"]]),
        encoder=encoder,
        reviews="all",
    )
    histories = [part.tolist() for part in fold.training_histories()]
    assert histories == [[2, 3, 1], [4, 3, 2, 1]]


def test_training_targets_of_next_items_are_many(make_data, encoder):
    rows = [("t", f"i{k}", k, 0) for k in range(30)]
    rows += [("w", f"i{k}", k, 0) for k in range(3)]
    data = make_data(rows)
    split = small_split([0], [], [1])
    fold = prepare_fold(data, split, encoder=encoder, train_per_user=7)
    assert len(fold.train) == 7
    assert len(fold.test) == 1


def test_prepare_fold_refuses_nonsense(labelled, make_data, encoder):
    split = small_split([0], [1], [2])
    with pytest.raises(ConfigError, match="unknown kind 'all-next'"):
        prepare_fold(labelled, split, kind="all-next", encoder=encoder)
    with pytest.raises(ConfigError, match="unknown reviews 'some'"):
        prepare_fold(labelled, split, reviews="some", encoder=encoder)
    silent = make_data([(user, "a", 1, 0, 5.0, "") for user in "tvw"])
    with pytest.raises(DataError, match="no review may be used"):
        prepare_fold(silent, split, encoder=encoder)
    one_row_each = make_data([(user, "a", 1, 0) for user in "tvw"])
    with pytest.raises(DataError, match="no next-item target in its train"):
        prepare_fold(one_row_each, split, encoder=encoder)
