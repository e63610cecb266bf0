"""The explorer in a real browser: keyboard, touch, and titles that attack."""

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

import book_browser as web
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from serendifflib.viz.explorer import PAGE, _asset, script_safe

EVIL = '</script><script>window.hit = 1</script><img src=x onerror="hit=1">'
SIDE = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        web.CHROMIUM is None or web.DRIVER is None,
        reason="no Chromium with chromedriver here",
    ),
]


def person(name, top_cell, weakest=50):
    best = [
        {"title": f"best {n}", "cell": n, "place": n + 2, "why": f"why {n}"}
        for n in range(SIDE**2)
    ]
    best[0] = None
    return {
        "name": name,
        "about": f"about {name}",
        "history": [
            {"title": EVIL, "cell": 15, "place": 1},
            {"title": "second", "cell": 15, "place": 2},
            {"title": "third", "cell": 6, "place": 3},
        ],
        "zone": [weakest + 3 * n for n in range(SIDE**2)],
        "top": [
            {"title": EVIL, "cell": top_cell, "place": 1, "why": f"{EVIL} far"}
        ],
        "best": best,
        "answer": {"title": "held", "cell": 3, "place": 40},
    }


@pytest.fixture(scope="module")
def browser():
    with web.chromium() as opened:
        yield opened


@pytest.fixture
def page(browser, tmp_path):
    data = {"side": SIDE, "people": [person("ann", 9), person(EVIL, 5, 53)]}
    body = PAGE.format(
        style=_asset("explorer.css"),
        script=_asset("explorer.js"),
        data=script_safe(data),
        people=2,
    )
    head = "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
    head += "<meta name='viewport' content='width=device-width'>"
    head += "<link rel='icon' href='data:,'><title>Explorer</title></head>"
    (tmp_path / "page.html").write_text(
        f"{head}<body><main><h1>Explorer</h1>{body}</main></body></html>"
    )
    web.resize(browser, web.WIDTHS["desktop"])
    with web.serve(tmp_path) as (address, missing):
        errors, sizes = web.visit(browser, f"{address}/page.html")
        yield browser
    assert errors == []
    assert missing == []
    assert all(url.startswith((address, "data:", "about:")) for url in sizes)


def find(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def details(browser):
    return find(browser, ".sdx-details")[0].text


def test_titles_are_text(page):
    assert page.execute_script("return window.hit") is None
    assert find(page, ".sd-explorer img") == []
    assert len(find(page, ".sd-explorer script")) == 1  # the data
    assert f"◆ Recommendation 1. {EVIL} far" in details(page)
    assert find(page, ".sdx-order button")[0].text == EVIL
    options = find(page, "select option")
    names = ["ann: about ann", f"{EVIL}: about {EVIL}"]
    assert [one.text for one in options] == names


def test_one_tab_stop_and_arrow_keys(page):
    stops = find(page, ".sdx-cell[tabindex='0']")
    assert [one.get_attribute("data-place") for one in stops] == ["9"]
    place = stops[0]
    place.send_keys(Keys.ARROW_UP)
    here = page.switch_to.active_element
    assert here.get_attribute("data-place") == "10"
    assert "Cell (3, 3)" in details(page)
    assert "why 10" in details(page)
    assert "The best unseen item here has place 12." in details(page)
    here.send_keys(Keys.ARROW_RIGHT)
    assert "Cell (4, 3)" in details(page)
    page.switch_to.active_element.send_keys(Keys.END, Keys.ARROW_RIGHT)
    assert "Cell (4, 3)" in details(page)  # the edge holds
    page.switch_to.active_element.send_keys(Keys.PAGE_UP)
    assert f"1. {EVIL}" in details(page) and "2. second" in details(page)
    assert len(find(page, ".sdx-cell[tabindex='0']")) == 1
    assert len(find(page, ".sdx-cell[aria-selected]")) == 1


def test_enter_reads_and_escape_returns(page):
    cell = find(page, ".sdx-cell[tabindex='0']")[0]
    cell.send_keys(Keys.ENTER)
    reading = page.switch_to.active_element
    assert "sdx-details" in reading.get_attribute("class")
    reading.send_keys(Keys.ESCAPE)
    back = page.switch_to.active_element
    assert back.get_attribute("data-place") == "9"


def test_cells_say_what_they_hold(page):
    def label(place):
        cell = find(page, f"[data-place='{place}']")[0]
        return cell.get_attribute("aria-label")

    assert label(15) == (
        "Cell (4, 4); expectedness 75 to 100%, relevance 75 to 100%; "
        "zone 95% of the strongest; 2 history items; the first item"
    )
    assert "recommended: 1" in label(9)
    assert "the held-out item" in label(3)
    grid = find(page, "[role=grid]")[0]
    assert len(grid.find_elements(By.CSS_SELECTOR, "[role=row]")) == SIDE
    assert len(find(page, "[role=gridcell]")) == SIDE**2


def test_the_mouse_shows_and_a_click_stays(page):
    from selenium.webdriver import ActionChains

    cells = {n: find(page, f"[data-place='{n}']")[0] for n in (0, 3, 6)}
    ActionChains(page).move_to_element(cells[6]).perform()
    assert "3. third" in details(page)
    ActionChains(page).move_to_element(find(page, "h1")[0]).perform()
    assert "Recommendation 1" in details(page)  # the chosen cell again
    ActionChains(page).click(cells[3]).perform()
    ActionChains(page).move_to_element(find(page, "h1")[0]).perform()
    assert "★ Held out: “held”, place 40" in details(page)
    ActionChains(page).click(cells[0]).perform()
    assert "No unseen item lies here." in details(page)


def test_another_user(page):
    find(page, "select option")[1].click()
    stops = find(page, ".sdx-cell[tabindex='0']")
    assert [one.get_attribute("data-place") for one in stops] == ["5"]
    assert "has 53% of" in find(page, ".sdx-about")[0].text
    assert page.execute_script("return window.hit") is None


@pytest.mark.parametrize("device", web.WIDTHS)
def test_everybody_can_use_it(page, device):
    web.resize(page, web.WIDTHS[device])
    assert web.violations(page) == []
    assert web.pixels_too_wide(page) <= 0
    for cell in find(page, ".sdx-cell"):
        assert min(cell.size.values()) >= 24  # large enough for a finger
