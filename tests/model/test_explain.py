import re
from dataclasses import replace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from serendifflib.data.splits import user_folds
from serendifflib.model.explain import (
    UserPortrait,
    direction,
    nearest_history,
    words_of_draws,
)
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait import picture
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.picture import drawable

INJECTIONS = [
    "$",
    "$$ \\frac{1}{0} $$ \\undefined",
    "cost $5 to $10 & more_than^that % #",
    "<script>alert(1)</script>",
    "line one\nline two\r\n\ttabbed",
    "\"quoted\" 'single' `back`",
    "{braces} %s {0} {title!r}",
    "🐙 emoji, ü, עברית, 漢字",
    "",
    "x" * 5_000,
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def hand_made(**changes):
    """Three items: the anchor and two others, L = 5."""
    given = {
        "user": "ann",
        "items": np.array([3, 1, 2]),
        "titles": ["Anchor", "One", "Two"],
        "positions": np.array([[1.0, 1.0], [0.4, 0.2], [0.6, 0.8]]),
        "expectedness": np.array([np.nan, 0.1, 0.2]),
        "relevance": np.array([np.nan, 0.3, 0.4]),
        "side": 5,
        "catalogue_positions": np.full((6, 2), 0.5),
        "catalogue_scores": np.zeros((6, 2)),
    }
    return UserPortrait(**{**given, **changes})


# ---------------------------------------------------------------- portrait


def test_centre_and_reach_by_hand():
    portrait = hand_made()
    np.testing.assert_allclose(portrait.centre, [0.5, 0.5])
    one, two = np.hypot(0.6, 0.8), np.hypot(0.4, 0.2)
    assert portrait.reach == pytest.approx((one + two) / 2)


def test_one_item_has_no_reach():
    portrait = hand_made(
        items=np.array([3]),
        titles=["Anchor"],
        positions=np.ones((1, 2)),
        expectedness=np.array([np.nan]),
        relevance=np.array([np.nan]),
    )
    assert portrait.reach == 0.0
    np.testing.assert_array_equal(portrait.centre, [1.0, 1.0])
    portrait.centre[:] = 7  # a copy: the anchor itself stays
    np.testing.assert_array_equal(portrait.centre, [1.0, 1.0])


def test_the_table_has_cells_counted_from_one():
    table = hand_made().table()
    assert table["title"].tolist() == ["Anchor", "One", "Two"]
    assert table["cell"].tolist() == [(5, 5), (3, 2), (4, 5)]


def test_the_portrait_of_a_model(tiny_model, tiny_data):
    portrait = tiny_model.portrait(tiny_data.users[1])
    rows = tiny_data.rows(1)
    np.testing.assert_array_equal(portrait.items, tiny_data.item_index[rows])
    assert portrait.titles == [tiny_data.title(i) for i in portrait.items]
    np.testing.assert_array_equal(portrait.positions[0], 1.0)
    assert np.isnan(portrait.expectedness[0])
    rest = portrait.expectedness[1:]
    assert ((rest > 0) & (rest < 1)).all()
    relevance = portrait.relevance[1:]
    assert ((relevance >= 0) & (relevance <= 1)).all()
    assert portrait.side == 5


# ------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ([0.3, -0.2], "more expected, less relevant"),
        ([-0.3, 0.2], "less expected, more relevant"),
        ([0.04, -0.04], "as expected, as relevant"),
        ([0.05, -0.05], "more expected, less relevant"),
        ([0.0, 0.0], "as expected, as relevant"),
    ],
)
def test_directions(step, words):
    assert direction(np.array(step)) == words


def test_the_nearest_history_item_is_the_most_similar_one():
    vectors = unit_rows(np.random.default_rng(0).normal(size=(9, 4)))
    vectors[0] = 0
    history = np.array([4, 2, 7])
    found = nearest_history(5, history, torch.from_numpy(vectors))
    place, cosine = found[0]
    cosines = [float(vectors[5] @ vectors[h]) for h in history]
    assert place == int(np.argmax(cosines))
    assert cosine == pytest.approx(max(cosines))


