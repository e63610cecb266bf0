"""Read interactions from CSV files and refuse what breaks the schema.

The schema is SerenLens' own: ``user_id, item_id, timestamp, review, rating,
label``. Nothing is guessed and nothing is dropped in silence: a row that
cannot be right ends with a :class:`DataError` that names file, row and
column, and whatever cleaning did to the rest becomes a sentence in the notes.

What is accepted and how it is treated:

* Columns come in any order; further columns are ignored.
* ``timestamp`` counts whole seconds since 1970. Rows are sorted by user and
  time; rows with tied timestamps keep the order of the file.
* ``rating`` runs from 0.5 to 5 (MovieLens has half stars). An empty one is
  kept as NaN: nobody knows whether that item was liked.
* A zero byte, or half of a surrogate pair, is no text: in a review it
  becomes the replacement character U+FFFD, in an id it is refused.
* ``review`` may be empty; such a row is an interaction like any other, but
  it adds nothing to the item's vector.
* Of several rows of one user and one item the earliest stays, with its own
  review and rating, and with label 1 if any of them had it. Since reviews of
  rows with label 1 never enter an item vector by default, no text written
  about a serendipitous read can leak through this rule.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.errors import DataError

ID_COLUMNS = ("user_id", "item_id")
NUMBER_COLUMNS = ("timestamp", "rating", "label")
LATEST_SECOND = 100_000_000_000  # the year 5138; milliseconds lie beyond it
RATING_RANGE = (0.5, 5.0)
MISSING = frozenset({"", "nan", "na", "null", "none", "<na>"})

SCHEMA = pa.DataFrameSchema(
    {
        "user_id": pa.Column(object, nullable=False),
        "item_id": pa.Column(object, nullable=False),
        "timestamp": pa.Column(
            "int64",
            [
                pa.Check.ge(0, error="is before 1970"),
                pa.Check.le(
                    LATEST_SECOND,
                    error="looks like milliseconds; divide it by 1000, the "
                    "schema counts seconds",
                ),
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


def read_csv(path: Path | str, *, name: str | None = None) -> Interactions:
    """Read a CSV file in SerenLens' columns.

    Args:
        path: UTF-8 file with a header row; a byte-order mark may lead it.
        name: data id of the result; the file's name if None.

    Returns:
        Validated, sorted interactions. ``has_labels`` tells whether any row
        has label 1; a file without any can still be used for next items.

    Raises:
        DataError: the file cannot be read, or a row breaks the schema.
    """
    path = Path(path)
    raw = read_columns(path, COLUMNS)
    frame, notes = validate(raw, where=str(path))
    has_labels = bool((frame["label"] == 1).any())
    if not has_labels:
        notes = (
            *notes,
            "No row has label 1, so there are no serendipity targets: models "
            "are trained and judged on next items.",
        )
    return Interactions(
        name=name or path.name,
        frame=frame,
        source=f"Read from the CSV file {path.name}.",
        has_labels=has_labels,
        notes=notes,
    )


def read_columns(path: Path | str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read some columns of a UTF-8 CSV file as plain strings.

    Args:
        path: the file; its first non-empty line is the header.
        columns: the columns that must be there; others are ignored.

    Returns:
        Table of ``columns``, empty strings where nothing stood.

    Raises:
        DataError: no such file, empty, not UTF-8, a column missing or named
            twice, a row with more fields than the header, an open quote.
    """
    path = Path(path)
    places, source = _opened(path, columns)
    with source, _parsing(path):
        table = pd.read_csv(source, **_PARSER)
    return _chosen(table, places, columns)


def read_parts(
    path: Path | str, columns: tuple[str, ...], rows: int = 500_000
) -> Iterator[pd.DataFrame]:
    """Like :func:`read_columns`, in parts of at most ``rows`` rows."""
    path = Path(path)
    places, source = _opened(path, columns)
    with source:
        with _parsing(path):
            parts = pd.read_csv(source, chunksize=rows, **_PARSER)
        while True:
            with _parsing(path):
                part = next(parts, None)
            if part is None:
                return
            yield _chosen(part, places, columns)


