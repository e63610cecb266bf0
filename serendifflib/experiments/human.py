"""Totals of human answers: computed where the answers are, else recorded.

Answers of people stay where their publishers want them. What the book shows
are totals; they are small, and a copy of them belongs to the project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from serendifflib.data import table1
from serendifflib.data.human import read_judgements
from serendifflib.data.sources import (
    SOURCES,
    find_source,
    load_dataset,
    load_survey,
    source_path,
)
from serendifflib.errors import check_choice
from serendifflib.experiments import axes, premise
from serendifflib.io import read_json, results_dir, write_json


class Totals(NamedTuple):
    """One set of totals: the data id behind it, and how it is made."""

    data: str
    make: Callable[[], dict[str, Any]]


TOTALS: Mapping[str, Totals] = {
    "premise": Totals(
        "taobao-serendipity",
        lambda: premise.summarise(load_survey("taobao-serendipity")),
    ),
    "axes": Totals("goodreads-surprise", lambda: axes.summarise(_books())),
    "example": Totals("goodreads-surprise", lambda: axes.example(_books())),
    "histories": Totals(
        "movielens-small",
        lambda: table1.shape(load_dataset("movielens-small")),
    ),
}


def _books() -> pd.DataFrame:
    return read_judgements(source_path(SOURCES["goodreads-surprise"]))


def reader_titles(reader: str, count: int) -> list[str]:
    """Titles of a reader's books; their numbers where the file is not here."""
    if find_source(SOURCES["goodreads-surprise"]) is None:
        return [f"book {number}" for number in range(1, count + 1)]
    books = _books()
    return books.loc[books["user_id"] == reader, "title"].tolist()


def human_totals(name: str) -> tuple[dict[str, Any], str]:
    """Totals of a chapter, and a sentence that says where they come from.

    Raises:
        ConfigError: no such totals in :data:`TOTALS`.
        DataError: the data that are here are not those of the publisher.
    """
    check_choice("totals", name, TOTALS)
    totals = TOTALS[name]
    if find_source(SOURCES[totals.data]) is not None:
        return totals.make(), f"computed on this page from {totals.data}"
    found = read_json(results_dir() / "human" / f"{name}.json")
    return found["totals"], (
        f"recorded on {found['created']}; {totals.data} is not here, "
        f"`python -m serendifflib data fetch {totals.data}` brings it"
    )


def record_totals(name: str, created: str) -> None:
    """Write totals to ``results/human``; ``created`` is the day, in ISO."""
    totals = TOTALS[name]
    record = {
        "what": "totals over human answers; no answer of a person",
        "data": totals.data,
        "licence": SOURCES[totals.data].licence,
        "created": created,
        "totals": totals.make(),
    }
    write_json(results_dir() / "human" / f"{name}.json", record)
