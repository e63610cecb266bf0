"""Reading records back: cases, numbers with intervals, and their origin."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation import stats
from serendifflib.evaluation.metrics import METRICS, case_metrics
from serendifflib.evaluation.paper import row_key
from serendifflib.experiments.records import Cases, RecordStore, Run, recorded
from serendifflib.profiles import PROFILES

RESAMPLES = 1000


def case_frame(
    table: str,
    *,
    store: RecordStore | None = None,
    data: str | None = None,
    profile: str | None = None,
    task: str | None = None,
) -> pd.DataFrame:
    """Every test case of every record of a table, one line each.

    The default store are the recorded runs; ``data``, ``profile`` and ``task``
    leave out all others. Columns are ``row, data, profile, task, fold, user,
    target, rank`` and the five metrics.
    """
    parts = [
        pd.DataFrame(
            {
                "row": run.row,
                "data": run.data,
                "profile": run.profile,
                "task": name,
                "fold": run.fold,
                "user": cases.users,
                "target": cases.targets,
                "rank": cases.ranks,
                **_metrics(cases),
            }
        )
        for run in (store or recorded()).runs(table, data, profile)
        for name, cases in run.cases.items()
        if task in (None, name)
    ]
    if parts:
        return pd.concat(parts, ignore_index=True)
    columns = ["row", "data", "profile", "task", "fold", "user", "target"]
    return pd.DataFrame(columns=[*columns, "rank", *METRICS])


def _metrics(cases: Cases) -> dict[str, np.ndarray]:
    found = case_metrics(torch.tensor(cases.ranks))
    return {name: values.numpy() for name, values in found.items()}


_COLLECTED = (
    "row label data profile task fold metric value low high n seed commit "
    "dirty device created current outdated"
).split()


def collect(
    table: str,
    *,
    store: RecordStore | None = None,
    data: str | None = None,
    profile: str | None = None,
) -> pd.DataFrame:
    """All numbers of a table's records, per fold and averaged over folds.

    The mean is that of the fold values, as in the paper; its interval
    resamples the users of every fold. Without ``profile`` it is, per data
    set, the one that has the most rows, and of several the largest.

    Returns:
        One line per row, data set, task, fold (a number, or "mean") and
        metric: ``value, low, high`` (95%; NaN where there is no interval),
        ``n`` test cases, and where it comes from.
    """
    runs = (store or recorded()).runs(table, data, profile)
    counts: dict[tuple[int, int], np.ndarray] = {}
    lines = [line for group in _by_row(runs) for line in _lines(group, counts)]
    return pd.DataFrame(lines, columns=_COLLECTED)


def _by_row(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Records of one row and data set, of the data set's one profile.

    Rows of two profiles were judged on other people of another world: a
    table that mixed them would compare what cannot be compared.
    """

    def rank(part: Sequence[Run]) -> tuple[int, int]:
        """Rows, then size; a renamed or foreign profile is the smallest."""
        sizes = ["", *PROFILES]
        profile = part[0].profile if part[0].profile in sizes else ""
        return len({run.row for run in part}), sizes.index(profile)

    # a store gives them by data, profile, row and fold
    for _, of_data in itertools.groupby(runs, lambda run: run.data):
        parts = itertools.groupby(of_data, lambda run: run.profile)
        fullest = max((list(part) for _, part in parts), key=rank)
        for _, group in itertools.groupby(fullest, lambda run: run.row):
            yield list(group)


def _lines(
    runs: Sequence[Run], counts: dict[tuple[int, int], np.ndarray]
) -> Iterator[dict[str, Any]]:
    """Lines of one row: every number of every fold, and its mean."""
    tasks = sorted({task for run in runs for task in run.cases})
    extra = sorted({name for run in runs for name in run.extra})
    for task in tasks or ["serendipity"]:
        numbers = [_numbers(run, task, counts) for run in runs]
        for metric in dict.fromkeys([*METRICS, *extra, "seconds"]):
            having = [
                (run, found[metric])
                for run, found in zip(runs, numbers, strict=True)
                if metric in found
            ]
            parts = [(run.fold, [(run, one)]) for run, one in having]
            for fold, part in (*parts, ("mean", having)):
                if part:
                    where = {"task": task, "fold": fold, "metric": metric}
                    some = [one for _, one in part]
                    yield _origin([r for r, _ in part]) | where | _mean(some)


def _mean(numbers: Sequence[_Number]) -> dict[str, Any]:
    """The mean of a number over folds, its interval and test cases."""
    value = float(np.mean([number.value for number in numbers]))
    drawn = np.mean([number.drawn for number in numbers], axis=0)
    low, high = stats.percentile_bounds(drawn, 0.95)
    n = sum(number.n for number in numbers)
    return {"value": value, "low": low, "high": high, "n": n}


class _Number(NamedTuple):
    """A value with its resampled means (NaN: none) over n test cases."""

    value: float
    drawn: np.ndarray
    n: int


def _numbers(
    run: Run, task: str, counts: dict[tuple[int, int], np.ndarray]
) -> dict[str, _Number]:
    """Metrics of one task of a record, and the numbers beside them."""
    nothing = np.full(RESAMPLES, np.nan)
    extra = {"seconds": run.seconds, **run.extra}
    found = {name: _Number(v, nothing, 0) for name, v in extra.items()}
    cases = run.cases.get(task)
    if cases is not None and cases.ranks:
        table = np.stack(list(_metrics(cases).values()), axis=1)
        drawn = _resampled_means(table, cases.users, run.fold, counts)
        means = zip(METRICS, table.mean(axis=0), drawn.T, strict=True)
        for name, value, some in means:
            found[name] = _Number(float(value), some, len(table))
    return found


