"""Any small table, however odd, goes the whole way or is refused in a line.

One user, one item, one reader per book, no text, all the same text, ties,
no labels, nothing but labels: properties of what comes out, from the item
vectors to the recommendations.
"""

import numpy as np
import pandas as pd
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendifflib.data.folds import prepare_fold, user_folds
from serendifflib.data.interactions import Interactions
from serendifflib.data.reading import validate
from serendifflib.errors import SerenDiffError
from serendifflib.portrait import PortraitSpace, cell_of
from serendifflib.serendiff import SerenDiff

TEXTS = ("", "the same words", "moon", "moon and sun", "\ufffd", "  ")


@st.composite
def odd_tables(draw):
    """Rows of few users and items, in the columns of the schema."""
    n_users = draw(st.integers(1, 8))
    n_items = draw(st.integers(1, 12))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, n_users - 1),
                st.integers(0, n_items - 1),
                st.integers(0, 3),
                st.sampled_from(TEXTS),
                st.sampled_from([0.5, 4.0, 5.0, float("nan")]),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=60,
        )
    )
    table = pd.DataFrame(
        rows,
        columns=[
            "user_id",
            "item_id",
            "timestamp",
            "review",
            "rating",
            "label",
        ],
    )
    return table.astype({"user_id": str, "item_id": str})


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


def refused(error):
    message = str(error)
    assert message and "\n" not in message


@ODD
@given(table=odd_tables(), bins=st.sampled_from(["catalogue", "interactions"]))
def test_portraits(word_encoder, table, bins):
    """Positions in the unit square, the first at the anchor, no future."""
    data = interactions(table)
    try:
        fold = fold_of(data, word_encoder)
        space = PortraitSpace.fit(fold, bins=bins)
    except SerenDiffError as error:
        refused(error)
        return
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
        for cut in range(1, len(history)):
            prefix = space.scores(history[:cut])
            for whole, part in zip(scores, prefix, strict=True):
                np.testing.assert_allclose(part, whole[:cut], rtol=1e-6)
                assert np.isfinite(part[1:]).all()


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(table=odd_tables())
def test_recommendations(word_encoder, tiny_settings, table):
    """New items, each once, finite scores in order; or one clear line."""
    data = interactions(table)
    model = SerenDiff(
        "tuned",
        device="cpu",
        progress=False,
        **{**tiny_settings, "steps": 1, "validate_every": 1},
    )
    try:
        model.fit(fold_of(data, word_encoder))
    except SerenDiffError as error:
        refused(error)
        return
    for number, user in enumerate(data.users[:3]):
        found = model.recommend(user, k=50)
        own = set(data.items[data.item_index[data.rows(number)] - 1])
        assert not own & set(found["item"])
        assert found["item"].is_unique
        assert np.isfinite(found["score"]).all()
        assert (np.diff(found["score"]) <= 0).all()
        for item in found["item"][:2]:
            assert model.explain(user, item).rank >= 1
