"""What a fitted model remembers of its data: ids, titles, histories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from serendifflib.data.interactions import Interactions, find_id
from serendifflib.errors import ConfigError


@dataclass(frozen=True)
class Catalogue:
    """Ids, titles and histories, without reviews.

    Attributes:
        name: data id.
        source: one sentence about where the data come from.
        users: user ids, sorted, [U].
        items: item ids, sorted, [N]; item number j is ``items[j - 1]``.
        titles: title (or id) of each item, [N].
        histories: item numbers of each user in time order.
        counted: which of them are in the co-occurrence counts, a mask of
            each history: those of the training users (up to the cutoff of
            a split by time), none of the others.
    """

    name: str
    source: str
    users: list[str]
    items: list[str]
    titles: list[str]
    histories: list[np.ndarray]
    counted: list[np.ndarray]

    @classmethod
    def from_interactions(
        cls, interactions: Interactions, training_rows: np.ndarray
    ) -> Catalogue:
        """What is needed to recommend; ``training_rows`` are counted."""
        data, items = interactions, interactions.item_index
        counted = np.isin(np.arange(len(items)), training_rows)
        return cls(
            name=data.name,
            source=data.source,
            users=[str(user) for user in data.users],
            items=[str(item) for item in data.items],
            titles=[str(data.title(j)) for j in range(1, data.n_items + 1)],
            histories=np.split(items, data.row_start[1:-1]),
            counted=np.split(counted, data.row_start[1:-1]),
        )

    @property
    def is_training(self) -> np.ndarray:
        """Users with rows in the co-occurrence counts, bool, [U]."""
        return np.array([mask.any() for mask in self.counted], dtype=bool)

    def part(self, items: Sequence[int]) -> Catalogue:
        """Some items, by ascending numbers; nothing of any user."""
        return replace(
            self,
            users=[],
            items=[self.items[item - 1] for item in items],
            titles=[self.title(item) for item in items],
            histories=[],
            counted=[],
        )

    def title(self, item: int) -> str:
        """Title of item number ``item``."""
        return self.titles[item - 1]

    def user_number(self, user: object) -> int:
        """Number of a user id."""
        return find_id("user", self.users, user, self.name)

    def item_number(self, item: object) -> int:
        """Number (1..N) of an item id."""
        return find_id("item", self.items, item, self.name) + 1

    def item_numbers(self, items: Iterable[object]) -> np.ndarray:
        """Numbers of some item ids, each once, int64.

        Raises:
            UnknownItemError: an id does not occur.
            ConfigError: one text instead of a list.
        """
        if isinstance(items, str):
            raise ConfigError(f"{items!r} is one text; give a list of ids")
        known = [self.item_number(item) for item in items]
        return np.array(list(dict.fromkeys(known)), dtype=np.int64)

    def reader(
        self, user: object, items: Iterable[object] | None
    ) -> tuple[str, np.ndarray, np.ndarray | None]:
        """A user, or somebody new who is known by a list of items.

        Returns:
            name, history, and the items that the counts know of the reader;
            None where they know nothing.

        Raises:
            UnknownUserError, UnknownItemError: no such id.
            ConfigError: neither a user nor items, or both.
        """
        if (user is None) == (items is None):
            raise ConfigError("name either a user or items, e.g. items=['a']")
        if items is None:
            number = self.user_number(user)
            history = self.histories[number]
            counted = history[self.counted[number]]
            return str(user), history, counted if len(counted) else None
        history = self.item_numbers(items)
        if not len(history):
            raise ConfigError("items is empty: name at least one item id")
        return "somebody new", history, None
