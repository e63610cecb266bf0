"""Pictures of noise, of the network and of the way back.

Shapes: d vector width, L portrait side, T steps. On every grid expectedness
runs to the right and relevance upwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.portrait.picture import INK, PALETTE, ZONE, one_legend

CHANNELS = (0, 1, 2)  # shown as red, green, blue
SPREAD = 2.5  # a channel's value of +-SPREAD has full or no colour


def as_picture(grid: torch.Tensor) -> np.ndarray:
    """Three channels of a portrait [d, L, L] as red, green and blue.

    At the scale where a coordinate has variance 1; [L, L, 3] in [0, 1], rows
    = relevance; zero is mid grey.
    """
    chosen = grid[list(CHANNELS)].permute(2, 1, 0).double().numpy()
    return np.clip(0.5 + chosen / (2 * SPREAD), 0.0, 1.0)


def lengths(grid: torch.Tensor) -> np.ndarray:
    """Length of each cell's vector over sqrt(d), [L, L], rows = relevance."""
    size = grid.double().norm(dim=0) / len(grid) ** 0.5
    return size.T.numpy()


def show_cells(
    ax: Axes,
    values: np.ndarray,
    *,
    title: str = "",
    top: float | None = None,
    cells: Mapping[tuple[int, int], str] | None = None,
    **options,
) -> None:
    """Draw a grid of cells, or of colours [L, L, 3], rows = relevance.

    ``top`` is the value of the darkest colour, the largest if None; ``cells``
    maps (expectedness, relevance) of cells to the colour of their outline;
    ``options`` are those of ``imshow``.
    """
    if values.ndim == 2:
        options = {"cmap": ZONE, "vmin": 0.0, "vmax": top} | options
    ax.imshow(values, origin="lower", interpolation="nearest", **options)
    for (column, row), colour in (cells or {}).items():
        corner, style = (column - 0.5, row - 0.5), {"fill": False, "lw": 2}
        ax.add_patch(plt.Rectangle(corner, 1, 1, ec=colour, **style))
    if (side := len(values)) <= 25:
        borders = np.arange(side + 1) - 0.5
        ax.set_xticks(borders, minor=True)
        ax.set_yticks(borders, minor=True)
        ax.grid(which="minor", color="white", linewidth=0.5)
    ax.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    ax.set_title(title, fontsize=10)


def _panels(rows: int, columns: int, width: float, height: float):
    """A figure and its axes, [rows, columns]."""
    return plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
    )


def plot_noised(
    states: Sequence[torch.Tensor], titles: Sequence[str]
) -> Figure:
    """A row of K portraits [d, L, L], as pictures and as vector lengths."""
    fig, axes = _panels(2, len(states), 1.7 * len(states) + 0.6, 3.7)
    for column, (state, title) in enumerate(zip(states, titles, strict=True)):
        show_cells(axes[0, column], as_picture(state), title=title)
        show_cells(axes[1, column], lengths(state), top=1.3)
    fig.get_layout_engine().set(wspace=0.12)
    axes[0, 0].set_ylabel("three channels", fontsize=9)
    axes[1, 0].set_ylabel("vector length", fontsize=9)
    for row in axes:
        for left, right in pairwise(row):
            _join(left, right)
    return fig


def _join(first: Axes, second: Axes, *, down: bool = False) -> None:
    """An arrow from one panel to the next one on the right, or below."""
    start, end = (1.02, 0.5), (-0.02, 0.5)
    if down:
        start, end = (0.5, -0.03), (0.5, 1.03)
    places = (start, end, first.transAxes, second.transAxes)
    style = {"color": INK, "lw": 1.0, "mutation_scale": 9}
    arrow = ConnectionPatch(*places, arrowstyle="->", **style)
    first.figure.add_artist(arrow)


def plot_state(
    state: torch.Tensor,
    title: str,
    *,
    estimate: torch.Tensor | None = None,
    cells: Mapping[tuple[int, int], str] | None = None,
) -> Figure:
    """One portrait [d, L, L] as colours and as lengths: a frame of a slider.

    ``estimate``, what a network makes of it, gets a panel with colours of its
    own; for ``cells`` see :func:`show_cells`.
    """
    panels = [
        ("three channels", as_picture(state), None),
        ("vector length", lengths(state), 1.3),
    ]
    if estimate is not None:
        panels.append(("estimate of $x_0$", lengths(estimate), None))
    fig, (axes,) = _panels(1, len(panels), 2.7 * len(panels), 3.5)
    for ax, (name, values, top) in zip(axes, panels, strict=True):
        show_cells(ax, values, title=name, top=top, cells=cells)
        ax.set_xlabel("expectedness →")
    axes[0].set_ylabel("relevance →")
    fig.suptitle(title)
    return fig


def plot_schedules(schedules: Mapping[str, DDPMSchedule]) -> Figure:
    """alpha-bar of several schedules along the relative step t / T."""
    fig, ((left, right),) = _panels(1, 2, 8.4, 3.2)
    for number, (name, schedule) in enumerate(schedules.items()):
        bar = schedule.alpha_bar.numpy()
        place = np.arange(1, len(bar) + 1) / len(bar)
        options = _style(number, name)
        options["marker"] = "o" if len(bar) <= 20 else ""
        left.plot(place, bar, **options)
        right.semilogy(place, bar / (1.0 - bar), **options)
    left.set(ylabel=r"$\bar\alpha_t$", ylim=(0, 1.03))
    right.set(ylabel=r"signal to noise, $\bar\alpha_t/(1-\bar\alpha_t)$")
    right.axhline(1.0, color=INK, lw=0.8)
    for ax in (left, right):
        ax.set(xlabel="step $t / T$", xlim=(0, 1))
    right.set_ylim(1e-6, None)
    one_legend(fig, left)
    return fig


