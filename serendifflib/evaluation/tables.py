"""Tables of the book: paper | recorded | live, with origin and interval.

The paper's numbers come from ``results/paper/table<n>.json``, ours from
frames of ``collect``; nothing is typed here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from serendifflib.errors import DataError, check_choice
from serendifflib.evaluation.comparison import FOLD_STAR, HOLM_STAR
from serendifflib.evaluation.paper import Column, Panel, PaperTable, row_key

SOURCES = ("paper", "recorded", "live")
ABSENT = {"paper": "not in the paper", "recorded": "not recorded", "live": ""}
AS_RECORDED = "as recorded"
_PAGE = "tables.html"
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
MARKS_OF_PLACES = (
    "Bold: best of its column; underlined: second; brackets: 95% "
    "bootstrap interval over users."
)
MEANING_OF_STARS = (
    f"{FOLD_STAR}: differs from at least six of the nine rivals by a "
    "two-tailed t-test over folds, p < 0.05 (the paper's rule); "
    f"{HOLM_STAR}: the same by paired tests over users with Holm's "
    "correction."
)


@dataclass(frozen=True)
class Comparison:
    """A comparison ready to print; a notebook shows it as HTML.

    Attributes:
        caption: title and origin of the numbers, in sentences.
        columns: metric -> how it prints.
        frame: text; index = row label, columns = (metric, source).
        values, places, marks: like it, the numbers (NaN: none), 1 for the best
            and 2 for the second, and signs.
        groups: row label -> group of the paper's table ("" for none).
    """

    caption: str
    columns: Mapping[str, Column]
    frame: pd.DataFrame
    values: pd.DataFrame
    groups: Mapping[str, str]
    places: pd.DataFrame
    marks: pd.DataFrame = field(repr=False)

    def to_html(self) -> str:
        """A table with caption and header scopes; all text is escaped."""
        metrics, sources = (
            list(dict.fromkeys(level))
            for level in zip(*self.frame.columns, strict=True)
        )
        parts = (self.frame, self.places, self.marks)
        groups: dict[str, list[tuple[str, list[tuple[object, ...]]]]] = {}
        for label in self.frame.index:
            cells = zip(*(part.loc[label] for part in parts), strict=True)
            lines = groups.setdefault(self.groups[label], [])
            lines.append((label, list(cells)))
        labels = [self.columns[name].label for name in metrics]
        return _html(
            "comparison", self.caption, labels, sources, groups.items()
        )

    _repr_html_ = to_html


def html_table(
    frame: pd.DataFrame,
    *,
    caption: str,
    formats: Mapping[str, str] | None = None,
) -> str:
    """Any frame as an accessible table; the first column heads its row.

    The index is not shown; ``formats`` are e.g. ``{"p": ".3f"}``.
    """
    formats = formats or {}
    rows = [
        [
            format(value, formats.get(str(name), ""))
            for name, value in zip(frame, values, strict=True)
        ]
        for values in frame.itertuples(index=False, name=None)
    ]
    return _html("plain", caption, list(frame), rows)


def sortable_table(
    texts: pd.DataFrame, values: pd.DataFrame, *, caption: str
) -> str:
    """A table whose columns a reader can sort by a click or by Enter.

    The first column of ``texts`` heads its row. Columns are sorted by
    ``values``, or by their text where these have no such column.
    """
    heads = [(c, "number" if c in values else "text") for c in texts]
    columns = [
        zip(
            texts[name].astype(str),
            values[name].astype(float) if name in values else cycle([None]),
            strict=False,
        )
        for name in texts
    ]
    rows = zip(*columns, strict=True)
    return _html("sortable", caption, heads, rows)


def dot_table(
    frame: pd.DataFrame, *, caption: str, reference: float | None = None
) -> str:
    """One line per row: its name, its kind, its value, a dot with interval.

    ``frame`` has ``label, kind, value, low, high``, all shares in [0, 1];
    ``reference`` is a share to mark in every line, e.g. chance.
    """
    top = max(float(frame["high"].max()), reference or 0.0, 1e-9)
    top = 5 * math.ceil(20 * top)  # the axis ends at a multiple of 5%
    numbers = 100 * frame[["value", "low", "high"]]
    rows = zip(
        frame["label"],
        frame["kind"],
        *(numbers[name] for name in numbers),
        strict=True,
    )
    if reference is not None:
        reference *= 100
    return _html("dots", caption, rows, top, reference)


def _html(macro: str, *values: object) -> str:
    """What a macro of ``tables.html`` makes of some values."""
    return str(getattr(_TEMPLATES.get_template(_PAGE).module, macro)(*values))


def comparison_table(
    paper: PaperTable,
    recorded: pd.DataFrame | None,
    live: pd.DataFrame | None = None,
    *,
    data: str,
    task: str = "serendipity",
    paper_data: str = "serenlens-books",
    metrics: Sequence[str] | None = None,
    sources: Sequence[str] = SOURCES,
    unranked: Collection[str] = (),
    marks: Mapping[tuple[str, str], str] | None = None,
) -> Comparison:
    """Put the paper's rows beside ours; then come ours that it lacks.

    Args:
        paper: a table of the paper.
        recorded: ``collect`` of the recorded runs.
        live: the same of what this very execution computed.
        data: which of our data sets to show.
        task: "serendipity" or "relevance".
        paper_data: which panel of the paper stands beside it.
        metrics: columns to show; default all of the paper's table.
        sources: which of paper, recorded and live to show.
        unranked: rows that never count as best, e.g. the oracle.
        marks: (row, metric) -> sign, from ``comparison.star_marks``.

    Raises:
        ConfigError: unknown panel or metric.
        DataError: two values for one cell (e.g. of two profiles).
    """
    panel = paper.panel(task, paper_data)
    for name in metrics or ():
        check_choice("column", name, paper.columns, f"Table {paper.number}")
    columns = {name: paper.columns[name] for name in metrics or paper.columns}
    frames = {
        "paper": _printed(panel),
        "recorded": _mean_rows(recorded, data, task, "recorded"),
        "live": _mean_rows(live, data, task, "live"),
    }
    return _compare(
        _caption(paper, panel, data, frames, sources, bool(marks)),
        {row.row: (row.label, row.group) for row in panel.rows},
        frames,
        columns,
        sources,
        unranked,
        marks or {},
    )


def _caption(
    paper: PaperTable,
    panel: Panel,
    data: str,
    frames: Mapping[str, pd.DataFrame],
    sources: Sequence[str],
    starred: bool,
) -> str:
    title = f"Table {paper.number} of the paper beside ours: {paper.title}"
    parts = [f"{title} ({panel.task})."]
    if "paper" in sources:
        parts.append(f"Paper: {panel.title}; {paper.source}.")
    parts += _origins(frames, sources)
    if "paper" in sources and panel.data != data:
        parts.append(
            f"The paper's data are {panel.data}, ours {data}: compare the "
            "order of rows, not the values."
        )
    parts.append(MARKS_OF_PLACES)
    if starred:
        parts.append(MEANING_OF_STARS)
    return " ".join(parts)


def _origins(
    frames: Mapping[str, pd.DataFrame], sources: Sequence[str]
) -> list[str]:
    return [
        f"{name.capitalize()}: {provenance(frames[name])}"
        for name in ("recorded", "live")
        if name in sources
    ]


def _compare(
    caption: str,
    listed: Mapping[str, tuple[str, str]],
    frames: Mapping[str, pd.DataFrame],
    columns: Mapping[str, Column],
    sources: Sequence[str],
    unranked: Collection[str],
    marks: Mapping[tuple[str, str], str],
) -> Comparison:
    """Listed rows (id -> label, group), then others, of all sources."""
    names, groups = _row_labels(listed, frames)
    wanted = pd.MultiIndex.from_product([columns, sources])
    cells = [
        [_cell(frames, columns[metric], key, metric, source)
         for metric, source in wanted]
        for key in names
    ]  # fmt: skip
    values, text, signs = (
        pd.DataFrame(
            [[cell[part] for cell in line] for line in cells],
            list(names.values()),
            wanted,
        )
        for part in range(3)
    )
    for (row, metric), sign in marks.items():
        label = names.get(row_key(row))
        if label in text.index and (metric, "recorded") in text.columns:
            signs.loc[label, (metric, "recorded")] = sign
    skipped = {names.get(row_key(row)) for row in unranked}
    return Comparison(
        caption=caption,
        columns=columns,
        frame=text,
        values=values.astype(float),
        groups={names[key]: group for key, group in groups.items()},
        places=_places(values.astype(float), columns, skipped),
        marks=signs,
    )


def _where(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Lines of a frame whose columns have these values."""
    chosen = [frame[column] == value for column, value in wanted.items()]
    return frame[np.logical_and.reduce(chosen)]


