"""Any small table, however odd, goes the whole way or is refused in a line.

One user, one item, one reader per book, no text, all the same text, ties,
no labels, nothing but labels: properties of what comes out, from the item
vectors to the positions of the portrait.
"""

import numpy as np
import pandas as pd
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.data.schema import validate
from serendifflib.data.splits import user_folds
from serendifflib.errors import SerenDiffError
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.portrait import PortraitSpace, cell_of

TEXTS = ("", "the same words", "moon", "moon and sun", "\ufffd", "  ")


@st.composite
def odd_tables(draw):
    """Rows of few users and items, in the columns of the schema."""
    n_items = draw(st.integers(3, 12))
    texts = draw(st.sampled_from([TEXTS, TEXTS[1:2], TEXTS[2:4]]))
    labels = draw(st.sampled_from(["last", "none", "last", "any"]))
    rows = []
    for user in range(draw(st.integers(3, 8))):
        items = draw(st.lists(st.integers(1, n_items), min_size=1, max_size=8))
        for place, item in enumerate(items):
            last = place == len(items) - 1
            label = {"none": 0, "last": int(last), "all": 1}.get(labels)
            if label is None:
                label = draw(st.integers(0, 1))
            when = draw(st.integers(0, 3))
            rating = draw(st.sampled_from([0.5, 4.0, 5.0, float("nan")]))
            text = draw(st.sampled_from(texts))
            rows.append((f"u{user}", f"i{item}", when, text, rating, label))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def interactions(table):
    frame, notes = validate(table, where="odd")
    labels = bool(frame["label"].any())
    return Interactions("odd", frame, "odd", labels, notes=notes)


def fold_of(data, encoder):
    (split, *_) = user_folds(data, 2, seed=0)
    return prepare_fold(data, split, encoder=encoder)


ODD = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


passed = []  # tables that were not refused


def refused(error):
    message = str(error)
    assert message and "\n" not in message


@ODD
@given(table=odd_tables(), bins=st.sampled_from(["catalogue", "interactions"]))
def check_portraits(word_encoder, table, bins):
    """Positions in the unit square, the first at the anchor, no future."""
    try:
        data = interactions(table)
        fold = fold_of(data, word_encoder)
        space = PortraitSpace.fit(fold, bins=bins)
    except SerenDiffError as error:
        refused(error)
        return
    passed.append(table)
    lengths = space.vectors.norm(dim=1)
    assert torch.all((lengths == 0) | ((lengths - 1).abs() < 1e-5))
    for user in range(data.n_users):
        history = data.item_index[data.rows(user)]
        past, everything = space.both_positions(history)
        for positions in (past, everything):
            assert np.isfinite(positions).all()
            assert (positions >= 0).all() and (positions <= 1).all()
        assert (past[0] == 1).all()
        assert cell_of(everything, 10).max() <= 9
        scores = space.scores(history)
        assert np.isfinite(scores[0][1:]).all()
        # relevance is unknown where no text stands on one of the two sides
        texts = lengths[history] > 0
        known = texts & (np.cumsum(texts) > texts)
        assert (np.isfinite(scores[1][1:]) == known.numpy()[1:]).all()
        for cut in range(1, len(history)):
            prefix = space.scores(history[:cut])
            for whole, part in zip(scores, prefix, strict=True):
                np.testing.assert_allclose(part, whole[:cut], rtol=1e-6)


def test_portraits(word_encoder):
    passed.clear()
    check_portraits(word_encoder)
    assert len(passed) >= 4  # most of the others have no target at all
