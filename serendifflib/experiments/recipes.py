"""From a unit of a table to its outcome: open the bench, fit, rank.

A unit's settings alone decide the result, and enter its key.
"""

from __future__ import annotations

import functools
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import TruncatedSVD

from serendifflib.baselines.controls import CONTROLS
from serendifflib.baselines.modes import MODES
from serendifflib.baselines.ranker import RERANKERS, SetRanker
from serendifflib.baselines.registry import Budget, make_model
from serendifflib.baselines.trainer import TorchRival
from serendifflib.data.interactions import Interactions, derived_seed
from serendifflib.data.sources import load_dataset
from serendifflib.data.splits import Examples
from serendifflib.errors import CheckpointError, ConfigError
from serendifflib.evaluation.candidates import Candidates, draw_candidates
from serendifflib.evaluation.lists import TOP, ListMeasures
from serendifflib.evaluation.protocol import evaluate
from serendifflib.experiments.prepared import (
    PreparedFold,
    load_or_fit,
    open_bench,
)
from serendifflib.experiments.records import Cases, Outcome, Unit
from serendifflib.experiments.rows import TASKS, Row
from serendifflib.experiments.versions import device_name
from serendifflib.io import cache_dir
from serendifflib.portrait.encoding import TfidfEncoder, unit_rows
from serendifflib.portrait.fold import FoldData, prepare_fold
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import Profile
from serendifflib.recommender import Recommender

RANKERS = {"ranker": SetRanker} | MODES | RERANKERS


def evaluate_row(unit: Unit, *, source: str | None = None) -> Outcome:
    """Fit the row's model on the unit's fold and rank the test cases.

    The settings of a unit are ``tasks``, ``n_candidates`` (C of lists that are
    not as long as they can be) and :meth:`Row.settings`; ``source`` is what to
    load, if it is not the data id (a CSV path).

    Returns:
        Ranks per task, and: ``fit_seconds`` (of the training, from its
        report where there is one), ``train_seconds`` per batch (validation
        included), ``steps``, ``loss`` (mean of SerenDiff's last 100 steps),
        ``score_seconds`` of all test cases, ``inference_seconds`` per case,
        ``parameters``; of the ten best ``calibration``, ``distance``,
        ``novelty`` and, in worlds with bridges, ``zones``
        (evaluation.lists); of SerenDiff ``portrait_megabytes`` (one training
        batch of dense portraits), on a GPU ``peak_megabytes``; with a second
        task these come again with its name in front.
    """
    settings = dict(unit.settings)
    tasks, length = settings.pop("tasks"), settings.pop("n_candidates")
    row = Row(unit.row, unit.label, **settings)
    cases, extra, checksums = {}, {}, []
    on_gpu = row.model != "control" and torch.cuda.is_available()
    for task in tasks:
        bench, grid, measures = _open(
            source or unit.data,
            "temporal" if row.fold == "temporal" else unit.fold,
            TASKS[task],
            unit.profile,
            length,
            row.counted,
        )
        bench = _changed(bench, row, length)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        folder = cache_dir() / "rivals" / f"{unit.key()[:32]}-{task}"
        model, numbers = _fit(row, bench, grid, unit.seed, folder)
        shutil.rmtree(folder, ignore_errors=True)  # what a stop left there
        table, judged = _judge(model, bench, measures, unit.seed)
        numbers |= judged
        if on_gpu:
            peak = torch.cuda.max_memory_allocated()
            numbers["peak_megabytes"] = peak / 2**20
        cases[task] = Cases.of(table)
        checksums.append(bench.test_candidates.checksum)
        first = "" if task == tasks[0] else f"{task}_"
        extra |= {first + name: value for name, value in numbers.items()}
    return Outcome(
        cases=cases,
        extra=extra,
        candidates=" ".join(checksums),
        device=device_name("cuda" if on_gpu else "cpu"),
    )


