"""Which row is better, and how surely: tests and verdicts between rows.

Everything here takes the test cases of
:func:`serendifflib.experiments.results.case_frame`, so that two rows are
compared on the same users and lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from serendifflib.errors import DataError
from serendifflib.evaluation import stats
from serendifflib.evaluation.metrics import METRICS
from serendifflib.profiles import PROFILES

FOLD_STAR = "*"
HOLM_STAR = "†"


def same_profile(cases: pd.DataFrame, row: str) -> pd.DataFrame:
    """The cases of the largest profile that a row has, of all rows.

    Rows of two profiles saw different worlds and cannot be paired.
    """
    own = set(cases.loc[cases["row"] == row, "profile"])
    sizes = [name for name in PROFILES if name in own]
    return cases[cases["profile"] == (sizes[-1] if sizes else None)]


def significance(
    cases: pd.DataFrame,
    ours: str,
    rivals: Sequence[str],
    *,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Test one row against its rivals, over folds and over users.

    Takes the ``case_frame`` of one table, data set, profile and task.

    Returns:
        One line per metric and rival with cases in a fold of ours: ``metric,
        rival, folds`` (common), ``users`` (cases), ``difference, p_folds``
        (two-tailed t over fold means; NaN with one fold), ``p_users`` (paired
        t), ``p_users_holm, significant_folds, significant_holm``.

    Raises:
        DataError: two rows were not tested on the same cases.
    """
    if ours not in set(cases["row"]):
        raise DataError(f"no cases of row {ours!r} to test")
    pairs = _pairs(cases, ours, rivals)
    found = []
    for metric in metrics:
        lines = [
            {"metric": metric, "rival": rival}
            | _tested(mine[metric], theirs[metric])
            for rival, (mine, theirs) in pairs.items()
        ]
        adjusted = stats.holm([line["p_users"] for line in lines])
        for line, p in zip(lines, adjusted, strict=True):
            line["p_users_holm"] = float(p)
            line["significant_folds"] = line["p_folds"] < stats.ALPHA
            line["significant_holm"] = bool(p < stats.ALPHA)
        found += lines
    columns = (
        "metric rival folds users difference p_folds p_users p_users_holm "
        "significant_folds significant_holm"
    )
    return pd.DataFrame(found, columns=columns.split())


def _tested(mine: pd.Series, theirs: pd.Series) -> dict[str, Any]:
    """Both tests of one metric on common cases."""
    means = [v.groupby("fold").mean().to_numpy() for v in (mine, theirs)]
    folds = len(means[0])
    paired = stats.paired_t(mine, theirs)
    return {
        "folds": folds,
        "users": len(mine),
        "difference": paired.difference,
        "p_folds": stats.two_tailed_t(*means).p if folds > 1 else math.nan,
        "p_users": paired.p,
    }


