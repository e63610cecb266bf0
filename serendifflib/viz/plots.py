"""The look of all plots, in one place for those who draw.

The names live in :mod:`serendifflib.portrait.picture`, because a portrait
draws itself and the core imports nothing from here.
"""

from matplotlib import pyplot as plt

from serendifflib.portrait.picture import (
    ANCHOR,
    CANDIDATE,
    DPI,
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
    ZONE,
    draw_plane,
    new_figure,
)

__all__ = [
    "ANCHOR",
    "CANDIDATE",
    "DPI",
    "EXPECTED",
    "GRID",
    "HALO",
    "HISTORY",
    "INK",
    "MUTED",
    "PALETTE",
    "POINT",
    "RELEVANT",
    "SHADE",
    "ZONE",
    "draw_plane",
    "new_figure",
    "plt",
]