def plot_curves(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    ax: Axes | None = None,
    **labels,
) -> Axes:
    """Lines in the house colours, told apart by dashes as well.

    ``curves`` maps a name to values at ``x``, [K]; ``labels`` are arguments of
    ``ax.set``.
    """
    if ax is None:
        ax = _panels(1, 1, 6, 3.2)[1][0, 0]
    for number, (name, values) in enumerate(curves.items()):
        ax.plot(x, values, **_style(number, name))
    ax.set(**labels)
    ax.legend(frameon=False, fontsize=9)
    return ax


def _style(number: int, name: str) -> dict[str, Any]:
    """How line ``number`` of a plot looks."""
    colour = PALETTE[number % len(PALETTE)]
    dashes = ("-", "--", "-.", ":")[number % 4]
    return {"label": name, "color": colour, "ls": dashes, "lw": 2}


def plot_unet(
    stages: Sequence[tuple[str, int, int]], *, bottleneck: int
) -> Figure:
    """The U of a U-Net: one box per stage, as high as its side is long.

    ``stages`` are name, channels and side in the order of the computation, of
    which ``bottleneck`` in the middle have no partner on the way up.
    """
    fig, ((ax,),) = _panels(1, 1, 9, 4)
    last = len(stages) - 1
    depth = (len(stages) - bottleneck) // 2
    largest = max(side for _, _, side in stages)
    colours = [0] * depth + [2] * bottleneck + [1] * depth
    edges = []  # left, right and top of each box
    for number, (name, channels, side) in enumerate(stages):
        height, wide = side / largest, 0.12 + 0.05 * np.log2(channels)
        bottom = -0.45 * min(number, last - number, depth) - height
        corner, colour = (number - wide / 2, bottom), PALETTE[colours[number]]
        ax.add_patch(plt.Rectangle(corner, wide, height, fc=colour, ec="none"))
        said, place = f"{name}\n{channels} × {side} × {side}", bottom - 0.06
        ax.text(number, place, said, ha="center", va="top", fontsize=9)
        edges.append((corner[0], corner[0] + wide, bottom + height))
    arrow = {"arrowstyle": "->", "ls": "--", "color": INK}
    for level in range(depth):
        (_, start, left), (end, _, right) = edges[level], edges[-1 - level]
        spots = (end - 0.05, right - 0.08), (start + 0.05, left - 0.08)
        ax.annotate("", *spots, arrowprops=arrow)
        words = {"ha": "center", "va": "bottom", "fontsize": 8}
        ax.text(last / 2, left - 0.05, "skip", **words)
    ax.set(xlim=(-0.7, last + 0.7), ylim=(-2.15, 0.1))
    ax.axis("off")
    return fig


def plot_maps(
    maps: Mapping[str, np.ndarray],
    *,
    top: float | None = None,
    cells: Mapping[tuple[int, int], str] | None = None,
    label: str = "",
) -> Figure:
    """Grids of numbers beside each other with one scale of colours.

    ``maps`` has grids [L, L] by title, first axis expectedness; for ``top``
    (here of all grids) and ``cells`` see :func:`show_cells`.
    """
    if top is None:
        top = max(float(np.max(values)) for values in maps.values())
    fig, (axes,) = _panels(1, len(maps), 2.7 * len(maps) + 0.9, 3.1)
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        grid = np.asarray(values).T
        show_cells(ax, grid, title=title, top=top, cells=cells)
        ax.set_xlabel("expectedness →")
    axes[0].set_ylabel("relevance →")
    fig.colorbar(axes[-1].images[0], ax=axes, label=label, shrink=0.85)
    return fig


def plot_process(
    portrait: torch.Tensor,
    states: Sequence[torch.Tensor],
    estimates: Sequence[torch.Tensor],
    titles: Sequence[str],
    *,
    cells: Mapping[tuple[int, int], str] | None = None,
    items: np.ndarray | None = None,
) -> Figure:
    """The scheme of training (Figure 3) or of inference (Figure 4).

    To the left the ``portrait`` [d, L, L] that conditions the network; above K
    noisy ``states`` at variance 1; below each the network's estimate of x_0,
    in colours of its own. For ``cells`` see :func:`show_cells`; ``items``
    (positions of matched ones, [k, 2]) add a panel with the last estimate.
    """
    numbers = range(len(states))
    top = ["portrait", *(f"state {k}" for k in numbers)]
    low = ["portrait", *(f"guess {k}" for k in numbers)]
    if items is not None:
        top, low = [*top, "items"], [*low, "items"]
    fig, axes = plt.subplot_mosaic(
        [top, low], figsize=(1.65 * len(top) + 0.4, 3.9), layout="constrained"
    )
    fig.get_layout_engine().set(wspace=0.14, hspace=0.14)
    show_cells(
        axes["portrait"], lengths(portrait), title="portrait $M^u$", top=1.0
    )
    for k, title in enumerate(titles):
        state, guess = axes[f"state {k}"], axes[f"guess {k}"]
        show_cells(
            state, lengths(states[k]), title=title, top=1.3, cells=cells
        )
        show_cells(guess, lengths(estimates[k]), cells=cells)
        _join(state, guess, down=True)
        if k:
            _join(axes[f"state {k - 1}"], state)
    axes["state 0"].set_ylabel("state", fontsize=9)
    axes["guess 0"].set_ylabel("estimate of $x_0$", fontsize=9)
    if items is not None:
        side = states[0].shape[-1]
        show_cells(axes["items"], lengths(estimates[-1]), title="matches")
        places = np.asarray(items) * side - 0.5
        axes["items"].plot(*places.T, "o", color=INK, ms=4, mec="white")
    return fig
