"""Every built page in a real browser, alone with a server on this machine.

Slow, and only where Chromium is installed: pytest -m slow
tests/test_book_browser.py
"""

import functools
import http.server
import re
import shutil
import subprocess
import threading
from pathlib import Path

import build_book
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build/html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [*build_book.toc_pages(TOC), "search", "genindex"]
ERRORS = re.compile(r"Uncaught|ERROR:CONSOLE|SyntaxError|TypeError|Refused to")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.skipif(
        not (HTML / "index.html").is_file(),
        reason="the book is not built here: make book",
    ),
]


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


def visit(address, profile):
    """Load a page with every other host unreachable; DOM and messages."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=8000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_errors_and_alone(page, server, tmp_path):
    address, missing = server
    missing.clear()
    dom, console = visit(f"{address}/{page}.html", tmp_path)
    assert "</html>" in dom
    assert [line for line in console if ERRORS.search(line)] == []
    assert [line for line in missing if "favicon.ico" not in line] == []
    # equations were set, not left as source
    assert 'data-mml-node="merror"' not in dom
    if 'class="math' in dom:
        assert "mjx-container" in dom
    # sliders became sliders
    if "widget-view+json" in dom:
        assert "jupyter-widgets" in dom
