"""Tables of the book: paper | recorded | live, with origin and interval.

The paper's numbers come from ``results/paper/table<n>.json``, ours from
frames of ``collect``; nothing is typed here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation import stats
from serendifflib.io import project_root, read_json
from serendifflib.profiles import PROFILES

SOURCES = ("paper", "recorded", "live")
ABSENT = {
    "paper": "not in the paper",
    "recorded": "not recorded",
    "live": "not run here",
}
FOLD_STAR = "*"
HOLM_STAR = "†"
MARKS_OF_PLACES = (
    "Bold: best of its column; underlined: second; brackets: 95% "
    "bootstrap interval over users."
)


@dataclass(frozen=True)
class Column:
    """How a column prints: ``unit`` "%", "s" or "", and which end is best."""

    label: str
    unit: str = ""
    decimals: int = 3
    better: str = "higher"

    def text(
        self,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
        *,
        as_printed: bool = False,
    ) -> str:
        """A value with its interval, e.g. ``12.3% [10.1, 14.8]``.

        Args:
            value: a share for "%", seconds for "s".
            low: lower bound, NaN for none.
            high: upper bound, NaN for none.
            as_printed: all decimals of the paper; ours get one for "%",
                where more would pretend a precision that is not there.
        """
        places = 1 if self.unit == "%" and not as_printed else self.decimals
        if self.unit == "s":
            if as_printed:
                return f"{value:.{places}f} s"
            # three digits, or all before the point: never an exponent
            return f"{value:,.0f} s" if value >= 999.5 else f"{value:.3g} s"
        scale = 100 if self.unit == "%" else 1
        shown = f"{value * scale:.{places}f}{self.unit}"
        if math.isnan(low) or math.isnan(high):
            return shown
        bounds = f"{low * scale:.{places}f}, {high * scale:.{places}f}"
        return f"{shown} [{bounds}]"


@dataclass(frozen=True)
class PaperRow:
    """One row as printed; rates as shares in [0, 1], times in seconds."""

    row: str
    label: str
    group: str
    values: Mapping[str, float]
    marks: Mapping[str, str]


@dataclass(frozen=True)
class Panel:
    """The rows of one task ("serendipity", "relevance") on one data set."""

    task: str
    data: str
    title: str
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, typed once."""

    number: int
    title: str
    caption: str
    source: str
    note: str
    columns: Mapping[str, Column]
    panels: tuple[Panel, ...]

    def panel(self, task: str | None = None, data: str | None = None) -> Panel:
        """The panel of a task and a data set; None means the first.

        Raises:
            ConfigError: the table has no such panel.
        """
        for panel in self.panels:
            if task in (None, panel.task) and data in (None, panel.data):
                return panel
        known = ", ".join(f"{p.task}/{p.data}" for p in self.panels)
        raise ConfigError(
            f"Table {self.number} has no panel {task}/{data}: choose one "
            f"of {known}"
        )

    def frame(self) -> pd.DataFrame:
        """Long form: ``task, data, row, label, metric, value, mark``."""
        return pd.DataFrame(
            {
                "task": panel.task,
                "data": panel.data,
                "row": row.row,
                "label": row.label,
                "metric": metric,
                "value": value,
                "mark": row.marks.get(metric, ""),
            }
            for panel in self.panels
            for row in panel.rows
            for metric, value in row.values.items()
        )


def load_paper_table(number: int, folder: Path | None = None) -> PaperTable:
    """Read one of the paper's Tables 2 to 6.

    Args:
        number: 2..6 (Table 1 is read by ``serendifflib.data.table1``).
        folder: where the JSON files lie; default ``results/paper``.

    Raises:
        ConfigError: there is no such table.
    """
    folder = folder or project_root() / "results" / "paper"
    path = folder / f"table{number}.json"
    if number not in range(2, 7) or not path.is_file():
        raise ConfigError(f"no table {number} at {path}: choose 2 to 6")
    raw = read_json(path)
    columns = {name: Column(**spec) for name, spec in raw["columns"].items()}
    return PaperTable(
        number=raw["number"],
        title=raw["title"],
        caption=raw["caption"],
        source=raw["source"],
        note=raw.get("note", ""),
        columns=columns,
        panels=tuple(_panel(panel, columns) for panel in raw["panels"]),
    )