def _pairs(
    cases: pd.DataFrame, one: str, others: Sequence[str]
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Cases of a row and of each other one, in the folds that both have."""
    asked = cases[cases["row"].isin([one, *others])]
    by_row = {
        row: part.set_index(["fold", "user", "target"]).sort_index()
        for row, part in asked.groupby("row")
    }
    pairs = {}
    for other in others:
        if one not in by_row or other not in by_row:
            continue
        mine, theirs = by_row[one], by_row[other]
        folds = sorted(_folds(mine) & _folds(theirs))
        if not folds:
            continue
        mine, theirs = mine.loc[folds], theirs.loc[folds]
        if not mine.index.equals(theirs.index):
            raise DataError(
                f"{one} and {other} were not tested on the same cases in "
                f"folds {folds}: run both on the same data and candidates"
            )
        pairs[other] = mine, theirs
    return pairs


def _folds(cases: pd.DataFrame) -> set[int]:
    return set(cases.index.get_level_values("fold"))


def star_marks(tests: pd.DataFrame, row: str) -> dict[tuple[str, str], str]:
    """Signs by (row, metric), from :func:`significance`.

    ``*`` (the paper's rule), ``†`` (Holm over users), both or none.
    """
    marks = {}
    for metric, part in tests.groupby("metric", sort=False):
        sign = FOLD_STAR * int(part["significant_folds"].sum() >= stats.NEEDED)
        sign += HOLM_STAR * int(part["significant_holm"].sum() >= stats.NEEDED)
        marks[row, str(metric)] = sign
    return marks


def paired_differences(
    cases: pd.DataFrame,
    baseline: str,
    rows: Sequence[str] | None = None,
    *,
    factor: float = 1.0,
) -> pd.DataFrame:
    """What each row has more of H@10 than a baseline, user by user.

    Args:
        cases: ``case_frame`` of one table, data set, profile and task.
        baseline: the row that is subtracted, ``factor`` times.
        rows: None takes all others; those without cases in a fold of the
            baseline are left out.
        factor: with 1.25, above zero means "at least a quarter more".

    Returns:
        Index: row; ``difference`` (mean over cases), ``low, high`` (95%, users
        resampled; NaN for one), ``users`` (cases), ``folds, p`` (paired t),
        ``p_holm`` (over the rows returned).
    """
    columns = ["difference", "low", "high", "users", "folds", "p", "p_holm"]
    if rows is None:
        rows = sorted(set(cases["row"]) - {baseline})
    lines = {}
    for row, (theirs, mine) in _pairs(cases, baseline, rows).items():
        if len(mine) < 2:
            continue
        ours, base = mine["H@10"], factor * theirs["H@10"]
        found = stats.bootstrap_interval(
            ours - base,
            generator=torch.Generator().manual_seed(0),
            groups=ours.index.get_level_values("user"),
        )
        folds = ours.index.get_level_values("fold").nunique()
        p = stats.paired_t(ours, base).p
        lines[row] = (*found, len(ours), folds, p)
    table = pd.DataFrame.from_dict(
        lines, orient="index", columns=columns[:-1]
    ).rename_axis("row")
    table["p_holm"] = stats.holm(table["p"]) if lines else []
    return table


def against_chance(
    cases: pd.DataFrame, chance: float, *, alpha: float = 0.05
) -> pd.DataFrame:
    """Which rows have more, or fewer, hits at 10 than drawing lots?

    Takes a ``case_frame``, and the ``chance`` of a hit by lot, 10 / C. If no
    row knows anything, any of the m rows leaves its interval with probability
    ``alpha`` (Bonferroni: alpha / m each). Index: row; ``hits, n, value, low,
    high`` (of a lot), ``p`` (two-sided, exact), ``p_holm, inside``.
    """
    hits = cases.groupby("row", sort=False)["H@10"]
    table = hits.agg(hits="sum", n="size").round().astype(int)
    table["value"] = table["hits"] / table["n"]
    level = 1 - alpha / max(1, len(table))
    bounds = [
        stats.chance_interval(n, chance, level=level) for n in table["n"]
    ]
    table["low"] = [one.low for one in bounds]
    table["high"] = [one.high for one in bounds]
    table["p"] = [
        stats.chance_p(hits, n, chance)
        for hits, n in zip(table["hits"], table["n"], strict=True)
    ]
    table["p_holm"] = stats.holm(table["p"])
    table["inside"] = table["value"].between(table["low"], table["high"])
    return table


def rank_agreement(values: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau-b between the orders that protocols give the models.

    Rows of ``values`` are models, columns protocols; NaN is not measured.
    """
    return values.astype(float).corr(method="kendall", min_periods=2)


def difference_lines(
    differences: pd.DataFrame, names: Mapping[str, str] | None = None
) -> list[str]:
    """:func:`paired_differences` as items of a Markdown list, in points."""
    names = names or {}
    return [
        f"- {names.get(row, row)}: {100 * one['difference']:+.1f} points "
        f"[{100 * one['low']:.1f}, {100 * one['high']:.1f}], "
        f"Holm p = {one['p_holm']:.2g}, {one['users']:.0f} users"
        for row, one in differences.iterrows()
    ]


def verdict(
    cases: pd.DataFrame,
    ours: str,
    controls: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
    factor: float = 1.0,
) -> str:
    """One sentence: how a row compares with *all* of its controls.

    Each control, ``factor`` times, is compared user by user, with Holm's
    correction over all of them. One without a record is named as missing,
    never dropped in silence: leaving out the strongest would flatter us.
    ``names`` are by row.
    """
    names = names or {}

    def called(rows: Sequence[str]) -> str:
        return ", ".join(str(names.get(row, row)) for row in rows)

    mine = cases.loc[cases["row"] == ours, "H@10"]
    if mine.empty:
        return f"{called([ours])} is not recorded."
    parts = [
        paired_differences(cases, row, [ours], factor=factor).rename(
            index={ours: row}
        )
        for row in controls
    ]
    gaps = pd.concat(parts) if parts else pd.DataFrame(columns=["p"])
    gaps["p_holm"] = stats.holm(gaps["p"]) if len(gaps) else []
    missing = [row for row in controls if row not in gaps.index]
    text = f"{called([ours])} has H@10 {mine.mean():.1%}"
    if len(gaps):
        sure = gaps["p_holm"] < stats.ALPHA
        above = list(gaps.index[sure & (gaps["difference"] > 0)])
        below = list(gaps.index[sure & (gaps["difference"] < 0)])
        hard = gaps["difference"].idxmin()
        gap, low, high = 100 * gaps.loc[hard, ["difference", "low", "high"]]
        times = "" if factor == 1 else f"{factor:g} times "
        text += (
            f", surely above {times}{len(above)} of {len(gaps)} controls"
            + (f" and surely below {called(below)}" if below else "")
            + f"; against {times}the strongest, {called([hard])}: {gap:+.1f} "
            f"points [{low:.1f}, {high:.1f}]"
        )
    if missing:
        text += f"; not compared: {called(missing)}"
    return text + "."
