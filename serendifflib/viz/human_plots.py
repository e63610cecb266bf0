"""Plots of what people said: shares with intervals, laws, one reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from serendifflib.portrait.picture import (
    GRID,
    HISTORY,
    INK,
    MUTED,
    PALETTE,
    POINT,
    draw_plane,
    new_figure,
    note,
)
from serendifflib.viz.data_plots import heat_map


def plot_shares(table: pd.DataFrame) -> Figure:
    """Share of surprised people by two answers: as a map and as lines.

    ``table`` is that of :func:`~serendifflib.experiments.premise.shares`.
    """
    figure, ((left, right),) = new_figure(7.2, 3.7, columns=2)
    values = table.pivot(
        index="relevance", columns="unexpectedness", values="value"
    )
    # up to 1.15: dark figures stay readable on the darkest cell
    scale = {"vmin": 0, "vmax": 1.15, "annot_kws": {"color": INK}}
    heat_map(left, values.iloc[::-1], annot=True, fmt=".0%", **scale)
    left.set_title("called a pleasant surprise", fontsize=10)
    levels = sorted(table["relevance"].unique(), reverse=True)
    colours = sns.color_palette("crest", len(levels))[::-1]
    for level, colour in zip(levels, colours, strict=True):
        rows = table[table["relevance"] == level]
        x = rows["unexpectedness"]
        band = {"color": colour, "alpha": 0.2, "lw": 0}
        right.fill_between(x, rows["low"], rows["high"], **band)
        sns.lineplot(x=x, y=rows["value"], marker="o", color=colour, ax=right)
        last = x.iloc[-1], rows["value"].iloc[-1]
        note(right, f" {level}", last, (4, 0), va="center")
    right.set_title("the same by relevance (at the right end)", fontsize=10)
    right.set(ylabel="", ylim=(0, 1), xlim=(0.8, 5.5), xlabel="unexpectedness")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.grid(axis="y", color=GRID, lw=0.6)
    return figure


def plot_laws(
    observed: np.ndarray, laws: Mapping[str, np.ndarray], sizes: np.ndarray
) -> Figure:
    """Shares under each law (title -> [5, 5]) against those observed, [5, 5].

    The area of a dot is the number of people in the cell, ``sizes`` [5, 5].
    """
    figure, (panels,) = new_figure(7.2, 2.9, columns=len(laws))
    for ax, (title, share) in zip(panels, laws.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
        sns.scatterplot(
            x=share.ravel(),
            y=observed.ravel(),
            size=sizes.ravel(),
            sizes=(20, 160),
            color=PALETTE[0],
            alpha=0.7,
            legend=False,
            ax=ax,
        )
        ax.set_title(title, fontsize=10)
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
        ax.set(xlabel="share under the law", ylabel="")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel("share observed")
    return figure


def plot_reader(
    familiar: Sequence[float], surprising: Sequence[int | None], *, ylabel: str
) -> Axes:
    """One reader's books in order, with what somebody said about each.

    ``familiar`` is a score per book, ``surprising`` 1, 0 or None (not judged).
    """
    ax = new_figure(7.2, 3.0)[1][0, 0]
    said = {None: "not judged", 0: "not surprising", 1: "surprising"}
    table = pd.DataFrame(
        {
            "book, in reading order": np.arange(1, len(familiar) + 1),
            ylabel: np.asarray(familiar, dtype=float),
            "judged": [said[value] for value in surprising],
        }
    ).iloc[1:]
    order = list(said.values())
    sns.scatterplot(
        table,
        x="book, in reading order",
        y=ylabel,
        hue="judged",
        style="judged",
        hue_order=order,
        style_order=order,
        palette=[MUTED, HISTORY, POINT],
        markers=["X", "o", "D"],
        s=45,
        ax=ax,
    )
    sns.move_legend(
        ax, "upper left", bbox_to_anchor=(1, 1), frameon=False, title=""
    )
    return ax


def plot_reader_plane(
    positions: np.ndarray, surprising: Sequence[int | None], side: int = 10
) -> Axes:
    """A reader's portrait, [n, 2]; books that surprised (1) are diamonds."""
    places = np.asarray(positions, dtype=float)
    ax = draw_plane(places, side)
    yes = np.array([value == 1 for value in surprising])
    ax.plot(*places[yes].T, "D", color=POINT, ms=9, mec="white", zorder=5)
    return ax
