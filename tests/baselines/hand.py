"""A catalogue of four items on the axes of the plane, and tiny folds of it.

Items a, b, c, d (1..4) lie at east, west, north and south. Their mean is
zero, so centring changes nothing and every cosine is known by heart.
"""

import numpy as np
import pandas as pd
import torch

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import Split, make_examples
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.grid import Grid, Look

EAST, WEST, NORTH, SOUTH = 1, 2, 3, 4
COMPASS = torch.tensor(
    [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
)


def make_fold(sequences, *, train, valid=(), test=(), vectors=COMPASS):
    """Users' sequences like ``"abC"``: a capital is a label-1 row."""
    rows = [
        (f"u{user}", letter.lower(), 100 + time, "text", 5.0, letter.isupper())
        for user, sequence in enumerate(sequences)
        for time, letter in enumerate(sequence)
    ]
    frame = pd.DataFrame(
        rows,
        columns=[
            "user_id", "item_id", "timestamp", "review", "rating", "label",
        ],
    )  # fmt: skip
    frame["label"] = frame["label"].astype(np.int8)
    data = Interactions("hand", frame, "by hand", has_labels=True)
    assert data.n_items == len(vectors) - 1
    parts = [np.array(part, dtype=np.int64) for part in (train, valid, test)]
    split = Split("hand", *parts)
    return FoldData(
        interactions=data,
        split=split,
        kind="serendipity",
        raw_vectors=vectors,
        missing_items=np.zeros(0, dtype=np.int64),
        train=make_examples(data, parts[0], "serendipity"),
        valid=make_examples(data, parts[1], "serendipity"),
        test=make_examples(data, parts[2], "serendipity"),
        train_items=np.arange(1, len(vectors)),  # centred on all: zero
    )


class FixedGrid(Grid):
    """A grid that puts items where the test says, whoever looks."""

    def __init__(self, cells, side=2):
        super().__init__(space=None, side=side)
        self.fixed = np.array(cells)

    def look(self, history, *, own=None):
        past = np.zeros((int((history > 0).sum()), 2))
        return Look(past, self.fixed)

    def place_training(self, fold, examples, items):
        return items

    def cells_of(self, placed):
        return self.fixed[placed]
