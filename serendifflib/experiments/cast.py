"""Nora and Otto, the two simulated readers whom the chapters follow.

Rules choose them, and the rules look at no result: whoever picks examples by
hand picks the successes.
"""

from __future__ import annotations

import numpy as np

from serendifflib.data.law import THEMES_PER_GENRE
from serendifflib.errors import DataError
from serendifflib.experiments.prepared import PreparedFold
from serendifflib.model.explain import reach_of

AMONG = 200  # the first test users, whatever the profile
SHORTEST = 8  # items before the held-out one
FAR = 0.9  # quantile of the reach


def cast(bench: PreparedFold) -> dict[str, int]:
    """The two readers: name -> row among the test users.

    Of the first 200 test users with at least eight items before the held-out
    one, Nora has the reach (mean distance of the items from the anchor) next
    to the 90% quantile. Otto has the smallest reach of those whose first five
    items share a genre while the sixth has another.

    Args:
        bench: of a simulated world.

    Raises:
        DataError: real data, or a world without two such users.
    """
    world = bench.data.world
    reach, narrow = {}, {}
    if world is not None:
        genre = world.primary // THEMES_PER_GENRE
        for row, padded in enumerate(bench.test.histories[:AMONG]):
            history = padded[padded > 0].numpy()
            if len(history) < SHORTEST:
                continue
            reach[row] = reach_of(bench.space.positions(history))
            same = genre[history[:6]] == genre[history[0]]
            if same[:5].all() and not same[5]:
                narrow[row] = reach[row]
    if not narrow or len(reach) < 2:
        raise DataError(
            f"{bench.data.name}: no two test users with eight items, one of "
            "them with five items of one genre and then another; take a "
            "simulated world with more users"
        )
    wanted = np.quantile(list(reach.values()), FAR)
    nora = min(reach, key=lambda row: abs(reach[row] - wanted))
    return {"Nora": nora, "Otto": min(narrow, key=narrow.__getitem__)}
