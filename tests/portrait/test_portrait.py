from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serendifflib.errors import ConfigError
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.grid import place_training
from serendifflib.portrait.items import Isotropy
from serendifflib.portrait.portrait import (
    Portraits,
    PortraitSpace,
    cell_of,
    rasterise,
)
from serendifflib.portrait.scores import (
    QuantileMap,
    item_keys,
    relevance_catalogue,
    relevance_prefix,
)

FINITE = st.floats(-50, 50, allow_subnormal=False)


SCORES = hnp.arrays(np.float64, st.integers(1, 60), elements=FINITE)


# --------------------------------------------------------------- quantiles


@settings(max_examples=100)
@given(SCORES, SCORES)
def test_positions_lie_in_the_unit_interval_and_keep_the_order(
    reference, asked
):
    quantiles = QuantileMap.fit(reference)
    keys = item_keys(np.arange(1, len(asked) + 1))
    positions = quantiles.positions(asked, keys)
    assert ((positions >= 0) & (positions <= 1)).all()
    order = np.argsort(asked, kind="stable")
    rises = np.diff(asked[order]) > 1e-8
    assert (np.diff(positions[order])[rises] >= 0).all()


def test_untied_scores_fill_the_interval_evenly():
    random = np.random.default_rng(0)
    scores = np.exp(random.normal(size=1000))
    positions = QuantileMap.fit(scores).positions(
        scores, item_keys(np.arange(1000))
    )
    counts = np.bincount(cell_of(positions, 10), minlength=10)
    np.testing.assert_array_equal(counts, 100)


def test_a_tie_is_spread_over_the_range_that_it_fills():
    scores = np.array([0.0] * 800 + list(range(1, 201)), dtype=float)
    positions = QuantileMap.fit(scores).positions(
        scores, item_keys(np.arange(1, 1001))
    )
    assert positions[:800].min() >= 0 and positions[:800].max() < 0.8
    assert positions[800:].min() >= 0.8
    counts = np.bincount(cell_of(positions, 10), minlength=10)
    assert (abs(counts - 100) <= 2).all()


def test_positions_by_hand():
    quantiles = QuantileMap.fit(np.array([np.nan, 3.0, 1.0, 1.0, -np.inf]))
    np.testing.assert_array_equal(quantiles.reference, [1.0, 1.0, 3.0])
    asked = np.array([-np.inf, 0.0, 1.0, 2.0, 3.0, 9.0, np.inf])
    np.testing.assert_allclose(
        quantiles.positions(asked, np.full(7, 0.5)),
        [0, 0, 1 / 3, 2 / 3, 5 / 6, 1, 1],
    )


def test_scores_that_differ_by_rounding_are_tied():
    noise = np.array([0.1 + 0.2, 0.3, 0.3 + 1e-12, 0.3 - 1e-12])
    quantiles = QuantileMap.fit(np.array([0.0, 0.3, 0.3 + 1e-13, 1.0]))
    positions = quantiles.positions(noise, np.full(4, 0.5))
    np.testing.assert_allclose(positions, 0.5)


def test_without_a_reference_everything_is_in_the_middle():
    quantiles = QuantileMap.fit(np.array([np.nan]))
    np.testing.assert_array_equal(
        quantiles.positions(np.array([1.0, 2.0]), np.zeros(2)), 0.5
    )


