"""Can these data be fitted? Asked before anything is encoded."""

from __future__ import annotations

import numpy as np
import pandas as pd

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import make_examples, whole_split
from serendifflib.errors import DataError
from serendifflib.portrait import fold
from serendifflib.portrait.fold import allowed_reviews, plan_fold


def outlook(data: Interactions) -> tuple[list[tuple[str, str]], str]:
    """What decides about ``SerenDiff.fit(data)``, and what stands against it.

    Findings as (what, found), and why the data cannot be fitted: empty if
    they can.
    """
    frame = data.frame
    labels = int((frame["label"] == 1).sum())
    with_history = len(
        make_examples(data, np.arange(data.n_users), "serendipity")
    )
    try:
        allowed, reason = plan_fold(data, whole_split(data)).allowed, ""
    except DataError as error:
        allowed = allowed_reviews(data, np.zeros(0, int), "unlabelled")
        reason = str(error)
    known = len(np.unique(data.item_index[allowed]))
    rated = frame["rating"].dropna()
    ratings = (
        f"{rated.min():g} to {rated.max():g}, {len(frame) - len(rated):,} "
        "without"
        if len(rated)
        else "none"
    )
    found = [
        ("times", data.span),
        ("ratings", ratings),
        ("share of label 1", f"{labels / len(frame):.2%}"),
        ("labels with a history", f"{with_history:,} of {labels:,}"),
        (
            "items without a vector",
            f"{data.n_items - known:,} of {data.n_items:,}",
        ),
        ("longest history", f"{np.diff(data.row_start).max():,} items"),
    ]
    if not reason:
        found.append(("time to encode here", _encoding(data)))
    return found, reason


def _encoding(data: Interactions) -> str:
    """How long the texts will take that were never encoded here."""
    texts = pd.unique(data.frame["review"].to_numpy(dtype=object))
    # an encoder of one's own need not know how fast it is
    estimate = getattr(fold.default_encoder(), "seconds_for", None)
    if estimate is None:
        return f"{len(texts):,} texts"
    seconds = estimate(list(texts))
    if seconds < 60:
        return f"{len(texts):,} texts, about {seconds:.0f} s"
    return f"{len(texts):,} texts, about {seconds / 60:.0f} min"
