"""Reviews to vectors, against plain sentence-transformers."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Setting, say, timed
from serendifflib.baselines.controls import CONTROLS
from serendifflib.data.world import World
from serendifflib.evaluation import stats
from serendifflib.evaluation.protocol import evaluate
from serendifflib.experiments.prepared import Bench, open_bench
from serendifflib.portrait.encoding import FastReviewEncoder
from serendifflib.portrait.fold import FoldData, prepare_fold
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import ReviewEncoder
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import PROFILES

CHARACTERS = 1000  # of a SerenLens review, about
TARGET_RATIO, TARGET_COSINE = 3.0, 0.99
NEIGHBOURS = 10


def bench_encode(setting: Setting) -> dict:
    """Reviews per second; how close the vectors are; what a cache hit costs.

    The reference is ``SentenceTransformer.encode`` as it comes. On the
    vectors of each encoder a control is fitted and judged (H@10).
    """
    texts = some_reviews(12 if setting.quick else 48)
    repeats = 1 if setting.quick else 3
    plain = ReviewEncoder(cache=Path()).model
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    reference, wanted = _timed(plain, texts, options, repeats)
    result: dict = {
        "reviews": len(texts),
        "characters": float(np.mean([len(text) for text in texts])),
        "plain": reference,
        "encoders": {},
    }
    say("plain sentence-transformers, s", reference["median_s"])
    encoders = _encoders()
    for name, make in encoders.items():
        encoder = make(Path())
        model = encoder.model
        found, vectors = _timed(model, texts, options, repeats)
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
        say(
            f"{name}: by processor time",
            result["encoders"][name]["ratio_cpu"],
        )
        say(f"{name}: mean cosine to plain", float(cosines.mean()))
    result["cache"] = _cache_hit(texts)
    if encoders:
        with tempfile.TemporaryDirectory() as folder:
            made = {n: make(Path(folder)) for n, make in encoders.items()}
            found = hit_ratios(_world(setting), made)
        for name, hits in found.items():
            result["encoders"][name]["hits"] = hits
            say(f"{name}: H@10 of a control", hits["fast"])
            say("with plain vectors", hits["plain"])
            print(f"  difference in [{hits['low']:.3f}, {hits['high']:.3f}]")
    print(f"  (targets: {TARGET_RATIO} times, cosine {TARGET_COSINE})")
    return result


def _world(setting: Setting) -> Bench:
    """A fold of the strong world with the plain encoder's vectors."""
    profile = PROFILES["smoke"]
    if setting.quick:
        profile = replace(
            profile, world_users=120, world_items=200, test_users=20
        )
    count = 50 if setting.quick else 1_000
    return open_bench(profile=profile, n_candidates=count)


def hit_ratios(
    bench: Bench, encoders: Mapping[str, ReviewEncoder]
) -> dict[str, dict]:
    """H@10 on the vectors of other encoders, for the same lists.

    The model is the strongest control, a linear map with a radius; it is
    fitted on the bench's vectors and on those of every encoder.

    Returns:
        Per encoder, ``plain`` and ``fast``: the two ratios; ``difference``
        (fast minus plain), ``low`` and ``high``: its mean and 95% interval
        from resampling users; ``users``.
    """
    fold, found = bench.fold, {}
    plain = _hits(bench, fold)
    for name, encoder in encoders.items():
        other = prepare_fold(
            fold.interactions, fold.split, kind=fold.kind, encoder=encoder
        )
        fast = _hits(bench, other)
        gap = stats.bootstrap_interval(
            fast - plain, generator=torch.Generator().manual_seed(0)
        )
        found[name] = {
            "plain": float(plain.mean()),
            "fast": float(fast.mean()),
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "users": len(plain),
        }
    return found


def _hits(bench: Bench, fold: FoldData) -> np.ndarray:
    """Hits of the control per test user, fitted on a fold's vectors."""
    model = CONTROLS["linear-radius"](grid=Grid(PortraitSpace.fit(fold)))
    model.fit(fold, generator=torch.Generator().manual_seed(0))
    found = evaluate(
        model,
        bench.test,
        bench.test_candidates,
        generator=torch.Generator().manual_seed(0),
    )
    return found["H@10"].to_numpy()


def _timed(model, texts, options, repeats):
    """Times of a model after a short warm-up, and its vectors."""
    model.encode(texts[:4], **options)
    kept = []

    def work():
        kept[:] = [model.encode(texts, **options)]

    return timed(work, repeats, warm_up=0), kept[0]


def _encoders():
    found: dict = {}
    if importlib.util.find_spec("openvino") is None:
        print("  OpenVINO is not installed: there is no faster encoder")
        return found
    best = FastReviewEncoder().computes_in
    for precision in dict.fromkeys(("float32", "int8", best)):
        found[f"OpenVINO {precision}"] = lambda cache, p=precision: (
            FastReviewEncoder(cache=cache, precision=p)
        )
    return found


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