def test_many_scores_are_thinned_without_moving_the_quantiles():
    scores = np.random.default_rng(1).normal(size=50_000)
    quantiles = QuantileMap.fit(scores)
    assert len(quantiles.reference) == 10_001
    assert quantiles.reference[0] == pytest.approx(scores.min())
    assert quantiles.reference[-1] == pytest.approx(scores.max())
    asked = np.quantile(scores, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(
        quantiles.positions(asked, np.zeros(3)), [0.1, 0.5, 0.9], atol=2e-3
    )


def test_keys_are_fixed_even_and_in_range():
    keys = item_keys(np.arange(1, 1001))
    np.testing.assert_array_equal(keys[6:7], item_keys(np.array([7])))
    assert ((keys >= 0) & (keys < 1)).all()
    counts = np.bincount(cell_of(keys, 10), minlength=10)
    assert (abs(counts - 100) <= 2).all()


# ------------------------------------------------------------------- cells


def test_cells_by_hand():
    positions = np.array([0.0, 0.0999, 0.1, 0.55, 0.999, 1.0])
    np.testing.assert_array_equal(cell_of(positions, 10), [0, 0, 1, 5, 9, 9])
    np.testing.assert_array_equal(cell_of(positions, 1), 0)


@settings(max_examples=60)
@given(
    hnp.arrays(np.float64, (2, 5, 2), elements=st.floats(0, 1)),
    st.sampled_from([1, 5, 7, 10, 100]),
)
def test_portraits_and_catalogue_agree_about_cells(positions, side):
    """Two functions find cells; an item must be in the same one."""
    items = torch.ones(2, 5, dtype=torch.long)
    cells = Portraits(items, torch.from_numpy(positions)).cells(side)
    expected = cell_of(positions, side)
    np.testing.assert_array_equal(cells, expected)
    assert expected.min() >= 0 and expected.max() < side


# --------------------------------------------------------------- rasterise


def test_three_items_in_two_cells():
    vectors = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0]]).float()
    items = torch.tensor([[0, 1, 2, 3]])
    cells = torch.tensor([[[0, 0], [2, 1], [2, 1], [0, 0]]])
    grid, counts = rasterise(items, cells, vectors, 3)
    assert grid.shape == (1, 2, 3, 3) and counts.shape == (1, 3, 3)
    expected = torch.zeros(1, 2, 3, 3)
    expected[0, :, 2, 1] = torch.tensor([0.5, 0.5])
    expected[0, :, 0, 0] = torch.tensor([-1.0, 0.0])
    assert torch.equal(grid, expected)
    assert counts[0, 2, 1] == 2 and counts[0, 0, 0] == 1
    assert counts.sum() == 3  # padding is not counted


def random_portraits(seed, side, batch=4, n=9, items=20, d=3):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(items + 1, d))
    vectors[0] = 0.0
    numbers = random.integers(1, items + 1, (batch, n))
    padding = np.arange(n) < random.integers(0, n, (batch, 1))
    numbers[padding] = 0
    positions = random.random((batch, n, 2))
    positions[padding] = 0.0
    return (
        torch.from_numpy(vectors),
        Portraits(torch.from_numpy(numbers), torch.from_numpy(positions)),
    )


@pytest.mark.parametrize("side", [1, 5, 10, 100])
def test_nothing_is_lost_by_averaging(side):
    """Count times mean, summed over cells, is the sum of the vectors."""
    for seed in range(5):
        vectors, portraits = random_portraits(seed, side)
        everyone = torch.arange(len(portraits))
        grid, counts = portraits.dense(everyone, vectors, side)
        assert grid.shape == (4, 3, side, side)
        total = (grid * counts[:, None]).sum(dim=(2, 3))
        torch.testing.assert_close(total, vectors[portraits.items].sum(dim=1))
        assert torch.equal(
            counts.sum(dim=(1, 2)), (portraits.items > 0).sum(1).double()
        )
        empty = (counts == 0)[:, None].expand_as(grid)
        assert not grid[empty].any()
        # the plain definition, cell by cell
        cells = portraits.cells(side)
        for b, m in np.argwhere(portraits.items.numpy() > 0):
            e, r = cells[b, m]
            mates = (cells[b] == cells[b, m]).all(1) & (portraits.items[b] > 0)
            torch.testing.assert_close(
                grid[b, :, e, r], vectors[portraits.items[b][mates]].mean(0)
            )


