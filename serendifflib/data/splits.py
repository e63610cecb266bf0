"""Folds over users, and targets with the histories before them.

A model meets a user only as a history, so folds are made of whole users: all
rows of a test user are unseen in training (Sec. 5.2's five folds, 80/20).
Letters: M examples, n history length, N items, U users, R rows, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import KFold

from serendifflib.data.interactions import Interactions, derived_seed
from serendifflib.errors import ConfigError, DataError, check_choice

TARGETS = ("serendipity", "next-item", "all-next")
LIKED = 4.0  # a rating from which on an item counts as relevant
VALID_SHARE = 0.125  # of the training users of a fold: one tenth of all
TEST_LATEST, VALID_LATEST = 0.2, 0.1  # shares of a split by time


@dataclass(frozen=True)
class Split:
    """Which users train, which tune, which test.

    Attributes:
        name: e.g. ``"fold 1 of 5"`` or ``"temporal"``.
        train_users, valid_users, test_users: sorted numbers, disjoint.
        cutoff: for a split by time, the moment (seconds) from which on no row
            is used for training.
    """

    name: str
    train_users: np.ndarray
    valid_users: np.ndarray
    test_users: np.ndarray
    cutoff: int | None = None


@dataclass(frozen=True)
class Examples:
    """Cases of (history -> target), one row each.

    Attributes:
        users: user numbers, int64, [M].
        histories: item numbers in time order, LongTensor [M, n], padded on the
            left with 0; all strictly earlier than the target.
        targets: item numbers, LongTensor [M].
        rows: row of the target in the table of interactions, int64 [M].
    """

    users: np.ndarray
    histories: torch.Tensor
    targets: torch.Tensor
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def subset(self, index: np.ndarray | list[int] | slice) -> Examples:
        """The examples at ``index`` (numbers, a slice, or a mask)."""
        if isinstance(index, list):
            index = np.asarray(index, dtype=np.int64)
        return Examples(
            users=self.users[index],
            histories=self.histories[index],
            targets=self.targets[index],
            rows=self.rows[index],
        )


def user_folds(
    interactions: Interactions, n_folds: int = 5, *, seed: int = 0
) -> list[Split]:
    """Cross-validation over users: each user is tested in exactly one fold.

    Of the others :data:`VALID_SHARE`, one at least, tunes; the rest train.

    Raises:
        ConfigError, DataError: fewer than two folds, or than users.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds}: choose at least 2")
    if interactions.n_users < n_folds:
        raise DataError(
            f"{interactions.name} has {interactions.n_users} users, too few "
            f"for {n_folds} folds: choose a smaller n_folds"
        )
    numbers = np.arange(interactions.n_users)
    folds = KFold(n_folds, shuffle=True, random_state=seed).split(numbers)
    splits = []
    for number, (rest, test) in enumerate(folds):
        shuffled = np.random.default_rng([seed, number]).permutation(rest)
        n_valid = _count(VALID_SHARE, len(rest))
        splits.append(
            Split(
                name=f"fold {number + 1} of {n_folds}",
                train_users=np.sort(shuffled[n_valid:]).astype(np.int64),
                valid_users=np.sort(shuffled[:n_valid]).astype(np.int64),
                test_users=np.sort(test).astype(np.int64),
            )
        )
    return splits


def temporal_split(interactions: Interactions) -> Split:
    """Split users by the time of their target: the latest are tested.

    A target is the last row with label 1, or the last row. Training stops at
    ``cutoff``, the time of the earliest held-out target. (Item vectors follow
    the rule for reviews of :func:`plan_fold` alone.)

    Raises:
        DataError: fewer than three users.
    """
    n_users = interactions.n_users
    if n_users < 3:
        raise DataError(
            f"{interactions.name} has {n_users} users, too few for a split"
        )
    seconds = interactions.frame["timestamp"].to_numpy()
    labels = interactions.frame["label"].to_numpy()
    last = interactions.row_start[1:] - 1
    target_row = last.copy()
    positive = np.flatnonzero(labels == 1)
    # Rows ascend, so the last label-1 row of a user is what remains.
    target_row[interactions.user_index[positive]] = positive
    times = seconds[target_row]
    order = np.argsort(times, kind="stable")
    n_test, n_valid = (_count(s, n_users) for s in (TEST_LATEST, VALID_LATEST))
    held_out = order[n_users - n_test - n_valid :]
    return Split(
        name="temporal",
        train_users=np.sort(order[: n_users - n_test - n_valid]),
        valid_users=np.sort(held_out[:n_valid]),
        test_users=np.sort(held_out[n_valid:]),
        cutoff=int(times[held_out].min()),
    )