# Everything arrives as text, so that a message can show what stood there.
_PARSER = {
    "index_col": False,
    "dtype": str,
    "na_filter": False,
    "engine": "c",
}
NO_TEXT = "\ufffd"  # what Unicode has for what cannot be shown


class _WithoutZeros(io.TextIOWrapper):
    """Text in which no zero byte is left; some parsers stop at one."""

    def read(self, size: int | None = -1, /) -> str:
        """Read at most ``size`` characters."""
        return super().read(size).replace("\x00", NO_TEXT)


def _opened(
    path: Path, columns: tuple[str, ...]
) -> tuple[list[int], io.TextIOWrapper]:
    """Where the columns stand, and the file to read them from."""
    has_zeros = _check_encoding(path)
    places = _places(_header(path), columns, where=str(path))
    kind = _WithoutZeros if has_zeros else io.TextIOWrapper
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise _cannot_read(path, error) from error
    return places, kind(stream, encoding="utf-8-sig", newline="")


def _chosen(
    table: pd.DataFrame, places: list[int], columns: tuple[str, ...]
) -> pd.DataFrame:
    return table.iloc[:, places].set_axis(list(columns), axis=1)


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn what pandas raises into one line about the file."""
    try:
        with warnings.catch_warnings():
            # pandas only warns where it cuts fields off the first rows.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except (
        pd.errors.ParserError,
        pd.errors.ParserWarning,
        pd.errors.EmptyDataError,
    ) as error:
        raise _parser_error(path, error) from error
    except OSError as error:
        raise _cannot_read(path, error) from error


def _parser_error(path: Path, error: Exception) -> DataError:
    found = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if found:
        return DataError(
            f"{path}: row {found.group(1)} opens a quote that never closes; "
            "the file may be cut short"
        )
    reason = " ".join(str(error).split())
    found = re.search(r"Expected (\d+) fields in line (\d+)", reason)
    if found or isinstance(error, pd.errors.ParserWarning):
        place = f"line {found.group(2)}" if found else "row 1"
        return DataError(
            f"{path}: {place} has more fields than the header; put quotes "
            "around text that holds commas"
        )
    return DataError(f"{path}: cannot be read as CSV: {reason}")


def _cannot_read(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"{path}: cannot be read: {reason}")


def _check_encoding(path: Path) -> bool:
    """Refuse a file that is not UTF-8; tell whether it holds zero bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = lines = 0
    has_zeros = False
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                pending = len(decoder.getstate()[0])
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    place = offset - pending + error.start
                    ahead = max(0, error.start - pending)
                    line = lines + block.count(b"\n", 0, ahead) + 1
                    raise DataError(
                        f"{path}: line {line} is not UTF-8 (byte {place} of "
                        f"the file is 0x{error.object[error.start]:02x}); "
                        "save the file as UTF-8"
                    ) from error
                offset += len(block)
                lines += block.count(b"\n")
                has_zeros = has_zeros or b"\x00" in block
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: the last character is cut short (byte "
                    f"{offset}); the file may be incomplete"
                ) from error
    except OSError as error:
        raise _cannot_read(path, error) from error
    if offset == 0:
        raise DataError(f"{path}: the file is empty")
    return has_zeros


