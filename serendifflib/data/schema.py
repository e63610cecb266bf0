"""The schema of interactions: check every row, sort, merge, say what changed.

A row that cannot be right ends with a :class:`DataError` that names file,
row, column and how many more rows are like it. What can be read in one way
only is read, and becomes a sentence in the notes:

* ``timestamp`` counts whole seconds since 1970, UTC. Milliseconds (and
  smaller units) are told by their size; dates are read in the forms of
  :data:`DATES`.
* ``rating`` runs from 0.5 to 5 (MovieLens has half stars). An empty one is
  NaN: nobody knows whether that item was liked. So is 0, which no scale of
  stars has and many exports write for "unrated".
* ``label`` is 0 or 1; True and False are 1 and 0.
* An id is text. ``12.0`` is what a spreadsheet makes of ``12``: the same id.
* ``review`` may be empty: such a row adds nothing to its item's vector.
* A zero byte, or half of a surrogate pair, is no text: in a review it
  becomes the replacement character U+FFFD, in an id it is refused.
* Of several rows of one user and one item the earliest stays, with its own
  review and rating, and with label 1 if any of them had it. Since reviews of
  rows with label 1 never enter an item vector by default, no text written
  about a serendipitous read can leak through this rule.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pandas as pd
import pandera.pandas as pa

from serendifflib.data.interactions import COLUMNS, plain_id
from serendifflib.errors import DataError

LATEST_SECOND = 100_000_000_000  # the year 5138; milliseconds lie beyond it
RATING_RANGE = (0.5, 5.0)
MISSING = frozenset({"", "nan", "na", "null", "none", "<na>", "nat"})
NO_TEXT = "\ufffd"  # what Unicode has for what cannot be shown
DATES = (
    "ISO8601",
    "%a %b %d %H:%M:%S %z %Y",  # Goodreads: Fri Jan 01 10:11:12 -0800 2016
    "%Y/%m/%d",  # a Goodreads library
    "%m %d, %Y",  # Amazon's reviewTime
)
REMARKS = {
    "dates": "{:,} times were dates; they were read as seconds in UTC.",
    "units": "{:,} times were in milliseconds or smaller units; they became "
    "seconds.",
    "zeros": "{:,} ratings of 0 were read as unrated.",
    "to read": "{:,} books that are still to be read were left out.",
    "ids": "{:,} ids were written like 12.0; they were read as 12.",
    "order": "The rows were not in order of user and time; sorted.",
    "repeated": "{:,} repeated rows of a user and an item were merged into "
    "the earliest, which has label 1 if any had it.",
    "ties": "{:,} rows have the same timestamp as the user's row before them; "
    "they keep the order of the source.",
    "empty": "{:,} rows have no review text; they add nothing to an item's "
    "vector.",
    "unrated": "{:,} rows have no rating.",
}

SCHEMA = pa.DataFrameSchema(
    {
        "user_id": pa.Column(object, nullable=False),
        "item_id": pa.Column(object, nullable=False),
        "timestamp": pa.Column(
            "int64",
            [
                pa.Check.ge(0, error="is before 1970"),
                pa.Check.le(LATEST_SECOND, error="lies beyond the year 5138"),
            ],
        ),
        "review": pa.Column(object, nullable=False),
        "rating": pa.Column(
            "float64",
            pa.Check.in_range(*RATING_RANGE, error="is not within 0.5 to 5"),
            nullable=True,
        ),
        "label": pa.Column(
            "float64", pa.Check.isin([0, 1], error="is neither 0 nor 1")
        ),
    }
)


def validate(
    frame: pd.DataFrame, *, where: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Check a table with :data:`COLUMNS`, sort it, merge duplicate rows.

    Returns:
        The clean table (strings, int64 seconds, float64 rating, int8 label)
        and one sentence for each thing that cleaning did.

    Raises:
        DataError: a row breaks the schema; names it, counted from 1.
    """
    remarks: Counter = Counter()
    table, notes = tidy(check_rows(frame, where=where, remarks=remarks))
    return table, (*sentences(remarks), *notes)


