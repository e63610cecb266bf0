"""Files in other people's columns: told apart, mapped to ours, checked.

The columns of a file are looked up among the known layouts (ours first),
then by likely names. What was chosen is the first of the notes, and
``columns`` puts a wrong choice right.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from serendifflib.data.interactions import Interactions, period
from serendifflib.data.reading import Table, open_table
from serendifflib.data.schema import check_rows, sentences, shown, tidy
from serendifflib.errors import ConfigError, DataError, check_choice
from serendifflib.io import atomic_path, read_json

NEEDED = ("user_id", "item_id", "timestamp")
OPTIONAL = ("review", "rating", "label", "title")
FIRST_OF_1971 = 31_536_000
FIRST_OF_2100 = 4_102_444_800

_KNOWN = read_json(Path(__file__).with_name("layouts.json"))
# Ours -> theirs, in the order in which they are tried. The title of Amazon's
# files of 2023 is that of the review: it is left alone.
LAYOUTS: dict[str, dict[str, str]] = _KNOWN["layouts"]
# Other names that a column may have; spelling and case do not matter.
LIKELY: dict[str, str] = _KNOWN["likely"]


@dataclass
class Source:
    """A file, its columns in ours, and what was noticed on the way.

    Attributes:
        where: file or table that the messages name.
        columns: ours -> theirs; what is not there is absent.
        layout: its name.
        remarks: values that had to be read (:func:`check_rows`).
        titles, unsure: item id -> title so far; items with two titles.
    """

    where: str
    columns: dict[str, str]
    layout: str
    remarks: Counter = field(default_factory=Counter)
    titles: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)

    @property
    def describes(self) -> bool:
        """Whether titles stand in for reviews, which are not there."""
        return "review" not in self.columns and "title" in self.columns

    def clean(self, part: pd.DataFrame) -> pd.DataFrame:
        """One part of the file in the schema's columns, checked."""
        ours = pd.DataFrame(
            {our: part[their] for our, their in self.columns.items()}
        )
        if self.layout == "goodreads-library":
            ours = self._read_books(ours)
        if self.describes:
            ours["review"] = ours["title"]
        for column, value in (("review", ""), ("rating", ""), ("label", 0)):
            if column not in ours:
                ours[column] = value
        clean = check_rows(ours, where=self.where, remarks=self.remarks)
        if "title" in self.columns:
            self._learn_titles(clean["item_id"], ours["title"])
        return clean

    def _read_books(self, library: pd.DataFrame) -> pd.DataFrame:
        """The books of one reader's library that were begun."""
        library = library.assign(user_id="reader")
        if "shelf" in library:
            wanted = library.pop("shelf") == "to-read"
            self.remarks["to read"] += int(wanted.sum())
            library = library[~wanted]
        if "title" in library:
            library["review"] = library["review"].where(
                library["review"].str.strip() != "", library["title"]
            )
        return library

    def _learn_titles(self, items: pd.Series, titles: pd.Series) -> None:
        pairs = pd.DataFrame({"item": items, "title": titles}).dropna()
        pairs = pairs.drop_duplicates()
        for item, title in zip(pairs["item"], pairs["title"], strict=True):
            if (title := " ".join(str(title).split())) and (
                self.titles.setdefault(item, title) != title
            ):
                self.unsure.add(item)

    def titles_of_items(self) -> dict[str, str]:
        """The titles; none where they must be headlines of reviews."""
        n_items, n_titles = len(self.titles), len(set(self.titles.values()))
        if 10 * len(self.unsure) > n_items or 2 * n_titles <= n_items > 1:
            return {}
        return self.titles

    def notes(self) -> tuple[str, ...]:
        """How the columns were read, and what was read in them."""
        others = ", ".join(
            f"{our} from {shown(their)}"
            for our, their in self.columns.items()
            if our != their
        )
        notes = [f"Columns ({self.layout}): {others}."] if others else []
        for column in ("rating", "label"):
            if column not in self.columns:
                notes.append(f"There is no column for {column}.")
        if self.describes:
            notes.append(
                "There are no reviews; the title is the text of an item."
            )
        if "title" in self.columns and not self.titles_of_items():
            notes.append(
                f"Column {shown(self.columns['title'])} does not hold the "
                "titles of the items: it was not used."
            )
        return (*notes, *sentences(self.remarks))


