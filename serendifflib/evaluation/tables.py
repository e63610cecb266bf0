"""Tables of the book: paper | recorded | live, with origin and interval.

The paper's numbers come from ``results/paper/table<n>.json``, ours from
frames of ``collect``; nothing is typed here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation.comparison import FOLD_STAR, HOLM_STAR
from serendifflib.evaluation.paper import (
    Column,
    Panel,
    PaperRow,
    PaperTable,
    row_key,
)

SOURCES = ("paper", "recorded", "live")
ABSENT = {
    "paper": "not in the paper",
    "recorded": "not recorded",
    "live": "",
}
AS_RECORDED = "as recorded"
MARKS_OF_PLACES = (
    "Bold: best of its column; underlined: second; brackets: 95% "
    "bootstrap interval over users."
)


@dataclass(frozen=True)
class Comparison:
    """A comparison ready to print; a notebook shows it as HTML.

    Attributes:
        caption: title and origin of the numbers, in sentences.
        columns: metric -> how it prints.
        frame: text; index = row label, columns = (metric, source).
        values: the numbers behind ``frame``, NaN where there is none.
        groups: row label -> group of the paper's table ("" for none).
        places: same shape as ``frame``: 1 best, 2 second, 0 other.
        marks: same shape: signs after a number, e.g. ``*``.
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
        metrics = list(dict.fromkeys(self.frame.columns.get_level_values(0)))
        sources = list(dict.fromkeys(self.frame.columns.get_level_values(1)))
        top = "".join(
            f'<th scope="colgroup" colspan="{len(sources)}">'
            f"{html.escape(self.columns[metric].label)}</th>"
            for metric in metrics
        )
        second = "".join(
            f'<th scope="col">{html.escape(source)}</th>'
            for _ in metrics
            for source in sources
        )
        head = (
            f'<thead><tr><th scope="col" rowspan="2">Row</th>{top}</tr>'
            f"<tr>{second}</tr></thead>"
        )
        bodies = []
        for group in dict.fromkeys(self.groups.values()):
            labels = [n for n in self.frame.index if self.groups[n] == group]
            title = ""
            if group:
                width = self.frame.shape[1] + 1
                title = (
                    f'<tr><th scope="rowgroup" colspan="{width}">'
                    f"{html.escape(group)}</th></tr>"
                )
            lines = "".join(self._line(label) for label in labels)
            bodies.append(f"<tbody>{title}{lines}</tbody>")
        return boxed(self.caption, head + "".join(bodies))

    def _line(self, label: str) -> str:
        cells = []
        for column in self.frame.columns:
            text = html.escape(str(self.frame.loc[label, column]))
            place = self.places.loc[label, column]
            if place == 1:
                text = f"<strong>{text}</strong>"
            elif place == 2:
                text = f"<u>{text}</u>"
            mark = html.escape(str(self.marks.loc[label, column]))
            cells.append(f"<td>{text}{mark}</td>")
        name = html.escape(label)
        return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'

    def _repr_html_(self) -> str:
        return self.to_html()


def html_table(
    frame: pd.DataFrame,
    *,
    caption: str,
    formats: Mapping[str, str] | None = None,
) -> str:
    """Any frame as an accessible table; the first column heads its row.

    Args:
        frame: the cells; the index is not shown.
        caption: what the table shows and where it comes from.
        formats: column -> format specification, e.g. ``{"p": ".3f"}``.
    """
    formats = formats or {}
    head = "".join(
        f'<th scope="col">{html.escape(str(name))}</th>' for name in frame
    )
    lines = []
    for values in frame.itertuples(index=False, name=None):
        texts = [
            html.escape(format(value, formats.get(str(name), "")))
            for name, value in zip(frame, values, strict=True)
        ]
        cells = "".join(f"<td>{text}</td>" for text in texts[1:])
        lines.append(f'<tr><th scope="row">{texts[0]}</th>{cells}</tr>')
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return boxed(caption, body)


def boxed(caption: str, content: str) -> str:
    """A table with a caption, in a region that scrolls by keyboard."""
    return (
        '<div class="serendiff-table" style="overflow-x:auto" role="region" '
        f'tabindex="0" aria-label="{html.escape(caption[:80])}">'
        f"<table><caption>{html.escape(caption)}</caption>{content}"
        "</table></div>"
    )


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
    """Put the paper's rows beside ours.

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
        marks: (row, metric) -> sign, from
            :func:`~serendifflib.evaluation.comparison.star_marks`.

    Returns:
        Rows in the paper's order, then ours that the paper lacks.

    Raises:
        ConfigError: unknown panel or metric.
        DataError: two values for one cell (e.g. of two profiles).
    """
    panel = paper.panel(task, paper_data)
    metrics = list(metrics or paper.columns)
    unknown = [name for name in metrics if name not in paper.columns]
    if unknown:
        raise ConfigError(
            f"Table {paper.number} has no column {unknown[0]!r}: choose "
            f"from {', '.join(paper.columns)}"
        )
    ours = {
        "recorded": _mean_rows(recorded, data, task, "recorded"),
        "live": _mean_rows(live, data, task, "live"),
    }
    names, groups = _row_labels(panel, ours)
    columns = pd.MultiIndex.from_product([metrics, sources])
    index = pd.Index(list(names.values()))
    cells = [
        [_cell(paper, panel, ours, key, *column) for column in columns]
        for key in names
    ]
    values, text, signs = (
        pd.DataFrame(
            [[cell[part] for cell in line] for line in cells], index, columns
        )
        for part in range(3)
    )
    for (row, metric), sign in (marks or {}).items():
        label = names.get(row_key(row))
        if label in text.index and (metric, "recorded") in text.columns:
            signs.loc[label, (metric, "recorded")] = sign
    values = values.astype(float)
    skipped = {names.get(row_key(row)) for row in unranked}
    return Comparison(
        caption=_caption(paper, panel, data, ours, sources, bool(marks)),
        columns=paper.columns,
        frame=text,
        values=values,
        groups={names[key]: group for key, group in groups.items()},
        places=_places(values, paper.columns, skipped),
        marks=signs,
    )


