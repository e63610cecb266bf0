"""Folds over users, targets with their histories, item vectors per fold.

A model meets a user only as a history, so folds are made of whole users: all
rows of a test user are unseen in training (Sec. 5.2's five folds, 80/20).
Letters: M examples, n history length, N items, U users, R rows, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import KFold

from serendifflib.data.interactions import Interactions, derived_seed
from serendifflib.errors import ConfigError, DataError

KINDS = ("serendipity", "next-item")
TARGETS = (*KINDS, "all-next")
REVIEWS = ("unlabelled", "train", "all")
LIKED = 4.0  # a rating from which on an item counts as relevant


class Encoder(Protocol):
    """Turns texts into vectors; see :mod:`serendifflib.items`."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of texts, float32, shape [len(texts), d]."""
        ...


@dataclass(frozen=True)
class Split:
    """Which users train, which tune, which test.

    Attributes:
        name: e.g. ``"fold 1 of 5"`` or ``"temporal"``.
        train_users, valid_users, test_users: sorted user numbers, int64,
            disjoint.
        cutoff: for a split by time, the moment (seconds) from which on no
            row is used for training; None for a split by users alone.
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
        users: user numbers, int64, shape [M].
        histories: item numbers, LongTensor [M, n], padded on the left with
            0, in time order; all strictly earlier than the target.
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
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.dtype != bool:
                index = index.astype(np.int64)
        return Examples(
            users=self.users[index],
            histories=self.histories[index],
            targets=self.targets[index],
            rows=self.rows[index],
        )


@dataclass(frozen=True)
class FoldData:
    """Everything that a model may see of one fold, and what it is judged on.

    Attributes:
        interactions: the whole data set.
        split: the users of the fold.
        kind: ``"serendipity"`` or ``"next-item"``, what the targets are.
        raw_vectors: unit-length means of the allowed reviews of each item,
            FloatTensor [N + 1, d]; zeros for item 0 and for missing items.
        missing_items: items left without any allowed review, int64, sorted;
            they are no candidates and no targets.
        train, valid, test: the examples.
        train_items: items that occur in training rows, int64, sorted.
        dropped: how many examples of each part were left out because their
            target is a missing item.
    """

    interactions: Interactions
    split: Split
    kind: str
    raw_vectors: torch.Tensor
    missing_items: np.ndarray
    train: Examples
    valid: Examples
    test: Examples
    train_items: np.ndarray
    dropped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def training_rows(self) -> np.ndarray:
        """Rows that training may use for co-occurrence and popularity."""
        return _training_rows(self.interactions, self.split)

    @cached_property
    def training_items(self) -> Mapping[int, np.ndarray]:
        """User number -> item numbers of the training rows, in time order.

        Every row of the training users (label-1 rows too) and nothing of a
        validation or test user; in a split by time, what lies before the
        cutoff. Users without any such row are left out.
        """
        rows = self.training_rows
        users = self.interactions.user_index[rows]
        items = self.interactions.item_index[rows]
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        return {
            int(users[start]): items[start:end]
            for start, end in pairwise([*starts, len(items)])
        }

    def training_histories(self) -> list[np.ndarray]:
        """The sequences of :attr:`training_items`, without the users."""
        return list(self.training_items.values())


def user_folds(
    interactions: Interactions,
    n_folds: int = 5,
    *,
    seed: int = 0,
    valid_share: float = 0.125,
) -> list[Split]:
    """Cross-validation over users: each user is tested in exactly one fold.

    Args:
        interactions: the data.
        n_folds: number of folds, at least 2.
        seed: the same seed gives the same folds.
        valid_share: part of the training users, 0 to below 1, that is set
            aside to tune on (at least one user unless the share is 0).

    Raises:
        ConfigError: a number of folds or a share that makes no sense.
        DataError: fewer users than folds.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds}: choose at least 2")
    _check_share("valid_share", valid_share)
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
        n_valid = _count(valid_share, len(rest))
        splits.append(
            Split(
                name=f"fold {number + 1} of {n_folds}",
                train_users=np.sort(shuffled[n_valid:]).astype(np.int64),
                valid_users=np.sort(shuffled[:n_valid]).astype(np.int64),
                test_users=np.sort(test).astype(np.int64),
            )
        )
    return splits


