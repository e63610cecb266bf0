"""Is the zone that a model says the zone that the law has?

A zone is a probability for each cell of the plane. In a simulated world the
true one is known (``World.true_zone``), so that two zones can be compared.

Letters: L side of the plane.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import wasserstein_distance_nd

from serendifflib.errors import ConfigError

FLOOR = 1e-3  # share of the even zone that is mixed into a model's


class ZoneMatch(NamedTuple):
    """How near a model's zone is to the true one.

    Attributes:
        overlap: sum over cells of the smaller probability, in [0, 1].
        divergence: Kullback-Leibler, true against said, in nats; some of the
            even zone (:data:`FLOOR`) is mixed into what is said.
        distance: earth mover's distance in sides of the plane.
    """

    overlap: float
    divergence: float
    distance: float


def compare_zones(said: np.ndarray, true: np.ndarray) -> ZoneMatch:
    """Compare two zones, each scaled to sum one.

    Args:
        said: a model's zone (``SerenDiff.zone``), [L, L], at least 0.
        true: the world's, [L, L], at least 0.

    Raises:
        ConfigError: other shapes, negative numbers, or nothing at all.

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
    inside = true > 0
    lost = true[inside] * np.log(true[inside] / smooth[inside])
    where = np.argwhere(np.ones(true.shape)) / np.array(true.shape)
    return ZoneMatch(
        overlap=float(np.minimum(said, true).sum()),
        divergence=float(lost.sum()),
        distance=float(
            wasserstein_distance_nd(where, where, said.ravel(), true.ravel())
        ),
    )
