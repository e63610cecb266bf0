"""Tables for a page: dots with intervals, and columns that sort.

Plain HTML with the numbers in the cells, to be read aloud, copied and
searched; the book's style sheet draws the dots, its script makes columns
sort.
"""

from __future__ import annotations

import html
import math

import pandas as pd

from serendifflib.evaluation.tables import boxed


def dot_table(
    frame: pd.DataFrame, *, caption: str, reference: float | None = None
) -> str:
    """One line per row: its name, its kind, its value, a dot with interval.

    Args:
        frame: columns ``label, kind, value, low, high``, all shares in
            [0, 1]; rows in the order of the lines.
        caption: what it shows and where the numbers come from.
        reference: a share to mark in every line, e.g. chance.
    """
    top = max(float(frame["high"].max()), reference or 0.0, 1e-9)
    top = math.ceil(20 * top) / 20  # the axis ends at a multiple of 5%
    lines = [
        _line(row, top, reference) for row in frame.itertuples(index=False)
    ]
    head = "".join(
        f'<th scope="col"{kind}>{text}</th>'
        for text, kind in (
            ("Row", ""),
            ("Kind", ' class="dots-kind"'),
            ("H@10", ""),
            (f"0% to {top:.0%}", ""),
        )
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return boxed(caption, content)


def _line(row, top: float, reference: float | None) -> str:
    words = f"{row.value:.1%}, 95% interval {row.low:.1%} to {row.high:.1%}"
    at = {
        "dots-range": f"left:{row.low / top:.2%};"
        f"width:{(row.high - row.low) / top:.2%}",
        "dots-dot": f"left:{row.value / top:.2%}",
    }
    if reference is not None:
        at = {"dots-mark": f"left:{reference / top:.2%}", **at}
    marks = "".join(
        f'<span class="{kind}" style="{style}"></span>'
        for kind, style in at.items()
    )
    return (
        f'<tr><th scope="row">{html.escape(row.label)}</th>'
        f'<td class="dots-kind">{html.escape(row.kind)}</td>'
        f"<td>{row.value:.1%}</td>"
        f'<td class="dots-cell"><span class="dots" role="img" '
        f'aria-label="{words}" title="{words}">{marks}</span></td></tr>'
    )


def sortable_table(
    texts: pd.DataFrame, values: pd.DataFrame, *, caption: str
) -> str:
    """A table whose columns a reader can sort by a click or by Enter.

    Args:
        texts: what the cells say; the first column heads its row.
        values: what columns are sorted by, in the order of ``texts``; a
            column that is missing here is sorted by its text.
        caption: what it shows and where the numbers come from.
    """
    head = "".join(
        f'<th scope="col" data-sort="{"number" if c in values else "text"}">'
        f"{html.escape(str(c))}</th>"
        for c in texts
    )
    lines = []
    for place in range(len(texts)):
        cells = []
        for number, column in enumerate(texts):
            text = html.escape(str(texts.iloc[place, number]))
            data = ""
            if column in values:
                value = float(values[column].iloc[place])
                data = f' data-value="{value:.6g}"'
            if number:
                cells.append(f"<td{data}>{text}</td>")
            else:
                cells.append(f'<th scope="row"{data}>{text}</th>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return boxed(caption, content).replace("<table>", '<table class="sort">')