def _printed(panel: Panel) -> pd.DataFrame:
    """The numbers of a panel, one line per (row, metric)."""
    lines = {
        (row_key(row.row), metric): (value, row.marks.get(metric, ""))
        for row in panel.rows
        for metric, value in row.values.items()
    }
    index = pd.MultiIndex.from_tuples(lines)
    return pd.DataFrame(lines.values(), index, columns=["value", "mark"])


def _mean_rows(
    frame: pd.DataFrame | None, data: str, task: str, source: str
) -> pd.DataFrame:
    """Means over folds of one data set, one line per (row, metric)."""
    columns = ["row", "label", "metric", "value", "low", "high"]
    if frame is None or frame.empty:
        return pd.DataFrame(columns=columns)
    part = _where(frame, data=data, task=task, fold="mean")
    part = part.assign(key=part["row"].map(row_key))
    twice = part.duplicated(["key", "metric"])
    if twice.any():
        first = part[twice].iloc[0]
        raise DataError(
            f"{source}: two values for {first['row']} {first['metric']} on "
            f"{data}: choose one profile in collect()"
        )
    return part.set_index(["key", "metric"], drop=False)


def _row_labels(
    listed: Mapping[str, tuple[str, str]], frames: Mapping[str, pd.DataFrame]
) -> tuple[dict[str, str], dict[str, str]]:
    """Row key -> label and row key -> group, in the order of the table."""
    names = {row_key(row): label for row, (label, _) in listed.items()}
    groups = {row_key(row): group for row, (_, group) in listed.items()}
    for source in ("recorded", "live"):
        frame = frames[source]
        for row, label in zip(frame["row"], frame["label"], strict=True):
            key = row_key(row)
            if key not in names:
                taken = label in names.values()
                names[key] = f"{label} ({row})" if taken else label
                groups[key] = "Not in the paper"
            elif names[key] != label and "(ours" not in names[key]:
                if row_key(label) != key or "-style" in label:
                    names[key] = f"{names[key]} (ours: {label})"
    return names, groups


