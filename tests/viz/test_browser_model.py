"""What a page is given is what the library computes."""

import base64
import html.parser
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from serendifflib.errors import ConfigError, ModelError, UnknownItemError
from serendifflib.model.explain import Explanation
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.viz import browser_model as module
from serendifflib.viz.browser_model import pack, part_of, play, script_safe

EVIL = [
    "</script><script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "<b>bold</b> & {braces} ${dollar} \u2028 'quote'",
]


def unpacked(packed):
    values = np.frombuffer(base64.b64decode(packed["data"]), dtype="<f4")
    return values.reshape(packed["shape"])


def test_the_list_is_that_of_recommend(playground):
    shop = playground.model
    for history in playground.starts.values():
        answer = playground.answer(history)
        table = shop.recommend(items=history, k=5)
        best = [shop.catalogue.items[item] for item in answer["order"][:5]]
        assert best == list(table["item"])
        scores = np.array(answer["scores"], dtype=float)
        found = scores[answer["order"][:5]]
        np.testing.assert_allclose(found, table["score"])
        has = [shop.catalogue.item_number(item) - 1 for item in history]
        assert np.isnan(scores[has]).all()
        assert not set(has) & set(answer["order"])


def test_portrait_zone_and_sentence_are_those_of_the_library(playground):
    shop = playground.model
    for history in playground.starts.values():
        answer = playground.answer(history)
        portrait = shop.portrait(items=history)
        np.testing.assert_array_equal(answer["past"], portrait.positions)
        everything = portrait.catalogue_positions[1:]
        np.testing.assert_array_equal(answer["positions"], everything)
        np.testing.assert_array_equal(answer["zone"], shop.zone(portrait))
        assert np.sum(answer["zone"]) == pytest.approx(1.0, abs=1e-5)
        best = shop.catalogue.items[answer["order"][0]]
        told = shop.explain(items=history, item=best)
        # other random numbers stand behind the draws of `explain`
        assert answer["why"].startswith(replace(told, drawn="").text)
        assert isinstance(told, Explanation)


def test_the_draws_follow_the_zone_and_the_stored_numbers(playground):
    history = playground.starts["five"]
    once, again = playground.answer(history), playground.answer(history)
    assert once["draws"] == again["draws"]
    assert len(once["draws"]) == 10
    zone = np.array(once["zone"])
    chances = [zone[tuple(cell)] for cell in once["draws"]]
    assert np.mean(chances) > zone.mean()


def test_a_part_of_the_catalogue_is_placed_as_if_it_were_all(
    token_model, playground, tiny_fold
):
    items = playground.model.catalogue.items
    rows = np.sort([token_model.catalogue.item_number(i) for i in items])
    histories = [
        np.searchsorted(rows, history[np.isin(history, rows)]) + 1
        for history in tiny_fold.training_histories()
    ]
    vectors = token_model.space.vectors[[0, *rows]]
    alone = PortraitSpace.from_histories(histories, vectors, bins="catalogue")
    for history in ([4, 1, 9], [30, 2]):
        np.testing.assert_array_equal(
            playground.model.space.catalogue_positions(np.array(history)),
            alone.catalogue_positions(np.array(history)),
        )


def test_the_whole_catalogue_is_a_part_of_itself(token_model):
    same = part_of(token_model, range(1, len(token_model.points)))
    history = np.array([5, 17, 3])
    np.testing.assert_allclose(
        same.rank(same.portrait_of(history)),
        token_model.rank(token_model.portrait_of(history)),
    )


def test_the_asset_holds_the_network_and_what_the_items_are(playground):
    asset, shop = playground.asset(), playground.model
    state = shop.network.state_dict()
    for name, packed in asset["weights"].items():
        np.testing.assert_array_equal(unpacked(packed), state[name])
    left_out = set(state) - set(asset["weights"])
    assert {name.split(".")[0] for name in left_out} == {"content", "mean"}
    seen = shop.points * shop.points.shape[1] ** 0.5
    with torch.no_grad():
        content = shop.network.content(seen)[1:]
    found = unpacked(asset["items"]["content"])
    np.testing.assert_allclose(found, content, atol=1e-5)
    matrix = shop.space.co_occurrence.matrix.toarray()
    together = unpacked(asset["items"]["together"])
    assert together[2, 7] == (matrix[:, 3] * matrix[:, 8]).sum()
    assert (np.diag(together) == 0).all()
    json.dumps(asset, allow_nan=False)


def test_packing_keeps_numbers():
    values = np.array([[0.5, -1.25, 3e-7], [1e30, 0.0, 7.0]])
    np.testing.assert_allclose(unpacked(pack(values)), values, rtol=1e-7)


class Parts(html.parser.HTMLParser):
    """Tags of a page and the text of its JSON block."""

    def __init__(self):
        super().__init__()
        self.tags, self.data, self.inside = [], "", False

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = ("type", "application/json") in attributes

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.data += data


def test_titles_and_names_stay_text(playground):
    titles = list(playground.model.catalogue.titles)
    titles[:3] = EVIL
    model = module.part_of(playground.model, range(1, 33))
    model.catalogue = replace(model.catalogue, titles=titles)
    shelves = {EVIL[0]: model.catalogue.items}
    page = replace(
        playground, model=model, shelves=shelves, starts={EVIL[1]: ["i00001"]}
    ).html()
    parts, harmless = Parts(), Parts()
    parts.feed(page)
    harmless.feed(playground.html())
    assert parts.tags == harmless.tags
    asset = json.loads(parts.data)
    assert asset["titles"][:3] == EVIL
    assert asset["shelves"][0][0] == EVIL[0]
    assert asset["starts"][0]["name"] == EVIL[1]


@pytest.mark.parametrize("text", [*EVIL, "<!--", "]]>", "\\u003c", "é“”"])
def test_no_text_ends_its_script(text):
    safe = script_safe({"title": text})
    assert not set("<>&") & set(safe)
    assert json.loads(safe) == {"title": text}


def test_the_page_names_no_host_and_sets_no_markup(playground):
    page = playground.html()
    for way in ("http:", "https:", "//cdn", "fetch(", "import(", "url("):
        assert way not in page
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write"):
        assert way not in page
    assert "eval(" not in page and "new Function" not in page
    assert "needs JavaScript, but no kernel" in page
    assert set(playground._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_what_cannot_be_played_is_refused(tiny_model, token_model, playground):
    shelves, starts = playground.shelves, playground.starts
    with pytest.raises(ConfigError, match="cannot run in a page"):
        play(tiny_model, shelves, starts)
    with pytest.raises(ConfigError, match="on shelves and a start"):
        play(token_model, {}, starts)
    with pytest.raises(ConfigError, match="on shelves and a start"):
        play(token_model, shelves, {})
    with pytest.raises(ConfigError, match="two shelves"):
        play(token_model, {**shelves, "twice": starts["one"]}, starts)
    with pytest.raises(ConfigError, match="start 'none'"):
        play(token_model, shelves, {"none": []})
    with pytest.raises(ConfigError, match="start 'other'"):
        play(token_model, shelves, {"other": ["i00002"]})
    with pytest.raises(UnknownItemError):
        play(token_model, {"a": ["nothing"]}, {"a": ["nothing"]})
    with pytest.raises(ModelError, match="fit it before"):
        play(SerenDiff("tokens"), shelves, starts)
    recent = token_model.with_sampling()
    recent.settings = replace(token_model.settings, weights="recency")
    with pytest.raises(ConfigError, match="weights must be 'uniform'"):
        play(recent, shelves, starts)
