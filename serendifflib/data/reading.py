"""Files to plain tables: CSV, tab-separated, JSON lines, Parquet, packed.

What a file is, its first bytes say, not its name. It is read in parts, for
it may be larger than the memory; values stay as they stand (text, in a CSV
file), so that a message can show them.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import itertools
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from serendifflib.data.schema import NO_TEXT, shown
from serendifflib.errors import DataError
from serendifflib.io import is_stream

ROWS = 100_000  # of one part
LOOK_AHEAD = 1000  # JSON objects that show which names there are
PACKED: dict[bytes, Callable] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
# true names of what is often taken for a table
STRANGERS = {
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"\x80\x04\x95": "a Python pickle, which is never opened",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"[": "one JSON list, which jq -c '.[]' turns into JSON lines",
}
SEPARATORS = ",\t;|"
DAMAGE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
)


@dataclass(frozen=True)
class Table:
    """A file that was opened, and its columns' names as they stand there.

    ``_parts`` makes an iterator over parts of some columns.
    """

    path: Path
    header: list[str]
    _parts: Callable[[Sequence[str], int], Iterator[pd.DataFrame]]

    def parts(
        self, columns: Sequence[str], rows: int = ROWS
    ) -> Iterator[pd.DataFrame]:
        """Tables of ``columns``, of at most ``rows`` rows each.

        The index counts the rows of the file from 0.

        Raises:
            DataError: a column missing or named twice; the file is damaged.
        """
        for column in columns:
            if self.header.count(column) > 1:
                raise DataError(f"{self.path}: column {column!r} stands twice")
            if column not in self.header:
                has = ", ".join(shown(title) for title in self.header[:8])
                raise DataError(
                    f"{self.path}: column {column!r} is missing; it has {has}"
                )
        with reading(self.path):
            yield from self._parts(list(columns), rows)


def open_table(path: Path | str) -> Table:
    """Find out what a file is and which columns it has.

    Args:
        path: a CSV, TSV, JSON lines or Parquet file, plain or packed (gzip,
            bzip2, xz, or a zip archive of one file).

    Raises:
        DataError: no regular file, damaged, or something else; its name.
    """
    path = Path(path)
    with reading(path):
        opened = _opener(path)
        with opened() as stream:
            start = stream.read(4096)
        if not start:
            raise DataError(f"{path}: the file is empty")
        if start.startswith(b"PAR1"):
            return _parquet(path)
        start = start.removeprefix(codecs.BOM_UTF8).lstrip()
        for magic, name in STRANGERS.items():
            if start.startswith(magic):
                raise DataError(
                    f"{path}: is {name}; save it as CSV, JSON lines or Parquet"
                )
        if b"::" in start.partition(b"\n")[0]:
            raise DataError(
                f"{path}: looks like MovieLens 1M; name its folder instead"
            )

        def text() -> _Text:
            return _Text(opened(), encoding="utf-8-sig", newline="")

        kind = _json_lines if start.startswith(b"{") else _separated
        return kind(path, text)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Refuse what is no file; turn what reading raises into one line."""
    if is_stream(path):
        raise DataError(
            f"{path}: is a pipe or a device; save it to a file first"
        )
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except DAMAGE as error:
        raise DataError(f"{path}: is damaged or cut short: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    """How to open the bytes of a file, unpacked."""
    with open(path, "rb") as stream:
        start = stream.read(16)
    for magic, open_packed in PACKED.items():
        if start.startswith(magic):
            return lambda: open_packed(path, "rb")
    if start.startswith(b"PK\x03\x04"):
        return _zip_opener(path)
    return lambda: open(path, "rb")


def _zip_opener(path: Path) -> Callable[[], IO[bytes]]:
    """How to open the one file in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX")
        ]
        if "[Content_Types].xml" in names:
            raise DataError(f"{path}: is a spreadsheet; save it as CSV")
        if len(names) != 1:
            listed = ", ".join(shown(name) for name in names[:5])
            raise DataError(
                f"{path}: holds {len(names)} files ({listed}); unpack it "
                "and name one of them, or its folder with layout=..."
            )
        if archive.getinfo(names[0]).flag_bits & 1:
            raise DataError(f"{path}: is encrypted; unpack it first")

    # an archive that is closed leaves its open member readable
    def opened() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:
            return archive.open(names[0])

    return opened


class _Text(io.TextIOWrapper):
    """Text in which no zero byte is left; some parsers stop at one."""

    def read(self, size: int | None = -1, /) -> str:
        """Read at most ``size`` characters."""
        return super().read(size).replace("\x00", NO_TEXT)