def _where(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Lines of a frame whose columns have these values."""
    chosen = [frame[column] == value for column, value in wanted.items()]
    return frame[np.logical_and.reduce(chosen)]


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
    panel: Panel, ours: Mapping[str, pd.DataFrame]
) -> tuple[dict[str, str], dict[str, str]]:
    """Row key -> label and row key -> group, in the order of the table."""
    names = {row_key(row.row): row.label for row in panel.rows}
    groups = {row_key(row.row): row.group for row in panel.rows}
    for frame in ours.values():
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
    paper: PaperTable,
    panel: Panel,
    ours: Mapping[str, pd.DataFrame],
    key: str,
    metric: str,
    source: str,
) -> tuple[float, str, str]:
    """Number, text and sign of one cell."""
    column = paper.columns[metric]
    if source == "paper":
        for row in panel.rows:
            if row_key(row.row) == key:
                value = row.values[metric]
                text = column.text(value, as_printed=True)
                return value, text, row.marks.get(metric, "")
    elif (key, metric) in ours[source].index:
        found = ours[source].loc[[(key, metric)]][["value", "low", "high"]]
        value, low, high = found.to_numpy(dtype=float)[0]
        text = column.text(value, low, high)
        known = ours["recorded"]
        if source == "live" and (key, metric) in known.index:
            stored = known.loc[[(key, metric)], "value"].iloc[0]
            if column.text(stored) == column.text(value):
                text = AS_RECORDED  # one number is shown once
        return float(value), text, ""
    return math.nan, ABSENT[source], ""


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


def _caption(
    paper: PaperTable,
    panel: Panel,
    data: str,
    ours: Mapping[str, pd.DataFrame],
    sources: Sequence[str],
    starred: bool,
) -> str:
    parts = [
        f"Table {paper.number} of the paper beside ours: "
        f"{paper.title} ({panel.task}).",
    ]
    if "paper" in sources:
        parts.append(f"Paper: {panel.title}; {paper.source}.")
    for source in ("recorded", "live"):
        if source in sources:
            parts.append(f"{source.capitalize()}: {provenance(ours[source])}")
    if "paper" in sources and panel.data != data:
        parts.append(
            f"The paper's data are {panel.data}, ours {data}: compare the "
            "order of rows, not the values."
        )
    parts.append(MARKS_OF_PLACES)
    if starred:
        parts.append(
            f"{FOLD_STAR}: differs from at least six of the nine rivals by a "
            f"two-tailed t-test over folds, p < 0.05 (the paper's rule); "
            f"{HOLM_STAR}: the same by paired tests over users with Holm's "
            "correction."
        )
    return " ".join(parts)


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


# ------------------------------------- tables that the paper does not have


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

    Args:
        title: what it compares, one line.
        rows: id -> label, in the order of the table; other rows of the
            frames follow.
        recorded: ``collect`` of the recorded runs.
        live: the same of this execution; None leaves the column out.
        data: which of our data sets to show.
        columns: metric -> how it prints.
        task: "serendipity" or "relevance".
        unranked: rows that never count as best, e.g. the oracle.

    Raises:
        DataError: two values for one cell (e.g. of two profiles).
    """
    listed = tuple(PaperRow(row, rows[row], "", {}, {}) for row in rows)
    panel = Panel(task, data, title, listed)
    empty = PaperTable(0, title, title, "", "", columns, (panel,))
    sources = ("recorded",) if live is None else ("recorded", "live")
    frames = {
        name: _relabelled(frame, rows)
        for name, frame in (("recorded", recorded), ("live", live))
    }
    made = comparison_table(
        empty,
        frames["recorded"],
        frames["live"],
        data=data,
        task=task,
        paper_data=data,
        sources=sources,
        unranked=unranked,
    )
    origins = [
        f"{name.capitalize()}: "
        f"{provenance(_mean_rows(frames[name], data, task, name))}"
        for name in sources
    ]
    several = dict.fromkeys(made.groups, "")  # no group, nothing is foreign
    caption = [f"{title} ({task}).", *origins, MARKS_OF_PLACES]
    return replace(made, caption=" ".join(caption), groups=several)


def _relabelled(
    frame: pd.DataFrame | None, rows: Mapping[str, str]
) -> pd.DataFrame | None:
    """Today's labels: a record keeps the one of its own day."""
    if frame is None or frame.empty:
        return frame
    return frame.assign(label=frame["row"].map(rows).fillna(frame["label"]))


def row_means(
    frame: pd.DataFrame | None,
    *,
    data: str,
    metric: str = "H@10",
    task: str = "serendipity",
    rows: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Means over folds of one metric, one line per row: what plots take.

    Args:
        frame: ``collect``, or None.
        data: which data set.
        metric: which number, e.g. "H@10" or "inference_seconds".
        task: "serendipity" or "relevance".
        rows: id -> label, to choose rows, their order and their names;
            None takes all as they come.

    Returns:
        Index: row id; columns ``label, value, low, high, n, folds,
        profile``. Rows without a record are missing, not NaN.

    Raises:
        DataError: two values for one row.
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
