"""Plots: they know results, results know no plots.

One palette, safe for colour blindness (Okabe & Ito), readable on light and
dark pages: figures carry their own light background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

if TYPE_CHECKING:
    from serendifflib.explain import UserPortrait

INK = "#222222"
HISTORY = "#0072b2"
POINT = "#d55e00"
ANCHOR = "#009e73"
PALETTE = (HISTORY, POINT, ANCHOR, "#cc79a7", "#e69f00", "#56b4e9")
ZONE = LinearSegmentedColormap.from_list("zone", ["#ffffff", "#f0b48a"])


def plot_portrait(
    portrait: UserPortrait,
    *,
    ax: Axes | None = None,
    zone: np.ndarray | None = None,
    point: np.ndarray | None = None,
    label: str | None = None,
) -> Axes:
    """A portrait as in Figure 2 and 5 of the paper.

    Args:
        portrait: the user's portrait.
        ax: where to draw; None makes a figure.
        zone: length of the generated vector per cell, [L, L]; shaded.
        point: position of an item to mark, [2].
        label: its title.

    Returns:
        the axes; expectedness runs right, relevance runs up.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 5.0), layout="constrained")
    side = portrait.side
    if zone is not None:
        ax.imshow(
            np.asarray(zone).T,
            origin="lower",
            extent=(0, 1, 0, 1),
            cmap=ZONE,
            aspect="equal",
        )
    ticks = np.linspace(0, 1, side + 1)
    if side <= 25:
        ax.set_xticks(ticks, minor=True)
        ax.set_yticks(ticks, minor=True)
        ax.grid(which="minor", color="#dddddd", linewidth=0.6)
    x, y = portrait.positions.T
    ax.plot(x[1:], y[1:], "o", color=HISTORY, ms=6, mec="white", mew=0.8)
    ax.plot(x[:1], y[:1], "s", color=ANCHOR, ms=8, mec="white", mew=0.8)
    reach = plt.Circle(
        (1, 1), portrait.reach, fill=False, color=HISTORY, ls="--", lw=1.2
    )
    ax.add_patch(reach)
    if point is not None:
        cx, cy = portrait.centre
        ax.annotate(
            "",
            xy=tuple(point),
            xytext=(cx, cy),
            arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.2},
        )
        ax.plot(*point, "D", color=POINT, ms=9, mec="white", mew=0.8)
        ax.set_title(str(label or ""), parse_math=False)
    ax.set(
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        xlabel="expectedness (quantile)",
        ylabel="relevance (quantile)",
        aspect="equal",
    )
    return ax


def plot_losses(
    losses: Sequence[float], *, ax: Axes | None = None, window: int = 25
) -> Axes:
    """Training loss: every step faintly, its running mean strongly."""
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    values = np.asarray(losses, dtype=float)
    steps = np.arange(1, len(values) + 1)
    ax.plot(steps, values, color=HISTORY, alpha=0.25, lw=0.8)
    width = min(window, len(values))
    if width:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        ax.plot(steps[width - 1 :], smooth, color=HISTORY, lw=2)
    ax.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    return ax
