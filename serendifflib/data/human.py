"""What people said: surveys of serendipity, and readers with judgements.

The surveys are answers without histories that a model could read, so each is
a typed table of its own (:func:`~serendifflib.data.sources.load_survey`). The
four readers of Goodreads have both, a history and a judgement of each book.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from serendifflib.data.interactions import Interactions
from serendifflib.data.reading import read_columns, reading
from serendifflib.data.schema import (
    check_schema,
    read_numbers,
    row_error,
    validate,
)
from serendifflib.errors import DataError

ASKED = (
    *("relevance", "novelty", "pur_diversity", "rec_diversity"),
    *("unexpectedness", "serendipity", "timeliness"),
    *("satisfaction", "purchase_intention"),
)
_CURIOSITY = tuple(f"c{k}" for k in range(1, 11))
_PERSONALITY = tuple(f"p{k}" for k in range(1, 11))
_COLUMNS = {
    "UserId": "user_id",
    "ItemId": "item_id",
    "CategoryId": "category_id",
    "User satisfaction": "satisfaction",
    "Purchase intention": "purchase_intention",
    **{name.capitalize(): name for name in ("clicked", "purchased")},
    **{name.capitalize(): name for name in ASKED[:-2]},
    **{name.upper(): name for name in (*_CURIOSITY, *_PERSONALITY)},
}
# Ten-Item Personality Inventory (Gosling et al., 2003): statement, reversed
TRAITS = {
    "extraversion": ("p1", "p6"),
    "agreeableness": ("p7", "p2"),
    "conscientiousness": ("p3", "p8"),
    "emotional_stability": ("p9", "p4"),
    "openness": ("p5", "p10"),
}


def _scale(low: float, high: float, *, whole: bool = True) -> pa.Column:
    """A column of answers between two ends of a scale."""
    checks = [
        pa.Check.in_range(low, high, error=f"is not within {low} to {high}")
    ]
    if whole:
        checks.append(
            pa.Check(lambda v: v % 1 == 0, error="is no whole number")
        )
    return pa.Column("float64", checks, nullable=not whole)


def _words(*known: str) -> pa.Column:
    """A column of words of the publisher's readme."""
    check = pa.Check.isin(known, error="is not a word of the readme")
    return pa.Column(object, check)


TAOBAO = pa.DataFrameSchema(
    {name: pa.Column(object) for name in ("user_id", "item_id", "category_id")}
    | {name: _scale(0, 1) for name in ("clicked", "purchased")}
    | {name: _scale(1, 5) for name in (*ASKED, *_CURIOSITY)}
    | {name: _scale(1, 7) for name in _PERSONALITY}
)
BELIEFS = pa.DataFrameSchema(
    {
        "userId": pa.Column(object),
        "movieId": pa.Column(object),
        "isSeen": _scale(-1, 1),
        "userElicitRating": _scale(0.5, 5.0, whole=False),
        "userPredictRating": _scale(0.5, 5.0, whole=False),
        "userCertainty": _scale(1.0, 5.0, whole=False),
        "tstamp": pa.Column("float64", nullable=True),
        "systemPredictRating": _scale(-1.0, 6.0, whole=False),
    }
)
PERSONALITY = pa.DataFrameSchema(
    {"userid": pa.Column(object)}
    | {name: _scale(1, 7, whole=False) for name in TRAITS}
    | {
        "assigned metric": _words(
            "serendipity", "popularity", "diversity", "all"
        ),
        "assigned condition": _words("high", "medium", "low", "default"),
        "is_personalized": _scale(1, 5, whole=False),
        "enjoy_watching": _scale(1, 5, whole=False),
    }
)