def _cell(
    frames: Mapping[str, pd.DataFrame],
    column: Column,
    key: str,
    metric: str,
    source: str,
) -> tuple[float, str, str]:
    """Number, text and sign of one cell."""
    if (key, metric) not in frames[source].index:
        return math.nan, ABSENT[source], ""
    found = frames[source].loc[[(key, metric)]].iloc[0]
    value = float(found["value"])
    if source == "paper":
        return value, column.text(value, as_printed=True), found["mark"]
    text = column.text(value, found["low"], found["high"])
    known = frames["recorded"]
    if source == "live" and (key, metric) in known.index:
        stored = known.loc[[(key, metric)], "value"].iloc[0]
        if column.text(stored) == column.text(value):
            text = AS_RECORDED  # one number is shown once
    return value, text, ""


def _places(
    values: pd.DataFrame,
    columns: Mapping[str, Column],
    skipped: Collection[str | None],
) -> pd.DataFrame:
    """1 for the best of a column, 2 for the second, 0 for others and gaps."""
    ranked = values.loc[[name for name in values.index if name not in skipped]]
    places = {}
    for column in ranked:
        lower = columns[column[0]].better == "lower"
        rank = ranked[column].rank(method="dense", ascending=lower)
        alone = rank.count() < 2  # a lone row has beaten nobody
        places[column] = rank.where((rank <= 2) & ~alone, 0).fillna(0)
    found = pd.DataFrame(places, columns=values.columns)
    return found.reindex(values.index, fill_value=0).fillna(0).astype(int)


