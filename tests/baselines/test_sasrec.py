import functools

import pytest
import torch

from serendifflib.baselines.sasrec import SASRec
from serendifflib.errors import ConfigError

from . import rivals
from .rivals import SHORT
from .toy import chance, hit_ratio, toy_fold

fit = functools.partial(rivals.fit, SASRec)


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


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("norm", ["pre", "query"])
def test_every_loss_and_norm_learns(loss, norm):
    losses = fit(toy_fold(), loss=loss, norm=norm).report.stages[1].losses
    assert losses[-1] < losses[0]


def test_next_items_need_no_labels():
    fold = toy_fold("next-item")
    model = fit(fold)
    assert [s.stage for s in model.report.stages] == ["next-item"]
    assert hit_ratio(model, fold) > 5 * chance(fold)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="SASRec: unknown loss 'mse'"):
        SASRec(loss="mse")
