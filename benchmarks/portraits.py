"""Scores and portraits at the size of SerenLens, against Appendix A's text."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.measure import Setting, peak_gib, say
from serendifflib.data.world import World
from serendifflib.portrait.items import unit_rows
from serendifflib.portrait.portrait import Portraits, PortraitSpace
from serendifflib.portrait.scores import CoOccurrence

SLICE = 40  # users whose scores are also computed by the transcription


def bench_portraits(setting: Setting) -> dict[str, float]:
    """All portraits and all catalogue scores of a world; vectors given."""
    like = "serenlens-movies" if setting.quick else "serenlens-books"
    print(f"scores and portraits on World.like({like!r})")
    data = World.like(like).interactions()
    random = np.random.default_rng(0)
    vectors = random.standard_normal((data.n_items + 1, 384), np.float32)
    vectors = torch.from_numpy(unit_rows(vectors))
    vectors[0] = 0.0
    histories = np.split(data.item_index, data.row_start[1:-1])
    result: dict[str, float] = {
        "users": data.n_users,
        "items": data.n_items,
        "interactions": len(data.frame),
    }

    start = time.perf_counter()
    space = PortraitSpace.from_histories(histories, vectors)
    for history in histories:
        positions = space.positions(history, own=history)
        sparse = Portraits(
            torch.from_numpy(history)[None], torch.from_numpy(positions)[None]
        )
        sparse.dense(torch.zeros(1, dtype=torch.long), vectors, 10)
    result["portraits_s"] = time.perf_counter() - start
    result["portraits_peak_gib"] = peak_gib()
    say("all training interactions", result["portraits_s"], 30.0)
    say("peak memory, GiB", result["portraits_peak_gib"], 3.0)

    start = time.perf_counter()
    for history in histories:
        space.catalogue_scores(history, own=history)
    result["catalogue_s"] = time.perf_counter() - start
    result["catalogue_peak_gib"] = peak_gib()
    say("every item for every user", result["catalogue_s"], 300.0)
    say("peak memory, GiB", result["catalogue_peak_gib"], 6.0)

    result |= _against_transcription(histories, data.n_items)
    return result


def _against_transcription(histories, n_items: int) -> dict[str, float]:
    """Our prefix scores against Appendix A, written out with loops."""
    counts = CoOccurrence.fit(histories, n_items)
    # users of middling activity; the loops would need hours for all
    order = np.argsort([len(h) for h in histories], kind="stable")
    middle = order[len(order) // 2 :][:SLICE]
    slices = [histories[user] for user in middle]
    start = time.perf_counter()
    ours = [counts.log_prefix(h, own=h) for h in slices]
    fast = time.perf_counter() - start
    start = time.perf_counter()
    theirs = transcription(histories, middle, n_items)
    slow = time.perf_counter() - start
    difference = max(
        float(np.abs(a[1:] - b[1:]).max(initial=0.0))
        for a, b in zip(ours, theirs, strict=True)
    )
    print(
        f"  transcription of Appendix A on {len(slices)} users: {slow:.2f} s, "
        f"ours {fast:.4f} s, ratio {slow / fast:.0f} (target 100); largest "
        f"difference of the logarithms {difference:.1e} (target 1e-6)"
    )
    return {
        "transcription_s": slow,
        "same_slice_s": fast,
        "ratio": slow / fast,
        "largest_difference": difference,
    }


def transcription(
    histories, users, n_items: int, mu: float = 1.0
) -> list[np.ndarray]:
    """Eq. 13 and 14 as App. A prints them, with loops over users and pairs.

    The current user is left out of the counts and the shares are smoothed,
    as in :class:`~serendifflib.portrait.scores.CoOccurrence`.
    """
    sets = [set(map(int, history)) for history in histories]
    results = []
    for user in users:
        others = [s for u, s in enumerate(sets) if u != user]
        total = sum(len(s) for s in others) + n_items
        history = [int(item) for item in histories[user]]
        scores = [np.nan]
        for m in range(1, len(history)):
            seen = history[m]
            popular = (sum(seen in s for s in others) + 1) / total
            value = 0.0
            for given in history[:m]:
                owners = [s for s in others if given in s]
                together = sum(seen in s for s in owners)
                all_pairs = sum(len(s) - 1 for s in owners)
                value += (together + mu * popular) / (all_pairs + mu) / m
            scores.append(np.log(value))
        results.append(np.array(scores))
    return results
