"""Plots of what people said: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from taobao import TAOBAO_PEOPLE, TAOBAO_SURPRISED

from serendifflib.experiments import premise
from serendifflib.viz import human_plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_map_of_shares_has_relevance_upward():
    table = premise.shares(TAOBAO_PEOPLE, TAOBAO_SURPRISED)
    left, right = human_plots.plot_shares(table).axes
    texts = [text.get_text() for text in left.texts]
    share = TAOBAO_SURPRISED / TAOBAO_PEOPLE
    assert texts[0] == f"{share[4, 0]:.0%}"  # top left: relevant, expected
    assert texts[-1] == f"{share[0, 4]:.0%}"
    drawn = [line.get_ydata() for line in right.lines]
    np.testing.assert_allclose(drawn[0], share[4])


def test_laws_are_drawn_beside_each_other():
    p = TAOBAO_SURPRISED / TAOBAO_PEOPLE
    figure = human_plots.plot_laws(p, {"a": p, "b": p / 2}, TAOBAO_PEOPLE)
    one, two = figure.axes
    np.testing.assert_allclose(
        one.collections[0].get_offsets(), np.c_[p.ravel(), p.ravel()]
    )
    assert two.collections[0].get_offsets()[:, 0].max() < 0.5


def test_a_reader_and_what_was_said():
    ax = human_plots.plot_reader(
        [0, 0.5, 0.6, 0.1], [None, None, 0, 1], ylabel="relevance"
    )
    assert len(ax.collections[0].get_offsets()) == 3  # the first has no past
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["not judged", "not surprising", "surprising"]


def test_surprises_are_diamonds_on_the_plane():
    places = np.array([[1, 1], [0.2, 0.3], [0.4, 0.5]])
    ax = human_plots.plot_reader_plane(places, [None, 1, 0])
    diamonds = [line for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds[0].get_xydata(), [[0.2, 0.3]])