def test_an_explanation_measures_and_names(tiny_model, tiny_data):
    user = tiny_data.users[4]
    table = tiny_model.recommend(user, k=5)
    portrait = tiny_model.portrait(user)
    for rank, row in enumerate(table.to_dict("records"), start=1):
        explanation = tiny_model.explain(user, row["item"])
        assert explanation.rank == rank
        assert explanation.title == row["title"]
        assert explanation.nearest == row["nearest history item"]
        assert explanation.direction == row["direction"]
        assert explanation.distance == pytest.approx(row["distance"])
        position = np.array([row["expectedness"], row["relevance"]])
        np.testing.assert_allclose(explanation.position, position)
        assert explanation.radius == pytest.approx(
            np.linalg.norm(position - 1)
        )
        assert explanation.zone.shape == (5, 5)
        assert (explanation.zone >= 0).all()
        text = str(explanation)
        for words in (row["title"], explanation.nearest, row["direction"]):
            assert words in text
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d\d", text)]
        assert explanation.distance == pytest.approx(numbers[0], abs=0.006)
        assert portrait.reach == pytest.approx(numbers[2], abs=0.006)


def test_an_item_of_the_history_has_no_rank(tiny_model, tiny_data):
    item = tiny_data.items[tiny_data.item_index[tiny_data.rows(4)][2] - 1]
    explanation = tiny_model.explain(tiny_data.users[4], item)
    assert explanation.rank == 0
    assert explanation.cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("radius", "words"),
    [
        (0.5, "nearer to the familiar than"),
        (0.8, "about as far as"),
        (1.2, "farther than"),
    ],
)
def test_how_far_in_words(tiny_model, tiny_data, radius, words):
    user = tiny_data.users[4]
    item = tiny_model.recommend(user, k=1)["item"][0]
    portrait = hand_made(
        positions=np.array([[1, 1], [1 - 0.8, 1], [1, 1 - 0.8]], dtype=float)
    )
    explanation = replace(
        tiny_model.explain(user, item), portrait=portrait, radius=radius
    )
    assert words in explanation.text


# ---------------------------------------------------------------- pictures


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("title", INJECTIONS)
def test_any_title_can_be_drawn(tiny_model, tiny_data, title):
    """No formula, no markup: a title is drawn letter by letter."""
    user = tiny_data.users[4]
    item = tiny_model.recommend(user, k=1)["item"][0]
    explanation = replace(tiny_model.explain(user, item), title=title)
    ax = explanation.plot()
    ax.figure.canvas.draw()
    assert ax.get_title() == drawable(title, item)
    assert title in explanation.text
    portrait = replace(
        tiny_model.portrait(user), user=title, titles=[title] * 99
    )
    portrait.plot().figure.canvas.draw()


@pytest.mark.filterwarnings("error")
def test_letters_that_no_font_has(tiny_model, tiny_data, monkeypatch):
    """No boxes: another font, else the id, else the letters' numbers."""
    monkeypatch.setattr(picture, "WRITINGS", ())
    assert drawable("Möbel", "i1") == "Möbel"
    assert drawable("宇宙01", "i1") == "i1"
    assert drawable("宇宙01", "宇") == "\\u5b87"
    user = tiny_data.users[4]
    item = tiny_model.recommend(user, k=1)["item"][0]
    explanation = replace(tiny_model.explain(user, item), title="宇宙 😀")
    ax = explanation.plot()
    assert ax.get_title() == item
    ax.figure.canvas.draw()
    other = "STIXGeneral"
    (rare, *_) = picture._letters(other) - picture._letters("DejaVu Sans")
    assert drawable(chr(rare), "i1") == "i1"
    monkeypatch.setattr(picture, "WRITINGS", ("No Such Font", other))
    assert drawable(chr(rare), "i1") == chr(rare)
    picture.write_title(ax, chr(rare))
    ax.figure.canvas.draw()


