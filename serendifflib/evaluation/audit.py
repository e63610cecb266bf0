"""What printed rates can and cannot be: checks of the paper's own tables.

With one positive per test case, hit ratios bound NDCG, and a rate over n
cases is a multiple of 1/n. Both follow from the protocol of Section 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

from serendifflib.errors import ConfigError, DataError, check_choice
from serendifflib.evaluation.paper import PaperTable

HALF_RATE = 0.5e-4  # a rate is printed to 0.01%
HALF_NDCG = 0.5e-3  # an NDCG is printed to 0.001


class Bounds(NamedTuple):
    """Lowest and highest value that are possible."""

    low: float
    high: float


def ndcg_bounds(hits: Mapping[int, float], k: int) -> Bounds:
    r"""Range of NDCG@k that hit ratios allow, one positive per case.

    The share ``H@1`` of cases has rank 1 and gains 1 each, the share
    ``H@5 - H@1`` has a rank from 2 to 5 and gains 1/log2(6) to 1/log2(3):

    .. math::
        H_1 + \frac{H_5 - H_1}{\log_2 6} + \frac{H_{10} - H_5}{\log_2 11}
        \le N@10 \le
        H_1 + \frac{H_5 - H_1}{\log_2 3} + \frac{H_{10} - H_5}{\log_2 7}

    Both sides are linear, so the bounds hold for means over folds as well.
    ``hits`` maps cut-offs, k among them, to hit ratios.

    >>> low, high = ndcg_bounds({1: 0.0981, 5: 0.3049}, k=5)
    >>> round(low, 3), round(high, 3)
    (0.178, 0.229)
    """
    if k not in hits:
        raise ConfigError(f"bounds of N@{k} need H@{k}; given: {list(hits)}")
    low = high = reached = 0.0
    before = 0
    for cut in sorted(c for c in hits if c <= k):
        share = hits[cut] - reached
        if not 0 <= hits[cut] <= 1 or share < 0:
            raise DataError(
                f"H@{cut}={hits[cut]}: hit ratios lie in [0, 1] and never "
                "fall with k"
            )
        low += share / math.log2(cut + 1)
        high += share / math.log2(before + 2)
        reached, before = hits[cut], cut
    return Bounds(low, high)


def check_ndcg(
    hits: Mapping[int, float], reported: float, k: int
) -> tuple[Bounds, str]:
    """Compare a printed NDCG with the range that printed hit ratios allow.

    The range is the widest where all hit ratios are moved by half of their
    last digit; the verdict is ``"possible"``, ``"too high"`` or ``"too low"``.
    """
    down = {cut: max(rate - HALF_RATE, 0.0) for cut, rate in hits.items()}
    up = {cut: min(rate + HALF_RATE, 1.0) for cut, rate in hits.items()}
    allowed = Bounds(ndcg_bounds(down, k).low, ndcg_bounds(up, k).high)
    return allowed, _verdict(allowed, reported, HALF_NDCG)


def check_step(hits5: float, hits10: float, step: float) -> tuple[Bounds, str]:
    """The same for the difference ``step`` of printed N@10 and N@5.

    Only the share H@10 - H@5, with ranks 6 to 10, can make it, between
    1/log2(11) and 1/log2(7) each.
    """
    share = hits10 - hits5
    allowed = Bounds(
        max(share - 2 * HALF_RATE, 0.0) / math.log2(11),
        (share + 2 * HALF_RATE) / math.log2(7),
    )
    return allowed, _verdict(allowed, step, 2 * HALF_NDCG)


def _verdict(allowed: Bounds, reported: float, half: float) -> str:
    # a float's own rounding must not decide a verdict
    slack = half + 1e-12
    if reported - slack > allowed.high:
        return "too high"
    if reported + slack < allowed.low:
        return "too low"
    return "possible"


def audit_ndcg(paper: PaperTable) -> pd.DataFrame:
    """Check every NDCG of a table of the paper (its Tables 4 and 5).

    Three lines per printed row: ``task, data, row, metric`` (N@5, N@10,
    "N@10 - N@5"), ``low, high, reported, verdict`` (:func:`check_ndcg`), and
    ``above_hit_ratio``: the NDCG exceeds even the hit ratio.
    """
    found = []
    for where, values in _rows(paper):
        hits = {k: values[f"H@{k}"] for k in (1, 5, 10)}
        lines = []
        for k in (5, 10):
            reported = values[f"N@{k}"]
            crude = reported - HALF_NDCG > hits[k] + HALF_RATE
            checked = check_ndcg(hits, reported, k)
            lines.append((f"N@{k}", reported, *checked, crude))
        step = values["N@10"] - values["N@5"]
        checked = check_step(hits[5], hits[10], step)
        lines.append(("N@10 - N@5", step, *checked, False))
        found += [
            {
                **where,
                "metric": metric,
                "low": allowed.low,
                "high": allowed.high,
                "reported": reported,
                "verdict": verdict,
                "above_hit_ratio": crude,
            }
            for metric, reported, allowed, verdict, crude in lines
        ]
    return pd.DataFrame(found)


def _rows(
    paper: PaperTable,
) -> Iterator[tuple[dict[str, str], Mapping[str, float]]]:
    """Task, data and row of every printed row, and its numbers."""
    for panel in paper.panels:
        for row in panel.rows:
            where = {"task": panel.task, "data": panel.data, "row": row.row}
            yield where, row.values


class Multiple(NamedTuple):
    """Whether a printed rate can be hits / n, and what that proves.

    ``hits`` is the nearest number where none fits; ``chance`` is the share of
    all printable rates that would fit as well.
    """

    fits: bool
    hits: int
    chance: float


def multiples_of(
    rate: float, n: int = 256, *, decimals: int = 4, rounding: str = "either"
) -> Multiple:
    """Check whether a rate in [0, 1], as printed, is a multiple of 1/n.

    The ``rounding`` is ``"nearest"``, ``"down"`` (cut off) or ``"either"``, to
    so many ``decimals`` of the rate as a fraction.

    >>> fits, hits, chance = multiples_of(0.3359)
    >>> fits, hits, round(chance, 4)
    (True, 86, 0.0385)
    """
    if not 0 <= rate <= 1:
        raise DataError(f"rate {rate}: expected a number in [0, 1]")
    if n < 1:
        raise ConfigError(f"n={n}: at least one case is needed")
    scale = 10**decimals
    counts = np.arange(n + 1)
    # whole-number arithmetic: no float can tip a tie
    down = counts * scale // n
    nearest = (2 * counts * scale + n) // (2 * n)
    ways = {"down": [down], "nearest": [nearest], "either": [down, nearest]}
    check_choice("rounding", rounding, ways)
    printed = np.stack(ways[rounding])
    chance = np.unique(printed).size / (scale + 1)
    fitting = np.flatnonzero((printed == round(rate * scale)).any(axis=0))
    if len(fitting):
        return Multiple(True, int(fitting[0]), chance)
    return Multiple(False, min(round(rate * n), n), chance)


def audit_multiples(paper: PaperTable, n: int = 256) -> pd.DataFrame:
    """Which rows of a table have hit ratios that are multiples of 1/n.

    One row per printed row: ``task, data, row, hits`` (of each hit ratio, or
    None), ``fits`` (all do), ``chance`` (that unrelated rates all fit) and
    ``standard_error`` of the last hit ratio at n cases.
    """
    names = [name for name in paper.columns if name.startswith("H@")]
    found = []
    for where, values in _rows(paper):
        checks = [multiples_of(values[k], n) for k in names]
        found.append(
            {
                **where,
                "hits": [c.hits if c.fits else None for c in checks],
                "fits": all(check.fits for check in checks),
                "chance": math.prod(check.chance for check in checks),
                "standard_error": standard_error(values[names[-1]], n),
            }
        )
    return pd.DataFrame(found)


def scan_denominators(
    paper: PaperTable, denominators: Iterable[int]
) -> pd.DataFrame:
    """Try many n: does one that was chosen after a look stand out?

    One row per panel and n: ``task, data, n, rows`` (printed), ``fitting,
    expected`` (by chance), ``p``: the chance that so many or more fit.
    """
    tables = [audit_multiples(paper, n).assign(n=n) for n in denominators]
    found = (
        pd.concat(tables)
        .groupby(["n", "task", "data"], sort=False, as_index=False)
        .agg(
            rows=("fits", "size"),
            fitting=("fits", "sum"),
            chance=("chance", "first"),
        )
    )
    found["expected"] = found["chance"] * found["rows"]
    found["p"] = binom.sf(found["fitting"] - 1, found["rows"], found["chance"])
    columns = ["task", "data", "n", "rows", "fitting", "expected", "p"]
    return found[columns]


def standard_error(rate: float, n: int) -> float:
    """Standard error of a rate over n independent cases, sqrt(p (1-p)/n).

    >>> round(standard_error(0.3359, 256), 4)
    0.0295
    """
    if n < 1 or not 0 <= rate <= 1:
        raise DataError(f"rate {rate} over n={n} cases is not a rate")
    return math.sqrt(rate * (1 - rate) / n)