def temporal_split(
    interactions: Interactions,
    *,
    test_share: float = 0.2,
    valid_share: float = 0.1,
) -> Split:
    """Split users by the time of their target: the latest are tested.

    A user's target is the last row with label 1, or the last row where there
    is none. Training stops at ``cutoff``, the time of the earliest held-out
    target, also for the users it keeps, so no model sees what had not
    happened yet. (Item vectors are content; they follow the rule for reviews
    of :func:`prepare_fold` alone.)

    Args:
        interactions: the data.
        test_share: share of the users to test on, above 0.
        valid_share: share of the users to tune on; the rest train.

    Raises:
        ConfigError: shares that leave nobody to train on.
        DataError: fewer than three users.
    """
    _check_share("test_share", test_share)
    _check_share("valid_share", valid_share)
    if test_share == 0 or test_share + valid_share >= 1:
        raise ConfigError(
            f"test_share {test_share} and valid_share {valid_share} must be "
            "above 0 and leave users to train on"
        )
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
    n_test, n_valid = _count(test_share, n_users), _count(valid_share, n_users)
    held_out = order[n_users - n_test - n_valid :]
    return Split(
        name="temporal",
        train_users=np.sort(order[: n_users - n_test - n_valid]),
        valid_users=np.sort(held_out[:n_valid]),
        test_users=np.sort(held_out[n_valid:]),
        cutoff=int(times[held_out].min()),
    )


