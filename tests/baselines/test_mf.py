import dataclasses

import numpy as np
import pytest
import scipy.sparse
import torch
from inductive import check_inductive

from serendifflib.baselines.mf import (
    MatrixFactorization,
    item_means,
    solve_implicit,
    solve_rows,
)
from serendifflib.errors import ConfigError, ModelError

from .toy import cases, chance, hit_ratio, toy_fold


def fit(fold, seed=0, **options):
    options = {"factors": 8, "sweeps": 8} | options
    model = MatrixFactorization(**options)
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))


def test_sweeps_bring_the_factors_nearer_to_the_rows():
    fold = toy_fold()
    rows = fold.training_rows
    data = fold.interactions
    users = np.unique(data.user_index[rows], return_inverse=True)[1]
    items = data.item_index[rows]

    def error(sweeps):
        model = fit(fold, sweeps=sweeps, regularization=1.0)
        known = scipy.sparse.csr_array(
            (np.ones(len(rows)), (users, items)),
            (users.max() + 1, data.n_items + 1),
        )
        factors = model._users(known)[users]
        fitted = (factors * model.item_factors[items]).sum(axis=1)
        return ((1.0 - fitted) ** 2).mean()

    assert error(8) < error(1)


def test_it_refuses_to_score_before_fit_and_what_is_no_number():
    request = torch.tensor([[1, 2]]), torch.tensor([[7, 8]])
    with pytest.raises(ModelError, match="MF: not fitted; call fit first"):
        MatrixFactorization().score(*request)
    model = fit(toy_fold())
    model.item_factors[:] = np.nan
    with pytest.raises(ModelError, match="MF: row 0: NaN among the scores"):
        model.score(*request)


def test_beats_chance_fivefold_on_next_items():
    fold = toy_fold("next-item")
    model = fit(fold, factors=16, regularization=1.0)
    assert hit_ratio(model, fold) > 5 * chance(fold)
    check_inductive(model, *cases(fold)[:2])
    with pytest.raises(ModelError, match="MF: row 0: padding id"):
        model.score(torch.tensor([[1]]), torch.tensor([[0]]))


def test_an_implicit_solution_has_no_gradient():
    random = np.random.default_rng(0)
    factors = random.normal(size=(7, 3))
    shown = random.random((4, 7)) < 0.4
    solved = solve_implicit(
        scipy.sparse.csr_array(shown.astype(float)), factors, 40.0, 0.5
    )
    for row in range(4):
        x = torch.tensor(solved[row], requires_grad=True)
        weight = torch.tensor(1.0 + 40.0 * shown[row])
        error = torch.tensor(shown[row] * 1.0) - torch.tensor(factors) @ x
        loss = (weight * error**2).sum() + 0.5 * x.square().sum()
        loss.backward()
        assert x.grad.abs().max() < 1e-8


def test_a_rating_solution_has_no_gradient():
    random = np.random.default_rng(1)
    factors, offsets = random.normal(size=(6, 2)), random.normal(size=6)
    ratings = random.integers(1, 6, size=(3, 6)) * (
        random.random((3, 6)) < 0.6
    )
    solved = solve_rows(
        scipy.sparse.csr_array(ratings.astype(float)), factors, offsets, 0.3
    )
    for row in range(3):
        x = torch.tensor(solved[row], requires_grad=True)
        shown = torch.tensor(ratings[row] > 0)
        fitted = torch.tensor(offsets) + x[0] + torch.tensor(factors) @ x[1:]
        error = (torch.tensor(ratings[row]) - fitted)[shown]
        (error.square().sum() + 0.3 * x.square().sum()).backward()
        assert x.grad.abs().max() < 1e-8


def test_item_means():
    ratings = scipy.sparse.csr_array([[0, 4.0, 0, 2.0], [0, 5.0, 0, 0]])
    assert item_means(ratings).tolist() == [11 / 3, 4.5, 11 / 3, 2.0]


@pytest.mark.parametrize("mode", ["implicit", "ratings"])
def test_users_of_a_topic_share_a_direction(mode):
    fold = toy_fold()
    model = fit(fold, mode=mode, regularization=1.0)
    users = model.embed(fold.valid.histories)
    assert users.shape == (len(fold.valid), 8)
    assert users.dtype == torch.float32
    check_inductive(model, *cases(fold)[:2])
    if mode == "implicit":
        users = torch.nn.functional.normalize(users, dim=1)
        cosines = users @ users.T
        topic = torch.from_numpy(fold.valid.users % 8)
        same = topic[:, None] == topic[None, :]
        assert cosines[same].mean() > cosines[~same].mean() + 0.5


def test_held_out_rows_are_not_read():
    fold = toy_fold()
    data = fold.interactions
    frame = data.frame.copy()
    held_out = ~np.isin(data.user_index, fold.split.train_users)
    frame.loc[held_out, "rating"] = 1.0
    changed = dataclasses.replace(
        fold, interactions=dataclasses.replace(data, frame=frame)
    )
    histories, candidates, _ = cases(fold)
    scores = [
        fit(part, mode="ratings").score(histories, candidates)
        for part in (fold, changed)
    ]
    assert torch.equal(scores[0], scores[1])


def test_cold_items_get_factors_from_their_text():
    fold = toy_fold()
    model = fit(fold)
    cold = ~model.known
    cold[0] = False
    assert cold.any()
    assert model.item_factors[cold].any(axis=1).all()
    assert not model.item_factors[0].any()


def test_deterministic_and_unknown_options_are_refused():
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    first, again = (fit(fold).score(histories, candidates) for _ in range(2))
    assert torch.equal(first, again)
    with pytest.raises(ConfigError, match="MF: unknown mode 'svd'"):
        MatrixFactorization(mode="svd")
