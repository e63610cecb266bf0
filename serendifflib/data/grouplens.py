"""Read GroupLens' folders: MovieLens and Serendipity 2018.

Neither holds reviews. The text of a row is a description of the film, from
title, genres, people and tags, the same in all rows of the film.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from serendifflib.data.interactions import Interactions
from serendifflib.data.reading import (
    LATEST_SECOND,
    check_rows,
    read_columns,
    read_parts,
    row_error,
    tidy,
    validate,
)
from serendifflib.errors import ConfigError

LABEL_COLUMNS = tuple(
    f"{kind}_ser_{reading}"
    for kind in ("s", "m")
    for reading in ("rel", "find", "imp", "rec")
)
TAGS_IN_TEXT = 10
_ARTICLES = (
    "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Den|Det|De|"
    "Het|Un|Une|Una|Ein|Eine|O|Os|As|En|Ett"
)
_TRAILING_ARTICLE = re.compile(
    rf"^(?P<title>.+), (?P<article>{_ARTICLES})(?P<rest>(?: \(.*)?)$"
)


def plain_title(title: str) -> str:
    """A MovieLens title as people write it, the article in front.

    >>> plain_title("American President, The (1995)")
    'The American President (1995)'
    >>> plain_title("Enfer, L' (1994)")
    "L'Enfer (1994)"
    """
    found = _TRAILING_ARTICLE.match(title.strip())
    if not found:
        return title.strip()
    gap = "" if found["article"].endswith("'") else " "
    return f"{found['article']}{gap}{found['title']}{found['rest']}"


def describe(
    title: str, genres: str, people: str = "", tags: Counter | None = None
) -> str:
    """Text of a film: title, genres, people, its commonest tags.

    >>> describe("Heat (1995)", "Action|Crime", tags=Counter(["heist"]))
    'Heat (1995). Action, Crime. heist.'
    """
    parts = [title]
    if "no genres" not in genres:
        parts.append(", ".join(re.split(r"\s*[|,]\s*", genres.strip())))
    parts.append(people)
    if tags:
        # Most frequent first; equally frequent ones by the alphabet.
        ranked = sorted(tags, key=lambda tag: (-tags[tag], tag))
        parts.append(", ".join(ranked[:TAGS_IN_TEXT]))
    parts = [part.strip().rstrip(".") for part in parts]
    return ". ".join(part for part in parts if part) + "."


def read_movielens(folder: Path | str) -> Interactions:
    """Read MovieLens' ``ratings.csv``, ``movies.csv`` and ``tags.csv``.

    Raises:
        DataError: a file is missing or breaks its format.
    """
    folder = Path(folder)
    path = folder / "ratings.csv"
    ratings = read_columns(path, ("userId", "movieId", "timestamp", "rating"))
    titles, texts = _films(folder, people=())
    frame, notes = validate(_table(ratings, texts, path), where=str(path))
    return Interactions(
        name="movielens-small",
        frame=frame,
        source=(
            "MovieLens latest-small by GroupLens: real ratings with titles, "
            "genres and tags. It has no serendipity labels."
        ),
        has_labels=False,
        titles=titles,
        notes=notes,
        texts_describe_items=True,
    )


def read_serendipity_2018(
    folder: Path | str,
    *,
    label_column: str = "any",
    users: str = "answered",
) -> Interactions:
    """Read Serendipity 2018: ratings of users, some with survey answers.

    A row of ``answers.csv`` has label 1 where the chosen definition of
    serendipity holds. Rows of ``training.csv`` have label 0: nobody asked.
    Timestamps in milliseconds become seconds.

    Args:
        folder: with ``answers.csv``, ``training.csv``, ``movies.csv`` and,
            if it is there, ``tags.csv``.
        label_column: one of :data:`LABEL_COLUMNS` (strict or motivational;
            relevant, find, implicit, recommend), or ``"any"`` of them.
        users: ``"answered"`` keeps the users of the survey; ``"all"`` keeps
            every user, ten million rows.

    Raises:
        ConfigError: an option has an unknown value.
        DataError: a file is missing or breaks its format.
    """
    if label_column not in (*LABEL_COLUMNS, "any"):
        raise ConfigError(
            f"unknown label_column {label_column!r}: choose any or one of "
            f"{', '.join(LABEL_COLUMNS)}"
        )
    if users not in ("answered", "all"):
        raise ConfigError(f"unknown users {users!r}: choose answered or all")
    folder = Path(folder)
    path = folder / "answers.csv"
    plain = ("userId", "movieId", "timestamp", "rating")
    chosen = LABEL_COLUMNS if label_column == "any" else (label_column,)
    answers = read_columns(path, (*plain, *chosen))
    labels = [_truth(answers[column], path) for column in chosen]
    known = np.logical_or.reduce([there for _, there in labels])
    titles, texts = _films(folder, people=("directedBy", "starring"))
    asked = _table(answers, texts, path)
    asked["label"] = np.logical_or.reduce([value for value, _ in labels])
    asked["label"] = asked["label"].astype(int)
    keep = set(answers["userId"].str.strip()) if users == "answered" else None
    tables = [check_rows(asked, where=str(path))]
    path = folder / "training.csv"
    past = _past_ratings(path, plain, keep)
    if len(past):
        past = _table(past, texts, path)
        tables.append(check_rows(past, where=str(path)))
    frame, notes = tidy(pd.concat(tables, ignore_index=True))
    unknown = int((~known).sum())
    if unknown:
        notes = (
            f"{unknown:,} answers say nothing about {label_column}; they "
            "count as label 0.",
            *notes,
        )
    return Interactions(
        name="serendipity-2018",
        frame=frame,
        source=(
            "Serendipity 2018 by GroupLens (Kotkov et al., 2018): ratings, "
            f"and survey answers of real users; label is {label_column}."
        ),
        has_labels=bool((frame["label"] == 1).any()),
        titles=titles,
        notes=notes,
        texts_describe_items=True,
    )


def _films(
    folder: Path, *, people: tuple[str, ...]
) -> tuple[dict[str, str], dict[str, str]]:
    """Titles and texts of all films by id."""
    movies = read_columns(
        folder / "movies.csv", ("movieId", "title", "genres", *people)
    )
    words: dict[str, Counter] = {}
    if (folder / "tags.csv").exists():
        tags = read_columns(folder / "tags.csv", ("movieId", "tag"))
        for item, tag in zip(tags["movieId"], tags["tag"], strict=True):
            if tag := " ".join(tag.lower().split()):
                words.setdefault(item.strip(), Counter())[tag] += 1
    titles, texts = {}, {}
    for row in movies.itertuples(index=False):
        item = row.movieId.strip()
        titles[item] = plain_title(row.title)
        names = ". ".join(getattr(row, column) for column in people)
        texts[item] = describe(
            titles[item], row.genres, names, words.get(item)
        )
    return titles, texts


def _table(
    ratings: pd.DataFrame, texts: dict[str, str], path: Path
) -> pd.DataFrame:
    """Rows in our columns; refuses a film that has no description."""
    items = ratings["movieId"].str.strip()
    unknown = np.flatnonzero(~items.isin(list(texts)).to_numpy())
    if len(unknown):
        row = int(unknown[0])
        raise row_error(
            str(path),
            ratings.index[row],
            "movieId",
            items.iloc[row],
            "does not occur in movies.csv",
        )
    return pd.DataFrame(
        {
            "user_id": ratings["userId"],
            "item_id": items,
            "timestamp": _seconds(ratings["timestamp"]),
            "review": items.map(texts),
            "rating": ratings["rating"],
            "label": 0,
        }
    )


def _truth(values: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """TRUE/FALSE or 1/0 as booleans, and which rows say anything at all."""
    words = values.str.strip().str.lower()
    is_true = words.isin(["true", "1", "1.0"]).to_numpy()
    is_false = words.isin(["false", "0", "0.0"]).to_numpy()
    silent = words.isin(["", "na", "nan", "null"]).to_numpy()
    strange = np.flatnonzero(~(is_true | is_false | silent))
    if len(strange):
        row = int(strange[0])
        raise row_error(
            str(path),
            row,
            str(values.name),
            values.iloc[row],
            "is neither TRUE nor FALSE",
        )
    return is_true, ~silent


def _past_ratings(
    path: Path,
    columns: tuple[str, ...],
    users: set[str] | None,
) -> pd.DataFrame:
    """Rows of ``training.csv`` to keep, read in parts: it has 10 million."""
    parts = []
    for part in read_parts(path, columns):
        if users is not None:
            part = part[part["userId"].str.strip().isin(users)]
        parts.append(part)
    return pd.concat(parts)


def _seconds(values: pd.Series) -> pd.Series:
    """Milliseconds become seconds; what is no number stays for the schema."""
    numbers = pd.to_numeric(values, errors="coerce")
    in_ms = numbers.between(
        LATEST_SECOND, 1000.0 * LATEST_SECOND, inclusive="right"
    ).to_numpy()
    if in_ms.any():
        values = values.copy()
        values[in_ms] = (numbers[in_ms] // 1000).astype("int64").astype(str)
    return values
