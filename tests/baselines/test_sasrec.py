import pytest
import torch

from serendifflib.baselines.sasrec import SASRec, gbce_power
from serendifflib.baselines.trainer import Budget
from serendifflib.errors import ConfigError, ModelError
from serendifflib.recommender import check_inductive

from .toy import MaxCosine, cases, chance, hit_ratio, toy_fold

BUDGET = Budget(
    pretrain_steps=60,
    max_steps=120,
    batch_size=32,
    eval_every=20,
    patience=3,
)
SHORT = Budget(
    pretrain_steps=3, max_steps=3, batch_size=16, eval_every=3, patience=1
)


def fit(fold, budget=BUDGET, seed=0, **options):
    model = SASRec(budget=budget, width=32, lr=3e-3, **options)
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))


def test_beats_chance_fivefold_and_max_cosine():
    fold = toy_fold()
    model = fit(fold)
    hits = hit_ratio(model, fold)
    cosine = MaxCosine().fit(fold, generator=torch.Generator())
    assert hits > 5 * chance(fold)
    assert hits > hit_ratio(cosine, fold)
    check_inductive(model, *cases(fold)[:2])
    assert model.report.parameters > 0
    assert [s.stage for s in model.report.stages] == [
        "next-item",
        "serendipity",
    ]
    with pytest.raises(ModelError, match="SASRec: row 0: padding id"):
        model.score(torch.tensor([[1]]), torch.tensor([[0]]))


@pytest.mark.parametrize("inputs", ["id", "text+id"])
def test_ids_learn_too(inputs):
    losses = fit(toy_fold(), inputs=inputs).report.stages[1].losses
    assert losses[-1] < losses[0] - 0.5


def test_changing_an_item_changes_nothing_before_it():
    fold = toy_fold()
    network = fit(fold, SHORT).network
    items = fold.test.histories[:4, -8:].clone()
    before = network(items)
    items[:, 5] = 1 + items[:, 5] % 200
    after = network(items)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("loss", ["softmax", "bce", "gbce"])
@pytest.mark.parametrize("norm", ["pre", "query"])
def test_every_loss_and_norm_is_deterministic(loss, norm):
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    before = torch.get_rng_state()
    scores = [
        fit(fold, SHORT, seed, loss=loss, norm=norm).score(
            histories, candidates
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
    assert torch.equal(before, torch.get_rng_state())


def test_next_items_need_no_labels():
    fold = toy_fold("next-item")
    model = fit(fold)
    assert [s.stage for s in model.report.stages] == ["next-item"]
    assert hit_ratio(model, fold) > 5 * chance(fold)


def test_the_power_of_gbce():
    # N = 5, K = 2: alpha = 1/2
    assert gbce_power(2, 5, 0.0) == pytest.approx(1.0)
    assert gbce_power(2, 5, 1.0) == pytest.approx(0.5)
    assert gbce_power(2, 5, 0.75) == pytest.approx(0.625)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="SASRec: unknown loss 'mse'"):
        SASRec(loss="mse")


def test_an_unfitted_model_says_so():
    with pytest.raises(ModelError, match="SASRec: not fitted"):
        SASRec().score(torch.tensor([[1]]), torch.tensor([[1]]))
