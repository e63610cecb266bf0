"""Is the premise true? Serendipity as people report it, in totals.

The paper's premise: what is unexpected *and* relevant is serendipitous. The
Taobao survey asked 11,383 people for all three. Their answers are reduced to
totals that may be stored where the answers may not; of these is asked whether
the two axes add or multiply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2, norm, zscore
from sklearn.linear_model import LogisticRegression

from serendifflib.data.human import ASKED, TRAITS, serendipity_counts
from serendifflib.errors import check_choice
from serendifflib.evaluation.stats import Interval, holm, wilson_interval

AXES = ("relevance", "unexpectedness")
BESIDE = ("novelty", "timeliness", "pur_diversity", "rec_diversity")
PEOPLE = ("curiosity", *TRAITS)
LAWS = ("constant", "relevance", "unexpectedness", "sum", "product", "odds")
TINY = 1e-9


def summarise(answers: pd.DataFrame) -> dict[str, Any]:
    """All totals of :func:`~serendifflib.data.human.read_taobao`, for JSON.

    Returns:
        ``people`` and ``surprised`` [5, 5]; ``without_straight``: the same
        without those who gave one answer to all nine questions;
        ``correlation`` of the nine answers; ``weights``
        (:func:`logit_weights`); ``persons`` (:func:`person_effects`).
    """
    people, surprised = serendipity_counts(answers)
    asked = answers[list(ASKED)]
    rest = answers[asked.nunique(axis=1) > 1]
    some, pleased = serendipity_counts(rest)
    return {
        "people": people.tolist(),
        "surprised": surprised.tolist(),
        "without_straight": {
            "people": some.tolist(),
            "surprised": pleased.tolist(),
        },
        "correlation": asked.corr().round(4).to_numpy().tolist(),
        "weights": {
            name: logit_weights(answers, columns).round(4).to_dict("records")
            for name, columns in (("axes", AXES), ("all", AXES + BESIDE))
        },
        "persons": person_effects(answers).round(6).to_dict("records"),
    }


def logit_weights(
    answers: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Weights of standardised answers in the log-odds of a surprise.

    ``"a * b"`` among the columns is the product of two standardised ones. Rows
    ``label, value`` (change of the log-odds per standard deviation), ``low,
    high`` (95%, Wald), ``p``.
    """
    names = sorted({n for c in columns for n in c.split(" * ")})
    z = {n: zscore(answers[n].to_numpy(dtype=float)) for n in names}
    design = np.column_stack(
        [np.prod([z[n] for n in c.split(" * ")], axis=0) for c in columns]
    )
    target = answers["surprised"].to_numpy()
    # no penalty: a law of eleven thousand people needs none
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(design, target)
    chance = model.predict_proba(design)[:, 1]
    full = np.column_stack([np.ones(len(design)), design])
    information = full.T @ (full * (chance * (1 - chance))[:, None])
    error = np.sqrt(np.diag(np.linalg.inv(information)))[1:]
    value = model.coef_[0]
    half = norm.ppf(0.975) * error
    return pd.DataFrame(
        {
            "label": list(columns),
            "value": value,
            "low": value - half,
            "high": value + half,
            "p": 2 * norm.sf(np.abs(value / error)),
        }
    )


def person_effects(answers: pd.DataFrame) -> pd.DataFrame:
    """How much more the two axes weigh for, say, the curious.

    For each trait of :data:`PEOPLE` one regression on both axes, the trait,
    and its products with the axes: a row for each product, with ``trait``,
    ``axis`` and ``p_holm``, corrected over all rows.
    """
    tables = []
    for trait in PEOPLE:
        columns = [*AXES, trait, *(f"{axis} * {trait}" for axis in AXES)]
        products = logit_weights(answers, columns).iloc[3:]
        tables.append(products.assign(trait=trait, axis=AXES))
    effects = pd.concat(tables, ignore_index=True)
    return effects.assign(p_holm=holm(effects["p"]))


