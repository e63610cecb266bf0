"""Label laws: which item becomes a user's serendipitous one.

**One bridge** (:class:`Law`). With the radius ``rho(i, u) = 1 - cos(z_i,
p_u)`` of item i and the user's usual radius ``reach_u`` (module ``world``),

    logit(i | u) = - zone (rho(i, u) - reach_u - stretch)^2 / (2 width^2)
                   + content cos(z_i, e(bridge(niche_u)))
                   + popularity log pop_i.

**K bridges** (:class:`ForkedLaw`). Every niche genre has K bridges. Bridge k
is a pair of themes (a_k, b_k) of two genres, and a place: a distance
``reach_k = (k + 1/2) / K`` from what the user would meet anyway. The place of
an item is the share of the catalogue that is likelier than the item to be
an ordinary row of the user,

    place(i, u) = (rank of p(i | u) from the top - 1/2) / N    in (0, 1),
    p(i | u)    = A w_i / W + S w_i / W_second + G w_i / W_genre
                  + T w_i / W_theme,

with the weight w of an item, the sums W over everything, over the theme of
the second interest, over the genre and over the theme of the niche (a term
counts for the items of its pool only), and the user's shares A, S, G and T
of the four kinds of ordinary rows. With the pair's vector
``e_k = 3 e(a_k) + e(b_k)``,

    s_k(i | u) = content cos(z_i, e_k)
                 - zone (place(i, u) - reach_k)^2 / (2 width^2)
    p(i | u)   = 1/K sum_k exp s_k(i | u) / sum_j exp s_k(j | u).

Place and content belong together: the theme of one bridge at the place of
another (a *hybrid*) is as improbable as any other item, and since weights do
not depend on themes, hybrids make up most of the items that share a theme
with a bridge. A score that adds a term for content and a term for place must
rank them as high as the labels. With ``zone = content = 0`` every item is
equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THEMES_PER_GENRE = 4
PRIMARY, SECONDARY = 3, 1  # 0.75 and 0.25, kept as integers
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
    width: float = 0.05
    popularity: float = 0.0

    @property
    def reaches(self) -> np.ndarray:
        """Distance of every bridge from the expected, float64 [K]."""
        return (np.arange(self.bridges) + 0.5) / self.bridges


def draw_bridges(
    rng: np.random.Generator, n_genres: int, n_bridges: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bridges of every theme: all themes of a genre share them.

    The genres stand in a random circle. Bridge k of a genre takes its first
    theme from the genre 2 k + 1 steps on and its second one from the genre
    2 k + 2 steps on, so that all 2 K genres differ, and K bridges are the
    first K of more.

    Returns:
        Two int64 arrays [n_themes, K]: the first and the second theme.
    """
    circle = np.argsort(rng.random(n_genres), kind="stable")
    place = np.argsort(circle)
    steps = 1 + np.arange(2 * n_bridges)
    genre = circle[(place[:, None] + steps) % n_genres]
    theme = rng.integers(0, THEMES_PER_GENRE, (n_genres, MAX_GENRES))
    both = genre * THEMES_PER_GENRE + theme[:, : 2 * n_bridges]
    both = np.repeat(both, THEMES_PER_GENRE, axis=0)
    return both[:, ::2], both[:, 1::2]


def places(
    weight: np.ndarray,
    theme: np.ndarray,
    niche: int,
    second: int,
    shares: np.ndarray,
) -> np.ndarray:
    """Place of every item as one user sees it, float64 [N] in (0, 1).

    Args:
        weight: popularity of the items, int64 [N].
        theme: their primary themes, [N].
        niche: theme of the user.
        second: theme of the user's second interest.
        shares: of rows of the kinds theme of the niche, its genre, second
            interest, anything; [4], sum 1.
    """
    genre = niche // THEMES_PER_GENRE
    pools = (
        theme == niche,
        theme // THEMES_PER_GENRE == genre,
        theme == second,
        np.ones(len(theme), bool),
    )
    chance = np.zeros(len(theme))
    for pool, share in zip(pools, shares, strict=True):
        chance[pool] += share * weight[pool] / weight[pool].sum()
    order = np.argsort(-np.round(np.log(chance), 9), kind="stable")
    place = np.empty(len(theme))
    place[order] = (np.arange(len(theme)) + 0.5) / len(theme)
    return place


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Scores minus the log of their summed exponentials, last axis."""
    top = scores.max(axis=-1, keepdims=True)
    total = np.exp(scores - top).sum(axis=-1, keepdims=True)
    return scores - top - np.log(total)
