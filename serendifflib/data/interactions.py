"""Interactions: who read what, when, with which review and label."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from serendifflib.errors import UnknownItemError, UnknownUserError
from serendifflib.io import content_hash

if TYPE_CHECKING:
    from serendifflib.data.world import World

COLUMNS = ("user_id", "item_id", "timestamp", "review", "rating", "label")
_BLOCK = 10_000  # rows hashed at a time, to keep long reviews out of memory


def derived_seed(seed: int, *parts: object) -> int:
    """A seed of its own for, say, one user, whatever else is drawn."""
    return int(content_hash(seed, *parts)[:32], 16)


def plain_id(value: object) -> str:
    """An id as text: no spaces around it, no point after a whole number.

    >>> plain_id(196.0), plain_id(" b 1 ")
    ('196', 'b 1')
    """
    text = str(value).strip()
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text


def find_id(
    what: str, ids: Sequence[str] | np.ndarray, wanted: object, name: str
) -> int:
    """Place of an id among sorted ``ids`` of a ``"user"`` or ``"item"``.

    Raises:
        UnknownUserError, UnknownItemError: it is not among them.
    """
    text = plain_id(wanted)
    place = bisect_left(ids, text)
    if place == len(ids) or ids[place] != text:
        unknown = UnknownUserError if what == "user" else UnknownItemError
        raise unknown(
            f"{what} {text!r} does not occur in {name}; "
            f"ids look like {ids[0]!r}"
        )
    return place


def period(times: pd.Series) -> str:
    """First and last of some times in seconds, e.g. for a check by eye."""
    ends = (np.datetime64(int(t), "s") for t in (times.min(), times.max()))
    return " to ".join(str(end).replace("T", " ") for end in ends)


@dataclass(frozen=True)
class Interactions:
    """A validated table of interactions, ordered by user and time.

    Users are numbered 0..U-1 and items 1..N in the sorted order of their
    ids; item 0 is padding and never occurs.

    Attributes:
        name: the data id, e.g. ``"synthetic"``.
        frame: columns of :data:`COLUMNS`; strings, int64 seconds, float
            rating, int8 label; rows sorted by user and time.
        source: one plain sentence about where these rows come from.
        has_labels: whether ``label`` carries serendipity labels at all.
        titles: item id -> title, where titles are known.
        notes: what cleaning did, one sentence each (duplicates, ...).
        world: the simulator behind the rows, or None for real data.
        texts_describe_items: whether ``review`` describes the item; such a
            text cannot carry a label, so it is never held out.
    """

    name: str
    frame: pd.DataFrame
    source: str
    has_labels: bool
    titles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    world: World | None = None
    texts_describe_items: bool = False

    @property
    def span(self) -> str:
        """First and last time of the rows."""
        return f"{period(self.frame['timestamp'])} (UTC)"

    @cached_property
    def users(self) -> np.ndarray:
        """User ids, sorted, shape [U]."""
        return np.unique(self.frame["user_id"].to_numpy(dtype=object))

    @cached_property
    def items(self) -> np.ndarray:
        """Item ids, sorted, shape [N]; item number j is ``items[j - 1]``."""
        return np.unique(self.frame["item_id"].to_numpy(dtype=object))

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return len(self.items)

    @cached_property
    def user_index(self) -> np.ndarray:
        """User number of every row, int64, shape [R], values 0..U-1."""
        ids: np.ndarray = self.frame["user_id"].to_numpy(dtype=object)
        return np.searchsorted(self.users, ids).astype(np.int64)

    @cached_property
    def item_index(self) -> np.ndarray:
        """Item number of every row, int64, shape [R], values 1..N."""
        ids: np.ndarray = self.frame["item_id"].to_numpy(dtype=object)
        return np.searchsorted(self.items, ids).astype(np.int64) + 1

    @cached_property
    def row_start(self) -> np.ndarray:
        """First row of each user and the end, shape [U + 1]."""
        return np.searchsorted(self.user_index, np.arange(self.n_users + 1))

    def rows(self, user: int) -> np.ndarray:
        """Row numbers of user number ``user`` in time order."""
        return np.arange(self.row_start[user], self.row_start[user + 1])

    def user_number(self, user_id: object) -> int:
        """Number of a user id, or an UnknownUserError."""
        return find_id("user", self.users, user_id, self.name)

    def item_number(self, item_id: object) -> int:
        """Number (1..N) of an item id, or an UnknownItemError."""
        return find_id("item", self.items, item_id, self.name) + 1

    def title(self, item: int) -> str:
        """Title of item number ``item``, or its id where none is known."""
        item_id = self.items[item - 1]
        return self.titles.get(item_id, item_id)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the content of all rows (not over file bytes)."""
        parts: list[object] = []
        for column in COLUMNS:
            values = self.frame[column].to_numpy()
            if values.dtype.kind in "if":
                parts.append(values)
                continue
            for start in range(0, len(values), _BLOCK):
                block = [
                    str(value).encode("utf-8", "surrogatepass")
                    for value in values[start : start + _BLOCK]
                ]
                parts.append(np.array([len(value) for value in block]))
                parts.append(b"".join(block))
                parts = [content_hash(*parts)]
        return content_hash(*parts)