def _not_utf8(path: Path) -> DataError:
    """Say where a file stops being UTF-8."""
    offset = 0
    with _opener(path)() as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                where, byte = offset + error.start, line[error.start]
                cut = error.reason == "unexpected end of data"
                return DataError(
                    f"{path}: line {number} is not UTF-8 (byte {where} of the "
                    f"file is 0x{byte:02x})"
                    + ("; it is cut short" if cut else "; save it as UTF-8")
                )
            offset += len(line)
    return DataError(f"{path}: is not UTF-8; save the file as UTF-8")


# ------------------------------------------------------------ separated text


def _separated(path: Path, text: Callable[[], _Text]) -> Table:
    """CSV and its relatives; the header tells what separates them."""
    header, separator = _fields(path, text, ","), ","
    if len(header) < 3:
        found = {mark: _fields(path, text, mark) for mark in SEPARATORS}
        best = max(found, key=lambda mark: len(found[mark]))
        if len(found[best]) >= 3:
            header, separator = found[best], best

    def parts(columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        places = [header.index(column) for column in columns]
        with text() as stream, _parsing(path):
            chunks = pd.read_csv(
                stream,
                sep=separator,
                chunksize=rows,
                index_col=False,
                dtype=object,  # text, whichever string type pandas prefers
                na_filter=False,
                engine="c",
            )
            for part in chunks:
                yield part.iloc[:, places].set_axis(list(columns), axis=1)

    return Table(path, header, parts)


def _fields(
    path: Path, text: Callable[[], _Text], separator: str
) -> list[str]:
    """Fields of the first row that is not blank."""
    with text() as stream, _parsing(path):
        row = pd.read_csv(
            stream,
            sep=separator,
            header=None,
            nrows=1,
            dtype=object,
            na_filter=False,
        )
    return [str(field).strip() for field in row.iloc[0]]


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn what pandas raises into one line about the file."""
    try:
        with warnings.catch_warnings():
            # pandas only warns where it cuts fields off the first rows.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the file holds no header row") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        said = " ".join(str(error).split())
        reason = f"cannot be read as CSV: {said}"
        if found := re.search(r"EOF inside string starting at row \d+", said):
            row = found[0].split()[-1]
            reason = (
                f"row {row} opens a quote that never closes; it is cut short"
            )
        found = re.search(r"Expected \d+ fields in (line \d+)", said)
        if found or isinstance(error, pd.errors.ParserWarning):
            place = found[1] if found else "row 1"
            reason = f"{place} has more fields than the header; quote them"
        raise DataError(f"{path}: {reason}") from error


# ---------------------------------------------------------------- JSON lines


def _json_lines(path: Path, text: Callable[[], _Text]) -> Table:
    """One JSON object a line; a name may be absent from some of them."""
    with text() as stream:
        first = itertools.islice(_objects(path, stream), LOOK_AHEAD)
        header = list(dict.fromkeys(key for one in first for key in one))

    def parts(columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        with text() as stream:
            found = _objects(path, stream)
            records = ([one.get(name) for name in columns] for one in found)
            yield from in_parts(records, columns, rows)

    return Table(path, header, parts)


def _objects(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            one = None
        if not isinstance(one, dict):
            hint = "it may be cut short"
            if "'" in line[:3]:
                hint = "single quotes make it a Python dict"
            raise DataError(f"{path}: line {number} is no JSON object; {hint}")
        yield one


def in_parts(
    records: Iterable[Sequence[Any]], columns: Sequence[str], rows: int = ROWS
) -> Iterator[pd.DataFrame]:
    """Tables of at most ``rows`` records; the index counts all of them."""
    start, records = 0, iter(records)
    while part := list(itertools.islice(records, rows)):
        index = pd.RangeIndex(start, start + len(part))
        yield pd.DataFrame(
            part, columns=list(columns), index=index, dtype=object
        )
        start += len(part)


# ------------------------------------------------------------------- Parquet


def _parquet(path: Path) -> Table:
    """A Parquet file, if pyarrow is there to read it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: is a Parquet file, which needs pip install pyarrow"
        ) from error

    @contextlib.contextmanager
    def sound() -> Iterator[None]:
        try:
            yield
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:100]
            raise DataError(
                f"{path}: is a damaged Parquet file: {reason}"
            ) from error

    def parts(columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        start = 0
        with sound(), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=list(columns)):
                part = batch.to_pandas()[list(columns)]
                part.index = pd.RangeIndex(start, start + len(part))
                start += len(part)
                yield part

    with sound():
        return Table(path, parquet.read_schema(path).names, parts)


def read_columns(path: Path | str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a file as one table; see :func:`open_table`.

    Raises:
        DataError: the file cannot be read, or a column is not there.
    """
    empty = pd.DataFrame(columns=list(columns), dtype=object)
    return pd.concat([*open_table(path).parts(columns)] or [empty])
