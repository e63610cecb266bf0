"""The few numbers of the first page, from the recorded runs."""

from __future__ import annotations

import pandas as pd

from serendifflib.experiments.results import collect

RIVALS = (
    "BERT4Rec",
    "DESR-style",
    "DiffRec",
    "DreamRec",
    "PURS",
    "SASRec",
    "SNPR-style",
    "SerenEnhance",
    "SerenPrompt-style",
)
# What the first page calls a row, and where its records are; from chance to
# the ceiling.
LINES = {
    "Guessing": ("controls", "random"),
    "SerenDiff as printed": ("controls", "paper"),
    "SerenDiff, smallest repair": ("controls", "corrected"),
    "SerenDiff, painter": ("calls", "painter-ddim-1"),
    "Best of nine rivals": ("table4", RIVALS),
    "Linear map and radius": ("table4", "linear-radius"),
    "Regression of points": ("controls", "points-start"),
    "SerenDiff, tuned": ("table4", "SerenDiff"),
    "SerenDiff on points": ("table4", "points"),
    "SerenDiff on tokens": ("table4", "tokens"),
    "The law itself": ("controls", "oracle"),
}


def forest(data: str = "synthetic") -> pd.DataFrame:
    """Hit ratio of the main rows, means over the recorded folds.

    Args:
        data: id of the data set.

    Returns:
        ``label, value, low, high, n, row`` in the order of :data:`LINES`;
        rows without a record are left out.
    """
    tables = {
        table: _hits(table, data) for table in {t for t, _ in LINES.values()}
    }
    lines = []
    for label, (table, names) in LINES.items():
        rows = tables[table]
        if isinstance(names, tuple):
            rows = rows[rows["row"].isin(names)]
            rows = rows.sort_values("value", ascending=False)
        else:
            rows = rows[rows["row"] == names]
        if len(rows):
            lines.append({**rows.iloc[0].to_dict(), "label": label})
    columns = ["label", "value", "low", "high", "n", "row"]
    return pd.DataFrame(lines, columns=columns)


def _hits(table: str, data: str) -> pd.DataFrame:
    found = collect(table, data=data)
    chosen = (
        (found["fold"].astype(str) == "mean")
        & (found["metric"] == "H@10")
        & (found["task"] == "serendipity")
    )
    return found[chosen]
