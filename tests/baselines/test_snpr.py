import numpy as np
import pytest
import torch

from serendifflib.baselines.sequences import item_vectors
from serendifflib.baselines.snpr import SNPR, Teacher
from serendifflib.baselines.trainer import Budget
from serendifflib.errors import ModelError
from serendifflib.portrait.scores import CoOccurrence
from serendifflib.recommender import check_inductive

from .toy import cases, chance, hit_ratio, toy_fold

BUDGET = Budget(
    pretrain_steps=40,
    max_steps=60,
    batch_size=32,
    eval_every=20,
    patience=4,
)
SHORT = Budget(
    pretrain_steps=2, max_steps=2, batch_size=16, eval_every=9, patience=1
)


def fit(fold, budget=BUDGET, seed=0, **options):
    model = SNPR(budget=budget, width=32, lr=3e-3, **options)
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))


def test_beats_chance_fivefold():
    fold = toy_fold()
    model = fit(fold)
    assert model.name == "SNPR-style"
    assert hit_ratio(model, fold) > 5 * chance(fold)
    check_inductive(model, *cases(fold)[:2])
    with pytest.raises(ModelError, match="SNPR-style: row 0: padding id"):
        model.score(torch.tensor([[1]]), torch.tensor([[0]]))


def test_lambda_is_chosen_on_validation_and_weighs_the_heads():
    fold = toy_fold()
    model = fit(fold, SHORT)
    assert model.option("mix") in (0.3, 0.5, 0.7)
    assert model.settings()["mix"] == model.option("mix")
    assert "out of 3 trials" in model.report.notes[0]
    assert model.mix == 0.5  # what was set stays for the next fit
    histories, candidates, _ = cases(fold)
    with torch.no_grad():
        heads = model.network(histories[:3], candidates[:3])
    for mix, expected in ((1.0, heads[0]), (0.0, heads[1])):
        model.chosen = {"mix": mix}
        scores = model.score(histories[:3], candidates[:3])
        assert torch.allclose(scores, expected, atol=1e-5)


def test_both_heads_see_the_candidate():
    fold = toy_fold()
    model = fit(fold, SHORT)
    histories, candidates, _ = cases(fold)
    for logits in model.network(histories[:3], candidates[:3]):
        assert (logits.std(dim=1) > 0).all()


def test_the_teacher_by_hand():
    # users {1,2} {1,2} {3,4}: after 1, item 2 is expected, 3 and 4 are not
    counts = CoOccurrence.fit(
        [np.array([1, 2]), np.array([1, 2]), np.array([3, 4])], 4
    )
    vectors = np.array(
        [[0, 0], [1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32
    )
    teacher = Teacher(counts, vectors, np.array([1, 2, 3, 4]))
    relevance, unexpected = teacher.targets(
        np.array([1]), np.array([], dtype=np.int64), np.array([2, 3, 4])
    )
    assert np.allclose(relevance, [0.5, 0.0, 0.8])
    # 2 beats three of four items; 3 and 4 have equal popularity
    assert unexpected[0] == pytest.approx(0.25)
    assert unexpected[1] == unexpected[2] == pytest.approx(1.0)


def test_own_rows_do_not_make_items_expected():
    fold = toy_fold()
    counts = CoOccurrence.fit(
        fold.training_histories(), fold.interactions.n_items
    )
    pool = np.arange(1, fold.interactions.n_items + 1)
    teacher = Teacher(counts, item_vectors(fold).numpy(), pool)
    none = np.zeros(0, dtype=np.int64)
    moved = []
    for sequence in fold.training_histories():
        history, target = sequence[:-1], sequence[-1:]
        with_own = teacher.targets(history, none, target)[1]
        without = teacher.targets(history, sequence, target)[1]
        moved.append(float(without[0] - with_own[0]))
    assert np.mean(moved) > 0


def test_deterministic():
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    model = SNPR(budget=SHORT, width=32)
    generators = [torch.Generator().manual_seed(k) for k in (1, 1, 2)]
    scores = [
        model.fit(fold, generator=g).score(histories, candidates)
        for g in generators
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_haste_does_not_change_its_learning_rate():
    fold = toy_fold()
    hasty = Budget(pretrain_steps=3, max_steps=3, haste=50.0)
    model = fit(fold, hasty)
    rates = {stage.lr for stage in model.stages(fold, torch.Generator())}
    assert rates == {model.lr}
