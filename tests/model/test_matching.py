import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib.errors import ConfigError
from serendifflib.model import matching
from serendifflib.model.matching import (
    MATCHES,
    Matcher,
    match,
    match_catalogue,
    zone_cell,
    zone_map,
)


def hand_made():
    """One user, d = 2, L = 3: a long vector in (2, 1), others short."""
    grid = torch.zeros(1, 2, 3, 3)
    grid[0, :, 2, 1] = torch.tensor([0.0, 5.0])
    grid[0, :, 0, 0] = torch.tensor([1.0, 0.0])
    grid[0, :, 1, 2] = torch.tensor([0.6, 0.8])
    return grid


CELLS = torch.tensor([[[2, 1], [0, 0], [1, 2], [0, 2], [2, 1], [2, 2]]])
ITEMS = torch.tensor(
    [[[0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [0, -1]]]
).float()


def test_own_cell_is_the_cosine_with_the_vector_of_the_cell():
    scores = match(hand_made(), ITEMS, CELLS, "own-cell")
    expected = [[1.0, 1.0, 0.6, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_field_is_the_inner_product_so_longer_vectors_weigh_more():
    scores = match(hand_made(), ITEMS, CELLS, "field")
    expected = [[5.0, 1.0, 0.6, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_zone_goes_ring_by_ring_from_the_longest_vector():
    assert zone_cell(hand_made()).tolist() == [2 * 3 + 1]
    scores = match(hand_made(), ITEMS, CELLS, "zone")
    # cosine with (0, 1), minus 2 per ring around (2, 1)
    expected = [[1.0, 0 - 4, 0 - 2, 1 - 4, 0.0, -1 - 2]]
    torch.testing.assert_close(scores, torch.tensor(expected).float())


def test_the_zone_map_is_the_length():
    lengths = zone_map(hand_made())
    assert lengths.shape == (1, 3, 3)
    assert lengths[0, 2, 1] == 5.0 and lengths[0, 0, 0] == 1.0
    assert lengths.sum() == pytest.approx(7.0)


def random_case(seed, users=3, candidates=8, d=4, side=5):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(users, d, side, side, generator=generator)
    items = F.normalize(
        torch.randn(users, candidates, d, generator=generator), dim=-1
    )
    cells = torch.randint(side, (users, candidates, 2), generator=generator)
    return grid, items, cells


@pytest.mark.parametrize("how", MATCHES)
def test_scores_equal_a_loop_over_users_and_candidates(how):
    grid, items, cells = random_case(4)
    scores = match(grid, items, cells, how)
    assert scores.shape == (3, 8)
    for user in range(3):
        lengths = grid[user].norm(dim=0)
        top = max(
            ((e, r) for e in range(5) for r in range(5)),
            key=lambda cell: float(lengths[cell]),
        )
        for c in range(8):
            e, r = cells[user, c].tolist()
            own, item = grid[user, :, e, r], items[user, c]
            if how == "field":
                expected = own @ item
            elif how == "own-cell":
                expected = own @ item / own.norm() / item.norm()
            else:
                point = grid[user][:, top[0], top[1]]
                ring = max(abs(e - top[0]), abs(r - top[1]))
                expected = point @ item / point.norm() - 2 * ring
            assert scores[user, c] == pytest.approx(float(expected), abs=1e-5)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(MATCHES), st.randoms())
def test_order_and_company_change_nothing(seed, how, random):
    grid, items, cells = random_case(seed)
    scores = match(grid, items, cells, how)
    columns = list(range(8))
    random.shuffle(columns)
    users = list(range(3))
    random.shuffle(users)
    shuffled = match(
        grid[users], items[users][:, columns], cells[users][:, columns], how
    )
    torch.testing.assert_close(shuffled, scores[users][:, columns])
    alone = match(grid[1:2], items[1:2, 2:3], cells[1:2, 2:3], how)
    torch.testing.assert_close(alone[0, 0], scores[1, 2])


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_ranges(seed, factor):
    grid, items, cells = random_case(seed)
    grid, items = grid.double(), items.double()
    cosine = match(grid, items, cells, "own-cell")
    assert (cosine.abs() <= 1 + 1e-5).all()
    # a longer field is the same field to all but the inner product
    torch.testing.assert_close(
        match(grid * factor, items, cells, "own-cell"), cosine
    )
    torch.testing.assert_close(
        match(grid * factor, items, cells, "zone"),
        match(grid, items, cells, "zone"),
    )
    torch.testing.assert_close(
        match(grid * factor, items, cells, "field"),
        match(grid, items, cells, "field") * factor,
    )


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_no_cosine_makes_up_for_a_ring(seed):
    grid, items, cells = random_case(seed)
    scores = match(grid, items, cells, "zone")
    best = zone_cell(grid)
    centre = torch.stack([best // 5, best % 5], dim=-1)
    ring = (cells - centre[:, None]).abs().amax(-1)
    for user in range(3):
        order = scores[user].argsort(descending=True)
        assert (ring[user][order].diff() >= 0).all()


@pytest.mark.parametrize("how", MATCHES)
def test_an_empty_field_gives_numbers_and_not_nan(how):
    _, items, cells = random_case(0)
    scores = match(torch.zeros(3, 4, 5, 5), items, cells, how)
    assert torch.isfinite(scores).all()
    items[0, 0] = 0.0  # an item without a vector
    scores = match(torch.randn(3, 4, 5, 5), items, cells, how)
    assert torch.isfinite(scores).all()


def test_an_unknown_matching_is_refused():
    with pytest.raises(ConfigError, match="'nearest'.*own-cell, zone, field"):
        match(hand_made(), ITEMS, CELLS, "nearest")


# ------------------------------------------------- the whole catalogue


def world(seed, users=3, items=40, width=6, side=4):
    generator = torch.Generator().manual_seed(seed)
    generated = torch.randn(users, width, side, side, generator=generator)
    vectors = torch.randn(items, width, generator=generator)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    vectors[0] = 0.0  # an item without reviews
    cells = torch.randint(0, side, (users, items, 2), generator=generator)
    return generated, vectors, cells


@pytest.mark.parametrize("how", MATCHES)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 20),
    items=st.integers(1, 60),
    side=st.integers(1, 6),
)
def test_the_catalogue_is_matched(how, seed, users, items, side):
    generated, vectors, cells = world(seed, users, items, side=side)
    vectors[1:] *= 1.5  # points are not unit vectors: memberships follow
    found = match_catalogue(generated, vectors, cells, how)
    everything = vectors.expand(users, -1, -1)
    wanted = match(generated, everything, cells, how)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 2**31))
def test_dense_and_sampled_products_are_one(seed):
    generated, vectors, cells = world(seed)
    flat = cells[..., 0] * 4 + cells[..., 1]
    points = generated.flatten(2).transpose(1, 2).contiguous()
    torch.testing.assert_close(
        matching._sampled_products(points, vectors, flat),
        matching._all_products(points, vectors, flat),
        rtol=1e-5,
        atol=1e-5,
    )


def test_another_cell_gives_another_score():
    generated, vectors, cells = world(0)
    before = match_catalogue(generated, vectors, cells, "field")
    cells[1, 7, 0] = (cells[1, 7, 0] + 1) % 4
    after = match_catalogue(generated, vectors, cells, "field")
    changed = (before != after).nonzero().tolist()
    assert changed == [[1, 7]]


def test_nobody_asks():
    generated, vectors, cells = world(0)
    nobody = match_catalogue(generated[:0], vectors, cells[:0], "field")
    assert nobody.shape == (0, 40)


@pytest.mark.parametrize("how", MATCHES)
def test_a_matcher_takes_lists_and_catalogues(how):
    generated, vectors, cells = world(4)
    matcher = Matcher(vectors, how)
    everything = torch.arange(40).expand(3, -1)
    whole = matcher(generated, everything, cells)
    lists = torch.stack([torch.randperm(40)[:7] for _ in range(3)])
    places = cells.gather(1, lists[..., None].expand(-1, -1, 2))
    found = matcher(generated, lists, places)
    torch.testing.assert_close(
        found, whole.gather(1, lists), rtol=1e-5, atol=1e-5
    )


def test_an_unknown_matching_of_a_catalogue():
    with pytest.raises(ConfigError, match="unknown matching 'cosine'"):
        match_catalogue(*world(0), "cosine")


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)
@pytest.mark.parametrize("how", MATCHES)
def test_cuda_ranks_like_the_processor(how):
    parts = world(3)
    here = match_catalogue(*parts, how)
    there = match_catalogue(*(part.cuda() for part in parts), how).cpu()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