def _check_share(name: str, share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(f"{name} is {share}: choose 0 to below 1")


def _count(share: float, total: int) -> int:
    """``share`` of ``total``, rounded, but not nobody unless share is 0."""
    return min(max(1, round(share * total)), total - 1) if share else 0


def _training_rows(interactions: Interactions, split: Split) -> np.ndarray:
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
    which came first.

    Args:
        interactions: the data.
        users: user numbers.
        kind: ``"serendipity"``: every row with label 1; ``"next-item"``: the
            user's last row that has no label 1 and a rating of at least 4;
            ``"all-next"``: every row.
        max_history: the latest this many items are kept.
        per_user: at most this many targets of a user, chosen by ``seed``
            and the user's id, so that other users change nothing.
        min_history: targets with fewer earlier rows are left out (>= 1).
        seed: for ``per_user``.

    Returns:
        Examples in the order of users and time; ``n`` is the longest history
        there is (at most ``max_history``, at least 1).

    Raises:
        ConfigError: an unknown kind or a number below 1.
    """
    if kind not in TARGETS:
        raise ConfigError(
            f"unknown kind {kind!r}: choose one of {', '.join(TARGETS)}"
        )
    for name, value in (
        ("max_history", max_history),
        ("min_history", min_history),
        ("per_user", 1 if per_user is None else per_user),
    ):
        if value < 1:
            raise ConfigError(f"{name} is {value}: choose at least 1")
    frame = interactions.frame
    user_index = interactions.user_index
    starts = interactions.row_start[user_index]
    tie_start = _tie_starts(interactions)
    chosen = np.zeros(interactions.n_users, dtype=bool)
    chosen[np.asarray(users, dtype=np.int64)] = True
    eligible = chosen[user_index] & (tie_start - starts >= min_history)
    labels = frame["label"].to_numpy()
    if kind == "serendipity":
        eligible &= labels == 1
    elif kind == "next-item":
        eligible &= (labels != 1) & (frame["rating"].to_numpy() >= LIKED)
    rows = np.flatnonzero(eligible)
    if kind == "next-item":
        is_last = np.append(np.diff(user_index[rows]) != 0, True)
        rows = rows[is_last[: len(rows)]]
    if per_user is not None:
        rows = _limit(interactions, rows, per_user, seed)
    return _examples(interactions, rows, tie_start, max_history)


def _tie_starts(interactions: Interactions) -> np.ndarray:
    """First row of the same user with the same timestamp, per row, [R]."""
    seconds = interactions.frame["timestamp"].to_numpy()
    users = interactions.user_index
    is_new = np.ones(len(users), dtype=bool)
    is_new[1:] = (np.diff(users) != 0) | (np.diff(seconds) != 0)
    firsts = np.flatnonzero(is_new)
    return firsts[np.cumsum(is_new) - 1]


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


def prepare_fold(
    interactions: Interactions,
    split: Split,
    *,
    kind: str | None = None,
    encoder: Encoder | None = None,
    reviews: str = "unlabelled",
    max_history: int = 100,
    train_per_user: int = 20,
    seed: int = 0,
) -> FoldData:
    """Examples and item vectors of one fold, with nothing held out inside.

    Args:
        interactions: the data.
        split: the users of the fold.
        kind: ``"serendipity"`` or ``"next-item"``; None takes the first
            where the data have labels and the second where not. For next
            items, validation and test take each user's last liked item and
            training takes up to ``train_per_user`` rows of each user.
        encoder: turns reviews into vectors; None for the packaged one.
        reviews: which reviews make an item's vector. ``"unlabelled"``: those
            that are nobody's label-1 review and no held-out target's;
            ``"train"``: all but held-out targets'; ``"all"``: every review.
            The last is the leak: the review that made the label is inside
            the vector of the item to be found. Data whose texts describe
            items instead of reviewing them (MovieLens) use every text.
        max_history: the latest this many items of a history are kept.
        train_per_user: see ``kind``.
        seed: for the choice of those rows.

    Raises:
        ConfigError: an unknown kind or rule for reviews.
        DataError: no text is left, or there is nothing to train or test on.
    """
    if kind is None:
        kind = "serendipity" if interactions.has_labels else "next-item"
    if kind not in KINDS:
        raise ConfigError(
            f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}"
        )
    if reviews not in REVIEWS:
        raise ConfigError(
            f"unknown reviews {reviews!r}: choose one of {', '.join(REVIEWS)}"
        )
    parts = {
        part: make_examples(interactions, users, kind, max_history=max_history)
        for part, users in (
            ("valid", split.valid_users),
            ("test", split.test_users),
        )
    }
    parts["train"] = make_examples(
        interactions,
        split.train_users,
        "serendipity" if kind == "serendipity" else "all-next",
        max_history=max_history,
        per_user=None if kind == "serendipity" else train_per_user,
        seed=seed,
    )
    training_rows = _training_rows(interactions, split)
    if split.cutoff is not None:
        in_time = np.isin(parts["train"].rows, training_rows)
        parts["train"] = parts["train"].subset(in_time)
    held_out = np.concatenate([parts["valid"].rows, parts["test"].rows])
    allowed = allowed_reviews(interactions, held_out, reviews)
    vectors, missing = _item_vectors(interactions, allowed, encoder)
    dropped = {}
    for part, examples in parts.items():
        has_vector = ~np.isin(examples.targets.numpy(), missing)
        dropped[part] = int((~has_vector).sum())
        parts[part] = examples.subset(has_vector)
    for part in ("train", "test"):
        asked = part == "train" or len(split.test_users)
        if asked and not len(parts[part]):
            raise DataError(
                f"{interactions.name}, {split.name}: no {kind} target in "
                f"its {part} users ({dropped[part]} left out because their "
                "item has no other review)"
            )
    return FoldData(
        interactions=interactions,
        split=split,
        kind=kind,
        raw_vectors=vectors,
        missing_items=missing,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        train_items=np.unique(interactions.item_index[training_rows]),
        dropped=dropped,
    )


def allowed_reviews(
    interactions: Interactions, held_out_rows: np.ndarray, reviews: str
) -> np.ndarray:
    """Which rows' texts may enter item vectors, bool, shape [R].

    Args:
        interactions: the data.
        held_out_rows: rows of validation and test targets.
        reviews: see :func:`prepare_fold`.
    """
    allowed = interactions.frame["review"].to_numpy(dtype=object) != ""
    if reviews == "all" or interactions.texts_describe_items:
        return allowed
    allowed[held_out_rows] = False
    if reviews == "unlabelled":
        allowed &= interactions.frame["label"].to_numpy() != 1
    return allowed


def _item_vectors(
    interactions: Interactions, allowed: np.ndarray, encoder: Encoder | None
) -> tuple[torch.Tensor, np.ndarray]:
    """Vectors [N + 1, d] from the allowed rows, and the missing items."""
    from serendifflib.items import default_encoder, mean_vectors

    if not allowed.any():
        raise DataError(
            f"{interactions.name}: no review may be used for item vectors"
        )
    # Every text is encoded, allowed or not, so that all folds ask the
    # encoder's cache for the same list.
    text_index, texts = pd.factorize(
        interactions.frame["review"].to_numpy(dtype=object)
    )
    encoder = encoder or default_encoder()
    return mean_vectors(
        encoder.encode(list(texts)),
        text_index.astype(np.int64),
        interactions.item_index,
        allowed,
        interactions.n_items,
    )
