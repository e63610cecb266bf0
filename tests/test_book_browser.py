"""Every built page in a real browser, alone with a server on this machine.

Slow, and only where Chromium is installed: pytest -m slow
tests/test_book_browser.py. A book that lies elsewhere is named by
SERENDIFF_BOOK_HTML.
"""

import functools
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import build_book
import pytest
import yaml

webdriver = pytest.importorskip("selenium.webdriver")

ROOT = Path(__file__).resolve().parent.parent
HTML = Path(os.environ.get("SERENDIFF_BOOK_HTML", ROOT / "_build/html"))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = (ROOT / "tests/vendor/axe.min.js").read_text("utf-8")
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [*build_book.toc_pages(TOC), "search", "genindex"]
WIDTHS = {"desktop": 1280, "phone": 390}
GRAVE = {"serious", "critical"}
LIMIT = 3_000_000  # bytes that a page loads, widget scripts aside
SHARED = ("vendor/", "/mathjax/")  # cached by the browser for all pages
SECONDS = 2.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with chromedriver here",
    ),
    pytest.mark.skipif(
        not (HTML / "index.html").is_file(),
        reason="the book is not built here: make book",
    ),
]

# Notes when the main thread was last busy for long.
WATCH = """
window.busyUntil = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) {
    window.busyUntil = task.startTime + task.duration;
  }
}).observe({type: "longtask", buffered: true});
"""


@pytest.fixture(scope="module")
def server():
    """Serve the book; remember what was asked for and not found."""
    missing = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def send_error(self, code, *arguments, **options):
            missing.append(f"{code} {self.path}")
            super().send_error(code, *arguments, **options)

    handler = functools.partial(Handler, directory=HTML)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", missing
    httpd.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Chromium for which every other host is unreachable."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    kinds = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", kinds)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(DRIVER)
    )
    driver.set_script_timeout(120)
    watch = {"source": WATCH}
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", watch)
    yield driver
    driver.quit()


def resize(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        },
    )


def set_theme(browser, theme):
    browser.execute_script(
        "document.documentElement.dataset.mode = arguments[0];"
        "document.documentElement.dataset.theme = arguments[0];",
        theme,
    )


def visit(browser, address):
    """Open a page, wait until it rests; console errors and requests."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # of the page before
    browser.get(address)
    wait_until_at_rest(browser)
    errors = [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
    ]
    requests, received = {}, {}
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        parameters = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            requests[parameters["requestId"]] = url
        elif message["method"] == "Network.dataReceived":
            number = parameters["requestId"]
            length = parameters["dataLength"]
            received[number] = received.get(number, 0) + length
    return errors, {
        url: received.get(number, 0) for number, url in requests.items()
    }


def wait_until_at_rest(browser):
    """No long task for half a second, equations and sliders in place."""
    for _ in range(100):
        rested = browser.execute_script(
            """
            const done = document.readyState === "complete";
            const set = !window.MathJax?.startup?.promise || window.mathDone;
            if (!window.mathDone && window.MathJax?.startup?.promise) {
              window.MathJax.startup.promise.then(
                () => { window.mathDone = true; });
            }
            const views = document.querySelectorAll(
              "script[type='application/vnd.jupyter.widget-view+json']");
            const drawn = !views.length
              || document.querySelector(".jupyter-widgets");
            return done && set && drawn
              && performance.now() - window.busyUntil > 500;
            """
        )
        if rested:
            return
        time.sleep(0.1)
    raise AssertionError("the page does not come to rest in ten seconds")


def seconds_until_interactive(browser):
    """When the contents stood and no long task was left to come."""
    return browser.execute_script(
        """
        const [page] = performance.getEntriesByType("navigation");
        return Math.max(page.domContentLoadedEventEnd, window.busyUntil)
          / 1000;
        """
    )


def violations(browser):
    """Serious and critical findings of axe-core, one line each."""
    if not browser.execute_script("return typeof window.axe === 'object'"):
        browser.execute_script(AXE)
    found = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        axe.run(document, {resultTypes: ["violations"]})
          .then((result) => done(result.violations))
          .catch((error) => done([{impact: "critical", id: String(error),
                                   nodes: []}]));
        """
    )
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"] or [{"target": "", "html": ""}]
    ]


each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_a_page_opens_without_errors_and_alone(page, server, browser):
    address, missing = server
    missing.clear()
    resize(browser, WIDTHS["desktop"])
    errors, requests = visit(browser, f"{address}/{page}.html")
    assert errors == []
    assert missing == []
    foreign = [
        url
        for url in requests
        if urlsplit(url).scheme not in ("data", "blob")
        and not url.startswith(address)
    ]
    assert foreign == []
    own = {
        u: n for u, n in requests.items() if not any(s in u for s in SHARED)
    }
    assert sum(own.values()) < LIMIT, own
    # equations were set, not left as source
    dom = browser.page_source
    assert 'data-mml-node="merror"' not in dom
    if 'class="math' in dom:
        assert "mjx-container" in dom


@each_page
def test_a_page_is_interactive_within_two_seconds(page, server, browser):
    resize(browser, WIDTHS["desktop"])
    seconds = []
    for _ in range(3):  # the best counts: other programs run here, too
        visit(browser, f"{server[0]}/{page}.html")
        seconds.append(seconds_until_interactive(browser))
        if seconds[-1] < SECONDS:
            break
    assert min(seconds) < SECONDS, seconds


@each_page
def test_everybody_can_read_a_page(page, server, browser):
    """axe-core in both themes and at both widths, and no sideways scroll."""
    found = {}
    for width_name, width in WIDTHS.items():
        resize(browser, width)
        visit(browser, f"{server[0]}/{page}.html")
        for theme in ("light", "dark"):
            set_theme(browser, theme)
            time.sleep(0.4)  # colours fade
            found[width_name, theme] = violations(browser)
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - innerWidth"
        )
        assert wide <= 0, f"{width_name}: {wide} pixels too wide"
    assert {k: v for k, v in found.items() if v} == {}
