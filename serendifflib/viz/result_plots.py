"""Plots of results: dots with intervals, curves over a size, bump charts.

They take frames of :mod:`serendifflib.evaluation.tables` (``label, value,
low, high``) and draw an empty frame as a sentence, so that a page without
records is still a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    NullLocator,
    PercentFormatter,
)

from serendifflib.portrait.picture import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    new_figure,
    note,
    one_legend,
)

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
NOTHING = "no runs recorded yet"


def plot_dots(
    series: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    order: Sequence[str] | None = None,
    reference: float | None = None,
    bands: pd.DataFrame | None = None,
    percent: bool = True,
    empty: str = NOTHING,
) -> Figure:
    """One line per row, one dot with its interval per series.

    Args:
        series: name -> frame with ``label, value, low, high``; NaN bounds
            draw no interval.
        xlabel: of the values.
        order: labels from top to bottom; None takes them as they come.
        reference: a value to mark by a dashed line, e.g. chance.
        bands: frame with ``label, low, high`` to shade.
        percent: values are shares.
        empty: what to write when there is nothing to draw.
    """
    drawn = {n: f for n, f in series.items() if len(f)}
    if not drawn:
        return _empty(empty)
    found = dict.fromkeys(pd.concat(drawn)["label"])
    labels = [name for name in order or found if name in found]
    height = 0.9 + (0.22 + 0.07 * (len(drawn) - 1)) * len(labels)
    figure, ((ax,),) = new_figure(7.2, max(2.2, height))
    place = {label: number for number, label in enumerate(labels)}
    for band in () if bands is None else bands.itertuples():
        if band.label in place:
            spot = (band.low, place[band.label] - 0.4)
            size = (band.high - band.low, 0.8)
            ax.add_patch(Rectangle(spot, *size, fc=GRID, lw=0, zorder=0))
    shifts = np.linspace(-0.25, 0.25, len(drawn)) if len(drawn) > 1 else [0.0]
    for (name, frame), shift, colour, marker in zip(
        drawn.items(), shifts, cycle(PALETTE), cycle(MARKERS), strict=False
    ):
        shown = frame[frame["label"].isin(labels)]
        y = shown["label"].map(place).to_numpy() + shift
        bounds = shown[["low", "high"]].astype(float).T.to_numpy()
        known = np.isfinite(bounds).all(axis=0)
        ax.hlines(y[known], *bounds[:, known], color=colour, lw=1.6)
        style = {"color": colour, "ms": 5.5, "mec": "white"}
        ax.plot(shown["value"], y, marker, label=name, **style)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    if reference is not None:
        ax.axvline(reference, color=INK, lw=1, ls="--", zorder=1)
    ax.set_xlabel(xlabel)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    if len(drawn) > 1:
        one_legend(figure, ax, "lower", min(len(drawn), 4))
    return figure


def plot_sizes(
    series: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    marks: Mapping[str, float] | None = None,
    percent: bool = False,
    log_y: bool = False,
) -> Figure:
    """Curves with intervals over a size on a logarithmic axis.

    ``series`` are frames by name, with ``x, value`` and perhaps ``low, high``;
    ``levels`` (name -> value) are dashed lines across, e.g. the oracle,
    ``marks`` (name -> size) dotted lines upwards; ``percent`` means shares.
    """
    drawn = {name: f.sort_values("x") for name, f in series.items() if len(f)}
    if not drawn:
        return _empty(NOTHING)
    figure, ((ax,),) = new_figure(7.2, 4.0)
    # more bands than three cover each other: bars side by side instead
    bars = len(drawn) > 3
    shifts = np.linspace(-0.02, 0.02, len(drawn)) if bars else [0.0] * 3
    for number, (name, frame) in enumerate(drawn.items()):
        frame = frame.assign(x=frame["x"].astype(float) * (1 + shifts[number]))
        _curve(ax, frame, number, name, bars or len(frame) == 1)
    sizes = sorted({float(x) for f in drawn.values() for x in f["x"]})
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    if log_y:
        ax.set_yscale("log")
    for name, value in (levels or {}).items():
        ax.axhline(value, color=INK, lw=1, ls="--")
        style = {"xycoords": ax.get_yaxis_transform(), "ha": "right"}
        note(ax, name, (1, value), (-3, 3), fontsize=8, **style)
    for name, size in (marks or {}).items():
        ax.axvline(size, color=MUTED, lw=1, ls=":")
        style = {"xycoords": ax.get_xaxis_transform(), "fontsize": 8}
        note(ax, name, (size, 0.02), (3, 3), **style)
    if not log_y:
        ax.set_ylim(bottom=0)  # after the levels, which count for the top
    if len(sizes) <= 8:  # the sizes that were tried, nothing between
        ax.xaxis.set_major_locator(FixedLocator(sizes))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if len(drawn) > 1:
        one_legend(figure, ax, "lower", min(len(drawn), 4))
    return figure


def _curve(
    ax: Axes, frame: pd.DataFrame, number: int, name: str, bars: bool
) -> None:
    """One series with its intervals, as bars or as a band."""
    colour = PALETTE[number % len(PALETTE)]
    style = {"color": colour, "marker": MARKERS[number % len(MARKERS)]}
    # a colour that comes again comes with dashes
    style["ls"] = "-" if number < len(PALETTE) else "--"
    ax.plot(frame["x"], frame["value"], ms=5, lw=1.6, label=name, **style)
    if "low" not in frame:
        return
    bounds = [frame[n].astype(float) for n in ("low", "high")]
    if bars:
        ax.vlines(frame["x"], *bounds, color=colour, lw=1.2)
    else:
        ax.fill_between(frame["x"], *bounds, color=colour, alpha=0.12, lw=0)


def plot_bump(values: pd.DataFrame) -> Figure:
    """Places of the models under several protocols, joined by lines.

    Rows of ``values`` are models, columns protocols; higher is better. Models
    that a protocol lacks are left out.
    """
    whole = values.dropna()
    if whole.empty:
        return _empty(NOTHING)
    places = whole.rank(ascending=False, method="first").astype(int)
    figure, ((ax,),) = new_figure(7.2, 1.0 + 0.33 * len(places))
    columns = range(places.shape[1])
    for (name, row), colour, marker in zip(
        places.iterrows(), cycle(PALETTE), cycle(MARKERS), strict=False
    ):
        ax.plot(columns, row, marker=marker, color=colour, lw=2, ms=7)
        words = {"va": "center", "color": colour, "fontsize": 9}
        for end, shift, side in ((0, -9, "right"), (-1, 9, "left")):
            spot = (columns[end], row.iloc[end])
            note(ax, str(name), spot, (shift, 0), ha=side, **words)
    ax.set(
        xticks=columns,
        xticklabels=whole.columns,
        xlim=(-1.1, places.shape[1] + 0.1),
        ylim=(len(places) + 0.5, 0.5),
        yticks=range(1, len(places) + 1),
        ylabel="place",
    )
    ax.tick_params(length=0)
    return figure


def _empty(text: str) -> Figure:
    figure, ((ax,),) = new_figure(6.4, 1.2)
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    return figure
