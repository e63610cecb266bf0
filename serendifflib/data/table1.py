"""Table 1: the statistics of a data set beside those of the paper."""

from __future__ import annotations

import numpy as np
import pandas as pd

from serendifflib.data.interactions import Interactions
from serendifflib.errors import DataError
from serendifflib.io import project_root, read_json

PER_USER = "Labels per labelled user"


def paper_table1() -> pd.DataFrame:
    """Table 1 as the paper prints it.

    A row per line, indexed by a short name; columns ``group``, ``label``,
    ``unit`` and one per data id.

    Raises:
        DataError: installed without the project's ``results/`` folder.
    """
    path = project_root() / "results" / "paper" / "table1.json"
    if not path.is_file():
        raise DataError(f"{path}: the paper's Table 1 is not there")
    stored = read_json(path)
    table = pd.DataFrame(stored["rows"]).set_index("row")
    values = pd.DataFrame(
        table.pop("values").tolist(),
        index=table.index,
        columns=list(stored["columns"]),
    )
    return table.join(values)


def counts(interactions: Interactions) -> dict[str, int]:
    """The lines of Table 1 that the rows of a data set determine."""
    labelled = interactions.frame[interactions.frame["label"] == 1]
    return {
        "reviews_serendipity": len(labelled),
        "users_serendipity": labelled["user_id"].nunique(),
        "reviews": len(interactions.frame),
        "items_serendipity": labelled["item_id"].nunique(),
        "items": interactions.n_items,
    }


def gini(counts: np.ndarray) -> float:
    """How unevenly counts are spread: 0 evenly, near 1 all in one place.

    >>> gini(np.array([2, 2, 2, 2])), gini(np.array([0, 4, 0, 0]))
    (0.0, 0.75)
    """
    rising = np.sort(counts)
    n = len(rising)
    weighted = float((np.arange(1, n + 1) * rising).sum())
    return 2 * weighted / (n * float(rising.sum())) - (n + 1) / n


def shape(interactions: Interactions) -> dict[str, float]:
    """How long histories are, how skewed, and how much people share.

    The labels per labelled user are missing where nobody has one.
    """
    lengths = np.diff(interactions.row_start)
    readers = np.bincount(interactions.item_index)[1:]
    most = np.sort(readers)[-max(1, len(readers) // 10) :]
    found = {
        "Rows per user, mean": lengths.mean(),
        "Rows per user, median": np.median(lengths),
        "Rows per item, mean": readers.mean(),
        "Gini coefficient of items": gini(readers),
        "Share of rows, top 10% of items": most.sum() / readers.sum(),
        "Items with one reader": (readers == 1).mean(),
    }
    known = counts(interactions)
    if interactions.has_labels:
        found[PER_USER] = (
            known["reviews_serendipity"] / known["users_serendipity"]
        )
    return {name: round(float(value), 4) for name, value in found.items()}


def paper_shape(paper: pd.DataFrame) -> pd.DataFrame:
    """What of :func:`shape` the totals of the paper tell, by data id."""
    totals = paper[["serenlens-books", "serenlens-movies"]].T
    users = totals["users_serendipity"]
    return pd.DataFrame(
        {
            "Rows per user, mean": totals["reviews"] / users,
            "Rows per item, mean": totals["reviews"] / totals["items"],
            PER_USER: totals["reviews_serendipity"] / users,
        }
    ).T


def statistics(interactions: Interactions) -> pd.DataFrame:
    """Table 1 recomputed for any data set, beside the paper's two columns.

    Missing are what rows cannot tell, and what the paper does not have.
    """
    paper = paper_table1()
    found = pd.Series(counts(interactions), dtype="Float64")
    table = pd.DataFrame(
        {
            "group": paper["group"],
            "statistic": paper["label"]
            + paper["unit"].map(lambda unit: f" ({unit})" if unit else ""),
            "recomputed": found.reindex(paper.index),
            "SerenLens-Books": paper["serenlens-books"].astype("Float64"),
            "SerenLens-Movies": paper["serenlens-movies"].astype("Float64"),
        }
    )
    rows_per_user = interactions.frame.groupby("user_id").size()
    per_item = len(interactions.frame) / interactions.n_items
    for name, label, value in (
        ("users", "Users in all", interactions.n_users),
        ("per_user", "Reviews per user, median", rows_per_user.median()),
        ("per_item", "Reviews per item, mean", per_item),
    ):
        found = ["Not in the paper", label, float(value), pd.NA, pd.NA]
        table.loc[name] = found
    return table
