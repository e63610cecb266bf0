"""Measures of whole lists, beside the place of one positive.

A list that holds the same good idea ten times and a list that holds ten good
ideas may have one hit ratio. Letters: M lists, k places, N items, d width of
the item vectors, G groups of items, K zones of a user. All measures are
vectors with one value per list.
"""

from __future__ import annotations

import numpy as np

from serendifflib.errors import DataError

K = 10  # places of a list that a reader sees
MIX = 0.01  # share of the history in the list, so that no log is infinite


def zone_coverage(
    lists: np.ndarray, zones: np.ndarray, n_zones: int
) -> np.ndarray:
    r"""Share of a user's zones that have an item in the list.

    .. math:: \frac{1}{K} \, |\{ z(i) : i \in \mathrm{list} \} \cap
        \{0, \dots, K - 1\}|

    where z(i) is the zone of item i for this user, in a simulated world
    that of :meth:`serendifflib.data.world.World.zone_items`.

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