def columns_of(
    header: Sequence[str],
    *,
    where: str,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """Which column of a file is which of ours; see :func:`read_file`.

    Raises:
        ConfigError: an unknown layout, or a column that is not ours.
        DataError: a column that is needed is not there.
    """
    chosen = dict(columns or {})
    for ours, theirs in chosen.items():
        if ours not in (*NEEDED, *OPTIONAL):
            raise ConfigError(
                f"unknown column {ours!r}: choose from "
                f"{', '.join((*NEEDED, *OPTIONAL))}, as in user_id=reviewerID"
            )
        if theirs not in header:
            raise _no_column(where, theirs, header)
    if layout is not None:
        check_choice("layout", layout, LAYOUTS)
    for name in [layout] if layout else LAYOUTS:
        known = LAYOUTS[name] | chosen
        needed = [known[c] for c in (*NEEDED, "review") if c in known]
        lacking = [column for column in needed if column not in header]
        if not lacking:
            there = {our: c for our, c in known.items() if c in header}
            break
        if layout:
            raise _no_column(where, lacking[0], header)
    else:
        there, name = _likely(header, chosen, where), "by their names"
    _check_spelling(there, header, where)
    return Source(where, there, name)


def _likely(
    header: Sequence[str], chosen: dict[str, str], where: str
) -> dict[str, str]:
    """Columns by likely names, those of ``chosen`` first."""
    plain = {re.sub(r"[\W_]", "", name.lower()): name for name in header[::-1]}
    found = dict(chosen)
    for ours in (*NEEDED, *OPTIONAL):
        names = [ours.replace("_", ""), *LIKELY[ours].split()]
        there = [plain[name] for name in names if name in plain]
        free = [name for name in there if name not in found.values()]
        if ours in header and ours not in chosen:
            free = [ours]
        if ours not in found and free:
            found[ours] = free[0]
    for ours in NEEDED:
        if ours not in found:
            raise _no_column(where, ours, header)
    if "review" not in found and "title" not in found:
        raise _no_column(where, "review", header)
    return found


def _check_spelling(
    found: dict[str, str], header: Sequence[str], where: str
) -> None:
    """Refuse a column that is not there, but one that is nearly called so."""
    free = [name for name in header if name not in found.values()]
    for ours in ("review", "rating", "label"):
        close = difflib.get_close_matches(ours, free, n=1, cutoff=0.8)
        if ours not in found and close:
            raise DataError(
                f"{where}: column {ours!r} is missing; is it {close[0]!r}? "
                f"Say so by columns (--columns {ours}={close[0]})"
            )


def _no_column(where: str, column: str, header: Sequence[str]) -> DataError:
    listed = ", ".join(shown(title) for title in header[:12])
    return DataError(
        f"{where}: column {column!r} is missing; the file has {listed}; "
        "say which it is by columns (--columns user_id=reviewerID,...)"
    )


def checked_parts(
    table: Table,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Source, Iterator[pd.DataFrame]]:
    """A file as checked tables, part by part in file order.

    Returns:
        The source, which knows more with every part, and the parts.

    Raises:
        DataError: the file cannot be read, or a row breaks the schema.
    """
    where = str(table.path)
    source = columns_of(
        table.header, where=where, layout=layout, columns=columns
    )

    def parts() -> Iterator[pd.DataFrame]:
        empty = True
        for part in table.parts(list(source.columns.values())):
            if len(part):
                empty = False
                yield source.clean(part)
        if empty:
            raise DataError(f"{where}: there are no rows below the header")

    return source, parts()


def read_file(
    path: Path | str,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    texts_describe_items: bool = False,
    name: str | None = None,
) -> Interactions:
    """Read a file of interactions: CSV, TSV, JSON lines or Parquet.

    Args:
        path: the file; it may be packed (gzip, bzip2, xz, zip).
        layout: one of :data:`LAYOUTS`; None finds out.
        columns: ours -> theirs, where the choice would be wrong.
        texts_describe_items: the texts describe items; they are no reviews.
        name: data id of the result; the file's name if None.

    Returns:
        Validated, sorted interactions; without any label 1 they can still
        be used for next items.

    Raises:
        ConfigError: see :func:`columns_of`.
        DataError: the file cannot be read, or a row breaks the schema.
    """
    path = Path(path)
    table = open_table(path)
    source, parts = checked_parts(table, layout=layout, columns=columns)
    return gather(
        source,
        parts,
        name=name or path.name,
        told=f"Read from the file {path.name}.",
        texts_describe_items=texts_describe_items,
    )


def read_frame(
    frame: pd.DataFrame,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    texts_describe_items: bool = False,
    name: str = "table",
) -> Interactions:
    """The same from a table in memory; see :func:`read_file`."""
    header = [str(column) for column in frame.columns]
    given = frame.set_axis(header, axis=1)
    table = Table(Path(name), header, lambda those, _: iter([given[those]]))
    source, parts = checked_parts(table, layout=layout, columns=columns)
    return gather(
        source,
        parts,
        name=name,
        told="Read from a table in memory.",
        texts_describe_items=texts_describe_items,
    )


def gather(
    source: Source,
    parts: Iterable[pd.DataFrame],
    *,
    name: str,
    told: str,
    texts_describe_items: bool,
) -> Interactions:
    """All parts as one table of interactions, with notes and warnings."""
    frame, cleaned = tidy(pd.concat(list(parts), ignore_index=True))
    notes = (*warnings_of(frame), *source.notes(), *cleaned)
    has_labels = bool((frame["label"] == 1).any())
    if not has_labels:
        notes = (
            *notes,
            "No row has label 1, so there are no serendipity targets: models "
            "are trained and judged on next items.",
        )
    return Interactions(
        name=name,
        frame=frame,
        source=told,
        has_labels=has_labels,
        titles=source.titles_of_items(),
        notes=notes,
        texts_describe_items=texts_describe_items or source.describes,
    )


def warnings_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """What looks wrong in a table that breaks no rule of the schema."""
    times = frame["timestamp"]
    span = f"the times run from {period(times)}"
    if times.max() < FIRST_OF_1971:
        hint = ""
        if times.between(19_000_101, 21_001_231).all():
            hint = "; write dates as 2018-07-01"
        return (
            f"Warning: {span}, all in 1970: they are probably not seconds "
            f"since 1970{hint}.",
        )
    if times.max() > FIRST_OF_2100:
        return (f"Warning: {span}: are they seconds since 1970?",)
    return ()


def write_parts(
    source: Source, parts: Iterable[pd.DataFrame], out: Path | str
) -> int:
    """Write checked parts in the schema's columns; returns how many rows."""
    written = 0
    with (
        atomic_path(out) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        for part in parts:
            if "title" in source.columns:
                part["title"] = part["item_id"].map(source.titles)
            part.to_csv(stream, header=not written, index=False)
            written += len(part)
    return written


def parse_columns(text: str) -> dict[str, str]:
    """The option ``--columns user_id=reviewerID,...`` as a mapping.

    Raises:
        ConfigError: a part without an equals sign.

    >>> parse_columns("user_id=who, item_id=what")
    {'user_id': 'who', 'item_id': 'what'}
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for ours, mark, theirs in pairs:
        if not (mark and ours.strip() and theirs.strip()):
            raise ConfigError(
                f"--columns {text!r}: write user_id=reviewerID,item_id=asin"
            )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
