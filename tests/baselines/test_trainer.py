import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from serendifflib.baselines import layers
from serendifflib.baselines.layers import (
    AdditiveAttention,
    Block,
    ItemEncoder,
    attention_mask,
    catalogue_loss,
    encode_distinct,
    inner_products,
    masked_mean,
)
from serendifflib.baselines.sampling import (
    draw_unseen,
    item_vectors,
    last_items,
    pad_left,
    windows,
)
from serendifflib.baselines.trainer import Budget, Stage, TorchRival
from serendifflib.diffusion.devices import own_randomness
from serendifflib.errors import ConfigError, ModelError

from .toy import toy_fold


class Point(nn.Module):
    """One number that training moves towards a target."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))


class Toy(TorchRival):
    """Two stages that drive x upwards; validation wants it near 0.5."""

    name = "M"

    def _build(self, fold, vectors):
        return Point()

    def stages(self, fold, generator):
        return self.two_stages(fold, 10, self.loss, self.loss)

    def loss(self, index):
        self.seen = [*getattr(self, "seen", []), index]
        return -self.network.x.sum()

    def _validate(self, fold, kind):
        return lambda: -abs(float(self.network.x) - 0.5)

    def score_batch(self, histories, candidates):
        return self.network.x * candidates


def toy(**changes):
    given = {"pretrain_steps": 3, "max_steps": 20, "batch_size": 4,
             "eval_every": 5, "patience": 2, **changes}  # fmt: skip
    return Toy(budget=Budget(**given), lr=0.1, weight_decay=0.0, device="cpu")


def test_stages_go_through_the_common_loop():
    model = toy().fit(toy_fold(), generator=torch.Generator().manual_seed(0))
    first, second = model.report.stages
    assert [first.stage, second.stage] == ["next-item", "serendipity"]
    assert (first.steps, first.stopped) == (3, "cap")
    assert (second.stopped, second.best_step) == ("patience", 0)
    assert [step for step, _ in second.validations] == [0, 5, 10]
    assert model.network.x.item() == pytest.approx(0.3, abs=0.05)
    assert first.examples == 10 and model.report.parameters == 1
    assert model.report.steps == 13
    assert all(len(index) == 4 for index in model.seen)


def test_the_haste_of_a_budget_is_a_factor_of_the_rate():
    model = toy(pretrain_steps=1, max_steps=0, haste=3.0)
    model.fit(toy_fold(), generator=torch.Generator().manual_seed(0))
    assert model.network.x.item() == pytest.approx(0.3, rel=1e-4)


def test_a_diverging_loss_names_model_stage_and_step(monkeypatch):
    monkeypatch.setattr(Toy, "loss", lambda self, i: self.network.x.sum() / 0)
    with pytest.raises(ModelError, match="M: stage 'next-item' .* step 1"):
        toy().fit(toy_fold(), generator=torch.Generator())


def test_no_examples_is_an_error_of_the_model(monkeypatch):
    monkeypatch.setattr(
        Toy, "stages", lambda self, *_: [Stage("s", 0, self.loss, 5, 0.1)]
    )
    with pytest.raises(ConfigError, match="M: stage 's': no training example"):
        toy().fit(toy_fold(), generator=torch.Generator())


def test_budgets_that_make_no_sense():
    with pytest.raises(ConfigError, match="patience must be at least 1"):
        Budget(patience=0)
    with pytest.raises(ConfigError, match="steps must not be negative"):
        Budget(max_steps=-1)


def test_own_randomness_leaves_no_trace():
    before = torch.get_rng_state()
    values = []
    for _ in range(2):
        with own_randomness(3):
            values.append(torch.randn(3))
    assert torch.equal(*values)
    assert torch.equal(before, torch.get_rng_state())


def test_windows_overlap_by_one_and_end_at_the_newest():
    pieces = windows([np.arange(1, 8), np.array([9])], 4)
    assert pieces.tolist() == [[4, 5, 6, 7], [1, 2, 3, 4]]
    # each step from an item to the next occurs exactly once
    pieces = windows([np.arange(1, 6)], 4)
    assert pieces.tolist() == [[2, 3, 4, 5], [0, 0, 1, 2]]


def test_padding_is_cut_and_added_on_the_left():
    table = pad_left([np.array([1, 2, 3]), np.array([4])], 2)
    assert table.tolist() == [[2, 3], [0, 4]]
    histories = torch.tensor([[0, 0, 0, 1], [0, 0, 2, 3]])
    assert last_items(histories, 3).tolist() == [[0, 1], [2, 3]]
    assert last_items(histories, 1).tolist() == [[1], [3]]


@given(seed=st.integers(0, 2**32), own=st.integers(1, 7))
def test_negatives_are_unseen(seed, own):
    pool = torch.arange(1, 9)
    seen = torch.arange(1, own + 1).repeat(3, 1)
    drawn = draw_unseen(seen, 5, pool, torch.Generator().manual_seed(seed))
    assert drawn.shape == (3, 5)
    # one free item of eight can be missed 20 times in a row: (7/8)^20 = 7%
    if own <= 4:
        assert (drawn > own).all()


def test_the_encoder_is_layer_norm_then_a_map():
    vectors = torch.randn(5, 6)
    encoder = ItemEncoder(vectors, 3)
    expected = encoder.project(nn.functional.layer_norm(vectors, (6,)))
    assert torch.allclose(encoder.table()[1:], expected[1:], atol=1e-6)
    assert not encoder.table()[0].any()
    both = ItemEncoder(vectors, 3, "text+id")
    parts = both.project(both.text) + both.table_of_ids.weight
    assert torch.allclose(both.table()[1:], parts[1:])
    items = torch.tensor([[2, 2], [0, 4]])
    assert torch.allclose(encode_distinct(both, items), both(items))
    states = torch.randn(2, 3)
    assert torch.allclose(
        inner_products(states, items, both),
        (states.unsqueeze(1) * both(items)).sum(2),
        atol=1e-6,
    )
    with pytest.raises(ConfigError, match="unknown item inputs 'image'"):
        ItemEncoder(vectors, 3, "image")


def test_the_sampled_softmax_with_all_items_is_the_full_one(monkeypatch):
    table = torch.randn(4, 5)
    queries, targets = torch.randn(6, 5), torch.tensor([1, 2, 3, 1, 2, 3])
    generator = torch.Generator().manual_seed(0)
    full = catalogue_loss(
        queries, targets, lambda i: table[i], 3, generator=generator
    )
    logits = queries @ table[1:].T
    expected = nn.functional.cross_entropy(logits, targets - 1)
    assert torch.allclose(full, expected)
    # a huge sample: every item is drawn equally often, so the loss is the
    # full one over a catalogue that is repeated sampled / N times
    monkeypatch.setattr(layers, "FULL_SOFTMAX", 0)
    monkeypatch.setattr(layers, "SAMPLED", 30_000)
    sampled = catalogue_loss(
        queries, targets, lambda i: table[i], 3, generator=generator
    )
    own = logits.gather(1, (targets - 1).unsqueeze(1))
    rest = logits.exp().sum(1, keepdim=True) - own.exp()
    repeated = (own.exp() + 10_000 * rest).log() - own
    assert torch.allclose(sampled, repeated.mean(), atol=0.02)


@pytest.mark.parametrize("norm", ["pre", "post", "query"])
def test_padding_changes_nothing_and_gives_no_nan(norm):
    block = Block(8, 2, 8, 0.0, norm=norm).eval()
    x = torch.randn(2, 3, 8)
    real = torch.tensor([[True] * 3, [False, True, True]])
    alone = block(x[1:, 1:], attention_mask(real[1:, 1:], causal=True))
    together = block(x, attention_mask(real, causal=True))
    assert torch.isfinite(together).all()
    assert torch.allclose(together[1, 1:], alone[0], atol=1e-6)


def test_attention_by_hand():
    block = Block(2, 1, 2, 0.0, norm="query").eval()
    with torch.no_grad():
        block.query.weight.zero_()
        block.query.bias.zero_()
        block.key_value.bias.zero_()
        block.key_value.weight[2:] = torch.eye(2)
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]])
    real = torch.ones(1, 2, dtype=torch.bool)
    # equal attention: the first sees itself, the second the mean of both
    seen = block.attend(x, x, attention_mask(real, causal=True))
    assert torch.allclose(seen, torch.tensor([[[1.0, 0.0], [2.0, 1.0]]]))


def test_pooling_skips_padding():
    x = torch.tensor([[[9.0], [1.0], [3.0]]])
    real = torch.tensor([[False, True, True]])
    assert masked_mean(x, real).item() == 2.0
    pool = AdditiveAttention(1, 4)
    with torch.no_grad():
        pool.outer.weight.zero_()
    assert pool(x, real).item() == pytest.approx(2.0)


def test_unknown_norms_and_heads_are_refused():
    with pytest.raises(ConfigError, match="unknown norm 'batch'"):
        Block(4, 1, 4, 0.0, norm="batch")
    with pytest.raises(ConfigError, match="3 heads do not divide width 4"):
        Block(4, 3, 4, 0.0)


def test_item_vectors_are_centred_and_unit():
    fold = toy_fold()
    vectors = item_vectors(fold)
    assert torch.allclose(vectors[1:].norm(dim=1), torch.ones(200), atol=1e-5)
    raw = fold.raw_vectors[1:]
    assert (raw @ raw.T).mean() > 0.3  # the shared direction
    assert (vectors[1:] @ vectors[1:].T).mean().abs() < 0.05
