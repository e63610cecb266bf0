"""Plots of data and scores: what is drawn is what was given."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from taobao import TAOBAO_PEOPLE, TAOBAO_SURPRISED

from serendifflib.data.splits import Split
from serendifflib.experiments import premise
from serendifflib.portrait import picture
from serendifflib.viz import data_plots

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(ax):
    return {
        (round(t.get_position()[0], 3), round(t.get_position()[1], 3)): (
            t.get_text()
        )
        for t in ax.texts
    }


def line_named(ax, name):
    return next(line for line in ax.lines if line.get_label() == name)


def test_timelines_put_every_row_at_its_place():
    kinds = [["anything", "label"], ["niche theme"] * 3]
    ax = data_plots.plot_timelines(kinds, ["ann", "bob"]).axes[0]
    np.testing.assert_array_equal(
        line_named(ax, "label").get_xydata(), [[2, 0]]
    )
    np.testing.assert_array_equal(
        line_named(ax, "niche theme").get_xydata(), [[1, 1], [2, 1], [3, 1]]
    )
    assert len(line_named(ax, "second interest").get_xydata()) == 0
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ann", "bob"]


def test_the_law_marks_the_label_and_splits_by_bridge():
    radius, scores = np.array([0.1, 0.5, 0.9]), np.array([-3.0, -1.0, -2.0])
    ax = data_plots.plot_law(
        radius,
        scores,
        np.array([False, True, False]),
        label=1,
        reach=0.3,
        stretch=0.2,
    )
    assert line_named(ax, "the label").get_xydata().tolist() == [[0.5, -1.0]]
    groups = {one.get_label(): one.get_offsets() for one in ax.collections}
    assert groups["bridge genre"].tolist() == [[0.5, -1]]
    assert len(groups["other genres"]) == 2
    lines = [line.get_xdata()[0] for line in ax.lines[1:]]
    assert lines == pytest.approx([0.3, 0.5])


def test_folds_show_each_user_once_and_test_users_side_by_side():
    def split(name, train, valid, test):
        return Split(name, *map(np.array, (train, valid, test)))

    folds = [
        split("one", [1, 4], [3], [0, 2, 5]),
        split("two", [0, 2], [5], [1, 3, 4]),
    ]
    shown = data_plots.plot_folds(folds).collections[0].get_array()
    # users in the order 0, 2, 5 | 1, 3, 4; 1 tunes, 2 tests
    assert shown.tolist() == [[2, 2, 2, 0, 1, 0], [0, 0, 1, 2, 2, 2]]


def test_cells_run_right_with_expectedness_and_up_with_relevance():
    grid = np.zeros((3, 3))
    grid[2, 0] = 7
    ax = data_plots.plot_cells([grid], ["here"], mark=(2, 0)).axes[0]
    written = texts(ax)
    assert written[(2.5, 0.5)] == "7"
    assert written[(0.5, 2.5)] == "·"
    assert ax.collections[0].get_array()[0, 2] == 7
    assert ax.get_ylim() == (0, 3)
    assert ax.patches[0].get_xy() == (2, 0)


def test_cells_may_stand_in_several_rows():
    figure = data_plots.plot_cells([np.ones((2, 2))] * 4, list("abcd"), rows=2)
    assert [ax.get_title() for ax in figure.axes] == list("abcd")
    tops = [ax.get_position().y0 for ax in figure.axes]
    assert tops[0] == tops[1] > tops[2] == tops[3]


def test_a_matrix_hides_frames_and_writes():
    values = np.array([[1.0, 0.25], [-0.5, 1.0]])
    ax = data_plots.plot_matrix(
        values,
        ["a", "b"],
        hide=np.triu(np.ones((2, 2), dtype=bool)),
        frames=[(1, 0)],
    )
    assert texts(ax) == {(0.5, 1.5): "-0.50"}
    assert ax.patches[0].get_xy() == (0, 1)


def test_histograms_share_their_bins_and_one_legend():
    panels = {
        "left": {"a": np.array([0.0, 1.0]), "b": np.array([4.0])},
        "right": {"a": np.array([2.0]), "b": np.array([6.0])},
    }
    figure = data_plots.plot_histograms(panels, xlabel="x", bins=4)
    assert [ax.get_title() for ax in figure.axes] == ["left", "right"]
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["a", "b"]
    edges = figure.axes[0].collections[0].get_paths()[0].vertices[:, 0]
    assert (edges.min(), edges.max()) == (0, 4)
    assert not any(ax.get_legend() for ax in figure.axes)


def test_similarity_keeps_the_sign_and_labels_rows_once():
    grid = np.array([[0.5, -0.2], [-0.2, 0.4]])
    figure = data_plots.plot_similarity({"x": grid, "y": grid}, ["a", "b"])
    for ax in figure.axes[:2]:
        np.testing.assert_array_equal(ax.collections[0].get_array(), grid)
        assert ax.collections[0].get_clim() == (-0.6, 0.6)
    rows = [
        [t.get_text() for t in ax.get_yticklabels()] for ax in figure.axes[:2]
    ]
    assert rows == [["a", "b"], []]


def test_the_pipeline_joins_its_boxes():
    steps = [("one", "a", "01"), ("two", "b", "02"), ("three", "c", "03")]
    ax = data_plots.plot_pipeline(steps).axes[0]
    assert len(ax.patches) == 3
    words = [t.get_text() for t in ax.texts]
    assert [w for w in words if w in ("one", "two", "three")] == [
        "one",
        "two",
        "three",
    ]
    assert words.count("") == 2  # the arrows


def test_the_plane_puts_the_first_item_at_the_anchor():
    positions = np.array([[1.0, 1.0], [0.2, 0.7]])
    ax = picture.draw_plane(positions, 10, reach=0.5, numbers=True)
    square = next(line for line in ax.lines if line.get_marker() == "s")
    assert square.get_xydata().tolist() == [[1.0, 1.0]]
    (arc,) = ax.patches
    assert arc.center == (1, 1) and arc.radius == 0.5
    assert [t.get_text() for t in ax.texts] == ["1", "2"]


def test_frames_of_a_growing_history_do_not_jump():
    corners = []
    for count in (1, 12):
        positions = np.vstack([[1, 1], np.ones((count - 1, 2))])
        ax = picture.new_figure(3.0, 4.0)[1][0, 0]
        picture.draw_plane(positions, 10, numbers=True, ax=ax)
        ax.figure.canvas.draw()
        corners.append(ax.get_position().bounds)
    assert corners[0] == pytest.approx(corners[1])


def test_a_zone_is_shaded_in_the_cell_it_belongs_to():
    zone = np.zeros((4, 4))
    zone[3, 1] = 1
    ax = picture.draw_plane(np.ones((1, 2)), 4, zone=zone)
    shown = ax.images[0].get_array()
    assert shown[1, 3] == 1 and shown.sum() == 1
    assert tuple(ax.images[0].get_extent()) == (0, 1, 0, 1)


# what people said


def test_the_map_of_shares_has_relevance_upward():
    table = premise.shares(TAOBAO_PEOPLE, TAOBAO_SURPRISED)
    left, right = data_plots.plot_shares(table).axes
    texts = [text.get_text() for text in left.texts]
    share = TAOBAO_SURPRISED / TAOBAO_PEOPLE
    assert texts[0] == f"{share[4, 0]:.0%}"  # top left: relevant, expected
    assert texts[-1] == f"{share[0, 4]:.0%}"
    drawn = [line.get_ydata() for line in right.lines]
    np.testing.assert_allclose(drawn[0], share[4])


def test_laws_are_drawn_beside_each_other():
    p = TAOBAO_SURPRISED / TAOBAO_PEOPLE
    figure = data_plots.plot_laws(p, {"a": p, "b": p / 2}, TAOBAO_PEOPLE)
    one, two = figure.axes
    np.testing.assert_allclose(
        one.collections[0].get_offsets(), np.c_[p.ravel(), p.ravel()]
    )
    assert two.collections[0].get_offsets()[:, 0].max() < 0.5


def test_a_reader_and_what_was_said():
    ax = data_plots.plot_reader(
        [0, 0.5, 0.6, 0.1], [None, None, 0, 1], ylabel="relevance"
    )
    assert len(ax.collections[0].get_offsets()) == 3  # the first has no past
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["not judged", "not surprising", "surprising"]


def test_surprises_are_diamonds_on_the_plane():
    places = np.array([[1, 1], [0.2, 0.3], [0.4, 0.5]])
    ax = data_plots.plot_reader_plane(places, [None, 1, 0])
    diamonds = [line for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds[0].get_xydata(), [[0.2, 0.3]])
