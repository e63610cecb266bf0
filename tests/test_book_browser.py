"""Every built page in a real browser, alone with a server on this machine.

Slow, and only where Chromium is installed: pytest -m slow
tests/test_book_browser.py. A book that lies elsewhere is named by
SERENDIFF_BOOK_HTML.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import build_book
import pytest
import yaml

pytest.importorskip("selenium", reason="selenium is not installed")

import book_browser as web

HTML = Path(os.environ.get("SERENDIFF_BOOK_HTML", web.HTML))
TOC = yaml.safe_load((web.ROOT / "_toc.yml").read_text())
PAGES = [*build_book.toc_pages(TOC), "search", "genindex"]
LIMIT = 3_000_000  # bytes that a page loads, shared scripts aside
SHARED = ("/vendor/", "/mathjax/")  # the browser keeps them for all pages
SECONDS = 2.0
HEIGHT = 12_000  # pixels of a page that is read from its top to its end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        web.CHROMIUM is None or web.DRIVER is None,
        reason="no Chromium with chromedriver here",
    ),
    pytest.mark.skipif(
        not (HTML / "index.html").is_file(),
        reason="the book is not built here: make book",
    ),
]


@pytest.fixture(scope="module")
def server():
    with web.serve(HTML) as served:
        yield served


@pytest.fixture(scope="module")
def browser():
    with web.chromium() as opened:
        yield opened


each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_a_page_opens_without_errors_and_alone(page, server, browser):
    address, missing = server
    missing.clear()
    web.resize(browser, web.WIDTHS["desktop"])
    errors, sizes = web.visit(browser, f"{address}/{page}.html")
    assert errors == []
    assert missing == []
    foreign = [
        url
        for url in sizes
        if urlsplit(url).scheme not in ("data", "blob", "about")
        and not url.startswith(address)
    ]
    assert foreign == []
    own = {u: n for u, n in sizes.items() if not any(s in u for s in SHARED)}
    assert sum(own.values()) < LIMIT, own
    # equations were set, not left as source
    dom = browser.page_source
    assert 'data-mml-node="merror"' not in dom
    if 'class="math' in dom:
        assert "mjx-container" in dom


@each_page
def test_a_page_is_interactive_within_two_seconds(page, server, browser):
    web.resize(browser, web.WIDTHS["desktop"])
    seconds = []
    for _ in range(4):  # the best counts: other programs run here, too
        web.visit(browser, f"{server[0]}/{page}.html")
        seconds.append(web.seconds_until_interactive(browser))
        if seconds[-1] < SECONDS:
            break
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if min(seconds) >= SECONDS and busy > 1.5 * cores:
        pytest.skip(f"{seconds}, but the machine is busy: load {busy:.0f}")
    assert min(seconds) < SECONDS, seconds


@each_page
def test_everybody_can_read_a_page(page, server, browser):
    """axe-core in both themes and at both widths, and no sideways scroll."""
    found = {}
    for device, width in web.WIDTHS.items():
        web.resize(browser, width)
        web.visit(browser, f"{server[0]}/{page}.html")
        for theme, rules in (("light", None), ("dark", ["color-contrast"])):
            web.set_theme(browser, theme)  # changes colours and no more
            found[device, theme] = web.violations(browser, rules)
        wide = web.pixels_too_wide(browser)
        assert wide <= 0, f"{device}: {wide} pixels too wide"
    assert {k: v for k, v in found.items() if v} == {}


# Displayed equations that begin left of their box, where no scrollbar leads,
# or end right of it although the box does not scroll.
CLIPPED = """
const clipped = [];
const scrolls = (box) => /auto|scroll/.test(getComputedStyle(box).overflowX);
for (const set of document.querySelectorAll("mjx-container[display=true]")) {
  const box = set.closest("div.math") ?? set.parentElement;
  const edge = box.getBoundingClientRect();
  for (const sign of set.querySelectorAll("mjx-c")) {
    const place = sign.getBoundingClientRect();
    const right = place.right > edge.right + 1;
    if (place.width && (place.left < edge.left - 1
        || (right && !scrolls(box) && !scrolls(set)))) {
      clipped.push(set.textContent.slice(0, 40) || set.outerHTML.slice(0, 80));
      break;
    }
  }
}
return clipped;
"""

# Text of cells that runs out of its column.
TOO_LONG = """
const column = (document.querySelector(".bd-article")
  ?? document.querySelector(".bd-content")).clientWidth;  // search has none
return [...document.querySelectorAll(".cell_output pre")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1
    || box.clientWidth > column)
  .map((box) => box.textContent.slice(0, 60));
