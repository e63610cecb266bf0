import functools

import torch

from serendifflib.baselines.bert4rec import BERT4Rec, hide

from . import rivals
from .rivals import SHORT
from .toy import toy_fold

fit = functools.partial(rivals.fit, BERT4Rec)


def test_mask_is_last_and_a_full_history_does_not_overflow():
    fold = toy_fold()
    model = fit(fold, SHORT, max_history=6)
    histories = torch.arange(1, 13).reshape(1, 12)
    given = model.with_mask(histories)
    assert given.tolist() == [[8, 9, 10, 11, 12, 201]]
    assert model.with_mask(histories[:, :2]).tolist() == [[1, 2, 201]]
    # items beyond the newest five cannot matter
    candidates = torch.arange(20, 40).reshape(1, 20)
    assert torch.equal(
        model.score(histories, candidates),
        model.score(histories[:, -5:], candidates),
    )


def test_hidden_places():
    generator = torch.Generator().manual_seed(0)
    items = torch.zeros(4000, 12, dtype=torch.long)
    items[:, 2:] = 7
    hidden = hide(items, 0.4, 0.5, generator)
    assert not hidden[:, :2].any()  # padding is never hidden
    counts = hidden.sum(1)
    assert set(counts.tolist()) == {1, 4}
    only = counts == 1
    assert hidden[only][:, -1].all()
    assert 0.47 < only.float().mean() < 0.53
    # without last-only rows every place is hidden equally often
    share = hide(items, 0.4, 0.0, generator).float().mean(0)[2:]
    assert (share - 0.4).abs().max() < 0.03
    # a single item is hidden, whatever the share
    assert hide(items[:, :3], 0.1, 0.0, generator).sum(1).eq(1).all()


def test_it_sees_both_sides():
    fold = toy_fold()
    network = fit(fold, SHORT).network
    items = fold.test.histories[:2, -6:].clone()
    before = network(items)[:, 0]
    items[:, 5] = 1 + items[:, 5] % 200
    assert not torch.allclose(before, network(items)[:, 0])


def test_the_bias_is_an_option():
    fold = toy_fold()
    model = fit(fold, SHORT)
    assert not model.network.bias.requires_grad
    assert not model.network.bias.any()
    network = fit(fold, SHORT, use_bias=True).network
    assert network.bias.requires_grad
    with torch.no_grad():
        network.bias[7] = 100.0
    model.network = network
    scores = model.score(fold.test.histories[:1], torch.tensor([[6, 7, 8]]))
    assert scores.argmax() == 1
