"""The playground in a real browser: numbers, keyboard, phone, titles."""

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

import book_browser as web
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

EVIL = '</script><script>window.hit = 1</script><img src=x onerror="hit=1">'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        web.CHROMIUM is None or web.DRIVER is None,
        reason="no Chromium with chromedriver here",
    ),
]


@pytest.fixture(scope="module")
def browser():
    with web.chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(playground, tmp_path_factory):
    """A page of the playground; the first title attacks."""
    playground.model.catalogue.titles[0] = EVIL
    folder = tmp_path_factory.mktemp("play")
    head = "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
    head += "<meta name='viewport' content='width=device-width'>"
    head += "<link rel='icon' href='data:,'><title>Play</title></head>"
    body = f"<body><main><h1>Play</h1>{playground.html()}</main></body></html>"
    (folder / "page.html").write_text(head + body)
    with web.serve(folder) as found:
        yield found


@pytest.fixture
def page(browser, served):
    address, missing = served
    missing.clear()
    web.resize(browser, web.WIDTHS["desktop"], 1100)
    errors, sizes = web.visit(browser, f"{address}/page.html")
    yield browser
    assert errors == []
    assert missing == []
    assert all(url.startswith((address, "data:", "about:")) for url in sizes)


def find(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def history(page):
    return [one.text for one in find(page, ".sdp-history .sdp-title")]


def status(page):
    return find(page, ".sdp-status")[0].get_attribute("textContent")


def focused(page):
    node = page.switch_to.active_element
    return node.get_attribute("aria-label") or node.text


LOOK = """
const root = document.querySelector(".sd-play");
const asset = JSON.parse(root.querySelector("script").textContent);
const model = window.serenDiff(asset);
const found = model.look(arguments[0]);
return [found, model.why(found.order[0], found)];
"""


@pytest.mark.parametrize(
    "numbers", [[3, 17, 0, 30, 8, 22, 11], [20, 1, 2, 19], [9, 10], [31]]
)
def test_the_page_computes_what_python_computes(page, playground, numbers):
    items = playground.model.catalogue.items
    python = playground.answer([items[n] for n in numbers])
    script, why = page.execute_script(LOOK, numbers)
    near = {"rtol": 0, "atol": 1e-4}
    np.testing.assert_allclose(script["past"], python["past"], **near)
    np.testing.assert_allclose(script["zone"], python["zone"], **near)
    new = python["order"]  # what the reader has is placed nowhere else
    for name in ("positions", "scores"):
        mine, theirs = np.array(script[name]), np.array(python[name], float)
        np.testing.assert_allclose(mine[new], theirs[new], **near)
    assert script["order"] == new
    assert script["draws"] == python["draws"]
    assert why == python["why"]
    assert np.ptp(python["zone"]) > 0.01  # or any network would do


def test_the_page_says_how_far_it_is_from_python(page):
    find(page, ".sdp-compare button")[0].click()
    root = find(page, ".sd-play")[0]
    assert 0 < float(root.get_attribute("data-difference")) < 1e-4
    assert "3 histories differ" in find(page, ".sdp-compare")[0].text


def test_what_is_shown_is_what_was_computed(page, playground):
    python = playground.answer(playground.starts["five"])
    titles = playground.model.catalogue.titles
    shown = [one.text for one in find(page, ".sdp-five .sdp-title")]
    assert shown == [titles[item] for item in python["order"][:5]]
    assert find(page, ".sdp-why")[0].text == python["why"]
    assert len(find(page, "svg .sdp-draw")) == 10
    assert len(find(page, "svg .sdp-past")) == 4
    assert len(find(page, "svg .sdp-first")) == 1
    assert len(find(page, "svg .sdp-best")) == 5
    deepest = page.execute_script(
        """return [...document.querySelectorAll(".sdp-cell")].map(
          (cell) => Number(cell.style.getPropertyValue("--zone")));"""
    )
    zone = np.array(python["zone"]).ravel()
    np.testing.assert_allclose(deepest, zone / zone.max(), atol=1e-4)


def test_a_history_is_edited_by_keyboard(page):
    before = history(page)
    first = find(page, ".sdp-why")[0].text
    down = find(page, ".sdp-history li:first-child [data-do=down]")[0]
    down.send_keys(Keys.ENTER)
    assert history(page) == [before[1], before[0], *before[2:]]
    assert focused(page) == f"Move down “{before[0]}”"
    assert f"“{before[0]}” is now at place 2." in status(page)
    for _ in range(3):
        page.switch_to.active_element.send_keys(Keys.SPACE)
    assert history(page)[-1] == before[0]
    # at the end there is no further down: the focus stays on the item
    assert focused(page) == f"Move up “{before[0]}”"
    find(page, ".sdp-history li:last-child [data-do=remove]")[0].send_keys(
        Keys.ENTER
    )
    assert history(page) == before[1:]
    assert focused(page) == f"Remove “{before[-1]}”"
    assert find(page, ".sdp-why")[0].text != first


def test_a_shelf_adds_and_takes_away(page):
    before = history(page)
    find(page, ".sdp-edit select option")[7].click()
    button = find(page, ".sdp-shelf button")[1]
    title = button.text
    assert button.get_attribute("aria-pressed") == "false"
    button.send_keys(Keys.ENTER)
    assert history(page) == [*before, title]
    again = page.switch_to.active_element
    assert again.text == title
    assert again.get_attribute("aria-pressed") == "true"
    again.send_keys(Keys.ENTER)
    assert history(page) == before
    assert f"Removed “{title}”. First is now “" in status(page)


def test_a_recommendation_is_explained_and_added(page):
    third = find(page, ".sdp-five .sdp-title")[2]
    title = third.text
    third.send_keys(Keys.ENTER)
    assert find(page, ".sdp-why")[0].text.startswith(f"“{title}” lies")
    assert focused(page) == title
    find(page, ".sdp-five li:nth-child(3) button:last-child")[0].click()
    assert history(page)[-1] == title
    assert title not in [x.text for x in find(page, ".sdp-five .sdp-title")]


def test_an_empty_history_says_what_to_do(page):
    while find(page, "[data-do=remove]"):
        find(page, "[data-do=remove]")[0].click()
    assert "Add an item" in find(page, ".sdp-why")[0].text
    assert "It is empty." in status(page)
    assert find(page, "svg .sdp-mark") == []
    assert page.switch_to.active_element.tag_name == "select"
    find(page, ".sdp-bar button")[1].click()
    assert len(history(page)) == 2


def test_other_draws_leave_zone_and_list(page):
    def drawn():
        return [
            one.get_attribute("style") for one in find(page, "svg .sdp-draw")
        ]

    before, best = drawn(), [x.text for x in find(page, ".sdp-five")]
    find(page, ".sdp-picture button")[0].click()
    assert drawn() != before
    assert [x.text for x in find(page, ".sdp-five")] == best


def test_titles_are_text(page):
    find(page, ".sdp-bar button")[0].click()
    assert EVIL in history(page)
    assert page.execute_script("return window.hit") is None
    assert find(page, ".sd-play img") == []


@pytest.mark.parametrize("device", web.WIDTHS)
def test_nothing_jumps_and_everybody_can_use_it(page, device):
    web.resize(page, web.WIDTHS[device], 1600)

    def places():
        return page.execute_script(
            """return [".sdp-picture", ".sdp-five", ".sdp-why"].map((name) =>
              document.querySelector(name).getBoundingClientRect().top);"""
        )

    before = places()
    find(page, "[data-do=remove]")[0].click()
    assert places() == before
    for _ in range(6):  # the list goes through many titles
        find(page, ".sdp-five li button:last-child")[0].click()
        assert places() == before
    assert web.violations(page) == []
    assert web.pixels_too_wide(page) <= 0
    for button in find(page, ".sd-play button"):
        assert min(button.size.values()) >= 24  # large enough for a finger
