"""Five million rows through a process, and how much memory that takes."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.encode import some_reviews
from benchmarks.measure import Setting, peak_gib, say
from serendifflib.portrait.items import ReviewEncoder
from serendifflib.portrait.streaming import (
    read_rows,
    streamed_counts,
    streamed_vectors,
)

ROWS = 5_000_000
ENCODED = 256  # reviews of 1,000 characters that stand for all
LIMIT_GIB = 8.0


def bench_stream(setting: Setting) -> dict:
    """Generate a file, count and average it in parts, note the peak.

    The work runs in a process of its own, whose memory nothing else has
    touched. The averages are over vectors that cost nothing to make; what
    the real encoder would take is measured on a few reviews and
    extrapolated.
    """
    rows = 20_000 if setting.quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        write_rows(path, rows)
        size = path.stat().st_size
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            result = pool.apply(_work, (path,))
    texts = some_reviews(8 if setting.quick else ENCODED)
    encoder = ReviewEncoder(cache=Path()).model
    start = time.perf_counter()
    encoder.encode(texts, show_progress_bar=False)
    each = (time.perf_counter() - start) / len(texts)
    result |= {
        "rows": rows,
        "file_gib": size / 2**30,
        "encoded_reviews": len(texts),
        "encode_per_review_s": each,
        "encode_all_hours_extrapolated": each * rows / 3600,
    }
    say(f"{rows} rows: first pass and counts, s", result["counts_s"])
    say("second pass without encoding, s", result["vectors_s"])
    say("peak memory, GiB", result["peak_gib"], LIMIT_GIB)
    say("encoding them, hours, extrapolated", each * rows / 3600)
    return result


def _work(path: Path) -> dict:
    begun = peak_gib()
    start = time.perf_counter()
    rows = read_rows(path)
    counts = streamed_counts(rows)
    counted, after_counts = time.perf_counter() - start, peak_gib()
    start = time.perf_counter()
    vectors, missing = streamed_vectors(rows, Lengths())
    return {
        "users": len(rows.users),
        "items": len(rows.items),
        "pairs": int(counts.matrix.nnz),
        "items_without_review": len(missing),
        "counts_s": counted,
        "vectors_s": time.perf_counter() - start,
        "rows_per_s": len(rows) / counted,
        "libraries_gib": begun,
        "counts_peak_gib": after_counts,
        "peak_gib": peak_gib(),
        "vectors_gib": vectors.nbytes / 2**30,
    }


class Lengths:
    """Vectors of the real width that cost nothing: the text's length."""

    fingerprint = "lengths"

    def encode(self, texts) -> np.ndarray:
        """[len(texts), 384]."""
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        vectors[:, 0] = 1.0
        vectors[:, 1] = [len(text) for text in texts]
        return vectors


def write_rows(path: Path, rows: int, *, part: int = 250_000) -> None:
    """A file in SerenLens' columns: ids as at Amazon, short reviews.

    Every user has about 20 rows, items are popular by Zipf's law.
    """
    random = np.random.default_rng(0)
    users, items = max(1, rows // 20), max(10, rows // 25)
    with path.open("w", encoding="utf-8") as file:
        file.write("user_id,item_id,timestamp,review,rating,label\n")
        for start in range(0, rows, part):
            count = min(part, rows - start)
            user = random.integers(users, size=count)
            # the logarithm of a Zipf rank is uniform
            item = np.exp(random.random(count) * np.log(items)).astype(int)
            second = random.integers(1_400_000_000, size=count)
            lines = [
                f"A{u:013d},B{i:09d},{s},"
                f'"Number {n}: I liked it, mostly.",{n % 5 + 1},0\n'
                for n, (u, i, s) in enumerate(
                    zip(
                        user.tolist(),
                        item.tolist(),
                        second.tolist(),
                        strict=True,
                    ),
                    start,
                )
            ]
            file.write("".join(lines))