def whole_split(interactions: Interactions) -> Split:
    """All users train, but every tenth, who validates; nobody tests."""
    users = np.arange(interactions.n_users)
    valid = users % 10 == 9
    return Split("all users", users[~valid], users[valid], users[:0])


def _count(share: float, total: int) -> int:
    """``share`` of ``total``, rounded, but neither nobody nor all."""
    return min(max(1, round(share * total)), total - 1)


def training_rows_of(interactions: Interactions, split: Split) -> np.ndarray:
    """Rows of the training users, before the cutoff where there is one."""
    is_train = np.zeros(interactions.n_users, dtype=bool)
    is_train[split.train_users] = True
    keep = is_train[interactions.user_index]
    if split.cutoff is not None:
        keep &= interactions.frame["timestamp"].to_numpy() < split.cutoff
    return np.flatnonzero(keep)


def make_examples(
    interactions: Interactions,
    users: np.ndarray,
    kind: str,
    *,
    max_history: int = 100,
    per_user: int | None = None,
    min_history: int = 1,
    seed: int = 0,
) -> Examples:
    """Targets of some users, each with the history strictly before it.

    Rows that share the target's timestamp are not history: nobody knows
    which came first. Examples come in the order of users and time.

    Args:
        interactions: the data.
        users: their numbers.
        kind: ``"serendipity"``: every row with label 1; ``"next-item"``: the
            user's last row that has no label 1 and a rating of at least 4;
            ``"all-next"``: every row.
        max_history: the latest this many items are kept.
        per_user: at most this many targets of a user, by a draw of their own.
        min_history: targets with fewer earlier rows are left out (>= 1).
        seed: for ``per_user``.

    Raises:
        ConfigError: an unknown kind or a number below 1.
    """
    check_choice("kind", kind, TARGETS)
    for name, value in (
        ("max_history", max_history),
        ("min_history", min_history),
        ("per_user", 1 if per_user is None else per_user),
    ):
        if value < 1:
            raise ConfigError(f"{name} is {value}: choose at least 1")
    user_index, frame = interactions.user_index, interactions.frame
    # the first row of the same user with the same timestamp, per row
    moments = np.stack([user_index, frame["timestamp"].to_numpy()])
    is_new = (np.diff(moments, prepend=-1) != 0).any(axis=0)
    tie_start = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
    lengths = tie_start - interactions.row_start[user_index]
    wanted = np.isin(user_index, users) & (lengths >= min_history)
    if kind == "serendipity":
        wanted &= frame["label"].to_numpy() == 1
    elif kind == "next-item":
        wanted &= frame["label"].to_numpy() != 1
        wanted &= frame["rating"].to_numpy() >= LIKED
    rows = np.flatnonzero(wanted)
    if kind == "next-item":
        is_last = np.append(np.diff(user_index[rows]) != 0, True)
        rows = rows[is_last[: len(rows)]]
    if per_user is not None:
        rows = _limit(interactions, rows, per_user, seed)
    return _examples(interactions, rows, tie_start, max_history)


def _limit(
    interactions: Interactions, rows: np.ndarray, per_user: int, seed: int
) -> np.ndarray:
    """At most ``per_user`` rows of each user, drawn by the user's own seed."""
    users = interactions.user_index[rows]
    kept = []
    for part in np.split(rows, np.flatnonzero(np.diff(users)) + 1):
        if len(part) > per_user:
            user_id = interactions.users[interactions.user_index[part[0]]]
            generator = np.random.default_rng(derived_seed(seed, user_id))
            part = np.sort(generator.permutation(part)[:per_user])
        kept.append(part)
    return np.concatenate(kept)


def _examples(
    interactions: Interactions,
    rows: np.ndarray,
    tie_start: np.ndarray,
    max_history: int,
) -> Examples:
    ends = tie_start[rows]
    starts = interactions.row_start[interactions.user_index[rows]]
    longest = int((ends - starts).max(initial=1))
    width = min(max_history, longest)
    places = ends[:, None] + np.arange(-width, 0)[None, :]
    items = interactions.item_index
    histories = np.where(
        places >= starts[:, None], items[np.maximum(places, 0)], 0
    )
    return Examples(
        users=interactions.user_index[rows],
        histories=torch.from_numpy(histories.astype(np.int64)),
        targets=torch.from_numpy(items[rows]),
        rows=rows.astype(np.int64),
    )
