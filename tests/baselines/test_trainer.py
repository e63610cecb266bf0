import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from serendifflib.baselines.item_encoder import (
    ItemEncoder,
    catalogue_loss,
    encode_distinct,
    inner_products,
)
from serendifflib.baselines.layers import (
    AdditiveAttention,
    Block,
    attention_mask,
    masked_mean,
)
from serendifflib.baselines.loop import (
    Budget,
    Stage,
    TrainingReport,
    Validation,
    seeded,
    train,
)
from serendifflib.baselines.sequences import (
    draw_unseen,
    item_vectors,
    last_items,
    pad_left,
    windows,
)
from serendifflib.errors import ConfigError, ModelError

from .toy import toy_fold


class Point(nn.Module):
    """One number that training moves towards a target."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))


def run(network, loss, *, budget=None, validate=None, **options):
    stage = Stage("toy", 10, loss, 20, 0.1)
    return train(
        network,
        stage,
        model_name="M",
        budget=budget or Budget(batch_size=4, eval_every=5, patience=2),
        generator=torch.Generator().manual_seed(0),
        validate=validate,
        **options,
    )


def test_the_best_state_is_kept_not_the_last():
    network = Point()
    # the loss drives x upwards, validation wants it near 0.5
    report = run(
        network,
        lambda index: -network.x.sum(),
        validate=lambda: -abs(network.x.item() - 0.5),
    )
    assert report.best_step == 5
    assert network.x.item() == pytest.approx(0.5, abs=0.02)
    assert report.stopped == "patience"
    assert report.steps == 15 and len(report.values) == 4


def test_training_that_only_hurts_is_undone():
    network = Point()
    report = run(
        network,
        lambda index: -network.x.sum(),
        validate=lambda: -network.x.item(),
    )
    assert report.best_step == 0 and network.x.item() == 0.0


def test_without_validation_all_steps_are_taken():
    network = Point()
    report = run(network, lambda index: -network.x.sum())
    assert (report.steps, report.best_step, report.stopped) == (
        20,
        20,
        "steps",
    )
    assert math.isnan(report.best_value)
    assert network.x.item() > 1.5


def test_the_fuse_stops_and_says_so():
    network = Point()
    report = run(
        network,
        lambda index: -network.x.sum(),
        budget=Budget(seconds=0.0, eval_every=5),
    )
    assert report.steps == 1 and report.stopped == "seconds"


def test_a_diverging_loss_names_model_stage_and_step():
    network = Point()
    with pytest.raises(
        ModelError, match="M: the loss of stage 'toy' .* step 0"
    ):
        run(network, lambda index: network.x.sum() / 0.0)


def test_no_examples_is_an_error_of_the_model():
    stage = Stage("serendipity", 0, lambda index: index, 5, 0.1)
    with pytest.raises(ModelError, match="M: no training example"):
        train(
            Point(),
            stage,
            model_name="M",
            budget=Budget(),
            generator=torch.Generator(),
        )


def test_each_round_sees_each_example_once():
    seen = []
    network = Point()
    run(network, lambda index: seen.append(index) or network.x.sum() ** 2)
    first = torch.cat(seen[:3])  # ten examples, batches of four
    assert sorted(first.tolist()) == list(range(10))


def test_warm_up_starts_small():
    steps = []
    for warmup in (0, 10):
        network = Point()
        stage = Stage("toy", 4, lambda index, n=network: -n.x.sum(), 1, 0.1)
        train(
            network,
            stage,
            model_name="M",
            budget=Budget(batch_size=4),
            generator=torch.Generator(),
            warmup=warmup,
        )
        steps.append(network.x.item())
    assert steps[0] == pytest.approx(10 * steps[1], rel=1e-3)


def test_the_report_is_plain_json():
    report = run(Point(), lambda index: (Point().x * 0 + 1).sum())
    whole = TrainingReport("M", 1, (report,), 2.0).as_dict()
    assert whole["steps"] == 20 and whole["seconds"] == 2.0
    assert whole["stages"][0]["best_value"] is None


def test_seeded_leaves_no_trace():
    before = torch.get_rng_state()
    values = []
    for _ in range(2):
        with seeded(torch.Generator().manual_seed(3)):
            values.append(torch.randn(3))
    assert torch.equal(*values)
    assert torch.equal(before, torch.get_rng_state())


def test_validation_is_the_same_for_every_model_and_clean():
    fold = toy_fold()
    first, again = (Validation.uniform(fold, n_candidates=50) for _ in "ab")
    assert torch.equal(first.candidates, again.candidates)
    assert first.candidates.shape == (len(fold.valid), 50)
    hit = first.candidates.gather(1, first.positive.unsqueeze(1)).squeeze(1)
    assert torch.equal(hit, fold.valid.targets)
    data = fold.interactions
    for row, user in zip(first.candidates, fold.valid.users, strict=True):
        own = set(data.item_index[data.rows(int(user))])
        assert len(own & set(row.tolist())) == 1  # the target alone
        assert len(set(row.tolist())) == 50


def test_pre_training_is_validated_on_next_items():
    fold = toy_fold()
    validation = Validation.uniform(fold, kind="next-item", n_cases=5)
    data = fold.interactions
    labels = data.frame["label"].to_numpy()
    targets = validation.candidates.gather(1, validation.positive.unsqueeze(1))
    assert len(targets) == 5
    users = set(fold.split.valid_users)
    for history, target in zip(validation.histories, targets, strict=True):
        rows = np.flatnonzero(data.item_index == int(target))
        rows = [r for r in rows if data.user_index[r] in users]
        assert any(labels[r] == 0 for r in rows)
        assert int(target) not in history.tolist()


def test_ndcg_by_hand():
    validation = Validation(
        torch.ones(3, 1, dtype=torch.long),
        torch.tensor([[1, 2, 3, 4]] * 3),
        torch.tensor([0, 1, 2]),
    )
    # ranks 1, 2 and, for all equal, 2.5
    scores = torch.tensor([[4.0, 3, 2, 1], [4.0, 3, 2, 1], [7.0, 7, 7, 7]])
    found = validation.ndcg(lambda h, c: scores[: len(h)], k=2)
    gains = [1.0, 1 / math.log2(3), 1 / math.log2(3.5)]
    small = 1e-3 * sum(gains)
    assert found == pytest.approx((gains[0] + gains[1] + small) / 3)


def test_windows_overlap_by_one_and_end_at_the_newest():
    pieces = windows([np.arange(1, 8), np.array([9])], 4)
    assert [list(piece) for piece in pieces] == [[4, 5, 6, 7], [1, 2, 3, 4]]
    # each step from an item to the next occurs exactly once
    assert [list(p) for p in windows([np.arange(1, 6)], 4)] == [
        [2, 3, 4, 5],
        [1, 2],
    ]


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


def test_the_sampled_softmax_with_all_items_is_the_full_one():
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
    sampled = catalogue_loss(
        queries,
        targets,
        lambda i: table[i],
        3,
        generator=generator,
        full_up_to=0,
        sampled=30_000,
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