def read_taobao(path: Path | str) -> pd.DataFrame:
    """Answers of Taobao's customers about one recommendation each.

    Returns:
        One row per person of ``umap2020_TSD_Wang.csv``. Ids as text; answers
        as numbers, 1 "strongly disagree" to 5 (7 for ``p1`` to ``p10``).
        Added: ``surprised`` (serendipity 4 or 5), ``curiosity`` (mean of
        ``c1`` to ``c10``) and the five traits of :data:`TRAITS`.
    """
    raw = read_columns(path, tuple(_COLUMNS)).rename(columns=_COLUMNS)
    answers = _typed(raw, TAOBAO, path)
    again = answers["user_id"].duplicated().to_numpy()
    if again.any():
        users = answers["user_id"].rename("UserId")
        raise row_error(str(path), users, again, "stands there twice")
    answers["surprised"] = answers["serendipity"] >= 4
    answers["curiosity"] = answers[list(_CURIOSITY)].mean(axis=1)
    for trait, (plain, reversed_) in TRAITS.items():
        answers[trait] = (answers[plain] + 8 - answers[reversed_]) / 2
    return answers


def serendipity_counts(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """People and surprised people, by relevance and unexpectedness 1..5.

    Two int arrays [5, 5]: all that the book stores of the answers.
    """
    people, surprised = np.zeros((2, 5, 5), dtype=int)
    place = (
        answers["relevance"].to_numpy(dtype=int) - 1,
        answers["unexpectedness"].to_numpy(dtype=int) - 1,
    )
    np.add.at(people, place, 1)
    np.add.at(surprised, place, answers["surprised"].to_numpy(dtype=int))
    return people, surprised


def read_beliefs(folder: Path | str) -> pd.DataFrame:
    """What MovieLens users expect of films (Aridor et al., 2024).

    By the publisher's readme ``isSeen`` is 1 (seen, ``userElicitRating`` is
    the rating), 0 (not seen, ``userPredictRating`` is the *expected* rating
    and ``userCertainty`` how sure, 1 to 5) or -1 (no answer). Assumed, for no
    copy was at hand: empty fields or -1 stand for no value, here NaN.
    """
    path = Path(folder) / "belief_data.csv"
    raw = read_columns(path, tuple(BELIEFS.columns))
    for name in ("userElicitRating", "userPredictRating", "userCertainty"):
        raw[name] = raw[name].where(~raw[name].str.match(r"\s*-1(\.0)?\s*$"))
    return _typed(raw, BELIEFS, path)


def read_personality(folder: Path | str) -> pd.DataFrame:
    """Lists of high, middle or low serendipity, and the pleasure in them.

    Personality 2018 (Nguyen et al., 2018): each user was given twelve films
    chosen by ``assigned metric`` (serendipity, popularity or diversity;
    ``all`` with the condition ``default``) and said, from 1 to 5, whether
    the list ``is_personalized`` and how much they would ``enjoy_watching``
    it. Films come without titles, so there are no item vectors.
    """
    path = Path(folder) / "personality-data.csv"
    raw = read_columns(path, tuple(PERSONALITY.columns))
    raw = raw.apply(lambda column: column.str.strip())
    return _typed(raw, PERSONALITY, path)


def _typed(
    table: pd.DataFrame, schema: pa.DataFrameSchema, path: Path | str
) -> pd.DataFrame:
    """Typed and checked columns of a table of texts."""
    typed = table.astype(object)
    for name, column in schema.columns.items():
        if str(column.dtype) == "float64":
            typed[name] = read_numbers(
                table[name], str(path), "is no number", may_miss=True
            )
    check_schema(schema, typed, table, str(path))
    return typed


# ------------------------------------------------- readers of Goodreads

READERS = (1, 2, 3, 4)
_QUOTES = str.maketrans("‘’“”", "''\"\"")
_BOOK = re.compile(r"^'*Book_number'\s*:\s*'(\d+)'", re.MULTILINE)
_FIELD = {
    "item_id": re.compile(r"^'*Book_id'\s*:\s*'(\d+)'", re.MULTILINE),
    "title": re.compile(r"^'*Book_title'\s*:\s*'?(.*?)'*\s*$", re.MULTILINE),
    "topics": re.compile(
        r"^Manually_identified_main_topic_words\s*:(.*)$", re.MULTILINE
    ),
    "summary": re.compile(r"^Summary\s*:(.*)$", re.MULTILINE),
    "decision": re.compile(r"^Manual decision\s*:(.*)$", re.MULTILINE),
}
_VERDICT = re.compile(r"(not\s+)?surprising", re.IGNORECASE)


def read_judgements(folder: Path | str) -> pd.DataFrame:
    """Books of four Goodreads readers, with human judgements of surprise.

    Hasan and Bunescu (2023): the books stand in reading order, and somebody
    who had read the summaries so far said whether the next one surprises. The
    files are ``User 1.txt`` to ``User 4.txt`` (or ``User1.txt``).

    Returns:
        Columns ``user_id``, ``position`` (0, 1, ...), ``item_id``, ``title``,
        ``topics``, ``summary``, ``surprising`` (1, 0, or NaN where no decision
        can be read), ``written`` (what stood there).

    Raises:
        DataError: a file is missing, a book has no id or title, or the
            numbers of the books do not count up from 0.
    """
    parts = [_books(Path(folder), reader) for reader in READERS]
    return pd.concat(parts, ignore_index=True)


def verdict(written: str) -> float:
    """A decision as 1 (surprising), 0 (not surprising) or NaN.

    >>> verdict("Not Surprising (the topic of 12)"), verdict("0, 1, 5")
    (0.0, nan)
    """
    found = {not no for no in _VERDICT.findall(written)}
    return float(found.pop()) if len(found) == 1 else float("nan")


def _books(folder: Path, reader: int) -> pd.DataFrame:
    path = folder / f"User {reader}.txt"
    if not path.is_file():
        path = folder / f"User{reader}.txt"
    with reading(path):
        text = path.read_text("utf-8-sig").translate(_QUOTES)
    heads = list(_BOOK.finditer(text))
    starts = [head.start() for head in heads] + [len(text)]
    rows: list[dict] = []
    for head, (start, end) in zip(heads, pairwise(starts), strict=True):
        block, number = text[start:end], int(head[1])
        if number != len(rows):
            raise DataError(
                f"{path}: book {number} stands where book {len(rows)} should"
            )
        row: dict[str, Any] = {"user_id": f"reader {reader}"}
        row["position"] = number
        for name, pattern in _FIELD.items():
            found = pattern.search(block)
            row[name] = found[1].strip() if found else ""
        for name in ("item_id", "title"):
            if not row[name]:
                raise DataError(f"{path}: book {number} has no {name}")
        row["surprising"] = verdict(row["decision"])
        row["written"] = row.pop("decision")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no line 'Book_number'")
    return pd.DataFrame(rows)


def read_goodreads_surprise(folder: Path | str) -> Interactions:
    """The four readers as interactions; label 1 is "surprising".

    The second of a row counts the books, and nothing is rated. A book
    without a decision has label 0; :func:`read_judgements` tells them apart.
    """
    books = read_judgements(folder)
    silent = books[books["surprising"].isna()]
    odd = silent.loc[silent["written"] != "", "written"]
    table = pd.DataFrame(
        {
            "user_id": books["user_id"],
            "item_id": books["item_id"],
            "timestamp": books["position"],
            "review": (books["title"] + ". " + books["summary"]).str.strip(),
            "rating": "",
            "label": books["surprising"].fillna(0),
        }
    )
    frame, notes = validate(table, where=str(folder))
    said = "; ".join(repr(text) for text in odd)
    notes = (
        f"{len(silent)} of {len(books)} books carry no decision; they count "
        f"as label 0{f' (unreadable: {said})' if said else ''}.",
        *notes,
    )
    return Interactions(
        name="goodreads-surprise",
        frame=frame,
        source=(
            "Four readers of Goodreads (Hasan and Bunescu, 2023): books in "
            "reading order; the label is a human judgement of surprise, "
            "made from summaries, not serendipity."
        ),
        has_labels=True,
        titles=dict(zip(books["item_id"], books["title"], strict=True)),
        notes=notes,
        texts_describe_items=True,
    )
