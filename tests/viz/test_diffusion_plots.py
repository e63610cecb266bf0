"""What the pictures of noise and of the network show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import ConnectionPatch

from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.viz import diffusion_plots as plots


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def grid_with_one_vector():
    """A point of length 2 in cell (expectedness 2, relevance 0)."""
    grid = torch.zeros(4, 3, 3)
    grid[0, 2, 0] = 2.0
    return grid


def test_relevance_is_the_row_and_zero_is_grey():
    picture = plots.as_picture(grid_with_one_vector())
    assert picture.shape == (3, 3, 3)
    assert picture[0, 2].tolist() == [0.9, 0.5, 0.5]  # 0.5 + 2 / 5
    assert (picture[1:] == 0.5).all()


def test_colours_stay_in_range():
    loud = 100 * torch.randn(3, 2, 2, generator=torch.Generator())
    picture = plots.as_picture(loud)
    assert picture.min() == 0.0 and picture.max() == 1.0


def test_lengths_are_per_root_of_the_width():
    expected = np.zeros((3, 3))
    expected[0, 2] = 1.0  # length 2 over sqrt(4)
    assert plots.lengths(grid_with_one_vector()) == pytest.approx(expected)


def test_every_state_is_shown_as_colours_and_as_lengths():
    states = [grid_with_one_vector()] * 3
    fig = plots.plot_noised(states, ["a", "b", "c"])
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["a", "b", "c", "", "", ""]
    assert len(fig.findobj(ConnectionPatch)) == 4  # arrows


def test_schedules_share_an_axis_of_relative_steps():
    fig = plots.plot_schedules({"short": DDPMSchedule.linear(4)})
    x, y = fig.axes[0].lines[0].get_data()
    assert x.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert y == pytest.approx(DDPMSchedule.linear(4).alpha_bar.numpy())


def test_curves_differ_in_colour_and_dashes():
    ax = plots.plot_curves([1, 2], {"a": [0, 1], "b": [1, 0]}, xlabel="x")
    one, two = ax.lines
    assert one.get_color() != two.get_color()
    assert one.get_linestyle() != two.get_linestyle()
    assert ax.get_xlabel() == "x"


def test_the_u_has_a_skip_for_each_stage_on_the_way_down():
    stages = [("a", 4, 6), ("b", 8, 3), ("c", 16, 2), ("d", 4, 6)]
    ax = plots.plot_unet(stages, bottleneck=2).axes[0]
    words = [text.get_text() for text in ax.texts]
    assert words.count("skip") == 1
    assert "b\n8 × 3 × 3" in words


def test_maps_share_one_scale_and_put_relevance_upwards():
    left, right = np.zeros((2, 2)), np.zeros((2, 2))
    left[1, 0], right[0, 1] = 1.0, 4.0
    fig = plots.plot_maps({"left": left, "right": right})
    first, second = (ax.images[0] for ax in fig.axes[:2])
    assert first.get_clim() == second.get_clim() == (0.0, 4.0)
    assert first.get_array()[0, 1] == 1.0  # row 0 is low relevance
    assert first.origin == "lower"


def test_a_process_shows_each_state_above_its_estimate():
    grid = grid_with_one_vector()
    fig = plots.plot_process(
        grid, [grid, grid], [grid, grid], ["a", "b"], items=[(0.5, 0.5)]
    )
    titles = [ax.get_title() for ax in fig.axes]
    assert [t for t in titles if t] == ["portrait $M^u$", "a", "b", "matches"]
    assert len(fig.findobj(ConnectionPatch)) == 2 + 1  # down, and across
    x, y = next(ax for ax in fig.axes if ax.lines).lines[0].get_data()
    assert (x[0], y[0]) == (1.0, 1.0)  # the middle cell of three


def test_a_state_with_an_estimate_has_three_panels():
    grid = grid_with_one_vector()
    assert len(plots.plot_state(grid, "t").axes) == 2
    fig = plots.plot_state(grid, "t", estimate=grid, cells={(2, 0): "black"})
    assert len(fig.axes) == 3
    assert all(ax.patches[0].get_xy() == (1.5, -0.5) for ax in fig.axes)