"""


@each_page
def test_no_equation_is_cut_and_no_line_too_long(page, server, browser):
    for device, width in web.WIDTHS.items():
        web.resize(browser, width)
        web.visit(browser, f"{server[0]}/{page}.html")
        assert browser.execute_script(CLIPPED) == [], device
        assert browser.execute_script(TOO_LONG) == [], device


@pytest.mark.parametrize(
    "page",
    # the reference and the index are looked up, not read
    [p for p in PAGES if not p.startswith("book/api/") and p != "genindex"],
)
def test_a_page_is_not_too_long(page, server, browser):
    web.resize(browser, web.WIDTHS["desktop"])
    web.visit(browser, f"{server[0]}/{page}.html")
    script = "return document.documentElement.scrollHeight"
    height = browser.execute_script(script)
    assert height <= HEIGHT, "fold what reports, or cut"


def with_term(page):
    path = HTML / f"{page}.html"
    linked = path.is_file() and "glossary.html#term-" in path.read_text(
        "utf-8"
    )
    return linked and page != "genindex"  # which lists the terms themselves


@pytest.mark.parametrize("page", [page for page in PAGES if with_term(page)])
def test_a_link_to_the_glossary_tells_its_meaning(page, server, browser):
    web.resize(browser, web.WIDTHS["phone"])
    web.visit(browser, f"{server[0]}/{page}.html")
    browser.execute_script(
        "document.querySelectorAll('details').forEach((d) => (d.open = true))"
    )
    links = browser.find_elements("css selector", "a.tip")
    assert links
    browser.execute_script("arguments[0].focus()", links[0])
    box = browser.find_element("id", "tip-box")
    assert box.is_displayed() and len(box.text) > 10
    assert links[0].get_attribute("aria-describedby") == "tip-box"


def with_slider(page):
    path = HTML / f"{page}.html"
    return path.is_file() and "frame-slider" in path.read_text("utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if with_slider(page)])
def test_arrow_keys_move_a_slider_and_its_name_is_told(page, server, browser):
    from selenium.webdriver.common.keys import Keys

    web.resize(browser, web.WIDTHS["desktop"])
    web.visit(browser, f"{server[0]}/{page}.html")
    boxes = browser.find_elements("css selector", ".frame-slider")
    assert boxes
    for box in boxes:

        def shown(box=box):
            labels = box.find_elements("css selector", ".frame-label")
            return [one.text for one in labels if one.is_displayed()]

        handle = box.find_element("css selector", "[role=slider]")
        assert handle.get_attribute("aria-label")
        before = shown()
        assert len(before) == 1
        assert handle.get_attribute("aria-valuetext") == before[0]
        handle.send_keys(Keys.HOME)
        first = shown()
        handle.send_keys(Keys.ARROW_RIGHT)
        after = shown()
        assert len(after) == 1 and after != first
        assert handle.get_attribute("aria-valuetext") == after[0]


@each_page
def test_what_is_folded_is_printed(page, server, browser):
    web.resize(browser, web.WIDTHS["desktop"])
    web.visit(browser, f"{server[0]}/{page}.html")
    command = "Emulation.setEmulatedMedia"
    browser.execute_cdp_cmd(command, {"media": "print"})
    hidden = browser.execute_script(
        """
        const inside = ".bd-article details > :not(summary)";
        return [...document.querySelectorAll(inside)]
          .filter((part) => !part.checkVisibility())
          .map((part) => part.textContent.trim().slice(0, 60));
        """
    )
    browser.execute_cdp_cmd(command, {"media": ""})
    assert hidden == []


@pytest.mark.parametrize("query", ["main findings", "does diffusion help"])
def test_search_finds_the_first_page_first(query, server, browser):
    words = query.replace(" ", "+")
    web.visit(browser, f"{server[0]}/search.html?q={words}")
    links = browser.find_elements("css selector", "#search-results li a")
    assert (
        links[0]
        .get_attribute("href")
        .split("#")[0]
        .endswith("/book/index.html")
    )


def with_playground(page):
    path = HTML / f"{page}.html"
    return path.is_file() and 'class="sd-play"' in path.read_text("utf-8")


@pytest.mark.parametrize("page", list(filter(with_playground, PAGES)))
def test_the_model_in_a_page_agrees_with_python(page, server, browser):
    from selenium.webdriver.common.keys import Keys

    web.resize(browser, web.WIDTHS["desktop"])
    web.visit(browser, f"{server[0]}/{page}.html")
    button = browser.find_element("css selector", ".sdp-compare button")
    button.send_keys(Keys.ENTER)
    root = browser.find_element("css selector", ".sd-play")
    assert 0 < float(root.get_attribute("data-difference")) < 1e-4
