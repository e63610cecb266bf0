"""A fold: its examples, and item vectors with nothing held out inside.

Letters: M examples, n history length, N items, R rows, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import (
    Examples,
    Split,
    make_examples,
    training_rows_of,
    whole_split,
)
from serendifflib.errors import DataError, check_choice
from serendifflib.portrait.encoding import Encoder, default_encoder
from serendifflib.portrait.items import mean_vectors

KINDS = ("serendipity", "next-item")
PER_USER = 5  # next-item targets per user in pre-training
REVIEWS = ("unlabelled", "train", "all")
COUNTED = ("all", "unlabelled")


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
        allowed: rows whose texts may enter item vectors, bool, [R].
        dropped: examples of each part whose target is a missing item.
        counted: which training rows count for expectedness and popularity:
            ``all``, or those that are ``unlabelled``: what surprised people
            is then no sign of what they meet anyway.
        store: portrait spaces that models of this fold share.
    """

    interactions: Interactions
    split: Split
    kind: str
    raw_vectors: Tensor
    missing_items: np.ndarray
    train: Examples
    valid: Examples
    test: Examples
    train_items: np.ndarray
    allowed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    dropped: Mapping[str, int] = field(default_factory=dict)
    counted: str = "all"
    store: dict = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def training_rows(self) -> np.ndarray:
        """Rows that training may use for co-occurrence and popularity."""
        check_choice("counted", self.counted, COUNTED)
        rows = training_rows_of(self.interactions, self.split)
        if self.counted == "all":
            return rows
        labels = self.interactions.frame["label"].to_numpy()
        return rows[labels[rows] != 1]

    @cached_property
    def training_items(self) -> Mapping[int, np.ndarray]:
        """User number -> item numbers of the training rows, in time order."""
        rows = self.training_rows
        users = self.interactions.user_index[rows]
        items = self.interactions.item_index[rows]
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        return {
            int(users[start]): items[start:end]
            for start, end in pairwise([*starts, len(items)])
        }

    @cached_property
    def catalogue(self) -> np.ndarray:
        """Numbers of all items that can be candidates, int64, sorted."""
        everything = np.arange(1, self.interactions.n_items + 1)
        return np.setdiff1d(everything, self.missing_items)

    def next_items(self, per_user: int, max_history: int = 100) -> Examples:
        """Next-item targets of the training users, to pre-train on.

        Training rows with two items before them whose item has a vector.
        """
        found = make_examples(
            self.interactions,
            self.split.train_users,
            "all-next",
            max_history=max_history,
            per_user=per_user,
            min_history=2,
        )
        known = ~np.isin(found.targets.numpy(), self.missing_items)
        allowed = training_rows_of(self.interactions, self.split)
        return found.subset(known & np.isin(found.rows, allowed))

    def training_histories(self) -> list[np.ndarray]:
        """The sequences of :attr:`training_items`, without the users."""
        return list(self.training_items.values())