def _header(path: Path) -> list[str]:
    """First non-empty record of the file, without surrounding spaces."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            for record in csv.reader(stream):
                if len(record) > 1 or "".join(record).strip():
                    return [field.strip() for field in record]
    except csv.Error as error:
        raise DataError(
            f"{path}: the header row cannot be read as CSV: {error}"
        ) from error
    raise DataError(f"{path}: the file holds no header row")


def _places(
    header: list[str], columns: tuple[str, ...], *, where: str
) -> list[int]:
    """Position of every wanted column in the header."""
    for column in columns:
        if header.count(column) > 1:
            raise DataError(
                f"{where}: column {column!r} stands twice in the header"
            )
        if column not in header:
            raise DataError(_missing_column(column, header, columns, where))
    return [header.index(column) for column in columns]


def _missing_column(
    column: str, header: list[str], columns: tuple[str, ...], where: str
) -> str:
    """One line about a column that is not there, with the likely reason."""
    message = f"{where}: column {column!r} is missing"
    free = [title for title in header if title not in columns]
    by_lower_case = {title.lower(): title for title in free}
    close = difflib.get_close_matches(column, by_lower_case, n=1)
    if close:
        return f"{message}; is it {shown(by_lower_case[close[0]])}?"
    for mark, words in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            return f"{message}; the file is separated by {words}, not commas"
    found = ", ".join(shown(title) for title in header[:8])
    return f"{message}; the header has {found}"


def shown(value: object) -> str:
    """A value as it can stand in a message: quoted and at most 40 long.

    >>> print(shown("x" * 50))
    'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:37] + "..."


