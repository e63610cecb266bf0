"""Measures of whole lists and of zones, beside the place of one positive.

A list that holds the same good idea ten times and a list that holds ten good
ideas may have one hit ratio. Letters: M lists, k places, N items, d width of
the item vectors, G groups of items, K zones of a user, L side of the plane.
Measures of lists are vectors, float64 [M]; lists are item numbers [M, k].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr
from scipy.stats import wasserstein_distance_nd

from serendifflib.data.law import ForkedLaw
from serendifflib.data.splits import Examples
from serendifflib.data.world import World
from serendifflib.errors import ConfigError, DataError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import Isotropy, shares

TOP = 10  # places of a list that a reader sees
GROUPS = 100  # prototypes that stand for the groups of a catalogue, at most
FLOOR = 1e-3  # share of the even zone that is mixed into a model's
MIX = 0.01  # share of the history in the list, so that no log is infinite


def zone_coverage(
    lists: np.ndarray, zones: np.ndarray, n_zones: int
) -> np.ndarray:
    """Share of a user's zones that have an item in the list, in [0, 1].

    ``zones`` [M, N + 1] hold the zone of every item for each user, or -1
    (:meth:`serendifflib.data.world.World.zone_items`).

    >>> zones = np.array([[-1, 0, 0, 1, -1]])  # items 1 and 2 share a zone
    >>> zone_coverage(np.array([[1, 2, 4]]), zones, n_zones=2).tolist()
    [0.5]
    """
    found = np.take_along_axis(zones, lists, axis=1)
    there = found[:, :, None] == np.arange(n_zones)
    return np.asarray(there.any(axis=1).mean(axis=1))


def calibration(
    histories: np.ndarray, lists: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    r"""How far the groups in a list are from those in the history.

    The Kullback-Leibler divergence of Steck (2018), in nats,

    .. math:: \sum_g p(g) \log \frac{p(g)}{0.99\, q(g) + 0.01\, p(g)},

    with p(g) and q(g) the mean shares of history [M, n] and list in group g,
    by the ``shares`` [N + 1, G] of every item. Zero is calibrated.

    >>> shares = np.array([[0, 0], [1, 0], [0, 1]])
    >>> calibration(np.array([[1, 2]]), np.array([[1, 2]]), shares).tolist()
    [0.0]
    """
    p, q = (_mean_shares(items, shares) for items in (histories, lists))
    return np.asarray(rel_entr(p, (1 - MIX) * q + MIX * p).sum(axis=1))


def _mean_shares(items: np.ndarray, shares: np.ndarray) -> np.ndarray:
    total = shares[items].sum(axis=1, dtype=np.float64)
    whole = total.sum(axis=1, keepdims=True)
    return np.asarray(total / np.maximum(whole, 1e-12))


def intra_list_distance(lists: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    r"""Mean distance of two items of a list (Ziegler et al. 2005), 0 to 2.

    .. math:: \frac{1}{k (k - 1)} \sum_{i \ne j} (1 - \cos(v_i, v_j))

    over unit item vectors [N + 1, d], for k of at least 2.

    >>> vectors = np.array([[0, 0], [1, 0], [1, 0], [0, 1]])
    >>> intra_list_distance(np.array([[1, 2], [1, 3]]), vectors).tolist()
    [0.0, 1.0]
    """
    known = vectors[lists].astype(np.float64)
    k = lists.shape[1]
    total = np.square(known.sum(axis=1)).sum(axis=1)
    cosines = (total - np.square(known).sum(axis=(1, 2))) / (k * (k - 1))
    return np.asarray(1.0 - cosines)


def novelty(lists: np.ndarray, counts: np.ndarray, n_users: int) -> np.ndarray:
    r"""Mean self-information of a list's items, in bits (Zhou et al. 2010).

    .. math:: \frac{1}{k} \sum_i - \log_2 \frac{\max(n_i, 1)}{U}

    with n_i of U training users having item i (``counts``, [N + 1]); nobody
    counts as one, as in RecTools.

    >>> novelty(np.array([[1, 2]]), np.array([0, 4, 1]), n_users=4).tolist()
    [1.0]
    """
    if counts.max() > n_users:
        raise DataError(
            f"an item has {int(counts.max())} users of {n_users}: count "
            "each user once"
        )
    bits = -np.log2(np.maximum(counts, 1) / n_users)
    return np.asarray(bits[lists].mean(axis=1))


@dataclass(frozen=True)
class ListMeasures:
    """What the measures of a fold's lists need to know.

    Attributes:
        vectors: centred unit item vectors, [N + 1, d].
        shares: of the items in prototypes, which stand for groups.
        counts: training users who have each item, [N + 1].
        n_users: U.
        world: with several bridges; None leaves coverage out.
    """

    vectors: np.ndarray
    shares: np.ndarray
    counts: np.ndarray
    n_users: int
    world: World | None

    @classmethod
    def of(cls, fold: FoldData) -> ListMeasures:
        """Count in the training histories of ``fold``."""
        isotropy = Isotropy.fit(fold.raw_vectors, fold.train_items)
        vectors = isotropy.apply(fold.raw_vectors)
        met = [np.unique(history) for history in fold.training_histories()]
        world = fold.interactions.world
        if fold.kind != "serendipity" or not (
            world and isinstance(world.law, ForkedLaw)
        ):
            world = None
        return cls(
            vectors=vectors.numpy(),
            shares=shares(vectors, GROUPS).numpy(),
            counts=np.bincount(np.concatenate(met), minlength=len(vectors)),
            n_users=len(met),
            world=world,
        )

    def per_case(
        self, lists: np.ndarray, examples: Examples
    ) -> dict[str, np.ndarray]:
        """All measures of the lists [M, k] of M cases, each float64 [M]."""
        histories = examples.histories.numpy()
        found = {
            "calibration": calibration(histories, lists, self.shares),
            "distance": intra_list_distance(lists, self.vectors),
            "novelty": novelty(lists, self.counts, self.n_users),
        }
        if self.world is not None:
            law, zones_of = self.world.law, self.world.zone_items
            assert isinstance(law, ForkedLaw)
            covered = [  # one user at a time: zones of all items are large
                zone_coverage(row[None], zones_of(int(u))[None], law.bridges)
                for u, row in zip(examples.users, lists, strict=True)
            ]
            found["zones"] = np.concatenate([np.zeros(0), *covered])
        return found


class ZoneMatch(NamedTuple):
    """How near a model's zone is to the true one.

    Attributes:
        overlap: sum over cells of the smaller probability, in [0, 1].
        divergence: Kullback-Leibler, true against said, in nats; the share
            :data:`FLOOR` of the even zone is mixed into what is said.
        distance: earth mover's distance in sides of the plane.
    """

    overlap: float
    divergence: float
    distance: float


def compare_zones(said: np.ndarray, true: np.ndarray) -> ZoneMatch:
    """Compare two zones [L, L] of at least 0, each scaled to sum one.

    ``said`` is a model's (``SerenDiff.zone``), ``true`` the world's
    (``World.true_zone``): probabilities of the cells of the plane.

    >>> found = compare_zones([[1, 1], [1, 1]], [[1, 0], [0, 0]])
    >>> found.overlap, round(found.distance, 4)  # (1/2 + 1/2 + 0.7071) / 4
    (0.25, 0.4268)
    """
    zones = []
    for zone in (said, true):
        zone = np.asarray(zone, dtype=np.float64)
        total = zone.sum()
        if zone.ndim != 2 or zone.shape != np.shape(true):
            raise ConfigError(
                f"zones of shapes {np.shape(said)} and {np.shape(true)} "
                "cannot be compared: use the same side for both"
            )
        if not (zone >= 0).all() or not 0 < total < np.inf:
            raise ConfigError("a zone has numbers of at least 0, not all 0")
        zones.append(zone / total)
    said, true = zones
    smooth = (1 - FLOOR) * said + FLOOR / said.size
    where = np.argwhere(np.ones(true.shape)) / np.array(true.shape)
    return ZoneMatch(
        overlap=float(np.minimum(said, true).sum()),
        divergence=float(rel_entr(true, smooth).sum()),
        distance=float(
            wasserstein_distance_nd(where, where, said.ravel(), true.ravel())
        ),
    )
