"""Measures of whole lists, beside the place of one positive.

A list that holds the same good idea ten times and a list that holds ten good
ideas may have one hit ratio. Letters: M lists, k places, N items, d width of
the item vectors, G groups of items, K zones of a user. All measures are
vectors with one value per list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serendifflib.data.law import ForkedLaw
from serendifflib.data.splits import Examples
from serendifflib.data.world import World
from serendifflib.errors import DataError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import Isotropy, shares

TOP = 10  # places of a list that a reader sees
GROUPS = 100  # prototypes that stand for the groups of a catalogue, at most
MIX = 0.01  # share of the history in the list, so that no log is infinite


def zone_coverage(
    lists: np.ndarray, zones: np.ndarray, n_zones: int
) -> np.ndarray:
    """Share of a user's zones that have an item in the list.

    The zones are those of
    :meth:`serendifflib.data.world.World.zone_items` in a simulated world.

    Args:
        lists: item numbers, [M, k].
        zones: zone of every item for each user, or -1, [M, N + 1].
        n_zones: K.

    Returns:
        float64 [M] in [0, 1].

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

    with p(g) and q(g) the mean shares of history and list in group g. Zero
    is calibrated; whoever leaves the usual on purpose is far from zero.

    Args:
        histories: item numbers, 0 is padding, [M, n].
        lists: item numbers, [M, k].
        shares: of every item in the groups, rows sum to 1 (zeros for
            padding), [N + 1, G].

    Returns:
        float64 [M], zero or more.

    >>> shares = np.array([[0, 0], [1, 0], [0, 1]])
    >>> calibration(np.array([[1, 2]]), np.array([[1, 2]]), shares).tolist()
    [0.0]
    """
    p, q = (_mean_shares(items, shares) for items in (histories, lists))
    mixed = (1 - MIX) * q + MIX * p
    ratio = np.divide(p, mixed, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log(ratio)).sum(axis=1))


def _mean_shares(items: np.ndarray, shares: np.ndarray) -> np.ndarray:
    total = shares[items].sum(axis=1, dtype=np.float64)
    whole = total.sum(axis=1, keepdims=True)
    return np.asarray(total / np.maximum(whole, 1e-12))


def intra_list_distance(lists: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    r"""Mean distance of two items of a list (Ziegler et al. 2005).

    .. math:: \frac{1}{k (k - 1)} \sum_{i \ne j} (1 - \cos(v_i, v_j))

    Args:
        lists: item numbers, [M, k], k of at least 2.
        vectors: unit item vectors, [N + 1, d].

    Returns:
        float64 [M] in [0, 2].

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

    with n_i of U users having item i; nobody counts as one, as in RecTools.

    Args:
        lists: item numbers, [M, k].
        counts: training users who have each item, [N + 1].
        n_users: U, number of training users.

    Returns:
        float64 [M], zero or more.

    Raises:
        DataError: an item has more users than there are.

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
        """All measures of the lists [M, k] of M cases, each float64 [M].

        ``zones`` is among them in worlds with bridges alone.
        """
        histories = examples.histories.numpy()
        found = {
            "calibration": calibration(histories, lists, self.shares),
            "distance": intra_list_distance(lists, self.vectors),
            "novelty": novelty(lists, self.counts, self.n_users),
        }
        if self.world is not None:
            found["zones"] = self._zones(lists, examples.users)
        return found

    def _zones(self, lists: np.ndarray, users: np.ndarray) -> np.ndarray:
        """Coverage, one user at a time: zones of all items are large."""
        assert self.world and isinstance(self.world.law, ForkedLaw)
        bridges, zones_of = self.world.law.bridges, self.world.zone_items
        covered = [
            zone_coverage(listed[None], zones_of(int(user))[None], bridges)
            for user, listed in zip(users, lists, strict=True)
        ]
        return np.concatenate([np.zeros(0), *covered])
