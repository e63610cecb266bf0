"""The paper's Tables 2 to 6, typed once in ``results/paper``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from serendifflib.errors import ConfigError
from serendifflib.io import project_root, read_json


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

        A value is a share for "%", seconds for "s"; a bound of NaN is none.
        ``as_printed`` keeps all decimals of the paper; ours get one for "%",
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
    """A table of the paper."""

    number: int
    title: str
    source: str
    columns: Mapping[str, Column]
    panels: tuple[Panel, ...]

    def panel(self, task: str | None = None, data: str | None = None) -> Panel:
        """The panel of a task and a data set; None means the first."""
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


def load_paper_table(number: int) -> PaperTable:
    """Read one of the paper's Tables 2 to 6 (1: ``data.table1``)."""
    path = project_root() / "results" / "paper" / f"table{number}.json"
    if number not in range(2, 7) or not path.is_file():
        raise ConfigError(f"no table {number} at {path}: choose 2 to 6")
    raw = read_json(path)
    columns = {name: Column(**spec) for name, spec in raw["columns"].items()}
    return PaperTable(
        number=raw["number"],
        title=raw["title"],
        source=raw["source"],
        columns=columns,
        panels=tuple(_panel(panel, columns) for panel in raw["panels"]),
    )


def _panel(raw: dict[str, Any], columns: Mapping[str, Column]) -> Panel:
    rows = [
        PaperRow(
            row=row["row"],
            label=row["label"],
            group=row.get("group", ""),
            # dividing by 100 is exact to the printed digits
            values={
                name: value / 100 if columns[name].unit == "%" else value
                for name, value in zip(columns, row["values"], strict=True)
            },
            marks=row.get("marks", {}),
        )
        for row in raw["rows"]
    ]
    return Panel(raw["task"], raw["data"], raw["title"], tuple(rows))


def row_key(row: str) -> str:
    """What rows are matched by: case, signs and "-style" do not count.

    >>> row_key("DESR-style") == row_key("desr")
    True
    """
    name = row.lower().removesuffix("-style")
    return "".join(sign for sign in name if sign.isalnum())