def _judge(
    model: Recommender, bench: PreparedFold, measures: ListMeasures, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Ranks of the test cases, seconds, and measures of the best items."""
    started = time.perf_counter()
    table = evaluate(
        model,
        bench.test,
        bench.test_candidates,
        generator=torch.Generator().manual_seed(seed),
        top=TOP,
    )
    seconds = time.perf_counter() - started
    numbers = {"score_seconds": seconds}
    numbers["inference_seconds"] = seconds / max(1, len(table))
    if len(table):
        found = measures.per_case(np.stack(table["top"]), bench.test)
        numbers |= {name: float(v.mean()) for name, v in found.items()}
    return table, numbers


@functools.lru_cache(maxsize=2)
def load(source: str, profile: Profile) -> Interactions:
    """The data set, read once per process."""
    return load_dataset(source, profile=profile)


@functools.lru_cache(maxsize=2)
def _open(
    source: str,
    fold: int | str,
    kind: str,
    profile: Profile,
    n_candidates: int,
    counted: str,
) -> tuple[PreparedFold, Grid, ListMeasures]:
    """The bench, a grid and measures for it, made once per process.

    Fold, candidates and world do not follow the unit's seed: other seeds
    train other models on the very same cases. Nor do candidates and measures
    follow which rows count for expectedness.
    """
    bench = open_bench(
        load(source, profile),
        fold=fold,
        kind=kind,
        profile=profile,
        n_candidates=n_candidates,
    )
    measures = ListMeasures.of(bench.fold)
    if counted != bench.fold.counted:
        other = replace(bench.fold, counted=counted)
        space = PortraitSpace.fit(other, bins="catalogue")
        bench = replace(bench, fold=other, space=space)
    return bench, Grid(bench.space), measures


def _changed(bench: PreparedFold, row: Row, length: int) -> PreparedFold:
    """The bench with the row's candidates, vectors and labels."""
    if row.candidates != "cells":
        lists = other_candidates(
            bench.fold, bench.test, row.candidates, length
        )
        bench = replace(bench, test_candidates=lists)
    if row.encoder == "tfidf":
        bench = replace(bench, fold=_with_tfidf(bench.fold))
    if row.components:
        narrow = fewer_dimensions(bench.fold, row.components)
        bench = replace(bench, fold=narrow)
    if row.labels:
        train = fewer_labels(bench.fold, row.labels)
        bench = replace(bench, fold=replace(bench.fold, train=train))
    return bench


def other_candidates(
    fold: FoldData, test: Examples, how: str, n_candidates: int
) -> Candidates:
    """Candidate lists that are not spread over the grid.

    They are ``n_candidates`` ``uniform`` over what the user does not have, or
    ``all`` of it: as many as there are for the user who lacks the fewest.
    """
    data = fold.interactions
    own = [data.item_index[data.rows(int(user))] for user in test.users]
    barred = [np.union1d(items, fold.missing_items) for items in own]
    if how == "all":
        n_candidates = data.n_items + 1 - max(len(b) for b in barred)
    nowhere = np.zeros((data.n_items + 1, 2))
    return draw_candidates(
        lambda row: nowhere,  # one cell holds everything
        test,
        n_candidates=n_candidates,
        side=1,
        exclude=lambda row: barred[row],
        seed=0,
        user_ids=data.users,
    )


def fewer_labels(fold: FoldData, count: int) -> Examples:
    """``count`` training targets, those of users drawn by their ids.

    The fewer are among the more; the histories of the other training users
    still count for popularity and co-occurrence.
    """
    users = fold.interactions.users
    if count > len(fold.train):
        raise ConfigError(
            f"{fold.interactions.name}: {len(fold.train)} labelled training "
            f"targets, {count} asked for: choose a larger profile"
        )
    order = sorted(
        range(len(fold.train)),
        key=lambda row: derived_seed(0, users[fold.train.users[row]]),
    )
    return fold.train.subset(np.sort(order[:count]))


def fewer_dimensions(fold: FoldData, count: int) -> FoldData:
    """The fold with its item vectors cut to ``count`` principal directions.

    Directions are fitted on the training items, without centring, so that
    cosines change as little as so many numbers allow.
    """
    vectors = fold.raw_vectors.numpy()
    svd = TruncatedSVD(count, algorithm="arpack", random_state=0)
    svd.fit(vectors[fold.train_items])
    narrow = unit_rows(svd.transform(vectors).astype(np.float32))
    return replace(fold, raw_vectors=torch.from_numpy(narrow))


def _with_tfidf(fold: FoldData) -> FoldData:
    """The same fold on TF-IDF vectors, fitted on training reviews."""
    data = fold.interactions
    rows = data.frame.iloc[fold.training_rows]
    texts = sorted(set(rows["review"][rows["label"] != 1]) - {""})
    return prepare_fold(
        data, fold.split, kind=fold.kind, encoder=TfidfEncoder.fit(texts)
    )


def _fit(
    row: Row, bench: PreparedFold, grid: Grid, seed: int, folder: Path
) -> tuple[Recommender, dict[str, float]]:
    """The fitted model and what fitting took; ``folder`` outlives a stop."""
    if row.model == "serendiff":
        return _serendiff(row, bench, seed)
    options = dict(row.options)
    model: Recommender
    if row.model == "control":
        model = CONTROLS[row.name](grid=grid, **options)
    elif row.model == "ranker":
        options |= {"budget": Budget(**row.budget), "grid": grid}
        model = RANKERS[row.name](**options)
    else:
        model = make_model(row.name, Budget(**row.budget), **options)
    if isinstance(model, TorchRival):
        model.checkpoint = folder
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    try:
        model.fit(bench.fold, generator=generator)
    except CheckpointError:  # damaged from outside: start again
        shutil.rmtree(folder)
        generator = torch.Generator().manual_seed(seed)
        model.fit(bench.fold, generator=generator)
    numbers = {"fit_seconds": time.perf_counter() - started}
    if row.model == "control":
        numbers["parameters"] = float(model.parameters)
        if hasattr(model, "for_cases"):  # a ceiling: it may know the case
            model = model.for_cases(bench.test)
        return model, numbers
    report = model.report
    numbers["parameters"] = float(report.parameters)
    numbers["steps"] = float(report.steps)
    if report.steps:
        trained = sum(stage.seconds for stage in report.stages)
        numbers["train_seconds"] = trained / report.steps
    return model, numbers


def _serendiff(
    row: Row, bench: PreparedFold, seed: int
) -> tuple[Recommender, dict[str, float]]:
    model = load_or_fit(
        bench, row.name, seed=seed, progress=False, **row.options
    )
    model = model.with_sampling(**row.sampling)
    report = model.report
    trained = sum(stage.seconds for stage in report.stages)
    used = model.settings
    channels = model.points.shape[1]
    batch = used.batch_size * channels * used.side**2 * 4
    last = [loss for stage in report.stages for loss in stage.losses][-100:]
    return model, {
        "portrait_megabytes": batch / 2**20,
        "fit_seconds": trained,
        "train_seconds": trained / max(1, report.steps),
        "steps": float(report.steps),
        "parameters": float(report.parameters),
        **({"loss": float(np.mean(last))} if last else {}),
    }
