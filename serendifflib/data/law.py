"""Label laws: which item becomes a user's serendipitous one.

**One bridge** (:class:`Law`). Let ``p_u`` be the mean of ``z`` over the user's
rows before the label, ``rho(i, u) = 1 - cos(z_i, p_u)`` the radius of item
i, and ``reach_u`` the mean, over the history rows m >= 2, of the radius of
row m as seen from the rows before it. Over all items that are not in the
history before the label::

    logit(i | u) = - zone (rho(i, u) - reach_u - stretch)^2 / (2 width^2)
                   + content cos(z_i, e(bridge(niche_u)))
                   + popularity log pop_i.

**K bridges** (:class:`ForkedLaw`). Every niche genre has K bridges. Bridge k
is a pair of themes (a_k, b_k) of two genres, and a place: a distance
``reach_k = (k + 1/2) / K`` from what the user's own people meet. The place
of an item is the share of the catalogue that is more *expected* than it::

    place(i, u) = (rank of E(i | u) from the top - 1/2) / N    in (0, 1),
    E(i | u)    = sum over j in the history before the label of
                  (n_ij + mu b_i) / (n_j + mu),    mu = 1,

where n_ij other users have i and j, n_j is the sum of n_ij over i, and b_i
is the share of i among all rows, each count raised by one: the expectedness
of Eq. 7 and 14 in the ordinary rows of all *other* users. So the law judges
by what can be seen, and a portrait, which counts in the rows of its training
users, sees nearly the same. With the pair's vector ``e_k = 3 e(a_k) +
e(b_k)``::

    s_k(i | u) = content cos(z_i, e_k)
                 - zone (place(i, u) - reach_k)^2 / (2 width^2)
    p(i | u)   = 1/K sum_k exp s_k(i | u) / sum_j exp s_k(j | u).

The theme of one bridge at the place of another (a *hybrid*) is improbable,
and most items that share a theme with a bridge are hybrids. A score that adds
a term for content and a term for place must rank them as high as the labels.

**What people say** (:class:`HumanLaw`). The log-odds rise with relevance r,
which is cos(z_i, p_u), and unexpectedness x, which is the place above, both
as ranks in the catalogue scaled to mean 0 and deviation 1::

    logit(i | u) = zone (1.63 r + 0.86 x + 0.23 r x).

The weights are the logistic regression of a pleasant surprise on the
standardised answers of 11,383 people
(:func:`serendifflib.data.human.read_taobao`). Only they are people's, who
answered by perception; r and x are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.stats import rankdata

THEMES_PER_GENRE = 4
PRIMARY, SECONDARY = 3, 1  # 0.75 and 0.25, kept as integers
NORM = 2 * (PRIMARY * PRIMARY + SECONDARY * SECONDARY)  # |4 z|^2
MU = 1.0  # mass of the background in the expectedness
MAX_GENRES = 12  # two for each of at most six bridges


@dataclass(frozen=True)
class Law:
    """Dials of the law with one bridge (see the module's docstring)."""

    zone: float
    content: float
    popularity: float
    stretch: float = 0.25
    width: float = 0.1


@dataclass(frozen=True)
class ForkedLaw:
    """Dials of the law with K bridges (see the module's docstring)."""

    zone: float
    content: float
    bridges: int = 4
    width: float = 0.1
    popularity: float = 0.0

    @property
    def reaches(self) -> np.ndarray:
        """Distance of every bridge from the expected, float64 [K]."""
        return (np.arange(self.bridges) + 0.5) / self.bridges


@dataclass(frozen=True)
class HumanLaw:
    """Weights that people gave (see the module's docstring)."""

    zone: float
    relevance: float = 1.63
    unexpectedness: float = 0.86
    both: float = 0.23
    content: float = 0.0
    popularity: float = 0.0

    def logits(self, dots: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Log-weights of all items for one user, float64 [N].

        From products of the items with the user's mean, in any unit, and
        :meth:`Meetings.places`, both [N].
        """
        rank = (rankdata(dots) - 0.5) / len(dots)
        # uniform numbers have the deviation 1 / sqrt(12)
        r, x = (12**0.5 * (share - 0.5) for share in (rank, places))
        both = self.both * r * x
        found = self.relevance * r + self.unexpectedness * x + both
        return np.round(self.zone * found, 9)


AnyLaw = Law | ForkedLaw | HumanLaw


def draw_bridges(
    rng: np.random.Generator, n_genres: int, n_bridges: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and second theme of every theme's bridges, int64 [n_themes, K].

    The genres stand in a random circle; bridge k of a genre takes its themes
    from those 2 k + 1 and 2 k + 2 steps on, so that all 2 K genres differ
    and K bridges are the first K of more.
    """
    circle = np.argsort(rng.random(n_genres), kind="stable")
    place = np.argsort(circle)
    steps = 1 + np.arange(2 * n_bridges)
    genre = circle[(place[:, None] + steps) % n_genres]
    theme = rng.integers(0, THEMES_PER_GENRE, (n_genres, MAX_GENRES))
    both = genre * THEMES_PER_GENRE + theme[:, : 2 * n_bridges]
    both = np.repeat(both, THEMES_PER_GENRE, axis=0)
    return both[:, ::2], both[:, 1::2]


class Meetings:
    """What other people met: the places of the laws that have them.

    Args:
        user, item: user and item number (1..N) of every ordinary row, [R].
        n_users: number of users U.
        n_items: number of items N.
    """

    def __init__(
        self, user: np.ndarray, item: np.ndarray, n_users: int, n_items: int
    ) -> None:
        shape = (n_users, n_items + 1)
        ones = np.ones(len(user))
        self.met = scipy.sparse.csr_array((ones, (user, item)), shape=shape)
        self.met_by = self.met.T.tocsr()
        self.length = np.bincount(user, minlength=n_users)
        self.count = np.bincount(item, minlength=n_items + 1)
        self.partners = self.met_by @ (self.length - 1.0)

    def expectedness(self, user: int, history: np.ndarray) -> np.ndarray:
        """E(i | u) of the module's docstring, float64 [N]."""
        own = self.met.indices[slice(*self.met.indptr[user : user + 2])]
        mine = np.isin(history, own)
        partners = self.partners[history] - mine * (self.length[user] - 1)
        weight = 1.0 / (partners + MU)
        met_by = self.met_by[history]
        others = weight @ met_by
        others[user] = 0.0
        total = self.met_by @ others
        # an item is no partner of itself
        total[history] -= weight * (self.count[history] - mine)
        background = self.count + 1.0
        background[own] -= 1.0
        background[0] = 0.0
        background *= MU * weight.sum() / background.sum()
        return (total + background)[1:]

    def places(self, user: int, history: np.ndarray) -> np.ndarray:
        """Place of every item for one user, float64 [N] in (0, 1)."""
        value = np.log(self.expectedness(user, history))
        order = np.argsort(-np.round(value, 9), kind="stable")
        place = np.empty(len(order))
        place[order] = (np.arange(len(order)) + 0.5) / len(order)
        return place


def pair_cosines(
    pairs: np.ndarray, first: np.ndarray, other: np.ndarray, n_themes: int
) -> np.ndarray:
    """cos(z, e_k) of items with these themes, float64 [K, N].

    ``pairs`` are the themes (a_k, b_k) of the bridges, [K, 2]; ``first`` and
    ``other`` the primary and secondary theme of every item, [N].
    """
    themes = np.arange(n_themes)
    match = []
    for a, b in pairs:
        near = np.zeros(n_themes, np.int64)
        for theme, part in ((a, PRIMARY), (b, SECONDARY)):
            near += part * (themes == theme)
            genre = theme // THEMES_PER_GENRE
            near += part * (themes // THEMES_PER_GENRE == genre)
        match.append(PRIMARY * near[first] + SECONDARY * near[other])
    return np.array(match) / NORM
