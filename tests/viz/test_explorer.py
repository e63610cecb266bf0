"""The portrait explorer: it says what the library says, as text."""

import html.parser
import json
from dataclasses import replace

import ipywidgets as widgets
import matplotlib
import numpy as np
import pytest

from serendifflib.errors import ConfigError
from serendifflib.viz import explorer as module
from serendifflib.viz.explorer import explore, script_safe

matplotlib.use("agg")
SIDE = 5
EVIL = [
    "</script><script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "<b>bold</b> & {braces} ${dollar} \u2028 'quote'",
]


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


def parsed(page):
    parts = Parts()
    parts.feed(page)
    return parts


@pytest.fixture(scope="module")
def people(tiny_model, tiny_data):
    users = [str(user) for user in tiny_data.users[:3]]
    return [tiny_model.portrait(user) for user in users]


@pytest.fixture(scope="module")
def shown(tiny_model, people):
    return explore(tiny_model, people, answers=[3, 4, 5], k=4)


def test_the_top_is_that_of_recommend(shown, tiny_model, people):
    for portrait, facts in zip(people, shown.facts(), strict=True):
        table = tiny_model.recommend(portrait.user, k=4)
        assert [one["title"] for one in facts["top"]] == list(table["title"])
        assert [one["place"] for one in facts["top"]] == [1, 2, 3, 4]
        cells = [(x - 1) * SIDE + y - 1 for x, y in table["cell"]]
        assert [one["cell"] for one in facts["top"]] == cells
        best = table["item"].iloc[0]
        told = tiny_model.explain(portrait.user, best).text
        assert facts["top"][0]["why"] == told


def test_history_and_zone_lie_where_the_portrait_has_them(shown, people):
    for portrait, facts in zip(people, shown.facts(), strict=True):
        assert [h["title"] for h in facts["history"]] == portrait.titles
        assert facts["history"][0]["cell"] == SIDE**2 - 1  # the anchor
        for item, place in zip(
            facts["history"], portrait.positions, strict=True
        ):
            x, y = np.minimum((place * SIDE).astype(int), SIDE - 1)
            assert item["cell"] == x * SIDE + y
        assert len(facts["zone"]) == SIDE**2
        assert max(facts["zone"]) == 100 and min(facts["zone"]) >= 0


def test_the_best_of_a_cell_is_unseen_and_lies_there(shown, people):
    for portrait, facts in zip(people, shown.facts(), strict=True):
        assert len(facts["best"]) == SIDE**2
        places = [best["place"] for best in facts["best"] if best]
        assert len(places) == len(set(places))
        assert min(places) == 1
        for cell, best in enumerate(facts["best"]):
            if best:
                assert best["cell"] == cell
                assert best["title"] not in portrait.titles


def test_another_seed_or_matching_asks_the_model_anew(shown, tiny_model):
    before = tiny_model.seed
    (own,) = shown.facts([0])
    (other,) = shown.facts([0], seed=before + 1)
    assert other["zone"] != own["zone"]
    assert shown.facts([0], seed=before) == [own]
    (many,) = shown.facts([0], calls=3)
    assert many["zone"] != own["zone"]
    (zone,) = shown.facts([0], how="zone")
    assert zone["zone"] == own["zone"]
    assert zone["top"] != own["top"]
    assert tiny_model.seed == before


def test_titles_stay_text(tiny_model, people):
    evil = replace(
        people[0],
        titles=[EVIL[n % 3] for n in range(len(people[0].titles))],
        user=EVIL[0],
    )
    page = explore(tiny_model, [evil]).html()
    parts = parsed(page)
    assert parts.tags == ["style", "div", "script", "p", "script"]
    facts = json.loads(parts.data)["people"][0]
    assert facts["name"] == EVIL[0]
    assert [h["title"] for h in facts["history"]] == evil.titles


@pytest.mark.parametrize("text", [*EVIL, "<!--", "]]>", "\\u003c", "é“”"])
def test_no_text_ends_its_script(text):
    safe = script_safe({"title": text})
    assert not set("<>&") & set(safe)
    assert json.loads(safe) == {"title": text}


def test_the_script_sets_no_markup():
    script = module._asset("explorer.js")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write"):
        assert way not in script
    assert "http" not in script and "import(" not in script


def test_a_page_is_static_and_a_kernel_has_controls(shown, monkeypatch):
    monkeypatch.setenv("SERENDIFF_PAGES", "static")
    assert set(shown._repr_mimebundle_()) == {"text/html", "text/plain"}
    monkeypatch.delenv("SERENDIFF_PAGES")
    bundle = shown._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_controls_ask_for_what_they_show(shown, monkeypatch):
    asked = []
    facts = module.Explorer.facts

    def spy(self, which=None, **options):
        asked.append((list(which), options))
        return facts(self, which, **options)

    monkeypatch.setattr(module.Explorer, "facts", spy)
    box = shown.controls()
    user, seed, calls, how = box.children[0].children
    assert isinstance(user, widgets.Dropdown)
    user.value = 2
    seed.value = 7
    how.value = "zone"
    calls.value = 2
    assert asked[-1] == ([2], {"calls": 2, "how": "zone", "seed": 7})
    assert len(asked) == 5  # once at the start, once per change
    for control in (user, seed, calls, how):
        assert control.description


def test_controls_set_one_page_and_capture_nothing(shown):
    box = shown.controls()
    user, pane = box.children[0].children[0], box.children[1]
    (first,) = pane.outputs  # a capture leaves it empty without a kernel
    user.value = 2
    (second,) = pane.outputs  # one page, not one below the other
    name = json.dumps(shown.people[2].user)
    assert name in second["data"]["text/html"]
    assert name not in first["data"]["text/html"]


def test_the_strip_draws_each_of_the_chosen(shown):
    figure = shown.strip([0, 2])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [shown.people[0].user, shown.people[2].user]


def test_what_cannot_be_shown_is_refused(tiny_model, people):
    with pytest.raises(ConfigError, match="at least one"):
        explore(tiny_model, [])
    with pytest.raises(ConfigError, match="2 answers for 3 people"):
        explore(tiny_model, people, answers=[1, 2])
    with pytest.raises(ConfigError, match="model of side 5"):
        explore(tiny_model, [replace(people[0], side=7)])
    with pytest.raises(ConfigError, match="k must be"):
        explore(tiny_model, people, k=0)


def test_an_empty_cell_has_no_best_item(tiny_model, people):
    places = people[0].catalogue_positions.copy()
    places[:] = 0.99  # everything in one corner
    corner = replace(people[0], catalogue_positions=places)
    (facts,) = explore(tiny_model, [corner]).facts()
    assert [n for n, best in enumerate(facts["best"]) if best] == [24]