def validate(
    frame: pd.DataFrame, *, where: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Check a table against the schema, sort it, merge duplicate rows.

    Args:
        frame: table with at least the columns of :data:`COLUMNS`.
        where: file or source that the messages name.

    Returns:
        The clean table (columns of :data:`COLUMNS`; strings, int64 seconds,
        float64 rating, int8 label; sorted by user and time) and one sentence
        for each thing that cleaning did.

    Raises:
        DataError: the first row that breaks the schema, counted from 1.
    """
    return tidy(check_rows(frame, where=where))


def check_rows(frame: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """Check a table against the schema; the order of rows stays.

    Args:
        frame: see :func:`validate`. Rows are named by the index plus one
            where it holds whole numbers, as after a selection of rows.
        where: file or source that the messages name.

    Returns:
        Table of :data:`COLUMNS` in the types of :func:`validate`.

    Raises:
        DataError: the first row that breaks the schema.
    """
    header = [str(column) for column in frame.columns]
    _places(header, COLUMNS, where=where)
    if len(frame) == 0:
        raise DataError(f"{where}: there are no rows below the header")
    counted = pd.api.types.is_integer_dtype(frame.index.dtype)
    if not (counted and frame.index.is_unique):
        frame = frame.reset_index(drop=True)
    original = frame[list(COLUMNS)]
    clean = {column: _ids(original[column], where) for column in ID_COLUMNS}
    for column in NUMBER_COLUMNS:
        clean[column] = _numbers(original[column], where)
    clean["review"] = _reviews(original["review"])
    table = pd.DataFrame(clean)[list(COLUMNS)]
    _check_schema(table, original, where)
    return table.astype({"label": "int8"})


def row_error(
    where: str, row: int, column: str, value: object, problem: str
) -> DataError:
    """One line about one value; ``row`` counts from 0, the message from 1."""
    return DataError(
        f"{where}: row {row + 1}, column {column!r}: {shown(value)} {problem}"
    )


def _ids(values: pd.Series, where: str) -> pd.Series:
    """Ids as stripped strings; whole numbers lose a trailing ``.0``."""
    column = str(values.name)
    texts = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip()
        if value is None or text.lower() in ("", "nan", "<na>"):
            problem = "is not an id"
        elif not _is_clean(text):
            problem = "holds a character that is no text"
        else:
            texts[row] = text
            continue
        raise row_error(where, values.index[row], column, value, problem)
    return pd.Series(texts, index=values.index, dtype=object)


_BROKEN = re.compile(f"[\x00\ud800-\udfff{NO_TEXT}]")


def _is_clean(text: str) -> bool:
    """Whether a string holds nothing but text."""
    if text.isascii():
        return "\x00" not in text
    return _BROKEN.search(text) is None


def _reviews(values: pd.Series) -> pd.Series:
    """Reviews as strings; a missing or blank one is the empty string."""
    missing = values.isna().to_numpy()
    texts = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        text = "" if missing[row] else str(value)
        if not _is_clean(text):
            text = _BROKEN.sub(NO_TEXT, text)
        texts[row] = text if text.strip() else ""
    return pd.Series(texts, index=values.index, dtype=object)


def _numbers(values: pd.Series, where: str) -> pd.Series:
    """Numbers of a column; only ratings may be missing.

    Raises:
        DataError: a value that is no finite number, or a missing one, or a
            timestamp that is not a whole number.
    """
    column, index = str(values.name), values.index
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    numbers = numbers.to_numpy(copy=True)
    for row in np.flatnonzero(~np.isfinite(numbers)):
        value = values.iloc[row]
        text = "" if pd.isna(value) else str(value).strip()
        if text.lower() not in MISSING:
            problem = "is not a number"
        elif column != "rating":
            problem = "stands where a number is needed"
        else:
            continue
        raise row_error(where, index[row], column, value, problem)
    if column != "timestamp":
        return pd.Series(numbers, index=index)
    broken = np.flatnonzero(numbers % 1)
    if len(broken):
        row = int(broken[0])  # type: ignore
        raise row_error(
            where,
            index[row],
            column,
            values.iloc[row],
            "is not a whole number of seconds",
        )
    # Clipped, because int64 does not hold every float; the schema refuses
    # both ends.
    whole = np.clip(numbers, -1, LATEST_SECOND + 1).astype("int64")
    return pd.Series(whole, index=index)


def _check_schema(
    table: pd.DataFrame, original: pd.DataFrame, where: str
) -> None:
    """Run the pandera schema; report the first row that breaks it."""
    try:
        SCHEMA.validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        # The first row counts, wherever pandera lists it.
        first = errors.failure_cases.iloc[
            int(np.argmin(errors.failure_cases["index"].to_numpy()))
        ]
        row, column = int(first["index"]), str(first["column"])
        raise row_error(
            where, row, column, original.at[row, column], str(first["check"])
        ) from errors


def tidy(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Sort by user, time and order of input; merge repeated pairs.

    Args:
        table: what :func:`check_rows` returned.

    Returns:
        See :func:`validate`.
    """
    notes: list[str] = []
    users = np.unique(
        table["user_id"].to_numpy(dtype=object), return_inverse=True
    )[1]
    seconds = table["timestamp"].to_numpy()
    order = np.lexsort((seconds, users))  # stable: ties keep the file's order
    if np.any(np.diff(order) < 0):
        notes.append("The rows were not in order of user and time; sorted.")
    table = table.iloc[order].reset_index(drop=True)
    pair = ["user_id", "item_id"]
    repeated = table.duplicated(pair, keep="first")
    if repeated.any():
        in_time_order = table["label"].groupby(
            [table["user_id"], table["item_id"]], sort=False
        )
        table["label"] = in_time_order.transform("max").astype("int8")
        table = table[~repeated].reset_index(drop=True)
        notes.append(
            f"{int(repeated.sum()):,} repeated rows of a user and an item "
            "were merged into the earliest, which has label 1 if any had it."
        )
    same_user = table["user_id"].eq(table["user_id"].shift())
    same_time = table["timestamp"].eq(table["timestamp"].shift())
    ties = int((same_user & same_time).sum())
    if ties:
        notes.append(
            f"{ties:,} rows have the same timestamp as the user's row before "
            "them; they keep the order of the source."
        )
    empty = int((table["review"] == "").sum())
    if empty:
        notes.append(
            f"{empty:,} rows have no review text; they add nothing to an "
            "item's vector."
        )
    unrated = int(table["rating"].isna().sum())
    if unrated:
        notes.append(f"{unrated:,} rows have no rating.")
    return table, tuple(notes)