def provenance(frame: pd.DataFrame) -> str:
    """One sentence on where the numbers of a collected frame come from."""
    if frame.empty:
        return "nothing of this table and data."

    def several(column: str) -> str:
        values = sorted({str(v) for v in frame[column] if str(v)})
        return ", ".join(values) if values else "unknown"

    commits, days = (
        sorted({str(value)[:10] for value in frame[column]})
        for column in ("commit", "created")
    )
    text = (
        f"{several('data')}, profile {several('profile')}, "
        f"seed {several('seed')}, code {', '.join(commits)}"
    )
    if frame["dirty"].any():
        text += " (with uncommitted changes)"
    text += f", on {several('device')}, {days[0]}"
    if days[-1] != days[0]:
        text += f" to {days[-1]}"
    if not frame["current"].all():
        text += "; the code has changed since"
    return text + "."


def own_table(
    title: str,
    rows: Mapping[str, str],
    recorded: pd.DataFrame | None,
    live: pd.DataFrame | None = None,
    *,
    data: str,
    columns: Mapping[str, Column],
    task: str = "serendipity",
    unranked: Collection[str] = (),
) -> Comparison:
    """A table of ours alone: recorded | live, with intervals.

    ``rows`` (id -> label) gives the order; other rows of the frames follow.
    Without ``live`` there is one column. See :func:`comparison_table`.
    """
    sources = ("recorded",) if live is None else ("recorded", "live")
    frames = {}
    for name, frame in (("recorded", recorded), ("live", live)):
        frames[name] = _mean_rows(frame, data, task, name)
        # a record keeps the label of its own day
        today = frames[name]["row"].map(rows).fillna(frames[name]["label"])
        frames[name] = frames[name].assign(label=today)
    origins = _origins(frames, sources)
    made = _compare(
        " ".join([f"{title} ({task}).", *origins, MARKS_OF_PLACES]),
        {row: (label, "") for row, label in rows.items()},
        frames,
        columns,
        sources,
        unranked,
        {},
    )
    # no group: nothing is foreign
    return replace(made, groups=dict.fromkeys(made.groups, ""))


def row_means(
    frame: pd.DataFrame | None,
    *,
    data: str,
    metric: str = "H@10",
    task: str = "serendipity",
    rows: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Means over folds of one metric, one line per row: what plots take.

    Takes ``collect`` (or None); ``rows`` (id -> label) gives the order, None
    takes all as they come. A ``metric`` is e.g. "H@10" or "inference_seconds".
    The index is the row id, the columns ``label, value, low, high, n, folds,
    profile``. Rows without a record are missing, not NaN.
    """
    columns = ["label", "value", "low", "high", "n", "folds", "profile"]
    if frame is None or frame.empty:
        return pd.DataFrame(columns=columns).rename_axis("row")
    means = _mean_rows(frame, data, task, "row_means")
    part = means[means["metric"] == metric].set_index("row", drop=False)
    counted = _where(frame, data=data, task=task, metric=metric)
    counted = counted[counted["fold"] != "mean"]
    folds = counted.groupby("row")["fold"].nunique()
    part = part.assign(folds=folds.reindex(part.index).astype(int))
    if rows is not None:
        part = part.loc[[row for row in rows if row in part.index]]
        part["label"] = [rows[row] for row in part.index]
    return part[columns]
