"""Distance and direction: what a recommendation means, in words and tables.

Positions are quantiles in [0, 1]; (1, 1) is the anchor: fully expected,
fully relevant (Sec. 4.2, Figure 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from serendifflib.diffusion.base import PlacedItems
from serendifflib.model.catalogue import Catalogue
from serendifflib.portrait.picture import draw_plane, drawable, mark_item
from serendifflib.portrait.portrait import Portraits, PortraitSpace, cell_of
from serendifflib.portrait.scores import has_vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = tuple(
    "item title score expectedness relevance cell distance direction".split()
) + ("nearest history item",)
SAME = 0.05  # a difference of positions below this is called "as"
ANCHOR = np.array([1.0, 1.0])


def reach_of(positions: np.ndarray) -> float:
    """Mean distance from the anchor of positions [n, 2], less the first.

    The first item of a history lies on the anchor itself.
    """
    rest = positions[1:]
    if not len(rest):
        return 0.0
    return float(np.linalg.norm(rest - ANCHOR, axis=1).mean())


@dataclass(frozen=True)
class UserPortrait:
    """A user's portrait with everything that a picture of it needs.

    Attributes:
        user: user id.
        items, titles: history in time order, [n].
        positions: (expectedness, relevance) in [0, 1], [n, 2].
        expectedness: p(i | T) of Eq. 14, [n]; NaN for the first item.
        relevance: min-max scaled cosine of Eq. 8, [n]; NaN for the first.
        side: L.
        catalogue_positions: positions of all items, [N + 1, 2].
        catalogue_scores: their log-expectedness and relevance, [N + 1, 2].
    """

    user: str
    items: np.ndarray
    titles: list[str]
    positions: np.ndarray
    expectedness: np.ndarray
    relevance: np.ndarray
    side: int
    catalogue_positions: np.ndarray
    catalogue_scores: np.ndarray

    @classmethod
    def of(
        cls,
        history: np.ndarray,
        space: PortraitSpace,
        catalogue: Catalogue,
        side: int,
        *,
        name: str,
        own: np.ndarray | None = None,
    ) -> UserPortrait:
        """Where a history [n] puts its items and the catalogue.

        ``own``: items of a training user, whose rows are then not counted.
        """
        history = np.asarray(history, dtype=np.int64)
        seen = space.view(history, own=own)
        log_exp, cosine = space.scores(history, own=own)
        return cls(
            user=name,
            items=history,
            titles=[catalogue.title(item) for item in history],
            positions=seen.past,
            expectedness=np.exp(log_exp),
            relevance=space.relevance_range.apply(cosine),
            side=side,
            catalogue_positions=seen.positions,
            catalogue_scores=seen.scores,
        )

    @property
    def placed(self) -> PlacedItems:
        """This user, and the whole catalogue, as a diffusion sees them."""
        items, past, places, scores = (
            torch.from_numpy(values)[None]
            for values in (
                self.items,
                self.positions,
                self.catalogue_positions[1:],
                self.catalogue_scores[1:],
            )
        )
        everything = torch.arange(1, scores.shape[1] + 1)[None]
        return PlacedItems(Portraits(items, past), everything, places, scores)

    @property
    def centre(self) -> np.ndarray:
        """Mean position of the history without the pinned first item."""
        rest = self.positions[1:]
        return rest.mean(axis=0) if len(rest) else ANCHOR.copy()

    @property
    def reach(self) -> float:
        """Mean distance of the history from the anchor, 0 to sqrt(2).

        Small for a conservative user, large for a bold one (Figure 2).
        """
        return reach_of(self.positions)

    def table(self) -> pd.DataFrame:
        """The history as a table, one row per item in time order."""
        cells = cell_of(self.positions, self.side) + 1
        return pd.DataFrame(
            {
                "title": self.titles,
                "expectedness": self.expectedness,
                "relevance": self.relevance,
                "position_expectedness": self.positions[:, 0],
                "position_relevance": self.positions[:, 1],
                "cell": [tuple(int(c) for c in cell) for cell in cells],
            }
        )

    def plot(
        self,
        ax: Axes | None = None,
        *,
        zone: np.ndarray | None = None,
        point: np.ndarray | None = None,
        label: str | None = None,
    ) -> Axes:
        """Figure 2: expectedness runs right, relevance runs up.

        On ``ax``, or a figure of its own. A zone [L, L] (length of the
        generated vector per cell) is shaded, a point [2] marked with a label.
        """
        ax = draw_plane(
            self.positions, self.side, reach=self.reach, zone=zone, ax=ax
        )
        if point is not None:
            mark_item(ax, point, self.centre, label)
        return ax


def direction(change: np.ndarray) -> str:
    """A step on the plane in words.

    >>> direction(np.array([-0.3, 0.01]))
    'less expected, as relevant'
    """
    words = []
    for name, step in zip(("expected", "relevant"), change, strict=True):
        degree = "more" if step > 0 else "less"
        words.append(f"{'as' if abs(step) < SAME else degree} {name}")
    return ", ".join(words)


def nearest_history(
    item: int, history: np.ndarray, vectors: Tensor
) -> list[tuple[int, float]]:
    """Places in the history of the two most similar items, and cosines.

    None where the item, or all of the history, has no text.
    """
    if not has_vector(vectors[item]):
        return []
    known = vectors[torch.as_tensor(history)]
    cosines = known @ vectors[item]
    cosines[~has_vector(known)] = -torch.inf
    best = cosines.argsort(descending=True, stable=True)[:2]
    return [
        (place, float(cosines[place]))
        for place in best.tolist()
        if not torch.isinf(cosines[place])
    ]


def words_of_draws(
    portrait: UserPortrait, item: int, cells: np.ndarray, vectors: Tensor
) -> str:
    """How many drawn points lie about an item, and near which of the history.

    A sentence; empty without any draw. The draws lie in ``cells`` [S, 2];
    within one cell of the item's counts as here.
    """
    if not len(cells):
        return ""
    here = cell_of(portrait.catalogue_positions[item], portrait.side)
    near = int((np.abs(cells - here).max(axis=1) <= 1).sum())
    titles = [
        f"“{portrait.titles[place]}”"
        for place, _ in nearest_history(item, portrait.items, vectors)
    ]
    lie = "lies" if near == 1 else "lie"
    said = f"{_count(near)} of {_count(len(cells))} draws {lie} here"
    if titles:
        said += f", near {' and '.join(titles)}"
    return f"{said[0].upper()}{said[1:]}."


def _count(number: int) -> str:
    """Small numbers in words.

    >>> _count(7), _count(64)
    ('seven', '64')
    """
    words = "none one two three four five six seven eight nine ten".split()
    return words[number] if number < len(words) else str(number)


def recommendation_table(
    portrait: UserPortrait,
    items: np.ndarray,
    scores: np.ndarray,
    vectors: Tensor,
    catalogue: Catalogue,
) -> pd.DataFrame:
    """What :meth:`serendifflib.SerenDiff.recommend` returns."""
    rows = []
    for item in items:
        place = portrait.catalogue_positions[item]
        step = place - portrait.centre
        nearest = nearest_history(int(item), portrait.items, vectors)
        cell = cell_of(place, portrait.side) + 1
        rows.append(
            (
                catalogue.items[item - 1],
                catalogue.title(item),
                float(scores[item]),
                *map(float, place),
                tuple(int(c) for c in cell),
                float(np.linalg.norm(step)),
                direction(step),
                portrait.titles[nearest[0][0]] if nearest else "",
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class Explanation:
    """Why an item was recommended, in words and as a picture.

    Attributes:
        portrait: the user's portrait.
        title: of the item.
        position: of the item on the plane, [2].
        rank: 1 is the best of the catalogue; 0 for an item of the history.
        distance: from the user's centre, in sides of the plane.
        radius: distance of the item from the anchor (1, 1).
        direction: in words, see :func:`direction`.
        nearest: title of the most similar history item; empty where no
            text can be compared.
        cosine: its cosine to the item, or NaN.
        zone: how strongly each cell is generated, [L, L].
        drawn: :func:`words_of_draws`; empty where no points are drawn.
        item: its id.
    """

    portrait: UserPortrait
    title: str
    position: np.ndarray
    rank: int
    distance: float
    radius: float
    direction: str
    nearest: str
    cosine: float
    zone: np.ndarray
    drawn: str = ""
    item: str = ""

    @classmethod
    def of(
        cls,
        portrait: UserPortrait,
        item: int,
        scores: np.ndarray,
        zone: np.ndarray,
        space: PortraitSpace,
        catalogue: Catalogue,
        cells: np.ndarray | None = None,
    ) -> Explanation:
        """Measure where ``item`` lies for the user, and draws (``cells``)."""
        position = portrait.catalogue_positions[item]
        step = position - portrait.centre
        nearest = nearest_history(item, portrait.items, space.vectors)
        place, cosine = nearest[0] if nearest else (None, float("nan"))
        known = np.isfinite(scores[item])
        drawn = np.empty((0, 2)) if cells is None else cells
        return cls(
            portrait=portrait,
            title=catalogue.title(item),
            position=position,
            rank=int((scores > scores[item]).sum()) + 1 if known else 0,
            distance=float(np.linalg.norm(step)),
            radius=float(np.linalg.norm(position - ANCHOR)),
            direction=direction(step),
            nearest="" if place is None else portrait.titles[place],
            cosine=cosine,
            zone=zone,
            drawn=words_of_draws(portrait, item, drawn, space.vectors),
            item=catalogue.items[item - 1],
        )

    @property
    def text(self) -> str:
        """The explanation in plain sentences."""
        if not self.nearest:
            return (
                f"“{self.title}” or all of the history has no text, so that "
                "nothing can be said of its relevance; such an item is never "
                "recommended."
            )
        reach = self.portrait.reach
        farther = self.radius - reach
        if abs(farther) < SAME:
            stretch = "about as far as this user usually goes"
        elif farther > 0:
            stretch = "farther than this user usually goes"
        else:
            stretch = "nearer to the familiar than this user usually stays"
        return (
            f"“{self.title}” lies {self.distance:.2f} from the centre of the "
            f"history: {self.direction}. Its distance from the fully "
            f"familiar, {self.radius:.2f}, is {stretch} ({reach:.2f}). The "
            f"most similar item of the history is “{self.nearest}” (cosine "
            f"{self.cosine:.2f}). {self.drawn}".rstrip()
        )

    def __str__(self) -> str:
        return self.text

    def plot(self, ax: Axes | None = None) -> Axes:
        """Figure 5: the portrait, the generated zone and the item."""
        return self.portrait.plot(
            ax=ax,
            zone=self.zone,
            point=self.position,
            label=drawable(self.title, self.item),
        )
