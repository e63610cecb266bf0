"""Nora and Otto, the two simulated readers whom the chapters follow.

A rule chooses them, and it looks at no result: whoever picks examples by hand
picks the successes.
"""

from __future__ import annotations

import numpy as np

from serendifflib.errors import DataError
from serendifflib.experiments.prepared import Bench

AMONG = 200  # the first test users, whatever the profile
SHORTEST = 8  # items before the held-out one


def cast(bench: Bench) -> dict[str, int]:
    """The two readers: name -> row among the test users.

    Both have a history of at least eight items that begins with five items
    of one genre and a sixth of another. Among the first 200 test users Nora
    is the one of these with the largest reach (mean distance of the items
    from the anchor), Otto the one with the smallest.

    Args:
        bench: of a simulated world.

    Raises:
        DataError: real data, or a world without two such users.
    """
    world = bench.data.world
    reach = {}
    if world is not None:
        genre = world.primary // 4  # four themes make a genre
        for row, padded in enumerate(bench.test.histories[:AMONG]):
            history = padded[padded > 0].numpy()
            same = genre[history[:6]] == genre[history[0]]
            if len(history) >= SHORTEST and same[:5].all() and not same[5]:
                away = bench.space.positions(history)[1:] - 1
                reach[row] = np.linalg.norm(away, axis=1).mean()
    if len(reach) < 2:
        raise DataError(
            f"{bench.data.name}: no two test users with a history that begins "
            "with five items of one genre and a sixth of another; take a "
            "simulated world with more users"
        )
    ranked = sorted(reach, key=reach.__getitem__)
    return {"Nora": ranked[-1], "Otto": ranked[0]}