def _panel(raw: dict[str, Any], columns: Mapping[str, Column]) -> Panel:
    rows = []
    for row in raw["rows"]:
        printed = zip(columns.items(), row["values"], strict=True)
        rows.append(
            PaperRow(
                row=row["row"],
                label=row["label"],
                group=row.get("group", ""),
                # dividing by 100 is exact to the printed digits
                values={
                    name: value / 100 if column.unit == "%" else value
                    for (name, column), value in printed
                },
                marks=row.get("marks", {}),
            )
        )
    return Panel(raw["task"], raw["data"], raw["title"], tuple(rows))


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
        return _table(self.caption, head + "".join(bodies))

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
    return _table(caption, body)


def _table(caption: str, content: str) -> str:
    # the region scrolls by keyboard on a narrow screen
    return (
        '<div class="serendiff-table" style="overflow-x:auto" role="region" '
        f'tabindex="0" aria-label="{html.escape(caption[:80])}">'
        f"<table><caption>{html.escape(caption)}</caption>{content}"
        "</table></div>"
    )


def row_key(row: str) -> str:
    """What rows are matched by: case, signs and "-style" do not count.

    >>> row_key("DESR-style") == row_key("desr")
    True
    """
    name = row.lower().removesuffix("-style")
    return "".join(sign for sign in name if sign.isalnum())


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
        marks: (row, metric) -> sign, from :func:`star_marks`.

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
    cells = [
        _cell(paper, panel, ours, key, metric, source)
        for key in names
        for metric in metrics
        for source in sources
    ]
    columns = pd.MultiIndex.from_product([metrics, sources])
    index = pd.Index(list(names.values()))

    def grid(position: int) -> pd.DataFrame:
        width = len(columns)
        flat = [cell[position] for cell in cells]
        rows = [flat[i : i + width] for i in range(0, len(flat), width)]
        return pd.DataFrame(rows, index=index, columns=columns)

    values, text, signs = grid(0).astype(float), grid(1), grid(2)
    for (row, metric), sign in (marks or {}).items():
        label = names.get(row_key(row))
        if label in text.index and (metric, "recorded") in text.columns:
            signs.loc[label, (metric, "recorded")] = sign
    skip = {names.get(row_key(row)) for row in unranked}
    places = values.drop(index=[n for n in skip if n in values.index])
    places = pd.DataFrame(
        {
            (metric, source): _places(
                places[metric, source], paper.columns[metric].better
            )
            for metric in metrics
            for source in sources
        }
    ).reindex(values.index, fill_value=0)
    return Comparison(
        caption=_caption(paper, panel, data, ours, sources, bool(marks)),
        columns=paper.columns,
        frame=text,
        values=values,
        groups={names[key]: group for key, group in groups.items()},
        places=places,
        marks=signs,
    )


def _mean_rows(
    frame: pd.DataFrame | None, data: str, task: str, source: str
) -> pd.DataFrame:
    """Means over folds of one data set, one line per (row, metric)."""
    columns = ["row", "label", "metric", "value", "low", "high"]
    if frame is None or frame.empty:
        return pd.DataFrame(columns=columns)
    chosen = (
        (frame["data"] == data)
        & (frame["task"] == task)
        & (frame["fold"] == "mean")
    )
    part = frame[chosen].copy()
    part["key"] = part["row"].map(row_key)
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
        return float(value), column.text(value, low, high), ""
    return math.nan, ABSENT[source], ""


def _places(values: pd.Series, better: str) -> pd.Series:
    """1 for the best value, 2 for the second, 0 for others and gaps."""
    rank = values.rank(method="dense", ascending=better == "lower")
    place = rank.where(rank <= 2, 0).fillna(0).astype(int)
    # a lone row has beaten nobody
    return place if values.notna().sum() > 1 else place * 0


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

    commits = sorted({str(c)[:10] for c in frame["commit"]})
    days = sorted({str(c)[:10] for c in frame["created"]})
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


