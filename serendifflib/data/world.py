"""The simulated world: reviews that read like reviews, and a known truth.

:mod:`serendifflib.data.population` draws items, users and ordinary rows,
:mod:`serendifflib.data.reviews` words and ratings; here are the labels, by
the laws of :mod:`serendifflib.data.law`.

The label stands at a uniform position in the last 40% of the sequence; the
rows after it are ordinary. The dials of ``LAWS`` were set with the oracle
alone (hit ratio at 10 among 1,000 candidates about 0.6 for strong and forked,
0.3 for weak), before any model was trained on them; ``human`` has the weights
that people gave. In the null worlds the label is uniform.

``World.like`` matches the sizes of Table 1. There some users have a second
label: its history holds the rows before it, the first label included. The
distinct label items must come to an exact number D: the first D labels (all
first labels of users in random order, then the second ones) are drawn over
items that are nobody's label yet, the others over the D items that are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.special import log_softmax

from serendifflib.data.interactions import Interactions
from serendifflib.data.law import (
    NORM,
    PRIMARY,
    SECONDARY,
    THEMES_PER_GENRE,
    AnyLaw,
    ForkedLaw,
    HumanLaw,
    Law,
    Meetings,
    pair_cosines,
)
from serendifflib.data.population import (
    SIZES,
    Population,
    Sizes,
    shuffled,
    stream,
)
from serendifflib.data.reviews import draw_frame
from serendifflib.errors import ConfigError, UnknownUserError, check_choice

WEIGHT_SCALE = 2.0**40
ZONE_MASS = 0.8

LAWS: dict[str, AnyLaw] = {
    "strong": Law(zone=1.0, content=6.0, popularity=0.3),
    "weak": Law(zone=0.5, content=4.3, popularity=0.3),
    "null": Law(zone=0.0, content=0.0, popularity=0.0),
    "forked": ForkedLaw(zone=1.0, content=7.0),
    "forked-null": ForkedLaw(zone=0.0, content=0.0),
    "human": HumanLaw(zone=1.0),
    "human-null": HumanLaw(zone=0.0),
}


def _law(preset: str, bridges: int | None) -> AnyLaw:
    """Law of a preset, with another number of bridges where it has one."""
    check_choice("preset", preset, LAWS, "world")
    law = LAWS[preset]
    if bridges is None:
        return law
    if not isinstance(law, ForkedLaw) or bridges not in range(1, 7):
        raise ConfigError(
            f"a {preset} world with {bridges} bridges is not possible; "
            "use a forked preset and 1 to 6 bridges"
        )
    return replace(law, bridges=bridges)


class World(Population):
    """A catalogue, users, and labels drawn from a law that is known.

    Args:
        preset: a name in :data:`LAWS`, e.g. ``"strong"`` or ``"forked"``.
        n_users: number of users U.
        n_items: number of items N; every one of them occurs.
        seed: the world's seed, 0 or more; it also draws the hidden bridge.
        bridges: number of bridges K, 1..6, of a forked preset.
        sizes: exact counts to match instead of the numbers above.
        name: data id of the interactions.

    Attributes:
        law: the dials of the label law.
        theme_names: names of the 96 themes, ``"genre: theme"``.
        bridge: bridge theme of every theme, int64 [96].
        niche, second: theme numbers of every user, int64 [U].
        boldness: float64 [U] in (0, 1).
        primary, secondary: theme numbers of every item, int64 [N + 1]; item
            0 is padding and holds -1.
        popularity: weight of every item, int64 [N + 1].
        titles: title of every item, list of N + 1 strings.

    Raises:
        ConfigError: unknown preset, or sizes that cannot be met.
    """

    def __init__(
        self,
        preset: str = "strong",
        *,
        n_users: int = 2000,
        n_items: int = 2000,
        seed: int = 0,
        sizes: Sizes | None = None,
        name: str | None = None,
        bridges: int | None = None,
    ) -> None:
        self.preset = preset
        super().__init__(
            _law(preset, bridges),
            n_users=n_users,
            n_items=n_items,
            seed=seed,
            sizes=sizes,
        )
        suffix = "" if preset == "strong" else f"-{preset}"
        count = "" if bridges is None else f"-{bridges}"
        self.name = name or f"synthetic{suffix}{count}"
        self._draw_labels(stream(seed, 5))

    @classmethod
    def like(cls, which: str, *, seed: int = 0) -> World:
        """World in the sizes of a data set of Table 1, named as there."""
        check_choice("sizes", which, SIZES, "world")
        return cls(
            "strong",
            seed=seed,
            sizes=SIZES[which],
            name=f"synthetic-like-{which}",
        )

    def describe(self) -> str:
        """One sentence about this world."""
        law = self.law
        return (
            f"Simulated world {self.name!r} (seed {self.seed}): "
            f"{self.n_users:,} users, {self.n_items:,} items, "
            f"{len(self.row_item):,} interactions, "
            f"{len(self.label_row):,} serendipity labels; label law with "
            f"zone {law.zone:g}, content {law.content:g}, "
            f"popularity {law.popularity:g}."
        )

    def _reach(self, items: np.ndarray) -> float:
        """Mean radius of each item (from the second) from those before."""
        n, n_themes = len(items), len(self.theme_names)
        one = np.zeros((n, n_themes), np.int64)
        np.add.at(one, (np.arange(n), self.primary[items]), PRIMARY)
        np.add.at(one, (np.arange(n), self.secondary[items]), SECONDARY)
        both = np.concatenate(
            (one, one.reshape(n, -1, THEMES_PER_GENRE).sum(axis=2)), axis=1
        )
        before = np.cumsum(both, axis=0)[:-1]
        dot = (before * both[1:]).sum(axis=1)
        norm = (before * before).sum(axis=1)
        radius = 1 - dot / np.sqrt(NORM * norm)
        return float(np.cumsum(radius)[-1] / (n - 1))

    def _class_logits(self, user: int, items: np.ndarray) -> np.ndarray:
        """Zone and content part of the law for every class of items."""
        law = self.law
        assert isinstance(law, Law)  # the other kinds judge item by item
        n_themes = len(self.theme_names)
        first, other = self._classes // n_themes, self._classes % n_themes
        taste, norm = self.taste(items)
        dot = PRIMARY * taste[first] + SECONDARY * taste[other]
        radius = 1 - dot / np.sqrt(NORM * norm)
        off = radius - (self._reach(items) + law.stretch)
        goal = self.bridge[self.niche[user]]
        themes = np.arange(n_themes)
        near = (themes == goal).astype(np.int64) + (
            themes // THEMES_PER_GENRE == goal // THEMES_PER_GENRE
        )
        match = PRIMARY * near[first] + SECONDARY * near[other]
        content = match / np.sqrt(NORM * 2.0)
        zone = -(off * off) / (2 * law.width * law.width)
        return np.round(law.zone * zone + law.content * content, 9)

    def _item_logits(self, user: int, history: np.ndarray) -> np.ndarray:
        """Log-weight of every item under a law with places, [N]."""
        if isinstance(self.law, HumanLaw):
            first, other = np.divmod(self._classes, len(self.theme_names))
            taste, _ = self.taste(history)
            dots = PRIMARY * taste[first] + SECONDARY * taste[other]
            places = self._met.places(user, history)
            return self.law.logits(dots[self._class_of], places)
        parts = self.bridge_log_chances(user, history)
        top = parts.max(axis=0)
        mean = np.exp(parts - top).sum(axis=0) / len(parts)
        return np.round(top + np.log(mean), 9)

    def bridge_log_chances(
        self,
        user: int,
        history: np.ndarray | None = None,
        seen: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log-probability of every item of a forked world by bridge, [K, N].

        ``history`` None is the user's own before the label. ``seen`` are
        places as somebody sees them, [N]: their mean squared error widens
        the reaches.
        """
        law = self.law
        assert isinstance(law, ForkedLaw)  # of other worlds nobody asks this
        if history is None:
            history = self.before(self._row_of_label(user, 0))
        places, variance = self._met.places(user, history), law.width**2
        if seen is not None:
            variance += float(((seen - places) ** 2).mean())
            places = seen
        off = places - law.reaches[:, None]
        zone = -(off * off) / (2 * variance)
        niche = self.niche[user]
        content = pair_cosines(
            np.column_stack((self.bridges[niche], self.pairs[niche])),
            self.primary[1:],
            self.secondary[1:],
            len(self.theme_names),
        )
        return log_softmax(law.zone * zone + law.content * content, axis=-1)

    def _draw_labels(self, rng: np.random.Generator) -> None:
        if not isinstance(self.law, Law):
            plain = self.row_label == 0
            self._met = Meetings(
                self.row_user[plain],
                self.row_item[plain],
                self.n_users,
                self.n_items,
            )
        users = self.row_user[self.label_row]
        is_first = np.concatenate(([True], users[1:] != users[:-1]))
        limit = self.sizes.n_label_items if self.sizes else None
        used = np.zeros(self.n_items, bool)
        last = np.zeros(self.n_users, np.int64)
        last[users] = self.label_row  # the later of two wins
        tail = np.flatnonzero(
            np.arange(len(self.row_item)) > last[self.row_user]
        )
        popularity, n_drawn = np.exp(self._pop_logit), 0
        for turn in (is_first, ~is_first):
            rows = self.label_row[turn]
            rows = rows[shuffled(rng, len(rows))]
            for row, u in zip(rows, rng.random(len(rows)), strict=True):
                history = self.before(row)
                if isinstance(self.law, Law):
                    logits = self._class_logits(self.row_user[row], history)
                    weight = np.exp(logits - logits.max())[self._class_of]
                    weight = weight * popularity
                else:
                    logits = self._item_logits(self.row_user[row], history)
                    weight = np.exp(logits - logits.max())
                weight = np.rint(weight * WEIGHT_SCALE)
                weight[history - 1] = 0
                if limit is not None:
                    weight[used if n_drawn < limit else ~used] = 0
                total = np.cumsum(weight.astype(np.int64))
                point = min(int(u * float(total[-1])), int(total[-1]) - 1)
                item = np.searchsorted(total, point, side="right") + 1
                self.row_item[row] = item
                used[item - 1] = True
                n_drawn += 1
            self._separate(rng, rows, tail)

    def _separate(
        self, rng: np.random.Generator, rows: np.ndarray, tail: np.ndarray
    ) -> None:
        """Swap a later row that repeats a label item with one after all."""
        for row in rows:
            user, item = self.row_user[row], self.row_item[row]
            later = np.arange(row + 1, self.row_start[user + 1])
            for again in later[self.row_item[later] == item]:
                for other in tail[shuffled(rng, len(tail))]:
                    if self._swap(again, other):
                        break
                else:
                    raise ConfigError(
                        "the world is too small to keep items from "
                        "repeating; use more users or more items"
                    )

    def _swap(self, one: int, two: int) -> bool:
        """Swap the items of two rows unless that makes a repeat."""
        mine, theirs = self.row_user[one], self.row_user[two]
        a, b = self.items_of(mine), self.items_of(theirs)
        x, y = self.row_item[one], self.row_item[two]
        if mine == theirs or x in b or y in a:
            return False
        self.row_item[one], self.row_item[two] = y, x
        return True

    def reach(self, user: int) -> float:
        """Reach of a user: mean radius of the history before the label."""
        return self._reach(self.before(self._row_of_label(user, 0)))

    def label_rows(self, user: int) -> np.ndarray:
        """Row numbers of the user's labels; refuses an unknown number."""
        if not 0 <= user < self.n_users:
            raise UnknownUserError(
                f"user number {user} does not occur in {self.name}; "
                f"numbers are 0..{self.n_users - 1}"
            )
        low, high = np.searchsorted(
            self.label_row, self.row_start[user : user + 2]
        )
        return self.label_row[low:high]

    def _row_of_label(self, user: int, which: int) -> int:
        rows = self.label_rows(user)
        if not 0 <= which < len(rows):
            raise UnknownUserError(
                f"user number {user} has {len(rows)} label(s), "
                f"there is none with index {which}"
            )
        return int(rows[which])

    def oracle_scores(
        self, user: int, items: np.ndarray | None = None, *, which: int = 0
    ) -> np.ndarray:
        """True log-probability, up to a constant, of each item as the label.

        Of the user's label number ``which``, 0 or 1; float64 [N + 1], or the
        shape of ``items``; padding and the history before it are ``-inf``.

        Raises:
            UnknownUserError: no such user, or no such label of the user.
        """
        history = self.before(self._row_of_label(user, which))
        scores = np.full(self.n_items + 1, -np.inf)
        if not isinstance(self.law, Law):
            scores[1:] = self._item_logits(user, history)
        else:
            logits = self._class_logits(user, history)
            scores[1:] = logits[self._class_of] + self._pop_logit
        scores[history] = -np.inf
        return scores if items is None else scores[np.asarray(items)]

    def true_zone(self, user: int, cells: np.ndarray, side: int) -> np.ndarray:
        """Probability of each cell for the first label by the law, [L, L].

        ``cells`` are grid indices of every item, padding included, in the
        plane of the model under study, int [N + 1, 2].
        """
        scores = self.oracle_scores(user)
        chance = np.exp(scores - scores.max())
        zone = np.zeros((side, side))
        cells = np.asarray(cells)
        np.add.at(zone, (cells[1:, 0], cells[1:, 1]), chance[1:])
        return zone / chance.sum()

    def zone_items(self, user: int) -> np.ndarray:
        """Bridge that each item answers to (coverage counts them), [N + 1].

        The items of bridge k are the likeliest ones that together hold the
        share :data:`ZONE_MASS` of its probability; an item of several bridges
        belongs to the one under which it is likeliest, other items have -1.

        Raises:
            ConfigError: a world that is not forked.
        """
        if not isinstance(self.law, ForkedLaw):
            raise ConfigError(
                f"{self.name} has no bridges with places of their own; "
                "zone_items needs a forked world"
            )
        self.label_rows(user)  # refuses an unknown user
        log_chances = self.bridge_log_chances(user)
        order = np.argsort(-log_chances, axis=1, kind="stable")
        chances = np.exp(np.take_along_axis(log_chances, order, axis=1))
        before = np.cumsum(chances, axis=1) - chances
        inside = np.zeros(log_chances.shape, bool)
        np.put_along_axis(inside, order, before < ZONE_MASS, axis=1)
        best = np.where(inside, log_chances, -np.inf)
        zones = np.full(self.n_items + 1, -1)
        zones[1:] = np.where(inside.any(axis=0), best.argmax(axis=0), -1)
        return zones

    def oracle_ranks(self, *, n_candidates: int = 1000) -> np.ndarray:
        """Rank of each user's first label under the oracle, int64 [U].

        Candidates are the label and ``n_candidates - 1`` random items that
        the user never met; ties are broken at random.
        """
        rng = stream(0, 99)
        everything = np.arange(1, self.n_items + 1)
        ranks = np.empty(self.n_users, np.int64)
        for user in range(self.n_users):
            pool = np.setdiff1d(everything, self.items_of(user))
            if len(pool) < n_candidates - 1:
                raise ConfigError(
                    f"user number {user} has {len(pool)} items left, "
                    f"too few for {n_candidates} candidates"
                )
            rivals = pool[shuffled(rng, len(pool))[: n_candidates - 1]]
            scores = self.oracle_scores(user)
            own = scores[self.row_item[self.label_rows(user)[0]]]
            better = int((scores[rivals] > own).sum())
            ties = int((scores[rivals] == own).sum())
            ranks[user] = 1 + better + int(rng.integers(0, ties + 1))
        return ranks

    @cached_property
    def _interactions(self) -> Interactions:
        frame = draw_frame(self)
        items = np.unique(frame["item_id"]).tolist()  # all of them occur
        titles = dict(zip(items, self.titles[1:], strict=True))
        return Interactions(
            name=self.name,
            frame=frame,
            source=self.describe(),
            has_labels=True,
            titles=titles,
            world=self,
        )

    def interactions(self) -> Interactions:
        """The rows of this world; the same object on every call."""
        return self._interactions
