"""The simulated world: reviews that read like reviews, and a known truth.

Items have a primary theme and a secondary theme of another genre. With
``e(t)`` = genre one-hot + theme one-hot of theme t,

    z_i = 0.75 e(primary_i) + 0.25 e(secondary_i),

so two themes of one genre are half similar and all ``z_i`` have one length.
A user has a niche theme, a second interest in a third genre, and a boldness
b in (0, 1): of the ordinary rows a share 0.05 + 0.25 b is "anything, by
popularity", 0.10 + 0.15 b is the second interest, and the rest is the niche
(70% its theme, 30% its genre). No item repeats within a user.

A hidden map ``bridge`` sends every theme to a theme of another genre: the
genres by a permutation without fixed point, and the four themes of a genre
by a permutation onto the four themes of the bridge genre.

**The law of the label.** Let ``p_u`` be the mean of ``z`` over the user's
rows before the label, ``rho(i, u) = 1 - cos(z_i, p_u)`` the radius of item
i, and ``reach_u`` the mean, over the history rows m >= 2, of the radius of
row m as seen from the rows before it. Over all items that are not in the
history before the label,

    logit(i | u) = - zone (rho(i, u) - reach_u - stretch)^2 / (2 width^2)
                   + content cos(z_i, e(bridge(niche_u)))
                   + popularity log pop_i.

The presets ``forked`` and ``forked-null`` have K bridges instead of one; see
:mod:`serendifflib.data.law`.

The label stands at a uniform position in the last 40% of the sequence; the
rows after it are ordinary. ``LAWS`` holds the presets as data; their dials
were set with the oracle alone (hit ratio at 10 among 1,000 candidates about
0.6 for strong and forked, 0.3 for weak), before any model was trained on
them. In the null worlds zone, content and popularity are 0: the label is
uniform.

``World.like`` matches the sizes of Table 1. There some users have a second
label: its history holds the rows before it, the first label included. The
distinct label items must come to an exact number D: the first D labels (all
first labels of users in random order, then the second ones) are drawn over
items that are nobody's label yet, the others over the D items that are.

The same seed gives the same bytes on every machine: uniform numbers and
integers of PCG64 only, integer dot products and norms, no BLAS, logits
rounded to nine digits, weights turned into integers before they are summed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from serendifflib.data import vocabulary as words
from serendifflib.data.interactions import Interactions
from serendifflib.data.law import (
    NORM,
    PRIMARY,
    SECONDARY,
    THEMES_PER_GENRE,
    ForkedLaw,
    Law,
    Meetings,
    draw_bridges,
    log_softmax,
    pair_cosines,
)
from serendifflib.errors import ConfigError, UnknownUserError

START = 1_262_304_000  # 2010-01-01
DAY = 86_400
TOUCH_SHARE = 0.03
WEIGHT_SCALE = 2.0**40
SPREAD = 60.0  # of weights in a forked world, most to least popular
NICHE, NICHE_GENRE, SECOND, ANYTHING = range(4)


LAWS: dict[str, Law | ForkedLaw] = {
    "strong": Law(zone=1.0, content=6.0, popularity=0.3),
    "weak": Law(zone=0.5, content=4.3, popularity=0.3),
    "null": Law(zone=0.0, content=0.0, popularity=0.0),
    "forked": ForkedLaw(zone=1.0, content=7.0),
    "forked-null": ForkedLaw(zone=0.0, content=0.0),
}


@dataclass(frozen=True)
class Sizes:
    """Exact counts of a world that imitates a published data set."""

    n_users: int
    n_items: int
    n_rows: int
    n_labels: int
    n_label_items: int


SIZES = {
    "serenlens-books": Sizes(2346, 113_876, 265_037, 2557, 2227),
    "serenlens-movies": Sizes(619, 23_950, 74_967, 714, 634),
}


def _stream(seed: int, stage: int) -> np.random.Generator:
    """Own random stream of one stage, so stages do not disturb others."""
    return np.random.Generator(np.random.PCG64([seed, stage]))


def _shuffled(rng: np.random.Generator, n: int) -> np.ndarray:
    """Permutation of 0..n-1 from uniform numbers alone."""
    return np.argsort(rng.random(n), kind="stable")


def _draw_bridge(rng: np.random.Generator, n_genres: int) -> np.ndarray:
    """Bridge theme of every theme, int64 [n_themes]; see the module."""
    cycle = _shuffled(rng, n_genres)  # one cycle: no genre maps to itself
    target = np.empty(n_genres, np.int64)
    target[cycle] = np.roll(cycle, -1)
    bridge = np.empty(n_genres * THEMES_PER_GENRE, np.int64)
    for genre in range(n_genres):
        own = genre * THEMES_PER_GENRE + np.arange(THEMES_PER_GENRE)
        other = target[genre] * THEMES_PER_GENRE
        bridge[own] = other + _shuffled(rng, THEMES_PER_GENRE)
    return bridge


def _law(preset: str, bridges: int | None) -> Law | ForkedLaw:
    """Law of a preset, with another number of bridges where it has one."""
    law = LAWS[preset]
    if bridges is None:
        return law
    if not isinstance(law, ForkedLaw) or bridges not in range(1, 7):
        raise ConfigError(
            f"a {preset} world with {bridges} bridges is not possible; "
            "use a forked preset and 1 to 6 bridges"
        )
    return replace(law, bridges=bridges)


class World:
    """A catalogue, users, and labels drawn from a law that is known.

    Args:
        preset: a name in :data:`LAWS`, e.g. ``"strong"`` or ``"forked"``.
        n_users: number of users U.
        n_items: number of items N; every one of them occurs.
        seed: the world's seed; it also draws the hidden bridge.
        min_length: fewest rows of a user, the label included (>= 5).
        max_length: most rows of a user.
        bridges: number of bridges K, 1..6, of a forked preset.
        texts_per_item: distinct ordinary reviews in an item's pool; the
            last of them is a critical one, used for low ratings.
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
        min_length: int = 8,
        max_length: int = 20,
        texts_per_item: int = 3,
        sizes: Sizes | None = None,
        name: str | None = None,
        bridges: int | None = None,
    ) -> None:
        if preset not in LAWS:
            raise ConfigError(
                f"world preset {preset!r} is not known; "
                f"use one of {', '.join(LAWS)}"
            )
        self.preset, self.seed, self.sizes = preset, seed, sizes
        self.law = _law(preset, bridges)
        self.n_users = sizes.n_users if sizes else n_users
        self.n_items = sizes.n_items if sizes else n_items
        self.texts_per_item = texts_per_item
        self.theme_names = words.theme_names()
        if name is None:
            suffix = "" if preset == "strong" else f"-{preset}"
            count = "" if bridges is None else f"-{bridges}"
            name = f"synthetic{suffix}{count}"
        self.name = name
        self._check(min_length, max_length)
        self._draw_bridges(_stream(seed, 0))
        self._draw_items(_stream(seed, 1))
        self._draw_users(_stream(seed, 2))
        self._draw_slots(_stream(seed, 3), min_length, max_length)
        self._draw_histories(_stream(seed, 4))
        self._draw_labels(_stream(seed, 5))

    @classmethod
    def like(
        cls, which: str, *, seed: int = 0, texts_per_item: int = 3
    ) -> World:
        """World with the strong law and the sizes of Table 1.

        Args:
            which: ``"serenlens-books"`` or ``"serenlens-movies"``.
            seed: the world's seed, 0 or more.
            texts_per_item: see the class.

        Raises:
            ConfigError: ``which`` is not known.
        """
        if which not in SIZES:
            raise ConfigError(
                f"no sizes are known for {which!r}; "
                f"use one of {', '.join(SIZES)}"
            )
        return cls(
            "strong",
            seed=seed,
            texts_per_item=texts_per_item,
            sizes=SIZES[which],
            name=f"synthetic-like-{which}",
        )

    def describe(self) -> str:
        """One sentence about this world."""
        law = self.law
        return (
            f"Simulated world {self.name!r} (seed {self.seed}): "
            f"{self.n_users:,} users, {self.n_items:,} items, "
            f"{len(self._item):,} interactions, "
            f"{len(self._label_row):,} serendipity labels; label law with "
            f"zone {law.zone:g}, content {law.content:g}, "
            f"popularity {law.popularity:g}."
        )

    def _check(self, min_length: int, max_length: int) -> None:
        n_themes = len(self.theme_names)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; use 0 or more")
        if self.n_users < 1 or self.n_items < 2 * n_themes:
            raise ConfigError(
                f"a world needs a user and at least {2 * n_themes} items, "
                f"not {self.n_users} users and {self.n_items} items"
            )
        if not 5 <= min_length <= max_length < self.n_items / 4:
            raise ConfigError(
                f"history lengths {min_length}..{max_length} are not "
                "possible; use 5 <= min_length <= max_length < n_items / 4"
            )
        if not 2 <= self.texts_per_item <= 4:
            raise ConfigError(
                f"texts_per_item is {self.texts_per_item}; use 2, 3 or 4"
            )

    # -- items and users ---------------------------------------------------

    def _draw_bridges(self, rng: np.random.Generator) -> None:
        n_genres = len(words.genre_names())
        if isinstance(self.law, ForkedLaw):
            self.bridges, self.pairs = draw_bridges(
                rng, n_genres, self.law.bridges
            )
            self._foreign = np.hstack((self.bridges, self.pairs))
        else:
            self.bridges = _draw_bridge(rng, n_genres)[:, None]
            self._foreign = self.bridges
        self.bridge = self.bridges[:, 0]

    def _draw_items(self, rng: np.random.Generator) -> None:
        n, n_themes = self.n_items, len(self.theme_names)
        primary = (np.arange(n) % n_themes)[_shuffled(rng, n)]
        n_genres = n_themes // THEMES_PER_GENRE
        step = 1 + rng.integers(0, n_genres - 1, n)
        genre = (primary // THEMES_PER_GENRE + step) % n_genres
        secondary = genre * THEMES_PER_GENRE + rng.integers(
            0, THEMES_PER_GENRE, n
        )
        rank = _shuffled(rng, n)
        if isinstance(self.law, ForkedLaw):
            raw = SPREAD ** (-rank / n)
        else:
            raw = (rank + 10.0) ** -0.8
        weight = np.rint(1e9 * raw).astype(np.int64)
        self.primary = np.concatenate(([-1], primary))
        self.secondary = np.concatenate(([-1], secondary))
        self.popularity = np.concatenate(([0], weight))
        log = np.log(weight / weight.max())
        self._pop_logit = np.round(self.law.popularity * log, 9)
        # Items of one class share everything in the law but popularity.
        self._classes, self._class_of = np.unique(
            primary * n_themes + secondary, return_inverse=True
        )
        terms = words.theme_terms()
        per_theme = len(terms[0])
        order = np.argsort(rng.random((n, per_theme)), axis=1)[:, :3]
        other = np.argsort(rng.random((n, per_theme)), axis=1)[:, :2]
        flat = np.array([w for theme in terms for w in theme], dtype=object)
        self._terms = np.concatenate(
            (
                flat[primary[:, None] * per_theme + order],
                flat[secondary[:, None] * per_theme + other],
            ),
            axis=1,
        )
        self.titles = [""] + self._draw_titles(rng)

    def _draw_titles(self, rng: np.random.Generator) -> list[str]:
        """Unique titles made from the items' own terms."""
        taken: set[str] = set()
        titles = []
        picks = rng.integers(0, 1 << 30, (self.n_items, 4)).tolist()
        for terms, pick in zip(self._terms, picks, strict=True):
            titles.append(words.make_title(terms, pick, taken))
            taken.add(titles[-1])
        return titles

    def _draw_users(self, rng: np.random.Generator) -> None:
        n, n_themes = self.n_users, len(self.theme_names)
        n_genres = n_themes // THEMES_PER_GENRE
        self.niche = (np.arange(n) % n_themes)[_shuffled(rng, n)]
        # Another genre than those of the niche and of its bridges.
        taken = np.column_stack((self.niche, self._foreign[self.niche]))
        taken = np.sort(taken // THEMES_PER_GENRE, axis=1)
        genre = rng.integers(0, n_genres - taken.shape[1], n)
        for one in taken.T:
            genre = genre + (genre >= one)
        self.second = genre * THEMES_PER_GENRE + rng.integers(
            0, THEMES_PER_GENRE, n
        )
        self.boldness = np.round(0.02 + 0.96 * rng.random(n), 9)

    # -- sequences ---------------------------------------------------------

    def _draw_slots(
        self, rng: np.random.Generator, min_length: int, max_length: int
    ) -> None:
        """Rows of every user, what kind each is, and where labels stand."""
        if self.sizes is None:
            lengths = rng.integers(min_length, max_length + 1, self.n_users)
            n_labels = np.ones(self.n_users, np.int64)
        else:
            least, total = 6, self.sizes.n_rows
            tail = (1 - 0.995 * rng.random(self.n_users)) ** -0.4 - 1
            tail = np.round(tail, 9)
            spare = total - least * self.n_users
            share = tail / np.cumsum(tail)[-1]
            lengths = least + np.floor(spare * share).astype(np.int64)
            lengths[: total - int(lengths.sum())] += 1
            n_labels = np.ones(self.n_users, np.int64)
            extra = self.sizes.n_labels - self.n_users
            n_labels[_shuffled(rng, self.n_users)[:extra]] = 2
        self._start = np.concatenate(([0], np.cumsum(lengths)))
        n_rows = int(self._start[-1])
        self._user = np.repeat(np.arange(self.n_users), lengths)
        first = self._start[:-1] + (3 * lengths + 4) // 5  # the last 40%
        span = self._start[1:] - first
        place = np.floor(rng.random(self.n_users) * span).astype(np.int64)
        hop = np.floor(rng.random(self.n_users) * (span - 1))
        again = (place + 1 + hop.astype(np.int64)) % span
        two = n_labels == 2
        rows = np.concatenate((first + place, (first + again)[two]))
        self._label_row = np.sort(rows)
        self._label = np.zeros(n_rows, np.int8)
        self._label[self._label_row] = 1
        bold = self.boldness[self._user]
        anything = 0.05 + 0.25 * bold
        second = anything + 0.10 + 0.15 * bold
        genre = second + 0.3 * (1 - second)
        u = rng.random(n_rows)
        self._kind = np.select(
            [u < anything, u < second, u < genre],
            [ANYTHING, SECOND, NICHE_GENRE],
            NICHE,
        )
        self._item = np.zeros(n_rows, np.int64)

    def _draw_histories(self, rng: np.random.Generator) -> None:
        """Ordinary rows: cover the catalogue, then fill by popularity."""
        free = np.flatnonzero(self._label == 0)
        most = 1 if isinstance(self.law, ForkedLaw) else 3
        copies = min(most, len(free) // (2 * self.n_items))
        if len(free) < self.n_items:
            raise ConfigError(
                f"{len(free)} interactions cannot cover {self.n_items} "
                "items; use more users, longer histories or fewer items"
            )
        self.min_reviews = max(1, copies)
        self._cover(rng, free)
        self._fill(rng, free[self._item[free] == 0])

    def _accept(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Write items into rows unless their user has them; True = written.

        Among equal proposals the first one wins.
        """
        width = self.n_items + 1
        held = self._user * width + self._item
        proposed = self._user[rows] * width + items
        keys = np.concatenate((held[self._item > 0], proposed))
        _, first = np.unique(keys, return_index=True)
        good = np.zeros(len(keys), bool)
        good[first] = True
        good = good[len(keys) - len(rows) :]
        self._item[rows[good]] = items[good]
        return good

    def _cover(self, rng: np.random.Generator, free: np.ndarray) -> None:
        """Give each item its minimum of rows, first where themes agree."""
        items = np.tile(np.arange(1, self.n_items + 1), self.min_reviews)
        kind, user = self._kind[free], self._user[free]
        themed = (kind == NICHE) | (kind == SECOND)
        theme = np.where(kind == NICHE, self.niche[user], self.second[user])
        left = []
        items = items[_shuffled(rng, len(items))]
        slots = free[themed][_shuffled(rng, int(themed.sum()))]
        slot_theme = theme[np.searchsorted(free, slots)]
        for t in range(len(self.theme_names)):
            mine = items[self.primary[items] == t]
            room = slots[slot_theme == t]
            room = room[: int(0.8 * len(room))][: len(mine)]
            good = self._accept(room, mine[: len(room)])
            left += [mine[: len(room)][~good], mine[len(room) :]]
        left = np.concatenate(left)  # type: ignore
        attempt = 0
        while len(left):
            rows = free[self._item[free] == 0]
            rows = rows[_shuffled(rng, len(rows))]
            if attempt < 8:  # rows that may hold anything come first
                other = self._kind[rows] != ANYTHING
                rows = rows[np.argsort(other, kind="stable")]
            rows = rows[: len(left)]
            attempt += 1
            left = left[_shuffled(rng, len(left))]
            good = self._accept(rows, left[: len(rows)])
            unplaced = left[: len(rows)][~good]
            left = np.concatenate(  # type: ignore
                (unplaced, left[len(rows) :])
            )

    def _fill(self, rng: np.random.Generator, rows: np.ndarray) -> None:
        """Draw items for empty rows, each from the pool of its kind.

        Pools grow when they run dry (theme, genre, everything), so that a
        long history never waits for an item that does not exist.
        """
        order = np.argsort(self.primary[1:], kind="stable") + 1
        n_themes = len(self.theme_names)
        edge = np.searchsorted(self.primary[order], np.arange(n_themes + 1))
        weights = np.concatenate(([0], np.cumsum(self.popularity[order])))
        attempt = 0
        while len(rows):
            kind, user = self._kind[rows], self._user[rows]
            theme = np.where(
                kind == SECOND, self.second[user], self.niche[user]
            )
            genre = theme // THEMES_PER_GENRE * THEMES_PER_GENRE
            wide = (kind == NICHE_GENRE) | (attempt >= 8)
            low = np.where(wide, genre, theme)
            high = np.where(wide, genre + THEMES_PER_GENRE, theme + 1)
            everything = (kind == ANYTHING) | (attempt >= 16)
            low = edge[np.where(everything, 0, low)]
            high = edge[np.where(everything, n_themes, high)]
            u = rng.random(len(rows))
            if attempt < 24:
                mass = weights[high] - weights[low]
                point = weights[low] + np.floor(u * mass).astype(np.int64)
                place = np.searchsorted(weights, point, side="right") - 1
            else:
                place = low + np.floor(u * (high - low)).astype(np.int64)
            rows = rows[~self._accept(rows, order[place])]
            attempt += 1

    # -- the law -----------------------------------------------------------

    def _taste(self, items: np.ndarray) -> tuple[np.ndarray, int]:
        """Dot product of e(t) with the summed z (times 4), and its norm^2.

        Integers, hence exact: shape [n_themes] and one number.
        """
        n_themes = len(self.theme_names)
        themes = PRIMARY * np.bincount(
            self.primary[items], minlength=n_themes
        ) + SECONDARY * np.bincount(self.secondary[items], minlength=n_themes)
        genres = themes.reshape(-1, THEMES_PER_GENRE).sum(axis=1)
        norm = int((themes * themes).sum() + (genres * genres).sum())
        return themes + np.repeat(genres, THEMES_PER_GENRE), norm

    def _reach(self, items: np.ndarray) -> float:
        """Mean radius of each item (from the second) from those before."""
        n = len(items)
        n_themes = len(self.theme_names)
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
        assert isinstance(law, Law)  # the other kind has bridge_log_chances
        n_themes = len(self.theme_names)
        first, other = self._classes // n_themes, self._classes % n_themes
        taste, norm = self._taste(items)
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

    def _weights(
        self, user: int, items: np.ndarray, popularity: np.ndarray
    ) -> np.ndarray:
        """Weight of every item as the label, up to a factor, float64 [N]."""
        if isinstance(self.law, ForkedLaw):
            scores = self._forked(user, items)
            return np.exp(scores - scores.max())
        logits = self._class_logits(user, items)
        return np.exp(logits - logits.max())[self._class_of] * popularity

    def _forked(self, user: int, history: np.ndarray) -> np.ndarray:
        """Log-probability of every item, history not excluded, [N]."""
        parts = self.bridge_log_chances(user, history)
        top = parts.max(axis=0)
        mean = np.exp(parts - top).sum(axis=0) / len(parts)
        return np.round(top + np.log(mean), 9)

    def bridge_log_chances(
        self, user: int, history: np.ndarray | None = None
    ) -> np.ndarray:
        """Log-probability of every item given each bridge, [K, N].

        Args:
            user: user number.
            history: items before the label; None is the user's own history.
        """
        law = self.law
        assert isinstance(law, ForkedLaw)  # of other worlds nobody asks this
        if history is None:
            history = self._before(self._row_of_label(user, 0))
        off = self._met.places(user, history) - law.reaches[:, None]
        zone = -(off * off) / (2 * law.width * law.width)
        niche = self.niche[user]
        content = pair_cosines(
            np.column_stack((self.bridges[niche], self.pairs[niche])),
            self.primary[1:],
            self.secondary[1:],
            len(self.theme_names),
        )
        return log_softmax(law.zone * zone + law.content * content)

    def _before(self, row: int) -> np.ndarray:
        """Items of the row's user strictly before that row."""
        return self._item[self._start[self._user[row]] : row]

    def _draw_labels(self, rng: np.random.Generator) -> None:
        if isinstance(self.law, ForkedLaw):
            plain = self._label == 0
            self._met = Meetings(
                self._user[plain],
                self._item[plain],
                self.n_users,
                self.n_items,
            )
        users = self._user[self._label_row]
        is_first = np.concatenate(([True], users[1:] != users[:-1]))
        limit = self.sizes.n_label_items if self.sizes else None
        used = np.zeros(self.n_items, bool)
        last = np.zeros(self.n_users, np.int64)
        last[users] = self._label_row  # the later of two wins
        tail = np.flatnonzero(np.arange(len(self._item)) > last[self._user])
        popularity = np.exp(self._pop_logit)
        n_drawn = 0
        for turn in (is_first, ~is_first):
            rows = self._label_row[turn]
            rows = rows[_shuffled(rng, len(rows))]
            for row, u in zip(rows, rng.random(len(rows)), strict=True):
                history = self._before(row)
                weight = self._weights(self._user[row], history, popularity)
                weight = np.rint(weight * WEIGHT_SCALE)
                weight[history - 1] = 0
                if limit is not None:
                    weight[used if n_drawn < limit else ~used] = 0
                total = np.cumsum(weight.astype(np.int64))
                point = min(int(u * float(total[-1])), int(total[-1]) - 1)
                item = np.searchsorted(total, point, side="right") + 1
                self._item[row] = item
                used[item - 1] = True
                n_drawn += 1
            self._separate(rng, rows, tail)

    def _separate(
        self, rng: np.random.Generator, rows: np.ndarray, tail: np.ndarray
    ) -> None:
        """Where a label item comes again later, swap that later row.

        The partner is a row after its own user's last label, so that no
        history of a label changes and every item keeps its count.
        """
        for row in rows:
            user, item = self._user[row], self._item[row]
            later = np.arange(row + 1, self._start[user + 1])
            for again in later[self._item[later] == item]:
                for other in tail[_shuffled(rng, len(tail))]:
                    if self._swap(again, other):
                        break
                else:
                    raise ConfigError(
                        "the world is too small to keep items from "
                        "repeating; use more users or more items"
                    )

    def _swap(self, one: int, two: int) -> bool:
        """Swap the items of two rows unless that makes a repeat."""
        mine, theirs = self._user[one], self._user[two]
        a = self._item[self._start[mine] : self._start[mine + 1]]
        b = self._item[self._start[theirs] : self._start[theirs + 1]]
        x, y = self._item[one], self._item[two]
        if mine == theirs or x in b or y in a:
            return False
        self._item[one], self._item[two] = y, x
        return True

    # -- what the world tells ----------------------------------------------

    def reach(self, user: int, *, which: int = 0) -> float:
        """Reach of a user: mean radius of the history before a label.

        Raises:
            UnknownUserError: no such user, or no such label of the user.
        """
        return self._reach(self._before(self._row_of_label(user, which)))

    def label_rows(self, user: int) -> np.ndarray:
        """Row numbers of the user's labels, in time order.

        Raises:
            UnknownUserError: no such user number.
        """
        if not 0 <= user < self.n_users:
            raise UnknownUserError(
                f"user number {user} does not occur in {self.name}; "
                f"numbers are 0..{self.n_users - 1}"
            )
        low, high = np.searchsorted(
            self._label_row, self._start[user : user + 2]
        )
        return self._label_row[low:high]

    def _row_of_label(self, user: int, which: int) -> int:
        rows = self.label_rows(user)
        if not 0 <= which < len(rows):
            raise UnknownUserError(
                f"user number {user} has {len(rows)} label(s), "
                f"there is none with index {which}"
            )
        return int(rows[which])

    def oracle_scores(
        self,
        user: int,
        items: np.ndarray | None = None,
        *,
        which: int = 0,
    ) -> np.ndarray:
        """True log-probability, up to a constant, of each item as the label.

        Args:
            user: user number.
            items: item numbers to return; all by default.
            which: 0 for the user's first label, 1 for the second (only
                worlds made by :meth:`like` have one).

        Returns:
            float64 [N + 1] (or the shape of ``items``); padding and the
            items of the history before the label are ``-inf``.

        Raises:
            UnknownUserError: no such user, or no such label of the user.
        """
        history = self._before(self._row_of_label(user, which))
        scores = np.full(self.n_items + 1, -np.inf)
        if isinstance(self.law, ForkedLaw):
            scores[1:] = self._forked(user, history)
        else:
            logits = self._class_logits(user, history)
            scores[1:] = logits[self._class_of] + self._pop_logit
        scores[history] = -np.inf
        return scores if items is None else scores[np.asarray(items)]

    def true_zone(
        self, user: int, cells: np.ndarray, side: int, *, which: int = 0
    ) -> np.ndarray:
        """Where the law puts the label on a plane: the zone to be found.

        Args:
            user: user number.
            cells: grid indices of every item, padding included, in the
                plane of the model under study, int [N + 1, 2].
            side: L.
            which: see :meth:`oracle_scores`.

        Returns:
            Probability of every cell, float64 [L, L], sum 1; a model's zone
            is compared with it cell by cell.

        Raises:
            UnknownUserError: no such user, or no such label of the user.
        """
        scores = self.oracle_scores(user, which=which)
        chance = np.exp(scores - scores.max())
        zone = np.zeros((side, side))
        cells = np.asarray(cells)
        np.add.at(zone, (cells[1:, 0], cells[1:, 1]), chance[1:])
        return zone / chance.sum()

    def zone_items(self, user: int, *, mass: float = 0.8) -> np.ndarray:
        """Bridge that each item answers to: coverage of a list counts them.

        The items of bridge k are the likeliest ones that together hold the
        share ``mass`` of its probability; an item of several bridges belongs
        to the one under which it is likeliest.

        Returns:
            Bridge number 0..K-1, or -1, of every item, int64 [N + 1].

        Raises:
            ConfigError: a world with one bridge by a radius has no such law.
            UnknownUserError: no such user.
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
        np.put_along_axis(inside, order, before < mass, axis=1)
        best = np.where(inside, log_chances, -np.inf)
        zones = np.full(self.n_items + 1, -1)
        zones[1:] = np.where(inside.any(axis=0), best.argmax(axis=0), -1)
        return zones

    def oracle_ranks(
        self, *, n_candidates: int = 1000, seed: int = 0
    ) -> np.ndarray:
        """Rank of each user's first label under the oracle, int64 [U].

        Candidates are the label and ``n_candidates - 1`` random items that
        the user never met; ties are broken at random.

        Raises:
            ConfigError: a user has too few items left for the candidates.
        """
        rng = _stream(seed, 99)
        ranks = np.empty(self.n_users, np.int64)
        for user in range(self.n_users):
            mine = self._item[self._start[user] : self._start[user + 1]]
            others = np.ones(self.n_items + 1, bool)
            others[0] = False
            others[mine] = False
            pool = np.flatnonzero(others)
            if len(pool) < n_candidates - 1:
                raise ConfigError(
                    f"user number {user} has {len(pool)} items left, "
                    f"too few for {n_candidates} candidates"
                )
            rivals = pool[_shuffled(rng, len(pool))[: n_candidates - 1]]
            scores = self.oracle_scores(user)
            own = scores[self._item[self.label_rows(user)[0]]]
            better = int((scores[rivals] > own).sum())
            ties = int((scores[rivals] == own).sum())
            ranks[user] = 1 + better + int(rng.integers(0, ties + 1))
        return ranks

    # -- rows that people see ----------------------------------------------

    def _draw_times(self, rng: np.random.Generator) -> np.ndarray:
        """Seconds, rising within a user by more than a day per row.

        One row in ten keeps only its date (as many shops do), which ties a
        few per cent of the rows with rows of other users.
        """
        lengths = np.diff(self._start)
        scale = np.minimum(8.0, 1500.0 / lengths)[self._user]
        tail = (1 - 0.999 * rng.random(len(self._user))) ** -0.5 - 1
        gap = DAY + 1 + np.floor(np.round(DAY * scale * tail, 3))
        begin = START + rng.integers(0, 6 * 365 * DAY, self.n_users)
        gap = gap.astype(np.int64)
        total = np.cumsum(gap)
        zero = total[self._start[:-1]]
        times = begin[self._user] + total - zero[self._user]
        whole = rng.random(len(times)) < 0.1
        return np.where(whole, times - times % DAY, times)

    def _draw_ratings(self, rng: np.random.Generator) -> np.ndarray:
        """Ratings 1..5 that rise with affinity; labels get 4 or 5."""
        affinity = np.empty(len(self._item))
        for user in range(self.n_users):
            span = slice(self._start[user], self._start[user + 1])
            items = self._item[span]
            taste, norm = self._taste(items[self._label[span] == 0])
            dot = (
                PRIMARY * taste[self.primary[items]]
                + SECONDARY * taste[self.secondary[items]]
            )
            affinity[span] = dot / np.sqrt(NORM * norm)
        u = rng.random((2, len(affinity)))
        noise = 2.4 * (u[0] + u[1] - 1)
        value = np.round(2.7 + 1.8 * affinity + noise, 6)
        rating = np.clip(np.rint(value), 1, 5)
        liked = 4 + (u[0] < 0.6)
        return np.where(self._label == 1, liked, rating).astype(float)

    def _draw_reviews(
        self, rng: np.random.Generator, rating: np.ndarray
    ) -> np.ndarray:
        """Review of every row, object [R]; few distinct ordinary texts."""
        n_rows, pool = len(rating), self.texts_per_item
        u = rng.random((2, n_rows))
        variant = np.floor(u[0] * (pool - 1)).astype(np.int64)
        variant[rating <= 2] = pool - 1
        touched = (u[1] < TOUCH_SHARE) & (self._label == 0)
        variant[touched] = pool
        key = self._item * (pool + 1) + variant
        keys, inverse = np.unique(key, return_inverse=True)
        pick = rng.integers(0, 1 << 30, self.n_items + 1).tolist()
        genre = (self.primary // THEMES_PER_GENRE).tolist()
        pairs = (divmod(k, pool + 1) for k in keys.tolist())
        texts = [
            words.make_review(self._terms[i - 1], genre[i], v, pool, pick[i])
            for i, v in pairs
        ]
        reviews = np.array(texts, dtype=object)[inverse]
        picks = rng.integers(0, 1 << 30, (len(self._label_row), 4)).tolist()
        for row, parts in zip(self._label_row, picks, strict=True):
            i = self._item[row]
            reviews[row] = words.make_label_review(
                self._terms[i - 1], genre[i], parts
            )
        return reviews

    @cached_property
    def _interactions(self) -> Interactions:
        rating = self._draw_ratings(_stream(self.seed, 6))
        times = self._draw_times(_stream(self.seed, 7))
        reviews = self._draw_reviews(_stream(self.seed, 8), rating)
        digits = max(5, len(str(self.n_items)))
        users = np.array(
            [f"u{n:0{digits}d}" for n in range(self.n_users)], dtype=object
        )
        items = np.array(
            [f"i{n:0{digits}d}" for n in range(self.n_items + 1)],
            dtype=object,
        )
        frame = pd.DataFrame(
            {
                "user_id": users[self._user],
                "item_id": items[self._item],
                "timestamp": times,
                "review": reviews,
                "rating": rating,
                "label": self._label,
            }
        )
        titles = dict(zip(items[1:].tolist(), self.titles[1:], strict=True))
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