def test_batch_order_padding_and_order_of_items_change_nothing():
    vectors, portraits = random_portraits(9, 5)
    order = torch.tensor([2, 0, 3, 1])
    whole, counts = portraits.dense(torch.arange(4), vectors, 5)
    mixed, mixed_counts = portraits.dense(order, vectors, 5)
    assert torch.equal(mixed, whole[order])
    assert torch.equal(mixed_counts, counts[order])
    longer = Portraits(
        torch.nn.functional.pad(portraits.items, (3, 0)),
        torch.nn.functional.pad(portraits.positions, (0, 0, 3, 0)),
    )
    assert torch.equal(longer.dense(torch.arange(4), vectors, 5)[0], whole)
    backwards = Portraits(portraits.items.flip(1), portraits.positions.flip(1))
    torch.testing.assert_close(
        backwards.dense(torch.arange(4), vectors, 5)[0], whole
    )


# ------------------------------------------------------------------- space


@pytest.fixture(scope="module", params=["interactions", "catalogue"])
def space(request, tiny_fold):
    return PortraitSpace.fit(tiny_fold, bins=request.param)


def histories(tiny_fold):
    return tiny_fold.training_histories()[:6]


def test_the_first_item_sits_at_the_anchor(space, tiny_fold):
    for history in histories(tiny_fold):
        for own in (None, history):
            positions = space.positions(history, own=own)
            assert positions.shape == (len(history), 2)
            np.testing.assert_array_equal(positions[0], 1.0)
            assert ((positions >= 0) & (positions <= 1)).all()
            np.testing.assert_array_equal(cell_of(positions[0], 10), [9, 9])
    one = space.positions(histories(tiny_fold)[0][:1])
    np.testing.assert_array_equal(one, [[1.0, 1.0]])


def test_both_positions_are_the_two_of_them(space, tiny_fold):
    history = histories(tiny_fold)[1]
    past, catalogue = space.both_positions(history, own=history)
    np.testing.assert_array_equal(past, space.positions(history, own=history))
    np.testing.assert_array_equal(
        catalogue, space.catalogue_positions(history, own=history)
    )
    assert catalogue.shape == (len(space.vectors), 2)
    assert ((catalogue >= 0) & (catalogue <= 1)).all()


def test_positions_follow_the_scores(space, tiny_fold):
    history = histories(tiny_fold)[2]
    positions = space.catalogue_positions(history)[1:]
    for axis, scores in enumerate(space.catalogue_scores(history)):
        order = np.argsort(scores[1:], kind="stable")
        rises = np.diff(scores[1:][order]) > 1e-8
        steps = np.diff(positions[order, axis])
        assert (steps[rises] >= 0).all()


def test_catalogue_bins_hold_equally_many_items(tiny_fold):
    space = PortraitSpace.fit(tiny_fold, bins="catalogue")
    for history in histories(tiny_fold):
        positions = space.catalogue_positions(history)[1:]  # 200 items
        # items of equal popularity tie in expectedness, none in relevance
        for axis, slack in ((0, 5), (1, 0)):
            counts = np.bincount(cell_of(positions[:, axis], 10))
            assert counts.sum() == 200 and len(counts) == 10
            assert (abs(counts - 20) <= slack).all()


def test_interaction_bins_hold_equally_many_training_scores(tiny_fold):
    space = PortraitSpace.fit(tiny_fold, bins="interactions")
    placed = np.concatenate(
        [
            space.positions(history, own=history)[1:]
            for history in tiny_fold.training_histories()
        ]
    )
    for axis in (0, 1):
        counts = np.bincount(cell_of(placed[:, axis], 10), minlength=10)
        assert (abs(counts - len(placed) / 10) <= 0.1 * len(placed)).all()


def test_the_space_is_made_of_the_training_users_alone(tiny_fold):
    space = PortraitSpace.fit(
        tiny_fold, bins="interactions", isotropy="center", mu=0.5
    )
    transform = Isotropy.fit(
        tiny_fold.raw_vectors, tiny_fold.train_items, "center"
    )
    by_hand = PortraitSpace.from_histories(
        tiny_fold.training_histories(),
        transform.apply(tiny_fold.raw_vectors),
        mu=0.5,
    )
    assert torch.equal(space.vectors, by_hand.vectors)
    np.testing.assert_array_equal(
        space.expectedness_map.reference, by_hand.expectedness_map.reference
    )
    rows = np.isin(
        tiny_fold.interactions.user_index, tiny_fold.split.train_users
    )
    items = tiny_fold.interactions.item_index[rows]
    np.testing.assert_array_equal(
        space.co_occurrence.users_of, np.bincount(items, minlength=201)
    )


