"""Plots of data, people, item vectors and scores: before the model.

Letters: U users, N items, n history length, L side of the grid, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from serendifflib.data.splits import Split
from serendifflib.portrait.picture import (
    EXPECTED,
    GRID,
    HALO,
    HISTORY,
    INK,
    MUTED,
    PALETTE,
    POINT,
    RELEVANT,
    SHADE,
    draw_plane,
    new_figure,
    note,
    one_legend,
)

KINDS = {  # what a row of the simulated world is: marker, colour
    "niche theme": ("o", EXPECTED),
    "niche genre": ("s", "#56b4e9"),
    "second interest": ("^", RELEVANT),
    "anything": ("x", MUTED),
    "label": ("D", POINT),
}
PARTS = {"train": "#cfe0f0", "valid": HISTORY, "test": POINT}


def heat_map(ax: Axes, values: Any, **options: Any) -> None:
    """Seaborn's heat map in house style; ``options`` are its own."""
    style: dict[str, Any] = {"square": True, "cbar": False, "cmap": SHADE}
    if options.get("annot") is not None:
        style["annot_kws"] = {"color": INK, "fontsize": 9}
    sns.heatmap(values, ax=ax, **(style | options))
    ax.tick_params(length=0, labelrotation=0)


def plot_timelines(
    kinds: Sequence[Sequence[str]], names: Sequence[str]
) -> Figure:
    """One line per user, one mark per row, by what kind of row it is.

    ``kinds`` are those of each user's rows in time order, out of
    :data:`KINDS`; ``names`` stand beside the lines.
    """
    figure, ((ax,),) = new_figure(7.2, 0.8 + 0.42 * len(kinds))
    longest = max(len(row) for row in kinds)
    for line, row in enumerate(kinds):
        ax.hlines(line, 1, len(row), color=GRID, lw=1.5, zorder=1)
    for kind, (marker, colour) in KINDS.items():
        spots = [
            (place, line)
            for line, row in enumerate(kinds)
            for place, value in enumerate(row, start=1)
            if value == kind
        ]
        x, y = np.array(spots).reshape(-1, 2).T
        size = 11 if kind == "label" else 8
        style = {"color": colour, "ms": size, "mew": 2, "zorder": 2}
        ax.plot(x, y, marker, label=kind, **style)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="row of the history", xlim=(0.3, longest + 0.7))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(len(kinds) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(length=0)
    one_legend(figure, ax)
    return figure


def plot_law(
    radius: np.ndarray,
    scores: np.ndarray,
    is_bridge: np.ndarray,
    *,
    label: int,
    reach: float,
    stretch: float,
    ax: Axes | None = None,
) -> Axes:
    """What the law of the label says about every item for one user.

    ``radius`` is each item's distance from the user's taste, ``scores`` the
    log-probability of being the label, ``is_bridge`` bool, all [M]; ``label``
    is the drawn item's place. The summit lies ``stretch`` beyond ``reach``.
    """
    if ax is None:
        ax = new_figure(5.0, 4.0)[1][0, 0]
    for chosen, marker, colour, name in (
        (~is_bridge, "o", MUTED, "other genres"),
        (is_bridge, "^", HISTORY, "bridge genre"),
    ):
        style = {"color": colour, "s": 25, "linewidth": 0, "alpha": 0.6}
        x, y = radius[chosen], scores[chosen]
        sns.scatterplot(x=x, y=y, marker=marker, label=name, ax=ax, **style)
    drawn = {"color": POINT, "ms": 10, "mec": "white", "label": "the label"}
    ax.plot(radius[label], scores[label], "D", **drawn)
    words: dict[str, Any] = {"ha": "right", "path_effects": HALO}
    words["transform"] = ax.get_xaxis_transform()
    for place, name, colour, height in (
        (reach, "taste radius", MUTED, 0.02),
        (reach + stretch, "taste radius + stretch", POINT, 0.1),
    ):
        ax.axvline(place, color=colour, ls="--", lw=1.2, zorder=0)
        ax.text(place - 0.015, height, name, color=colour, **words)
    ax.set(xlabel="radius (1 − cosine to the taste)", xlim=(-0.02, 1.04))
    ax.set_ylabel("log-probability + constant")
    return ax


def plot_folds(folds: Sequence[Split]) -> Axes:
    """Which users train, tune and test in each fold."""
    figure, ((ax,),) = new_figure(7.2, 0.9 + 0.38 * len(folds))
    # users of one test fold side by side, else there is only salt and pepper
    order = np.concatenate([fold.test_users for fold in folds])
    parts = np.zeros((len(folds), len(order)))
    for row, fold in zip(parts, folds, strict=True):
        row[np.isin(order, fold.valid_users)] = 1
        row[np.isin(order, fold.test_users)] = 2
    names = [f"fold {n + 1}" for n in range(len(folds))]
    options = {"square": False, "cmap": list(PARTS.values())}
    heat_map(ax, parts, xticklabels=False, yticklabels=names, **options)
    ax.hlines(range(1, len(folds)), 0, len(order), color="white", lw=4)
    ax.set_xlabel("users, sorted by the fold that tests them")
    for part, colour in PARTS.items():
        ax.fill_between([], [], color=colour, label=part)
    one_legend(figure, ax)
    return ax


def plot_cells(
    counts: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    mark: tuple[int, int] | None = None,
    form: str = ".0f",
    rows: int = 1,
) -> Figure:
    """Numbers in the cells of one or more portrait grids.

    ``counts`` are grids [L, L], first axis expectedness, drawn to the right in
    so many ``rows``; ``mark`` is a cell to frame in all, ``form`` a number's.
    """
    columns = len(counts) // rows
    figure, axes = new_figure(3.6 * columns, 3.5 * rows, rows, columns)
    for ax, grid, title in zip(axes.flat, counts, titles, strict=True):
        grid, ticks = np.asarray(grid).T, range(1, len(grid) + 1)
        heat_map(
            ax,
            grid,
            annot=[[format(v, form) if v else "·" for v in r] for r in grid],
            fmt="",
            annot_kws={"color": INK, "fontsize": 7},
            norm=PowerNorm(0.5, 0, np.max(grid)),  # small shares show too
            xticklabels=ticks,
            yticklabels=ticks,
        )
        for word in ax.texts:
            if word.get_text() == "·":
                word.set_color(POINT)
        ax.invert_yaxis()
        if mark is not None:
            _frame_cell(ax, mark)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="expectedness (cell)", ylabel="relevance (cell)")
        ax.tick_params(labelsize=7)
    return figure


