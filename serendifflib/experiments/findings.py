"""What the recorded runs say: numbers of the first page, rows in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from serendifflib.baselines.registry import RIVALS
from serendifflib.evaluation.stats import paired_t
from serendifflib.evaluation.tables import row_means
from serendifflib.experiments.results import case_frame, collect

# What the first page calls a row, and where its records are; from chance to
# the ceiling. Worlds that a table lacks are found in the table "generating".
LINES = {
    "Guessing": ("controls", "random"),
    "As printed, untrained": ("curve", "paper-0-zone"),
    "SerenDiff as printed": ("controls", "paper"),
    "SerenDiff, smallest repair": ("controls", "corrected"),
    "SerenDiff, painter": ("calls", "painter-ddim-1"),
    "Best of nine rivals": ("table4", RIVALS),
    "Linear map and radius": ("table4", "linear-radius"),
    "Regression of points": ("controls", "points-start"),
    "SerenDiff, tuned": ("table4", "SerenDiff"),
    "SerenDiff on points": ("table4", "points"),
    "Ranker, one answer": ("generating", "ranker"),
    "Ranker, eight answers": ("generating", "ranker-heads"),
    "SerenDiff on tokens": ("generating", "tokens"),
    "Nearest labelled users": ("generating", "nearest-users"),
    "The law, as portraits show it": ("generating", "oracle-portrait"),
    "The law itself": ("controls", "oracle"),
}


def forest(data: str = "synthetic") -> pd.DataFrame:
    """Hit ratio of the main rows on one data set, means over recorded folds.

    Columns ``label, value, low, high, n, row`` in the order of :data:`LINES`;
    rows without a record are left out.
    """
    found = {
        table: row_means(collect(table, data=data), data=data)
        for table in {table for table, _ in LINES.values()}
    }
    lines = []
    for label, (table, names) in LINES.items():
        wanted = names if isinstance(names, tuple) else (names,)
        for place in (table, "generating"):
            rows = found[place]
            rows = rows[rows.index.isin(wanted)]
            if len(rows):
                best = rows.sort_values("value", ascending=False).iloc[0]
                lines.append({**best, "row": best.name, "label": label})
                break
    columns = ["label", "value", "low", "high", "n", "row"]
    return pd.DataFrame(lines, columns=columns)


CASE = ["profile", "fold", "user", "target"]
NOT_YET = "not computed yet"


def recorded_hits(
    rows: Sequence[str], table: str, data: str
) -> dict[str, np.ndarray]:
    """H@10 of each test case that all rows share, [M] each, by row.

    Empty if a row has no record, or the rows share fewer than two cases.
    """
    cases = case_frame(table, data=data, task="serendipity")
    cases = cases[cases["row"].isin(rows)].drop_duplicates(["row", *CASE])
    wide = cases.pivot(index=CASE, columns="row", values="H@10").dropna()
    if set(wide) < set(rows) or len(wide) < 2:
        return {}
    return {row: wide[row].to_numpy() for row in rows}


def verdict(hits: Mapping[str, np.ndarray], ours: str, theirs: str) -> str:
    """Difference of two rows in points, p-value of a paired test, one word.

    >>> half = np.array([0.0, 1.0])
    >>> verdict({"a": half, "b": half}, "a", "b")
    '+0.0 points, p = 1: no clear difference'
    """
    if not hits:
        return NOT_YET
    test = paired_t(hits[ours], hits[theirs])
    word = "no clear difference"
    if test.p < 0.05:
        word = "better" if test.difference > 0 else "worse"
    return f"{100 * test.difference:+.1f} points, p = {test.p:.2g}: {word}"