def test_later_items_move_no_earlier_one_in_interaction_bins(tiny_fold):
    space = PortraitSpace.fit(tiny_fold, bins="interactions")
    history = histories(tiny_fold)[3]
    whole = space.positions(history)
    np.testing.assert_array_equal(space.positions(history[:4]), whole[:4])


@pytest.mark.parametrize("weights", ["uniform", "recency", "similarity"])
def test_weights_reach_the_scores(tiny_fold, weights):
    space = PortraitSpace.fit(tiny_fold, weights=weights)
    history = histories(tiny_fold)[0]
    expectedness, relevance = space.catalogue_scores(history)
    assert np.isfinite(expectedness[1:]).all()
    plain = PortraitSpace.fit(tiny_fold)
    same = np.allclose(
        plain.catalogue_scores(history)[0][1:], expectedness[1:]
    )
    assert same == (weights == "uniform")
    # the score of the next item in the prefix is the one in the catalogue
    prefix, _ = space.scores(history)
    cut = space.catalogue_scores(history[:3])[0]
    assert prefix[3] == pytest.approx(cut[history[3]], abs=1e-9)


def test_no_training_history_still_gives_positions():
    vectors = torch.from_numpy(
        unit_rows(np.random.default_rng(0).normal(size=(6, 3)).astype("f4"))
    )
    vectors[0] = 0.0
    space = PortraitSpace.from_histories([np.array([1])], vectors)
    positions = space.positions(np.array([2, 4]))
    np.testing.assert_array_equal(positions, [[1, 1], [0.5, 0.5]])


def test_unknown_bins_are_refused(tiny_fold):
    with pytest.raises(ConfigError, match="'users'.*interactions, catalogue"):
        PortraitSpace.fit(tiny_fold, bins="users")
    with pytest.raises(ConfigError, match="isotropy"):
        PortraitSpace.fit(tiny_fold, isotropy="zca")
    with pytest.raises(ConfigError, match="weights"):
        PortraitSpace.fit(tiny_fold, weights="newest")


# many users at once


def some_world(items=60, users=25, width=6, seed=0, missing=()):
    """Histories and unit vectors; items ``missing`` have none."""
    random = np.random.default_rng(seed)
    histories = [
        random.permutation(items)[: random.integers(3, 12)] + 1
        for _ in range(users)
    ]
    vectors = torch.from_numpy(random.standard_normal((items + 1, width)))
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    vectors[[0, *missing]] = 0.0
    return histories, vectors


@pytest.mark.parametrize("bins", ["interactions", "catalogue"])
@pytest.mark.parametrize("weights", ["uniform", "recency", "similarity"])
def test_placing_many_is_placing_one_after_the_other(bins, weights):
    histories, vectors = some_world(missing=[7, 8])
    space = PortraitSpace.from_histories(
        histories, vectors, bins=bins, weights=weights
    )
    asked, own = [], []
    for history in histories:  # prefixes of one user, and a window
        asked += [history[:1], history[:2], history[:2], history, history[1:]]
        own += [history] * 5
    asked, own = [*asked, histories[0]], [*own, None]
    items = np.random.default_rng(1).integers(1, 61, (len(asked), 9))
    placed = space.place(asked, items, own=own)
    for row, (history, its) in enumerate(zip(asked, own, strict=True)):
        past, everything = space.both_positions(history, own=its)
        np.testing.assert_allclose(placed.past[row], past, atol=1e-6)
        wanted = everything[items[row]]
        np.testing.assert_allclose(placed.positions[row], wanted, atol=1e-6)
        for axis, scores in enumerate(
            space.catalogue_scores(history, own=its)
        ):
            np.testing.assert_allclose(
                placed.scores[row, :, axis], scores[items[row]], atol=1e-9
            )


