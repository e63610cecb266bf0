"""A portrait as a picture (Figures 2 and 5), and the look of all plots.

One palette, safe for colour blindness, as on the book's pages. Figures carry
a light background of their own, for dark pages; shape tells apart what
colour tells apart.
"""

from __future__ import annotations

import functools
from typing import Any

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Annotation

INK = "#222222"
MUTED = "#5f6b7a"
GRID = "#dfe3e8"
HISTORY = "#b36a00"  # what the user already knows
POINT = "#b3257a"  # what is serendipitous, or generated
EXPECTED = "#1f6fb2"  # the axis of expectedness
RELEVANT = "#0b7d5b"  # the axis of relevance
ANCHOR = RELEVANT
PALETTE = (EXPECTED, HISTORY, RELEVANT, POINT, MUTED, "#56b4e9")
ZONE = LinearSegmentedColormap.from_list("zone", ["#ffffff", "#e39ac4"])
SHADE = LinearSegmentedColormap.from_list("shade", ["#ffffff", "#9cc3e6"])
DPI = 144  # sharp on a dense screen; pages scale pictures down
WRITINGS = (  # fonts for what the default one lacks, where installed
    "Noto Sans CJK JP,Noto Sans CJK SC,Source Han Sans,WenQuanYi Zen Hei,"
    "Hiragino Sans,PingFang SC,Yu Gothic,Microsoft YaHei,Malgun Gothic,"
    "Noto Sans,Noto Emoji,Arial Unicode MS"
).split(",")
HALO = [effects.withStroke(linewidth=2.5, foreground="white")]


def new_figure(
    width: float = 6.4, height: float = 3.6, rows: int = 1, columns: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure in house style and its axes, [rows, columns].

    ``width`` and ``height`` are in inches; a page is about 7.2 wide.
    """
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        dpi=DPI,
        layout="constrained",
        squeeze=False,
        facecolor="white",
    )
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def one_legend(
    figure: Figure, ax: Axes, where: str = "upper", columns: int = 5
) -> None:
    """The legend of ``ax``, once, above (or below) all axes of the figure."""
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc=f"outside {where} center",
        ncols=columns,
        frameon=False,
        handletextpad=0.3,
        columnspacing=1.4,
    )


def draw_plane(
    positions: np.ndarray,
    side: int,
    *,
    reach: float | None = None,
    zone: np.ndarray | None = None,
    numbers: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """A history on the plane of expectedness and relevance.

    Positions are [n, 2] in [0, 1], the first at the anchor (1, 1), from which
    ``reach`` is drawn as an arc; ``zone`` [L, L] shades the cells. Borders are
    drawn up to 25 cells per axis; ``numbers`` are places in the history.
    """
    if ax is None:
        ax = new_figure(5.0, 4.8)[1][0, 0]
    if zone is not None:
        ax.imshow(
            np.asarray(zone).T,
            origin="lower",
            extent=(0, 1, 0, 1),
            cmap=ZONE,
            zorder=0,
        )
    if side <= 25:
        ticks = np.linspace(0, 1, side + 1)
        ax.vlines(ticks, 0, 1, color=GRID, lw=0.7, zorder=1)
        ax.hlines(ticks, 0, 1, color=GRID, lw=0.7, zorder=1)
    if reach is not None:
        circle = Circle((1, 1), reach, fill=False, ec=HISTORY, ls=(0, (4, 3)))
        circle.set(lw=1.2, zorder=2)
        plane = Rectangle((0, 0), 1, 1, transform=ax.transData)
        ax.add_patch(circle).set_clip_path(plane)
    x, y = np.asarray(positions, dtype=float).reshape(-1, 2).T
    marker: dict[str, Any] = {
        "mec": "white",
        "mew": 0.8,
        "clip_on": False,
        "zorder": 3,
    }
    if len(x) > 1:  # nothing, drawn unclipped, would spoil the layout
        ax.plot(x[1:], y[1:], "o", color=HISTORY, ms=7, **marker)
    ax.plot(x[:1], y[:1], "s", color=ANCHOR, ms=9, **marker)
    for place, spot in enumerate(zip(x, y, strict=True), start=1):
        if numbers:
            number = note(ax, str(place), spot, (5, 4), fontsize=8)
            number.set_in_layout(False)  # or frames of a slider would jump
    ax.set(
        xlim=(-0.02, 1.1 if numbers else 1.04),  # room for two digits
        ylim=(-0.02, 1.04),
        xlabel="expectedness (quantile)",
        ylabel="relevance (quantile)",
        aspect="equal",
    )
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def note(
    ax: Axes,
    text: str,
    spot: tuple[float, float],
    offset: tuple[float, float] = (0, 0),
    **style: Any,
) -> Annotation:
    """Words on a plot with a white rim, ``offset`` points from ``spot``."""
    options: dict[str, Any] = {
        "xytext": offset,
        "textcoords": "offset points",
        "color": INK,
        "path_effects": HALO,
        "zorder": 4,
    }
    return ax.annotate(text, spot, **(options | style))


def mark_item(
    ax: Axes, point: np.ndarray, centre: np.ndarray, label: str | None
) -> None:
    """An item at ``point`` [2], an arrow from ``centre`` [2], its title."""
    ax.annotate(
        "",
        xy=tuple(point),
        xytext=tuple(centre),
        arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.2},
    )
    ax.plot(*point, "D", color=POINT, ms=9, mec="white", mew=0.8)
    write_title(ax, label or "")


def write_title(ax: Axes, text: str, **options) -> None:
    """Words of the data above a plot; there is no formula in them."""
    ax.set_title(
        drawable(text), parse_math=False, fontfamily=list(_fonts()), **options
    )


def drawable(*texts: str) -> str:
    """The first text whose letters some installed font has.

    If none has: the last one, with the numbers of such letters.
    """
    letters = frozenset().union(*map(_letters, _fonts()))
    for text in map(_plain, texts):
        if {ord(c) for c in text if c != "\n"} <= letters:
            return text
    return text.encode("ascii", "backslashreplace").decode()[:60]


def _plain(text: str) -> str:
    """Nothing that a picture's file could not hold."""
    return "".join(
        c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd"
        for c in text
    )


def _fonts() -> tuple[str, ...]:
    """The default font, and installed ones for other writings."""
    known = {font.name for font in fontManager.ttflist}
    default = FontProperties().get_name()
    return (default, *(name for name in WRITINGS if name in known))


@functools.cache
def _letters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(findfont(font)).get_charmap())