def _frame_cell(ax: Axes, cell: tuple[int, int]) -> None:
    """A frame around a cell (column, row) of a heat map."""
    style = {"fill": False, "color": POINT, "lw": 2, "clip_on": False}
    ax.add_patch(Rectangle(cell, 1, 1, **style))


def plot_matrix(
    values: np.ndarray,
    labels: Sequence[str],
    *,
    form: str = ".2f",
    frames: Sequence[tuple[int, int]] = (),
    hide: np.ndarray | None = None,
    title: str = "",
) -> Axes:
    """A small square matrix with its numbers written in.

    ``values`` are [n, n]: row m is the item that is seen, column h the item
    that is given. ``frames`` are cells to frame, ``hide`` bool [n, n] those
    that the text does not use: left grey.
    """
    n = len(values)
    _, ((ax,),) = new_figure(1.9 + 0.62 * n, 1.0 + 0.5 * n)
    shown = values if hide is None else np.where(hide, np.nan, values)
    ax.set_facecolor("#f1f3f5")
    low = min(0.0, np.nanmin(shown))
    columns = range(1, n + 1)
    names = {"xticklabels": columns, "yticklabels": labels}
    heat_map(ax, shown, annot=True, fmt=form, vmin=low, **names)
    for row, column in frames:
        _frame_cell(ax, (column, row))
    ax.set(title=title, xlabel="item of the history")
    return ax


def plot_histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    xlabel: str,
    bins: int = 40,
    mark_zero: bool = False,
) -> Figure:
    """Distributions, outlined, one panel beside the other.

    ``panels`` maps a title to named groups of values, the same in all panels;
    each panel has ``bins`` over its own range.
    """
    width = 6.2 if len(panels) == 1 else 7.2
    figure, axes = new_figure(width, 3.2, columns=len(panels))
    for ax, (title, groups) in zip(axes[0], panels.items(), strict=True):
        every = np.concatenate([np.asarray(v) for v in groups.values()])
        edges = np.linspace(every.min(), every.max(), bins + 1)
        for (name, values), colour in zip(
            groups.items(), PALETTE, strict=False
        ):
            style = {"stat": "density", "element": "step", "alpha": 0.25}
            sns.histplot(
                values, bins=edges, color=colour, label=name, ax=ax, **style
            )
        if mark_zero:
            ax.axvline(0, color=INK, lw=0.8, ls=":")
        ax.set_title(title, fontsize=10)
        ax.set(xlabel=xlabel, yticks=[])
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0, 0].set_ylabel("density")
    if len(groups) > 1:
        one_legend(figure, axes[0, 0])
    return figure


def plot_similarity(
    grids: Mapping[str, np.ndarray], labels: Sequence[str]
) -> Figure:
    """Mean cosines of G groups of items, [G, G], a square per treatment."""
    figure, axes = new_figure(7.4, 4.6, columns=len(grids))
    scale = {"cmap": "RdBu_r", "vmin": -0.6, "vmax": 0.6}
    for ax, (title, grid) in zip(axes[0], grids.items(), strict=True):
        names = labels if ax is axes[0, 0] else False
        heat_map(ax, grid, xticklabels=False, yticklabels=names, **scale)
        ax.set_title(title, fontsize=10)
        ax.tick_params(labelsize=7)
    figure.colorbar(
        axes[0, 0].collections[0],
        ax=axes[0],
        orientation="horizontal",
        label="mean cosine",
        shrink=0.5,
        aspect=40,
    )
    return figure


def plot_pipeline(steps: Sequence[tuple[str, str, str]]) -> Figure:
    """Boxes joined by arrows: name, what it is, where the book treats it."""
    figure, ((ax,),) = new_figure(7.4, 1.9)
    box = {"facecolor": "white", "edgecolor": EXPECTED, "lw": 2}
    arrow = {"arrowstyle": "->", "color": MUTED, "lw": 1.4}
    words = {"ha": "center", "va": "center", "color": INK}
    for place, (name, what, where) in enumerate(steps):
        ax.add_patch(Rectangle((place, 0), 0.8, 1, **box))
        middle = place + 0.4
        ax.text(middle, 0.78, name, fontsize=8.5, weight="bold", **words)
        ax.text(middle, 0.4, what, fontsize=7.5, **words)
        ax.text(middle, -0.16, where, fontsize=8, **(words | {"color": MUTED}))
        if place:
            start, end = (place - 0.2, 0.5), (place, 0.5)
            ax.annotate("", xy=end, xytext=start, arrowprops=arrow)
    ax.set(xlim=(-0.05, len(steps) - 0.15), ylim=(-0.3, 1.05))
    ax.axis("off")
    return figure


# ----------------------------------------------------- what people said


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
