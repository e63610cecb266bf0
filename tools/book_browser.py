"""Open pages of the book in Chromium, alone with a server on this machine.

What the tests of the pages share, and a way to look at pages: screenshots in
both themes, on a desktop and on a phone.

Usage: python tools/book_browser.py OUT PAGE[#ANCHOR] [PAGE ...]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build/html"
AXE = ROOT / "tests/vendor/axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WIDTHS = {"desktop": 1280, "phone": 390}
THEMES = ("light", "dark")
GRAVE = {"serious", "critical"}
REST_SECONDS = 20

# Notes when the main thread was last busy for long.
WATCH = """
window.busyUntil = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) {
    window.busyUntil = task.startTime + task.duration;
  }
}).observe({type: "longtask", buffered: true});
"""

AT_REST = """
const math = window.MathJax?.startup?.promise;
if (math && !window.mathWatched) {
  window.mathWatched = true;
  math.then(() => { window.mathDone = true; });
}
const views = document.querySelectorAll("script[type*='widget-view']");
return document.readyState === "complete"
  && (!math || window.mathDone)
  && (!views.length || document.querySelector(".jupyter-widgets"))
  && performance.now() - window.busyUntil > 500;
"""

RUN_AXE = """
const [rules, done] = arguments;
const options = {resultTypes: ["violations"]};
if (rules) options.runOnly = {type: "rule", values: rules};
axe.run(document, options)
  .then((result) => done(result.violations))
  .catch((error) => done([{impact: "critical", id: String(error),
                           nodes: [{target: "", html: ""}]}]));
"""


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder; yields its address and what was not found so far."""
    missing: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def send_error(self, code: int, *rest: Any, **options: Any) -> None:
            missing.append(f"{code} {self.path}")
            super().send_error(code, *rest, **options)

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", missing
    finally:
        server.shutdown()


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
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
    browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(DRIVER)
    )
    browser.set_script_timeout(120)
    command = "Page.addScriptToEvaluateOnNewDocument"
    browser.execute_cdp_cmd(command, {"source": WATCH})
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: webdriver.Chrome, width: int, height: int = 900) -> None:
    """Give the page a width in pixels; below 600 it is a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", size | {"mobile": width < 600}
    )


def set_theme(browser: webdriver.Chrome, theme: str) -> None:
    """Switch the open page to ``light`` or ``dark``."""
    browser.execute_script(
        "document.documentElement.dataset.mode = arguments[0];"
        "document.documentElement.dataset.theme = arguments[0];",
        theme,
    )
    time.sleep(0.4)  # colours fade


def visit(
    browser: webdriver.Chrome, address: str
) -> tuple[list[str], dict[str, int]]:
    """Open a page and wait until it rests.

    Returns:
        errors on the console; bytes received per requested address.
    """
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # of the page before
    browser.get("about:blank")  # or an anchor of this page would only scroll
    browser.get(address)
    end = time.monotonic() + REST_SECONDS
    while not browser.execute_script(AT_REST):
        if time.monotonic() > end:
            raise TimeoutError(f"{address} does not come to rest")
        time.sleep(0.1)
    errors = [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
    ]
    asked: dict[str, str] = {}
    received: dict[str, int] = {}
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        values = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            asked[values["requestId"]] = values["request"]["url"]
        elif message["method"] == "Network.dataReceived":
            number = values["requestId"]
            length = values["dataLength"]
            received[number] = received.get(number, 0) + length
    sizes: dict[str, int] = {}
    for number, url in asked.items():
        sizes[url] = sizes.get(url, 0) + received.get(number, 0)
    return errors, sizes


def seconds_until_interactive(browser: webdriver.Chrome) -> float:
    """When the contents stood and the last long task had ended."""
    return browser.execute_script(
        """
        const [page] = performance.getEntriesByType("navigation");
        return Math.max(page.domContentLoadedEventEnd, window.busyUntil)
          / 1000;
        """
    )


def pixels_too_wide(browser: webdriver.Chrome) -> int:
    """How far the page scrolls sideways."""
    return browser.execute_script(
        "return document.documentElement.scrollWidth - innerWidth"
    )


def violations(
    browser: webdriver.Chrome, rules: list[str] | None = None
) -> list[str]:
    """Serious and critical findings of axe-core, one line per element.

    Args:
        browser: with the page.
        rules: only these; None is all.
    """
    if not browser.execute_script("return typeof window.axe === 'object'"):
        browser.execute_script(AXE.read_text("utf-8"))
    return [
        f"{found['id']}: {node['target']} {node['html'][:160]}"
        for found in browser.execute_async_script(RUN_AXE, rules)
        if found["impact"] in GRAVE
        for node in found["nodes"]
    ]


def main() -> int:
    """Write screenshots of pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("pages", nargs="+", help="e.g. book/index")
    parser.add_argument("--html", type=Path, default=HTML)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with serve(arguments.html) as (address, _), chromium() as browser:
        for page in arguments.pages:
            name, _, anchor = page.partition("#")
            for device, width in WIDTHS.items():
                resize(browser, width, 1000 if width > 600 else 844)
                visit(browser, f"{address}/{name}.html#{anchor}")
                for theme in THEMES:
                    set_theme(browser, theme)
                    stem = f"{name.replace('/', '_')}_{device}_{theme}.png"
                    browser.save_screenshot(str(arguments.out / stem))
                    print(arguments.out / stem)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