def test_a_sample_of_the_catalogue_places_as_the_whole_does():
    histories, vectors = some_world(items=20_000, users=40)
    space = PortraitSpace.from_histories(histories, vectors, bins="catalogue")
    items = np.random.default_rng(1).integers(1, 20_001, (40, 50))
    whole = space.place(histories, items)
    sampled = space.place(histories, items, sample=True)
    gap = np.abs(sampled.positions - whole.positions)
    assert 0 < gap.mean() < 0.006  # what the docstring says
    assert gap.max() < 0.03
    np.testing.assert_allclose(sampled.scores, whole.scores, atol=1e-12)


def test_a_small_catalogue_is_its_own_sample():
    histories, vectors = some_world()
    space = PortraitSpace.from_histories(histories, vectors, bins="catalogue")
    items = np.arange(1, 51).reshape(25, 2)
    whole = space.place(histories, items)
    sampled = space.place(histories, items, sample=True)
    np.testing.assert_array_equal(sampled.positions, whole.positions)


def test_models_of_a_fold_share_spaces_and_places(tiny_fold, monkeypatch):
    space = PortraitSpace.fit(tiny_fold, bins="catalogue")
    assert PortraitSpace.fit(tiny_fold, bins="catalogue") is space
    assert PortraitSpace.fit(tiny_fold, bins="interactions") is not space
    placed = place_training(space, tiny_fold, tiny_fold.train)
    monkeypatch.setattr(PortraitSpace, "place", None)  # not asked again
    again = place_training(space, tiny_fold, tiny_fold.train)
    assert again is placed
    other = replace(tiny_fold, raw_vectors=tiny_fold.raw_vectors.flip(1))
    assert PortraitSpace.fit(other, bins="catalogue") is not space


# an item without text is missing


def test_an_item_without_a_vector_has_no_relevance_and_gives_none():
    histories, vectors = some_world()
    vectors[1:] = vectors[1:].abs() * -1.0  # cosines are positive ...
    vectors[1] *= -1.0  # ... but to item 1
    vectors[2] = 0.0
    history = np.array([2, 1, 3, 2])
    found = relevance_prefix(history, vectors)
    assert np.isnan(found[[0, 1, 3]]).all()
    assert found[2] == pytest.approx(float(vectors[3] @ vectors[1]))
    assert found[2] < 0
    everything = relevance_catalogue(history[:2], vectors)
    assert np.isnan(everything[2])
    assert (everything[3:] < 0).all()  # today's cosine 0 was a floor


def test_items_without_vectors_move_nobody():
    histories, vectors = some_world(missing=[*range(41, 61)])
    fewer = [history[history <= 40] for history in histories]
    alone = PortraitSpace.from_histories(fewer, vectors[:41], bins="catalogue")
    ghosts = PortraitSpace.from_histories(fewer, vectors, bins="catalogue")
    assert ghosts.relevance_range == alone.relevance_range
    history, items = fewer[0], np.arange(1, 41)[None]
    # popularity is over all items, so expectedness is not to be compared
    a, b = (s.place([history], items) for s in (alone, ghosts))
    np.testing.assert_allclose(a.positions[..., 1], b.positions[..., 1])
    np.testing.assert_allclose(a.past[0][:, 1], b.past[0][:, 1])
    items = np.arange(1, 61)[None]
    assert (ghosts.place([history], items).positions[0, 40:, 1] == 0.5).all()


def test_a_portrait_leaves_out_what_has_no_vector():
    _, vectors = some_world(missing=[2])
    items = torch.tensor([[0, 1, 2]])
    cells = torch.zeros(1, 3, 2, dtype=torch.long)
    portrait, counts = rasterise(items, cells, vectors, 3)
    assert torch.equal(portrait[0, :, 0, 0], vectors[1])
    assert counts.sum() == 1


def test_a_history_without_any_text_is_placed_in_the_middle():
    histories, vectors = some_world(missing=[1, 2])
    space = PortraitSpace.from_histories(histories, vectors, bins="catalogue")
    past, everything = space.both_positions(np.array([1, 2]))
    assert past[0].tolist() == [1.0, 1.0] and past[1, 1] == 0.5
    assert (everything[1:, 1] == 0.5).all()
