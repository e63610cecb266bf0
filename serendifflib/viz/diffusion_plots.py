"""Pictures of noise, of the network and of the way back.

All functions take arrays that were computed elsewhere and return a figure.
Shapes: d vector width, L portrait side, T steps. On every grid expectedness
runs to the right and relevance upwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.portrait.picture import INK, PALETTE, ZONE

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
    """Draw a grid of cells on ``ax``.

    Args:
        ax: where to draw.
        values: [L, L] or colours [L, L, 3], rows = relevance.
        title: above the grid.
        top: value of the darkest colour; None takes the largest.
        cells: (expectedness, relevance) of cells to outline -> colour.
        **options: further arguments of ``imshow``.
    """
    if values.ndim == 2:
        options = {"cmap": ZONE, "vmin": 0.0, "vmax": top} | options
    ax.imshow(values, origin="lower", interpolation="nearest", **options)
    for (column, row), colour in (cells or {}).items():
        ax.add_patch(
            plt.Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, ec=colour, lw=2
            )
        )
    side = len(values)
    if side <= 25:
        ax.set_xticks(np.arange(side + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(side + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=0.5)
    ax.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    ax.set_title(title, fontsize=10)


def plot_noised(
    states: Sequence[torch.Tensor],
    titles: Sequence[str],
) -> Figure:
    """A row of portraits, twice: as a picture and as vector lengths.

    Args:
        states: K portraits [d, L, L].
        titles: K short titles.
    """
    width = 1.7 * len(states) + 0.6
    fig, axes = plt.subplots(
        2,
        len(states),
        figsize=(width, 3.7),
        layout="constrained",
        squeeze=False,
    )
    for column, (state, title) in enumerate(zip(states, titles, strict=True)):
        show_cells(axes[0, column], as_picture(state), title=title)
        show_cells(axes[1, column], lengths(state), top=1.3)
    fig.get_layout_engine().set(wspace=0.12)
    axes[0, 0].set_ylabel("three channels", fontsize=9)
    axes[1, 0].set_ylabel("vector length", fontsize=9)
    for row in axes:
        for left, right in itertools.pairwise(row):
            join(left, right)
    return fig


def join(first: Axes, second: Axes, *, down: bool = False) -> None:
    """An arrow from one panel to the next one on the right, or below."""
    start, end = (1.02, 0.5), (-0.02, 0.5)
    if down:
        start, end = (0.5, -0.03), (0.5, 1.03)
    patch = ConnectionPatch(
        xyA=start,
        xyB=end,
        coordsA=first.transAxes,
        coordsB=second.transAxes,
        arrowstyle="->",
        color=INK,
        lw=1.0,
        mutation_scale=9,
    )
    first.figure.add_artist(patch)


def plot_state(
    state: torch.Tensor,
    title: str,
    *,
    estimate: torch.Tensor | None = None,
    cells: Mapping[tuple[int, int], str] | None = None,
) -> Figure:
    """One portrait as colours and as lengths: a frame of a slider.

    Args:
        state: [d, L, L].
        title: above all panels.
        estimate: what a network makes of it, [d, L, L]; a third panel with
            colours of its own.
        cells: cells to outline, see :func:`show_cells`.
    """
    count = 2 if estimate is None else 3
    fig, axes = plt.subplots(
        1, count, figsize=(2.7 * count, 3.5), layout="constrained"
    )
    show_cells(axes[0], as_picture(state), title="three channels", cells=cells)
    show_cells(
        axes[1], lengths(state), top=1.3, title="vector length", cells=cells
    )
    if estimate is not None:
        show_cells(
            axes[2], lengths(estimate), title="estimate of $x_0$", cells=cells
        )
    for ax in axes:
        ax.set_xlabel("expectedness →")
    axes[0].set_ylabel("relevance →")
    fig.suptitle(title)
    return fig


def plot_schedules(schedules: Mapping[str, DDPMSchedule]) -> Figure:
    """alpha-bar of several schedules along the relative step t / T."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for number, (name, schedule) in enumerate(schedules.items()):
        bar = schedule.alpha_bar.numpy()
        place = np.arange(1, len(bar) + 1) / len(bar)
        options = _style(number, name)
        options["marker"] = "o" if len(bar) <= 20 else ""
        axes[0].plot(place, bar, **options)
        axes[1].semilogy(place, bar / (1.0 - bar), **options)
    axes[0].set(ylabel=r"$\bar\alpha_t$", ylim=(0, 1.03))
    axes[1].set(ylabel=r"signal to noise, $\bar\alpha_t/(1-\bar\alpha_t)$")
    axes[1].axhline(1.0, color=INK, lw=0.8)
    for ax in axes:
        ax.set(xlabel="step $t / T$", xlim=(0, 1))
    axes[1].set_ylim(1e-6, None)
    fig.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(schedules),
        frameon=False,
        fontsize=9,
    )
    return fig


