"""A fold: its examples, and item vectors with nothing held out inside.

Letters: M examples, n history length, N items, R rows, d width.
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

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import (
    Examples,
    Split,
    make_examples,
    training_rows_of,
)
from serendifflib.errors import ConfigError, DataError
from serendifflib.portrait.items import default_encoder, mean_vectors

KINDS = ("serendipity", "next-item")


REVIEWS = ("unlabelled", "train", "all")


class Encoder(Protocol):
    """Turns texts into vectors; see :mod:`serendifflib.portrait.items`."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of texts, float32, shape [len(texts), d]."""
        ...


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
        return training_rows_of(self.interactions, self.split)

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
    training_rows = training_rows_of(interactions, split)
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
