"""Fixtures for all rooms: a tiny world, a fake encoder, a fitted model.

No test touches the cache of whoever runs the tests.
"""

import hashlib
import http.server
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings

from serendifflib.data.splits import user_folds
from serendifflib.data.world import World
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.fold import prepare_fold

# the same examples in every run; a slow machine is no failure
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


class WordEncoder:
    """Every word has a fixed random vector; a text is the sum, d = 16."""

    fingerprint = "words"
    width = 16

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.sha256(word.encode()).digest()
                values = np.frombuffer(digest[: self.width], dtype=np.uint8)
                vectors[row] += values / 127.5 - 1.0
        return unit_rows(vectors)

    def seconds_for(self, texts):
        return 0.0


@pytest.fixture(scope="session", autouse=True)
def no_real_cache(tmp_path_factory):
    """A cache of the test session instead of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERENDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def a_kernel_answers(monkeypatch):
    """No test is told that its pages are static because of another one."""
    monkeypatch.delenv("SERENDIFF_PAGES", raising=False)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SERENDIFF_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def word_encoder():
    return WordEncoder()


@pytest.fixture(scope="session")
def tiny_data():
    """60 users, 200 items, serendipity labels."""
    return World("strong", n_users=60, n_items=200, seed=1).interactions()


@pytest.fixture(scope="session")
def tiny_fold(tiny_data, word_encoder):
    split = user_folds(tiny_data, 3, seed=0)[0]
    return prepare_fold(tiny_data, split, encoder=word_encoder)


TINY = {
    "width": 8,
    "side": 5,
    "timesteps": 20,
    "steps": 10,
    "batch_size": 8,
    "validate_every": 5,
}


@pytest.fixture(scope="session")
def tiny_settings():
    """Settings that replace a preset's, for a model that fits in a second."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_model(tiny_fold):
    """A fitted model of the preset ``tuned``; do not change it."""
    model = SerenDiff("tuned", device="cpu", progress=False, **TINY)
    return model.fit(tiny_fold, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def server():
    """A local web server with faults to order.

    ``files`` maps paths to bytes; ``faults`` maps a path to a list of faults,
    one used up per request: ("cut", bytes), ("status", code),
    ("redirect", address), ("slow", seconds per block), "no-range",
    "no-length", None.
    """
    state = SimpleNamespace(files={}, faults={}, requests=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            state.requests.append((self.path, self.headers.get("Range")))
            queue = state.faults.get(self.path) or [None]
            fault = queue.pop(0) if len(queue) > 1 else queue[0]
            kind, value = fault if isinstance(fault, tuple) else (fault, 0)
            if kind == "status":
                self.send_error(value)
                return
            if kind == "redirect":
                self.send_response(302)
                self.send_header("Location", value)
                self.end_headers()
                return
            body = state.files[self.path]
            wanted = self.headers.get("Range")
            start = 0
            if wanted and kind != "no-range":
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range",
                    f"bytes {start}-{len(body) - 1}/{len(body)}",
                )
            else:
                self.send_response(200)
            if kind != "no-length":
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = value if kind == "cut" else len(body)
            step = 4096 if kind == "slow" else 1 << 20
            for place in range(start, end, step):
                try:
                    self.wfile.write(body[place : min(place + step, end)])
                except (BrokenPipeError, ConnectionResetError):
                    return
                if kind == "slow":
                    threading.Event().wait(value)

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(
        target=service.serve_forever, args=(0.01,), daemon=True
    )
    thread.start()
    state.url = f"http://127.0.0.1:{service.server_port}"
    yield state
    service.shutdown()
    service.server_close()