def test_the_picture_shows_each_item_where_it_is(tiny_model, tiny_data):
    portrait = tiny_model.portrait(tiny_data.users[4])
    ax = portrait.plot()
    points = {
        (round(x, 9), round(y, 9))
        for line in ax.lines
        for x, y in zip(*line.get_data(), strict=True)
    }
    assert {
        (round(x, 9), round(y, 9)) for x, y in portrait.positions
    } <= points
    assert "expectedness" in ax.get_xlabel()
    assert "relevance" in ax.get_ylabel()


def test_the_zone_is_drawn_with_expectedness_to_the_right():
    zone = np.zeros((5, 5))
    zone[4, 0] = 1.0  # most expected, least relevant: bottom right
    ax = hand_made().plot(zone=zone)
    (image,) = ax.images
    assert image.origin == "lower"
    assert np.argwhere(np.asarray(image.get_array()) == 1).tolist() == [[0, 4]]


def test_a_given_axis_is_used():
    _, ax = plt.subplots()
    assert hand_made().plot(ax=ax) is ax


# ------------------------------------------------------------ without text


def test_an_item_without_text_is_nobodys_nearest():
    vectors = torch.tensor([[0.0, 0], [-1, 0], [0, 0], [0.6, -0.8], [1, 0]])
    place, cosine = nearest_history(4, np.array([2, 1, 3]), vectors)[0]
    assert place == 2 and cosine == pytest.approx(0.6)
    found = nearest_history(4, np.array([2, 1]), vectors)
    assert found == [(1, -1.0)]  # and not the cosine 0 of item 2
    for item, history in ((2, [1, 3]), (4, [2, 2])):
        assert nearest_history(item, np.array(history), vectors) == []


def test_an_explanation_says_that_a_text_is_missing(tiny_model, tiny_data):
    user = tiny_data.users[4]
    item = tiny_model.recommend(user, k=1)["item"][0]
    unknown = replace(tiny_model.explain(user, item), nearest="")
    assert "has no text" in unknown.text and "cosine" not in unknown.text


def test_an_item_without_text_is_never_recommended(tiny_data, word_encoder):
    ghosts = tiny_data.items[[3, 40, 77]]
    frame = tiny_data.frame.copy()
    frame.loc[frame["item_id"].isin(ghosts), "review"] = ""
    data = replace(tiny_data, frame=frame)
    fold = prepare_fold(
        data, user_folds(data, 3, seed=0)[0], encoder=word_encoder
    )
    model = SerenDiff(
        "tuned", device="cpu", progress=False, width=8, side=5, steps=2,
        timesteps=20, batch_size=8,
    ).fit(fold)  # fmt: skip
    user = data.users[4]
    everything = model.recommend(user, k=500)["item"]
    assert len(everything) > 150 and not set(everything) & set(ghosts)
    assert "has no text" in model.explain(user, ghosts[0]).text


# ------------------------------------------------------------------- draws


def test_draws_are_counted_within_one_cell_of_the_item():
    vectors = torch.zeros(6, 2)
    vectors[3], vectors[1] = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    vectors[4] = torch.tensor([0.0, 1.0])  # the item; item 2 has no text
    cells = np.array([[2, 2], [1, 3], [3, 1], [2, 4], [0, 2], [2, 3]])
    said = words_of_draws(hand_made(), 4, cells, vectors)
    assert said == "Four of six draws lie here, near “One” and “Anchor”."
    said = words_of_draws(hand_made(), 4, cells[:1], vectors)
    assert said == "One of one draws lies here, near “One” and “Anchor”."
    assert words_of_draws(hand_made(), 4, cells[:0], vectors) == ""
    # nothing is near what has no text
    said = words_of_draws(hand_made(), 5, cells[3:5], vectors)
    assert said == "None of two draws lie here."


@pytest.mark.parametrize("preset", ["points", "tokens"])
def test_an_explanation_speaks_of_draws(tiny_fold, tiny_data, preset):
    model = SerenDiff(
        preset, width=8, steps=2, prototypes=5, device="cpu", progress=False
    ).fit(tiny_fold)
    user = model.catalogue.users[0]
    item = model.recommend(user, k=1)["item"][0]
    told = model.explain(user, item)
    assert re.search(r"\w+ of ten draws lies? here", told.text)
    assert told.text == model.explain(user, item).text