def plan_fold(
    interactions: Interactions,
    split: Split,
    *,
    kind: str | None = None,
    reviews: str = "unlabelled",
    max_history: int = 100,
    train_per_user: int = 20,
) -> FoldData:
    """A fold before any text is encoded, with empty item vectors.

    Args:
        interactions: the data.
        split: the users of the fold.
        kind: ``"serendipity"`` or ``"next-item"``; None takes the first
            where the data have labels. Of next items, validation and test
            take each user's last liked one, training ``train_per_user``.
        reviews: which reviews make an item's vector. ``"unlabelled"``: those
            that are nobody's label-1 review and no held-out target's;
            ``"train"``: all but held-out targets'; ``"all"``: every review,
            a leak, for the item to be found has in its vector what made the
            label. Texts that describe items (MovieLens) are all used.
        max_history: the latest this many items of a history are kept.
        train_per_user: see ``kind``.

    Raises:
        ConfigError: an unknown kind or rule for reviews.
        DataError: no text, or nothing to train or test on; says why.
    """
    if kind is None:
        kind = "serendipity" if interactions.has_labels else "next-item"
    check_choice("kind", kind, KINDS)
    check_choice("reviews", reviews, REVIEWS)
    rows = training_rows_of(interactions, split)
    parts = _parts(interactions, split, kind, max_history, train_per_user)
    parts["train"] = parts["train"].subset(np.isin(parts["train"].rows, rows))
    held_out = np.concatenate([parts["valid"].rows, parts["test"].rows])
    allowed = allowed_reviews(interactions, held_out, reviews)
    _check_texts(interactions, allowed)
    everything = np.arange(1, interactions.n_items + 1)
    missing = np.setdiff1d(everything, interactions.item_index[allowed])
    kept = {
        part: one.subset(~np.isin(one.targets.numpy(), missing))
        for part, one in parts.items()
    }
    plan = FoldData(
        interactions=interactions,
        split=split,
        kind=kind,
        raw_vectors=torch.zeros(0, 0),
        missing_items=missing,
        train_items=np.unique(interactions.item_index[rows]),
        allowed=allowed,
        dropped={part: len(parts[part]) - len(kept[part]) for part in kept},
        train=kept["train"],
        valid=kept["valid"],
        test=kept["test"],
    )
    _check_parts(plan)
    return plan


def _parts(
    interactions: Interactions,
    split: Split,
    kind: str,
    max_history: int,
    train_per_user: int,
) -> dict[str, Examples]:
    """The examples of all parts, whether their target has a text or not."""
    past: dict = {"max_history": max_history}
    parts = {
        "valid": make_examples(interactions, split.valid_users, kind, **past),
        "test": make_examples(interactions, split.test_users, kind, **past),
    }
    if kind == "next-item":
        kind, past["per_user"] = "all-next", train_per_user
    users = split.train_users
    return parts | {"train": make_examples(interactions, users, kind, **past)}


def _check_parts(plan: FoldData) -> None:
    """Refuse a fold without a target to train or test on, and say why."""
    asked = ("train", "test") if len(plan.split.test_users) else ("train",)
    for part in asked:
        if not len(getattr(plan, part)):
            raise DataError(
                f"{plan.interactions.name}, {plan.split.name}: no {plan.kind} "
                f"target in its {part} users: {_why_nothing(plan, part)}"
            )


def _check_texts(interactions: Interactions, allowed: np.ndarray) -> None:
    """Refuse data of whose items nothing is known, and say why."""
    texts = interactions.frame["review"].to_numpy(dtype=object)
    if not allowed.any():
        why = "no row has one"
        if there := int((texts != "").sum()):
            why = (
                f"all {there:,} rows that have one are labelled or held out, "
                "and such a review stays out of its item's vector"
                f"{_advice(interactions)}"
            )
        raise DataError(
            f"{interactions.name}: no review may be used for item vectors, "
            f"so no item gets one: {why}"
        )
    if interactions.n_items > 1 and len(set(texts[allowed])) == 1:
        raise DataError(
            f"{interactions.name}: all reviews are the same text, so no item "
            "can be told from another"
        )


def _why_nothing(plan: FoldData, part: str) -> str:
    """Why a part has no example: no label, no history, or no text."""
    data = plan.interactions
    if dropped := plan.dropped[part]:
        return (
            f"{dropped:,} left out because their item has no other review"
            f"{_advice(data)}"
        )
    rows = np.isin(data.user_index, getattr(plan.split, f"{part}_users"))
    what, rated = "rows", ", or a rating of 4 or more"
    if plan.kind == "serendipity":
        rows &= data.frame["label"].to_numpy() == 1
        what, rated = "labels", ""
    if not rows.any():
        return f"they have no {what}"
    none = f"none of their {int(rows.sum()):,} {what} has a history"
    times = data.frame["timestamp"].to_numpy()
    firsts = data.row_start[data.user_index]
    later = np.arange(len(rows)) > firsts
    if (later & (times == times[firsts]))[rows].any():
        return f"{none}, because the user's rows all have the same time"
    return f"{none}, a row of the same user at an earlier time{rated}"


