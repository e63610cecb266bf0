"""Plots of results: what is drawn is what was given."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from serendifflib.viz import result_plots

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def frame(**values):
    return pd.DataFrame(
        {
            "label": list(values),
            "value": list(values.values()),
            "low": [v - 0.1 for v in values.values()],
            "high": [v + 0.1 for v in values.values()],
        }
    )


def line_named(ax, name):
    return next(line for line in ax.lines if line.get_label() == name)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_dots_stand_on_the_line_of_their_label():
    figure = result_plots.plot_dots(
        {"one": frame(a=0.2, b=0.4), "two": frame(b=0.5)},
        xlabel="H@10",
        order=["b", "a", "nowhere"],
        reference=0.01,
    )
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]
    x, y = line_named(ax, "one").get_data()
    assert list(x) == [0.2, 0.4] and np.round(y).tolist() == [1, 0]
    assert round(float(line_named(ax, "two").get_ydata()[0])) == 0
    spans = [c.get_segments() for c in ax.collections]
    assert spans[0][0][:, 0].tolist() == pytest.approx([0.1, 0.3])
    assert ax.lines[-1].get_xdata() == [0.01, 0.01]
    assert figure.legends


def test_a_dot_without_an_interval_has_none():
    alone = frame(a=0.2).assign(low=math.nan, high=math.nan)
    figure = result_plots.plot_dots({"one": alone}, xlabel="H@10")
    assert all(not c.get_segments() for c in figure.axes[0].collections)
    assert not figure.legends


def test_bands_are_shaded_on_the_line_of_their_label():
    bands = pd.DataFrame(
        {"label": ["b", "gone"], "low": [0.1, 0], "high": [0.3, 1]}
    )
    figure = result_plots.plot_dots(
        {"one": frame(a=0.2, b=0.4)}, xlabel="H@10", bands=bands
    )
    (band,) = figure.axes[0].patches
    box = band.get_bbox()
    assert (box.x0, box.x1) == pytest.approx((0.1, 0.3))
    assert (box.y0, box.y1) == pytest.approx((0.6, 1.4))


def test_sizes_are_drawn_in_order_with_levels_and_marks():
    curve = frame(a=0.3, b=0.2).assign(x=[1000, 500])
    figure = result_plots.plot_sizes(
        {"tuned": curve},
        xlabel="labels",
        ylabel="H@10",
        levels={"oracle": 0.6},
        marks={"Books": 2346},
        percent=True,
    )
    ax = figure.axes[0]
    drawn = line_named(ax, "tuned")
    assert drawn.get_xdata().tolist() == [500, 1000]
    assert drawn.get_ydata().tolist() == [0.2, 0.3]
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 0.6  # the oracle is on the picture
    assert {"oracle", "Books"} <= set(words(figure))
    assert [line.get_ydata()[0] for line in ax.lines[1:2]] == [0.6]
    assert [line.get_xdata()[0] for line in ax.lines[2:3]] == [2346]
    assert len(ax.collections) == 1
    bare = curve.drop(columns=["low", "high"])
    other = result_plots.plot_sizes(
        {"tuned": bare}, xlabel="x", ylabel="s", log_y=True
    )
    assert not other.axes[0].collections
    assert other.axes[0].get_yscale() == "log"


def test_many_curves_stay_apart():
    curve = frame(a=0.3, b=0.2).assign(x=[500, 1000])
    many = {f"model {number}": curve for number in range(8)}
    ax = result_plots.plot_sizes(many, xlabel="x", ylabel="y").axes[0]
    styles = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(styles) == 8
    starts = [line.get_xdata()[0] for line in ax.lines]
    assert len(set(starts)) == 8
    assert all(abs(start - 500) <= 0.021 * 500 for start in starts)
    bars = [c.get_segments() for c in ax.collections]
    assert bars[0][0][:, 1].tolist() == pytest.approx([0.2, 0.4])


def test_a_bump_chart_gives_places():
    values = pd.DataFrame(
        {"cells": [0.3, 0.1, 0.2], "all": [0.1, 0.2, 0.3]},
        index=["a", "b", "c"],
    )
    figure = result_plots.plot_bump(values)
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert lines == [[1, 3], [3, 2], [2, 1]]
    assert sorted(words(figure)) == ["a", "a", "b", "b", "c", "c"]
    gap = values.astype(float)
    gap.loc["b", "all"] = math.nan
    assert len(result_plots.plot_bump(gap).axes[0].lines) == 2


@pytest.mark.parametrize(
    "draw",
    [
        lambda: result_plots.plot_dots({"one": frame()}, xlabel="x"),
        lambda: result_plots.plot_sizes({}, xlabel="x", ylabel="y"),
        lambda: result_plots.plot_bump(pd.DataFrame()),
    ],
)
def test_nothing_recorded_is_said(draw):
    assert words(draw()) == [result_plots.NOTHING]


def test_many_series_repeat_colours_not_their_places():
    many = {str(n): frame(a=0.1 * n) for n in range(12)}
    ax = result_plots.plot_dots(many, xlabel="x").axes[0]
    heights = {float(line.get_ydata()[0]) for line in ax.lines}
    assert len(heights) == 12 and np.ptp(list(heights)) <= 0.5