def sentences(remarks: Counter) -> tuple[str, ...]:
    """What was counted under the names of :data:`REMARKS`, in words."""
    return tuple(
        sentence.format(remarks[kind])
        for kind, sentence in REMARKS.items()
        if remarks[kind]
    )


def check_rows(
    frame: pd.DataFrame, *, where: str, remarks: Counter | None = None
) -> pd.DataFrame:
    """Check a table and type its columns as :func:`validate` does, unsorted.

    Rows are named by the index plus one where it holds whole numbers;
    ``remarks`` counts values that had to be read (:data:`REMARKS`).
    """
    if len(frame) == 0:
        raise DataError(f"{where}: there are no rows below the header")
    counted = pd.api.types.is_integer_dtype(frame.index.dtype)
    if not (counted and frame.index.is_unique):
        frame = frame.reset_index(drop=True)
    remarks = Counter() if remarks is None else remarks
    original = frame[list(COLUMNS)]
    clean = {
        "user_id": _ids(original["user_id"], where, remarks),
        "item_id": _ids(original["item_id"], where, remarks),
        "timestamp": _seconds(original["timestamp"], where, remarks),
        "review": _reviews(original["review"]),
        "rating": read_numbers(
            original["rating"], where, "is not a number", may_miss=True
        ),
        "label": _labels(original["label"], where),
    }
    zeros = clean["rating"] == 0
    remarks["zeros"] += int(zeros.sum())
    clean["rating"][zeros] = np.nan
    table = pd.DataFrame(
        {
            column: pd.Series(values, index=frame.index, dtype=values.dtype)
            for column, values in clean.items()
        }
    )
    check_schema(SCHEMA, table, original, where)
    return table.astype({"label": "int8"})


def row_error(
    where: str, values: pd.Series, bad: np.ndarray, problem: str
) -> DataError:
    """One line about the first ``bad`` value, bool [R], and their number."""
    first, count = int(np.argmax(bad)), int(np.sum(bad))
    more = f" (and {count - 1:,} more rows)" if count > 1 else ""
    return DataError(
        f"{where}: row {values.index[first] + 1}, column {values.name!r}: "
        f"{shown(values.iloc[first])} {problem}{more}"
    )


