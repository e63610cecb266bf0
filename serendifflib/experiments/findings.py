"""The few numbers of the first page, from the recorded runs."""

from __future__ import annotations

import pandas as pd

from serendifflib.baselines.registry import RIVALS
from serendifflib.evaluation.tables import row_means
from serendifflib.experiments.results import collect

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