def shares(people: np.ndarray, surprised: np.ndarray) -> pd.DataFrame:
    """The table of the premise with 95% intervals, in long form.

    From counts [5, 5] come 25 rows: ``relevance, unexpectedness`` (1 to 5),
    ``n, value, low, high`` (Wilson).
    """
    rows = [
        (r + 1, u + 1, int(n), *wilson_interval(int(surprised[r, u]), int(n)))
        for (r, u), n in np.ndenumerate(people)
    ]
    names = ["relevance", "unexpectedness", "n", "value", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def agreed(people: np.ndarray, surprised: np.ndarray) -> pd.DataFrame:
    """The same in four groups: who agreed (4 or 5) with which statement.

    Rows ``neither, unexpected, relevant, both``; columns ``n, value, low,
    high``.
    """
    n, hits = (
        np.add.reduceat(np.add.reduceat(np.asarray(c), [0, 3], 0), [0, 3], 1)
        for c in (people, surprised)
    )
    names = ("neither", "unexpected", "relevant", "both")
    lines = [
        (float(count), *wilson_interval(hit, count))
        for count, hit in zip(n.ravel(), hits.ravel(), strict=True)
    ]
    return pd.DataFrame(lines, names, ["n", "value", "low", "high"])


def fit_law(
    law: str, people: np.ndarray, surprised: np.ndarray
) -> tuple[np.ndarray, float]:
    """The most likely shares [5, 5] under one law, and the log-likelihood.

    With a level per answer of each axis, the share of cell (i, j) is
    ``a_i + b_j`` ("sum"), ``a_i * b_j`` ("product") or ``expit(a_i + b_j)``
    ("odds"): nine free numbers each, so that their likelihoods can be compared
    as they are. The other laws leave out one axis or both.
    """
    check_choice("law", law, LAWS)
    n, k = np.asarray(people, float), np.asarray(surprised, float)
    if law in ("constant", "relevance", "unexpectedness"):
        axis = {"constant": None, "relevance": 1, "unexpectedness": 0}[law]
        p = k.sum(axis, keepdims=True) / n.sum(axis, keepdims=True)
        p = np.broadcast_to(p, n.shape)
        return p, log_likelihood(p, n, k)
    shape = _SHAPES[law]
    rows, columns = n.shape
    found = minimize(
        lambda x: -log_likelihood(shape(x, rows), n, k) / n.sum(),
        np.zeros(rows + columns + 1),
        method="BFGS",
        options={"gtol": 1e-6},
    )
    p = shape(found.x, rows)
    return p, log_likelihood(p, n, k)


def _sum(x: np.ndarray, rows: int) -> np.ndarray:
    # two parts of one whole: every share stays between 0 and 1
    part = expit(x[-1])
    a, b = part * expit(x[:rows]), (1 - part) * expit(x[rows:-1])
    return a[:, None] + b[None, :]


_SHAPES = {
    "sum": _sum,
    "product": lambda x, rows: np.outer(expit(x[:rows]), expit(x[rows:-1])),
    "odds": lambda x, rows: expit(np.add.outer(x[:rows], x[rows:-1])),
}


def log_likelihood(p: np.ndarray, n: np.ndarray, k: np.ndarray) -> float:
    """Of ``k`` surprised among ``n`` people in cells with shares ``p``."""
    p = np.clip(p, TINY, 1 - TINY)
    return float((k * np.log(p) + (n - k) * np.log1p(-p)).sum())


def extra_term(people: np.ndarray, surprised: np.ndarray) -> Interval:
    """Likelihood ratio of 25 free shares against the law "odds".

    The statistic, its degrees of freedom and p, in an ``Interval``.
    """
    n, k = np.asarray(people, float), np.asarray(surprised, float)
    free = log_likelihood(k / n, n, k)
    statistic = 2 * (free - fit_law("odds", n, k)[1])
    df = (n.shape[0] - 1) * (n.shape[1] - 1)
    return Interval(statistic, df, float(chi2.sf(statistic, df)))


def held_out_losses(
    people: np.ndarray,
    surprised: np.ndarray,
    *,
    folds: int = 10,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Log loss [n] of every person under laws fitted without their fold.

    The totals suffice: people of one cell with one answer are alike, so a
    random split of them is a random split of the people. "table" is the table
    of free shares (one of each kind added to every cell).
    """
    n, k = np.asarray(people), np.asarray(surprised)
    answers = np.concatenate([k.ravel(), (n - k).ravel()])
    cell = np.repeat(np.tile(np.arange(n.size), 2), answers)
    hit = np.arange(len(cell)) < k.sum()
    fold = torch.randperm(len(cell), generator=generator).numpy() % folds
    losses = {law: np.zeros(len(cell)) for law in (*LAWS, "table")}
    for number in range(folds):
        out = fold == number
        some, pleased = (
            np.bincount(cell[chosen], minlength=n.size).reshape(n.shape)
            for chosen in (~out, ~out & hit)
        )
        for law, loss in losses.items():
            if law == "table":
                p = (pleased + 1) / (some + 2)
            else:
                p, _ = fit_law(law, some, pleased)
            of = np.clip(p.ravel()[cell[out]], TINY, 1 - TINY)
            loss[out] = -np.where(hit[out], np.log(of), np.log1p(-of))
    return losses


def counts_of(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """``people`` and ``surprised`` of a record, as arrays."""
    return np.array(record["people"]), np.array(record["surprised"])
