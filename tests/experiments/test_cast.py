from types import SimpleNamespace

import numpy as np
import pytest
import torch

from serendifflib.errors import DataError
from serendifflib.experiments.prepared import cast

GENRES = {1: range(1, 9), 2: range(9, 17)}  # two genres of eight items


def bench_of(*histories, world=True):
    """A bench of which a user's places are told by the first item alone."""
    primary = np.array([0] * 9 + [4] * 8)  # themes; four make a genre
    padded = torch.zeros(len(histories), 10, dtype=torch.long)
    for row, history in enumerate(histories):
        padded[row, 10 - len(history) :] = torch.tensor(history)

    def positions(history):
        return np.full((len(history), 2), 1 - history[0] / 10)

    return SimpleNamespace(
        data=SimpleNamespace(
            name="a world",
            world=SimpleNamespace(primary=primary) if world else None,
        ),
        test=SimpleNamespace(histories=padded),
        space=SimpleNamespace(positions=positions),
    )


def begins_with(first):
    one = [first, *[i for i in GENRES[1] if i != first]]
    return [*one[:5], 9, 10, 11]


def test_nora_goes_far_and_otto_stays_near():
    bench = bench_of(
        begins_with(3),
        begins_with(2),
        [1, 9, 2, 3, 4, 5, 6, 7],  # nearer than Otto, of mixed genres
        [8, 9, 2, 3, 4, 5, 6, 7],
        begins_with(1)[:7],  # too short
        [6, 1, 2, 3, 4, 5, 7, 8],  # the sixth is of the same genre
        *[[5, 9, 2, 3, 4, 6, 7, 8]] * 3,
        [7, 9, 2, 3, 4, 5, 6, 8],
    )
    # reach by first item: 1 2 3 5 5 5 6 7 8, of which 90% lie below 7.2
    assert cast(bench) == {"Nora": 9, "Otto": 1}


@pytest.mark.parametrize("world", [True, False])
def test_without_two_such_users_nobody_is_chosen(world):
    histories = [begins_with(1)] * (1 if world else 3)
    with pytest.raises(DataError, match="a world"):
        cast(bench_of(*histories, world=world))
