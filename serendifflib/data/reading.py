"""Files to plain tables: CSV, tab-separated, JSON lines, Parquet, packed.

What a file is, its first bytes say, not its name. Values stay as they stand
(text, in a CSV file), so that a message can show them.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from serendifflib.data.schema import NO_TEXT, shown
from serendifflib.errors import DataError
from serendifflib.io import is_stream

ROWS = 100_000  # read at a time, of which only some columns are kept
LOOK_AHEAD = 1000  # JSON objects that show which names there are
PACKED: dict[bytes, Callable] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
SEPARATORS = ",\t;|"
FAULTS = (  # what unpacking, decoding and parsing raise
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    csv.Error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pd.errors.ParserWarning,
)


@dataclass(frozen=True)
class Table:
    """A file that was opened, and its columns' names as they stand there.

    ``_read`` makes a table of some columns.
    """

    path: Path
    header: list[str]
    _read: Callable[[list[str]], pd.DataFrame]

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """A table of ``columns``; its index counts the rows from 0.

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
            return self._read(list(columns))


def open_table(path: Path | str) -> Table:
    """Find out what a file is and which columns it has.

    A CSV, TSV, JSON lines or Parquet file, plain or packed (gzip, bzip2, xz,
    or a zip archive of one file); else a DataError.
    """
    path = Path(path)
    with reading(path):
        opened = _opener(path)
        with opened() as stream:
            start = stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            raise DataError(f"{path}: the file is empty")
        if start.startswith(b"PAR1"):
            return _parquet(path)

        def text() -> _Text:
            return _Text(opened(), encoding="utf-8-sig", newline="")

        kind = _json_lines if start.startswith(b"{") else _separated
        return kind(path, text)


def read_columns(path: Path | str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a file as one table; see :func:`open_table`."""
    return open_table(path).read(columns)


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
        raise DataError(
            f"{path}: is not UTF-8, or is cut short: {error}"
        ) from error
    except FAULTS as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise DataError(
            f"{path}: cannot be read: {' '.join(reason.split())}"
        ) from error


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    """How to open the bytes of a file, unpacked."""
    with open(path, "rb") as stream:
        start = stream.read(16)
    for magic, open_packed in PACKED.items():
        if start.startswith(magic):
            return lambda: open_packed(path, "rb")
    if not start.startswith(b"PK\x03\x04"):
        return lambda: open(path, "rb")
    with zipfile.ZipFile(path) as archive:
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX")
        ]
    if len(names) != 1:
        listed = ", ".join(shown(name) for name in names[:5])
        raise DataError(
            f"{path}: holds {len(names)} files ({listed}); unpack it "
            "and name one of them, or its folder with layout=..."
        )

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


def _separated(path: Path, text: Callable[[], _Text]) -> Table:
    """CSV and its relatives; the header tells what separates them."""
    with text() as stream:
        first = next((line for line in stream if line.strip()), "")
    headers = {
        mark: next(csv.reader([first], delimiter=mark)) for mark in SEPARATORS
    }
    mark = max(headers, key=lambda mark: len(headers[mark]))
    header = [name.strip() for name in headers[mark]]

    def read(columns: list[str]) -> pd.DataFrame:
        places = [header.index(column) for column in columns]
        with text() as stream, warnings.catch_warnings():
            # pandas only warns where it cuts fields off the first rows
            warnings.simplefilter("error", pd.errors.ParserWarning)
            chunks = pd.read_csv(
                stream,
                sep=mark,
                chunksize=ROWS,
                index_col=False,
                dtype=object,  # text, whichever string type pandas prefers
                na_filter=False,
                engine="c",
            )
            parts = [chunk.iloc[:, places] for chunk in chunks]
        return pd.concat(parts).set_axis(columns, axis=1)

    return Table(path, header, read)


def _json_lines(path: Path, text: Callable[[], _Text]) -> Table:
    """One JSON object a line; a name may be absent from some of them."""

    def objects() -> Iterator[dict[str, Any]]:
        with text() as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _object(path, number, line)

    first = itertools.islice(objects(), LOOK_AHEAD)
    header = list(dict.fromkeys(key for one in first for key in one))

    def read(columns: list[str]) -> pd.DataFrame:
        rows = [[one.get(name) for name in columns] for one in objects()]
        return pd.DataFrame(rows, columns=columns, dtype=object)

    return Table(path, header, read)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    one = None
    with contextlib.suppress(ValueError, RecursionError):
        one = json.loads(line)
    if not isinstance(one, dict):
        raise DataError(
            f"{path}: line {number} is no JSON object; it may be cut short"
        )
    return one


def _parquet(path: Path) -> Table:
    """A Parquet file, if pyarrow is there to read it."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: is a Parquet file, which needs pip install pyarrow"
        ) from error

    def read(columns: list[str]) -> pd.DataFrame:
        return parquet.read_table(path, columns=columns).to_pandas()[columns]

    return Table(path, parquet.read_schema(path).names, read)
