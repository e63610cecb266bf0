"""Files in other people's columns: told apart, mapped to ours, checked.

The columns of a file are looked up among the known layouts (ours first),
then by likely names. What was chosen is the first of the notes, and
``columns`` puts a wrong choice right.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from serendifflib.data.interactions import Interactions, period
from serendifflib.data.reading import Table, open_table
from serendifflib.data.schema import check_rows, sentences, shown, tidy
from serendifflib.errors import ConfigError, DataError, check_choice
from serendifflib.io import read_json

NEEDED = ("user_id", "item_id", "timestamp")
OPTIONAL = ("review", "rating", "label", "title")
UNSAID = {"review": "", "rating": "", "label": 0}  # where there is no column
FIRST_OF_1971 = 31_536_000
FIRST_OF_2100 = 4_102_444_800

_KNOWN = read_json(Path(__file__).with_name("layouts.json"))
# Ours -> theirs, in the order in which they are tried. The title of Amazon's
# files of 2023 is that of the review: it is left alone.
LAYOUTS: dict[str, dict[str, str]] = _KNOWN["layouts"]
# Other names that a column may have; spelling and case do not matter.
LIKELY: dict[str, str] = _KNOWN["likely"]


def read_table(
    what: Path | str | pd.DataFrame,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    texts_describe_items: bool = False,
    name: str | None = None,
) -> Interactions:
    """Read a file or a table of interactions.

    Args:
        what: a CSV, TSV, JSON lines or Parquet file, plain or packed (gzip,
            bzip2, xz, zip), or a table in memory.
        layout: one of :data:`LAYOUTS`; None finds out.
        columns: ours -> theirs, where the choice would be wrong.
        texts_describe_items: the texts describe items; they are no reviews.
        name: data id of the result; the file's name if None.

    Raises:
        ConfigError: an unknown layout, or a column that is not ours.
        DataError: the file cannot be read, or a row breaks the schema.
    """
    if isinstance(what, pd.DataFrame):
        header = [str(column) for column in what.columns]
        given = what.set_axis(header, axis=1)
        table = Table(Path("table"), header, lambda those: given[those])
        told = "Read from a table in memory."
    else:
        table = open_table(what)
        told = f"Read from the file {table.path.name}."
    where = str(table.path)
    chosen, layout = _choose(table.header, where, layout, dict(columns or {}))
    rows = table.read(list(chosen.values()))
    rows = pd.DataFrame({our: rows[their] for our, their in chosen.items()})
    remarks: Counter = Counter()
    if layout == "goodreads-library":
        rows = _begun_books(rows, remarks)
    describes = "review" not in rows and "title" in rows
    if describes:
        rows["review"] = rows["title"]
    lacking = {c: v for c, v in UNSAID.items() if c not in rows}
    rows = rows.assign(**lacking)
    checked = check_rows(rows, where=where, remarks=remarks)
    titles = _titles(checked["item_id"], rows.get("title"))
    frame, cleaned = tidy(checked)
    return Interactions(
        name=name or table.path.name,
        frame=frame,
        source=told,
        has_labels=bool((frame["label"] == 1).any()),
        titles=titles,
        notes=(
            *warnings_of(frame),
            *_choices(chosen, layout, describes, bool(titles)),
            *sentences(remarks),
            *cleaned,
            *without_labels(frame),
        ),
        texts_describe_items=texts_describe_items or describes,
    )


def _choose(
    header: Sequence[str],
    where: str,
    layout: str | None,
    chosen: dict[str, str],
) -> tuple[dict[str, str], str]:
    """Which column of a file is which of ours, and by which layout."""
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
            found = {our: c for our, c in known.items() if c in header}
            break
        if layout:
            raise _no_column(where, lacking[0], header)
    else:
        found, name = _likely(header, chosen, where), "by their names"
    free = [column for column in header if column not in found.values()]
    for ours in ("review", "rating", "label"):
        close = difflib.get_close_matches(ours, free, n=1, cutoff=0.8)
        if ours not in found and close:
            raise DataError(
                f"{where}: column {ours!r} is missing; is it {close[0]!r}? "
                f"Say so by columns (--columns {ours}={close[0]})"
            )
    return found, name


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


def _no_column(where: str, column: str, header: Sequence[str]) -> DataError:
    listed = ", ".join(shown(title) for title in header[:12])
    return DataError(
        f"{where}: column {column!r} is missing; the file has {listed}; "
        "say which it is by columns (--columns user_id=reviewerID,...)"
    )


def _begun_books(library: pd.DataFrame, remarks: Counter) -> pd.DataFrame:
    """The books of one reader's library that were begun."""
    library = library.assign(user_id="reader")
    if "shelf" in library:
        wanted = library.pop("shelf") == "to-read"
        remarks["to read"] += int(wanted.sum())
        library = library[~wanted]
    if "title" in library:
        library["review"] = library["review"].where(
            library["review"].str.strip() != "", library["title"]
        )
    return library


def _titles(items: pd.Series, titles: pd.Series | None) -> dict[str, str]:
    """Titles by item id; none where they must be headlines of reviews."""
    if titles is None:
        return {}
    pairs = pd.DataFrame(
        {"item": items.to_numpy(), "title": titles.to_numpy()}
    ).dropna()
    pairs["title"] = pairs["title"].astype(str).str.split().str.join(" ")
    pairs = pairs[pairs["title"] != ""].drop_duplicates()
    unsure = int((pairs["item"].value_counts() > 1).sum())
    firsts = pairs.drop_duplicates("item").set_index("item")["title"]
    if 10 * unsure > len(firsts) or 2 * firsts.nunique() <= len(firsts) > 1:
        return {}
    return firsts.to_dict()


def _choices(
    chosen: dict[str, str], layout: str, describes: bool, titled: bool
) -> list[str]:
    """How the columns were read, in sentences."""
    others = ", ".join(
        f"{our} from {shown(their)}"
        for our, their in chosen.items()
        if our != their
    )
    notes = [f"Columns ({layout}): {others}."] if others else []
    for column in ("rating", "label"):
        if column not in chosen:
            notes.append(f"There is no column for {column}.")
    if describes:
        notes.append("There are no reviews; the title is the text of an item.")
    if "title" in chosen and not titled:
        notes.append(
            f"Column {shown(chosen['title'])} does not hold the titles of the "
            "items: it was not used."
        )
    return notes


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


def without_labels(frame: pd.DataFrame) -> tuple[str, ...]:
    """What it means that no row has label 1, if none has."""
    if (frame["label"] == 1).any():
        return ()
    return (
        "No row has label 1, so there are no serendipity targets: models "
        "are trained and judged on next items.",
    )