def significance(
    cases: pd.DataFrame,
    ours: str,
    rivals: Sequence[str],
    *,
    metrics: Sequence[str] = ("H@1", "H@5", "H@10", "N@5", "N@10"),
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Test one row against its rivals, over folds and over users.

    Args:
        cases: ``case_frame`` of one table, data set,
            profile and task.
        ours: the row to test.
        rivals: rows to test it against.
        metrics: which metrics.
        alpha: level of significance.

    Returns:
        One line per metric and rival that has cases in a fold of ours:
        ``metric``, ``rival``, ``folds`` (common), ``users`` (cases),
        ``difference``, ``p_folds`` (two-tailed t over fold means; NaN with
        one fold), ``p_users`` (paired t), ``p_users_holm``,
        ``significant_folds``, ``significant_holm``.

    Raises:
        DataError: two rows were not tested on the same cases.
    """
    by_row = {
        row: part.set_index(["fold", "user", "target"]).sort_index()
        for row, part in cases.groupby("row")
    }
    if ours not in by_row:
        raise DataError(f"no cases of row {ours!r} to test")
    pairs = {}
    for rival in rivals:
        if rival in by_row:
            pair = _common_folds(by_row[ours], by_row[rival], ours, rival)
            if pair is not None:
                pairs[rival] = pair
    found = []
    for metric in metrics:
        lines: list[dict[str, Any]] = []
        for rival, (mine, theirs) in pairs.items():
            one, two = mine[metric], theirs[metric]
            means = [v.groupby("fold").mean().to_numpy() for v in (one, two)]
            folds = len(means[0])
            paired = stats.paired_t(one, two)
            p_folds = stats.two_tailed_t(*means).p if folds > 1 else math.nan
            lines.append(
                {
                    "metric": metric,
                    "rival": rival,
                    "folds": folds,
                    "users": len(one),
                    "difference": paired.difference,
                    "p_folds": p_folds,
                    "p_users": paired.p,
                }
            )
        adjusted = stats.holm([line["p_users"] for line in lines])
        for line, p in zip(lines, adjusted, strict=True):
            line["p_users_holm"] = float(p)
            line["significant_folds"] = line["p_folds"] < alpha
            line["significant_holm"] = bool(p < alpha)
        found += lines
    columns = (
        "metric rival folds users difference p_folds p_users p_users_holm "
        "significant_folds significant_holm"
    )
    return pd.DataFrame(found, columns=columns.split())


def _common_folds(
    mine: pd.DataFrame, theirs: pd.DataFrame, ours: str, rival: str
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    folds = [
        fold
        for fold in mine.index.get_level_values("fold").unique()
        if fold in theirs.index.get_level_values("fold")
    ]
    if not folds:
        return None
    mine, theirs = mine.loc[folds], theirs.loc[folds]
    if not mine.index.equals(theirs.index):
        raise DataError(
            f"{ours} and {rival} were not tested on the same cases in folds "
            f"{folds}: run both on the same data and candidates"
        )
    return mine, theirs


def star_marks(
    tests: pd.DataFrame, row: str, *, needed: int = 6
) -> dict[tuple[str, str], str]:
    """Signs for :func:`comparison_table` from :func:`significance`.

    Args:
        tests: the tests of one row.
        row: that row.
        needed: rivals that must differ; the paper: six of nine.

    Returns:
        (row, metric) -> ``*`` (the paper's rule), ``†`` (Holm over users),
        both or the empty string.
    """
    marks = {}
    for metric, part in tests.groupby("metric", sort=False):
        sign = FOLD_STAR * int(part["significant_folds"].sum() >= needed)
        sign += HOLM_STAR * int(part["significant_holm"].sum() >= needed)
        marks[row, str(metric)] = sign
    return marks


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
    panel = Panel(
        task,
        data,
        title,
        tuple(
            PaperRow(row, label, "", dict[str, float](), dict[str, str]())
            for row, label in rows.items()
        ),
    )
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
    counted = frame[
        (frame["data"] == data)
        & (frame["task"] == task)
        & (frame["metric"] == metric)
        & (frame["fold"] != "mean")
    ]
    folds = counted.groupby("row")["fold"].nunique()
    part = part.assign(folds=folds.reindex(part.index).astype(int))
    if rows is not None:
        part = part.loc[[row for row in rows if row in part.index]]
        part["label"] = [rows[row] for row in part.index]
    return part[columns]


def same_profile(cases: pd.DataFrame, row: str) -> pd.DataFrame:
    """The cases of the largest profile that a row has, of all rows.

    Rows of two profiles saw different worlds and cannot be paired.

    Args:
        cases: ``case_frame`` of one table and data
            set.
        row: whose profile counts; none of its cases gives no cases.
    """
    own = set(cases.loc[cases["row"] == row, "profile"])
    sizes = [name for name in PROFILES if name in own]
    return cases[cases["profile"] == (sizes[-1] if sizes else None)]


def paired_differences(
    cases: pd.DataFrame,
    baseline: str,
    rows: Sequence[str] | None = None,
    *,
    metric: str = "H@10",
    factor: float = 1.0,
    level: float = 0.95,
) -> pd.DataFrame:
    """What each row has more than a baseline, user by user.

    Args:
        cases: ``case_frame`` of one table, data set,
            profile and task.
        baseline: the row that is subtracted.
        rows: rows to compare; None takes all others. Rows without cases in
            a fold of the baseline are left out.
        metric: which metric.
        factor: the baseline is multiplied by it first: with 1.25, a
            difference above zero says "at least a quarter more".
        level: coverage of the intervals.

    Returns:
        Index: row; ``difference`` (row minus ``factor`` times baseline,
        mean over cases), ``low, high`` (users resampled; NaN for one user),
        ``users`` (cases), ``folds``, ``p`` (paired t), ``p_holm`` (over the
        rows returned).

    Raises:
        DataError: two rows were not tested on the same cases.
    """
    columns = ["difference", "low", "high", "users", "folds", "p", "p_holm"]
    keys = ["fold", "user", "target"]
    by_row = {
        row: part.set_index(keys).sort_index()
        for row, part in cases.groupby("row")
    }
    lines = {}
    wanted = [row for row in by_row if row != baseline]
    for row in wanted if rows is None else rows:
        if row not in by_row or baseline not in by_row:
            continue
        pair = _common_folds(by_row[row], by_row[baseline], row, baseline)
        if pair is None or len(pair[0]) < 2:
            continue
        mine, theirs = pair[0][metric], factor * pair[1][metric]
        found = stats.bootstrap_interval(
            mine - theirs,
            level=level,
            generator=torch.Generator().manual_seed(0),
            groups=mine.index.get_level_values("user"),
        )
        folds = mine.index.get_level_values("fold").nunique()
        p = stats.paired_t(mine, theirs).p
        lines[row] = (*found, len(mine), folds, p)
    table = pd.DataFrame.from_dict(
        lines, orient="index", columns=columns[:-1]
    ).rename_axis("row")
    table["p_holm"] = stats.holm(table["p"]) if lines else []
    return table


def against_chance(
    cases: pd.DataFrame,
    chance: float,
    *,
    metric: str = "H@10",
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Which rows hit more, or less, often than drawing lots?

    Args:
        cases: ``case_frame`` of one table, data set,
            profile and task.
        chance: probability of a hit by lot, e.g. 10 / C.
        metric: a hit ratio, "H@1", "H@5" or "H@10".
        alpha: chance that any of the m rows leaves its interval although
            none of them knows anything (Bonferroni: alpha / m each).

    Returns:
        Index: row; ``hits, n, value, low, high`` (between which the hit
        ratio of a lot lies), ``p`` (two-sided, exact), ``p_holm``,
        ``inside``.
    """
    sums = cases.groupby("row", sort=False)[metric].agg(["sum", "size"])
    table = pd.DataFrame(
        {
            "hits": sums["sum"].round().astype(int),
            "n": sums["size"].astype(int),
        }
    )
    table["value"] = table["hits"] / table["n"]
    level = 1 - alpha / max(1, len(table))
    bounds = [stats.lot_interval(n, chance, level=level) for n in table["n"]]
    table["low"] = [one.low for one in bounds]
    table["high"] = [one.high for one in bounds]
    table["p"] = [
        stats.lot_p(hits, n, chance)
        for hits, n in zip(table["hits"], table["n"], strict=True)
    ]
    table["p_holm"] = stats.holm(table["p"])
    table["inside"] = table["value"].between(table["low"], table["high"])
    return table


def rank_agreement(values: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau-b between the orders that protocols give the models.

    Args:
        values: rows are models, columns protocols; NaN where not measured.
            Ties count as ties.

    Returns:
        Square frame over the columns; NaN where fewer than two models are
        common.
    """
    return values.astype(float).corr(method="kendall", min_periods=2)


def swapped_pairs(
    values: pd.DataFrame, one: str, two: str
) -> list[tuple[str, str]]:
    """Pairs (a, b) with a above b under ``one`` and below it under ``two``.

    Args:
        values: rows are models, columns protocols; models that one of the
            two lacks are left out, and ties are no order.
        one: a column.
        two: another column.
    """
    first, second = values[one].dropna(), values[two].dropna()
    common = [name for name in first.index if name in second.index]
    return [
        (str(a), str(b))
        for a in common
        for b in common
        if first[a] > first[b] and second[a] < second[b]
    ]


def difference_lines(
    differences: pd.DataFrame, names: Mapping[str, str] | None = None
) -> list[str]:
    """Paired differences as items of a Markdown list, in points.

    Args:
        differences: of :func:`paired_differences`.
        names: row -> how to call it; default the row itself.
    """
    names = names or {}
    return [
        f"- {names.get(row, row)}: {100 * one['difference']:+.1f} points "
        f"[{100 * one['low']:.1f}, {100 * one['high']:.1f}], "
        f"Holm p = {one['p_holm']:.2g}, {one['users']:.0f} users"
        for row, one in differences.iterrows()
    ]