def plot_curves(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    ax: Axes | None = None,
    **labels,
) -> Axes:
    """Lines in the house colours, told apart by dashes as well.

    Args:
        x: places, [K].
        curves: name -> values [K].
        ax: where to draw; None makes a figure.
        **labels: arguments of ``ax.set``.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for number, (name, values) in enumerate(curves.items()):
        ax.plot(x, values, **_style(number, name))
    ax.set(**labels)
    ax.legend(frameon=False, fontsize=9)
    return ax


def _style(number: int, name: str) -> dict[str, Any]:
    """How line ``number`` of a plot looks."""
    return {
        "label": name,
        "color": PALETTE[number % len(PALETTE)],
        "ls": ("-", "--", "-.", ":")[number % 4],
        "lw": 2,
    }


def plot_unet(
    stages: Sequence[tuple[str, int, int]], *, bottleneck: int
) -> Figure:
    """The U of a U-Net: one box per stage, as high as its side is long.

    Args:
        stages: name, channels and side of each stage in the order of the
            computation; the way up mirrors the way down.
        bottleneck: how many stages in the middle have no partner.
    """
    fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    depth = (len(stages) - bottleneck) // 2
    largest = max(side for _, _, side in stages)
    tops = []
    for number, (name, channels, side) in enumerate(stages):
        level = min(number, len(stages) - 1 - number, depth)
        height = side / largest
        bottom = -0.45 * level - height
        wide = 0.12 + 0.05 * np.log2(channels)
        middle = number < depth, number >= len(stages) - depth
        colour = PALETTE[0] if middle[0] else PALETTE[1]
        if not any(middle):
            colour = PALETTE[2]
        ax.add_patch(
            plt.Rectangle(
                (number - wide / 2, bottom), wide, height, fc=colour, ec="none"
            )
        )
        ax.text(
            number,
            bottom - 0.06,
            f"{name}\n{channels} × {side} × {side}",
            ha="center",
            va="top",
            fontsize=9,
        )
        tops.append((number, bottom + height, wide))
    for level in range(depth):
        left, right = tops[level], tops[-1 - level]
        ax.annotate(
            "",
            xy=(right[0] - right[2] / 2 - 0.05, right[1] - 0.08),
            xytext=(left[0] + left[2] / 2 + 0.05, left[1] - 0.08),
            arrowprops={"arrowstyle": "->", "ls": "--", "color": INK},
        )
        ax.text(
            (left[0] + right[0]) / 2,
            left[1] - 0.05,
            "skip",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    ax.set(xlim=(-0.7, len(stages) - 0.3), ylim=(-2.15, 0.1))
    ax.axis("off")
    return fig


def plot_maps(
    maps: Mapping[str, np.ndarray],
    *,
    top: float | None = None,
    cells: Mapping[tuple[int, int], str] | None = None,
    label: str = "",
    **options,
) -> Figure:
    """Grids of numbers beside each other with one scale of colours.

    Args:
        maps: title -> [L, L], first axis expectedness, second relevance.
        top: value of the darkest colour; None takes the largest of all.
        cells: cells to outline, see :func:`show_cells`.
        label: of the colour bar.
        **options: further arguments of ``imshow``.
    """
    if top is None and "norm" not in options:
        top = max(float(np.max(values)) for values in maps.values())
    fig, axes = plt.subplots(
        1,
        len(maps),
        figsize=(2.7 * len(maps) + 0.9, 3.1),
        layout="constrained",
        squeeze=False,
    )
    if "norm" in options:
        options |= {"vmin": None, "vmax": None}
    for ax, (title, values) in zip(axes[0], maps.items(), strict=True):
        show_cells(
            ax,
            np.asarray(values).T,
            title=title,
            top=top,
            cells=cells,
            **options,
        )
        ax.set_xlabel("expectedness →")
    axes[0, 0].set_ylabel("relevance →")
    fig.colorbar(axes[0, -1].images[0], ax=axes[0], label=label, shrink=0.85)
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

    To the left the portrait that conditions the network; above the noisy
    states; below each the network's estimate of x_0 from it.

    Args:
        portrait: [d, L, L].
        states: K noisy grids [d, L, L], at variance 1 per coordinate.
        estimates: K estimates of x_0, [d, L, L]; each has its own colours.
        titles: of the states.
        cells: cells to outline, see :func:`show_cells`.
        items: positions of matched items, [k, 2]; adds a panel with the
            last estimate and the items.
    """
    count = len(states)
    top = ["portrait", *(f"state {k}" for k in range(count))]
    low = ["portrait", *(f"guess {k}" for k in range(count))]
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
        join(state, guess, down=True)
        if k:
            join(axes[f"state {k - 1}"], state)
    axes["state 0"].set_ylabel("state", fontsize=9)
    axes["guess 0"].set_ylabel("estimate of $x_0$", fontsize=9)
    if items is not None:
        side = states[0].shape[-1]
        show_cells(axes["items"], lengths(estimates[-1]), title="matches")
        places = np.asarray(items) * side - 0.5
        axes["items"].plot(*places.T, "o", color=INK, ms=4, mec="white")
    return fig
