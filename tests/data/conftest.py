import csv
import http.server
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.data.reading import validate


class FakeEncoder:
    """Vectors that depend on nothing but the text: its letters counted."""

    def encode(self, texts):
        letters = "abcdefgh"
        counts = [[text.count(letter) for letter in letters] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), 8)


@pytest.fixture(scope="session")
def encoder():
    return FakeEncoder()


@pytest.fixture(scope="session")
def make_data():
    """Interactions from (user, item, time, label[, rating[, review]])."""

    def build(rows, **options):
        full = [
            (*row, *(None, None)[len(row) - 4 :]) if len(row) < 6 else row
            for row in rows
        ]
        table = pd.DataFrame(
            {
                "user_id": [row[0] for row in full],
                "item_id": [row[1] for row in full],
                "timestamp": [row[2] for row in full],
                "review": [
                    f"review a {row[1]}" if row[5] is None else row[5]
                    for row in full
                ],
                "rating": [5.0 if row[4] is None else row[4] for row in full],
                "label": [row[3] for row in full],
            }
        )
        frame, notes = validate(table, where="test")
        options.setdefault("has_labels", bool(frame["label"].any()))
        return Interactions(
            name="test", frame=frame, source="test", notes=notes, **options
        )

    return build


@pytest.fixture
def write_csv(tmp_path):
    """Write rows as a CSV file in the schema's columns; returns the path."""

    def write(rows, *, header=COLUMNS, name="data.csv"):
        path = tmp_path / name
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write


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


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """An empty cache and an empty data folder for one test."""
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path