def shown(value: object) -> str:
    """A value as it can stand in a message: quoted and at most 40 long.

    >>> print(shown("x" * 50))
    'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:37] + "..."


def _ids(values: pd.Series, where: str, remarks: Counter) -> np.ndarray:
    """Ids as text without surrounding spaces, object, [R]."""
    codes, distinct = pd.factorize(values.astype(object))
    texts = np.array([plain_id(value) for value in distinct], dtype=object)
    empty = [text.lower() in ("", "nan", "<na>") for text in texts]
    broken = [bool(_BROKEN.search(text)) for text in texts]
    for bad, problem in (
        # factorize gives -1 to what is missing: the last place
        ([*empty, True], "is not an id"),
        ([*broken, False], "holds a character that is no text"),
    ):
        rows = np.array(bad)[codes]
        if rows.any():
            raise row_error(where, values, rows, problem)
    given = zip(distinct, texts, strict=True)
    pointed = [isinstance(v, str) and v.strip() != text for v, text in given]
    remarks["ids"] += int(np.array(pointed, dtype=bool)[codes].sum())
    return texts[codes]


_BROKEN = re.compile(f"[\x00\ud800-\udfff{NO_TEXT}]")


def _reviews(values: pd.Series) -> np.ndarray:
    """Reviews as text, object, [R]; a missing or blank one is empty."""
    texts = [
        "" if pd.isna(v) else _BROKEN.sub(NO_TEXT, str(v)) for v in values
    ]
    return np.array([t if t.strip() else "" for t in texts], dtype=object)


def read_numbers(
    values: pd.Series, where: str, problem: str, may_miss: bool = False
) -> np.ndarray:
    """Finite numbers, float64, [R]; NaN for what may be missing."""
    found = pd.to_numeric(values, errors="coerce").astype("float64")
    bad = ~np.isfinite(found.to_numpy())
    if bad.any():
        words = values[bad].astype(str).str.strip().str.lower()
        missing = bad.copy()
        missing[bad] = values[bad].isna() | words.isin(MISSING)
        if (bad & ~missing).any():
            raise row_error(where, values, bad & ~missing, problem)
        if not may_miss:
            raise row_error(
                where, values, missing, "stands where a number is needed"
            )
    return found.to_numpy(copy=True)


def _seconds(values: pd.Series, where: str, remarks: Counter) -> np.ndarray:
    """Whole seconds since 1970, int64, [R]; see the module's text."""
    given, values = values, values.astype(object)
    texts = pd.to_numeric(values, errors="coerce").isna().to_numpy()
    if pd.api.types.is_datetime64_any_dtype(given):
        texts = given.notna().to_numpy()
    read = _dates(values[texts]) if texts.any() else pd.Series(dtype="int64")
    if len(read):
        remarks["dates"] += len(read)
        values = values.copy()
        values[read.index] = read
    numbers = read_numbers(
        values.rename(given.name),
        where,
        "is not a number of seconds since 1970, nor a date such as "
        "2023-11-14T22:13:20Z",
    )
    units = np.ones(len(numbers))
    for unit in (1e3, 1e6, 1e9):
        units[numbers > LATEST_SECOND * unit / 1e3] = unit
    units[numbers > LATEST_SECOND * 1e9] = 1.0  # nothing that we know
    remarks["units"] += int((units > 1).sum())
    numbers = np.where(units > 1, numbers // units, numbers)
    if (numbers % 1).any():
        raise row_error(
            where, given, numbers % 1 != 0, "is not a whole number of seconds"
        )
    # Clipped, because int64 does not hold every float; the schema refuses
    # both ends.
    return np.clip(numbers, -1, LATEST_SECOND + 1).astype("int64")


def _dates(values: pd.Series) -> pd.Series:
    """Seconds of those values that are dates, int64, by their index."""
    left = values[[bool(re.search(r"\d", str(v))) for v in values]]
    parts = []
    for form in DATES:
        read = pd.to_datetime(left, format=form, errors="coerce", utc=True)
        known = read[read.notna()].dt.tz_localize(None)
        parts.append(known.astype("datetime64[s]").astype("int64"))
        left = left[read.isna()]
        if left.empty:
            break
    return pd.concat(parts)


def _labels(values: pd.Series, where: str) -> np.ndarray:
    """Labels as float64, [R]; the schema refuses all but 0 and 1."""
    if values.dtype != bool:
        words = values.astype(str).str.strip().str.lower()
        truth = words.map({"true": 1.0, "false": 0.0})
        values = values.astype(object).where(truth.isna(), truth)
    return read_numbers(values, where, "is not a number")


def check_schema(
    schema: pa.DataFrameSchema,
    table: pd.DataFrame,
    original: pd.DataFrame,
    where: str,
) -> None:
    """Run a pandera schema on typed columns; an error names ``original``."""
    try:
        schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        # the first row counts, wherever pandera lists it
        first = cases.sort_values("index", kind="stable").iloc[0]
        column = str(first["column"])
        same = cases[cases["column"] == column]
        raise row_error(
            where,
            original[column],
            original.index.isin(same["index"].astype(np.int64)),
            str(first["check"]).replace("not_nullable", "is empty"),
        ) from errors


def tidy(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Sort by user, time and order of input; merge repeated pairs."""
    remarks: Counter = Counter()
    users = pd.factorize(table["user_id"], sort=True)[0]
    # stable: ties keep the file's order
    order = np.lexsort((table["timestamp"].to_numpy(), users))
    remarks["order"] = int((np.diff(order) < 0).any())
    table = table.iloc[order].reset_index(drop=True)
    repeated = table.duplicated(["user_id", "item_id"])
    if repeated.any():
        remarks["repeated"] = int(repeated.sum())
        pairs = table.groupby(["user_id", "item_id"], sort=False)
        table["label"] = pairs["label"].transform("max").astype("int8")
        table = table[~repeated].reset_index(drop=True)
    moments = table[["user_id", "timestamp"]]
    remarks["ties"] = int((moments == moments.shift()).all(axis=1).sum())
    remarks["empty"] = int((table["review"] == "").sum())
    remarks["unrated"] = int(table["rating"].isna().sum())
    return table, sentences(remarks)