def _resampled_means(
    table: np.ndarray,
    users: Sequence[int],
    fold: int,
    counts: dict[tuple[int, int], np.ndarray],
) -> np.ndarray:
    """Bootstrap means [n, K] of K metrics over users; NaN for one user.

    All rows of a fold share the resamples, drawn once: comparing two rows
    then compares them on the same users.
    """
    number = stats.group_numbers(users, len(users))
    groups = int(number.max()) + 1
    if groups < 2:
        return np.full((RESAMPLES, table.shape[1]), np.nan)
    if (fold, groups) not in counts:
        generator = torch.Generator().manual_seed(fold)
        counts[fold, groups] = stats.resample_counts(
            groups, n=RESAMPLES, generator=generator
        )
    drawn = counts[fold, groups]
    sums = np.stack(
        [np.bincount(number, weights=column) for column in table.T], axis=1
    )
    sizes = np.bincount(number).astype(np.float64)
    return (drawn @ sums) / (drawn @ sizes)[:, None]


def _origin(runs: Sequence[Run]) -> dict[str, Any]:
    """What a line says about where it comes from."""

    def joined(values: set[str]) -> str:
        return ", ".join(sorted(values))

    outdated = {one for run in runs for one in run.outdated}
    return {
        "row": runs[0].row,
        "label": runs[0].label,
        "data": runs[0].data,
        "profile": runs[0].profile,
        "seed": joined({str(run.seed) for run in runs}),
        "commit": joined({run.commit[:10] for run in runs}),
        "dirty": any(run.dirty for run in runs),
        "device": joined({run.device for run in runs}),
        "created": max(run.created for run in runs),
        "current": not outdated,
        "outdated": joined(outdated),
    }


def trace(table: str, cell: str, *, store: RecordStore | None = None) -> str:
    """Everything that is known about one number, as text.

    A cell is ``ROW/METRIC``, ``DATA/ROW/METRIC`` or ``DATA/ROW/TASK/METRIC``;
    rows as ids or as printed.

    Raises:
        ConfigError: ``cell`` is not of that form, or names several cells.
        DataError: no record has that number.
    """
    store = store or recorded()
    parts = cell.split("/")
    if len(parts) not in (2, 3, 4) or not all(parts):
        raise ConfigError(
            f"cell {cell!r}: write DATA/ROW/METRIC, e.g. synthetic/sasrec/H@10"
        )
    data = parts[0] if len(parts) > 2 else None
    row, metric = parts[min(1, len(parts) - 2)], parts[-1]
    frame = collect(table, store=store, data=data)
    found = _named(frame, row, metric, parts[2] if len(parts) == 4 else None)
    if found.empty:
        raise DataError(
            f"no record of {table} has {cell}; rows: {_known(frame, 'row')}; "
            f"metrics: {_known(frame, 'metric')}"
        )
    if len(found[["data", "row", "task"]].drop_duplicates()) > 1:
        raise ConfigError(
            f"{cell} names several cells: write DATA/ROW/TASK/METRIC; data: "
            f"{_known(found, 'data')}; rows: {_known(found, 'row')}; "
            f"tasks: {_known(found, 'task')}"
        )
    one = found.iloc[0]
    lines = [
        f"{table} {one['data']} {one['row']} {one['task']} {metric} "
        f"(profile {one['profile']})"
    ]
    *folds, mean = found.to_dict("records")
    for line in (mean, *folds):
        shown = f"{line['value']:.6g}"
        if not math.isnan(line["low"]):
            shown += f" [{line['low']:.6g}, {line['high']:.6g}], n = "
            shown += str(line["n"])
        name = "mean" if line["fold"] == "mean" else f"fold {line['fold']}"
        lines.append(f"  {name}: {shown}")
    runs = store.runs(table, one["data"], one["profile"])
    for run in sorted(runs, key=lambda run: run.fold):
        if run.row == one["row"]:
            lines += ["", *_origin_lines(run)]
    return "\n".join(lines)


def _known(frame: pd.DataFrame, column: str) -> str:
    return ", ".join(sorted(set(frame[column]))) or "none"


def _named(
    frame: pd.DataFrame, row: str, metric: str, task: str | None
) -> pd.DataFrame:
    """Lines of a row, by id or label; of serendipity if there is no task."""
    rows = frame["row"].map(row_key), frame["label"].map(row_key)
    named = (rows[0] == row_key(row)) | (rows[1] == row_key(row))
    found = frame[named & (frame["metric"] == metric)]
    if task is None and "serendipity" in set(found["task"]):
        task = "serendipity"
    return found if task is None else found[found["task"] == task]


def _origin_lines(run: Run) -> list[str]:
    changed = " with uncommitted changes" if run.dirty else ""
    versions = ", ".join(f"{k} {v}" for k, v in run.versions.items())
    now = "; ".join(run.outdated) or "all as now"
    shown = {
        "record": f"{run.table}.jsonl, line {run.line}, fold {run.fold}",
        "made": f"{run.created} in {run.seconds:g} s",
        "data": f"{run.source} SHA-256 {run.data_checksum}",
        "candidates": run.candidates or "none",
        "seed": run.seed,
        "settings": json.dumps(dict(run.settings), sort_keys=True),
        "sizes": json.dumps(dict(run.sizes), sort_keys=True),
        "commit": f"{run.commit}{changed}",
        "parts": json.dumps(dict(run.parts), sort_keys=True),
        "versions": versions,
        "since then": now,
        "device": f"{run.device}, {run.threads} threads",
    }
    return [f"  {name}: {value}" for name, value in shown.items()]
