"""Items, users and their ordinary histories in a simulated world.

Items have a primary theme and a secondary theme of another genre. With
``e(t)`` = genre one-hot + theme one-hot of theme t::

    z_i = 0.75 e(primary_i) + 0.25 e(secondary_i)

so two themes of one genre are half similar and all ``z_i`` have one length.
A user has a niche theme, a second interest in a third genre, and a boldness
b in (0, 1): of the ordinary rows a share 0.05 + 0.25 b is "anything, by
popularity", 0.10 + 0.15 b is the second interest, and the rest is the niche
(70% its theme, 30% its genre). No item repeats within a user.

A hidden map ``bridge`` sends every theme to a theme of another genre: the
genres by a permutation without fixed point, and the four themes of a genre
by a permutation onto the four themes of the bridge genre.

The same seed gives the same bytes on every machine: uniform numbers and
integers of PCG64 only, integer dot products and norms, no BLAS, logits
rounded to nine digits, weights turned into integers before they are summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serendifflib.data import vocabulary as words
from serendifflib.data.law import (
    PRIMARY,
    SECONDARY,
    THEMES_PER_GENRE,
    AnyLaw,
    ForkedLaw,
    draw_bridges,
)
from serendifflib.errors import ConfigError

MIN_LENGTH, MAX_LENGTH = 8, 20  # rows of a user, the label included
SPREAD = 60.0  # of weights in a forked world, most to least popular
NICHE, NICHE_GENRE, SECOND, ANYTHING = range(4)


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


def stream(seed: int, stage: int) -> np.random.Generator:
    """Own random stream of one stage, so stages do not disturb others."""
    return np.random.Generator(np.random.PCG64([seed, stage]))


def shuffled(rng: np.random.Generator, n: int) -> np.ndarray:
    """Permutation of 0..n-1 from uniform numbers alone."""
    return np.argsort(rng.random(n), kind="stable")


def _draw_bridge(rng: np.random.Generator, n_genres: int) -> np.ndarray:
    """Bridge theme of every theme, int64 [n_themes]; see the module."""
    cycle = shuffled(rng, n_genres)  # one cycle: no genre maps to itself
    target = np.empty(n_genres, np.int64)
    target[cycle] = np.roll(cycle, -1)
    bridge = np.empty(n_genres * THEMES_PER_GENRE, np.int64)
    for genre in range(n_genres):
        own = genre * THEMES_PER_GENRE + np.arange(THEMES_PER_GENRE)
        other = target[genre] * THEMES_PER_GENRE
        bridge[own] = other + shuffled(rng, THEMES_PER_GENRE)
    return bridge


class Population:
    """Everything of a world but its labels; arguments as in ``World``.

    Attributes:
        row_user: user number of every row, int64 [R], rising.
        row_item: item number of every row, int64 [R]; 0 where a label
            stands until it is drawn.
        row_label: 1 where a label stands, int8 [R].
        row_start: first row of every user and R at the end, int64 [U + 1].
        label_row: row numbers of the labels, rising.
        terms: three terms of the primary theme and two of the secondary
            one of every item, object [N, 5].
    """

    def __init__(
        self,
        law: AnyLaw,
        *,
        n_users: int,
        n_items: int,
        seed: int,
        sizes: Sizes | None,
    ) -> None:
        self.law, self.seed, self.sizes = law, seed, sizes
        self.n_users = sizes.n_users if sizes else n_users
        self.n_items = sizes.n_items if sizes else n_items
        self.theme_names = words.theme_names()
        n_themes = len(self.theme_names)
        if seed < 0:
            raise ConfigError(f"seed is {seed}; use 0 or more")
        if self.n_users < 1 or self.n_items < 2 * n_themes:
            raise ConfigError(
                f"a world needs a user and at least {2 * n_themes} items, "
                f"not {self.n_users} users and {self.n_items} items"
            )
        self._draw_bridges(stream(seed, 0))
        self._draw_items(stream(seed, 1))
        self._draw_users(stream(seed, 2))
        self._draw_slots(stream(seed, 3))
        self._draw_histories(stream(seed, 4))

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
        primary = (np.arange(n) % n_themes)[shuffled(rng, n)]
        n_genres = n_themes // THEMES_PER_GENRE
        step = 1 + rng.integers(0, n_genres - 1, n)
        genre = (primary // THEMES_PER_GENRE + step) % n_genres
        secondary = genre * THEMES_PER_GENRE + rng.integers(
            0, THEMES_PER_GENRE, n
        )
        rank = shuffled(rng, n)
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
        self.terms = np.concatenate(
            (
                flat[primary[:, None] * per_theme + order],
                flat[secondary[:, None] * per_theme + other],
            ),
            axis=1,
        )
        taken: dict[str, None] = {}  # in the order of the items
        picks = rng.integers(0, 1 << 30, (n, 4)).tolist()
        for own, pick in zip(self.terms, picks, strict=True):
            taken[words.make_title(own, pick, taken.keys())] = None
        self.titles = ["", *taken]

    def _draw_users(self, rng: np.random.Generator) -> None:
        n, n_themes = self.n_users, len(self.theme_names)
        n_genres = n_themes // THEMES_PER_GENRE
        self.niche = (np.arange(n) % n_themes)[shuffled(rng, n)]
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

    def _draw_slots(self, rng: np.random.Generator) -> None:
        """Rows of every user, what kind each is, and where labels stand."""
        n_labels = np.ones(self.n_users, np.int64)
        if self.sizes is None:
            lengths = rng.integers(MIN_LENGTH, MAX_LENGTH + 1, self.n_users)
        else:
            least, total = 6, self.sizes.n_rows
            tail = (1 - 0.995 * rng.random(self.n_users)) ** -0.4 - 1
            tail = np.round(tail, 9)
            spare = total - least * self.n_users
            share = tail / np.cumsum(tail)[-1]
            lengths = least + np.floor(spare * share).astype(np.int64)
            lengths[: total - int(lengths.sum())] += 1
            extra = self.sizes.n_labels - self.n_users
            n_labels[shuffled(rng, self.n_users)[:extra]] = 2
        self.row_start = np.concatenate(([0], np.cumsum(lengths)))
        n_rows = int(self.row_start[-1])
        self.row_user = np.repeat(np.arange(self.n_users), lengths)
        first = self.row_start[:-1] + (3 * lengths + 4) // 5  # the last 40%
        span = self.row_start[1:] - first
        place = np.floor(rng.random(self.n_users) * span).astype(np.int64)
        hop = np.floor(rng.random(self.n_users) * (span - 1))
        again = (place + 1 + hop.astype(np.int64)) % span
        two = n_labels == 2
        rows = np.concatenate((first + place, (first + again)[two]))
        self.label_row = np.sort(rows)
        self.row_label = np.zeros(n_rows, np.int8)
        self.row_label[self.label_row] = 1
        bold = self.boldness[self.row_user]
        anything = 0.05 + 0.25 * bold
        second = anything + 0.10 + 0.15 * bold
        genre = second + 0.3 * (1 - second)
        u = rng.random(n_rows)
        self._kind = np.select(
            [u < anything, u < second, u < genre],
            [ANYTHING, SECOND, NICHE_GENRE],
            NICHE,
        )
        self.row_item = np.zeros(n_rows, np.int64)

    def _draw_histories(self, rng: np.random.Generator) -> None:
        """Ordinary rows: cover the catalogue, then fill by popularity."""
        free = np.flatnonzero(self.row_label == 0)
        most = 1 if isinstance(self.law, ForkedLaw) else 3
        copies = min(most, len(free) // (2 * self.n_items))
        if len(free) < self.n_items:
            raise ConfigError(
                f"{len(free)} interactions cannot cover {self.n_items} "
                "items; use more users, longer histories or fewer items"
            )
        self.min_reviews = max(1, copies)
        self._cover(rng, free)
        self._fill(rng, free[self.row_item[free] == 0])

    def _accept(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Write items where users lack them, the first of two; True = done."""
        width = self.n_items + 1
        held = self.row_user * width + self.row_item
        proposed = self.row_user[rows] * width + items
        keys = np.concatenate((held[self.row_item > 0], proposed))
        _, first = np.unique(keys, return_index=True)
        good = np.zeros(len(keys), bool)
        good[first] = True
        good = good[len(keys) - len(rows) :]
        self.row_item[rows[good]] = items[good]
        return good

    def _cover(self, rng: np.random.Generator, free: np.ndarray) -> None:
        """Give each item its minimum of rows, first where themes agree."""
        items = np.tile(np.arange(1, self.n_items + 1), self.min_reviews)
        kind, user = self._kind[free], self.row_user[free]
        themed = (kind == NICHE) | (kind == SECOND)
        theme = np.where(kind == NICHE, self.niche[user], self.second[user])
        left = []
        items = items[shuffled(rng, len(items))]
        slots = free[themed][shuffled(rng, int(themed.sum()))]
        slot_theme = theme[np.searchsorted(free, slots)]
        for t in range(len(self.theme_names)):
            mine = items[self.primary[items] == t]
            room = slots[slot_theme == t]
            room = room[: int(0.8 * len(room))][: len(mine)]
            good = self._accept(room, mine[: len(room)])
            left += [mine[: len(room)][~good], mine[len(room) :]]
        unplaced = np.concatenate(left)
        attempt = 0
        while len(unplaced):
            rows = free[self.row_item[free] == 0]
            rows = rows[shuffled(rng, len(rows))]
            if attempt < 8:  # rows that may hold anything come first
                other = self._kind[rows] != ANYTHING
                rows = rows[np.argsort(other, kind="stable")]
            rows = rows[: len(unplaced)]
            attempt += 1
            tried = unplaced[shuffled(rng, len(unplaced))]
            good = self._accept(rows, tried[: len(rows)])
            unplaced = tried[len(rows) :]
            unplaced = np.concatenate((tried[: len(rows)][~good], unplaced))

    def _fill(self, rng: np.random.Generator, rows: np.ndarray) -> None:
        """Draw items for empty rows, each from the pool of its kind.

        Pools grow when they run dry (theme, genre, everything).
        """
        order = np.argsort(self.primary[1:], kind="stable") + 1
        n_themes = len(self.theme_names)
        edge = np.searchsorted(self.primary[order], np.arange(n_themes + 1))
        weights = np.concatenate(([0], np.cumsum(self.popularity[order])))
        attempt = 0
        while len(rows):
            kind, user = self._kind[rows], self.row_user[rows]
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

    def taste(self, items: np.ndarray) -> tuple[np.ndarray, int]:
        """Dot product of e(t) with the summed z (times 4), and its norm^2.

        Integers, hence exact: [n_themes] and one number.
        """
        n_themes = len(self.theme_names)
        themes = PRIMARY * np.bincount(
            self.primary[items], minlength=n_themes
        ) + SECONDARY * np.bincount(self.secondary[items], minlength=n_themes)
        genres = themes.reshape(-1, THEMES_PER_GENRE).sum(axis=1)
        norm = int((themes * themes).sum() + (genres * genres).sum())
        return themes + np.repeat(genres, THEMES_PER_GENRE), norm

    def before(self, row: int) -> np.ndarray:
        """Items of the row's user strictly before that row."""
        return self.row_item[self.row_start[self.row_user[row]] : row]

    def items_of(self, user: int) -> np.ndarray:
        """Items of all rows of a user, in time order."""
        return self.row_item[self.row_start[user] : self.row_start[user + 1]]
