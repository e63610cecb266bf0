"""Reviews to vectors, against plain sentence-transformers."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Setting, say, timed
from serendifflib.data.world import World
from serendifflib.portrait.encoding import (
    CLOSE,
    CompiledEncoder,
    ReviewEncoder,
    has_bfloat16,
)

CHARACTERS = 1000  # of a SerenLens review, about
TARGET_RATIO = 3.0
NEIGHBOURS = 10


def bench_encode(setting: Setting) -> dict:
    """Reviews per second; how close the vectors are; what a cache hit costs.

    The reference is ``SentenceTransformer.encode`` as it comes.
    """
    texts = some_reviews(12 if setting.quick else 48)
    span = 0.1 if setting.quick else 10.0
    plain = ReviewEncoder(cache=Path())
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    wanted = plain.model.encode(texts, **options)
    reference = timed(lambda: plain.model.encode(texts, **options), span)
    result: dict = {
        "reviews": len(texts),
        "characters": float(np.mean([len(text) for text in texts])),
        "plain": reference,
        "encoders": {},
    }
    say("plain sentence-transformers, s", reference["median_s"])
    for name, precision in _precisions().items():
        model = CompiledEncoder(str(plain.model_path), precision)
        vectors = model.encode(texts)
        found = timed(lambda model=model: model.encode(texts), span)
        ratio = reference["median_s"] / found["median_s"]
        cosines = (vectors * wanted).sum(axis=1)
        result["encoders"][name] = {
            "seconds": found,
            "ratio": ratio,
            "ratio_cpu": reference["cpu_median_s"] / found["cpu_median_s"],
            "mean_cosine": float(cosines.mean()),
            "min_cosine": float(cosines.min()),
            "same_neighbours": _agreement(vectors, wanted),
        }
        say(f"{name}: times plain's speed", ratio)
        say(f"{name}: least cosine to plain", float(cosines.min()))
    result["cache"] = _cache_hit(texts)
    print(f"  (targets: {TARGET_RATIO} times, cosine {CLOSE})")
    return result


def _precisions() -> dict[str, str]:
    if importlib.util.find_spec("openvino") is None:
        print("  OpenVINO is not installed: there is no faster encoder")
        return {}
    fast = {"OpenVINO bfloat16": "bf16"} if has_bfloat16() else {}
    return {"OpenVINO float32": "f32", **fast}


def _cache_hit(texts: list[str]) -> dict:
    """Encode, then ask a fresh encoder for the same texts."""
    with tempfile.TemporaryDirectory() as folder:
        ReviewEncoder(cache=Path(folder)).encode(texts)
        again = ReviewEncoder(cache=Path(folder))
        start = time.perf_counter()
        again.encode(texts)
        seconds = time.perf_counter() - start
    loaded = "model" in again.__dict__
    say("the same from the cache, s", seconds)
    return {"seconds": seconds, "model_loaded": loaded}


def _agreement(vectors: np.ndarray, wanted: np.ndarray) -> float:
    """Share of each text's nearest texts that both vectors agree on."""
    count = min(NEIGHBOURS, len(vectors) - 1)
    near = []
    for rows in (vectors, wanted):
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -2.0)
        near.append(np.argsort(-cosines, axis=1)[:, :count].tolist())
    both = [len(set(a) & set(b)) for a, b in zip(*near, strict=True)]
    return float(np.mean(both) / count)


def some_reviews(count: int, seed: int = 0) -> list[str]:
    """Reviews of about 1,000 characters, of sentences of the simulator."""
    frame = World("strong", n_users=200, n_items=300, seed=1).interactions()
    sentences = list(dict.fromkeys(frame.frame["review"]))
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        wanted, text = random.normal(CHARACTERS, 150), ""
        while len(text) < wanted:
            text += sentences[random.integers(len(sentences))] + " "
        texts.append(text.strip())
    return texts