def _advice(interactions: Interactions) -> str:
    if interactions.texts_describe_items:
        return ""
    return (
        "; if the texts describe items, and are no reviews, say "
        "texts_describe_items=True (--texts-describe-items)"
    )


def prepare_fold(
    interactions: Interactions,
    split: Split,
    *,
    encoder: Encoder | None = None,
    progress: bool = True,
    **options,
) -> FoldData:
    """Examples and item vectors of one fold, with nothing held out inside.

    What cannot be fitted is refused before anything is encoded.

    Args:
        interactions: the data.
        split: the users of the fold.
        encoder: turns reviews into vectors; None for the packaged one.
        progress: show how far the packaged one is.
        **options: see :func:`plan_fold`, errors too.
    """
    plan = plan_fold(interactions, split, **options)
    # Every text is encoded, allowed or not, so that all folds ask the
    # encoder's cache for the same list.
    text_index, texts = pd.factorize(
        interactions.frame["review"].to_numpy(dtype=object)
    )
    chosen: Encoder = encoder or default_encoder(progress=progress)
    vectors = mean_vectors(
        chosen.encode(list(texts)),
        text_index.astype(np.int64),
        interactions.item_index,
        plan.allowed,
        interactions.n_items,
    )
    return replace(plan, raw_vectors=vectors)


def whole_fold(
    interactions: Interactions, *, progress: bool = True
) -> FoldData:
    """All users train, but every tenth, who validates; nobody tests."""
    return prepare_fold(
        interactions,
        whole_split(interactions),
        progress=progress,
        train_per_user=PER_USER,
    )


def allowed_reviews(
    interactions: Interactions, held_out_rows: np.ndarray, reviews: str
) -> np.ndarray:
    """Which texts may enter item vectors, bool [R]; see ``plan_fold``."""
    allowed = interactions.frame["review"].to_numpy(dtype=object) != ""
    if reviews == "all" or interactions.texts_describe_items:
        return allowed
    allowed[held_out_rows] = False
    if reviews == "unlabelled":
        allowed &= interactions.frame["label"].to_numpy() != 1
    return allowed


def outlook(data: Interactions) -> tuple[list[tuple[str, str]], str]:
    """Findings (what, found) about a fit, and why it is impossible, or ""."""
    frame, users = data.frame, np.arange(data.n_users)
    labels = int((frame["label"] == 1).sum())
    asked = len(make_examples(data, users, "serendipity"))
    try:
        allowed, reason = plan_fold(data, whole_split(data)).allowed, ""
    except DataError as error:
        allowed = allowed_reviews(data, users[:0], "unlabelled")
        reason = str(error)
    unknown = data.n_items - len(np.unique(data.item_index[allowed]))
    rated, ratings = frame["rating"].dropna(), "none"
    if len(rated):
        unrated = f"{len(frame) - len(rated):,} without"
        ratings = f"{rated.min():g} to {rated.max():g}, {unrated}"
    found = [
        ("times", data.span),
        ("ratings", ratings),
        ("share of label 1", f"{labels / len(frame):.2%}"),
        ("labels with a history", f"{asked:,} of {labels:,}"),
        ("items without a vector", f"{unknown:,} of {data.n_items:,}"),
        ("longest history", f"{np.diff(data.row_start).max():,} items"),
    ]
    if not reason:
        texts = pd.unique(frame["review"].to_numpy(dtype=object))
        minutes = default_encoder().seconds_for(list(texts)) / 60
        what = f"{len(texts):,} texts, about {minutes:.1f} min"
        found.append(("time to encode here", what))
    return found, reason
