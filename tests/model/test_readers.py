"""As a recommender is used: somebody new, everybody, items to leave out."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from given_cases import given

from serendifflib import SerenDiff, load_dataset
from serendifflib.errors import (
    ConfigError,
    DataError,
    ModelError,
    UnknownItemError,
)
from serendifflib.portrait import fold


@pytest.fixture
def user(tiny_data):
    return tiny_data.users[0]


def history_of(data, user):
    rows = data.rows(data.user_number(user))
    return data.frame["item_id"].to_numpy()[rows]


def test_somebody_new_is_known_by_items(tiny_model, tiny_data):
    """A user outside of training is exactly such a stranger."""
    stranger = next(
        user
        for user, known in zip(
            tiny_data.users, tiny_model.catalogue.is_training, strict=True
        )
        if not known
    )
    ids = history_of(tiny_data, stranger)
    mine = tiny_model.recommend(items=list(ids), k=5)
    pd.testing.assert_frame_equal(mine, tiny_model.recommend(stranger, k=5))
    best = mine["item"][0]
    assert (
        tiny_model.explain(item=best, items=list(ids)).text
        == tiny_model.explain(stranger, best).text
    )
    doubled = [*ids, ids[0]]
    pd.testing.assert_frame_equal(
        tiny_model.recommend(items=doubled, k=5), mine
    )


def test_items_that_cannot_be(tiny_model, tiny_data, user):
    with pytest.raises(UnknownItemError, match="'nothing'"):
        tiny_model.recommend(items=["nothing"])
    with pytest.raises(ConfigError, match="at least one item"):
        tiny_model.recommend(items=[])
    with pytest.raises(ConfigError, match="one text"):
        tiny_model.recommend(items=tiny_data.items[0])
    with pytest.raises(ConfigError, match="either a user or items"):
        tiny_model.recommend()
    with pytest.raises(ConfigError, match="either a user or items"):
        tiny_model.recommend(user, items=[tiny_data.items[0]])


def test_excluded_items_are_left_out_and_nothing_else_changes(
    tiny_model, user
):
    whole = tiny_model.recommend(user, k=8)
    left_out = whole["item"][[0, 3]].tolist()
    rest = tiny_model.recommend(user, k=6, exclude=left_out)
    kept = whole[~whole["item"].isin(left_out)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, kept)
    with pytest.raises(UnknownItemError):
        tiny_model.recommend(user, exclude=["nothing"])


def test_everybody_at_once(tiny_model, tiny_data):
    table = tiny_model.recommend_all(3)
    assert table["user"].tolist() == np.repeat(tiny_data.users, 3).tolist()
    assert table["rank"].tolist() == [1, 2, 3] * tiny_data.n_users
    for user in tiny_data.users[[0, 7]]:
        part = table[table["user"] == user].drop(columns=["user", "rank"])
        pd.testing.assert_frame_equal(
            part.reset_index(drop=True), tiny_model.recommend(user, k=3)
        )
    gone = table["item"][0]
    again = tiny_model.recommend_all(3, exclude=[gone])
    assert gone not in set(again["item"])


@pytest.mark.parametrize("k", ["5", 0, -1, 2.5, None])
def test_k_is_a_whole_number(tiny_model, user, k):
    with pytest.raises(ConfigError, match="k must be a whole number"):
        tiny_model.recommend(user, k=k)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": -1}, "learning_rate must be above 0, got -1"),
        ({"steps": "5"}, "steps must be a whole number, got '5'"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"dropout": 1.0}, "dropout must be 0 to below 1"),
        ({"mu": -0.5}, "mu must be 0 or more"),
        ({"ema": 1}, "ema must be True or False"),
        ({"match": 3}, "match must be a name"),
        ({"profile": "huge"}, "unknown profile 'huge'"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used here"),
        ({"device": "toaster"}, "device 'toaster' cannot be used here"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(ConfigError, match=words):
        SerenDiff(**changes)


def test_a_profile_by_name():
    assert SerenDiff(profile="laptop").settings.width == 64


def test_save_expands_the_home_folder(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_model.save("~/model")
    assert (tmp_path / "model").is_dir()
    SerenDiff.load("~/model", progress=False)


@pytest.fixture
def small(tiny_settings, monkeypatch, word_encoder):
    """A model that fits in a second on what is not yet a fold."""
    monkeypatch.setattr(fold, "default_encoder", lambda **_: word_encoder)
    return lambda **more: SerenDiff(
        "tuned", device="cpu", **{"progress": False, **tiny_settings, **more}
    )


def test_fit_takes_a_path_or_a_table(small, tiny_data, tmp_path):
    path = tmp_path / "x.csv"
    tiny_data.frame.to_csv(path, index=False)
    seed = torch.Generator().manual_seed
    models = [
        small().fit(data, generator=seed(1))
        for data in (str(path), path, tiny_data.frame, tiny_data)
    ]
    user = tiny_data.users[0]
    first, *others = (model.recommend(user)["item"] for model in models)
    for other in others:
        assert other.tolist() == first.tolist()


def test_silence_and_its_opposite(small, tiny_data, capsys):
    small().fit(tiny_data)
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "")
    small(progress=True).fit(tiny_data)
    assert "targets to train on" in capsys.readouterr().err


def cannot(*arguments, **options):
    raise AssertionError("something was encoded")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": 1000}, "the user's rows all have the same time"),
        ({"label": 1}, "no item gets one: all .* are labelled"),
        ({"review": ""}, "no item gets one: no row has one"),
        ({"review": "good"}, "all reviews are the same text"),
    ],
)
def test_refused_before_the_encoding(
    small, tiny_data, monkeypatch, change, words
):
    monkeypatch.setattr(fold, "default_encoder", cannot)
    data = dataclasses.replace(
        tiny_data, frame=tiny_data.frame.assign(**change)
    )
    with pytest.raises(DataError, match=words):
        small().fit(data)


def test_descriptions_train_when_they_are_said_to_be(small, make_frame):
    frame = make_frame
    with pytest.raises(DataError, match="--texts-describe-items"):
        small().fit(frame)
    data = load_dataset(frame, texts_describe_items=True)
    model = small().fit(data)
    assert len(model.recommend("u0", k=3)) == 3


@pytest.fixture
def make_frame():
    """Every item once, with a description; the last row of each has 1."""
    return pd.DataFrame(
        [
            {
                "user_id": f"u{user}",
                "item_id": f"i{user}-{place}",
                "timestamp": 1600000000 + place,
                "review": f"a film about thing{place} and word{user}",
                "rating": 5,
                "label": int(place == 5),
            }
            for user in range(20)
            for place in range(6)
        ]
    )


@pytest.mark.parametrize("name", ["nearest-without-text", "ghost-items"])
def test_given_items_without_text(small, name):
    """Never the most similar one, never recommended, said to be missing."""
    data = load_dataset(given(f"{name}.csv"))
    ghosts = {item for item in data.items if item.startswith("ghost")}
    assert ghosts
    model = small().fit(data)
    every = model.recommend_all(data.n_items)
    assert len(every) > 1000
    assert not ghosts & {*every["item"], *every["nearest history item"]}
    said = model.explain(data.users[0], sorted(ghosts)[0]).text
    assert "has no text" in said
    # nor the floor of an axis: without them the others lie as they did
    rest = data.frame[~data.frame["item_id"].isin(ghosts)]
    other = small().fit(rest)
    places = [
        dict(
            zip(
                one.catalogue.items,
                one.portrait("user00").catalogue_positions[1:, 1],
                strict=True,
            )
        )
        for one in (model, other)
    ]
    shared = sorted(set(places[1]) & set(places[0]))
    moved = [abs(places[0][item] - places[1][item]) > 0.1 for item in shared]
    assert shared and np.mean(moved) < 0.1


@pytest.mark.filterwarnings("error:Glyph")
def test_given_titles_in_other_letters(small):
    data = load_dataset(given("cjk-titles.csv"))
    model = small().fit(data)
    best = model.recommend(data.users[0], k=1)["item"][0]
    model.explain(data.users[0], best).plot().figure.canvas.draw()


def test_not_fitted():
    with pytest.raises(ModelError, match="fit it before use"):
        SerenDiff().recommend_all()
